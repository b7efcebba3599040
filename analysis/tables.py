"""All tables of an experiment and the files they go to; among them those of every cell, of axes, and by another r at test."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis import diagnostics_table, ensembles, frames, robustness, robustness_tables
from analysis.accuracy_table import MEASURE, accuracy
from analysis.axes import followers_note, texts_of, varying
from analysis.captions import faults_notes, footer, in_brackets, slug
from analysis.cells import cells
from analysis.comparisons import Comparisons, compare
from analysis.differences_table import differences
from analysis.effects import Effect, axes_of, held_note, interactions, main_effects, ranks
from analysis.fields import name_of, value_text
from analysis.formats import Table, latex, markdown, page
from analysis.published import Published, load
from analysis.statistics import t_interval
from analysis.table1 import paper_form
from analysis.wording import error_text, estimate_text, interval_text, partly, signed_text, spread_text
from experiments.record import r_of
from experiments.tracking import Store


def ablation(comparisons: Comparisons, runs: pd.DataFrame) -> Table:
    """Every cell with both intervals, extremes, ensemble and rank."""
    axes = varying(runs)
    mean_ranks, seeds = ranks(comparisons.cells)
    header = [*map(name_of, axes), MEASURE, "95% over seeds", "95% over seeds and images", "min–max", "ensemble", "rank"]
    body = []
    for cell, images, rank in zip(comparisons.cells, comparisons.images, mean_ranks, strict=True):
        error = cell.error
        spread = f"{cell.finished.min():.2f}–{cell.finished.max():.2f}" if error.n > 1 else "—"
        seen = partly(interval_text(images.interval), images.interval.n, error.n) if images else "—"
        results = [error_text(cell), interval_text(error), seen, spread]
        together = images.ensemble if images else None
        results.append(partly(f"{together.mean:.2f}", images.interval.n, error.n) if images and together else "—")
        results.append("—" if math.isnan(rank) else f"{rank:.1f}")
        body.append([*texts_of(cell.setting), *results])
    notes = [
        "95% over seeds: Student-t interval of the mean, for this test set; over seeds and images: "
        + (" or ".join(dict.fromkeys(i.interval.kind for i in comparisons.images if i)) or "not available without predictions")
        + ". Ensemble: error of the runs' mean scores."
        + _ranked(comparisons, [count for count in seeds if count])
    ]
    caption = f"All cells: test error in %.{in_brackets(axes)}"
    notes += [*robustness_tables.stopping(comparisons.cells), *faults_notes(comparisons), footer(runs)]
    return Table(f"tab:{slug(runs)}-ablation", caption, header, body, len(axes), notes)


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
            spread_text(effect.estimate),
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
    alone = dict.fromkeys(held_note(part.cells, pairs=True) for part in comparisons.by_dataset.values())
    without += "".join(f" {said[0].upper()}{said[1:]}." for said in (*follow, *alone) if said)
    header = [*map(name_of, several), "axis", "value", "effect (points)", "95% interval", "n"]
    return Table(f"tab:{slug(runs)}-effects", caption, header, body, 2 + len(several), [note + without, footer(runs)])


def other_r(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Test errors at an r other than that of training, of the same trained networks; None if nothing was tested so."""
    columns = {r: str(name) for name in runs if (r := r_of(str(name)))}
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
    "diagnostics": diagnostics_table.table,
    "robustness": robustness_tables.errors,
    "robustness_levels": robustness_tables.levels,
    "robustness_differences": robustness_tables.differences,
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


def _ranked(comparisons: Comparisons, seeds: Sequence[int]) -> str:
    if not seeds:
        return ""
    least, most = min(seeds), max(seeds)
    over = f"mean over the {least if least == most else f'{least} to {most}'} seeds" if most > 1 else "of the one seed"
    cells = "all cells" if len(comparisons.by_dataset) == 1 else "all cells of its data set"
    return f" Rank: by test error, 1 is best; {over} that {cells} with a result have finished."


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
