"""Test error by how much the test images are corrupted or attacked: a panel for each kind, a line for each cell."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.cells import Cell
from analysis.fields import legend
from analysis.robustness import mean, tested
from analysis.style import COLOURS, COLUMN, DASHES, PAGE, NothingToDrawError, legend_size, scale, wrapped
from analysis.wording import setting_text
from capsnet import test_sets

ACROSS = 3  # panels
MOST = 12  # cells
NEAREST = 0.1  # of a panel's width: ticks that are nearer than that would touch
SAID = "line: mean over seeds; bars: its 95% Student-t interval; ×: the images as they are"


def by_level(cells: Sequence[Cell]) -> list[Figure]:
    """Mean test error at each level of each alteration, beginning with the images as they are.

    Raises:
        NothingToDrawError: there are too many cells; without a message, no finished run was tested on altered images.
    """
    kinds: dict[str, dict[int, str]] = {}  # -> level -> column
    for name, column in tested(cells).items():
        if made := test_sets.alteration(name):
            own = {made[0].intact: "test_error"}
            kinds.setdefault(test_sets.kind(name), own)[made[1]] = column
    altered = [column for levels in kinds.values() for column in levels.values() if column != "test_error"]
    shown = [cell for cell in cells if any(mean(cell, column).n for column in altered)]
    if not shown:
        raise NothingToDrawError("")
    if len(shown) > MOST:
        raise NothingToDrawError(f"{len(shown)} cells are too many lines for one panel; --where chooses some of them")
    lines = [(cell, COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]) for i, cell in enumerate(shown)]
    across = min(ACROSS, len(kinds))
    width = COLUMN if across == 1 else PAGE
    labels = [wrapped(f"{setting_text(cell.setting)} ({cell.count})", width - 0.6) for cell in shown]
    columns, tall = legend_size(labels, width)
    down = -(-len(kinds) // across)
    figure = Figure(figsize=(width, 1.85 * down + tall), layout="constrained")
    panels = [*figure.subplots(down, across, sharey=True, squeeze=False).flat]
    for panel in panels[len(kinds) :]:
        panel.set_axis_off()
    for panel, (kind, levels) in zip(panels, kinds.items(), strict=False):
        for line in lines:
            _line(panel, levels, *line)
        panel.set_xlabel(f"{kind}: {test_sets.ALTERATIONS[kind].unit}")
        panel.set_xticks(sorted(levels))
        span = max(levels) - min(levels)
        near = min(b - a for a, b in pairwise(sorted(levels))) < NEAREST * span
        panel.tick_params(axis="x", rotation=90 if near else 0)
    for first in panels[::across]:
        first.set_ylabel("test error (%)")
    scale(panels[: len(kinds)], [y for panel in panels for line in panel.lines for y in line.get_ydata()])
    handles = [Line2D([], [], color=colour, dashes=dashes or (None, None)) for _, colour, dashes in lines]
    title = wrapped(f"{SAID}\n{legend(shown[0].setting)}".strip(), width - 0.2)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title)
    return [figure]


def _line(panel: Axes, levels: Mapping[int, str], cell: Cell, colour: str, dashes: tuple[float, ...]) -> None:
    """The levels at which the cell was tested, of those that it may have."""
    found = {level: mean(cell, column) for level, column in sorted(levels.items())}
    found = {level: estimate for level, estimate in found.items() if estimate.n}
    if not any(levels[level] != "test_error" for level in found):
        return
    means = {level: estimate.mean for level, estimate in found.items()}
    ends = [[each.mean - each.low, each.high - each.mean] for each in found.values()]
    panel.errorbar([*means], [*means.values()], [*zip(*ends, strict=True)], fmt="none", ecolor=colour, elinewidth=0.8)
    (line,) = panel.plot([*means], [*means.values()], color=colour, marker=".", ms=4)
    line.set_dashes(dashes or (None, None))
    own = [level for level in found if levels[level] == "test_error"]
    panel.plot(own, [means[level] for level in own], "x", color=colour, ms=4)
