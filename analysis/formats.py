"""A table as plain text -> Markdown, LaTeX and HTML. Every text is escaped here, and nowhere else."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

# points of LaTeX's article at 10 pt: a table that fits there, fits a page of any conference
TEXT_WIDTH, TEXT_HEIGHT = 345, 550
# points of the narrowest of two columns, those of ACL; a wider table spans both: table* is table where there is one
COLUMN = 219
MARGINS = 140  # points that a table may stand out into both of them, as SIZES has it; letters are narrower: they are 90
SIZES = {  # up to so many columns -> points of a letter, of the gap between columns and of a line, and how LaTeX is told
    4: (5.1, 12, 12, ""),
    6: (4.7, 12, 11, "\\small\n"),
    8: (4.35, 10, 9.5, "\\footnotesize\\setlength{\\tabcolsep}{5pt}\n"),
    99: (4.1, 6, 8, "\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"),
}
# LaTeX expects captions below: above, they would touch the rule
SKIPS = "\\setlength{\\abovecaptionskip}{0pt}\\setlength{\\belowcaptionskip}{6pt}\n"
TIE = "\N{NO-BREAK SPACE}"
RULES = 45  # points: three of them with what is around them, and a caption that says "Continued."
NARROWEST, LONGEST = 6, 10_000  # letters of a line

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
        "×": r"$\times$",
        "−": r"$-$",
        "–": "--",
        "—": "---",
        "…": r"\ldots{}",
        TIE: "~",
    }
)

HTML = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<figure class="table" id="{{ table.label | replace(':', '-') }}">
<figcaption>{{ table.caption }}</figcaption>
<div class="scroll"><table>
<thead><tr>
{% for text in table.header %}
<th scope="col"{% if loop.index0 >= table.labels %} class="result"{% endif %}>{{ text }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if loop.index0 in table.marked %} class="marked"{% endif %}>
{%- for text in row %}<td{% if loop.index0 >= table.labels %} class="result"{% endif %}>{{ text }}</td>{% endfor -%}
</tr>
{% endfor %}
</tbody>
</table></div>
{% for note in table.notes %}
<p class="note">{{ note }}</p>
{% endfor %}
</figure>
""")

PAGE = Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; border-bottom: 2px solid; border-top: 2px solid }
thead { border-bottom: 1px solid } th, td { padding: .2rem .8rem; text-align: left } .result { text-align: right }
.scroll { overflow-x: auto } .note, figcaption { font-size: .9em; margin: .6rem 0 } figure { margin: 0 }
.marked { font-weight: 600 }
</style></head><body>
{{ body }}</body></html>
""")


@dataclass(frozen=True)
class Table:
    """A table as plain text, not yet escaped for any format."""

    label: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    labels: int  # how many of the first columns are values of axes, not results
    notes: list[str]
    marked: frozenset[int] = field(default_factory=frozenset)  # rows to stand out, where the format can


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown, aligned so that it also reads well in a terminal."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (table.header, *table.rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.header))]
    rule = ["-" * w if i < table.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    pads = [str.ljust if i < table.labels else str.rjust for i in range(len(widths))]
    head, *body = [[pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True)] for line in lines]
    drawn = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    return "\n\n".join([table.caption, "\n".join(drawn), *table.notes]) + "\n"


def html(table: Table) -> str:
    """The table as a ``figure`` of a page."""
    return HTML.render(table=table)


def page(table: Table) -> str:
    """The table as a whole HTML page."""
    return PAGE.render(title=table.caption.split(".")[0], body=Markup(html(table)))  # escaped when it was made


def latex(table: Table) -> str:
    """The table as a LaTeX float that needs no package but booktabs, with lines broken to fit the text's width.

    In a document of two columns it stands in one of them if it fits there, and else across both. One that is taller than a page
    is set smaller, or goes on in further floats of the same number; of one that is wider than a page, each float has the labels
    and some of the results.
    """
    pieces = _pieces(table)
    if len(pieces) > 1:
        return "".join(text for piece in pieces for text in _set(piece, *SIZES[99]))
    crowd = min(99, max(len(table.header), len(table.rows) // 3))  # many rows want a small size, too
    tries = [_set(table, *told) for most, told in SIZES.items() if crowd <= most]
    return "".join(next((floats for floats in tries if len(floats) == 1), tries[-1]))


def _pieces(table: Table) -> list[Table]:
    """The table, or if it is wider than a page even so narrow as it can be, its labels with as many results each as fit."""
    letter, gap, *_ = SIZES[99]
    columns = [list(column) for column in zip(table.header, *table.rows, strict=True)]
    widths = [letter * max(_width(line) for text in texts for line in text) + gap for texts in _fitted(columns, 0)]
    results = widths[table.labels :]
    room = TEXT_WIDTH + MARGINS - sum(widths[: table.labels])
    for count in range(1, len(results) + 1):
        ends = [round(len(results) * i / count) for i in range(count + 1)]
        if all(sum(results[a:b]) <= room for a, b in pairwise(ends)):
            return [_piece(table, columns, a, b) for a, b in pairwise(ends)]
    return [table]  # nothing would help


def _piece(table: Table, columns: list[list[str]], start: int, end: int) -> Table:
    """Some of the results: the first has the caption, and the last the notes."""
    kept = columns[: table.labels] + columns[table.labels + start : table.labels + end]
    header, *rows = map(list, zip(*kept, strict=True))
    first, last = start == 0, table.labels + end == len(columns)
    return replace(
        table,
        label=table.label if first else "",
        caption=table.caption if first else "",
        header=header,
        rows=rows,
        notes=table.notes if last else [],
    )


def _set(table: Table, letter: float, gap: float, lead: float, size: str) -> list[str]:
    """The floats that the table takes in a size of letters."""
    room = int((TEXT_WIDTH - gap * len(table.header)) / letter)
    columns = _fitted([list(column) for column in zip(table.header, *table.rows, strict=True)], room)
    width = sum(letter * max(_width(line) for text in column for line in text) + gap for column in columns)
    kind = "table" if width <= COLUMN else "table*"
    sides = "l" * table.labels + "r" * (len(table.header) - table.labels)
    header = [_stacked(column[0], "b", side) for column, side in zip(columns, sides, strict=True)]
    body = [
        [_stacked(column[i + 1], "t", side) for column, side in zip(columns, sides, strict=True)]
        for i in range(len(table.rows))
    ]
    head, *heights = [lead * max((len(column[i]) for column in columns), default=1) for i in range(len(body) + 1)]
    parts = _parts(_with_texts(heights, table), TEXT_HEIGHT - head - RULES)
    return [_float(table, kind, header, [body[i] for i in part], sides, size, part) for part in parts]


def _float(table: Table, kind: str, header: list[str], body: list[list[str]], sides: str, size: str, rows: range) -> str:
    """A float with some rows of the table: what is said of all of it stands with the first, its notes with the last."""
    first, last = rows.start == 0 and bool(table.caption), rows.stop == len(table.rows)
    # the columns are numbers until they are drawn, because Styler takes no header twice
    styler = pd.DataFrame(body).style.hide(axis="index").format_index(lambda i: header[int(str(i))], axis="columns")
    text = styler.to_latex(
        hrules=True,
        caption=_escape(table.caption) if first else "Continued.",
        label=table.label if first else None,
        environment=kind,
        position="tbp",  # p, too: a tall one would wait for the end of the document
        position_float="centering",
        column_format=sides,
    )
    notes = "".join(f"\\par\\smallskip\\raggedright\\footnotesize {_escape(note)}\n" for note in table.notes if last)
    again = "" if first else "\\addtocounter{table}{-1}\n"
    # what is too wide all the same stands out on both sides, not on one
    begin, end = f"{size}\\makebox[\\linewidth]{{%\n\\begin{{tabular}}", "\\end{tabular}}\n"
    text = str(text).replace("\\centering\n", f"\\centering\n{SKIPS}{again}", 1)
    text = text.replace("\\begin{tabular}", begin, 1).replace("\\end{tabular}\n", end)
    return text.replace(f"\\end{{{kind}}}", f"{notes}\\end{{{kind}}}")


def _with_texts(heights: list[float], table: Table) -> list[float]:
    """The rows' heights, of the first with the caption and of the last with the notes: a line has 65 letters, of notes 80."""
    above = 12.0 * math.ceil(len(table.caption) / 65)
    below = sum(9.5 * math.ceil(len(note) / 80) + 3 for note in table.notes)
    ends = {0: above} | {len(heights) - 1: below + above * (len(heights) == 1)}
    return [height + ends.get(i, 0.0) for i, height in enumerate(heights)]


