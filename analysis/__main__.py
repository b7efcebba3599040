"""``python -m analysis``: the tables and plots of an experiment."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from analysis import figures_command
from capsnet import cli
from capsnet.errors import InputError
from experiments import stores

DESCRIPTION = """Make the tables, plots, figures and the report of experiments from their tracked runs.

Example: python -m analysis quick --where routing_iterations=3
Of one run, from its weights: python -m analysis figures RUN_ID"""


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
        tyro.conf.arg(metavar="COLUMN=VALUE", help="only these runs; again for another column, or another value of it"),
    ] = ()
    reference: Annotated[
        str,
        tyro.conf.arg(
            metavar="CELL",
            help="compare to this cell: 'routing_iterations=1 reconstruction_weight=0'",
            help_behavior_hint="(default: the paper's)",
        ),
    ] = ""
    only: Annotated[Literal["tables", "plots", "report", "all"], tyro.conf.arg(help="what to make")] = "all"
    mlruns: Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")] = Path("mlruns")
    results: Annotated[Path, tyro.conf.arg(metavar="DIR", help="all goes to its subfolder EXPERIMENT")] = Path("results")


def main() -> int:
    """Read the runs, write the files, print the table and say where the rest is."""
    if sys.argv[1:2] == ["figures"]:
        return figures_command.main(
            cli.parse(figures_command.Figures, figures_command.PROG, figures_command.DESCRIPTION, sys.argv[2:])
        )
    command: Command = cli.parse(Command, "python -m analysis", DESCRIPTION)
    from analysis import plots, report, tables
    from analysis.runs import UnconfirmedError, read_runs

    try:
        found = read_runs(command.experiments, command.mlruns, command.where)
    except UnconfirmedError as error:
        cli.console.print(cli.escaped(error))
        return 0
    for run_id, reason in found.strangers.items():
        cli.errors.print(f"[yellow]left out:[/] run {run_id}: {cli.escaped(reason)}")
    if found.repeated:
        cli.errors.print(f"[yellow]left out:[/] {found.repeated} finished runs of configs for which an earlier one speaks")
    comparisons = tables.judged(found.runs, found.stores, reference=command.reference)
    for fault in comparisons.faults:
        cli.errors.print(f"[yellow]missing:[/] {cli.escaped(fault)}")
    folder = command.results / folder_name(found.experiment)
    written: list[Path] = []
    try:
        if command.only in ("tables", "all"):
            written += tables.write(comparisons, found.runs, folder)
            cli.console.print("", cli.escaped((folder / "accuracy.md").read_text(encoding="utf-8")), sep="\n")
        if command.only == "plots" or (command.only == "all" and (found.runs["status"] == "finished").any()):
            written += [*plots.curves(found.runs, found.curves, folder), *plots.axes(found.runs, folder)]
        if command.only in ("report", "all"):
            figures = [*folder.rglob("*.png"), *folder.rglob("*.gif")]
            written.append(report.write(found, comparisons, figures, folder, command.where))
            for fault in report.log(found, written[-1]):
                cli.errors.print(f"[yellow]missing:[/] {cli.escaped(fault)}")
    except OSError as error:
        raise InputError(f"the results can't be written to {folder}: {error}; --results names another folder") from None
    cli.console.print(f"In {folder}: {', '.join(path.name for path in written)}")
    server = stores.shown(os.environ.get("MLFLOW_TRACKING_URI", ""))
    start, address = ("", server.rstrip("/")) if server.startswith("http") else ("make ui, then ", "http://127.0.0.1:5000")
    for store in found.stores.values():
        runs = f"#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
        cli.console.print(f"To browse the runs: {start}{address}/{runs}")
    return 0


def folder_name(experiment: str) -> str:
    """The experiment's name as that of a folder: what could lead out of the results, or nowhere, becomes an underscore."""
    return re.sub(r"[^\w.+=-]|^\.+", "_", experiment)


if __name__ == "__main__":
    cli.finish(main)
