"""The table that names a figure's rows: in columns that fit beside the axes, on pages that fit on paper."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.statistics import Estimate
from analysis.style import COLUMN, LINE, PAGE, size_of, wrapped

GAP = 0.12  # inches between two columns of text
LEAST = 0.24  # inches: height of a row


@dataclass(frozen=True)
class Row:
    """What stands in a row, in the unit of the x axis."""

    texts: tuple[str, ...]  # its columns in the table
    points: Sequence[float] = ()
    estimate: Estimate | None = None
    wider: Estimate | None = None  # the same mean with another interval
    published: float | None = None


@dataclass(frozen=True)
class Group:
    """Rows of one panel."""

    header: tuple[str, ...]
    rows: Sequence[Row]


def fitted(groups: Sequence[Group]) -> tuple[list[Group], list[float], float]:
    """The groups with their texts in lines, the widths of the table's columns in inches, and the figure's."""
    for room, most, width in ((1.3, 2.0, COLUMN), *((room, 4.3, PAGE) for room in (2.4, 1.9, 1.5, 1.2, 0.9, 0.7))):
        made = [_in_lines(group, room) for group in groups]
        widths = _widths(made)
        if sum(widths) + GAP * len(widths) <= most:
            return made, widths, width
    together = [Group(_joined(g.header), [replace(row, texts=_joined(row.texts)) for row in g.rows]) for g in groups]
    made = [_in_lines(group, 3.8) for group in together]
    return made, _widths(made), PAGE


def _joined(texts: tuple[str, ...]) -> tuple[str, ...]:
    """All columns but the last as one, which breaks where it must."""
    return (" · ".join(texts[:-1]), texts[-1])


def _in_lines(group: Group, room: float) -> Group:
    rows = [replace(row, texts=tuple(wrapped(text, room) for text in row.texts)) for row in group.rows]
    return Group(tuple(wrapped(text, room) for text in group.header), rows)


def _widths(groups: Sequence[Group]) -> list[float]:
    lines = [texts for group in groups for texts in (group.header, *(row.texts for row in group.rows))]
    return [max(size_of(text)[0] for text in column) for column in zip(*lines, strict=True)]


def row_height(row: Row) -> float:
    """Inches."""
    return max(LEAST, 0.08 + LINE * max(size_of(text)[1] for text in row.texts))


def head(group: Group) -> float:
    """Inches that the header takes."""
    return 0.1 + LINE * max(size_of(text)[1] for text in group.header)


def packed(groups: Sequence[Group], most: float) -> list[list[Group]]:
    """The groups on pages of at most that height; a group that doesn't fit goes on on the next page."""
    pages: list[list[Group]] = [[]]
    left = most
    for group in groups:
        rows: list[Row] = []
        left -= head(group)
        for row in group.rows:
            left -= row_height(row)
            if left < 0 and (rows or pages[-1]):
                pages[-1] += [Group(group.header, rows)] if rows else []
                pages.append([])
                rows, left = [], most - head(group) - row_height(row)
            rows.append(row)
        pages[-1].append(Group(group.header, rows))
    return pages
