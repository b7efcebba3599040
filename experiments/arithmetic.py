"""What runs come to in arithmetic, so that a launch on CPU cores can say beforehand that it will take days."""

from collections.abc import Callable, Hashable, Iterable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from capsnet.config import RunConfig
from capsnet.models import make
from capsnet.terminal import called
from experiments.costs import FEEDING, attack_steps, keys
from experiments.overview import duration

PACE = 1.5e11  # FLOP/s of a core: on two of a CPU with AVX-512 the paper's network trains 240 images/s or more (docs/speed.md)
LONG = 12 * 3600.0  # seconds that a launch may take without a word: mnist-full, which is meant for a CPU, has 5 h by PACE


def flops(config: RunConfig) -> int:
    """Of one training image: 2 per multiply-add of matrix products and convolutions; the way back is twice the way forward.

    The paper's network: 1.25e9. Nothing is computed, and no memory taken.
    """
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        network = make(config)
        images = torch.empty(1, *config.shape, requires_grad=True)  # of which the plain convolutions are taken
        vectors = network.encode(images, torch.zeros(1, 2, dtype=torch.int64))
        if network.decoder:
            network.reconstruct(vectors, torch.zeros(1, dtype=torch.int64))
    return 3 * counter.get_total_flops()


def remarks(left: Iterable[tuple[RunConfig, int]], cores: int) -> list[str]:
    """A line if configs with so many epochs left take so many CPU cores longer than LONG."""
    count = _counter()
    told = "fewer seeds, epochs or images (train_size) are less. Ctrl-C ends it, "
    told += f"{called('python -m experiments plan')} shows what is left, and the same command goes on"
    return _line(sum(count(config, epochs) for config, epochs in left), cores, "", told)


def search_remarks(corners: Iterable[RunConfig], runs: int, cores: int) -> list[str]:
    """A line if so many runs of trials take so many CPU cores longer than LONG, each as long as the longest corner."""
    count = _counter()
    longest = max(count(config, config.epochs) for config in corners)
    told = (
        "fewer trials, epochs or images (train_size), or a time_budget, are less. Ctrl-C ends it, and the same command goes on"
    )
    return _line(longest * runs, cores, " if none of the trials is pruned", told)


def _counter() -> Callable[[RunConfig, int], int]:
    """FLOP of so many epochs and of the attacks after them; an image's are counted once for all configs of the same network."""
    counted: dict[Hashable, int] = {}

    def count(config: RunConfig, epochs: int) -> int:
        network, _ = keys(config, FEEDING)
        if network not in counted:
            counted[network] = flops(config)
        return counted[network] * (epochs * config.training_images + attack_steps(config))

    return count


def _line(total: int, cores: int, unless: str, less: str) -> list[str]:
    if (seconds := total / (PACE * cores)) <= LONG:
        return []
    return [
        f"on a CPU this may take {duration(seconds)}{unless}: {total / 1e15:,.0f} PFLOP are left, and a core does "
        f"some {PACE / 1e9:.0f} GFLOP/s (cores here: {cores}). A CUDA device is faster; {less}"
    ]
