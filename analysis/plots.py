"""Every plot of an experiment: test error by cell and by axis, effects, fields of numbers, and what changes by epoch."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis import curves as by_epoch
from analysis import heat, robustness_figure
from analysis.axes import followers_note, texts_of
from analysis.blocks import Values, by_seed, complete, full, rows_beside, varied_alone
from analysis.cells import Cell
from analysis.comparisons import Comparisons
from analysis.effects import Effect, axes_of, held_note, main_effects
from analysis.fields import in_order, legend, name_of, value_text
from analysis.forest import Said, draw
from analysis.rates import learning_rates
from analysis.rows import Group, Row
from analysis.statistics import Estimate, t_interval
from analysis.style import NothingToDrawError, by_dataset, write_all
from analysis.wording import setting_text

ERROR = "test error (%)"
MOST_CELLS = 240  # eight pages


def write(comparisons: Comparisons, runs: pd.DataFrame, curves: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Write every plot that there are data for, as PNG and PDF.

    Returns:
        The files, and of the plots that are left out which and why.
    """
    return write_all(figures(comparisons, runs, curves), folder)


def figures(comparisons: Comparisons, runs: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Callable[[], list[Figure]]]:
    """Every plot by the name of its files; what makes it raises NothingToDrawError where there are no data."""
    makers: dict[str, Callable[[Comparisons, pd.DataFrame], list[Figure]]] = {
        "test_error_by_cell": lambda part, _: by_cell(part),
        "test_error_by_axis": lambda part, _: by_axis(part.cells),
        "main_effects": lambda part, _: effects(part.cells),
        "interactions": lambda part, _: heat.of_interactions(part.cells),
        "heat_map": lambda part, _: heat.of_errors(part.cells),
        "error_by_corruption": lambda part, _: robustness_figure.by_level(part.cells),
        "error_by_epoch": lambda _, own: by_epoch.errors(own, curves),
        "loss_by_epoch": lambda _, own: by_epoch.losses(own, curves),
        "learning_rate_by_step": lambda _, own: learning_rates(own, curves),
    }

    def pages(make: Callable[[Comparisons, pd.DataFrame], list[Figure]]) -> list[Figure]:
        parts = {
            name: partial(make, part, runs[runs["dataset"] == name] if len(comparisons.by_dataset) > 1 else runs)
            for name, part in comparisons.by_dataset.items()
        }
        return by_dataset(parts)

    return {name: partial(pages, make) for name, make in makers.items()}


def by_cell(comparisons: Comparisons) -> list[Figure]:
    """Test error of each cell, in the table's order: its runs, their mean, both intervals, and what others published.

    Raises:
        NothingToDrawError: no run is finished, or there are too many cells.
    """
    cells, reference = comparisons.cells, comparisons.reference
    _some_finished(cells)
    if len(cells) > MOST_CELLS:
        raise NothingToDrawError(f"{len(cells)} cells are too many to stand one below the other; --where chooses some of them")
    rows = [
        Row(
            (*texts_of(cell.setting), cell.count.removeprefix("n=")),
            tuple(cell.finished),
            cell.error if cell.error.n else None,
            images.interval if images else None,
            cell.published.value if cell.published else None,
        )
        for cell, images in zip(cells, comparisons.images, strict=True)
    ]
    header = (*(name_of(axis) for axis in cells[0].setting), "n")
    line = reference.error.mean if reference and reference.error.n else None
    said = Said(
        _axis(cells[0].setting),
        "one run",
        _told(row.estimate for row in rows),
        _told(row.wider for row in rows).removeprefix("mean and "),
        f"published: {'; '.join(dict.fromkeys(cell.published.source for cell in cells if cell.published))}",
        f"mean of the reference: {setting_text(reference.setting)}" if reference else "",
    )
    return draw([Group(header, rows)], said, line, least=0.0)


