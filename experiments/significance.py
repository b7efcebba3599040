"""What so many seeds can show at all, whatever the data: told before a launch, and again beside what came out."""

import math

ALPHA = 0.05  # a difference is claimed where p, corrected, is at most so much


def smallest_p(n: int) -> float:
    """The least p of a two-sided sign-flip test of n pairs: of 2**n patterns of signs 2 are extreme. For 0.05 it takes 6.

    >>> [smallest_p(n) for n in (1, 3, 5, 6)]
    [1.0, 0.25, 0.0625, 0.03125]
    """
    if n < 0:
        raise ValueError(f"n must not be negative: {n}")
    return 2 / 2**n if n else math.nan


def seeds_needed(comparisons: int) -> int:
    """The fewest seeds of which such a test can be significant when corrected for so many comparisons.

    >>> [seeds_needed(n) for n in (1, 3, 7)]
    [6, 7, 9]
    """
    return math.ceil(math.log2(2 * comparisons / ALPHA))


def decimals_of(uncertainty: float) -> int:
    """Decimals that give an uncertainty two significant digits; 2 if there is none."""
    # below 1e-9 a deviation is floating-point noise; {:.1e} rounds first, since 0.0996 is 0.10, not 0.100
    return max(0, 1 - int(f"{uncertainty:.1e}".split("e")[1])) if uncertainty > 1e-9 else 2
