"""Arrays -> estimates: pure functions that neither know where numbers come from nor drop any of them.

=====================  ===================================================================================
one cell               ``t_interval`` over seeds, on this test set; ``bootstrap`` over seeds and test images
a cell to a reference  ``compare``: by seed; ``bootstrap_difference``: by seed and image; ``mcnemar``: by image
many comparisons       ``holm``
a grid                 ``main_effects``, ``interaction``, ``ranks``
predictions            ``ensemble``
=====================  ===================================================================================

``wrong`` is True where the network of a seed errs on a test image; estimates made of it are in percent, all others in the
unit of their values. Pairs are aligned by position, by the caller. What n is too small for is NaN. Every function raises a
ValueError for values that are not finite (for ``wrong``: not boolean) and for arrays of another shape than it states.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, nct, rankdata
from scipy.stats import t as student

Array = TypeVar("Array", NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_])

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
    first, second = _same_shape(_array(values, "pairs"), _array(reference, "pairs"))
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
    array = _array(differences, "pairs")
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


def smallest_p(n: int) -> float:
    """The least p of a two-sided sign-flip test of n pairs: 2 / 2**n, so 6 pairs are the fewest for p < 0.05.

    >>> [smallest_p(n) for n in (1, 3, 5, 6)]
    [1.0, 0.25, 0.0625, 0.03125]
    """
    if n < 0:
        raise ValueError(f"n must not be negative: {n}")
    return 2 / 2**n if n else math.nan


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
    p = _array(adjusted[known] if adjusted.ndim == 1 else adjusted, "m")
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p must be in [0, 1]: {p}")
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.arange(p.size, 0, -1) * p[order])
    p[order] = np.minimum(steps, 1)
    adjusted[known] = p
    return adjusted


def bootstrap(
    wrong: ArrayLike, generator: np.random.Generator, *, resamples: int = 10_000, confidence: float = 0.95
) -> Estimate:
    """Mean error in % of a cell, with an interval over new seeds and new test images; wrong: [seeds, images], n: seeds.

    Each level is resampled as its size allows:

    - images, the same for all seeds: by the Bayesian bootstrap (Rubin 1981, Ann. Stat. 9:130), that is with Dirichlet
      weights, and with two half images added, one that all seeds get wrong and one that none does. For one seed this is
      Jeffreys' interval of a proportion, which has a width even where no image is wrong.
    - seeds: by sd / sqrt(n) times Student's t(n - 1), because three seeds, resampled, show 2/3 of their variance, no tails.

    What is noise of one image in one seed is in both parts; the images' is shrunk by its share, from the two-way analysis
    of variance. The interval is never narrower than the images' part unshrunk, includes the mean, and ends at 0 and 100.

    The 95% interval covered the true error over new seeds and images in 94-96% of simulations (mean 95%) for n = 1 without
    variation of seeds, 96-99% (99%) for n = 2, 96-99% (98%) for n = 3 and 95-98% (96%) for n = 6: a normal latent model
    (``networks`` in the tests), errors of 0.3-3%, 360 and 10,000 images, sd over seeds of 0.04-0.8%. Of the same truth
    ``t_interval`` covered 76-94% for n = 3 and 50-95% for n = 6, and percentiles of resampled seeds and images 86-99%
    for n = 3: below 95% where seeds differ most.
    """
    return _two_way(_wrong(wrong).astype(np.int64), 0, generator, resamples, confidence)


def bootstrap_difference(
    wrong: ArrayLike,
    reference: ArrayLike,
    generator: np.random.Generator,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """As bootstrap, for the mean of wrong - reference, [seeds, images] each, paired by seed and image; in percent points.

    The added half images are wrong for all seeds of one side only, so that networks which err alike still have a width.
    Simulated coverage of the 95% interval: 94-96% for n = 1, 96-100% for n = 2, 95-99% for n = 3 and for n = 6.
    """
    first, second = _same_shape(_wrong(wrong).astype(np.int64), _wrong(reference).astype(np.int64))
    return _two_way(first - second, -1, generator, resamples, confidence)


def ensemble(scores: ArrayLike, labels: int = 1) -> NDArray[np.int64]:
    """Predictions of the mean over seeds of scores [seeds, images, classes]; a tie goes to the lower class.

    They are [images], or with more than one label [images, labels]: the classes with the largest means, in rising order.
    """
    array = _array(scores, "seeds, images, classes")
    if not array.shape[0] or not 1 <= labels <= array.shape[2]:
        raise ValueError(f"an ensemble needs a seed and a class for each label (labels={labels}), not the shape {array.shape}")
    means = np.sort(array, axis=0).mean(axis=0)  # sorted: a sum's rounding depends on its order
    largest = np.argsort(-means, axis=1, kind="stable")[:, :labels]
    return largest[:, 0] if labels == 1 else np.sort(largest, axis=1)


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same test images; p is exact, two-sided."""

    only_first: int  # images that only the first gets wrong
    only_second: int
    p: float  # of a fair coin that decides each of these; 1 if there is none


