"""``python -m analysis``: tables, plots, figures and the report of experiments."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import tyro

from analysis import duel, figures_command
from analysis.faults import UNEXPECTED, unexpected
from analysis.places import folder_name
from capsnet import cli, terminal
from capsnet.errors import InputError
from experiments import stores

if TYPE_CHECKING:  # both take seconds
    from analysis.comparisons import Comparisons
    from analysis.runs import Runs

DESCRIPTION = """Make the tables, plots, figures and the report of experiments from their tracked runs.

Example: python -m analysis quick --where routing_iterations=3

Of one run, from its weights: python -m analysis figures RUN_ID

Of two runs, image by image: python -m analysis compare RUN_ID OTHER_ID"""


@dataclass(frozen=True)
class Command:
    """The flags of ``python -m analysis``."""

    experiments: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="EXPERIMENT",
            help="MLflow experiments, in one table; a config that several have counts once",
            help_behavior_hint="(default: the one launched last)",
        ),
    ] = ()
    where: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(
            metavar="COLUMN=VALUE",
            help="only these runs; again for another column, or another value of it; with numbers '<', '<=', '>', '>=', too, "
            "and '!='",
        ),
    ] = ()
    reference: Annotated[
        str,
        tyro.conf.arg(
            metavar="CELL",
            help="compare to this cell: 'routing_iterations=1 reconstruction_weight=0'",
            help_behavior_hint="(default: the one with the paper's values)",
        ),
    ] = ""
    only: Annotated[Literal["tables", "plots", "report", "all"], tyro.conf.arg(help="what to make")] = "all"
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    mlruns: Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")] = Path("mlruns")
    results: Annotated[Path, tyro.conf.arg(metavar="DIR", help="all goes to its subfolder EXPERIMENT")] = Path("results")


def main() -> int:
    """Read the runs, write the files, print the table and say where the rest is; the exit code."""
    match sys.argv[1:2]:
        case ["figures"]:
            arguments = figures_command.Figures, figures_command.PROG, figures_command.DESCRIPTION, sys.argv[2:]
            return figures_command.main(cli.parse(*arguments))
        case ["compare"]:
            return duel.main(cli.parse(duel.Compare, duel.PROG, duel.DESCRIPTION, sys.argv[2:]))
    command: Command = cli.parse(Command, "python -m analysis", DESCRIPTION)
    from analysis import tables
    from analysis.runs import UnconfirmedError, read_runs

    try:
        found = read_runs(command.experiments, command.mlruns, command.where)
    except UnconfirmedError as error:
        terminal.say(error)
        return 0
    _told(found)
    comparisons = tables.judged(found.runs, found.stores, reference=command.reference)
    for fault in (*comparisons.faults, *comparisons.doubts):
        terminal.warn("missing", fault)
    # what is chosen by a filter, or compared to another cell, is not the experiment's own result, and must not take its place
    folder = command.results / folder_name(*found.stores, where=command.where, reference=command.reference)
    found.runs.attrs["reference"] = command.reference
    written: list[Path] = []
    undrawn: list[str] = []
    try:
        if command.only in ("tables", "all"):
            written += tables.write(comparisons, found.runs, folder)
            terminal.say("", (folder / "accuracy.md").read_text(encoding="utf-8"))
        if command.only != "tables":
            drawn, undrawn = _drawn(found, comparisons, command, folder)
            written += drawn
            if command.only != "plots":
                written.append(_reported(found, comparisons, command, folder, written, undrawn))
    except OSError as error:
        raise InputError(f"the results can't be written to {folder}: {error}; --results names another folder") from None
    _told_where(found, folder, written)
    return int(any(UNEXPECTED in reason for reason in undrawn))


def _told(found: "Runs") -> None:
    """Say which runs are not in the tables, and which are there that no grid asks for."""
    from analysis.sentences import count

    for told in found.left_out:
        terminal.warn("left out", told)
    if found.repeated:
        terminal.warn("left out", f"{found.repeated} finished runs of configs for which an earlier one speaks")
    if found.unplanned:
        which = f"{count(found.unplanned, 'run')} of configs that no grid here has any more, as from before an edit"
        terminal.warn(
            "beside the grid",
            f"{which}; --where in_grid=true leaves them out, "
            "and another experiment (--experiment, or EXPERIMENT= of make) begins anew",
        )


def _told_where(found: "Runs", folder: Path, written: Sequence[Path]) -> None:
    """Say which files there are, and how to browse the runs."""
    from analysis import browse
    from analysis.origins import user_interface

    stems = dict.fromkeys(str(path.relative_to(folder).with_suffix("")) for path in written if path.name != "report.html")
    report = ["report.html (all of it on one page)"] if folder / "report.html" in written else []
    terminal.say(f"In {folder}: {', '.join([*report, *stems])}")
    for store in found.stores.values():
        start = "" if stores.is_server(store.uri) else f"{stores.browsing(store.uri)}, then "
        page = f"{user_interface(store)}/{browse.address(store.experiment_id)}"
        terminal.say(f"To browse the runs: {start}{page}")


def _drawn(found: "Runs", comparisons: "Comparisons", command: Command, folder: Path) -> tuple[list[Path], list[str]]:
    """Plots of metrics and mistakes, figures of searches, pictures of the best run; and what is left out, which is told."""
    import torch

    from analysis import mistakes, plots, pooled
    from analysis.trained import best_runs
    from capsnet.data import default_folder, read

    paths, skipped = plots.write(comparisons, found.runs, found.curves, folder)
    data, images = command.data or default_folder(), {}
    for name, (config, digests) in pooled.tested(comparisons).items():
        try:
            held = read(config, data, torch.device("cpu"))
        except InputError as fault:
            skipped.append(f"the pixels of mistaken images: {fault}")
            continue
        if digests <= {held.digest}:
            images[name] = held.test.images.numpy()
        else:
            skipped.append(f"the pixels of mistaken images: the files of {name} in {data} are not those of the runs")
    more, left = mistakes.write(comparisons, images, folder)
    paths, skipped = [*paths, *more], [*skipped, *left]
    for store in found.stores.values():
        try:
            paths += store.search_figures(folder)
        except InputError as fault:
            skipped.append(f"the figures of a search: {fault}")
    for run_id in best_runs(found.runs).values() if command.only != "plots" else ():
        try:
            paths += figures_command.make(run_id, command.mlruns, data, folder)
        except InputError as fault:
            skipped.append(f"the figures of the best run: {fault}")
        except Exception as error:
            skipped.append(f"the figures of the best run: {unexpected(error)}")
    for reason in skipped:
        terminal.warn("not drawn", reason)
    return paths, skipped


def _reported(
    found: "Runs",
    comparisons: "Comparisons",
    command: Command,
    folder: Path,
    written: Sequence[Path],
    undrawn: Sequence[str],
) -> Path:
    """The report, with what was drawn now and the pictures of runs that were asked for before."""
    from analysis import browse, report
    from analysis.accuracy_table import accuracy
    from analysis.formats import markdown

    known = {str(run_id)[: figures_command.SHORT] for run_id in found.runs["run_id"].dropna()}
    before = [path for path in sorted((folder / "figures").glob("*/*")) if path.parent.name in known and path not in written]
    path = report.write(found, comparisons, [*written, *before], folder, command.where, undrawn)
    if command.where or command.reference or len(found.stores) > 1:
        terminal.say("MLflow keeps the report of a whole experiment against its usual reference only, so not this one")
        return path
    table = markdown(accuracy(comparisons, found.runs))
    for fault in [*report.log(found, path), *browse.log(found, report.asked_of(found), table)]:
        terminal.warn("missing", fault)
    return path


def script() -> NoReturn:
    """The command that an installed wheel has."""
    terminal.finish(main)


if __name__ == "__main__":
    script()
