"""Fields of numbers: test error by routing iterations and reconstruction weight, and interactions of two axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from analysis.axes import axes_read, followers
from analysis.blocks import held
from analysis.cells import Cell
from analysis.effects import held_note, interactions
from analysis.fields import in_order, legend, name_of, named, text_of, value_text
from analysis.statistics import Estimate, t_interval
from analysis.style import (
    COLUMN,
    DIVERGING,
    LINE,
    PAGE,
    SEQUENTIAL,
    SMALL,
    TALLEST,
    NothingToDrawError,
    ink_on,
    size_of,
    wrapped,
)
from analysis.wording import number_text, setting_text
from experiments.significance import decimals_of

ROWS, COLUMNS, FACET = "routing_iterations", "reconstruction_weight", "lr_schedule"
LABEL = 1.2  # inches: the most that names of rows take
NO_AXIS = "no axis varies"
NO_DESIGN = "no cells that have all values of an axis beside equal settings have a finished seed in common"

Rest = tuple[Any, ...]  # values of all other axes
Square = tuple[Any, Any, Any]
"""Routing iterations, reconstruction weight, and the schedule, or None if it doesn't vary."""


@dataclass(frozen=True)
class Field:
    """Numbers by two axes; a square without one is NaN."""

    title: str
    axes: tuple[str, str]  # what the rows are, and the columns
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]]
    pad: float = 0.1  # inches between the numbers of two columns


def of_errors(cells: Sequence[Cell]) -> list[Figure]:
    """Test error by r and reconstruction weight, a panel per schedule; the mean over all other axes, within each seed.

    Raises:
        NothingToDrawError: one of the two axes doesn't vary, or there is too little or too much to show.
    """
    setting = cells[0].setting
    if lacking := [name_of(axis) for axis in (ROWS, COLUMNS) if axis not in setting]:
        raise NothingToDrawError(f"{' and '.join(lacking)} {'do' if len(lacking) > 1 else 'does'} not vary")
    found = squares(cells)
    counts = {estimate.n for estimate in found.values()}
    if not any(counts):
        raise NothingToDrawError("no seed is finished in all cells that a square of the field stands for")
    rows, columns = (sorted({square[i] for square in found}) for i in (0, 1))
    schedules = in_order(FACET, (square[2] for square in found)) if FACET in setting else [None]
    if 2 * len(found) < len(rows) * len(columns) * len(schedules):
        raise NothingToDrawError("more than half of the field would be empty")
    fields = []
    for schedule in schedules:
        shown = [[found.get((row, column, schedule)) for column in columns] for row in rows]
        values = [[e.mean if e else math.nan for e in line] for line in shown]
        texts = [[_error_text(e, len(counts) > 1) if e else "" for e in line] for line in shown]
        title = named(FACET, schedule) if FACET in setting else ""
        axes = (legend([ROWS]), name_of(COLUMNS))
        fields.append(Field(title, axes, list(map(text_of, rows)), list(map(text_of, columns)), values, texts))
    note = f"test error (%), mean ± sample sd over n seeds{'' if len(counts) > 1 else f' (n={max(counts)})'}" + _of_what(cells)
    means = [estimate.mean for estimate in found.values() if estimate.n]
    return draw(fields, SEQUENTIAL, Normalize(min(means), max(means)), note + "; the darker, the higher")


def _of_what(cells: Sequence[Cell]) -> str:
    """``, each the mean over train size, all with routing = dynamic``: what a number of the map is of, beside its own axes."""
    over, by_square = _others(cells), _by_square(cells)
    there = [dict(zip(over, rest, strict=True)) for by_rest in by_square.values() for rest in by_rest]
    alone = held([dict(zip(over, rest, strict=True)) for rest in _common(by_square)], there, over)
    varied = [name_of(axis) for axis in over if axis not in alone]
    said = f", each the mean over {' and '.join(varied)}" if varied else ""
    return said + (f", all with {setting_text(alone, ' = ')}" if alone else "")


def squares(cells: Sequence[Cell]) -> dict[Square, Estimate]:
    """Test error in % of each r, weight and schedule, over the seeds that all of the square's cells have finished.

    Of the other axes' settings only those count that every square has, since others would make squares incomparable.
    """
    found = _by_square(cells)
    common, estimates = _common(found), {}
    for square, by_rest in found.items():
        seeds = sorted(set.intersection(*(set(by_rest[rest]) for rest in common))) if common else []
        estimates[square] = t_interval([math.fsum(by_rest[rest][seed] for rest in common) / len(common) for seed in seeds])
    return estimates


