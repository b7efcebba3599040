"""Learning curves: a line per cell, the mean of its finished runs, with their range and each seed's own line."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.axes import axes_read, sorted_runs, varying
from analysis.cells import Cell, cells
from analysis.fields import legend, named, place
from analysis.style import (
    COLOURS,
    COLUMN,
    DASHES,
    LINE,
    PAGE,
    TALLEST,
    NothingToDrawError,
    legend_size,
    scale,
    size_of,
    wrapped,
)

LINES_ALONE, LINES_BESIDE = 6, 4  # the most in a panel that is the only one, and in one of several
MOST_PANELS = 96  # eight pages

LOSSES = {
    "train_loss": "training loss (total)",
    "train_margin_loss": "margin loss",
    "train_class_loss": "loss of class scores",
    "train_reconstruction_loss": "reconstruction: squared\nerror summed over pixels",
}
SAID = "line: mean over seeds; thin lines: the seeds; band: lowest to highest seed"
SAID_OF_STOPPED = f"{SAID}; line and band end with the first run of a cell that stops"
SAID_OF_ONE = "line: the only finished run"


@dataclass(frozen=True)
class Series:
    """What one colour means: the values of the axes that have no panels of their own, and the cells that have them."""

    label: str
    cells: Sequence[Cell]
    colour: str
    dashes: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """Which axes have panels, the values that each panel stands for, and the lines that the panels have in common."""

    facets: tuple[str, ...]
    panels: Sequence[tuple[object, ...]]
    lines: Sequence[Series]


def errors(runs: pd.DataFrame, metrics: pd.DataFrame) -> list[Figure]:
    """Validation error by epoch. Where no run has validation images, the training error stands in and the axis says so.

    Raises:
        NothingToDrawError: no run is finished, or none has the metric.
    """
    rows = _of_finished(runs, metrics)
    label = {"validation_error": "validation error (%)"}
    if not (rows["metric"] == "validation_error").any():
        label = {"train_error": "training error (%)\n(no validation set)"}
    return _pages(runs, rows, label)


def losses(runs: pd.DataFrame, metrics: pd.DataFrame) -> list[Figure]:
    """The parts of the training loss by epoch, side by side.

    Raises:
        NothingToDrawError: no run is finished, or none has the metrics.
    """
    rows = _of_finished(runs, metrics)
    labels = {metric: label for metric, label in LOSSES.items() if (rows["metric"] == metric).any()}
    return _pages(runs, rows, labels)


def finished_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs, sorted by their axes and seeds.

    Raises:
        NothingToDrawError: there is none.
    """
    axes = varying(runs)  # says so if there is no run at all
    finished = runs[(runs["status"] == "finished") & runs["test_error"].notna()]
    if finished.empty:
        raise NothingToDrawError(f"none of the experiment's {len(runs)} runs is finished yet")
    return sorted_runs(finished, axes)


