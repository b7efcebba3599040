"""``python -m experiments``: plan a grid, run what is not finished of it, search, test again, or tell MLflow what it missed."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from capsnet import cli, interrupts, terminal, test_sets
from capsnet.config import RunConfig
from capsnet.errors import InputError
from capsnet.execution import Execution
from capsnet.registry import TEST_SETS
from capsnet.remarks import remarks
from experiments import stores
from experiments.executors import Engine, choose, is_here
from experiments.flags import Launch, Plan, Run, Search, Sync, Test
from experiments.locks import ALL, Launchers, Shard
from experiments.progress import tell_failed, tell_untold
from experiments.record import CELL
from experiments.search_yaml import read_search
from experiments.sources import read_grid

if TYPE_CHECKING:  # torch and mlflow take seconds
    from experiments.jobs import Place

DESCRIPTION = """Run grids and searches of capsule networks and keep what is known of them in MLflow."""


COMMANDS = Plan | Run | Search | Sync | Test


def main() -> int:
    """Parse the command line and do what it says."""
    command: Any = cli.parse(COMMANDS, "python -m experiments", DESCRIPTION, switches=True)
    does: dict[type, Callable[[Any], int]] = {Plan: plan, Run: run, Search: search, Sync: sync, Test: test}
    return does[type(command)](command)


def plan(command: Plan) -> int:
    """Print the cells with what is known of their runs."""
    if command.workers < 0:
        raise InputError(f"--workers must be 0 or more, not {command.workers}")
    grid = read_grid(command.grid)
    terminal.note([*remarks(config for _, config in grid.configs), *grid.remarks])
    from experiments import catalog
    from experiments.journal import look
    from experiments.known import by_config
    from experiments.overview import show
    from experiments.plan import plan_grid
    from experiments.provenance import code, git_commit
    from experiments.tracking import Store

    name = command.experiment or grid.name
    store = Store.open(name, command.mlruns, create=False)
    known = by_config(store.runs()) if store else {}
    checkpoints = command.mlruns / "checkpoints" / store.key if store else command.mlruns
    planned = plan_grid(
        grid,
        known,
        lambda config: look(checkpoints, config),
        git_commit(),
        command.workers,
        elsewhere=lambda: by_config(catalog.runs_beside(name, command.mlruns)),
        digest=code(),
    )
    if grid.description:
        terminal.say(grid.description, "")
    show(planned, f"{grid.name} in experiment {name}")
    return 0


def run(command: Run) -> int:
    """Launch a grid; 0 if all of it is finished, 1 if something of it failed."""
    interrupts.install()
    shard, uri = Shard.parse(command.shard), stores.uri(command.mlruns)
    grid = read_grid(command.grid or _default("grid", "paper", (8, 0)))
    terminal.note([*remarks(config for _, config in grid.configs), *grid.remarks])
    if command.shard and stores.filesystem(stores.home(uri, command.mlruns)) in stores.NETWORK:
        stores.refuse_alone(uri, f"--shard {shard} shares it over a network file system, where SQLite loses data")
    with _engine(command, len(shard.of(list(grid.configs))), uri) as engine:
        from experiments.gridding import Wish, run_grid

        configs = [config for _, config in grid.configs]
        with _launchers(command, command.experiment or grid.name, grid.name, shard, configs, engine) as (launchers, place):
            summary = run_grid(grid, launchers, place, engine, Wish(shard, command.retry_failed, command.fresh))
    finished = summary.planned - len(summary.failed)
    terminal.say(
        f"{summary.planned} runs on {engine.device}: {finished} finished, {summary.finished} of them now; "
        f"{len(summary.failed)} failed"
    )
    return _told(summary.failed, summary.untold)


def search(command: Search) -> int:
    """Launch a search; 0 if all of its trials have ended and the best are confirmed, 1 otherwise."""
    interrupts.install()
    wanted = read_search(command.search or _default("search", "mnist"))
    terminal.note([*remarks(wanted.corners), *wanted.remarks])
    name, uri = command.experiment or f"{wanted.name}-search", stores.uri(command.mlruns)
    url = stores.studies(command.mlruns, command.storage)
    with _engine(command, (wanted.trials or 2**31) * wanted.seeds_per_trial, uri, url) as engine:
        from experiments.searching import run_search
        from experiments.study import Study

        with (
            _launchers(command, name, wanted.name, ALL, wanted.corners, engine) as (launchers, place),
            closing(Study.open(wanted, url, name, command.mlruns, place.store.key)) as study,
        ):
            found = run_search(wanted, study, launchers, place, engine)
    terminal.say("to look at the study in a browser:")
    terminal.say(f"  {Path(sys.executable).parent / 'optuna-dashboard'} {stores.shown(url)}")
    return _told(found.failed, found.untold)


@contextmanager
def _engine(command: Launch, runs: int, *stored: str) -> Iterator[Engine]:
    """The engine that the flags ask for, once it is clear that what it needs can be had."""
    if not command.checkpoint_every >= 0:  # which nan isn't, either
        raise InputError(f"--checkpoint-every must be a number of seconds, 0 or more, not {command.checkpoint_every:g}")
    if command.address and not is_here(command.address):
        for uri in stored:
            stores.refuse_alone(uri, f"--address {command.address} names a cluster")
    stores.writable(command.mlruns)
    with choose(command.workers, command.gpus_per_run, command.address, command.device, runs) as engine:
        if engine.spread:
            for uri in stored:
                stores.refuse_alone(uri, f"the cluster at {command.address} has several")
        yield engine


@contextmanager
def _launchers(
    command: Launch, experiment: str, name: str, shard: Shard, configs: Iterable[RunConfig], engine: Engine
) -> "Iterator[tuple[Launchers, Place]]":
    """The lock of the experiment or of a shard of it, held, and where its runs compute and are recorded."""
    from capsnet.data import default_folder
    from experiments.jobs import Place
    from experiments.tracking import Store

    execution = Execution(command.compile, command.graph)
    folder = (command.data or default_folder()).resolve()
    _require(list(configs), execution, engine, folder)  # before anything is recorded
    store = Store.open(experiment, command.mlruns, create=True)
    assert store is not None
    place = Place(
        store,
        command.mlruns.resolve() / "checkpoints" / store.key,
        name,
        "",
        folder,
        engine.device,
        command.checkpoint_every,
        threads=engine.threads,
        expendable=engine.replaces,
        execution=execution,
    )
    launchers = Launchers(command.mlruns, store.name, store.key)
    with launchers.only(shard, terminal.say if command.wait else None):
        yield launchers, place


def _require(configs: Sequence[RunConfig], execution: Execution, engine: Engine, folder: Path) -> None:
    """Raise an InputError if a precision, a way of taking steps or data can't be had, or MLflow would cut a value off."""
    import torch

    from capsnet import agreement_native, precision
    from capsnet.data import read
    from experiments.tracking import PARAM_LENGTH

    device = torch.device(engine.device)
    if engine.device == "cpu" or torch.cuda.is_available():  # else the cards are those of a cluster
        for config in configs:
            precision.require(config, device)
            execution.settle(config, device)
        terminal.note([*precision.remarks(configs, device), *agreement_native.remarks(configs, device)])
    _require_files(dict.fromkeys(name for config in configs for name in config.test_sets), folder)
    for config in {config.dataset: config for config in configs}.values():
        read(config, folder, torch.device("cpu"))
    _refuse_long(configs, PARAM_LENGTH)