def _by_square(cells: Sequence[Cell]) -> dict[Square, dict[Rest, Mapping[int, float]]]:
    """Of each square its cells' errors by seed, by their values of the other axes."""
    found: dict[Square, dict[Rest, Mapping[int, float]]] = {}
    others = _others(cells)
    for cell in _shown(cells):
        rest = tuple(cell.setting[axis] for axis in others)
        found.setdefault((cell.setting[ROWS], cell.setting[COLUMNS], cell.setting.get(FACET)), {})[rest] = cell.by_seed
    return found


def _common(found: Mapping[Square, Mapping[Rest, Any]]) -> list[Rest]:
    """The other axes' settings that every square has."""
    return [rest for rest in next(iter(found.values()), {}) if all(rest in by_rest for by_rest in found.values())]


def _others(cells: Sequence[Cell]) -> list[str]:
    """The axes that are neither the map's nor follow one of its."""
    own, settings = (ROWS, COLUMNS, FACET), [cell.setting for cell in _shown(cells)]
    following = followers(settings)
    several = [axis for axis in cells[0].setting if len({setting[axis] for setting in settings}) > 1]
    return [axis for axis in several if axis not in own and following.get(axis) not in own]


def _shown(cells: Sequence[Cell]) -> list[Cell]:
    """Those to whose model the map's axes mean something."""
    return [cell for cell in cells if {ROWS, COLUMNS} <= axes_read(cell.setting).keys()]


def of_interactions(cells: Sequence[Cell]) -> list[Figure]:
    """What is left of the mean of each pair of values when both main effects are taken off, a panel per pair of axes.

    Raises:
        NothingToDrawError: fewer than two axes vary, or the design is not complete.
    """
    if len(cells[0].setting) < 2:
        raise NothingToDrawError("fewer than two axes vary")
    found: dict[tuple[str, ...], dict[tuple[Any, ...], Estimate]] = {}
    for effect in interactions(cells):
        found.setdefault(effect.axes, {})[effect.levels] = effect.estimate
    if not found:
        raise NothingToDrawError(NO_DESIGN)
    counts = sorted({next(iter(estimates.values())).n for estimates in found.values()})
    fields = [_interaction(axes, estimates, counted=len(counts) > 1) for axes, estimates in found.items()]
    # so that an effect which its interval doesn't tell from none is pale
    largest = max(abs(x) for es in found.values() for e in es.values() for x in (e.mean, e.low, e.high) if not math.isnan(x))
    note = "percentage points of test error beyond the two main effects, "
    over = "over n seeds" if len(counts) > 1 else f"over n={counts[0]} seeds"
    note += f"± half of the 95% Student-t interval {over}" if counts[-1] > 1 else "of one seed, so without an interval"
    note += "; orange: higher error, purple: lower" + (f"; {said}" if (said := held_note(cells, pairs=True)) else "")
    return draw(fields, DIVERGING.reversed(), Normalize(-largest or -1.0, largest or 1.0), note)


def _interaction(axes: tuple[str, ...], estimates: dict[tuple[Any, ...], Estimate], *, counted: bool) -> Field:
    """With that axis going down which makes the field narrower: names of schedules are long."""
    levels = [in_order(axes[i], (values[i] for values in estimates)) for i in (0, 1)]
    title = " × ".join(map(name_of, axes)) + f" (n={next(iter(estimates.values())).n})" * counted
    laid = []
    for down in (1, 0):
        keys = [[(row, column) if down == 0 else (column, row) for column in levels[1 - down]] for row in levels[down]]
        values = [[estimates[key].mean for key in line] for line in keys]
        texts = [[_effect_text(estimates[key]) for key in line] for line in keys]
        rows, columns = ([value_text(axes[i], value) for value in levels[i]] for i in (down, 1 - down))
        names = (name_of(axes[down]), name_of(axes[1 - down]))
        laid.append(Field(title, names, rows, columns, values, texts))
    return min(laid, key=lambda field: _width(_in_lines(field)))


