"""Learning curves per cell and test error by axis, as PNG and PDF that are the same to the byte on every build."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.cells import Cell, cells, legend, name_of, text_of, varying, widest
from analysis.statistics import t_interval
from analysis.style import COLUMN, LETTER, PAGE, save, scale, style, wrapped
from capsnet.errors import InputError

LINES_IN_ONE_PANEL = 6  # with more cells, the widest axis gets a panel for each value

LOSSES = {
    "train_loss": "training loss (total)",
    "train_margin_loss": "margin loss",
    "train_reconstruction_loss": "reconstruction: squared\nerror summed over pixels",
}
DASHES: list[tuple[float, ...]] = [(), (4, 1.5), (1, 1), (3, 1, 1, 1)]


@dataclass(frozen=True)
class Line:
    """What one colour means: the values of the axes that have no panels of their own, and the cells that have them."""

    label: str
    cells: list[Cell]
    colour: tuple[float, float, float]
    dashes: tuple[float, ...]


def curves(runs: pd.DataFrame, metrics: pd.DataFrame, folder: Path) -> list[Path]:
    """Validation error and training losses by epoch: a line per cell, the mean of its finished runs with their range.

    Where no run has validation images, the training error stands in and the axis says so.

    Raises:
        InputError: no run is finished, or none has the metrics.
    """
    finished = _finished(runs)
    rows = metrics[metrics["run_id"].isin(finished["run_id"]) & metrics["value"].notna()]
    error = {"validation_error": "validation error (%)"}
    if not (rows["metric"] == "validation_error").any():
        error = {"train_error": "training error (%)\n(no validation set)"}
    losses = {metric: label for metric, label in LOSSES.items() if (rows["metric"] == metric).any()}
    if not losses or not rows["metric"].isin([*error]).any():
        raise InputError("the finished runs have no errors and losses per epoch, so there are no curves to draw")
    with style():
        return [
            *save(_grid(runs, rows, error), folder / "error_by_epoch"),
            *save(_grid(runs, rows, losses), folder / "loss_by_epoch"),
        ]


def axes(runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Test error by each axis that varies: a point per finished run, the mean and its 95% Student-t interval over seeds.

    Raises:
        InputError: no run is finished.
    """
    finished = _finished(runs)
    fields: list[str | None] = [*varying(runs)] or [None]
    counts = [runs[field].nunique() if field else 1 for field in fields]
    with style():
        figure = Figure(figsize=(COLUMN, 0.9 + 0.35 * len(counts) + 0.38 * sum(counts)), layout="constrained")
        panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=[n + 0.5 for n in counts])
        for panel, field in zip(panels[:, 0], fields, strict=True):
            _axis(panel, runs, finished, field)
        panels[-1, 0].set_xlabel("test error (%)")
        pooled = ", each the mean over the other axes" if len(fields) > 1 else ""
        note = f"point: one run; bar: mean and 95% Student-t interval over n seeds{pooled}"
        figure.supxlabel(wrapped(note, COLUMN), fontsize=7)
        return save(figure, folder / "test_error_by_axis")


def _finished(runs: pd.DataFrame) -> pd.DataFrame:
    varying(runs)  # says so if there is no run at all
    finished = runs[(runs["status"] == "finished") & runs["test_error"].notna()]
    if finished.empty:
        raise InputError(f"none of the experiment's {len(runs)} runs is finished yet, so there is nothing to plot")
    return finished.sort_values([*varying(runs), "seed"], kind="stable")