def _of_finished(runs: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[metrics["run_id"].isin(finished_of(runs)["run_id"]) & metrics["value"].notna()]


def _pages(runs: pd.DataFrame, rows: pd.DataFrame, metrics: Mapping[str, str]) -> list[Figure]:
    """A panel per metric and value of the facets: metrics side by side, or the values if there is one metric.

    A metric that no run of a page has, as the margin loss of those that are trained with another one, has no panels there.
    """
    wide = {
        metric: rows[rows["metric"] == metric].pivot_table(index="epoch", columns="run_id", values="value")
        for metric in metrics
    }
    if not any(frame.size for frame in wide.values()):
        raise NothingToDrawError("the finished runs have none of these metrics per epoch")
    plan = _plan(runs)
    across = len(metrics) if len(metrics) > 1 else min(3, len(plan.panels))
    width = COLUMN if across == 1 else PAGE
    labels = [wrapped(line.label, width - 0.6) for line in plan.lines]
    columns, tall = legend_size(labels, width)
    title_lines = max(size_of(_title(plan, value, across))[1] for value in plan.panels)
    high = 1.75 + LINE * title_lines
    down = max(1, int((TALLEST - tall) / high))
    per_page = down * across if len(metrics) == 1 else down
    figures = []
    for start in range(0, len(plan.panels), per_page):
        values = plan.panels[start : start + per_page]
        shown = {metric: label for metric, label in metrics.items() if _some(wide[metric], plan, values)} or metrics
        beside = len(shown) if len(metrics) > 1 else across
        down_here = -(-len(values) * len(shown) // beside)
        figure = Figure(figsize=(width, high * down_here + tall), layout="constrained")
        _fill(figure, plan, values, shown, wide, (down_here, beside))
        handles = [Line2D([], [], color=line.colour, dashes=line.dashes or (None, None)) for line in plan.lines]
        several = [cell for line in plan.lines for cell in line.cells if cell.error.n > 1]
        stopped = any(_of(frame, [cell]).isna().any(axis=None) for frame in wide.values() for cell in several)
        said = (SAID_OF_STOPPED if stopped else SAID) if several else SAID_OF_ONE
        title = wrapped(f"{said}\n{legend(varying(runs))}".strip(), width - 0.2)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
        figures.append(figure)
    return figures


def _fill(
    figure: Figure,
    plan: Plan,
    values: Sequence[tuple[object, ...]],
    metrics: Mapping[str, str],
    wide: Mapping[str, pd.DataFrame],
    shape: tuple[int, int],
) -> None:
    down, across = shape
    panels = figure.subplots(down, across, sharex=True, sharey="all" if len(metrics) == 1 else "col", squeeze=False)
    pairs = list(itertools.product(values, metrics))
    for panel in panels.flat[len(pairs) :]:
        panel.set_axis_off()
    for i, (panel, (value, metric)) in enumerate(zip(panels.flat, pairs, strict=False)):
        _panel(panel, wide[metric], plan, value)
        panel.set_ylabel(metrics[metric] if len(metrics) > 1 or i % across == 0 else "")
        if plan.facets and i % across < (across if len(metrics) == 1 else 1):  # metrics beside each other share a title
            panel.set_title(_title(plan, value, across), loc="left", fontsize=7)
        if not panel.lines:
            if len(metrics) > 1:  # of one, the panels of a row have their scale in common, and the first shows it
                panel.set_axis_off()  # its title stays
            finished = any(cell.error.n for line in plan.lines for cell in _members(line, plan, value))
            if metric == next(iter(metrics)) and not finished:
                panel.text(0.5, 0.5, "no finished run", ha="center", va="center", fontsize=7, transform=panel.transAxes)
    for column in panels.T:
        lowest = next((panel for panel in reversed(column) if panel.axison), None)
        for panel in column:
            panel.set_xlabel("epoch", visible=panel is lowest)
            panel.tick_params(labelbottom=panel is lowest)
    for column in panels.T if len(metrics) > 1 else [panels.flat]:
        drawn = [panel for panel in column if panel.lines]
        scale(drawn, [y for panel in drawn for line in panel.lines for y in line.get_ydata()])


def _title(plan: Plan, value: tuple[object, ...], across: int) -> str:
    text = ", ".join(named(*pair) for pair in axes_read(dict(zip(plan.facets, value, strict=True))).items())
    return wrapped(text, (PAGE if across > 1 else COLUMN) / across - 0.5)


def _plan(runs: pd.DataFrame) -> Plan:
    every, fields = cells(runs), varying(runs)
    facets = () if len(every) <= LINES_ALONE else _facets(every, fields)
    found = {tuple(cell.setting[field] for field in facets) for cell in every}
    panels = sorted(found, key=lambda values: list(map(place, facets, values)))
    if len(panels) > MOST_PANELS:
        raise NothingToDrawError(f"{len(every)} cells are too many for learning curves; --where chooses some of them")
    lines = []
    for i, (label, members) in enumerate(_groups(every, fields, facets).items()):
        text = f"{label} ({_counts(members, facets, panels)})"
        lines.append(Series(text, members, COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]))
    return Plan(facets, panels, lines)


def _facets(every: Sequence[Cell], fields: Sequence[str]) -> tuple[str, ...]:
    """The axes that have panels: those with which there are fewest panels, but no more lines than can be told apart.

    An axis that means nothing to one of several models has panels only beside the models: no panel's title says how a plain
    network routes. Nor does one say how large a decoder is that another line of it doesn't have.
    """
    foreign = {field for cell in every for field in cell.setting.keys() - axes_read(cell.setting).keys()}
    sized = "decoder_hidden" in foreign and "reconstruction_weight" in fields
    owners = {field: "reconstruction_weight" if field == "decoder_hidden" and sized else "model" for field in foreign}
    sizes = range(1, len(fields) + 1) if len(fields) <= 10 else (1, 2, len(fields))  # not all of a million choices
    choices = [chosen for size in sizes for chosen in itertools.combinations(fields, size)]
    choices = [chosen for chosen in choices if all(owners[field] in chosen for field in foreign.intersection(chosen))]
    fit = [chosen for chosen in choices if len(_groups(every, fields, chosen)) <= LINES_BESIDE]
    return min(fit, key=lambda chosen: len({tuple(cell.setting[field] for field in chosen) for cell in every}))


def _groups(every: Sequence[Cell], fields: Sequence[str], facets: Sequence[str]) -> dict[str, list[Cell]]:
    """The cells by the values of the axes without panels, sorted by these."""
    own = [field for field in fields if field not in facets]
    groups: dict[str, list[Cell]] = {}
    for cell in sorted(every, key=lambda cell: [place(field, cell.setting[field]) for field in own]):  # stable
        groups.setdefault(
            ", ".join(named(*pair) for pair in axes_read(cell.setting).items() if pair[0] in own) or "all runs", []
        ).append(cell)
    return groups


def _counts(members: Sequence[Cell], facets: Sequence[str], panels: Sequence[tuple[object, ...]]) -> str:
    counts = {tuple(cell.setting[field] for field in facets): cell.count for cell in members}
    if len(set(counts.values())) == 1:
        return members[0].count
    if len(panels) <= 3:
        return "by panel: " + " | ".join(counts.get(value, "none") for value in panels)
    numbers = [cell.error.n for cell in members]
    return f"n={min(numbers)} to {max(numbers)} of {max(len(cell.runs) for cell in members)}"


def _of(wide: pd.DataFrame, members: Sequence[Cell]) -> pd.DataFrame:
    """A metric by epoch of the runs of some cells; missing where a run has stopped and another has not."""
    own = [run_id for cell in members for run_id in cell.runs["run_id"].dropna() if run_id in wide]
    return wide[own].dropna(how="all")


def _members(line: Series, plan: Plan, value: tuple[object, ...]) -> list[Cell]:
    """The cells of a line that stand in the panel of a value of the facets."""
    return [cell for cell in line.cells if tuple(cell.setting[field] for field in plan.facets) == value]


def _some(wide: pd.DataFrame, plan: Plan, values: Sequence[tuple[object, ...]]) -> bool:
    """Whether a run in the panels of these values has the metric."""
    return any(not _of(wide, _members(line, plan, value)).empty for value in values for line in plan.lines)


def _panel(panel: Axes, wide: pd.DataFrame, plan: Plan, value: tuple[object, ...]) -> None:
    for line in plan.lines:
        part = _of(wide, _members(line, plan, value))
        if part.empty:
            continue
        whole = part.dropna()  # the mean of those that are left when others have stopped would rise, though no run's error does
        if part.shape[1] > 1:
            panel.fill_between(
                whole.index, whole.min(axis=1), whole.max(axis=1), color=line.colour, alpha=0.15, lw=0, label="_range"
            )
            panel.plot(part.index, part, color=line.colour, lw=0.4, alpha=0.55, label="_seed")
        marker = "o" if len(whole) == 1 else None  # a line of one point can't be seen
        (mean,) = panel.plot(
            whole.index, whole.mean(axis=1), color=line.colour, marker=marker, ms=4, zorder=3, label=line.label
        )
        mean.set_dashes(line.dashes or (None, None))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
