"""All measurements in their order, each with its share of the time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks import floors, machine, parts, peaks, processes
from benchmarks.clock import Pass, Spread, alternate
from benchmarks.found import TEXTBOOK, Findings, Step
from benchmarks.training import changed, epoch_of, evaluation, ours, swept, usual
from capsnet.config import RunConfig
from capsnet.origin import cores

AXES = ("batch_size", "routing_iterations", "primary_types")
SHARES = {"peaks": 4, "step": 14, "peaks again": 4, "training": 28, **dict.fromkeys(AXES, 10), "memory": 8, "processes": 12}
"""How the time is divided, in parts of their sum. What a section leaves goes to those after it."""


@dataclass(frozen=True)
class Scale:
    """How much is measured: so much on a CPU, where a step takes a second, and on CUDA, where it takes one millisecond."""

    images: int  # of an epoch of ours, where it is compared with others
    textbook_images: int  # of an epoch of the textbook version
    test_images: int  # of an evaluation
    sweep_images: int  # of an epoch in the sweeps, or one batch where that is more
    values: Mapping[str, tuple[int, ...]]  # by axis
    processes: tuple[int, ...]  # numbers of them side by side
    window: float  # seconds that they train before they are counted
    square: int  # side of the large square product
    copied: int  # bytes of the array whose copy measures bandwidth
    rounds: int = 3  # at least, whatever the time


NETWORKS = {"routing_iterations": (1, 2, 3, 4, 5), "primary_types": (8, 16, 32)}
SCALES = {
    "cpu": Scale(256, 128, 1000, 128, {"batch_size": (32, 128, 512), **NETWORKS}, (1, 2, 4), 3.0, 2048, 2**29),
    "cuda": Scale(
        60_000,
        2_560,
        10_000,
        20_000,
        {"batch_size": (32, 128, 512, 2048), **NETWORKS},
        (1, 2, 4),
        3.0,
        8192,
        2**31,
    ),
}


class Budget:
    """Seconds, divided among sections that are asked for in turn; what one leaves or overdraws is divided among the rest."""

    def __init__(self, seconds: float, shares: Mapping[str, float], now: Callable[[], float] = time.perf_counter) -> None:
        self.now, self.end, self.shares = now, now() + seconds, dict(shares)

    def share(self, section: str) -> float:
        """The seconds that a section may take now; 0 if others have taken it all."""
        part = self.shares[section] / sum(self.shares.values())
        del self.shares[section]
        return max(0.0, (self.end - self.now()) * part)


def measure(
    base: RunConfig,
    device: torch.device,
    precisions: Sequence[str],
    seconds: float,
    scale: Scale,
    tell: Callable[[str], None] = lambda _: None,
    keep: Callable[[Findings], None] = lambda _: None,
) -> Findings:
    """Measure everything.

    Args:
        base: the network; its sizes are those of the middle of each sweep.
        device: where.
        precisions: the network's; sweeps and processes are of one, :func:`benchmarks.training.swept`.
        seconds: for all of it, about: no section does fewer than the scale's rounds.
        scale: how much is measured.
        tell: is told what is measured next.
        keep: is given what there is after each section.
    """
    begun, budget = time.perf_counter(), Budget(seconds, SHARES)
    here = machine.describe(device)
    one = changed(base, precision=swept(precisions, device))

    def kept(found: Findings, **more: Any) -> Findings:
        missing = tuple(f"{section}: not measured yet" for section in budget.shares)
        found = replace(found, **{"left_out": missing, "seconds": time.perf_counter() - begun, **more})
        keep(found)
        return found

    for peak, steps in _by_part(base, device, precisions, budget, scale, tell):
        found = kept(Findings(here, base.to_params(), peak, steps, one.precision, {}, {}, {}, {}, (), 0.0))
    tell("training and evaluation, in turn with the textbook version")
    found = kept(found, rates=_training(base, device, precisions, budget.share("training"), scale))
    for axis in AXES:
        tell(f"training by {axis.replace('_', ' ')}")
        found = kept(found, sweeps={**found.sweeps, axis: _sweep(one, device, axis, budget.share(axis), scale)})
    tell("memory")
    budget.share("memory")  # it takes what it takes
    memory = {
        f"{what} {precision}": processes.peak_memory(changed(base, precision=precision), device, what)
        for precision in precisions
        for what in ("training", "evaluation")
    }
    found = kept(found, memory=memory)
    tell("processes side by side")
    together, left_out = _side_by_side(one, device, memory[f"training {one.precision}"], budget.share("processes"), scale)
    return kept(found, processes=together, left_out=left_out)


def _by_part(
    base: RunConfig,
    device: torch.device,
    precisions: Sequence[str],
    budget: Budget,
    scale: Scale,
    tell: Callable[[str], None],
) -> Iterator[tuple[peaks.Peaks, dict[str, Step]]]:
    """The machine's peaks, and a training step of each precision with the floors that they set; after each section anew."""
    tell("peaks of the machine")
    peak = _peaks(base, device, precisions, budget.share("peaks"), scale)
    measured: dict[str, tuple[dict[str, Spread], Spread]] = {}

    def found() -> tuple[peaks.Peaks, dict[str, Step]]:
        least = {p: floors.floors(base, p, peak.flops_per_second, peak.bytes_per_second) for p in measured}
        return peak, {precision: Step(*taken, least[precision]) for precision, taken in measured.items()}

    yield found()
    share = budget.share("step") / len(precisions)
    for precision in precisions:
        tell(f"a training step by part, {precision}")
        measured[precision] = parts.measure(changed(base, precision=precision), device, share, least=scale.rounds)
        yield found()
    tell("peaks of the machine again: another moment may be less busy")
    peak = peak.with_those_of(_peaks(base, device, precisions, budget.share("peaks again"), scale))
    yield found()


