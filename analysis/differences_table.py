"""The table of differences to a reference cell: paired by seed, tested, corrected, and what of it may be said."""

import pandas as pd

from analysis.axes import texts_of, varying
from analysis.captions import faults_notes, footer, in_brackets, slug
from analysis.cells import dataset_of, grouped
from analysis.comparisons import Comparisons, Difference
from analysis.fields import name_of
from analysis.formats import Table
from analysis.statistics import MOST_PAIRS
from analysis.wording import (
    comparison_texts,
    difference_texts,
    error_text,
    families_text,
    interval_text,
    p_text,
    partly,
    setting_text,
)
from experiments.significance import ALPHA, decimals_of, seeds_needed


def differences(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Every cell against the reference; None if there is one cell."""
    if not comparisons.references:
        return None
    axes = varying(runs)
    header = [*map(name_of, axes), "pairs", "difference (points)", "95% over seeds", "95% over seeds and images"]
    header += ["effect size", "p", "p (Holm)", "detectable", "verdict"]
    body = [_difference_row(difference, comparisons) for difference in comparisons.differences]
    caption = (
        f"Difference of the test error to the reference {_referred(comparisons)}, in percentage points, paired by seed; "
        f"{_reached(comparisons)}.{in_brackets(axes)}"
    )
    most = max((d.comparison.difference.n for d in comparisons.differences), default=0)
    test = "exact two-sided sign-flip permutation test" + f" (t-test of over {MOST_PAIRS} pairs)" * (most > MOST_PAIRS)
    families = grouped([d for d in comparisons.differences if d.comparison.difference.n], lambda d: d.cell)
    note = (
        f"p: {test} of the paired differences, by Holm's method corrected for "
        f"{families_text(families, named=len(comparisons.by_dataset) > 1)}. Effect size: mean difference over its sd, "
        "Hedges-corrected. Detectable: the smallest true difference that a paired t-test of this n, uncorrected, finds in 80% "
        f"of experiments (alpha {ALPHA:g}); the corrected p finds it less often."
    )
    beyond = reach_notes(comparisons)
    few = {n for d in comparisons.differences if (n := d.comparison.difference.n) and d.comparison.smallest_p > ALPHA}
    if few and not beyond:
        pairs = f"{max(few)} pair{'s' * (max(few) > 1)}"
        beyond = [f"Out of reach: {pairs}{' or fewer' * (len(few) > 1)} can show no difference, however large."]
    notes = [note, *beyond, *faults_notes(comparisons), footer(runs)]
    marked = frozenset(i for i, d in enumerate(comparisons.differences) if d.p_holm <= ALPHA)
    return Table(f"tab:{slug(runs)}-differences", caption, header, body, len(axes), notes, marked)


def reach_notes(comparisons: Comparisons) -> list[str]:
    """Says so where no data of this n could have been significant."""
    parts = comparisons.by_dataset
    said = {name: note for name, part in parts.items() for note in _reach_notes(part)}
    if len(parts) == 1:
        return [*said.values()]
    by_note: dict[str, list[str]] = {}
    for name, note in said.items():
        by_note.setdefault(note, []).append(name)
    return [f"On {' and '.join(names)}: {note[0].lower()}{note[1:]}" for note, names in by_note.items()]


def _reach_notes(comparisons: Comparisons) -> list[str]:
    compared = [d.comparison for d in comparisons.differences if d.comparison.difference.n]
    if not compared or comparisons.in_reach:
        return []
    least, count = min(c.smallest_p for c in compared), len(compared)
    corrected = f" and {p_text(min(1.0, least * count))} after the correction" if count > 1 and least < 1 else ""
    pairs = max(c.difference.n for c in compared)
    return [
        f"Significance is out of reach: the least p that {pairs} pair{'s' * (pairs > 1)} can give is {p_text(least)}"
        f"{corrected}; {seeds_needed(count)} seeds would be needed for {ALPHA:g}."
    ]


def verdict(difference: Difference) -> str:
    """What may be said of a difference."""
    if not difference.comparison.difference.n:
        return "no pair of runs"
    if difference.p_holm <= ALPHA:
        return "lower error" if difference.comparison.difference.mean < 0 else "higher error"
    return "no difference can be claimed"


def _referred(comparisons: Comparisons) -> str:
    """The references, and why they are."""
    said = [f"{setting_text(cell.setting)}; {why}" for cell, why in comparisons.references.values()]
    return f"({said[0]})" if len(comparisons.by_dataset) == 1 else "of its data set " + ", ".join(f"({each})" for each in said)


def _reached(comparisons: Comparisons) -> str:
    errors = [f"{error_text(cell)} %" for cell, _ in comparisons.references.values()]
    return f"the reference has {errors[0]}" if len(errors) == 1 else f"the references have {' and '.join(errors)}"


def _difference_row(difference: Difference, comparisons: Comparisons) -> list[str]:
    made, labels = difference.comparison, texts_of(difference.cell.setting)
    estimate = made.difference
    if not estimate.n:
        return [*labels, "0", *["—"] * 7, verdict(difference)]
    seen = partly(interval_text(difference.images, signed=True), difference.images.n, estimate.n) if difference.images else "—"
    results = [str(estimate.n), *difference_texts(estimate), seen, *comparison_texts(made, difference.p_holm)]
    # nothing can be detected where no p can be small enough
    in_reach = comparisons.by_dataset[dataset_of(difference.cell)].in_reach and made.smallest_p <= ALPHA
    detectable = made.detectable > 0 and in_reach
    results.append(f"{made.detectable:.{decimals_of(made.detectable)}f}" if detectable else "—")
    said = verdict(difference) if in_reach else "out of reach"
    return [*labels, *results, said]
