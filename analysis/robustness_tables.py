"""Tables of errors on further test sets: of each cell, of each set, and against the reference."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.axes import texts_of
from analysis.blocks import paired
from analysis.captions import footer, in_brackets, slug
from analysis.cells import Cell, dataset_of, grouped
from analysis.comparisons import Comparisons
from analysis.fields import name_of, text_of
from analysis.formats import Table
from analysis.published import Published
from analysis.robustness import Further, Kind, called, gap, judged, kinds, mean, never, tested, values
from analysis.statistics import Estimate, t_interval
from analysis.wording import (
    comparison_texts,
    difference_texts,
    estimate_text,
    families_text,
    interval_text,
    p_text,
    setting_text,
    signed_text,
)
from capsnet import test_sets
from capsnet.alterations import Attack
from capsnet.registry import TEST_SETS
from experiments.record import EPOCHS
from experiments.significance import ALPHA

INTERVAL = "95%: Student-t interval of the mean over seeds, for these images."
MOST_BESIDE = 2  # test sets of which intervals stand beside each other; of more there is a table of their own


def errors(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row per cell: errors on validation images, the own test set and the further ones; None if there are none.

    Of several levels of an alteration it is their mean. Of many kinds their errors alone, which fit a page.
    """
    cells, sets = _tested(comparisons)
    if not cells:
        return None
    axes, found = list(cells[0].setting), _columns(cells)
    few = len(found) <= MOST_BESIDE
    papers = [name for name in sets if any(name in cell.published_on for cell in cells)]
    stops = few or any((cell.runs["stop_at_error"] > 0).any() for cell in cells)
    header = [*map(name_of, axes), *["epochs trained", "validation error (%)"] * stops, "test error (%)"]
    for kind in found:
        header += [f"{kind.called} (%)", "95% over seeds", "difference (points)", "95% over seeds"] if few else [kind.called]
        header += [f"paper, {kind.name} (%)"] * (kind.name in papers)
    body = []
    for cell in cells:
        texts = [*[_epochs(cell), _text(mean(cell, "validation_error"))] * stops, _text(cell.error)]
        own = kinds(tested([cell]))
        for kind in found:
            there = _there(cell, kind) if kind in own else ["—"] * 4
            texts += there[: None if few else 1]
            texts += [_paper(cell.published_on.get(kind.name))] * (kind.name in papers)
        body.append([*texts_of(cell.setting), *texts])
    told = ", and their difference to the test error of the same networks on their own data set, in percentage points" * few
    caption = f"Errors in % of trained networks on further test sets, mean ± sample sd over n seeds{told}.{in_brackets(axes)}"
    several = "Of several levels it is the mean." * any(len(kind.sets) > 1 for kind in found)
    notes = [*_origins(sets), several, INTERVAL if few else "", *stopping(cells)]
    notes += [f"Paper: {p.source}: {p.protocol}" for p in {p.name: p for c in cells for p in c.published_on.values()}.values()]
    notes = [*filter(None, notes), footer(runs)]
    return Table(f"tab:{slug(runs)}-robustness", caption, header, body, len(axes), notes)