def _require_files(names: Iterable[str], folder: Path) -> None:
    """Raise an InputError if a further test set's files can't be read."""
    import torch

    from capsnet import further

    for name in names:
        if name in TEST_SETS:
            further.read_test_set(name, folder, torch.device("cpu"))


def _refuse_long(configs: Iterable[RunConfig], length: int) -> None:
    """Raise an InputError if MLflow would cut a value off: its run would be of another config then."""
    for config in configs:
        for field, text in config.to_params().items():
            if len(text) > length:
                raise InputError(f"a value of {field} has {len(text)} characters, and MLflow keeps {length} of a parameter")


def _told(failed: Sequence[str], untold: Sequence[str]) -> int:
    """Name every failure, and what MLflow doesn't know; the exit code."""
    tell_failed(failed)
    tell_untold(untold)
    if untold:
        sync = terminal.called("python -m experiments sync")
        terminal.warn("nothing is lost", f"{sync} tells it, and so does the next launch")
    return 1 if failed or untold else 0


def test(command: Test) -> int:
    """Test finished networks on further test sets; 0 if each has its errors now, 1 if one could not be tested."""
    interrupts.install()
    if not command.test_sets:
        raise InputError(f"--test-sets names none; choices: {test_sets.listed()}")
    names = test_sets.in_order(command.test_sets)
    try:
        for name in names:
            test_sets.require(name)
    except ValueError as error:
        raise InputError(f"{error} (in --test-sets)") from None
    from capsnet.data import default_folder
    from capsnet.training import choose_device
    from experiments import catalog
    from experiments.retest import finished, lacking, retest

    device, folder = choose_device(command.device), (command.data or default_folder()).resolve()
    store = catalog.opened(command.experiment, command.mlruns)
    known = finished(store, names)
    _require_files(names, folder)
    wanted, failed = lacking(known, names), []
    for number, made in enumerate(retest(store, wanted, folder, device), start=1):
        whose = f"{made.run.tags.get(CELL) or made.run.run_id} seed={made.config.seed}"
        if made.fault:
            failed.append(f"{whose}: {made.fault}")
        else:
            errors = ", ".join(f"{name} {error:.2f} %" for name, error in made.errors.items())
            terminal.say(f"{number}/{len(wanted)} {whose}: {errors}")
        interrupts.check()
    tested = len(wanted) - len(failed)
    terminal.say(f"{len(known)} finished runs: {tested} tested now, {len(known) - len(wanted)} before; {len(failed)} failed")
    terminal.say(f"{terminal.called(f'python -m analysis {command.experiment}')} makes the tables again")
    tell_failed(failed)
    return 1 if failed else 0


