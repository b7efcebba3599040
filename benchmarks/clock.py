"""How time is taken: what is compared is measured in turn, A B A B, so that a busy moment of the machine meets all of it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from capsnet.graphs import WARM_UP, aside, recorded

Pass = Callable[[], float]  # does its work once and returns the seconds that it took, or where it says so a rate
SHORTEST = 0.01  # seconds: calls that take less are timed several at once


@dataclass(frozen=True)
class Spread:
    """All that was measured of one thing, in the order of the rounds."""

    samples: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @property
    def median(self) -> float:
        """The middle one: a single disturbed sample does not move it."""
        return median(self.samples)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.samples)

    def map(self, function: Callable[[float], float]) -> "Spread":
        """The same of each sample."""
        return Spread(tuple(map(function, self.samples)))


def alternate(
    passes: Mapping[str, Pass], budget: float, *, least: int = 3, most: int = 25, now: Callable[[], float] = time.perf_counter
) -> dict[str, Spread]:
    """Measure all passes in turn, round after round; a first round warms up and is not counted.

    Args:
        passes: what to measure, by name.
        budget: seconds for all rounds, warm-up included: no round is begun that would end later if it took as long as the
            one before it.
        least: rounds that are measured whatever the budget.
        most: rounds at most.
        now: the clock that watches the budget.

    Returns:
        What each pass returned, one sample per round.
    """
    started = now()
    for run in passes.values():
        run()
    samples: dict[str, list[float]] = {name: [] for name in passes}
    for done in range(most):
        before = now()
        for name, run in passes.items():
            samples[name].append(run())
        after = now()
        if done + 1 >= least and after + (after - before) > started + budget:
            break
    return {name: Spread(tuple(taken)) for name, taken in samples.items()}


def ratios(above: Spread, below: Spread) -> Spread:
    """Quotients of the two samples of each round: what disturbed a whole round cancels out."""
    return Spread(tuple(a / b for a, b in zip(above.samples, below.samples, strict=True)))


def differences(more: Spread, less: Spread) -> Spread:
    """Differences of the two samples of each round."""
    return Spread(tuple(a - b for a, b in zip(more.samples, less.samples, strict=True)))


def total(spreads: Sequence[Spread]) -> Spread:
    """Sums over the samples of each round."""
    return Spread(tuple(map(sum, zip(*(spread.samples for spread in spreads), strict=True))))


def timed(work: Callable[[], object], device: torch.device, *, shortest: float = SHORTEST, captured: bool = False) -> Pass:
    """A pass that gives the seconds of one call of ``work``, the device's work included.

    How many calls in a row are timed is settled in the first, which :func:`alternate` does not count.

    Args:
        work: what to do.
        device: where it is done.
        shortest: seconds that are timed at once, at least.
        captured: replay it on CUDA from a graph, as training does, whose steps else would wait for the processor. It must not
            wait for the device nor draw random numbers.
    """
    repeats = 0

    def run() -> float:
        nonlocal repeats, work
        if not repeats:
            if captured and device.type == "cuda":
                work = replay_of(work)
            once = _seconds(work, 1, device)  # the very first call may load libraries, choose algorithms, or reserve memory,
            if device.type == "cuda" or once < 20 * shortest:  # but does not change what one of many seconds takes
                once = _seconds(work, 1, device)
            repeats = max(1, math.ceil(shortest / max(once, 1e-7)))
        return _seconds(work, repeats, device) / repeats

    return run


def replay_of(work: Callable[[], object]) -> Callable[[], object]:
    """The work as a CUDA graph.

    What it reads is held, as nobody else may hold it any more, and so is what it wrote last, where the graph writes again.
    """

    def warm_up() -> None:
        for _ in range(WARM_UP):
            work()

    aside(warm_up)
    held: list[object] = [work]  # with all that it refers to: memory of these would be another's by the time of a replay
    replay = recorded(lambda: held.append(work()), torch.cuda.graph_pool_handle(), torch.cuda.Stream())

    def again() -> object:
        replay()
        return held

    return again


def _seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return time.perf_counter() - started
    with torch.cuda.device(device):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()  # earlier work is no part of it
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000  # from milliseconds