def mcnemar(first_wrong: ArrayLike, second_wrong: ArrayLike) -> McNemar:
    """McNemar's exact test of first_wrong [images] against second_wrong [images]: two networks, not two ways to train."""
    first, second = _same_shape(_wrong(first_wrong, "images"), _wrong(second_wrong, "images"))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    either = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, either).pvalue) if either else 1.0)


def main_effects(errors: ArrayLike) -> list[Estimate]:
    """Per level of an axis, its error minus the mean over levels, within each seed; t intervals over seeds.

    errors: [seeds, levels], two levels at least. What a seed does to all levels alike cancels.
    """
    array = _levels(_array(errors, "seeds, levels"))
    effects = _without_noise(array - array.mean(axis=1, keepdims=True), array)
    return [t_interval(effects[:, level]) for level in range(array.shape[1])]


def interaction(errors: ArrayLike) -> list[list[Estimate]]:
    """Per pair of levels, what the two axes' main effects leave: cell - row mean - column mean + mean, within each seed.

    errors: [seeds, levels_a, levels_b], two levels at least of each; one list per level of a, t intervals over seeds.
    """
    array = _levels(_array(errors, "seeds, levels_a, levels_b"))
    rows, columns = array.mean(axis=2, keepdims=True), array.mean(axis=1, keepdims=True)
    rest = _without_noise(array - rows - columns + array.mean(axis=(1, 2), keepdims=True), array)
    return [[t_interval(rest[:, a, b]) for b in range(array.shape[2])] for a in range(array.shape[1])]


def ranks(errors: ArrayLike) -> NDArray[np.float64]:
    """Mean rank over seeds of each cell, 1 for the lowest error, ties sharing their mean: errors [seeds, cells] -> [cells]."""
    array = _array(errors, "seeds, cells")
    return rankdata(array, axis=1).mean(axis=0) if len(array) else np.full(array.shape[1], math.nan)


def _two_way(
    errors: NDArray[np.int64], least: int, generator: np.random.Generator, resamples: int, confidence: float
) -> Estimate:
    """Interval of 100 times the mean of errors [seeds, images], each from least to 1: see bootstrap.

    The mean of a resample needs no more of an image than its sum over seeds: images of the same sum share one weight.
    """
    seeds, images = errors.shape
    if images < 2 or resamples < 1:
        raise ValueError(f"a bootstrap needs two images and a resample, not {images} and {resamples}")
    kind = f"{100 * confidence:g}% bootstrap interval over {'seeds and ' * (seeds != 1)}test images"
    estimate = replace(t_interval(100 * errors.mean(axis=1), confidence), kind=kind)
    if not seeds:
        return estimate
    sums, counts = np.unique(errors.sum(axis=0), return_counts=True)
    weights = generator.dirichlet([*counts, 0.5, 0.5], resamples)  # [resamples, distinct sums and the two halves]
    means = weights @ (100 * np.array([*sums / seeds, least, 1]))
    resampled = [means]
    if seeds > 1:
        common = estimate.mean + math.sqrt(1 - _share_of_noise(errors)) * (means - estimate.mean)
        resampled.append(common + estimate.sd / math.sqrt(seeds) * generator.standard_t(seeds - 1, resamples))
    possible = np.clip(resampled, 100 * least, 100)
    low, high = np.quantile(possible, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1).tolist()  # each [1 or 2]
    return replace(estimate, low=min(*low, estimate.mean), high=max(*high, estimate.mean))


def _share_of_noise(errors: NDArray[np.int64]) -> float:
    """Mean square of the rest (images in seeds) over that of the images, in the two-way table [seeds, images], at most 1.

    All sums are of integers: neither rounding nor order can make a difference.
    """
    seeds, images = errors.shape
    total = int(errors.sum()) ** 2
    by_seed = seeds * int((errors.sum(axis=1) ** 2).sum()) - total  # sums of squares, all times errors.size
    by_image = images * int((errors.sum(axis=0) ** 2).sum()) - total
    rest = errors.size * int((errors**2).sum()) - by_seed - by_image - total
    return min(rest / (seeds - 1) / by_image, 1.0) if by_image else 0.0


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


def _array(values: ArrayLike, axes: str) -> NDArray[np.float64]:
    """The values as floats, if they are finite and have one axis for each name in axes."""
    array = np.asarray(values, dtype=float)
    if array.ndim != len(axes.split(", ")):
        raise ValueError(f"expected an array [{axes}], not one of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"values must be finite: {array}")
    return array


def _wrong(values: ArrayLike, axes: str = "seeds, images") -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != bool or array.ndim != len(axes.split(", ")):
        raise ValueError(f"expected a boolean array [{axes}], not {array.dtype} of shape {array.shape}")
    return array


def _same_shape(first: Array, second: Array) -> tuple[Array, Array]:
    if first.shape != second.shape:
        raise ValueError(f"pairs have the same shape, not {first.shape} and {second.shape}")
    return first, second


def _levels(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    if min(errors.shape[1:]) < 2:
        raise ValueError(f"an effect needs two levels of an axis, not the shape {errors.shape}")
    return errors
