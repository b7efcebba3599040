"""What the capsules of each cell's networks did after their last epoch: how long they were, how sharply routing coupled."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.axes import texts_of, varying
from analysis.captions import footer, in_brackets, slug
from analysis.cells import Cell
from analysis.comparisons import Comparisons
from analysis.fields import name_of
from analysis.formats import Table
from analysis.runs import numbered
from analysis.statistics import t_interval
from analysis.wording import mean_text, partly
from capsnet.metrics import SILENT
from capsnet.registry import DATASETS

HEADERS = {
    "coupling_entropy": "coupling entropy (%)",
    "logit_change": "last change of logits",
    "dead_primary_capsules": "dead primary capsules",
    "right_length": "length: right class",
    "wrong_length": "longest wrong",
}
CAPTION = (
    "What the capsules did after the last epoch, mean ± sample sd over n seeds. Of routing to the classes: the entropy of an "
    "input's coupling coefficients in the last pass (of em's assignments), 100 % if it shares itself out evenly, and the mean "
    f"absolute change of the logits before that pass. Dead primary capsules: not longer than {SILENT} on any image. Mean "
    "lengths: of the capsules of each hidden layer, of the right class's and of the longest wrong one's."
)
NOTE = (
    "Measured on at most 100 validation images, the lengths of class capsules on all of them; on the first 100 training images "
    "where there are none. —: there is none, or it is not followed."
)
FAINT, NOISE = 0.0001, 1e-6  # less is a capsule that has faded; differences of that share are rounding


def table(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row for each cell whose networks have primary capsules; None if none has, or it is not known, as in the first runs.

    Those of hidden layers have a column for each layer.
    """
    told = [(cell, _of_finished(cell)) for cell in comparisons.cells]
    told = [
        (cell, found) for cell, found in told if found.drop(columns=["right_length", "wrong_length"]).notna().any(axis=None)
    ]
    if not told:
        return None
    axes, every = varying(runs), pd.concat([found for _, found in told])
    columns = [str(name) for name in every if every[name].notna().any()]
    body = [
        [*texts_of(cell.setting), *(_text(cell, found[name]) for name in columns), str(cell.error.n)] for cell, found in told
    ]
    header = [*map(name_of, axes), *(HEADERS.get(name) or f"length: hidden {name.rpartition('_')[2]}" for name in columns), "n"]
    return Table(f"tab:{slug(runs)}-diagnostics", CAPTION + in_brackets(axes), header, body, len(axes), [NOTE, footer(runs)])


def _of_finished(cell: Cell) -> pd.DataFrame:
    """A row for each run, in the table's order. How often the logits change depends on r: the last time is what compares."""
    runs = cell.runs.loc[cell.finished.index]
    changes = runs[numbered(runs, "logit_change")]
    last = changes.ffill(axis=1).iloc[:, -1] if len(changes.columns) else float("nan")
    entropy = [100 * run["coupling_entropy"] / math.log(_outlets(run)) for run in runs.to_dict("records")]
    order = ["coupling_entropy", "logit_change", "dead_primary_capsules", *numbered(runs, "hidden_length")]
    return runs.assign(logit_change=last, coupling_entropy=entropy)[[*order, "right_length", "wrong_length"]]


def _outlets(run: Mapping[Any, Any]) -> int:
    """Among how many an input shares itself out: the classes, and none of them if that is one."""
    return DATASETS[run["dataset"]].classes + run["none_of_the_above"]


def _text(cell: Cell, values: "pd.Series[float]") -> str:
    """What all have in common without a deviation, as no dead capsule at all; what has faded away is no number to read."""
    known = values.dropna()
    if not len(known):
        return "—"
    if 0 < known.max() < FAINT:
        return partly(f"<{FAINT}", len(known), cell.error.n)
    text = mean_text(t_interval(known)) if known.max() - known.min() > NOISE * known.max() else f"{known.iloc[0]:g}"
    return partly(text, len(known), cell.error.n)
