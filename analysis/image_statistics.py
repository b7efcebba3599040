"""Arrays -> estimates by test image: pure functions, like those by seed in statistics.py.

=====================  ===================================================================================
one cell               ``bootstrap``: over seeds and test images
a cell to a reference  ``bootstrap_difference``: by seed and image; ``mcnemar``: two networks, by image
predictions            ``ensemble``
=====================  ===================================================================================

``wrong`` is True where the network of a seed errs on a test image; estimates made of it are in percent. Pairs are aligned by
position, by the caller. What n is too small for is NaN. Every function raises a ValueError for values that are not finite (for
``wrong``: not boolean) and for arrays of another shape than it states.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from analysis.arrays import finite, same_shape
from analysis.statistics import Estimate, t_interval


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
    first, second = same_shape(_wrong(wrong).astype(np.int64), _wrong(reference).astype(np.int64))
    return _two_way(first - second, -1, generator, resamples, confidence)


def ensemble(scores: ArrayLike, labels: int = 1) -> NDArray[np.int64]:
    """Predictions of the mean over seeds of scores [seeds, images, classes]; a tie goes to the lower class.

    They are [images], or with more than one label [images, labels]: the classes with the largest means, in rising order.
    """
    array = finite(scores, "seeds, images, classes")
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
    first, second = same_shape(_wrong(first_wrong, "images"), _wrong(second_wrong, "images"))
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    either = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, either).pvalue) if either else 1.0)


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


def _wrong(values: ArrayLike, axes: str = "seeds, images") -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != bool or array.ndim != len(axes.split(", ")):
        raise ValueError(f"expected a boolean array [{axes}], not {array.dtype} of shape {array.shape}")
    return array
