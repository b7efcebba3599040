"""The tables of an experiment: errors in the form of the paper's Table 1, all numbers, differences, effects of axes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import ensembles, frames, robustness
from analysis.captions import MODEL_TITLES, TABLE1, dictations, footer, in_brackets, published_notes, published_text, slug
from analysis.cells import (
    Cell,
    axes_read,
    cells,
    constants,
    followers_note,
    name_of,
    place,
    text_of,
    texts_of,
    value_text,
    varying,
    widest,
)
from analysis.comparisons import ALPHA, Comparisons, Difference, Effect, axes_of, compare, interactions, main_effects, ranks
from analysis.formats import Table, latex, markdown, page
from analysis.published import Published, load
from analysis.references import dataset_of, grouped
from analysis.sentences import needed
from analysis.statistics import MOST_PAIRS, t_interval
from analysis.table1 import paper_form
from analysis.wording import (
    decimals_of,
    error_text,
    estimate_text,
    interval_text,
    number_text,
    p_text,
    setting_text,
    signed_text,
)
from experiments.record import OTHER_R
from experiments.sources import shortened
from experiments.tracking import Store

MEASURE = "test error (%)"


def accuracy(comparisons: Comparisons, runs: pd.DataFrame) -> Table:
    """Table 1's form: model, r, reconstruction, then the other axes, and ``mean ± sd (n=3)`` beside the paper's numbers.

    Of three axes or more, the one with the most values is laid side by side, unless that leaves more places empty than it
    fills, as with the numbers that a search has drawn, or a model is there to which an axis means nothing.
    """
    all_cells, axes = comparisons.cells, varying(runs)
    across = widest(runs, axes) if len(axes) > 2 else None
    rows = _rows(all_cells, axes, across)
    unread = any(len(axes_read(cell.setting)) < len(cell.setting) for cell in all_cells)
    if across and (unread or 2 * len(all_cells) < len(rows) * runs[across].nunique()):
        across, rows = None, _rows(all_cells, axes, None)
    first = [axis for axis in TABLE1 if axis != across]
    down = first + [axis for axis in axes if axis not in (*first, across)]
    columns: dict[Any, list[Cell]] = {}  # by the value of the axis that is laid across
    for cell in sorted(all_cells, key=lambda c: place(across, c.setting[across]) if across else 0):  # stable: columns by value
        columns.setdefault(cell.setting[across] if across else None, []).append(cell)
    papers = [value for value, members in columns.items() if any(c.published for c in members)]
    yes_or_no = len(_weights(runs)) < 2 and across != "reconstruction_weight"
    header = ["reconstruction" if axis == "reconstruction_weight" and yes_or_no else name_of(axis) for axis in down]
    for value in columns:
        column = _column(across, value)
        header += [column, _paper(across, column)] if value in papers else [column]
    configs = [(next(iter(by_value.values())).runs.iloc[0], by_value) for by_value in rows.values()]
    body = []
    for config, by_value in sorted(configs, key=lambda pair: [place(axis, pair[0][axis]) for axis in down]):
        body.append([*(_label(axis, config, yes_or_no) for axis in down), *_results(by_value, list(columns), papers)])
    weights = [f"Reconstruction: weight {text_of(weight)}." for weight in _weights(runs) if yes_or_no]
    caption = " ".join([_caption(runs, axes, across), *weights])
    notes = [*published_notes((cell, cell.published) for cell in all_cells), footer(runs)]
    return Table(f"tab:{slug(runs)}", caption, header, body, len(down), notes)


def ablation(comparisons: Comparisons, runs: pd.DataFrame) -> Table:
    """Every cell with both intervals, extremes, ensemble and rank."""
    axes = varying(runs)
    mean_ranks, seeds = ranks(comparisons.cells)
    header = [*map(name_of, axes), MEASURE, "95% over seeds", "95% over seeds and images", "min–max", "ensemble", "rank"]
    body = []
    for cell, images, rank in zip(comparisons.cells, comparisons.images, mean_ranks, strict=True):
        error = cell.error
        spread = f"{cell.finished.min():.2f}–{cell.finished.max():.2f}" if error.n > 1 else "—"
        seen = _partly(interval_text(images.interval), images.interval.n, error.n) if images else "—"
        results = [error_text(cell), interval_text(error), seen, spread]
        together = images.ensemble if images else None
        results.append(_partly(f"{together.mean:.2f}", images.interval.n, error.n) if images and together else "—")
        results.append("—" if math.isnan(rank) else f"{rank:.1f}")
        body.append([*texts_of(cell.setting), *results])
    notes = [
        "95% over seeds: Student-t interval of the mean, for this test set; over seeds and images: "
        + (" or ".join(dict.fromkeys(i.interval.kind for i in comparisons.images if i)) or "not available without predictions")
        + ". Ensemble: error of the runs' mean scores."
        + _ranked(comparisons, [count for count in seeds if count])
    ]
    caption = f"All cells: test error in %.{in_brackets(axes)}"
    notes += [*robustness.stopping(comparisons.cells), *_faults(comparisons), footer(runs)]
    return Table(f"tab:{slug(runs)}-ablation", caption, header, body, len(axes), notes)


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
    note = (
        f"p: {test} of the paired differences, by Holm's method corrected for "
        f"{_compared(comparisons)}. Effect size: mean difference over its sd, Hedges-corrected. Detectable: the "
        f"smallest true difference that a paired t-test of this n, uncorrected, finds in 80% of experiments (alpha {ALPHA:g}); "
        "the corrected p finds it less often."
    )
    notes = [note, *reach_notes(comparisons), *_faults(comparisons), footer(runs)]
    marked = frozenset(i for i, d in enumerate(comparisons.differences) if d.p_holm <= ALPHA)
    return Table(f"tab:{slug(runs)}-differences", caption, header, body, len(axes), notes, marked)


def effects(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Main effects of the axes' values and interactions of each two; None without an axis or a complete design."""
    found = all_effects(comparisons)
    if not any(found.values()):
        return None
    several = ["dataset"] if len(comparisons.by_dataset) > 1 else []
    body = [
        [
            *(name for _ in several),
            " × ".join(map(name_of, effect.axes)),
            ", ".join(map(value_text, effect.axes, effect.levels)),
            signed_text(effect.estimate.mean, effect.estimate),
            interval_text(effect.estimate, signed=True),
            str(effect.estimate.n),
        ]
        for name, members in found.items()
        for effect in members
    ]
    caption = (
        "Main effect of each value of an axis: its mean test error minus that over all values of the axis, in percentage "
        "points, over otherwise equal settings. Interaction (×): what is left of a pair's mean when both effects are taken "
        f"off.{in_brackets(varying(runs))}"
    )
    note = (
        "95%: Student-t interval over n seeds, not corrected for the number of effects. A seed counts with those settings "
        "of the other axes for which it finished with every value."
    )
    known = {effect.axes for members in found.values() for effect in members}
    possible = dict.fromkeys(axis for part in comparisons.by_dataset.values() for axis in axes_of(part.cells))
    absent = [name_of(axis) for axis in possible if (axis,) not in known]
    without = f" Without {', '.join(absent)}, for want of a complete design." if absent else ""
    follow = dict.fromkeys(followers_note([cell.setting for cell in part.cells]) for part in comparisons.by_dataset.values())
    without += "".join(f" {said[0].upper()}{said[1:]}." for said in follow if said)
    header = [*map(name_of, several), "axis", "value", "effect (points)", "95% interval", "n"]
    return Table(f"tab:{slug(runs)}-effects", caption, header, body, 2 + len(several), [note + without, footer(runs)])


