"""Effects of axes and of pairs of them, and ranks of cells."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import statistics
from analysis.axes import followers
from analysis.blocks import by_seed, complete, held, paired, rows_beside, settings_of, whole_blocks
from analysis.cells import Cell, grouped
from analysis.fields import name_of
from analysis.statistics import Estimate
from analysis.wording import setting_text


@dataclass(frozen=True)
class Effect:
    """A value of an axis, or values of two, against the mean over the axis: percentage points of test error."""

    axes: tuple[str, ...]
    levels: tuple[Any, ...]  # a value of each axis
    estimate: Estimate


def main_effects(cells: Sequence[Cell]) -> list[Effect]:
    """Of each value of each axis, over the cells that have every value of the axis beside otherwise equal settings."""
    return [effect for axis in axes_of(cells) for effect in _effects(cells, (axis,))]


def interactions(cells: Sequence[Cell]) -> list[Effect]:
    """Of each pair of values of two axes: what is left of a cell's mean when the effects of both are taken off."""
    return [effect for pair in itertools.combinations(axes_of(cells), 2) for effect in _effects(cells, pair)]


def ranks(cells: Sequence[Cell]) -> tuple[list[float], list[int]]:
    """Each cell's mean rank by test error (1 = best) among those of its data set, and over how many seeds it is the mean.

    They are those that all cells of the data set with a result have finished. A cell without a result has no rank.
    """
    found, seeds = [float("nan")] * len(cells), [0] * len(cells)
    able = [(i, cell) for i, cell in enumerate(cells) if cell.error.n]
    for members in grouped(able, lambda pair: pair[1]).values():
        errors = paired(*(cell.by_seed for _, cell in members))
        if errors.size:
            for (i, _), rank in zip(members, statistics.ranks(errors.T), strict=True):
                found[i], seeds[i] = float(rank), errors.shape[1]
    return found, seeds


def axes_of(cells: Sequence[Cell]) -> list[str]:
    """What can have an effect: a data set is no treatment of another, nor is what follows another axis one beside it."""
    following = followers([cell.setting for cell in cells])
    return [axis for axis in cells[0].setting if axis != "dataset" and axis not in following] if cells else []


def held_note(cells: Sequence[Cell], *, pairs: bool = False) -> str:
    """Says of which axes the effect is at a single value of another axis, though that has several, and at which.

    ``routing: with r = 1 alone``; empty if each is over whatever the others vary in. With ``pairs`` also of each two axes,
    as far as it doesn't hold for one of the two.
    """
    alone: dict[tuple[str, ...], dict[str, Any]] = {(axis,): _held(cells, (axis,)) for axis in axes_of(cells)}
    if pairs:
        for one, other in itertools.combinations(axes_of(cells), 2):
            own = alone[one,] | alone[other,]
            alone[one, other] = {axis: v for axis, v in _held(cells, (one, other)).items() if axis not in own}
    return "; ".join(
        f"{' × '.join(map(name_of, axes))}: with {setting_text(at, ' = ')} alone" for axes, at in alone.items() if at
    )


def _held(cells: Sequence[Cell], axes: tuple[str, ...]) -> dict[str, Any]:
    """The other axes that have one value in all settings over which the effect of these is, though not in all there are."""
    levels, _ = complete(cells, axes)
    if not levels or min(map(len, levels)) < 2:
        return {}
    rows, wanted = rows_beside(cells, axes), list(itertools.product(*levels))
    counted = [row for row in rows if whole_blocks([row], wanted)]
    others = (axis for axis in axes_of(cells) if axis not in axes)
    return held(settings_of(counted, axes), settings_of(rows, axes), others)


def _effects(cells: Sequence[Cell], axes: tuple[str, ...]) -> list[Effect]:
    """Of the combinations of the axes' values, over the blocks that have all of them."""
    levels, blocks = complete(cells, axes)
    if not blocks or min(map(len, levels)) < 2:
        return []
    combinations = list(itertools.product(*levels))
    means = by_seed(blocks, len(combinations)).reshape(-1, *map(len, levels))
    found: Iterable[Estimate] = (
        statistics.main_effects(means) if len(axes) == 1 else itertools.chain(*statistics.interaction(means))
    )
    return [Effect(axes, values, estimate) for values, estimate in zip(combinations, found, strict=True)]
