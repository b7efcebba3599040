"""Numbers as text: as many digits as their uncertainty bears, a true minus sign, never a p of 0."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.axes import axes_read
from analysis.cells import Cell
from analysis.fields import named
from analysis.statistics import Comparison, Estimate
from capsnet.registry import DATASETS
from experiments.significance import ALPHA, decimals_of


def class_text(dataset: str, label: int) -> str:
    """A class in a figure: ``3 (cat)``; a name's dollars are none of matplotlib's, which begin mathematics."""
    return DATASETS[dataset].called(label).replace("$", r"\$")


def classes_text(dataset: str, labels: Iterable[int]) -> str:
    """``classes: 0 (cat), 3 (dog)`` of those labels; nothing of a data set whose classes have no names."""
    facts = DATASETS[dataset]
    called = [
        class_text(dataset, label).replace(" ", "\xa0") for label in sorted(set(labels))
    ]  # so that no line ends within one
    return f"classes: {', '.join(called)}" if facts.names else ""


def setting_text(setting: Mapping[str, Any], between: str = " ") -> str:
    """A cell by its axes: ``r 3, reconstruction weight 0.0005``."""
    return ", ".join(named(axis, value, between) for axis, value in axes_read(setting).items()) or "the only cell"


def error_text(cell: Cell) -> str:
    """``2.22 ± 0.56 (n=3)``: the deviation with two significant digits, the mean to the same decimals.

    Where there is no deviation, or it is 0, two decimals: what one of 10,000 test images is worth.
    """
    return estimate_text(cell.error, cell.count)


def estimate_text(estimate: Estimate, count: str = "") -> str:
    """The same of any estimate, with its n if there is no more to say of the count."""
    return f"{mean_text(estimate)} ({count or f'n={estimate.n}'})"


def mean_text(estimate: Estimate) -> str:
    """The same without its n: ``2.22 ± 0.56``, or ``2.22`` of one."""
    if estimate.n < 2:
        return f"{estimate.mean:.2f}" if estimate.n else "—"
    decimals = decimals_of(estimate.sd)
    return f"{estimate.mean:.{decimals}f} ± {estimate.sd:.{decimals}f}"


def interval_text(estimate: Estimate, *, signed: bool = False) -> str:
    """``[1.9, 2.6]``, half its width with two significant digits; a dash without an interval."""
    if math.isnan(estimate.low):
        return "—"
    decimals = decimals_of((estimate.high - estimate.low) / 2)
    low, high = (number_text(bound, decimals, signed=signed) for bound in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def p_text(p: float) -> str:
    """A p-value to two significant digits, never as 0, and on its own side of ALPHA: 0.0503 is not 0.05."""
    if math.isnan(p):
        return "—"
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) <= ALPHA) == (p <= ALPHA)) if p >= 1e-4 else "<0.0001"


def signed_text(value: float, estimate: Estimate) -> str:
    """A difference with the digits that its interval bears, two decimals without one."""
    has = not math.isnan(estimate.low)
    return number_text(value, decimals_of((estimate.high - estimate.low) / 2) if has else 2, signed=True)


def difference_texts(difference: Estimate) -> list[str]:
    """A difference paired by seed, and its interval: ``−0.08``, ``[−0.11, −0.05]``; no spread of the pairs is no certainty."""
    return [signed_text(difference.mean, difference) if difference.n else "—", spread_text(difference)]


def spread_text(difference: Estimate) -> str:
    """Its interval, ``all equal`` where the seeds don't differ: [−0.28, −0.28] would tell of a certainty that there isn't."""
    return "all equal" if difference.sd < 1e-9 else interval_text(difference, signed=True)


def comparison_texts(made: Comparison, p_holm: float) -> list[str]:
    """What beside the difference is told of a comparison: effect size, p, and p corrected for its family."""
    effect = "—" if math.isnan(made.effect) else number_text(made.effect, 2, signed=True)
    return [effect, p_text(made.p), p_text(p_holm)]


def families_text(families: Mapping[str, Sequence[object]], *, named: bool) -> str:
    """``3 comparisons``, or with names of data sets ``3 comparisons on mnist and 2 on digits``; ``0 comparisons`` of none."""
    (first, members), *rest = families.items() or [("", ())]
    counted = f"{len(members)} comparison{'s' * (len(members) != 1)}"
    counted += f" on {first}" if named and families else ""
    return counted + "".join(f" and {len(others)} on {name}" for name, others in rest)


def number_text(value: float, decimals: int, *, signed: bool) -> str:
    """With a true minus sign, and none before a zero."""
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")


def partly(text: str, n: int, of: int) -> str:
    """Says so if predictions of some runs are gone."""
    return text if n == of else f"{text} (n={n})"