def sync(command: Sync) -> int:
    """Bring all experiments of the tracking store up to date; 0 if nothing is left to tell."""
    from experiments import catalog
    from experiments.gridding import end_parents
    from experiments.sync import sync as push

    if not command.mlruns.is_dir():
        raise InputError(f"there is no folder {command.mlruns.resolve()}; --mlruns names the one that was launched with")
    checkpoints, left = command.mlruns / "checkpoints", 0
    folders = {folder.name: folder for folder in checkpoints.glob("*") if folder.is_dir()}
    for store in catalog.stores_in(command.mlruns):
        if folder := folders.pop(store.key, None):
            found = push(store, folder)
            untold = found.faults + found.unreadable + end_parents(store, Launchers(command.mlruns, store.name, store.key))
            left += len(untold)
            busy = f"; {found.busy} are being trained, and tell it themselves" if found.busy else ""
            terminal.say(f"{store.name}: {found.told} runs that MLflow didn't know the latest of{busy}")
            tell_untold(untold)
    for folder in folders.values():
        left += 1
        terminal.warn("left alone", f"{folder} is of an experiment that this tracking store doesn't hold")
    terminal.say("MLflow is up to date" if not left else "MLflow is not up to date")
    return 1 if left else 0


def _default(what: str, with_cuda: str, capability: tuple[int, int] = (0, 0)) -> str:
    """What a CUDA device of this compute capability gets, and else quick; which, and why, is told."""
    import torch

    names = f"{what.upper()}= names another" if terminal.has_make() else "name another as its argument"
    why = "there is no CUDA device"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.get_device_capability() >= capability:
            terminal.say(f"{what} {with_cuda}, because there is a CUDA device ({name}); {names}")
            return with_cuda
        why = f"{name} has no bfloat16, in which {with_cuda} trains"
    terminal.say(f"{what} quick, because {why}: small networks on embedded digits; {names}")
    return "quick"


def script() -> NoReturn:
    """The command that an installed wheel has."""
    terminal.finish(main)


if __name__ == "__main__":
    script()
