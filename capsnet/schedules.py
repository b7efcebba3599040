"""Learning-rate schedules: plain functions of the step, combined by composition.

A schedule maps (step, total steps, validation errors so far) to a multiplier of ``learning_rate``. It holds no state: what
plateau has to remember it reads from the history, so that a resumed run needs nothing restored.
"""

import math
from collections.abc import Callable, Sequence

from capsnet.variants import require

Schedule = Callable[[int, int, Sequence[float]], float]
"""(step from 0, total steps of the run, validation error in % after each finished epoch) -> multiplier."""


def _warmed(schedule: Schedule, warmup: int) -> Schedule:
    """Precede a schedule by a linear rise over ``warmup`` steps: (step + 1) / (warmup + 1) of its first value."""
    if warmup < 0:
        raise ValueError(f"warmup is a number of steps and can't be negative, but is {warmup}")

    def warmed(step: int, total: int, errors: Sequence[float]) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1) * schedule(0, total - warmup, ())
        return schedule(step - warmup, total - warmup, errors)

    return warmed


def constant(*, warmup: int = 0) -> Schedule:
    """1 throughout."""
    return _warmed(lambda step, total, errors: 1.0, warmup)


def exponential(*, gamma: float, every: int, floor: float = 0.0, warmup: int = 0) -> Schedule:
    """gamma ** (step / every), never below ``floor``; the authors' code: gamma=0.96, every=2000, floor=0.001.

    ``exponential(gamma=0.5, every=2)`` gives 1, 0.707, 0.5, 0.354, ...
    """
    require(0 < gamma <= 1, "gamma", "in (0, 1]", gamma)
    require(every > 0, "every", "a positive number of steps", every)
    require(0 <= floor <= 1, "floor", "in [0, 1]", floor)
    return _warmed(lambda step, total, errors: max(gamma ** (step / every), floor), warmup)


def step(*, gamma: float, every: int, warmup: int = 0) -> Schedule:
    """gamma ** floor(step / every): ``step(gamma=0.5, every=2)`` gives 1, 1, 0.5, 0.5, 0.25, ..."""
    require(0 < gamma <= 1, "gamma", "in (0, 1]", gamma)
    require(every > 0, "every", "a positive number of steps", every)
    return _warmed(lambda step, total, errors: gamma ** (step // every), warmup)


def cosine(*, final: float = 0.0, warmup: int = 0) -> Schedule:
    """Half a cosine from 1 at the first step to ``final`` after the last: final + (1 - final)(1 + cos(pi t)) / 2."""
    require(0 <= final <= 1, "final", "in [0, 1]", final)
    return _warmed(lambda step, total, errors: _ease(1.0, final, step / total), warmup)


def one_cycle(*, rise: float = 0.3, start: float = 0.04, final: float = 4e-6, warmup: int = 0) -> Schedule:
    """Cosine from ``start`` up to 1 over the first ``rise`` of the steps, then down to ``final`` (Smith and Topin 2018).

    ``learning_rate`` is the peak. The defaults are those of torch's OneCycleLR, in multiples of the peak.
    """
    require(0 < rise < 1, "rise", "in (0, 1)", rise)
    require(0 < start <= 1, "start", "in (0, 1]", start)
    require(0 <= final <= 1, "final", "in [0, 1]", final)

    def cycle(step: int, total: int, _: Sequence[float]) -> float:
        top, last = rise * total - 1, total - 1
        return _ease(start, 1.0, step / top) if step < top else _ease(1.0, final, (step - top) / (last - top))

    return _warmed(cycle, warmup)


def plateau(*, factor: float, patience: int, floor: float = 0.0, warmup: int = 0) -> Schedule:
    """Times ``factor`` whenever the validation error has not fallen for more than ``patience`` epochs; at least ``floor``.

    torch's ReduceLROnPlateau with threshold 0.
    """
    require(0 < factor < 1, "factor", "in (0, 1)", factor)
    require(patience >= 0, "patience", "a number of epochs, 0 or more", patience)
    require(0 <= floor <= 1, "floor", "in [0, 1]", floor)

    def replay(_step: int, _total: int, errors: Sequence[float]) -> float:
        multiplier, best, waited = 1.0, math.inf, 0
        for error in errors:
            best, waited = (error, 0) if error < best else (best, waited + 1)
            if waited > patience:
                multiplier, waited = max(multiplier * factor, floor), 0
        return multiplier

    return _warmed(replay, warmup)


def _ease(first: float, last: float, fraction: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "exponential": exponential,
    "step": step,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "plateau": plateau,
}
