"""Estimates and tests by seed against scipy, statsmodels, closed forms, enumeration and simulation."""

import itertools
import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.statistics import (
    MOST_PAIRS,
    compare,
    detectable_difference,
    holm,
    interaction,
    main_effects,
    ranks,
    sign_flip_p,
    t_interval,
)
from experiments.significance import smallest_p


def rng(seed=0):
    return np.random.default_rng(seed)


def deviation_of(share, samples):
    """Four standard errors of a share that was counted in so many samples."""
    return 4 * math.sqrt(share * (1 - share) / samples)


@pytest.mark.parametrize("n", [2, 3, 6, 30])
def test_equals_scipy(n):
    values = np.random.default_rng(n).normal(0.3, 0.05, n)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    estimate = t_interval(values)
    assert estimate.n == n
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.sd == pytest.approx(stats.tstd(values))
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_closed_form_of_two_values():
    # t with one degree of freedom is Cauchy: its 97.5% quantile is tan(0.475 pi)
    estimate = t_interval([1.0, 3.0])
    half = math.tan(0.475 * math.pi) * math.sqrt(2) / math.sqrt(2)
    assert (estimate.mean, estimate.sd) == pytest.approx((2, math.sqrt(2)))
    assert (estimate.low, estimate.high) == pytest.approx((2 - half, 2 + half))


def test_covers_the_true_mean_in_95_of_100_samples():
    samples = np.random.default_rng(0).normal(1.0, 0.2, (2000, 3))
    covered = np.mean([e.low <= 1.0 <= e.high for e in map(t_interval, samples)])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_confidence_is_used_and_named():
    narrow, wide = t_interval([1, 2, 4], 0.5), t_interval([1, 2, 4])
    assert wide.high > narrow.high
    assert (narrow.kind, wide.kind) == ("50% Student-t interval", "95% Student-t interval")
    for none in (0, 1, 95):
        with pytest.raises(ValueError, match="confidence"):
            t_interval([1, 2], none)


def test_one_value_has_no_spread_and_none_has_nothing():
    one, none = t_interval([0.25]), t_interval([])
    assert (one.mean, one.n, none.n) == (0.25, 1, 0)
    assert np.isnan([one.sd, one.low, one.high, none.mean, none.sd, none.low, none.high]).all()


