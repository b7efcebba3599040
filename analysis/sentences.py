"""One comparison as a sentence, and the words that sentences are made of. Numbers have the formats of wording.py."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.axes import axes_read
from analysis.cells import Cell
from analysis.comparisons import in_reach
from analysis.fields import apart, name_of, named, value_text
from analysis.statistics import Comparison
from analysis.wording import error_text, p_text, setting_text, signed_text, spread_text
from experiments.significance import ALPHA, decimals_of, seeds_needed

NAMED = 6  # things that a sentence names at most


@dataclass(frozen=True)
class Finding:
    """A sentence or two, as plain text, and whether they claim a difference."""

    text: str
    claims: bool = False


@dataclass(frozen=True)
class Chapter:
    """Findings on one question, and what holds for all of them."""

    title: str
    lead: str
    findings: Sequence[Finding]


def finding_of(subject: str, made: Comparison, corrected: float, family: Sequence[Comparison], over: str = "") -> Finding:
    """That a comparison shows a difference, or that none can be claimed and how small a one would be missed.

    Args:
        subject: ``r = 3 against 1``.
        made: the comparison.
        corrected: its p, corrected for the family.
        family: the comparisons that p is corrected for, itself included. Where none of them can show anything, that is
            said by :func:`out_of_reach`, once for all.
        over: what the numbers are means over.
    """
    estimate, n = made.difference, made.difference.n
    if n == 0:
        return Finding(f"{subject} cannot be compared: no seed has finished with both, all else being equal.")
    if n == 1:
        said = f"{points(estimate.mean, made)} by the only seed, which gives no interval, so nothing can be claimed"
        return Finding(f"{subject}{over}: {said}.")
    if corrected <= ALPHA:
        comma = "," if over else ""
        return Finding(f"{claim(f'{subject}{over}{comma}', made)} ({support(made, corrected, family)}).", claims=True)
    if estimate.mean == estimate.sd == 0:
        said = f"the test errors are equal in all {n} pairs, which shows neither a difference nor that there is none"
        return Finding(f"{subject}{over}: {said}.")
    said = f"no difference can be claimed ({points(estimate.mean, made)}, {support(made, corrected, family)})"
    if out_of_reach(family):
        rest = ""
    elif made.smallest_p > ALPHA:
        rest = f"; {n} pairs cannot show any"
    else:
        rest = f"; {how_small}" if (how_small := missed([made])) else ""
    return Finding(f"{subject}{over}: {said}{rest}.")


def claim(subject: str, made: Comparison) -> str:
    """``r = 3 against 1 lowers the test error by 0.08 points``."""
    verb = "lowers" if made.difference.mean < 0 else "raises"
    return f"{subject} {verb} the test error by {points(abs(made.difference.mean), made).removeprefix('+')}"


def support(made: Comparison, corrected: float, family: Sequence[Comparison]) -> str:
    """``95% interval [−0.11, −0.05], p = 0.031, corrected 0.062, n = 6``.

    The signs of all pairs may show a difference whose interval includes 0, because of one that is far from the others.
    """
    estimate, p, spread = made.difference, p_text(made.p), spread_text(made.difference)
    said = ["no interval" if estimate.n < 2 else "all pairs equal" if spread == "all equal" else f"95% interval {spread}"]
    said.append(f"p < {p[1:]}" if p.startswith("<") else f"p = {p}")
    if len(family) > 1 or corrected > made.p:  # an axis of two cells may be corrected as their table is
        said.append(f"corrected {p_text(corrected)}")
    unsure = corrected <= ALPHA and estimate.low <= 0 <= estimate.high
    return ", ".join([*said, f"n = {estimate.n}"]) + "; the size is uncertain, as the interval includes 0" * unsure


def points(value: float, made: Comparison) -> str:
    """``−0.08 points``, with the digits that the interval of the difference bears."""
    text = signed_text(value, made.difference)
    return f"{text} point{'s' * (text.lstrip('+−') != '1')}"


def missed(made: Sequence[Comparison]) -> str:
    """How small a difference is missed: ``one of less than 0.12 points would be missed``; of several, from ... to ....

    And how many of several have too few pairs to show any. Empty if no such difference is known.
    """
    able = [each for each in made if each.smallest_p <= ALPHA]
    known = sorted(each.detectable for each in able if each.detectable > 0)
    if not known:
        return ""
    first, last = (f"{value:.{decimals_of(value)}f}" for value in (known[0], known[-1]))
    said = first if first == last else f"{first} to {last}"
    few = f"; {len(made) - len(able)} of {len(made)} cannot show any" if len(able) < len(made) else ""
    return f"one of less than {said} point{'s' * (said != '1')} would be missed{few}"


def out_of_reach(family: Sequence[Comparison]) -> str:
    """Says so if none of the comparisons could show a difference, whatever the data; else empty."""
    known = [made for made in family if made.difference.n]
    if not known or in_reach(known):
        return ""
    pairs, least = max(made.difference.n for made in known), min(made.smallest_p for made in known)
    corrected = f", corrected {p_text(min(1.0, least * len(known)))}" if len(known) > 1 else ""
    return (
        f"With {count(pairs, 'pair')} p is {p_text(least)} at least{corrected}: no difference can be claimed, however large; "
        f"that takes {seeds_needed(len(known))} seeds."
    )


def percent(cell: Cell) -> str:
    """``3.61 ± 0.96 % (n=3)``."""
    return error_text(cell).replace(" (", " % (", 1)


def setting(values: Mapping[str, Any]) -> str:
    """``r = 3, lr schedule = constant``."""
    return setting_text(values, " = ")


def differing(values: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The axes in which two settings differ, of those that mean something to both or to one."""
    values, other = axes_read(values), axes_read(other)
    return [axis for axis in {**values, **other} if axis not in values or axis not in other or values[axis] != other[axis]]


def against(values: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What a setting has that the other has not: ``r = 3 against 1``, ``r = 3 with epochs = 9 against r = 1 with ...``."""
    if (read := axes_read(values)) == axes_read(other):  # two sizes of a decoder that is not made
        sizes = (f"{named(axis, values[axis], ' = ')} against {value_text(axis, other[axis])}" for axis in values.keys() - read)
        return f"{listed(sizes)}, which is the same network"
    values, other = read, axes_read(other)
    axes = differing(values, other)
    if len(axes) == 1:
        [axis] = axes
        shown, beside = apart(axis, values[axis], other[axis])
        return f"{name_of(axis)} = {shown} against {beside}"
    said = ([named(axis, each[axis], " = ") for axis in axes if axis in each] for each in (values, other))
    return " against ".join(first + (f" with {listed(rest)}" if rest else "") for first, *rest in said)


def count(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(parts: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def some(parts: Sequence[str], noun: str) -> str:
    """At most NAMED of them, and how many more there are: ``a; b; and 3 more cells``."""
    rest = len(parts) - NAMED
    return "; ".join([*parts[:NAMED], *([f"and {count(rest, f'more {noun}')}"] if rest > 0 else [])])
