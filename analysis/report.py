"""The report of experiments: one HTML file that holds all it shows, fetches nothing, and is the same on every build.

Whoever a text comes from, the template escapes it. The page's own style and script are named by their digests in a content
security policy: nothing else applies or runs, and nothing is fetched.
"""

import base64
import hashlib
import math
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis import captions, diagnostics_table, ensembles, expenses, findings, robustness_tables, table1, tables
from analysis.accuracy_table import accuracy
from analysis.comparisons import Comparisons
from analysis.differences_table import differences
from analysis.expenses import Expense
from analysis.fields import legend, text_of
from analysis.formats import Table, html
from analysis.illustrations import illustrate
from analysis.origins import origins
from analysis.roster import FINISHED, WAITING, roster
from analysis.runs import Runs
from analysis.sentences import percent
from capsnet import terminal
from capsnet.errors import brief
from experiments import stores
from experiments.client import FAULTS
from experiments.overview import duration

NAME = "report.html"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Asked:
    """A grid: its name and experiment, what it is to answer, paragraph by paragraph, and its YAML."""

    name: str
    experiment: str
    paragraphs: Sequence[str]
    text: str


def write(
    found: Runs,
    comparisons: Comparisons,
    figures: Sequence[Path],
    folder: Path,
    where: Sequence[str] = (),
    undrawn: Sequence[str] = (),
) -> Path:
    """Write the report.

    Args:
        found: the runs; their stores are asked for power, and the seconds of what didn't finish.
        comparisons: of their cells.
        figures: what is to be shown; files that are no PNG or GIF are passed over.
        folder: where it goes.
        where: what the runs were chosen by, in the words of the command line.
        undrawn: figures that could not be drawn, with why.

    Raises:
        OSError: nothing can be written to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    # YAML and databases may hold halves of surrogate pairs, for which UTF-8 has no bytes
    path.write_bytes(render(found, comparisons, figures, where, undrawn).encode("utf-8", "replace"))
    return path


def log(found: Runs, path: Path) -> list[str]:
    """Keep the report as ``report/report.html`` of each grid's parent run; say where that failed, and why."""
    faults = []
    with TemporaryDirectory() as folder:  # with nothing else in it, because a folder is kept whole
        shutil.copy(path, Path(folder) / NAME)
        for name, store in found.stores.items():
            try:
                if not store.answers():
                    raise ConnectionError(f"{store.shown} does not answer")
                for run_id, _ in store.parents():
                    store.attach(run_id, Path(folder), "report")
            except FAULTS as error:
                faults.append(f"the report is not kept with the runs of {name}: {stores.shown(brief(error))}")
    return faults


def render(
    found: Runs,
    comparisons: Comparisons,
    figures: Sequence[Path] = (),
    where: Sequence[str] = (),
    undrawn: Sequence[str] = (),
) -> str:
    """The report as a page."""
    style, script = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    illustrations, unread = illustrate(figures)
    spent, unknown = expenses.of_runs(comparisons.cells, found.stores)
    total = sum(spent.values(), Expense())
    lines = roster(found, comparisons.cells, spent)
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["tied"] = _tied
    return environment.get_template(
        "report.html.j2"
    ).render(
        policy=_policy(style, script),
        style=Markup(style),  # ours, like the script: no user's text is in them
        script=Markup(script),
        title=" + ".join(found.stores),
        findings=findings.find(comparisons),
        method=findings.METHOD if comparisons.reference else "",
        legend=legend(comparisons.cells[0].setting),
        facts=_facts(found, comparisons, total),
        asked=asked_of(found),
        where=where,
        tables=_tables(found, comparisons, spent),
        illustrations=illustrations,
        unvalidated=_unvalidated(found),
        lines=lines,
        failed=[line for line in lines if line.outcome not in (FINISHED, WAITING)],
        waiting=[line for line in lines if line.outcome == WAITING],
        faults=[
            *comparisons.faults,
            *comparisons.doubts,
            *unread,
            *unknown,
            *(f"not drawn: {reason}" for reason in undrawn),
        ],
        cost=expenses.lines_of(total),
        origins=origins(found),
        local=[stores.browsing(store.uri) for store in found.stores.values() if not stores.is_server(store.uri)][:1],
        again=_again(found, comparisons, where),
    )


