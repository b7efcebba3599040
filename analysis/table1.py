"""The paper's Table 1 whole: a configuration per row, a data set per column, and the paper's numbers beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.axes import axes_read, varying
from analysis.captions import (
    axis_text,
    axis_title,
    footer,
    in_brackets,
    published_notes,
    published_text,
    same_texts,
    slug,
    title_of,
    weight_texts,
    weights,
)
from analysis.cells import Cell, dataset_of
from analysis.comparisons import Comparisons, Images
from analysis.fields import place
from analysis.formats import Table
from analysis.statistics import Estimate
from analysis.wording import error_text, interval_text
from capsnet.registry import DATASETS as KNOWN

FIRST = ("routing_iterations", "reconstruction_weight")
ORDER = ("cnn", "capsnet")  # the paper's, then by name


@dataclass(frozen=True)
class Row:
    """One configuration but for data set and what comes with it."""

    method: str
    settings: dict[str, Any]  # of the other axes; without those that mean nothing to the model


def paper_form(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Method, r, reconstruction and what else varies; for each data set the error and its interval, and the paper's.

    What a data set dictates, such as its augmentation, makes no row of its own. None with a single data set.
    """
    datasets = list(comparisons.by_dataset)
    if len(datasets) < 2:
        return None
    axes = [*FIRST, *(axis for axis in varying(runs) if axis not in ("dataset", "model", *FIRST))]
    found: dict[tuple[Any, ...], tuple[Row, dict[str, tuple[Cell, Images | None]]]] = {}
    for cell, images in zip(comparisons.cells, comparisons.images, strict=True):
        row = _row(cell, axes)
        _, by_dataset = found.setdefault((row.method, *map(row.settings.get, axes)), (row, {}))
        by_dataset[dataset_of(cell)] = cell, images
    yes_or_no = len(weights(runs)) < 2
    papers = [name for name in datasets if any(cell.published for cell in comparisons.by_dataset[name].cells)]
    header = ["method", *(axis_title(axis, yes_or_no) for axis in axes)]
    for name in datasets:
        header += [f"{title_of(name)} (%)", "95% interval", *(["paper (%)"] if name in papers else [])]
    body = [
        [row.method, *(axis_text(axis, row.settings, yes_or_no) for axis in axes), *_results(by_dataset, datasets, papers)]
        for row, by_dataset in sorted(found.values(), key=lambda pair: _place(pair[0], axes))
    ]
    notes = [
        _of_intervals(comparisons.images),
        *_of_pairs(datasets),
        *published_notes((cell, cell.published) for cell in comparisons.cells),
        footer(runs),
    ]
    return Table(f"tab:{slug(runs)}-table1", _caption(runs, axes, yes_or_no), header, body, 1 + len(axes), notes)


def _row(cell: Cell, axes: Sequence[str]) -> Row:
    first = cell.runs.iloc[0]
    means = axes_read({"model": first["model"], **{axis: first[axis] for axis in axes}})
    model = str(means.pop("model"))
    return Row(title_of(model), means)


def _place(row: Row, axes: Sequence[str]) -> tuple[Any, ...]:
    """The baseline first, as in the paper; a value that means nothing before the others."""
    first = [*map(title_of, ORDER)]
    rank = first.index(row.method) if row.method in first else len(first)
    own = row.settings
    return rank, row.method, *((axis in own, place(axis, own[axis]) if axis in own else 0) for axis in axes)


def _results(by_dataset: dict[str, tuple[Cell, Images | None]], datasets: Sequence[str], papers: Sequence[str]) -> list[str]:
    texts = []
    for name in datasets:
        cell, images = by_dataset.get(name, (None, None))
        texts += [error_text(cell), interval_text(_interval(cell, images))] if cell else ["—", "—"]
        if name in papers:
            texts.append(published_text(cell.published) if cell and cell.published else "—")
    return texts


def _interval(cell: Cell, images: Images | None) -> Estimate:
    """Over seeds and test images, or without predictions over seeds."""
    return images.interval if images else cell.error


def _of_intervals(images: Sequence[Images | None]) -> str:
    kinds = list(dict.fromkeys(each.interval.kind for each in images if each))
    kinds += [f"95% Student-t interval over seeds{' without predictions' if kinds else ''}"] if None in images else []
    return f"Interval: {' or '.join(kinds)}. A dash: not planned, or nothing to say."


def _of_pairs(datasets: Sequence[str]) -> list[str]:
    pairs = [title_of(name) for name in datasets if KNOWN[name].labels == 2]
    return [f"{' and '.join(pairs)}: an answer is right if it names both digits; there is no half credit."] if pairs else []


def _caption(runs: pd.DataFrame, axes: Sequence[str], yes_or_no: bool) -> str:
    said = ["Test error in % by data set, mean ± sample sd over n seeds.", *(weight_texts(runs) if yes_or_no else [])]
    return " ".join([*said, *same_texts(runs, without=axes)]) + in_brackets(axes)
