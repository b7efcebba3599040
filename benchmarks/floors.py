"""The least time that a part of a training step can take: its work, counted from the config, at the machine's measured peaks.

The floor is of DIRECT arithmetic, every product of the formulas done once. A method that needs fewer multiplications, such as a
convolution in the frequency domain, may go below it.

Work is that of forward and backward together:

- FLOPs: 2 per multiply-add of the matrix products and convolutions, as ``torch.utils.flop_counter`` has them; what is done
  number by number (ReLU, squash, softmax, Adam) is not counted. The backward pass takes a product for the gradient of the
  weights and one for that of the inputs, so 3 products in all, but 2 of the first convolution: images have no gradient.
- Bytes: what a part must read and write if all that it makes on the way stays in the processor: its inputs and weights, its
  outputs, and the gradients of all three. Weights, their gradients and Adam's moments are fp32 at every precision, and so are
  votes, routing and losses, whose products are measured against the peak of fp32.

The paper's network takes 1.2 GFLOP per training image, 95 % of them in PrimaryCaps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from capsnet.config import RunConfig

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}  # of a number that passes from one part to the next
WEIGHT = 4  # bytes of a weight
EXACT = ("votes", "routing", "losses")  # fp32 at every precision


@dataclass(frozen=True)
class Work:
    """What a part does."""

    flops: int  # per image
    image_bytes: int = 0  # per image
    step_bytes: int = 0  # per step, whatever its number of images: weights


@dataclass(frozen=True)
class Floor:
    """The least seconds of a part in one step, and which of the two sets them: ``arithmetic`` or ``traffic``."""

    seconds: float
    bound: str


def parameters(config: RunConfig) -> dict[str, int]:
    """Weights and biases by part; the paper's network: 8,215,568 in all."""
    channels, classes = config.shape[0], config.facts.classes
    maps, capsule = config.primary_types * config.primary_dim, config.class_dim
    hidden = [classes * capsule, *config.decoder_hidden, prod(config.shape)]
    return {
        "conv1": (channels * config.conv_kernel**2 + 1) * config.conv_channels,
        "PrimaryCaps": (config.conv_channels * config.primary_kernel**2 + 1) * maps,
        "votes": inputs(config) * config.primary_dim * classes * capsule + config.capsule_bias * classes * capsule,
        "decoder": sum((a + 1) * b for a, b in pairwise(hidden)) if config.reconstruction_weight else 0,
    }


def inputs(config: RunConfig) -> int:
    """Primary capsules of an image; the paper's network: 1,152."""
    return config.primary_types * prod(config.primary_grid)


def work(config: RunConfig, precision: str = "fp32") -> dict[str, Work]:
    """What each part of a training step does: the parts of :mod:`benchmarks.parts`, in its order."""
    size = BYTES[precision]
    channels, height, width = config.shape
    pixels = channels * height * width
    features = config.conv_channels * (height - config.conv_kernel + 1) * (width - config.conv_kernel + 1)
    primary = inputs(config) * config.primary_dim
    capsules = config.facts.classes * config.class_dim
    weights = {part: WEIGHT * count for part, count in parameters(config).items()}
    hidden = [capsules, *config.decoder_hidden, pixels]
    multiply_adds = {
        "conv1": features * channels * config.conv_kernel**2,
        "PrimaryCaps": primary * config.conv_channels * config.primary_kernel**2,
        "votes": primary * capsules,
        "routing": 2 * (config.routing_iterations - 1) * inputs(config) * capsules,  # agreements and sums after the first pass
        "decoder": sum(a * b for a, b in pairwise(hidden)),
    }
    decodes = config.reconstruction_weight > 0
    return {
        # reads the images twice, writes the features, reads them (ReLU's mask) and their gradient
        "conv1": Work(4 * multiply_adds["conv1"], size * (2 * pixels + 3 * features), 2 * weights["conv1"]),
        # reads its inputs twice and writes their gradient; writes its outputs, reads them (squash) and their gradient
        "PrimaryCaps": Work(6 * multiply_adds["PrimaryCaps"], size * 3 * (features + primary), 3 * weights["PrimaryCaps"]),
        "votes": Work(6 * multiply_adds["votes"], BYTES["fp32"] * 3 * (primary + capsules), 3 * weights["votes"]),
        "routing": Work(6 * multiply_adds["routing"]),  # nothing that votes has not read already
        "decoder": Work(6 * multiply_adds["decoder"], size * 3 * (capsules + pixels), 3 * weights["decoder"])
        if decodes
        else Work(0),
        # reads images, reconstructions and capsules, writes the gradients of the latter two
        "losses": Work(0, BYTES["fp32"] * (3 * pixels * decodes + 2 * capsules)),
        # reads weights, gradients and both moments, writes all but the gradients
        "optimizer": Work(0, 0, 7 * sum(weights.values())),
        "data": Work(0, pixels * (1 + 4)),  # reads bytes, writes fp32
    }


def floor(done: Work, batch: int, flops_per_second: float, bytes_per_second: float) -> Floor:
    """The larger of the two times: arithmetic and traffic may go on at once."""
    arithmetic = done.flops * batch / flops_per_second
    traffic = (done.image_bytes * batch + done.step_bytes) / bytes_per_second
    return Floor(max(arithmetic, traffic), "arithmetic" if arithmetic >= traffic else "traffic")


def floors(
    config: RunConfig, precision: str, flops_per_second: Mapping[str, float], bytes_per_second: float
) -> dict[str, Floor]:
    """The floor of each part at the config's batch size; ``flops_per_second`` by precision."""
    return {
        part: floor(done, config.batch_size, flops_per_second["fp32" if part in EXACT else precision], bytes_per_second)
        for part, done in work(config, precision).items()
    }
