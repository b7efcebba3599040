"""Estimates against scipy and closed forms."""

import itertools
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import t_interval


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
    with pytest.raises(ValueError, match="confidence"):
        t_interval([1, 2], 95)


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
