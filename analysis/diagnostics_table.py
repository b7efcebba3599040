"""What the capsules of each cell's networks did after their last epoch: how long they were, how sharply routing coupled."""

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

HEADERS = {
    "coupling_entropy": "coupling entropy",
    "logit_change": "last change of logits",
    "dead_primary_capsules": "dead primary capsules",
    "right_length": "right class",
    "wrong_length": "longest wrong class",
}
CAPTION = (
    "What the capsules did after the last epoch, mean ± sample sd over n seeds: entropy of an input's coupling coefficients in "
    "the last pass, in nats (the logarithm of the number of classes if it shares itself out evenly); mean absolute change of "
    "the logits before that pass; primary capsules that are short on every image; mean lengths of the capsules of each hidden "
    "layer, of the right class and of the longest wrong one."
)
NOTE = (
    "Measured on at most 100 validation images, the lengths of class capsules on all of them; on the first 100 training images "
    "where there are none."
)
FAINT = 0.0001


def table(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row for each cell whose networks have capsules; None if none has, as in runs of older versions.

    Those of hidden layers have a column for each layer.
    """
    told = [(cell, _of_finished(cell)) for cell in comparisons.cells]
    told = [(cell, found) for cell, found in told if found.notna().any(axis=None)]
    if not told:
        return None
    axes, every = varying(runs), pd.concat([found for _, found in told])
    columns = [str(name) for name in every if every[name].notna().any()]
    body = [
        [*texts_of(cell.setting), *(_text(cell, found[name]) for name in columns), str(cell.error.n)] for cell, found in told
    ]
    header = [*map(name_of, axes), *(HEADERS.get(name) or f"hidden layer {name.rpartition('_')[2]}" for name in columns), "n"]
    return Table(f"tab:{slug(runs)}-diagnostics", CAPTION + in_brackets(axes), header, body, len(axes), [NOTE, footer(runs)])


def _of_finished(cell: Cell) -> pd.DataFrame:
    """A row for each run, in the table's order. How often the logits change depends on r: the last time is what compares."""
    runs = cell.runs.loc[cell.finished.index]
    changes = runs[numbered(runs, "logit_change")]
    last = changes.ffill(axis=1).iloc[:, -1] if len(changes.columns) else float("nan")
    order = ["coupling_entropy", "logit_change", "dead_primary_capsules", *numbered(runs, "hidden_length")]
    return runs.assign(logit_change=last)[[*order, "right_length", "wrong_length"]]


def _text(cell: Cell, values: "pd.Series[float]") -> str:
    """Four digits of what all have in common, as no dead capsule at all; what has faded away is no number to read."""
    known = values.dropna()
    if not len(known):
        return "—"
    if 0 < known.max() < FAINT:
        return partly(f"<{FAINT}", len(known), cell.error.n)
    text = mean_text(t_interval(known)) if known.max() > known.min() else f"{known.iloc[0]:.4g}"
    return partly(text, len(known), cell.error.n)
