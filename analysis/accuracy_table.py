"""The table of errors in the form of the paper's Table 1, beside the numbers that others published."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.axes import axes_read, constants, varying, widest
from analysis.captions import (
    TABLE1,
    axis_text,
    axis_title,
    footer,
    in_brackets,
    published_notes,
    published_text,
    same_texts,
    slug,
    weight_texts,
    weights,
)
from analysis.cells import Cell
from analysis.comparisons import Comparisons
from analysis.fields import name_of, named, place
from analysis.formats import Table
from analysis.wording import error_text
from experiments.labels import shortened

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
    yes_or_no = len(weights(runs)) < 2 and across != "reconstruction_weight"
    header = [axis_title(axis, yes_or_no) for axis in down]
    for value in columns:
        column = _column(across, value)
        header += [column, _paper(across, column)] if value in papers else [column]
    configs = [(next(iter(by_value.values())).runs.iloc[0], by_value) for by_value in rows.values()]
    body = []
    for config, by_value in sorted(configs, key=lambda pair: [place(axis, pair[0][axis]) for axis in down]):
        means = axes_read({axis: config[axis] for axis in ("model", *down)})
        body.append([*(axis_text(axis, means, yes_or_no) for axis in down), *_results(by_value, list(columns), papers)])
    caption = " ".join([_caption(runs, axes, across), *(weight_texts(runs) if yes_or_no else [])])
    notes = [*published_notes((cell, cell.published) for cell in all_cells), footer(runs)]
    return Table(f"tab:{slug(runs)}", caption, header, body, len(down), notes)


def _rows(all_cells: Sequence[Cell], axes: list[str], across: str | None) -> dict[tuple[Any, ...], dict[Any, Cell]]:
    """Values of the other axes -> value of the axis that is laid across -> cell."""
    rows: dict[tuple[Any, ...], dict[Any, Cell]] = {}
    for cell in all_cells:
        key = tuple(cell.setting[axis] for axis in axes if axis != across)
        rows.setdefault(key, {})[cell.setting[across] if across else None] = cell
    return rows


def _column(across: str | None, value: Any) -> str:
    if across is None:
        return MEASURE
    return shortened(value) if isinstance(value, str) else named(across, value, " = ")


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
    said = ["Test error in %, mean ± sample sd over n seeds.", *([f"Columns: {name_of(across)}."] if across else [])]
    return " ".join([*said, *same_texts(runs)]) + in_brackets([*TABLE1, *axes, *constants(runs)])
