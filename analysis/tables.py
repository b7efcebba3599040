"""The accuracy table for people, in Markdown and LaTeX, and the same cells with raw numbers as CSV."""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import Cell, cells, constants, legend, name_of, text_of, tidy, varying, widest
from analysis.published import Published, load
from experiments.sources import shortened

MEASURE = "test error (%)"
LINE = 84  # characters of LaTeX's text width at the size of the table; an axis gets 12 of them, the results share the rest

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "_": r"\_",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        "±": r"$\pm$",
        "—": "---",
    }
)


@dataclass(frozen=True)
class Table:
    """A table as plain text, not yet escaped for any format."""

    label: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    labels: int  # how many of the first columns are values of axes, not results
    notes: list[str]


def accuracy(runs: pd.DataFrame, published: Iterable[Published] = ()) -> Table:
    """Test error of every cell as ``mean ± sd (n=3)``, with published numbers beside it where the cell is theirs.

    Up to two axes label the rows; of three or more, the one with the most values is laid side by side, unless that leaves
    more places empty than it fills, as with the numbers that a search has drawn.
    """
    axes, all_cells = varying(runs), cells(runs, published)
    across = widest(runs, axes) if len(axes) > 2 else None
    rows = _rows(all_cells, axes, across)
    if across and 2 * len(all_cells) < len(rows) * runs[across].nunique():
        across, rows = None, _rows(all_cells, axes, None)
    down = [axis for axis in axes if axis != across]
    columns: dict[Any, list[Cell]] = {}  # by the value of the axis that is laid across
    for cell in sorted(all_cells, key=lambda c: [c.setting[across]] if across else []):  # stable: columns sort by value
        columns.setdefault(cell.setting[across] if across else None, []).append(cell)
    papers = [value for value, members in columns.items() if any(c.published for c in members)]
    header = [name_of(axis) for axis in down]
    for value in columns:
        column = _column(across, value)
        header += [column, _paper(across, column)] if value in papers else [column]
    body = [[*map(text_of, values), *_results(by_value, list(columns), papers)] for values, by_value in rows.items()]
    return Table(
        "tab:" + re.sub(r"[^A-Za-z0-9]+", "-", _experiments(runs)).strip("-").lower(),
        _caption(runs, axes, across),
        header,
        body,
        len(down),
        [*_published_notes(all_cells), _footer(runs)],
    )


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown, aligned so that it also reads well in a terminal."""
    lines = [[_cell_markdown(text) for text in line] for line in (table.header, *table.rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.header))]
    rule = ["-" * w if i < table.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    pads = [str.ljust if i < table.labels else str.rjust for i in range(len(widths))]
    head, *body = [[pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True)] for line in lines]
    drawn = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    return "\n\n".join([table.caption, "\n".join(drawn), *table.notes]) + "\n"


def latex(table: Table) -> str:
    """The table as a LaTeX float that needs no package but booktabs."""
    room = (LINE - 12 * table.labels) // (len(table.header) - table.labels)
    sides = "l" * table.labels + "r" * (len(table.header) - table.labels)
    header = [_broken(text, "b", side, room) for text, side in zip(table.header, sides, strict=True)]
    body = [[_broken(text, "t", side, room) for text, side in zip(row, sides, strict=True)] for row in table.rows]
    # the columns are numbers until they are drawn, because Styler takes no header twice
    styler = pd.DataFrame(body).style.hide(axis="index").format_index(lambda i: header[int(str(i))], axis="columns")
    text = styler.to_latex(
        hrules=True,
        caption=_escape(table.caption),
        label=table.label,
        position="tb",
        position_float="centering",
        column_format=sides,
    )
    size = "\\small\n" if len(table.header) > 4 else ""
    notes = "".join(f"\\par\\smallskip\\raggedright\\footnotesize {_escape(note)}\n" for note in table.notes)
    return str(text).replace("\\begin{tabular}", size + "\\begin{tabular}", 1).replace("\\end{table}", notes + "\\end{table}")


def write(runs: pd.DataFrame, folder: Path, published: Iterable[Published] | None = None) -> list[Path]:
    """Write accuracy.md, accuracy.tex and cells.csv; ``published`` is published.yaml's unless given.

    Raises:
        InputError: there is no run, or published.yaml is wrong.
    """
    published = load() if published is None else tuple(published)
    table = accuracy(runs, published)
    csv = tidy(cells(runs, published)).to_csv(index=False, lineterminator="\n")
    files = {"accuracy.md": markdown(table), "accuracy.tex": latex(table), "cells.csv": csv}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


def error_text(cell: Cell) -> str:
    """``2.22 ± 0.56 (n=3)``: the deviation with two significant digits, the mean to the same decimals.

    Where there is no deviation, or it is 0, two decimals: what one of 10,000 test images is worth.
    """
    mean, sd = cell.error.mean, cell.error.sd
    if cell.error.n == 0:
        return f"— ({cell.count})"
    if cell.error.n == 1:
        return f"{mean:.2f} ({cell.count})"
    # below 1e-9 a deviation is floating-point noise; {:.1e} rounds first, since 0.0996 is 0.10, not 0.100
    decimals = max(0, 1 - int(f"{sd:.1e}".split("e")[1])) if sd > 1e-9 else 2
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f} ({cell.count})"


def _rows(all_cells: list[Cell], axes: list[str], across: str | None) -> dict[tuple[Any, ...], dict[Any, Cell]]:
    """Values of the other axes -> value of the axis that is laid across -> cell."""
    rows: dict[tuple[Any, ...], dict[Any, Cell]] = {}
    for cell in all_cells:
        key = tuple(cell.setting[axis] for axis in axes if axis != across)
        rows.setdefault(key, {})[cell.setting[across] if across else None] = cell
    return rows


def _column(across: str | None, value: Any) -> str:
    if across is None:
        return MEASURE
    return shortened(value) if isinstance(value, str) else f"{name_of(across)} = {text_of(value)}"


def _paper(across: str | None, column: str) -> str:
    return f"paper, {column}" if across else "paper (%)"


def _results(by_value: dict[Any, Cell], values: list[Any], papers: list[Any]) -> list[str]:
    texts = []
    for value in values:
        cell = by_value.get(value)
        texts.append(error_text(cell) if cell else "")
        if value in papers:
            texts.append(_published_text(cell.published) if cell and cell.published else "")
    return texts


def _published_text(entry: Published) -> str:
    """As printed by its authors, whose digits are not ours to change."""
    deviation = "" if entry.sd is None else f" ± {text_of(entry.sd)}"
    return text_of(entry.value) + deviation + ("" if entry.n is None else f" (n={entry.n})")


def _published_notes(all_cells: list[Cell]) -> list[str]:
    entries = [cell.published for cell in all_cells if cell.published]
    return [f"Paper: {source}: {protocol}" for source, protocol in dict.fromkeys((e.source, e.protocol) for e in entries)]


def _caption(runs: pd.DataFrame, axes: list[str], across: str | None) -> str:
    told = constants(runs)
    rest = " (all but validation's)" if told.get("train_size") == 0 else ""
    same = ", ".join(f"{name_of(k)} {text_of(v)}" + (rest if k == "train_size" else "") for k, v in told.items())
    columns = f" Columns: {name_of(across)}." if across else ""
    names = legend([*axes, *told])
    return f"Test error in %, mean ± sample sd over n seeds.{columns} Constant: {same}." + (f" ({names}.)" if names else "")


def _footer(runs: pd.DataFrame) -> str:
    commits = sorted({_short(commit) for commit in runs["git_commit"].dropna() if commit})
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    consecutive = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    last = pd.to_datetime(runs["ended"], utc=True).max()
    parts = [
        f"Experiment {_experiments(runs)}",
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits) or 'unknown'}",
        f"seed{'s' * (len(seeds) > 1)} {f'{seeds[0]} to {seeds[-1]}' if consecutive else ', '.join(map(str, seeds))}",
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {int((runs['status'] == 'finished').sum())} finished",
        "no run has ended" if pd.isna(last) else f"last run ended {last:%Y-%m-%d %H:%M} UTC",
    ]
    return "; ".join(parts) + "."


def _short(commit: str) -> str:
    """The first 7 digits of a commit, with whatever marks it as dirty."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]*", r"\1", commit)


def _experiments(runs: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, runs["experiment"].unique())))


def _cell_markdown(text: str) -> str:
    return text.replace("|", "\\|")


def _escape(text: Any) -> str:
    return str(text).translate(LATEX)


def _broken(text: str, base: str, side: str, room: int) -> str:
    """A long text on several lines, or names of schedules and reasons of failures would push a table off the page."""
    parts = re.split(r" ?(?=\()|(?<=;) ", text) if len(text) > room else [text]
    lines = [_escape(line) for part in parts for line in textwrap.wrap(part, max(12, room), break_long_words=False)]
    if len(lines) < 2:
        return _escape(text)
    return f"\\begin{{tabular}}[{base}]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + "\\end{tabular}"
