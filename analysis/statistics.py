"""Arrays -> estimates: pure functions that neither know where numbers come from nor drop any of them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student


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