def _parts(heights: Sequence[float], room: float) -> list[range]:
    """Rows for each page: as few pages as there can be, about equally full."""
    pages = max(1, math.ceil(sum(heights) / room))
    starts, used = [0], 0.0
    for i, height in enumerate(heights):
        if used and (used + height > room or used >= sum(heights) / pages):
            starts.append(i)
            used = 0.0
        used += height
    return [range(*pair) for pair in pairwise([*starts, len(heights)])]


def _escape(text: Any) -> str:
    """Behind a row's end a bracket would begin its distance from the next row, and a star forbid a page's end."""
    plain = str(text).translate(LATEX)
    return f"{{}}{plain}" if plain.startswith(("[", "*")) else plain


def _fitted(columns: list[list[str]], room: int) -> list[list[list[str]]]:
    """Every text as lines, so that all columns together are at most ``room`` letters wide, if that can be had.

    Names of schedules, intervals and reasons of failures would push a table off the page. The widest column is narrowed
    first, letter by letter.
    """
    lines = [[_broken(text, LONGEST) for text in column] for column in columns]
    widths = [max(_width(text) for text in column) for column in columns]
    limits = list(widths)
    while sum(widths) > room and max(limits) > NARROWEST:
        i = max((i for i in range(len(columns)) if limits[i] > NARROWEST), key=lambda i: widths[i])
        limits[i] = min(limits[i], widths[i]) - 1
        lines[i] = [_broken(text, max(limits[i], NARROWEST)) for text in columns[i]]
        widths[i] = max(_width(line) for text in lines[i] for line in text)
    return lines


def _broken(text: str, limit: int) -> list[str]:
    # a number and its deviation, or the two ends of an interval, stay on one line
    tied = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", TIE), text.replace(" ± ", f"{TIE}±{TIE}"))
    parts = re.split(r" ?(?=\()|(?<=;) ", tied) if _width(text) > limit else [tied]
    return [line for part in parts for line in textwrap.wrap(part, limit, break_long_words=False)] or [""]


def _width(text: str) -> int:
    """In letters: signs of mathematics are wider than a digit."""
    return len(text) + sum(text.count(sign) for sign in "±−×+") // 2


def _stacked(lines: list[str], base: str, side: str) -> str:
    if len(lines) == 1:
        return _escape(lines[0])
    return f"\\begin{{tabular}}[{base}]{{@{{}}{side}@{{}}}}" + r" \\ ".join(map(_escape, lines)) + "\\end{tabular}"
