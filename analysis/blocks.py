"""What may be compared: cells that differ in some axes alone, and the seeds that all of them have finished.

A block is a seed at one setting of all other axes. Only blocks that are whole count, and those of a seed are averaged: runs of
one seed share first weights and the order of the images, so that the seeds are what intervals and tests count.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.axes import axes_compared, axes_read, followers
from analysis.cells import Cell
from analysis.fields import in_order

Values = tuple[Any, ...]  # one of each axis
Row = Mapping[Values, Cell]  # the cells at one setting of all other axes
Blocks = Mapping[int, Sequence[float]]  # seed -> test errors; at one setting of all other axes


def rows_beside(cells: Sequence[Cell], axes: Sequence[str]) -> list[Row]:
    """The cells to which the axes mean something: those that differ in nothing else in one row, by their values of the axes.

    What follows one of the axes is a part of it. Of what a model doesn't read its config has the default, so that it stands
    beside the cells of other models that have that.
    """
    following = followers([cell.setting for cell in cells])
    rows: dict[Values, dict[Values, Cell]] = {}
    for cell in cells:
        means = axes_read(cell.setting)
        if means.keys() >= set(axes):
            beside = axes_compared(cell.setting, axes)
            rest = (beside.get(axis) for axis in cell.setting if axis not in axes and following.get(axis) not in axes)
            rows.setdefault(tuple(rest), {})[tuple(cell.setting[axis] for axis in axes)] = cell
    return list(rows.values())


def settings_of(rows: Iterable[Row], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Of each row the values of the other axes that mean something to one of its cells; another may have no decoder."""
    return [
        {axis: value for cell in row.values() for axis, value in axes_read(cell.setting).items() if axis not in axes}
        for row in rows
    ]


def held(counted: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]], axes: Iterable[str]) -> dict[str, Any]:
    """Those axes that have one value in all settings that count, though not in all that there are, with that value."""

    def values(settings: Sequence[Mapping[str, Any]], axis: str) -> set[Any]:
        return {each.get(axis) for each in settings}

    return {
        axis: next(iter(values(counted, axis)))
        for axis in axes
        if len(values(counted, axis) - {None}) == 1 == len(values(counted, axis)) < len(values(there, axis))
    }


def varied_alone(cells: Sequence[Cell], axis: str) -> bool:
    """Whether cells with all values of the axis were planned beside otherwise equal settings, as they aren't by a search."""
    rows = rows_beside(cells, [axis])
    return set[Values]().union(*rows) in map(set, rows)


def whole_blocks(rows: Iterable[Row], wanted: Sequence[Values]) -> list[Blocks]:
    """Of each setting that has some, the blocks with all that is wanted, their errors in its order."""
    found: list[Blocks] = []
    for row in rows:
        errors = [row[values].by_seed if values in row else {} for values in wanted]
        if seeds := _common(errors):
            found.append({seed: [each[seed] for each in errors] for seed in seeds})
    return found


def complete(cells: Sequence[Cell], axes: Sequence[str]) -> tuple[list[list[Any]], list[Blocks]]:
    """The values of each axis, and the whole blocks of all their combinations, the last axis' values changing first.

    A failed run costs its block, not its seed, and a value with which no run finished costs itself.
    """
    rows = rows_beside(cells, axes)
    able = [values for row in rows for values, cell in row.items() if cell.error.n]
    levels = [in_order(axis, (values[i] for values in able)) for i, axis in enumerate(axes)]
    return levels, whole_blocks(rows, list(itertools.product(*levels)))


def full(blocks: Sequence[Blocks]) -> list[Blocks]:
    """Settings and seeds of which each setting has each seed: with the most blocks, and of equal ones the most seeds.

    A mean over settings is of as many for every seed then. Differences within a block need no such thing, since what is hard
    at a setting is so for both.
    """
    seeds = [frozenset(block) for block in blocks]
    chosen = {*seeds, *([frozenset.intersection(*seeds)] if seeds else [])}
    most = max(
        chosen, key=lambda own: (len(own) * sum(own <= each for each in seeds), len(own), sorted(own)), default=frozenset()
    )
    return [{seed: block[seed] for seed in sorted(most)} for block in blocks if most and most <= block.keys()]


def by_seed(blocks: Sequence[Blocks], width: int) -> Float[ndarray, "seeds width"]:
    """Means over the settings at which a seed has a whole block, by seed; ``width`` is how many errors a block has."""
    seeds = sorted(set[int]().union(*blocks))
    means = [np.mean([block[seed] for block in blocks if seed in block], axis=0) for seed in seeds]
    return np.array(means, dtype=float).reshape(len(seeds), width)


def paired(*errors: Mapping[int, float]) -> Float[ndarray, "errors seeds"]:
    """Of several (seed -> error) the errors of the seeds that all have, by seed."""
    seeds = _common(errors)
    return np.array([[each[seed] for seed in seeds] for each in errors], dtype=float).reshape(len(errors), len(seeds))


def _common(errors: Sequence[Mapping[int, float]]) -> list[int]:
    return sorted(set.intersection(*map(set, errors))) if errors else []
