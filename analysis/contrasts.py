"""What a value of an axis does against another: by seed, over otherwise equal settings of the other axes.

A block is a seed at one setting of all other axes. Only blocks that are whole count, those of a seed are averaged, and the
seeds are what intervals and tests count: runs of one seed share first weights and the order of the images.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis import statistics
from analysis.cells import Cell, followers, in_order, told
from analysis.comparisons import Comparisons, axes_of, setting_beside
from analysis.statistics import Comparison

MOST_VALUES = 4  # of an axis whose values are all compared to each other; of a longer one, each to the reference's value

Pair = tuple[Any, Any]  # a value, and the one that it is compared to
Errors = Mapping[int, float]  # seed -> test error of a run that finished
Measured = tuple[Mapping[str, Any], Errors]  # a cell's setting, and its runs


@dataclass(frozen=True)
class Contrast:
    """A value of an axis against another, in percentage points of test error; of two axes, a difference of differences.

    Attributes:
        axes: one or two.
        pairs: per axis, the value and the one that it is compared to. With two axes: how the first axis' difference changes
            from the second axis' other value to its value.
        comparison: paired by seed, of means over settings.
        settings: of the other axes, over which the means are; 0 if no seed has finished all that is compared.
        p_holm: corrected for all contrasts of the axis, or for all of two axes.
    """

    axes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    comparison: Comparison
    settings: int
    p_holm: float = float("nan")


def of_axes(comparisons: Comparisons) -> list[Contrast]:
    """Each two values of each axis; Holm's correction is for the pairs of one axis, each axis being a question of its own."""
    cells = _measured(comparisons)
    return [c for axis in axes_of(comparisons.cells) for c in _corrected(_contrasts(cells, {axis: _pairs(comparisons, axis)}))]


def of_two_axes(comparisons: Comparisons) -> list[Contrast]:
    """Each two values of each two axes that have a whole block; Holm's correction is for all of them."""
    cells, pairs = _measured(comparisons), {axis: _pairs(comparisons, axis) for axis in axes_of(comparisons.cells)}
    every = (_contrasts(cells, dict(two)) for two in itertools.combinations(pairs.items(), 2))
    return _corrected(contrast for contrasts in every for contrast in contrasts if contrast.settings)


def of_cells(cells: Sequence[Cell], other: Cell) -> list[Comparison]:
    """Each cell against the other, by the seeds that both have finished."""
    others, found = other.by_seed, []
    for cell in cells:
        errors = cell.by_seed
        seeds = sorted(set(errors) & set(others))
        found.append(statistics.compare([errors[seed] for seed in seeds], [others[seed] for seed in seeds]))
    return found


def _contrasts(cells: Sequence[Measured], asked: Mapping[str, Sequence[Pair]]) -> Iterator[Contrast]:
    """Of each pair of one axis, or each two pairs of two."""
    axes = tuple(asked)
    following = followers([setting for setting, _ in cells])
    rows: dict[tuple[Any, ...], dict[tuple[Any, ...], Errors]] = {}  # values of the other axes -> of these -> errors
    for setting, errors in cells:
        if told(setting).keys() >= set(axes):
            rest = setting_beside(setting, axes, following)
            rows.setdefault(rest, {})[tuple(setting[axis] for axis in axes)] = errors
    for pairs in itertools.product(*asked.values()):
        corners = list(itertools.product(*pairs))
        # with one axis value - other; with two (11 - 10) - (01 - 00): the corners with an even number of others are added
        added = [sum(v != pair[0] for v, pair in zip(corner, pairs, strict=True)) % 2 == 0 for corner in corners]
        by_seed: dict[int, list[list[float]]] = {}
        settings = 0
        for row in rows.values():
            found = [row.get(corner, {}) for corner in corners]
            seeds = set.intersection(*map(set, found))
            settings += bool(seeds)
            for seed in seeds:
                by_seed.setdefault(seed, []).append([errors[seed] for errors in found])
        means = np.array([np.mean(by_seed[seed], axis=0) for seed in sorted(by_seed)]).reshape(-1, len(corners))
        plus = np.array(added)
        compared = statistics.compare(means[:, plus].sum(axis=1), means[:, ~plus].sum(axis=1))
        yield Contrast(axes, pairs, compared, settings)


def _pairs(comparisons: Comparisons, axis: str) -> list[Pair]:
    values = in_order(axis, (cell.setting[axis] for cell in comparisons.cells))
    if len(values) <= MOST_VALUES or comparisons.reference is None:
        return [(value, other) for other, value in itertools.combinations(values, 2)]
    other = comparisons.reference.setting[axis]
    return [(value, other) for value in values if value != other]


def _corrected(found: Iterable[Contrast]) -> list[Contrast]:
    contrasts = list(found)
    adjusted = statistics.holm([contrast.comparison.p for contrast in contrasts])
    return [replace(contrast, p_holm=float(p)) for contrast, p in zip(contrasts, adjusted, strict=True)]


def _measured(comparisons: Comparisons) -> list[Measured]:
    return [(cell.setting, cell.by_seed) for cell in comparisons.cells]
