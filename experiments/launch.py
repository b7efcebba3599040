"""A launch: what is not settled yet of a grid goes through the one loop, next config -> submit -> record the outcome."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from capsnet.cli import console
from capsnet.config import RunConfig
from capsnet.errors import InputError
from experiments.known import Known, by_config, is_settled, state
from experiments.progress import Lines, display
from experiments.sources import Grid
from experiments.tracking import REASON, Store
from experiments.worker import Job, Outcome, Place, Report, run

Work = Callable[[Job, Place, Report], Outcome]


@dataclass
class Summary:
    """What is known of a grid when a launch ends."""

    planned: int
    before: int  # runs that were settled before
    finished: int = 0
    failed: list[str] = field(default_factory=list)  # one line each, also of runs that failed before and are not retried


@contextmanager
def only_launch(store: Store, folder: Path) -> Iterator[None]:
    """Hold the experiment's lock, which the system takes from a process that dies, however it dies.

    Raises:
        InputError: another process on this file system is launching the experiment.
    """
    path = folder / "locks" / f"{store.experiment_id}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, blocking=False):
            yield
    except Timeout:
        raise InputError(
            f"another launch of experiment {store.name!r} is going on (it holds {path}); wait for its end, or choose "
            "another experiment with EXPERIMENT="
        ) from None


def run_grid(grid: Grid, store: Store, place: Place, executor: Executor, *, slots: int, retry_failed: bool) -> Summary:
    """Run what is not settled of a grid, under its parent run, which ends as FINISHED, FAILED or KILLED.

    Args:
        grid: what to run.
        store: the experiment's.
        place: where; its parent is filled in here.
        executor: how the work is done, ``slots`` runs at once.
        slots: see executor.
        retry_failed: train configs that diverged again, too.

    Raises:
        KeyboardInterrupt: Ctrl-C, with what is known by then and how to go on.
    """
    known, _ = by_config(store.runs())
    configs = list(grid.configs)
    todo = [_job(cell, config, known) for cell, config in configs if _is_due(known, config, retry_failed)]
    summary = Summary(planned=len(configs), before=len(configs) - len(todo))
    for cell, config in configs:
        if state(known.get(config)) == "diverged" and not retry_failed:
            reason = known[config].tags.get(REASON, "")
            line = f"{Job(cell, config).name}: {reason} (run {known[config].run_id}, before; --retry-failed trains it again)"
            summary.failed.append(line)
    place = replace(place, parent=store.parent(grid.name, grid.text, grid.description))
    console.print(f"{len(configs)} runs, {summary.before} of them settled already; experiment {store.name} in {store.uri}")
    status = "KILLED"
    try:
        with display(len(configs), summary.before) as shown:
            for job, outcome in launch(todo, run, place, executor, slots, shown):
                summary.finished += not outcome.failure
                if outcome.failure:
                    summary.failed.append(f"{job.name}: {outcome.reason} (run {outcome.run_id})")
        status = "FAILED" if summary.failed else "FINISHED"
    except KeyboardInterrupt:
        settled = summary.before + summary.finished
        raise KeyboardInterrupt(f"{settled} of {len(configs)} runs are settled; the same command goes on from there") from None
    finally:
        store.end(place.parent, status)
    return summary


def launch(
    todo: Iterable[Job], work: Work, place: Place, executor: Executor, slots: int, shown: Lines
) -> Iterator[tuple[Job, Outcome]]:
    """Keep ``slots`` runs going until there are no more, and yield each when it ends, in the order in which they end."""
    running: dict[Future[Outcome], Job] = {}

    def ended() -> Iterator[tuple[Job, Outcome]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, outcome = running.pop(future), future.result()
            shown.end(job.name, outcome)
            yield job, outcome

    for job in todo:
        running[executor.submit(work, job, place, shown.begin(job.name, job.config.epochs))] = job
        if len(running) >= slots:
            yield from ended()
    while running:
        yield from ended()


def _is_due(known: Known, config: RunConfig, retry_failed: bool) -> bool:
    found = known.get(config)
    return not is_settled(found) or (retry_failed and state(found) != "finished")


def _job(cell: str, config: RunConfig, known: Known) -> Job:
    """A run that stopped before its end goes on; one that diverged can only be begun anew."""
    found = known.get(config)
    return Job(cell, config, found.run_id if found and not is_settled(found) else "")