def test_equal_values_have_exactly_no_spread():
    estimate = t_interval([0.1, 0.1, 0.1])  # whose sum is not 0.3
    assert (estimate.mean, estimate.sd, estimate.low, estimate.high) == (0.1, 0, 0.1, 0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        t_interval([0.1, bad, 0.2])


def test_order_makes_no_difference_to_the_bit():
    assert len({t_interval(order) for order in itertools.permutations([0.1, 0.7, 0.2, 1e-9, 0.3])}) == 1


def test_an_estimate_can_not_be_changed():
    with pytest.raises(FrozenInstanceError):
        t_interval([1, 2]).mean = 0


# --- compare -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 6, 30])
def test_comparison_equals_the_paired_t_interval(n):
    values, reference = rng(n).normal(0.3, 0.05, (2, n))
    expected = stats.ttest_rel(values, reference).confidence_interval(0.9)
    difference = compare(values, reference, alpha=0.1).difference
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert (difference.mean, difference.n) == (pytest.approx((values - reference).mean()), n)
    assert difference.kind == "90% Student-t interval"


def test_comparison_hands_on_its_parts():
    values, reference = rng().normal(0.3, 0.05, (2, 5))
    found = compare(values, reference, alpha=0.01, power=0.9)
    assert found.p == pytest.approx(sign_flip_p(values - reference))
    assert found.smallest_p == smallest_p(5)
    assert found.detectable == pytest.approx(detectable_difference(found.difference.sd, 5, 0.01, 0.9))


def test_swapping_cell_and_reference_changes_signs_only():
    values, reference = rng(1).normal(0.3, 0.05, (2, 7))
    there, back = compare(values, reference), compare(reference, values)
    assert (there.difference.mean, there.effect) == pytest.approx((-back.difference.mean, -back.effect))
    assert (there.difference.low, there.difference.high) == pytest.approx((-back.difference.high, -back.difference.low))
    assert (there.p, there.smallest_p) == (back.p, back.smallest_p)
    assert there.detectable == pytest.approx(back.detectable)


def test_order_of_the_pairs_makes_no_difference_to_the_bit():
    pairs = list(zip([0.31, 0.35, 0.28, 0.4, 0.33], [0.3, 0.37, 0.27, 0.31, 0.3], strict=True))
    assert len({compare(*zip(*order, strict=True)) for order in itertools.permutations(pairs)}) == 1


def test_pairing_removes_what_a_seed_does_to_both():
    seeds = np.array([5.0, 1.0, 9.0, 3.0])
    noise = np.array([0.1, 0.2, 0.15, 0.12])
    assert compare(seeds + noise, seeds).difference.mean == pytest.approx(noise.mean())
    assert compare(seeds + noise, seeds).difference.sd == pytest.approx(noise.std(ddof=1))


def test_rounding_of_equal_differences_is_no_spread():
    found = compare([0.35, 0.36, 0.30], [0.33, 0.34, 0.28])  # whose differences differ by 5e-17
    assert (found.difference.mean, found.difference.sd, found.detectable) == (0.02, 0, 0)
    assert math.isnan(found.effect)
    assert compare([0.1 + 0.2], [0.3]).difference.mean == 0


def test_what_few_pairs_can_not_tell_is_nan():
    none, one, two = compare([], []), compare([2], [1]), compare([2, 4], [1, 1])
    assert np.isnan([none.difference.mean, none.p, none.smallest_p, none.effect, none.detectable]).all()
    assert (none.difference.n, one.difference.n) == (0, 1)
    assert (one.difference.mean, one.p, one.smallest_p) == (1, 1, 1)
    assert np.isnan([one.difference.low, one.effect, one.detectable, two.effect]).all()
    assert two.detectable > 0


@pytest.mark.parametrize(
    ("n", "correction"), [(3, 1 / math.sqrt(math.pi)), (4, math.sqrt(math.pi / 6)), (5, math.sqrt(2 / math.pi))]
)
def test_effect_in_closed_form(n, correction):
    differences = rng(n).normal(1, 1, n)
    expected = correction * differences.mean() / differences.std(ddof=1)
    assert compare(differences, np.zeros(n)).effect == pytest.approx(expected)


def test_effect_has_the_usual_correction_for_many_pairs():
    differences = rng().normal(1, 1, 30)
    found = compare(differences, np.zeros(30)).effect * differences.std(ddof=1) / differences.mean()
    assert found == pytest.approx(1 - 3 / (4 * 29 - 1), rel=1e-4)


def test_effect_is_unbiased():
    samples = rng().normal(0.8, 1, (200_000, 5))
    found = samples.mean(axis=1) / samples.std(axis=1, ddof=1)
    correction = compare(samples[0], np.zeros(5)).effect / found[0]
    assert correction * found.mean() == pytest.approx(0.8, abs=4 * found.std() / math.sqrt(len(found)))


# --- sign flips --------------------------------------------------------------------------------------------------------


def enumerated(differences):
    """Of all sign flips, the share that is as extreme, in exact arithmetic."""
    exact = [Fraction(d) for d in differences]
    sums = [
        abs(sum(s * d for s, d in zip(signs, exact, strict=True))) for signs in itertools.product([1, -1], repeat=len(exact))
    ]
    return np.mean([total >= abs(sum(exact)) for total in sums])


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("scale", [1, 3])
def test_sign_flips_equal_enumeration(n, scale):
    continuous = rng(n).normal(0.5, 1, n)
    tied = rng(n).integers(-scale, scale + 2, n)  # with ties and zeros
    assert sign_flip_p(continuous) == enumerated(continuous)
    assert sign_flip_p(tied) == enumerated(tied)


def test_sign_flips_equal_scipy():
    differences = rng().normal(0.6, 1, 11)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", [23, MOST_PAIRS])
def test_sign_flips_of_many_differences_equal_counting_by_value(n):
    differences = rng(n).integers(-2, 6, n)
    ways = {0: 1}  # sum -> flips that have it
    for d in differences:
        ways = {total: ways.get(total - int(d), 0) + ways.get(total + int(d), 0) for total in range(-8 * n, 8 * n + 1)}
    expected = sum(count for total, count in ways.items() if abs(total) >= abs(differences.sum())) / 2**n
    assert 0.001 < expected < 0.3
    assert sign_flip_p(differences) == pytest.approx(expected, rel=1e-12)


def test_sign_flips_do_not_depend_on_unit_sign_or_rounding():
    counts = np.array([3, 1, 2, -1, 4, 2])
    assert len({sign_flip_p(k * counts) for k in (1, -1, 0.01, 1 / 360, 1e-9, 1e9)}) == 1
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1  # a sum of 5e-17


def test_differences_of_one_sign_reach_the_smallest_p():
    for n in range(1, 12):
        assert sign_flip_p(np.arange(1, n + 1)) == smallest_p(n) == 2 / 2**n
    assert sign_flip_p([0, 0, 0]) == 1
    assert math.isnan(sign_flip_p([]))
    assert math.isnan(smallest_p(0))


def test_a_true_null_is_rejected_as_often_as_can_be():
    # of 2**8 flips 12 are among the 5% most extreme: 4.7%; with a seed in common, the pairs' values are far from normal
    values, reference = rng(2).exponential(size=(2, 2000, 8)) + rng(3).exponential(size=(2000, 8))
    rejected = np.mean([sign_flip_p(d) <= 0.05 for d in values - reference])
    assert rejected == pytest.approx(12 / 256, abs=deviation_of(12 / 256, 2000))


# --- detectable difference ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "alpha", "power"),  # with fewer pairs statsmodels' power is NaN, as scipy's lower tail is
    [(3, 0.05, 0.8), (6, 0.05, 0.8), (30, 0.05, 0.8), (300, 0.05, 0.8), (5, 0.01, 0.9), (6, 0.2, 0.95), (30, 0.01, 0.95)],
)
def test_detectable_difference_equals_statsmodels(n, alpha, power):
    expected = TTestPower().power(detectable_difference(0.04, n, alpha, power) / 0.04, n, alpha)
    assert expected == pytest.approx(power, abs=1e-7)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_detectable_difference_is_found_with_its_power(n):
    samples = rng(n).normal(detectable_difference(0.2, n), 0.2, (20_000, n))
    found = (stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05).mean()
    assert found == pytest.approx(0.8, abs=deviation_of(0.8, 20_000))


