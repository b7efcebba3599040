"""Arrays -> estimates by seed: pure functions that neither know where numbers come from nor drop any of them.

=====================  ====================================================
one cell               ``t_interval``
a cell to a reference  ``compare``
many comparisons       ``holm``
a grid                 ``main_effects``, ``interaction``, ``ranks``
=====================  ====================================================

Statistics of single test images are in image_statistics.py. Estimates are in the unit of their values. Pairs are aligned by
position, by the caller. What n is too small for is NaN. Every function raises a ValueError for values that are not finite and
for arrays of another shape than it states.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import nct, rankdata
from scipy.stats import t as student

from analysis.arrays import finite, same_shape
from experiments.significance import smallest_p

MOST_PAIRS = 40
"""The most differences of an exact sign-flip test: two sorted halves of 2**20 sums take 0.3 s and 34 MB."""


@dataclass(frozen=True)
class Estimate:
    """A mean with what is known of its uncertainty, all in the unit of the values."""

    mean: float
    sd: float  # of the sample (ddof 1), the paper's style
    low: float
    high: float
    n: int
    kind: str  # what [low, high] is


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean, sample deviation and the Student-t interval of the mean: mean ± t(n - 1) sd / sqrt(n).

    The interval takes the values to be independent and normal. One value has neither deviation nor interval (NaN), no
    value has no mean either. The order of the values makes no difference, to the last bit.

    Raises:
        ValueError: a value is infinite or not a number; it would be hidden in the mean or shrink n in silence.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    kind = f"{100 * confidence:g}% Student-t interval"
    array = np.sort(np.asarray(values, dtype=float).ravel())
    if not np.isfinite(array).all():
        raise ValueError(f"values must be finite: {array}")
    n = array.size
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0, kind)
    equal = array[0] == array[-1]  # then the sum's rounding must not make a deviation of 1e-17
    mean = float(array[0] if equal else array.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, math.nan, 1, kind)
    sd = 0.0 if equal else float(array.std(ddof=1))
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, n, kind)


@dataclass(frozen=True)
class Comparison:
    """A cell against a reference, paired by seed; in the unit of the values, the differences being values - reference."""

    difference: Estimate  # Student-t interval of the mean difference; n: pairs
    p: float  # of the mean difference, two-sided, by all sign flips; NaN without a pair
    smallest_p: float  # that so many pairs can reach: above alpha, no data could have shown a difference
    effect: float  # mean difference / sd of the differences, with Hedges' correction; NaN if sd is 0 or n < 3
    detectable: float  # true difference that a paired t-test finds with the asked power, if this sd is the true one


def compare(values: ArrayLike, reference: ArrayLike, *, alpha: float = 0.05, power: float = 0.8) -> Comparison:
    """Compare values [pairs] with the reference [pairs] of the same seeds; the interval's confidence is 1 - alpha.

    The effect is Cohen's d_z times J = Γ(m / 2) / (sqrt(m / 2) Γ((m - 1) / 2)) with m = n - 1, which is unbiased for
    normal differences (Hedges 1981, J. Educ. Stat. 6:107); for n = 2 it has no expectation, so there is none to give.
    Of more than MOST_PAIRS pairs, p is that of the paired t-test, which is good enough for so many.
    """
    first, second = same_shape(finite(values, "pairs"), finite(reference, "pairs"))
    differences = _without_noise(first - second, first, second)
    difference = t_interval(differences, 1 - alpha)
    n, effect = difference.n, math.nan
    if n > 2 and difference.sd > 0:
        m = n - 1
        correction = math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)
        effect = correction * difference.mean / difference.sd
    detectable = detectable_difference(difference.sd, n, alpha, power)
    p = sign_flip_p(differences) if n <= MOST_PAIRS else _t_p(difference)
    return Comparison(difference, p, smallest_p(n), effect, detectable)


def sign_flip_p(differences: ArrayLike) -> float:
    """Share of the 2**n sign flips of the differences [pairs] with a mean as far from 0 as the observed; NaN for n = 0.

    Exact if without an effect each difference might as well have had the other sign. All flips are counted, not sampled:
    any sum is one of the first half's plus one of the second's, and of sorted halves pairs need not be visited. Sums
    closer than 1e-9 of the greatest possible are ties, so the observed one always counts itself.

    Raises:
        ValueError: there are more than MOST_PAIRS differences.
    """
    array = finite(differences, "pairs")
    if array.size > MOST_PAIRS:
        raise ValueError(f"the sign-flip test is exact, for at most {MOST_PAIRS} differences, not {array.size}")
    if array.size == 0:
        return math.nan
    least = abs(array.sum()) - 1e-9 * np.abs(array).sum()
    if least <= 0:
        return 1.0
    first, second = _signed_sums(array[::2]), _signed_sums(array[1::2])
    as_high = int((second.size - np.searchsorted(second, least - first)).sum())
    return 2 * as_high / 2**array.size  # flipping all signs mirrors the sums, so as many are as low


def _t_p(difference: Estimate) -> float:
    """Two-sided p of the t-test of a mean difference."""
    if difference.sd == 0:
        return 0.0 if difference.mean else 1.0
    return 2 * float(student.sf(abs(difference.mean) / difference.sd * math.sqrt(difference.n), difference.n - 1))


def detectable_difference(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """True mean that a two-sided t-test of n differences with deviation sd finds with the given power; NaN for n < 2.

    Solves P(abs(T) > t(n - 1, 1 - alpha / 2)) = power for the noncentrality of T, which is difference / sd * sqrt(n).
    With the sd of a sample it is as uncertain as that: for n = 3, sd is between 0.52 and 6.3 times the sample's.
    """
    if not 0 < alpha < power < 1:
        raise ValueError(f"0 < alpha < power < 1 must hold, not alpha={alpha}, power={power}")
    if n < 2:
        return math.nan
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd must be finite and not negative: {sd}")
    critical = float(student.ppf(1 - alpha / 2, n - 1))

    def lacking(noncentrality: float) -> float:
        # by symmetry two upper tails, because scipy's lower one is NaN for a large noncentrality
        return float(nct.sf(critical, n - 1, noncentrality) + nct.sf(critical, n - 1, -noncentrality)) - power

    high = critical
    while lacking(high) < 0:
        high *= 2
    return float(brentq(lacking, 0.0, high, xtol=1e-10)) * sd / math.sqrt(n)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjusted p [m]: the running maximum of (m - rank) p in ascending order, at most 1.

    Rejecting what is at most alpha then errs on any true null with a probability of at most alpha (Holm 1979, Scand. J.
    Stat. 6:65). NaN stays NaN: a comparison that could not be made is none of the m.
    """
    adjusted = np.array(p_values, dtype=float)
    known = ~np.isnan(adjusted)
    p = finite(adjusted[known] if adjusted.ndim == 1 else adjusted, "m")
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p must be in [0, 1]: {p}")
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.arange(p.size, 0, -1) * p[order])
    p[order] = np.minimum(steps, 1)
    adjusted[known] = p
    return adjusted


