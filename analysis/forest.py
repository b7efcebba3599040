"""Rows of points and intervals beside a table that names them: one form for cells, values of axes and effects."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.rows import GAP, Group, Row, fitted, head, packed, row_height
from analysis.statistics import Estimate
from analysis.style import COLOURS, LINE, SMALL, TALLEST, scale, wrapped

STEP = 9.3  # points from one line of text to the next
POINT, MEAN, WIDER, GIVEN, ZERO = COLOURS[0], "black", COLOURS[4], COLOURS[3], COLOURS[1]


@dataclass(frozen=True)
class Said:
    """What the marks mean, for the legend; what a figure doesn't have, its legend leaves out."""

    x: str
    points: str = ""
    estimate: str = ""
    wider: str = ""
    published: str = ""
    line: str = ""


def draw(groups: Sequence[Group], said: Said, line: float | None = None, least: float = -math.inf) -> list[Figure]:
    """Draw the groups, on as many pages as they need, all with the same x axis.

    Args:
        groups: at least one row each.
        said: what the marks mean.
        line: where a vertical line stands.
        least: the least value that is possible, below which no axis goes.
    """
    groups, widths, width = fitted(groups)
    view = _view([row for group in groups for row in group.rows], line, least)
    axis = wrapped(said.x, (width - sum(widths) - GAP * len(widths)) * SMALL / 8)
    handles, labels = _legend(groups, said, line, view, width)
    foot = LINE * sum(label.count("\n") + 1 for label in labels) + LINE * (axis.count("\n") + 1) + 0.45
    pages = packed(groups, TALLEST - foot)
    figures = []
    for page in pages:
        ratios = [sum(map(row_height, group.rows)) for group in page]
        figure = Figure(figsize=(width, foot + sum(ratios) + sum(map(head, page))), layout="constrained")
        panels = figure.subplots(len(page), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, group in zip(panels, page, strict=True):
            _panel(panel, group, widths, view, line)
        values = [x for group in groups for row in group.rows for x in _centres(row)]
        if view.log:
            scale(list(panels), values, which="x")
        else:
            panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=5))
        panels[-1].set_xlim(view.low, view.high)
        panels[-1].set_xlabel(axis)
        figure.legend(handles, labels, loc="outside lower center")
        figures.append(figure)
    return figures


@dataclass(frozen=True)
class _View:
    """What of the x axis is seen."""

    low: float
    high: float
    log: bool

    def cut(self, estimate: Estimate) -> tuple[bool, bool]:
        """Whether an interval goes on to the left, and to the right, of what is seen."""
        return estimate.low < self.low, estimate.high > self.high


def _view(rows: Sequence[Row], line: float | None, least: float) -> _View:
    """All points and means, and the intervals but for those that would press the rest together (two seeds: ±12.7 sd)."""
    centres = [x for row in rows for x in _centres(row)] + ([] if line is None else [line])
    estimates = [estimate for row in rows for estimate in _intervals(row)]
    if not centres:
        return _View(0.0, 1.0, log=False)
    low, high = min(centres), max(centres)
    if low > 0 and high > 20 * low and least == 0:
        bounds = [math.log10(x) for e in estimates for x in (e.low, e.high) if x > 0]
        low, high = math.log10(low), math.log10(high)
        room, pad = high - low, 0.04 * (high - low)
        low, high = max(min([low, *bounds]), low - room), min(max([high, *bounds]), high + room)
        return _View(10 ** (low - pad), 10 ** (high + pad), log=True)
    typical = float(np.median([e.high - e.low for e in estimates])) if estimates else 0.0
    room = max(1.5 * (high - low), typical)
    low = max(min([low, *(e.low for e in estimates)]), low - room)
    high = min(max([high, *(e.high for e in estimates)]), high + room)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    edge = least - 0.03 * (high + pad - least)  # a mark at the least value is to be seen whole
    return _View(max(low - pad, edge), high + pad, log=False)


def _centres(row: Row) -> list[float]:
    """What is never out of sight."""
    mean = [row.estimate.mean] if row.estimate and row.estimate.n else []
    return [*row.points, *mean, *([] if row.published is None else [row.published])]


def _intervals(row: Row) -> list[Estimate]:
    return [e for e in (row.estimate, row.wider) if e is not None and math.isfinite(e.low)]


def _panel(panel: Axes, group: Group, widths: Sequence[float], view: _View, line: float | None) -> None:
    """One group: y is in inches from its top."""
    heights = [row_height(row) for row in group.rows]
    ends = np.cumsum(heights)
    middles = ends - np.array(heights) / 2
    panel.set_yticks(middles, [""] * len(middles))
    panel.set_ylim(ends[-1], 0)
    panel.tick_params(left=False)
    left = [-GAP / 2 - sum(widths[i:]) - GAP * (len(widths) - 1 - i) for i in range(len(widths))]
    for text, x in zip(group.header, left, strict=True):
        count = text.count("\n")
        _write(panel, text, x, (1.0, "axes fraction"), first=4 + STEP * count, color="0.35")
    for row, y in zip(group.rows, middles, strict=True):
        for text, x in zip(row.texts, left, strict=True):
            _write(panel, text, x, (y, "data"), first=STEP / 2 * text.count("\n") - 2.5)
    if line is not None:
        panel.axvline(line, color=ZERO, lw=0.9, dashes=(3, 1.5), zorder=1.5, label="_line")
    _marks(panel, list(zip(group.rows, middles.tolist(), strict=True)), view)


