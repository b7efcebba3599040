"""A launch: what is not settled yet of a grid goes through the one loop, next config -> submit -> record the outcome."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace

from capsnet.cli import console
from capsnet.config import RunConfig
from capsnet.state import EpochMetrics
from experiments.known import Known, by_config, is_settled, state
from experiments.progress import Lines, display
from experiments.sources import Grid
from experiments.tracking import REASON, Store
from experiments.worker import Outcome, Place, run

Todo = tuple[str, RunConfig]  # the cell's label, and one of its configs
Work = Callable[[RunConfig, str, Place, Callable[[EpochMetrics], None]], Outcome]


@dataclass
class Summary:
    """What is known of a grid when a launch ends."""

    before: int  # runs that were settled before
    finished: int = 0
    failed: list[str] = field(default_factory=list)  # one line each, also of runs that failed before and are not retried


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
    todo = [pair for pair in grid.configs if _is_due(known, pair[1], retry_failed)]
    planned = sum(1 for _ in grid.configs)
    summary = Summary(before=planned - len(todo))
    for cell, config in grid.configs:
        if (cell, config) not in todo and state(known[config]) != "finished":
            reason = known[config].tags.get(REASON, "")
            summary.failed.append(f"{run_name(cell, config)}: {reason} (run {known[config].run_id}, before this launch)")
    place = replace(place, parent=store.parent(grid.name, grid.text, grid.description))
    console.print(f"{planned} runs, {summary.before} of them settled already; experiment {store.name} in {store.uri}")
    status = "KILLED"
    try:
        with display(planned, summary.before) as shown:
            for (cell, config), outcome in launch(todo, run, place, executor, slots, shown):
                summary.finished += not outcome.failure
                if outcome.failure:
                    summary.failed.append(f"{run_name(cell, config)}: {outcome.reason} (run {outcome.run_id})")
        status = "FAILED" if summary.failed else "FINISHED"
    except KeyboardInterrupt:
        settled = summary.before + summary.finished
        raise KeyboardInterrupt(f"{settled} of {planned} runs are settled; the same command goes on from there") from None
    finally:
        store.end(place.parent, status)
    return summary


def launch(
    todo: Iterable[Todo], work: Work, place: Place, executor: Executor, slots: int, shown: Lines
) -> Iterator[tuple[Todo, Outcome]]:
    """Keep ``slots`` runs going until there are no more, and yield each when it ends, in the order in which they end."""
    running: dict[Future[Outcome], Todo] = {}

    def ended() -> Iterator[tuple[Todo, Outcome]]:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            ran, outcome = running.pop(future), future.result()
            shown.end(run_name(*ran), outcome)
            yield ran, outcome

    for cell, config in todo:
        future = executor.submit(work, config, cell, place, shown.begin(run_name(cell, config), config.epochs))
        running[future] = cell, config
        if len(running) >= slots:
            yield from ended()
    while running:
        yield from ended()


def run_name(cell: str, config: RunConfig) -> str:
    """How a run is called in MLflow and on the screen."""
    return f"{cell} seed={config.seed}"


def _is_due(known: Known, config: RunConfig, retry_failed: bool) -> bool:
    found = known.get(config)
    return not is_settled(found) or (retry_failed and state(found) != "finished")