def by_axis(cells: Sequence[Cell]) -> list[Figure]:
    """Test error by each axis that was varied alone: runs, their mean and its interval over seeds.

    Those runs count whose seed has finished with every value at otherwise equal settings. Of others, as of all of a search, a
    value's mean would be that of other settings than another value's. And a seed that has finished at some settings only would
    be one of other settings than another seed: :func:`analysis.blocks.full`.

    Raises:
        NothingToDrawError: no run is finished, no axis was varied alone or has a seed that finished with every value, or there
            are too many values.
    """
    _some_finished(cells)
    axes = [*cells[0].setting]
    alone = [axis for axis in axes if varied_alone(cells, axis)]
    if axes and not alone:
        raise NothingToDrawError("no axis was varied alone: none has cells with all of its values beside equal settings")
    if (count := sum(len({cell.setting[axis] for cell in cells}) for axis in alone)) > MOST_CELLS:
        raise NothingToDrawError(f"the axes have {count} values, too many to stand one below the other; --where chooses some")
    made = {axis: _of_axis(cells, [axis]) for axis in alone} if axes else {"": _of_axis(cells, [])}
    groups = {axis: group for axis, group in made.items() if any(row.estimate for row in group.rows)}
    if not groups:
        raise NothingToDrawError(heat.NO_DESIGN)
    rows = [row for group in groups.values() for row in group.rows]
    pooled = ", each the mean over the other axes" if len(axes) > 1 else ""
    if axes and any(row.texts[-1] != str(len(row.points)) for row in rows):
        pooled += "; only of settings that have all values, and of seeds that finished there"
    lacking = {"not varied alone": [axis for axis in axes if axis not in alone]}
    lacking["for want of a seed that finished with every value"] = [axis for axis in alone if axis not in groups]
    pooled += "".join(f"; without {' and '.join(map(name_of, names))}, {why}" for why, names in lacking.items() if names)
    pooled += f"; {at}" if (at := held_note(cells)) else ""
    said = Said(ERROR, "one run", f"{_told(row.estimate for row in rows)} over n seeds{pooled}")
    return draw(list(groups.values()), said, least=0.0)


def effects(cells: Sequence[Cell]) -> list[Figure]:
    """Main effect of each value of each axis, with its interval.

    Raises:
        NothingToDrawError: no axis varies, or none of which cells with all its values have finished a seed.
    """
    _some_finished(cells)
    found: dict[str, list[Effect]] = {}
    for effect in main_effects(cells):
        found.setdefault(effect.axes[0], []).append(effect)
    if not found:
        raise NothingToDrawError(heat.NO_DESIGN if cells[0].setting else heat.NO_AXIS)
    groups = [
        Group(
            (legend([axis]) or name_of(axis), "n"),
            [Row((*map(value_text, e.axes, e.levels), str(e.estimate.n)), estimate=e.estimate) for e in members],
        )
        for axis, members in found.items()
    ]
    kind = _told(row.estimate for group in groups for row in group.rows)
    told = f"{kind} over n seeds: error of the value less the mean of all values"
    missing = [name_of(axis) for axis in axes_of(cells) if axis not in found]
    told += f"; without {' and '.join(missing)}, for want of a complete design" if missing else ""
    told += "".join(f"; {said}" for said in (followers_note([cell.setting for cell in cells]), held_note(cells)) if said)
    return draw(groups, Said("effect on the test error (percentage points)", estimate=told, line="no effect"), 0.0)


def _of_axis(cells: Sequence[Cell], axes: Sequence[str]) -> Group:
    """Of the values of one axis; of none, where nothing varies, all runs."""
    levels, found = complete(cells, axes)
    blocks = full(found)
    finished = list(itertools.product(*levels))
    # runs of one seed share data order and first weights: the seed is the unit that was repeated, not the run
    means = by_seed(blocks, len(finished))
    planned: Counter[Values] = Counter()
    for row in rows_beside(cells, axes):
        planned.update({values: len(cell.runs) for values, cell in row.items()})
    rows = []
    for values in itertools.product(*(in_order(axis, (value for [value] in planned)) for axis in axes)):
        points, estimate = [], None
        if blocks and values in finished:
            place = finished.index(values)
            points, estimate = [errors[place] for block in blocks for errors in block.values()], t_interval(means[:, place])
        count = f"{len(points)}" if len(points) == planned[values] else f"{len(points)} of {planned[values]}"
        texts = (*map(value_text, axes, values), str(estimate.n if estimate else 0), count)
        rows.append(Row(texts if axes else ("all", *texts), tuple(points), estimate))
    return Group((legend(axes) or " ".join(map(name_of, axes)), "n", "runs"), rows)


def _some_finished(cells: Sequence[Cell]) -> None:
    if not any(cell.error.n for cell in cells):
        raise NothingToDrawError(f"none of the experiment's {sum(len(cell.runs) for cell in cells)} runs is finished yet")


def _told(estimates: Iterable[Estimate | None]) -> str:
    """What the bars are: ``mean and 95% Student-t interval``, if one is known."""
    kinds = dict.fromkeys(e.kind for e in estimates if e is not None and not math.isnan(e.low))
    return " and ".join(["mean", *[" or ".join(kinds)] * bool(kinds)])


def _axis(axes: Iterable[str]) -> str:
    names = legend(axes)
    return f"{ERROR}\n{names}" if names else ERROR