def _tied(text: str) -> str:
    """With no line's end between a sign and its number, nor within an interval."""
    whole = r"\[[^\[\]]{,30}\]| ± | [=<] (?=[\d−+])| (?=[%=])"
    return re.sub(whole, lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _policy(style: str, script: str) -> str:
    """Nothing is fetched, and what is in the page counts only if it is ours."""
    own = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{own[0]}'; script-src 'sha256-{own[1]}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _facts(found: Runs, comparisons: Comparisons, total: Expense) -> list[tuple[str, str]]:
    """What one wants to know first: (what, how much)."""
    finished = [cell for cell in comparisons.cells if cell.error.n]
    cells, seeds = len(comparisons.cells), found.runs["seed"].nunique()
    return [
        ("configuration" + "s" * (cells > 1), f"{cells:,}"),
        ("runs finished", f"{sum(cell.error.n for cell in finished):,} of {len(found.runs):,}"),
        ("seed" + "s" * (seeds > 1), f"{seeds:,}"),
        *_lowest(comparisons),
        ("of training", "—" if math.isnan(total.seconds) else duration(total.seconds)),
    ]


def _unvalidated(found: Runs) -> list[str]:
    """Data sets without validation images in any run that could be the best, as :func:`analysis.trained.best_run` has it."""
    able = found.runs[(found.runs["status"] == "finished") & (found.runs["reconstruction_weight"] > 0)]
    return [str(name) for name, part in able.groupby("dataset") if part["validation_error"].isna().all()]


def _lowest(comparisons: Comparisons) -> list[tuple[str, str]]:
    """The lowest mean test error on each data set."""
    said = []
    for name, part in comparisons.by_dataset.items():
        best = min((cell for cell in part.cells if cell.error.n), key=lambda cell: cell.error.mean, default=None)
        what = "lowest mean test error" if len(part.cells) > 1 else "test error"
        of = f" on {name}" if len(comparisons.by_dataset) > 1 else ""
        said.append((what + of, percent(best).partition(" (")[0] if best else "—"))
    return said


def asked_of(found: Runs) -> list[Asked]:
    """The grids of all experiments."""
    return [
        Asked(grid.name, name, [part for part in re.split(r"\n\s*\n", grid.description) if part.strip()], grid.text.strip())
        for name, grids in found.grids.items()
        for grid in grids
    ]


def _tables(found: Runs, comparisons: Comparisons, spent: Mapping[str, Expense]) -> dict[str, Markup]:
    """Those that there are, without the footer, which would stand below each of them."""
    made: dict[str, Table | None] = {
        "accuracy": accuracy(comparisons, found.runs),
        "table1": table1.paper_form(comparisons, found.runs),
        "differences": differences(comparisons, found.runs),
        "cells": tables.ablation(comparisons, found.runs),
        "other_r": tables.other_r(comparisons, found.runs),
        "ensembles": ensembles.table(comparisons, found.runs),
        "diagnostics": diagnostics_table.table(comparisons, found.runs),
        "robustness": robustness_tables.errors(comparisons, found.runs),
        "robustness_levels": robustness_tables.levels(comparisons, found.runs),
        "robustness_differences": robustness_tables.differences(comparisons, found.runs),
        "effects": tables.effects(comparisons, found.runs),
        "cost": expenses.table(comparisons.cells, spent),
    }
    footer = captions.footer(found.runs)
    shown = {
        name: replace(
            table,
            rows=[[_tied(text) for text in row] for row in table.rows],
            notes=[note for note in table.notes if note != footer],
        )
        for name, table in made.items()
        if table
    }
    return {name: Markup(html(table)) for name, table in shown.items()}  # escaped when it was made


def _again(found: Runs, comparisons: Comparisons, where: Sequence[str]) -> str:
    """The command that makes the report."""
    names: list[Any] = list(found.stores)
    asked = [cell.setting for cell, why in comparisons.references.values() if why == "as asked for"]
    # of several, what they have in common names them
    reference = {axis: value for axis, value in asked[0].items() if all(each[axis] == value for each in asked)} if asked else {}
    if len(names) == 1 and not where and not reference and terminal.has_make():
        return f"make report EXPERIMENT={shlex.quote(names[0])}"
    words = [*names, "--only", "report", *(word for each in where for word in ("--where", each))]
    if reference:
        words += ["--reference", " ".join(f"{axis}={text_of(value)}" for axis, value in reference.items())]
    start = terminal.called("python -m analysis")
    return f"{'.venv/bin/' if terminal.has_make() else ''}{start} {shlex.join(words)}"