def _side_by_side(
    config: RunConfig, device: torch.device, memory: int, budget: float, scale: Scale
) -> tuple[dict[int, Spread], tuple[str, ...]]:
    """Images per second of several processes at once, and which numbers of them are left out and why."""
    counts = processes.fitting(scale.processes, device, memory)
    together = processes.side_by_side(
        epoch_of(config, scale.sweep_images), device, counts, seconds=scale.window, budget=budget, least=scale.rounds
    )
    few = cores() if device.type == "cpu" else max(scale.processes)
    left_out = (
        f"{n} processes, on {few} cores" if n > few else f"{n} processes: too little memory"
        for n in scale.processes
        if n not in counts
    )
    return together, tuple(left_out)


def _peaks(base: RunConfig, device: torch.device, precisions: Sequence[str], budget: float, scale: Scale) -> peaks.Peaks:
    wanted = peak_precisions(device, precisions)
    return peaks.measure(base, device, wanted, budget, square=scale.square, copied=scale.copied)


def peak_precisions(device: torch.device, precisions: Sequence[str]) -> list[str]:
    """What to measure the peak of: what the network trains in, and what else the device multiplies in."""
    return list(dict.fromkeys([*precisions, "fp32", *(["tf32"] if device.type == "cuda" else []), "bf16"]))


def _training(
    base: RunConfig, device: torch.device, precisions: Sequence[str], budget: float, scale: Scale
) -> dict[str, Spread]:
    """Images per second: textbook version, training and evaluation at each precision, in this order.

    The textbook version has a process of its own, because training sets what holds for a whole process.
    """
    usually = epoch_of(base, scale.textbook_images)
    images = {TEXTBOOK: usually.training_images}
    with processes.Elsewhere(usual, usually, device) as textbook:
        passes: dict[str, Pass] = {TEXTBOOK: textbook}
        for precision in precisions:
            config = epoch_of(changed(base, precision=precision), scale.images)
            training, tested = f"training {precision}", f"evaluation {precision}"
            passes[training], passes[tested] = (
                ours(config, device, compiled=True),
                evaluation(config, scale.test_images, device),
            )
            images[training], images[tested] = config.training_images, scale.test_images
        seconds = alternate(passes, budget, least=scale.rounds)
    return {name: taken.map(lambda s, count=images[name]: count / s) for name, taken in seconds.items()}  # type: ignore[misc]


def _sweep(base: RunConfig, device: torch.device, axis: str, budget: float, scale: Scale) -> dict[int, Spread]:
    """Images per second of training by one field of the config; the config's own value is always among them."""
    values = sorted({*scale.values[axis], getattr(base, axis)})
    configs = {value: epoch_of(changed(base, **{axis: value}), scale.sweep_images) for value in values}
    seconds = alternate({str(value): ours(config, device) for value, config in configs.items()}, budget, least=scale.rounds)
    return {v: seconds[str(v)].map(lambda s, c=config: c.training_images / s) for v, config in configs.items()}  # type: ignore[misc]