def draw(fields: Sequence[Field], colours: Colormap, norm: Normalize, note: str) -> list[Figure]:
    """The fields beside and below each other, on as many pages as they need.

    Raises:
        NothingToDrawError: none fits on a page.
    """
    made = [(field, _in_lines(field)) for field in fields]
    fitting = [lines for _, lines in made if _width(lines) <= PAGE and _height(lines) <= TALLEST - 1]
    if not fitting:
        raise NothingToDrawError("the axes have too many values for a field of numbers")
    if left := [field.title for field, lines in made if lines not in fitting]:
        note += f"; without {' and '.join(left)}, too large for a page"
    widest = max(map(_width, fitting))
    across = min(3, len(fitting), int(PAGE / widest))
    width = COLUMN if across == 1 and widest <= COLUMN else PAGE
    fitting = [replace(field, title=wrapped(field.title, width / across - 0.7)) for field in fitting]
    highest = max(map(_height, fitting))
    note = wrapped(note, width - 0.2)
    foot = LINE * (note.count("\n") + 1) + 0.15
    per_page = across * max(1, int((TALLEST - foot) / highest))
    figures = []
    for start in range(0, len(fitting), per_page):
        lines = [fitting[i : i + across] for i in range(start, min(start + per_page, len(fitting)), across)]
        heights = [max(map(_height, line)) for line in lines]
        figure = Figure(figsize=(width, foot + sum(heights)), layout="constrained")
        panels = figure.subplots(len(lines), across, squeeze=False, height_ratios=heights)
        for line, beside in zip(lines, panels, strict=True):
            for panel in beside[len(line) :]:
                panel.set_axis_off()
            for panel, field in zip(beside, line, strict=False):
                matrix(panel, field, colours, norm)
        figure.supxlabel(note, fontsize=SMALL)
        figures.append(figure)
    return figures


def matrix(panel: Axes, field: Field, colours: Colormap, norm: Normalize) -> None:
    """Draw one field: a coloured square for each number, and the number in it."""
    values = np.ma.masked_invalid(np.asarray(field.values, dtype=float))
    panel.pcolormesh(values, cmap=colours, norm=norm, edgecolor="0.8", linewidth=0.4)
    panel.set_facecolor("0.9")
    panel.grid(visible=False)
    panel.set_ylim(len(field.rows), 0)
    panel.set_xticks(np.arange(len(field.columns)) + 0.5, field.columns)
    panel.set_yticks(np.arange(len(field.rows)) + 0.5, field.rows)
    panel.tick_params(length=0)
    panel.set_title(field.title, loc="left", fontsize=SMALL)
    panel.set_ylabel(field.axes[0], fontsize=SMALL)
    panel.set_xlabel(field.axes[1], fontsize=SMALL)
    for row, line in enumerate(field.texts):
        for column, text in enumerate(line):
            value = values[row, column]
            ink = "0.3" if value is np.ma.masked else ink_on(colours(norm(value)))
            panel.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL, color=ink)


def _in_lines(field: Field) -> Field:
    """With names in lines: those of rows in the room that they have, those of columns as narrow as their words let them."""
    column = _column(field)
    columns = [wrapped(text, column) for text in field.columns]
    return replace(field, rows=[wrapped(text, LABEL) for text in field.rows], columns=columns)


def _column(field: Field) -> float:
    """Inches for the texts of a column: none of the words in its name, and of its numbers, is wider."""
    words = [word for text in field.columns for word in text.split(" ")]
    return max(*(size_of(text)[0] for line in field.texts for text in line), *(size_of(word)[0] for word in words))


def _width(field: Field) -> float:
    return max(size_of(text)[0] for text in field.rows) + 0.3 + (_column(field) + field.pad) * len(field.columns)


def _height(field: Field) -> float:
    squares = [*field.rows, *(text for line in field.texts for text in line)]
    high = 0.12 + LINE * _lines(squares)
    names = LINE * (_lines([field.title]) + _lines(field.columns) + 1)
    return max(high * len(field.rows), size_of(field.axes[0])[0]) + names + 0.35


def _lines(texts: Sequence[str]) -> int:
    return max(size_of(text)[1] for text in texts)


def _error_text(estimate: Estimate, counted: bool) -> str:
    decimals = decimals_of(estimate.sd) if estimate.n > 1 else 2
    lines = [f"{estimate.mean:.{decimals}f}" if estimate.n else "—"]
    lines += [f"± {estimate.sd:.{decimals}f}"] if estimate.n > 1 else []
    return "\n".join([*lines, f"n={estimate.n}"] if counted else lines)


def _effect_text(estimate: Estimate) -> str:
    half = (estimate.high - estimate.low) / 2
    if math.isnan(half):
        return number_text(estimate.mean, 2, signed=True)
    decimals = decimals_of(half)
    return f"{number_text(estimate.mean, decimals, signed=True)}\n± {half:.{decimals}f}"
