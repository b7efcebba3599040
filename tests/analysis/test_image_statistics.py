"""Estimates and tests by test image against statsmodels, closed forms, a naive version and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from analysis.image_statistics import bootstrap, bootstrap_difference, ensemble, mcnemar
from analysis.statistics import t_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def deviation_of(share, samples):
    """Four standard errors of a share that was counted in so many samples."""
    return 4 * math.sqrt(share * (1 - share) / samples)


# --- bootstrap ---------------------------------------------------------------------------------------------------------


def networks(generator, error, seeds, images, difficulty=0.8, spread=0.004):
    """Wrong [seeds, images] of networks with this true error: normal difficulty of images, luck of seeds, and noise."""
    latent = math.sqrt(difficulty) * generator.standard_normal(images)
    latent = latent + math.sqrt(spread) * generator.standard_normal((seeds, 1))
    latent = latent + math.sqrt(1 - difficulty - spread) * generator.standard_normal((seeds, images))
    return latent + stats.norm.ppf(error) > 0


def naive(errors, least, generator, resamples=100_000):
    """The interval of the docstring, image by image: [low, high] in %, from errors [seeds, images]."""
    seeds, images = errors.shape
    mean, by_seed, by_image = errors.mean(), errors.mean(axis=1, keepdims=True), errors.mean(axis=0, keepdims=True)
    noise = ((errors - by_seed - by_image + mean) ** 2).sum() / ((seeds - 1) * (images - 1))
    kept = max(1 - noise / (seeds * ((by_image - mean) ** 2).sum() / (images - 1)), 0)
    padded = np.column_stack([errors, np.full(seeds, least), np.ones(seeds)])
    weights = generator.dirichlet([1.0] * images + [0.5, 0.5], resamples)  # [resamples, images and two halves]
    only_images = (weights @ padded.T).mean(axis=1)
    both = mean + math.sqrt(kept) * (only_images - mean)
    both += by_seed.std(ddof=1) / math.sqrt(seeds) * generator.standard_t(seeds - 1, resamples)
    quantiles = 100 * np.quantile(np.clip([only_images, both], least, 1), [0.025, 0.975], axis=1)
    return min(quantiles[0]), max(quantiles[1])


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (6, 0.0), (6, 0.15)])
def test_bootstrap_equals_the_naive_version(seeds, spread):
    wrong = networks(rng(seeds), 0.25, seeds, 40, 0.5, spread)
    found = bootstrap(wrong, rng(1), resamples=100_000)
    assert (found.low, found.high) == pytest.approx(naive(wrong.astype(float), 0, rng(2)), abs=0.3)
    reference = networks(rng(9), 0.35, seeds, 40, 0.5, spread)
    found = bootstrap_difference(wrong, reference, rng(1), resamples=100_000)
    assert (found.low, found.high) == pytest.approx(naive(wrong * 1.0 - reference, -1, rng(2)), abs=0.5)


@pytest.mark.parametrize("wrong", [1, 6, 100])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_bootstrap_of_one_seed_is_jeffreys_interval(wrong, confidence):
    found = bootstrap(np.arange(360)[None] < wrong, rng(), resamples=200_000, confidence=confidence)
    expected = 100 * stats.beta.ppf([(1 - confidence) / 2, (1 + confidence) / 2], wrong + 0.5, 360 - wrong + 0.5)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.05)
    assert (found.mean, found.n, found.kind) == (
        pytest.approx(wrong / 3.6),
        1,
        f"{100 * confidence:g}% bootstrap interval over test images",
    )
    assert math.isnan(found.sd)


def test_bootstrap_includes_the_mean_where_no_image_is_wrong_or_each():
    wrong = np.zeros((1, 360), dtype=bool)
    none, each = bootstrap(wrong, rng(), resamples=100_000), bootstrap(~wrong, rng(), resamples=100_000)
    assert (none.mean, none.low, none.high) == (0, 0, pytest.approx(100 * stats.beta.ppf(0.975, 0.5, 360.5), abs=0.02))
    assert (each.mean, each.low, each.high) == (100, pytest.approx(100 * stats.beta.ppf(0.025, 360.5, 0.5), abs=0.02), 100)


def test_bootstrap_has_mean_and_deviation_over_seeds():
    wrong = networks(rng(), 0.05, 4, 500)
    found, expected = bootstrap(wrong, rng(), confidence=0.9), t_interval(100 * wrong.mean(axis=1))
    assert (found.mean, found.sd, found.n) == (expected.mean, expected.sd, 4)
    assert found.kind == "90% bootstrap interval over seeds and test images"
    assert found.low < found.mean < found.high


def test_bootstrap_is_that_of_one_seed_if_all_agree():
    # and not narrower for it: the same network six times is no more images
    one = networks(rng(), 0.05, 1, 500)
    alone, together = bootstrap(one, rng(1)), bootstrap(np.repeat(one, 6, axis=0), rng(1))
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert together.sd == 0


def test_bootstrap_depends_on_the_generator_but_on_no_order():
    wrong = networks(rng(), 0.05, 3, 400)
    images = rng(5).permutation(400)
    first = bootstrap(wrong, rng(1))
    assert first == bootstrap(wrong[[2, 0, 1]][:, images], rng(1))
    assert first != bootstrap(wrong, rng(2))
    found = bootstrap_difference(wrong, wrong[:, images], rng(1))
    assert found == bootstrap_difference(wrong[[1, 2, 0]], wrong[[1, 2, 0]][:, images], rng(1))


def test_intervals_stay_within_the_possible():
    wrong = np.zeros((2, 50), dtype=bool)
    wrong[0, :8] = True  # t with one degree of freedom reaches far
    found = bootstrap(wrong, rng())
    assert (found.low, found.high) == (0, 100)
    found = bootstrap_difference(wrong, ~wrong, rng())
    assert (found.low, found.high) == (-100, pytest.approx(100))


def test_difference_of_bootstraps_changes_sign():
    first, second = networks(rng(1), 0.05, 4, 2000), networks(rng(2), 0.08, 4, 2000)
    there = bootstrap_difference(first, second, rng(1), resamples=100_000)
    back = bootstrap_difference(second, first, rng(2), resamples=100_000)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.05)


def test_difference_of_networks_that_err_alike_is_small_but_not_none():
    wrong = networks(rng(), 0.05, 3, 360)
    found = bootstrap_difference(wrong, wrong, rng(), resamples=100_000)
    assert (found.mean, found.sd) == (0, 0)
    assert -1 < found.low < 0 < found.high < 1
    assert found.high < bootstrap(wrong, rng()).high - bootstrap(wrong, rng()).low


def test_bootstrap_of_mnist_size_is_cheap():
    wrong = networks(rng(), 0.003, 6, 10_000)
    first, second = bootstrap(wrong, rng(1)), bootstrap(wrong, rng(1), resamples=1000)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=0.02)


def test_no_seed_has_no_bootstrap():
    found = bootstrap(np.zeros((0, 10), dtype=bool), rng())
    assert np.isnan([found.mean, found.sd, found.low, found.high]).all()
    assert found.n == 0


@pytest.mark.parametrize(
    ("seeds", "images", "error", "spread"),
    [(1, 360, 0.015, 0), (3, 360, 0.015, 0.004), (6, 360, 0.03, 0.004), (3, 1000, 0.03, 0.03), (6, 1000, 0.01, 0.03)],
)
def test_bootstrap_covers_the_true_error(seeds, images, error, spread):
    generator = rng(seeds)
    found = [bootstrap(networks(generator, error, seeds, images, 0.8, spread), generator, resamples=1000) for _ in range(600)]
    covered = np.mean([e.low <= 100 * error <= e.high for e in found])
    assert 0.95 - deviation_of(0.95, 600) <= covered <= 0.99


@pytest.mark.parametrize(("seeds", "images", "spread"), [(1, 1000, 0), (3, 360, 0.004), (6, 1000, 0.03)])
def test_difference_of_bootstraps_covers_the_true_difference(seeds, images, spread):
    generator, found = rng(seeds), []
    for _ in range(600):
        joint = networks(generator, 0.02, 2 * seeds, images, 0.8, spread)  # the images are as difficult for both
        harder = joint[seeds:] | (generator.random((seeds, images)) < 0.01)
        found.append(bootstrap_difference(joint[:seeds], harder, generator, resamples=1000))
    covered = np.mean([e.low <= -100 * 0.98 * 0.01 <= e.high for e in found])
    assert 0.95 - deviation_of(0.95, 600) <= covered <= 0.995


# --- predictions -------------------------------------------------------------------------------------------------------


def test_ensemble_predicts_the_class_of_the_highest_mean_score():
    scores = rng().random((3, 50, 10))
    expected = [max(range(10), key=lambda c: sum(scores[:, image, c])) for image in range(50)]
    assert ensemble(scores).tolist() == expected
    assert (ensemble(scores[:1]) == scores[0].argmax(axis=1)).all()


def test_ensemble_outvotes_one_seed():
    scores = np.array([[[0.9, 0.1]], [[0.3, 0.6]], [[0.2, 0.8]]])
    assert ensemble(scores).tolist() == [1]


def test_ties_of_an_ensemble_go_to_the_lowest_class_whatever_the_order():
    scores = np.array([[[0.0, 0.1, 0.3]], [[0.0, 0.2, 0.2]], [[0.0, 0.3, 0.1]]])  # sums that rounding could part
    assert {int(ensemble(scores[list(order)])[0]) for order in itertools.permutations(range(3))} == {1}


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 5), (2, 11), (30, 12)])
def test_mcnemar_equals_statsmodels(only_first, only_second):
    first = np.repeat([True, True, False, False], [7, only_first, only_second, 100])
    second = np.repeat([True, False, True, False], [7, only_first, only_second, 100])
    found, back = mcnemar(first, second), mcnemar(second, first)
    expected = statsmodels_mcnemar([[7, only_first], [only_second, 100]], exact=True).pvalue if only_first else None
    assert (found.only_first, found.only_second) == (back.only_second, back.only_first) == (only_first, only_second)
    assert found.p == pytest.approx(1.0 if expected is None else expected)
    assert found.p == back.p


# --- refusals ----------------------------------------------------------------------------------------------------------

WRONG = np.zeros((2, 5), dtype=bool)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("boolean", lambda: bootstrap(WRONG * 1.0, rng())),
        ("seeds, images", lambda: bootstrap(WRONG[0], rng())),
        ("two images", lambda: bootstrap(WRONG[:, :1], rng())),
        ("resample", lambda: bootstrap(WRONG, rng(), resamples=0)),
        ("confidence", lambda: bootstrap(WRONG, rng(), confidence=95)),
        ("same shape", lambda: bootstrap_difference(WRONG, WRONG[:1], rng())),
        ("boolean", lambda: bootstrap_difference(WRONG, WRONG * 1, rng())),
        ("seeds, images, classes", lambda: ensemble([[0.1, 0.9]])),
        ("a seed and a class", lambda: ensemble(np.zeros((0, 5, 10)))),
        ("boolean", lambda: mcnemar([0, 1], [True, False])),
        ("same shape", lambda: mcnemar(WRONG[0], WRONG[0, :2])),
        ("finite", lambda: ensemble([[[math.nan, 1.0]]])),
        ("finite", lambda: ensemble([[[math.inf, 1.0]]])),
    ],
)
def test_refuses_by_name(message, call):
    with pytest.raises(ValueError, match=message):
        call()