def other_r(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Test errors at an r other than that of training, of the same trained networks; None if nothing was tested so."""
    columns = {int(str(name).removeprefix(OTHER_R)): str(name) for name in runs if str(name).startswith(OTHER_R)}
    found = [cell for cell in comparisons.cells if cell.runs[[*columns.values()]].notna().any(axis=None)]
    if not found:
        return None
    axes = varying(runs)
    own = {int(r) for cell in found for r in cell.runs["routing_iterations"]}
    body = []
    for cell in found:
        errors = {r: t_interval(cell.runs[name].dropna()) for r, name in columns.items()}
        errors[int(cell.runs["routing_iterations"].iloc[0])] = cell.error
        texts = [estimate_text(errors[r]) if r in errors and errors[r].n else "—" for r in sorted({*columns, *own})]
        body.append([*texts_of(cell.setting), *texts])
    header = [*map(name_of, axes), *(f"r = {r} at test" for r in sorted({*columns, *own}))]
    caption = (
        "Test error in % of trained networks that route with another r at test, mean ± sample sd over n seeds; what each was "
        f"trained with is in the column of its own r.{in_brackets(axes)}"
    )
    return Table(f"tab:{slug(runs)}-other-r", caption, header, body, len(axes), [footer(runs)])


def all_effects(comparisons: Comparisons) -> dict[str, list[Effect]]:
    """Data set -> main effects, then interactions."""
    return {
        name: [*main_effects(part.cells), *interactions(part.cells)] if part.cells[0].setting else []
        for name, part in comparisons.by_dataset.items()
    }


def write(comparisons: Comparisons, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every table as Markdown, LaTeX and HTML, and the numbers behind them as CSV."""
    tables = {"accuracy": accuracy(comparisons, runs), "ablation": ablation(comparisons, runs)}
    tables |= {name: made for name, make in OPTIONAL.items() if (made := make(comparisons, runs))}
    files: dict[str, str] = {}
    for name, table in tables.items():
        files |= {f"{name}.md": markdown(table), f"{name}.tex": latex(table), f"{name}.html": page(table)}
    numbers = {"runs": frames.of_runs(runs), "cells": frames.of_cells(comparisons)}
    numbers["differences"] = frames.of_differences(comparisons)
    numbers["effects"] = frames.of_effects(all_effects(comparisons))
    numbers["robustness"] = robustness.frame(comparisons)
    files |= {f"{name}.csv": _csv(frame) for name, frame in numbers.items() if len(frame)}
    folder.mkdir(parents=True, exist_ok=True)
    for gone in {f"{name}.{kind}" for name in OPTIONAL for kind in ("md", "tex", "html", "csv")} - files.keys():
        (folder / gone).unlink(missing_ok=True)  # of an earlier build, which would contradict this one
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


OPTIONAL = {
    "table1": paper_form,
    "differences": differences,
    "effects": effects,
    "other_r": other_r,
    "ensembles": ensembles.table,
    "robustness": robustness.errors,
    "robustness_differences": robustness.differences,
}


def judged(
    runs: pd.DataFrame,
    stores: Mapping[str, Store] | None = None,
    published: Iterable[Published] | None = None,
    reference: str = "",
) -> Comparisons:
    """The cells of a table of runs, compared; ``published`` is published.yaml's unless given.

    Raises:
        InputError: there is no run, published.yaml is wrong, or no cell is the reference.
    """
    published = load() if published is None else tuple(published)
    return compare(cells(runs, published), stores or {}, reference)


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
        f"{corrected}; {needed(count)} seeds would be needed for {ALPHA:g}."
    ]