def _grid(runs: pd.DataFrame, rows: pd.DataFrame, metrics: dict[str, str]) -> Figure:
    """A panel per metric and value of the widest axis: metrics side by side, or the values if there is one metric."""
    facet, values, lines = _plan(runs)
    across = len(metrics) if len(metrics) > 1 else min(3, len(values))
    down = -(-len(values) * len(metrics) // across)
    width = COLUMN if across == 1 else PAGE
    labels = [wrapped(line.label, width - 0.6) for line in lines]
    columns = max(1, int(width / (0.6 + LETTER * max(len(part) for label in labels for part in label.split("\n")))))
    tall = sum(label.count("\n") + 1 for label in labels) / min(columns, len(labels)) * 0.15 + 0.6
    figure = Figure(figsize=(width, 1.9 * down + tall), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey="all" if len(metrics) == 1 else "col", squeeze=False)
    for panel in panels.flat[len(values) * len(metrics) :]:
        panel.set_axis_off()
    pairs = [(value, metric) for value in values for metric in metrics]
    for i, (panel, (value, metric)) in enumerate(zip(panels.flat, pairs, strict=False)):
        _panel(panel, rows[rows["metric"] == metric], lines, facet, value)
        panel.set_ylabel(metrics[metric] if len(metrics) > 1 or i % across == 0 else "")
        panel.set_xlabel("epoch", visible=i + across >= len(pairs))
        panel.tick_params(labelbottom=i + across >= len(pairs))
        if facet and i % across < (across if len(metrics) == 1 else 1):  # beside each other, metrics share a title
            panel.set_title(wrapped(f"{name_of(facet)} {text_of(value)}", PAGE / 3 - 0.4), loc="left")
    for column in panels.T if len(metrics) > 1 else [panels.flat]:
        scale([panel for panel in column if panel.lines])
    handles = [Line2D([], [], color=line.colour, dashes=line.dashes or (None, None)) for line in lines]
    title = f"line: mean over seeds; band: lowest to highest seed\n{legend(varying(runs))}".strip()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
    return figure


def _plan(runs: pd.DataFrame) -> tuple[str | None, list[object], list[Line]]:
    """The axis that has panels, its values, and the lines that the panels have in common."""
    fields, every = varying(runs), cells(runs)
    facet = widest(runs, fields) if len(fields) > 1 and len(every) > LINES_IN_ONE_PANEL else None
    groups: dict[str, list[Cell]] = {}
    for cell in every:
        label = ", ".join(_named(field, cell.setting[field]) for field in fields if field != facet)
        groups.setdefault(label or "all runs", []).append(cell)
    values: list[object] = sorted(runs[facet].unique()) if facet else [None]
    palette = sns.color_palette("colorblind")
    lines = []
    for i, (label, members) in enumerate(groups.items()):
        dashes = DASHES[(i + i // 20) % len(DASHES)]  # 40 lines before a colour comes with the same dashes again
        lines.append(Line(f"{label} ({_counts(members, facet, values)})", members, palette[i % len(palette)], dashes))
    return facet, values, lines


def _counts(members: list[Cell], facet: str | None, values: list[object]) -> str:
    counts = {cell.setting[facet] if facet else None: cell.count for cell in members}
    if len(set(counts.values())) == 1:
        return members[0].count
    return "by panel: " + " | ".join(counts.get(value, "none") for value in values)


def _panel(panel: Axes, rows: pd.DataFrame, lines: list[Line], facet: str | None, value: object) -> None:
    for line in lines:
        members = [cell for cell in line.cells if facet is None or cell.setting[facet] == value]
        ids = [run_id for cell in members for run_id in cell.runs["run_id"].dropna()]
        part = rows[rows["run_id"].isin(ids)]
        if part.empty:
            continue
        marker = "o" if len(part["epoch"].unique()) == 1 else None  # a line of one point can't be seen
        sns.lineplot(part, x="epoch", y="value", ax=panel, color=line.colour, marker=marker, ms=4, errorbar=("pi", 100))
        panel.lines[-1].set_dashes(line.dashes or (None, None))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def _axis(panel: Axes, runs: pd.DataFrame, finished: pd.DataFrame, field: str | None) -> None:
    """One axis: its values from top to bottom, because their names are long and have to be read."""
    values = sorted(runs[field].unique()) if field else [None]
    labels = []
    for position, value in enumerate(values):
        planned = len(runs) if field is None else int((runs[field] == value).sum())
        part = finished if field is None else finished[finished[field] == value]
        errors = part["test_error"].to_numpy()
        # runs of one seed share data order and first weights: the seed is the unit that was repeated, not the run
        estimate = t_interval(part.groupby("seed")["test_error"].mean())
        # runs with the same error would hide each other: spread by cell and seed, which chance has no part in
        spread = position + (np.linspace(-0.25, 0.25, len(errors)) if len(errors) > 1 else np.zeros(len(errors)))
        sns.scatterplot(x=errors, y=spread, ax=panel, s=9, color=sns.color_palette("colorblind")[0], alpha=0.6, linewidth=0)
        if estimate.n:
            half = 0.0 if estimate.n == 1 else estimate.high - estimate.mean
            panel.errorbar(estimate.mean, position, xerr=half, color="black", marker="D", markersize=3.5, capsize=3, lw=1.2)
        count = f"n={estimate.n}; {len(errors)}" + ("" if len(errors) == planned else f" of {planned}") + " runs"
        text = text_of(value) if field else "all runs"
        labels.append(wrapped(f"{text} ({count})", 1.4))
    panel.set_yticks(range(len(values)), labels)
    panel.set_ylim(len(values) - 0.5, -0.5)
    panel.set_ylabel("")
    panel.set_title(legend([field]) or name_of(field) if field else "", loc="left")


def _named(field: str, value: object) -> str:
    return f"{name_of(field)} {text_of(value)}"