def main_effects(errors: ArrayLike) -> list[Estimate]:
    """Per level of an axis, its error minus the mean over levels, within each seed; t intervals over seeds.

    errors: [seeds, levels], two levels at least. What a seed does to all levels alike cancels.
    """
    array = _levels(finite(errors, "seeds, levels"))
    effects = _without_noise(array - array.mean(axis=1, keepdims=True), array)
    return [t_interval(effects[:, level]) for level in range(array.shape[1])]


def interaction(errors: ArrayLike) -> list[list[Estimate]]:
    """Per pair of levels, what the two axes' main effects leave: cell - row mean - column mean + mean, within each seed.

    errors: [seeds, levels_a, levels_b], two levels at least of each; one list per level of a, t intervals over seeds.
    """
    array = _levels(finite(errors, "seeds, levels_a, levels_b"))
    rows, columns = array.mean(axis=2, keepdims=True), array.mean(axis=1, keepdims=True)
    rest = _without_noise(array - rows - columns + array.mean(axis=(1, 2), keepdims=True), array)
    return [[t_interval(rest[:, a, b]) for b in range(array.shape[2])] for a in range(array.shape[1])]


def ranks(errors: ArrayLike) -> NDArray[np.float64]:
    """Mean rank over seeds of each cell, 1 for the lowest error, ties sharing their mean: errors [seeds, cells] -> [cells]."""
    array = finite(errors, "seeds, cells")
    return rankdata(array, axis=1).mean(axis=0) if len(array) else np.full(array.shape[1], math.nan)


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 2**n sums of the values with either sign, sorted."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return np.sort(sums)


def _without_noise(differences: NDArray[np.float64], *terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences rounded to 12 digits of the largest term: 0.35 - 0.33 equals 0.36 - 0.34, and their sd is 0, not 1e-17."""
    largest = max((float(np.abs(term).max(initial=0)) for term in terms), default=0.0)
    return differences.round(11 - math.floor(math.log10(largest))) + 0.0 if largest else differences  # + 0.0: no -0.0


def _levels(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    if min(errors.shape[1:]) < 2:
        raise ValueError(f"an effect needs two levels of an axis, not the shape {errors.shape}")
    return errors