def _marks(panel: Axes, places: Sequence[tuple[Row, float]], view: _View) -> None:
    """What stands in the rows, whose middles are given."""
    # runs with the same error would hide each other: spread in their order, which chance has no part in
    middle, half, bar = (-0.05, 0.035, 0.02) if any(row.wider for row, _ in places) else (0.0, 0.08, 0.0)
    points = [(x, y + middle + half * d) for row, y in places for x, d in zip(row.points, _spread(row.points), strict=True)]
    if points:
        xs, ys = zip(*points, strict=True)
        panel.scatter(xs, ys, s=9, color=POINT, edgecolor="white", lw=0.3, zorder=2.8, label="_points")
    for kind, shift, width, colour in (("wider", 0.075, 0.8, WIDER), ("estimate", bar, 1.6, MEAN)):
        known = [(e, y + shift) for row, y in places if (e := getattr(row, kind)) is not None]
        bars = [(y, e.low, e.high) for e, y in known if math.isfinite(e.low)]
        if bars:
            panel.hlines(*zip(*bars, strict=True), color=colour, lw=width, zorder=2.5, label=f"_{kind}")
        _arrows(panel, [(e, y) for e, y in known if math.isfinite(e.low)], view, colour)
        means = [(e.mean, y) for e, y in known if e.n and kind == "estimate"]
        if means:
            panel.plot(*zip(*means, strict=True), "D", color=colour, ms=3.2, zorder=3, label="_means")
    given = [(row.published, y + bar) for row, y in places if row.published is not None]
    if given:
        style: dict[str, Any] = {"ms": 5, "mfc": "none", "mec": GIVEN, "mew": 1.2, "zorder": 3.5}
        panel.plot(*zip(*given, strict=True), "s", **style, label="_published")


def _write(panel: Axes, text: str, x: float, at: tuple[float, str], *, first: float, color: str = "black") -> None:
    """A text x inches beside the axes' left edge, line by line, so that the columns of a row stand on one baseline.

    The first line's baseline is ``first`` points above the place.
    """
    place: dict[str, Any] = {"xycoords": ("axes fraction", at[1]), "textcoords": "offset points", "annotation_clip": False}
    for i, line in enumerate(text.split("\n")):
        panel.annotate(line, (0, at[0]), (72 * x, first - STEP * i), va="baseline", fontsize=SMALL, color=color, **place)


def _spread(points: Sequence[float]) -> "np.ndarray[Any, Any]":
    """From -1 to 1; a single run stands above its mean, which would hide it."""
    return np.linspace(-1, 1, len(points)) if len(points) > 1 else np.full(len(points), -0.8)


def _arrows(panel: Axes, known: Iterable[tuple[Estimate, float]], view: _View, colour: str) -> None:
    """Where an interval goes on beyond the axis."""
    for estimate, y in known:
        for cut, edge, marker in zip(view.cut(estimate), (view.low, view.high), ("<", ">"), strict=True):
            if cut:
                panel.plot(edge, y, marker, color=colour, ms=3.5, clip_on=False, zorder=4, label="_arrow")


def _legend(
    groups: Sequence[Group], said: Said, line: float | None, view: _View, width: float
) -> tuple[list[Line2D], list[str]]:
    rows = [row for group in groups for row in group.rows]
    bare: dict[str, Any] = {"ls": "none"}
    known: list[tuple[bool, str, dict[str, Any]]] = [
        (any(row.points for row in rows), said.points, {**bare, "marker": "o", "ms": 3, "color": POINT}),
        (any(row.estimate for row in rows), said.estimate, {"marker": "D", "ms": 3.2, "lw": 1.6, "color": MEAN}),
        (any(row.wider for row in rows), said.wider, {"lw": 0.8, "color": WIDER}),
        (line is not None, said.line, {"lw": 0.9, "color": ZERO, "dashes": (3, 1.5)}),
        (
            any(row.published is not None for row in rows),
            said.published,
            {**bare, "marker": "s", "ms": 5, "mfc": "none", "mec": GIVEN, "mew": 1.2},
        ),
        (
            any(any(view.cut(e)) for row in rows for e in _intervals(row)),
            "the interval goes on beyond the axis",
            {**bare, "marker": ">", "ms": 3.5, "color": MEAN},
        ),
    ]
    there = [(text, look) for has, text, look in known if has and text]
    return [Line2D([], [], **look) for _, look in there], [wrapped(text, width - 0.6) for text, _ in there]