def verdict(difference: Difference) -> str:
    """What may be said of a difference."""
    if not difference.comparison.difference.n:
        return "no pair of runs"
    if difference.p_holm <= ALPHA:
        return "lower error" if difference.comparison.difference.mean < 0 else "higher error"
    return "no difference can be claimed"


def _ranked(comparisons: Comparisons, seeds: Sequence[int]) -> str:
    if not seeds:
        return ""
    least, most = min(seeds), max(seeds)
    over = f"mean over the {least if least == most else f'{least} to {most}'} seeds" if most > 1 else "of the one seed"
    cells = "all cells" if len(comparisons.by_dataset) == 1 else "all cells of its data set"
    return f" Rank: by test error, 1 is best; {over} that {cells} with a result have finished."


def _referred(comparisons: Comparisons) -> str:
    """The references, and why they are."""
    said = [f"{setting_text(cell.setting)}; {why}" for cell, why in comparisons.references.values()]
    return f"({said[0]})" if len(comparisons.by_dataset) == 1 else "of its data set " + ", ".join(f"({each})" for each in said)


def _reached(comparisons: Comparisons) -> str:
    errors = [f"{error_text(cell)} %" for cell, _ in comparisons.references.values()]
    return f"the reference has {errors[0]}" if len(errors) == 1 else f"the references have {' and '.join(errors)}"


