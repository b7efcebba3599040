"""A training step cut into its parts. Each function makes one part ready and gives what does its work once.

All are called with a state and a batch; what reaches a part from the one before it is computed beforehand. Work is forward and
backward together: the gradients of the part's weights and of its inputs, for a gradient of ones. How the network is put
together is known here, and in ``kernels``, ``floors``, ``peaks`` and ``textbook``, which a change of it concerns, too.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.clock import Pass, Spread, alternate, differences, timed, total
from benchmarks.training import pictures
from capsnet import fourier, losses
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.draws import Draws, composed, draw
from capsnet.execution import Settled, keep_freed_memory
from capsnet.models import CapsuleNetwork, lengths
from capsnet.precision import OPERANDS, rounded
from capsnet.state import STREAMS, TrainingState
from capsnet.step import Steps, updater
from capsnet.training import computing

Work = Callable[[], object]
WHOLE = "step"
BEYOND = {"PrimaryCaps": "conv1", "routing": "votes"}
"""Parts that are measured with the one before them, which is then taken off round by round: they may be computed as one."""


def _network(state: TrainingState) -> CapsuleNetwork:
    assert isinstance(state.model, CapsuleNetwork)
    return state.model


def conv1(state: TrainingState, batch: Split) -> Work:
    """The first convolution and its ReLU, as the second takes it; images have no gradient."""
    model, images = _network(state), batch.batch(slice(None))

    def features() -> Tensor:
        if model.takes_spectra(images):
            return fourier.tiles(images, model.conv, model.geometry, OPERANDS[model.precision])
        with rounded(model.precision, images.device):
            return model.conv(images).relu()

    return _both_ways(features, list(model.conv.parameters()))


def primary_capsules(state: TrainingState, batch: Split) -> Work:
    """The first convolution and the second, and the squash of its capsules."""
    model, images = _network(state), batch.batch(slice(None))
    return _both_ways(lambda: model.primary_capsules(images), [*model.conv.parameters(), *model.primary.parameters()])


def class_capsules(state: TrainingState, batch: Split, iterations: int) -> Work:
    """Votes, and as many passes of routing over them."""
    model = _network(state)
    layer = copy.deepcopy(model.capsules)
    layer.iterations = iterations
    vectors = _input(model.primary_capsules(batch.batch(slice(None))))
    return _both_ways(lambda: layer(vectors), [vectors, *layer.parameters()])


def decoder(state: TrainingState, batch: Split) -> Work:
    """From the right class's capsule to an image."""
    if state.model.decoder is None:
        return lambda: None
    capsules = _input(state.model.encode(batch.batch(slice(None))))
    return _both_ways(lambda: state.model.reconstruct(capsules, batch.labels), [capsules, *state.model.decoder.parameters()])


def both_losses(state: TrainingState, batch: Split) -> Work:
    """The capsules' lengths, margin loss, and the reconstruction's squared error."""
    weight, images = state.config.reconstruction_weight, batch.batch(slice(None))
    capsules = _input(state.model.encode(images))
    if not weight:
        return _both_ways(lambda: losses.margin(lengths(capsules), batch.labels), [capsules])
    made = _input(state.model.reconstruct(capsules, batch.labels))

    def loss() -> Tensor:
        return losses.margin(lengths(capsules), batch.labels) + weight * losses.reconstruction(images, made)

    return _both_ways(loss, [capsules, made])


def optimizer(state: TrainingState, batch: Split) -> Work:
    """A step of Adam on gradients that are there, and their norm."""
    whole(state, batch)()
    update = updater(state)
    return lambda: update(state)


def feeding(state: TrainingState, batch: Split) -> Work:
    """A batch from the bytes on the device: gathered, made fp32, augmented, as was drawn for it before, as for an epoch."""
    draws = _drawn(state, batch)
    return lambda: composed(batch, draws, state.config.augment)


def whole(state: TrainingState, batch: Split) -> Work:
    """All of it, as a run takes it that is neither compiled nor captured: a batch is fed, and one training step taken on it."""
    steps = Steps(state, Data(batch, batch, batch, "random"), Settled(compile=False, graph=False))
    draws = _drawn(state, batch)
    return lambda: steps.compute_on(draws, state.config.learning_rate)


def _drawn(state: TrainingState, batch: Split) -> Draws:
    """What is drawn for the batch, beforehand, as for an epoch."""
    generators = {name: torch.Generator().manual_seed(0) for name in STREAMS}
    return draw(batch, state.config.facts.labels, state.config.augment, state.config.dropout > 0, generators).to(state.device)


def passes(config: RunConfig, device: torch.device) -> dict[str, Pass]:
    """What is timed of a step, in its order, the whole of it last; a part that is ``BEYOND`` another together with that."""
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    state, batch = TrainingState(config, device), pictures(config, config.batch_size, device)
    works: dict[str, Work] = {
        "conv1": conv1(state, batch),
        "PrimaryCaps": primary_capsules(state, batch),
        "votes": class_capsules(state, batch, 1),
        "routing": class_capsules(state, batch, config.routing_iterations),
        "decoder": decoder(state, batch),
        "losses": both_losses(state, batch),
        "optimizer": optimizer(state, batch),
        "data": feeding(state, batch),
        WHOLE: whole(TrainingState(config, device), batch),
    }
    return {name: timed(work, device, captured=True) for name, work in works.items()}


def measure(config: RunConfig, device: torch.device, budget: float, *, least: int = 3) -> tuple[dict[str, Spread], Spread]:
    """Seconds of each part, and of the whole step.

    Votes are class capsules with r = 1; routing is what the config's r costs beyond them.
    """
    with computing(config.precision, device):
        taken = alternate(passes(config, device), budget, least=least)
    step = taken.pop(WHOLE)
    return {part: differences(s, taken[BEYOND[part]]) if part in BEYOND else s for part, s in taken.items()}, step


def unexplained(parts: dict[str, Spread], step: Spread) -> Spread:
    """The share of the whole step that its parts don't add up to; below 0 if they take longer alone than together."""
    return Spread(tuple(1 - a / b for a, b in zip(total(list(parts.values())).samples, step.samples, strict=True)))


def _input(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


def _both_ways(forward: Callable[[], Tensor], wanted: Sequence[Tensor]) -> Work:
    gradient: Tensor | None = None

    def run() -> object:
        nonlocal gradient
        output = forward()
        gradient = torch.ones_like(output) if gradient is None else gradient
        return torch.autograd.grad(output, wanted, gradient)

    return run