def levels(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row per cell and test set; None of so few that the other table has all of it."""
    cells, sets = _tested(comparisons)
    if len(sets) <= MOST_BESIDE:
        return None
    axes = list(cells[0].setting)
    header = [*map(name_of, axes), "test set", "error (%)", "95% over seeds", "difference (points)", "95% over seeds"]
    body = []
    for cell in cells:
        rows = [["own", _text(cell.error), interval_text(cell.error), "", ""]]
        rows += [[called(name), *_there(cell, Kind(name, (name,)))] for name in tested([cell])]
        body += [[*texts_of(cell.setting), *row] for row in rows]
    caption = (
        "Errors in % of trained networks on their own test set and on each further one, mean ± sample sd over n seeds, and the "
        f"difference to the former, in percentage points.{in_brackets(axes)}"
    )
    notes = [*_origins(sets), INTERVAL, *stopping(cells), footer(runs)]
    return Table(f"tab:{slug(runs)}-robustness-levels", caption, header, body, len(axes) + 1, notes)


def _tested(comparisons: Comparisons) -> tuple[list[Cell], list[str]]:
    """The cells with a finished run that was tested on further sets, and the sets."""
    sets = tested(comparisons.cells)
    return [cell for cell in comparisons.cells if any(values(cell, column) for column in sets.values())], [*sets]


def _columns(cells: Sequence[Cell]) -> list[Kind]:
    """The kinds of all cells; cells that were tested at other levels have a column of their own mean."""
    found = {kind.called: kind for cell in cells for kind in kinds(tested([cell]))}
    order = test_sets.in_order(name for kind in found.values() for name in kind.sets)
    return sorted(found.values(), key=lambda kind: [order.index(name) for name in kind.sets])


def _there(cell: Cell, kind: Kind) -> list[str]:
    """A cell's error on further test sets and how much higher it is than on its own, each with its interval."""
    error, difference = mean(cell, *kind.columns), gap(cell, *kind.columns)
    higher = signed_text(difference.mean, difference) if difference.n else "—"
    return [_text(error), interval_text(error), higher, interval_text(difference, signed=True)]


def differences(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Every cell against the reference of its data set on the further test sets, paired by seed; None if no pair was tested."""
    found = judged(comparisons)
    if not found:
        return None
    families = grouped(found, lambda each: each.cell)
    references = {name: comparisons.references[name][0] for name in families}
    axes = list(found[0].cell.setting)
    body = []
    for each in found:
        made, reference = each.comparison, references[dataset_of(each.cell)]
        own = t_interval(np.subtract(*paired(each.cell.by_seed, reference.by_seed)))
        texts = [each.kind.called, str(made.difference.n), *difference_texts(own), *difference_texts(made.difference)]
        body.append([*texts_of(each.cell.setting), *texts, *comparison_texts(made, each.p_holm)])
    marked = frozenset(i for i, each in enumerate(found) if each.p_holm <= ALPHA)
    header = [*map(name_of, axes), "test set", "pairs", "difference on own test set (points)", "95% over seeds"]
    header += ["difference (points)", "95% over seeds", "effect size", "p", "p (Holm)"]
    several = "of its data set " * (len(comparisons.by_dataset) > 1)
    named = ", ".join(f"({setting_text(cell.setting)})" for cell in references.values())
    caption = (
        f"Difference to the reference {several}{named} of the "
        "error on further test sets, in percentage points, paired by seed, and on the networks' own test set, which tells how "
        f"equal those are that are compared; {_reached(references, families)}.{in_brackets(axes)}"
    )
    least = min(each.comparison.smallest_p for each in found)
    note = (
        "p: sign-flip test of the paired differences, by Holm's method corrected for "
        f"{families_text(families, named=len(families) > 1)}; the least p that so many pairs can give is {p_text(least)} "
        "before the correction."
    )
    sets = test_sets.in_order(name for each in found for name in each.kind.sets)
    notes = [*_origins(sets), note, *stopping(comparisons.cells), footer(runs)]
    return Table(f"tab:{slug(runs)}-robustness-differences", caption, header, body, len(axes) + 1, notes, marked)


def _reached(references: Mapping[str, Cell], families: Mapping[str, Sequence[Further]]) -> str:
    """What the references have where others are compared to them."""
    said = []
    for name, cell in references.items():
        compared = {each.kind.called: each.kind for each in families[name]}
        means = {called: mean(cell, *kind.columns) for called, kind in compared.items()}
        said.append(", ".join(f"{name} {_text(there)} %" for name, there in means.items()))
    return f"the reference has: {said[0]}" if len(said) == 1 else f"the references have: {'; '.join(said)}"


def stopping(cells: Sequence[Cell]) -> list[str]:
    """Of cells whose runs were to stop at a validation error: who did not get there, each by name."""
    wanted = [cell for cell in cells if (cell.runs["stop_at_error"] > 0).any()]
    if not wanted:
        return []
    missed = [f"{len(seeds)} of {cell.error.n} ({setting_text(cell.setting)})" for cell in wanted if (seeds := never(cell))]
    said = "all finished ones reached it" if any(cell.error.n for cell in wanted) else "none has finished"
    said = f"never reached it, and are counted as they ended: {'; '.join(missed)}" if missed else said
    return [f"Runs were to stop at the validation error stop_at_error: {said}."]


def _epochs(cell: Cell) -> str:
    """``7–12``, of finished runs; ``30 (1 of 3 never reached 0.8 %)``."""
    counts = [int(count) for count in values(cell, EPOCHS).values()]
    if not counts:
        return "—"
    text = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"
    missed = never(cell)
    wanted = text_of(cell.runs["stop_at_error"].iloc[0])
    return f"{text} ({len(missed)} of {len(counts)} never reached {wanted} %)" if missed else text


def _origins(sets: Iterable[str]) -> list[str]:
    """What each test set is; of those that differ in their level alone it is said once."""
    said = [f"{name}: {TEST_SETS[name].images:,} images, {TEST_SETS[name].origin}." for name in sets if name in TEST_SETS]
    kinds = dict.fromkeys(name.rpartition("_")[0] for name in sets if test_sets.alteration(name))
    alters = {f"{kind}_N": test_sets.ALTERATIONS[kind] for kind in kinds}
    often = f"; where that is random, each as often as makes {test_sets.LEAST:,} images"
    whose = {
        False: f"the same for all networks{often * any(each.drawn for each in alters.values())}",
        True: "along the gradient of each network's own margin",
    }
    for attacked, told in whose.items():
        made = [f"{name} {each.says.format('N')}" for name, each in alters.items() if isinstance(each, Attack) == attacked]
        said += [f"The own test images, {told}: {', '.join(made)}."] * bool(made)
        said += ["Where an error is lower, these attacks found less; others may find more."] * bool(made and attacked)
    return said


def _paper(published: Published | None) -> str:
    return text_of(published.value) if published else ""


def _text(estimate: Estimate) -> str:
    return estimate_text(estimate) if estimate.n else "—"
