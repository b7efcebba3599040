"""What a value of an axis does against another: by seed, over otherwise equal settings of the other axes."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis import statistics
from analysis.axes import axes_read
from analysis.blocks import Row, by_seed, held, paired, rows_beside, settings_of, whole_blocks
from analysis.cells import Cell
from analysis.comparisons import Comparisons
from analysis.effects import axes_of
from analysis.fields import in_order, is_default
from analysis.statistics import Comparison

MOST_VALUES = 4  # of an axis whose values are all compared to each other; those of a longer one to one: see base_of

Pair = tuple[Any, Any]  # a value, and the one that it is compared to


@dataclass(frozen=True)
class Contrast:
    """A value of an axis against another, in percentage points of test error; of two axes, a difference of differences.

    Attributes:
        axes: one or two.
        pairs: per axis, the value and the one that it is compared to. With two axes: how the first axis' difference changes
            from the second axis' other value to its value.
        comparison: paired by seed, of means over the settings that the seed has finished.
        rows: the cells at each setting of the other axes that counts; none if no seed has finished all that is compared.
        seeds: how many each of these settings has.
        held: the other axes that have a single value in all of these settings, though not wherever the axes vary, with it.
        p_holm: corrected for all contrasts of the axis, or for all of two axes.
    """

    axes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    comparison: Comparison
    rows: Sequence[Row] = ()
    seeds: Sequence[int] = ()
    held: Mapping[str, Any] = field(default_factory=dict)
    p_holm: float = float("nan")

    @property
    def others(self) -> list[dict[str, Any]]:
        """The settings of the other axes that the means are over."""
        return settings_of(self.rows, self.axes)


def of_axes(comparisons: Comparisons) -> list[Contrast]:
    """Each two values of each axis; Holm's correction is for the pairs of one axis, each axis being a question of its own.

    A contrast of two cells only, one of them the reference, is a row of the table of differences, too: it has the larger of
    both corrected p, so that no table tells them apart while another one doesn't.
    """
    cells = comparisons.cells
    found = (c for axis in axes_of(cells) for c in _corrected(_contrasts(cells, {axis: _pairs(comparisons, axis)})))
    p_of = {id(each.cell): each.p_holm for each in comparisons.differences}
    return [replace(each, p_holm=max(each.p_holm, p_of.get(id(_against(each, comparisons.reference)), 0.0))) for each in found]


def _against(contrast: Contrast, reference: Cell | None) -> Cell | None:
    """The cell that a contrast compares to the reference and to nothing else; None if it compares more, or others."""
    if len(contrast.rows) != 1 or reference is None:
        return None
    two = [contrast.rows[0][value,] for value in contrast.pairs[0]]
    return next((cell for cell in two if cell is not reference), None) if any(cell is reference for cell in two) else None


def of_two_axes(comparisons: Comparisons) -> list[Contrast]:
    """Each two values of each two axes that have a whole block; Holm's correction is for all of them."""
    pairs = {axis: _pairs(comparisons, axis) for axis in axes_of(comparisons.cells)}
    every = (_contrasts(comparisons.cells, dict(two)) for two in itertools.combinations(pairs.items(), 2))
    return _corrected(contrast for contrasts in every for contrast in contrasts if contrast.rows)


def of_cells(cells: Sequence[Cell], other: Cell) -> list[Comparison]:
    """Each cell against the other, by the seeds that both have finished."""
    return [statistics.compare(*paired(cell.by_seed, other.by_seed)) for cell in cells]


def _contrasts(cells: Sequence[Cell], asked: Mapping[str, Sequence[Pair]]) -> Iterator[Contrast]:
    """Of each pair of one axis, or each two pairs of two."""
    axes = tuple(asked)
    rows, others = rows_beside(cells, axes), [axis for axis in axes_of(cells) if axis not in axes]
    for pairs in itertools.product(*asked.values()):
        corners = list(itertools.product(*pairs))
        # with one axis value - other; with two (11 - 10) - (01 - 00): the corners with an even number of others are added
        plus = np.array([sum(v != pair[0] for v, pair in zip(corner, pairs, strict=True)) % 2 == 0 for corner in corners])
        whole = [(row, found[0]) for row in rows if (found := whole_blocks([row], corners))]
        means = by_seed([blocks for _, blocks in whole], len(corners))
        compared = statistics.compare(means[:, plus].sum(axis=1), means[:, ~plus].sum(axis=1))
        counted = [row for row, _ in whole]
        single = held(settings_of(counted, axes), settings_of(rows, axes), others)
        yield Contrast(axes, pairs, compared, counted, [len(blocks) for _, blocks in whole], single)


def values_of(cells: Sequence[Cell], axis: str) -> list[Any]:
    """The values of an axis, in order, in the cells to whose model it means something."""
    return in_order(axis, (means[axis] for cell in cells if axis in (means := axes_read(cell.setting))))


def base_of(comparisons: Comparisons, axis: str) -> tuple[Any, str]:
    """What the values of an axis with many are compared to, and whose it is; where neither is there, None and nothing."""
    reference, values = comparisons.reference, values_of(comparisons.cells, axis)
    if reference and len(values) > MOST_VALUES:
        if axis in (means := axes_read(reference.setting)):
            return means[axis], "the reference's"
        for value in values:
            if is_default(axis, value):
                return value, "the paper's"
    return None, ""


def _pairs(comparisons: Comparisons, axis: str) -> list[Pair]:
    values, (base, whose) = values_of(comparisons.cells, axis), base_of(comparisons, axis)
    if whose:
        return [(value, base) for value in values if value != base]
    return [(value, other) for other, value in itertools.combinations(values, 2)]


def _corrected(found: Iterable[Contrast]) -> list[Contrast]:
    contrasts = list(found)
    adjusted = statistics.holm([contrast.comparison.p for contrast in contrasts])
    return [replace(contrast, p_holm=float(p)) for contrast, p in zip(contrasts, adjusted, strict=True)]
