"""``python -m experiments``: plan a grid, or run what is not finished of it."""

import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from capsnet import cli
from experiments.executors import choose
from experiments.sources import read_grid

DESCRIPTION = """Run grids of capsule networks and keep what is known of them in MLflow."""

GridName = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="GRID", help="a shipped grid (quick, mnist-small, paper) or a .yaml file")
]
Experiment = Annotated[
    str, tyro.conf.arg(metavar="NAME", help="MLflow experiment", help_behavior_hint="(default: the grid's name)")
]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")]


@dataclass(frozen=True)
class Plan:
    """List the cells of a grid and what is finished of them; starts nothing.

    Example: python -m experiments plan paper
    """

    grid: GridName
    experiment: Experiment = ""
    mlruns: Folder = Path("mlruns")


@dataclass(frozen=True)
class Run:
    """Train every config of a grid that is not finished yet.

    Example: python -m experiments run quick. Without a grid: paper on a CUDA device, quick without one.
    """

    grid: GridName = ""
    experiment: Experiment = ""
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    device: Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")] = "auto"
    workers: Annotated[int, tyro.conf.arg(help="processes that train; 0 = in this one, run after run")] = 0
    checkpoint_every: Annotated[
        float, tyro.conf.arg(help="seconds from one checkpoint of a run to the next, at the end of an epoch; 0 = every epoch")
    ] = 60.0
    retry_failed: Annotated[bool, tyro.conf.arg(help="train configs that diverged again")] = False
    mlruns: Folder = Path("mlruns")


def main() -> int:
    """Parse the command line and do what it says."""
    command = cli.parse(Plan | Run, "python -m experiments", DESCRIPTION)
    return plan(command) if isinstance(command, Plan) else run(command)


def plan(command: Plan) -> int:
    """Print the cells with what is known of their runs."""
    grid = read_grid(command.grid)
    from experiments.known import by_config, state
    from experiments.tracking import Store

    name = command.experiment or grid.name
    store = Store.open(name, command.mlruns, create=False)
    known = by_config(store.runs())[0] if store else {}
    table = Table("cell", "runs", "finished", "rest", title=f"{grid.name} in experiment {name}", title_justify="left")
    total: Counter[str] = Counter()
    for cell in grid.cells:
        states = Counter(state(known.get(config)) for config in cell.configs)
        total += states
        rest = ", ".join(f"{count} {word}" for word, count in sorted(states.items()) if word != "finished")
        table.add_row(cell.label, str(len(cell.configs)), str(states["finished"]), rest)
    if grid.description:
        cli.console.print(grid.description, "", sep="\n")
    cli.console.print(table)
    cli.console.print(f"{len(grid.cells)} cells, {total.total()} runs, {total['finished']} finished")
    return 0


def run(command: Run) -> int:
    """Launch a grid; 0 if all of it is finished, 1 if something of it failed."""
    executor = choose(command.workers)
    grid = read_grid(command.grid or _default_grid())
    from capsnet.data import default_folder, read
    from capsnet.training import choose_device

    device, folder = choose_device(command.device), command.data or default_folder()
    for config in {config.dataset: config for _, config in grid.configs}.values():
        read(config, folder, device)  # a data set that can't be read is found out before anything is recorded

    from experiments.launch import only_launch, run_grid
    from experiments.tracking import Store
    from experiments.worker import Place

    name = command.experiment or grid.name
    store = Store.open(name, command.mlruns, create=True)
    assert store is not None
    place = Place(name, command.mlruns, grid.name, "", folder, str(device), command.checkpoint_every)
    # job schedulers end a job so: as Ctrl-C does, but also where Ctrl-C is ignored, as in a shell's background jobs
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with only_launch(store, command.mlruns):
        summary = run_grid(grid, store, place, executor, slots=1, retry_failed=command.retry_failed)
    finished = summary.planned - len(summary.failed)
    cli.console.print(
        f"{summary.planned} runs on {device}: {finished} finished, {summary.finished} of them now; {len(summary.failed)} failed"
    )
    for line in summary.failed:
        cli.errors.print(f"[bold red]failed:[/] {cli.escaped(line)}")
    return 1 if summary.failed else 0


def _default_grid() -> str:
    import torch

    if torch.cuda.is_available():
        cli.console.print(f"grid paper, because there is a CUDA device ({torch.cuda.get_device_name()}); GRID= names another")
        return "paper"
    cli.console.print("grid quick, because there is no CUDA device: small networks on embedded digits; GRID= names another")
    return "quick"


if __name__ == "__main__":
    cli.finish(main)