def test_detectable_difference_for_many_is_normal():
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / 100
    assert detectable_difference(1, 10_000) == pytest.approx(expected, rel=1e-3)


def test_detectable_difference_has_the_unit_of_the_deviation():
    assert detectable_difference(3, 4) == pytest.approx(3 * detectable_difference(1, 4))
    assert detectable_difference(0, 4) == 0
    assert math.isnan(detectable_difference(math.nan, 1))


def test_detectable_difference_at_the_edge_of_what_scipy_can():
    # with one degree of freedom: P(abs(Z1 + d) > t abs(Z2)), to a good approximation P(abs(Z2) < d / t)
    critical = stats.t.ppf(1 - 0.001 / 2, 1)
    assert detectable_difference(1, 2, 0.001, 0.99) * math.sqrt(2) == pytest.approx(critical * stats.norm.ppf(0.995), rel=1e-3)


# --- Holm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_holm_equals_statsmodels(m):
    p = rng(m).uniform(0, 0.2, m) ** 2
    p[m // 2] = p[0]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_was_not_compared():
    found = holm([math.nan, 0.02, 0.01, math.nan])
    assert found[1:3] == pytest.approx([0.02, 0.02])
    assert np.isnan(found[[0, 3]]).all()


def test_holm_keeps_the_order_and_its_argument():
    p = rng().uniform(size=50)
    before, order = p.copy(), np.argsort(p)
    assert (np.diff(holm(p)[order]) >= 0).all()
    assert (holm(p) >= p).all()
    assert (holm(p[::-1])[::-1] == holm(p)).all()
    assert (p == before).all()


# --- grids -------------------------------------------------------------------------------------------------------------


def test_main_effects_are_t_intervals_within_seeds():
    errors = rng().normal(1, 0.1, (5, 3)) + rng(1).normal(0, 3, (5, 1))  # what a seed does to all levels cancels
    found = main_effects(errors)
    assert sum(e.mean for e in found) == pytest.approx(0)
    for level, estimate in enumerate(found):
        deviations = errors[:, level] - errors.mean(axis=1)
        expected = stats.ttest_1samp(deviations, 0).confidence_interval()
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
        assert (estimate.mean, estimate.n) == (pytest.approx(errors[:, level].mean() - errors.mean()), 5)


def test_main_effect_of_two_levels_is_half_their_difference():
    errors = rng().normal(1, 0.1, (4, 2))
    first, second = main_effects(errors)
    difference = compare(errors[:, 1], errors[:, 0]).difference
    assert (second.mean, second.low, second.high) == pytest.approx(
        (difference.mean / 2, difference.low / 2, difference.high / 2)
    )
    assert (first.low, first.high) == pytest.approx((-second.high, -second.low))


def test_interaction_of_two_by_two_is_a_quarter_of_the_difference_of_differences():
    errors = rng().normal(1, 0.1, (6, 2, 2))
    quarter = t_interval((errors[:, 1, 1] - errors[:, 1, 0] - errors[:, 0, 1] + errors[:, 0, 0]) / 4)
    found = interaction(errors)
    for a, b in itertools.product(range(2), range(2)):
        sign = 1 if a == b else -1
        bounds = sorted([sign * quarter.low, sign * quarter.high])
        assert [found[a][b].low, found[a][b].high] == pytest.approx(bounds)
        assert (found[a][b].mean, found[a][b].n) == (pytest.approx(sign * quarter.mean), 6)


def test_interaction_adds_up_with_the_main_effects():
    errors = rng().normal(1, 0.1, (3, 2, 4))
    rows, columns = main_effects(errors.mean(axis=2)), main_effects(errors.mean(axis=1))
    found = interaction(errors)
    assert (len(found), len(found[0])) == (2, 4)
    for a, b in itertools.product(range(2), range(4)):
        whole = errors.mean() + rows[a].mean + columns[b].mean + found[a][b].mean
        assert whole == pytest.approx(errors[:, a, b].mean())


def test_additive_axes_do_not_interact_and_equal_levels_have_no_effect():
    a, b = np.array([0.1, 0.25, 0.7]), np.array([0.3, 0.33])
    seeds = np.array([0.01, 0.02, 0.07])
    errors = seeds[:, None, None] + a[:, None] + b
    assert {(e.mean, e.sd, e.low, e.high) for row in interaction(errors) for e in row} == {(0, 0, 0, 0)}
    assert {(e.mean, e.sd) for e in main_effects(np.tile(seeds[:, None], 3))} == {(0, 0)}
    assert [e.n for e in main_effects(np.zeros((0, 2)))] == [0, 0]
    assert all(math.isnan(e.low) and e.n == 1 for e in main_effects([[1, 2]]))


def test_ranks_are_those_of_friedman():
    errors = rng().normal(1, 0.1, (7, 4))
    found = ranks(errors)
    statistic = 12 * 7 / (4 * 5) * ((found - 2.5) ** 2).sum()
    assert statistic == pytest.approx(stats.friedmanchisquare(*errors.T).statistic)
    assert found.sum() == pytest.approx(4 * 5 / 2)


def test_lowest_error_ranks_first_and_ties_share():
    assert ranks([[0.2, 0.5, 0.3]]).tolist() == [1, 3, 2]
    assert ranks([[0.2, 0.2, 0.3], [0.1, 0.2, 0.2]]).tolist() == [1.25, 2, 2.75]
    assert np.isnan(ranks(np.zeros((0, 3)))).tolist() == [True] * 3


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda bad: compare([1, bad], [1, 2]),
        lambda bad: compare([1, 2], [1, bad]),
        lambda bad: sign_flip_p([1, bad]),
        lambda bad: detectable_difference(bad, 3),
        lambda bad: main_effects([[1, bad]]),
        lambda bad: interaction([[[1, bad], [2, 3]]]),
        lambda bad: ranks([[1, bad]]),
        lambda bad: holm([0.1, -bad if math.isinf(bad) else 2]),
    ],
)
def test_nothing_takes_what_is_not_finite(call, bad):
    with pytest.raises(ValueError, match=r"finite|must be in \[0, 1\]"):
        call(bad)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("same shape", lambda: compare([1, 2], [1])),
        ("pairs", lambda: compare([[1, 2]], [[1, 2]])),
        ("pairs", lambda: sign_flip_p(1.0)),
        (f"at most {MOST_PAIRS} differences, not 41", lambda: sign_flip_p(np.ones(41))),
        ("negative", lambda: smallest_p(-1)),
        ("negative", lambda: detectable_difference(-1, 3)),
        ("alpha", lambda: detectable_difference(1, 3, alpha=0)),
        ("power", lambda: detectable_difference(1, 3, power=1)),
        ("power", lambda: compare([1, 2], [2, 1], power=0.01)),
        ("array \\[m\\]", lambda: holm([[0.1, 0.2]])),
        ("must be in", lambda: holm([0.1, 1.1])),
        ("seeds, levels", lambda: main_effects([1.0, 2.0])),
        ("two levels", lambda: main_effects([[1.0], [2.0]])),
        ("two levels", lambda: interaction(np.zeros((3, 2, 1)))),
        ("levels_b", lambda: interaction(np.zeros((3, 2)))),
        ("seeds, cells", lambda: ranks([1.0, 2.0])),
    ],
)
def test_refuses_by_name(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_pairs_than_can_be_counted_are_tested_by_t():
    generator = np.random.default_rng(5)
    first, second = generator.normal(0.2, 1, MOST_PAIRS + 1), generator.normal(0, 1, MOST_PAIRS + 1)
    assert compare(first, second).p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)
    assert compare(first, first).p == 1.0
    assert compare(first, first - 1).p == 0.0
    fewer = compare(first[1:], second[1:])
    assert fewer.p == pytest.approx(sign_flip_p(first[1:] - second[1:]), rel=1e-9)