def _compared(comparisons: Comparisons) -> str:
    """``3 comparisons``, or ``3 comparisons on mnist and 2 on multimnist``; ``0 comparisons`` where no pair is finished."""
    made = [d for d in comparisons.differences if d.comparison.difference.n]
    (first, count), *rest = [(name, len(each)) for name, each in grouped(made, lambda d: d.cell).items()] or [("", 0)]
    on = f" on {first}" * (len(comparisons.by_dataset) > 1 and count > 0)
    return f"{count} comparison{'s' * (count != 1)}{on}" + "".join(f" and {n} on {name}" for name, n in rest)


def _partly(text: str, n: int, of: int) -> str:
    """Says so if predictions of some runs are gone."""
    return text if n == of else f"{text} (n={n})"


def _difference_row(difference: Difference, comparisons: Comparisons) -> list[str]:
    made, labels = difference.comparison, texts_of(difference.cell.setting)
    estimate = made.difference
    if not estimate.n:
        return [*labels, "0", *["—"] * 7, verdict(difference)]
    seen = _partly(interval_text(difference.images, signed=True), difference.images.n, estimate.n) if difference.images else "—"
    interval = "all equal" if estimate.sd == 0 else interval_text(estimate, signed=True)  # no spread is no certainty
    results = [str(estimate.n), signed_text(estimate.mean, estimate), interval, seen]
    results.append("—" if math.isnan(made.effect) else number_text(made.effect, 2, signed=True))
    results += [p_text(made.p), p_text(difference.p_holm)]
    # nothing can be detected where no p can be small enough
    in_reach = comparisons.by_dataset[dataset_of(difference.cell)].in_reach
    detectable = made.detectable > 0 and in_reach
    results.append(f"{made.detectable:.{decimals_of(made.detectable)}f}" if detectable else "—")
    said = verdict(difference) if in_reach else "out of reach"
    return [*labels, *results, said]


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _rows(all_cells: Sequence[Cell], axes: list[str], across: str | None) -> dict[tuple[Any, ...], dict[Any, Cell]]:
    """Values of the other axes -> value of the axis that is laid across -> cell."""
    rows: dict[tuple[Any, ...], dict[Any, Cell]] = {}
    for cell in all_cells:
        key = tuple(cell.setting[axis] for axis in axes if axis != across)
        rows.setdefault(key, {})[cell.setting[across] if across else None] = cell
    return rows


def _weights(runs: pd.DataFrame) -> list[float]:
    return sorted(weight for weight in runs["reconstruction_weight"].unique() if weight)


def _label(axis: str, config: "pd.Series[Any]", yes_or_no: bool) -> str:
    value = config[axis]
    if axis == "model":
        return MODEL_TITLES.get(value, str(value))
    if axis not in axes_read({"model": config["model"], axis: value}):
        return "—"
    return ("yes" if value else "no") if axis == "reconstruction_weight" and yes_or_no else value_text(axis, value)


def _column(across: str | None, value: Any) -> str:
    if across is None:
        return MEASURE
    return shortened(value) if isinstance(value, str) else f"{name_of(across)} = {value_text(across, value)}"


def _paper(across: str | None, column: str) -> str:
    return f"paper, {column}" if across else "paper (%)"


def _results(by_value: dict[Any, Cell], values: list[Any], papers: list[Any]) -> list[str]:
    texts = []
    for value in values:
        cell = by_value.get(value)
        texts.append(error_text(cell) if cell else "")
        if value in papers:
            texts.append(published_text(cell.published) if cell and cell.published else "")
    return texts


def _caption(runs: pd.DataFrame, axes: list[str], across: str | None) -> str:
    same_in_all = constants(runs)
    same = ", ".join(f"{name_of(k)} {value_text(k, v)}" for k, v in same_in_all.items())
    columns = f" Columns: {name_of(across)}." if across else ""
    constant = f" Constant: {same}." if same else ""
    constant += "".join(f" {text}." for text in dictations(runs))
    return f"Test error in %, mean ± sample sd over n seeds.{columns}{constant}{in_brackets([*TABLE1, *axes, *same_in_all])}"


def _faults(comparisons: Comparisons) -> list[str]:
    count = len(comparisons.faults)
    return [f"Without the predictions of {count} finished run{'s' * (count > 1)}, which are gone."] if count else []
