"""A grid from beginning to end: what is not settled of it is launched, under its parent run, which ends as they end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from capsnet.config import RunConfig
from capsnet.errors import InputError, brief
from capsnet.terminal import note, say
from experiments import arithmetic, leases, stores
from experiments.client import FAULTS, answering
from experiments.executors import Engine
from experiments.jobs import Job, Place
from experiments.journal import BusyError, Journal, folder_of, look
from experiments.known import Known, by_config, is_settled, read_grids, state
from experiments.launch import launch, one_by_one
from experiments.locks import ALL, Launchers, Shard
from experiments.progress import display, tell_failed, tell_untold
from experiments.provenance import code, git_commit
from experiments.record import REASON, TrackedRun, is_of_other_code
from experiments.sources import Grid
from experiments.sync import sync
from experiments.tracking import Store
from experiments.worker import run

Old = dict[RunConfig, list[TrackedRun]]  # runs of other code


@dataclass(frozen=True)
class Wish:
    """What a launch is to do with a grid."""

    shard: Shard = ALL
    retry_failed: bool = False  # train configs that diverged again
    fresh: bool = False  # train what other code trained again, from the beginning


@dataclass
class Summary:
    """What is known of a grid, or a shard of it, when a launch ends."""

    planned: int
    before: int  # runs that were settled before
    other_code: int = 0  # of these, trained by other code
    finished: int = 0
    failed: list[str] = field(default_factory=list)  # one line each, also of runs that failed before and are not retried
    untold: list[str] = field(default_factory=list)  # one line for each run that MLflow doesn't know of yet


def run_grid(grid: Grid, launchers: Launchers, place: Place, engine: Engine, wish: Wish) -> Summary:
    """Run what is not settled of a grid, under its parent run, which ends as FINISHED, FAILED or KILLED.

    Args:
        grid: what to run.
        launchers: of the experiment; the shard's lock is held by the caller.
        place: where; its parent is filled in here.
        engine: how the work is done.
        wish: which part of the grid, and what to do with what is known already.

    Raises:
        InputError: the tracking store has gone away, or the experiment is being launched with another folder.
        KeyboardInterrupt: Ctrl-C, with what is known by then and how to go on.
    """
    store, configs = place.store, list(wish.shard.of(list(grid.configs)))
    mine = {folder_of(place.checkpoints, config) for _, config in configs}
    tell_untold(sync(store, place.checkpoints, ended=True, only=None if wish.shard.is_all else mine).faults)
    with answering(store.uri):
        leases.refuse(store, launchers)
    with launchers.mutex(), answering(store.uri):
        place = replace(place, parent=store.parent(grid.name, grid.text, grid.description))
    with leases.held(store, place.parent, launchers):
        summary, interrupted = Summary(len(configs), 0), True
        try:
            with answering(store.uri):
                todo, summary, old = _look(configs, place, wish)
            _tell(todo, summary, place, engine, wish.shard)
            _run(todo, old, summary, place, engine)
            interrupted = False
        finally:
            summary.untold = sync(store, place.checkpoints, ended=True, only=mine).faults
            if interrupted:
                tell_untold(summary.untold)
            _end(grid, launchers, place, wish.shard, summary, interrupted=interrupted)
    return summary


def _tell(todo: Sequence[Job], summary: Summary, place: Place, engine: Engine, shard: Shard) -> None:
    part = "" if shard.is_all else f"shard {shard}: "
    where = f"experiment {place.store.name} in {place.store.shown}"
    say(f"{part}{summary.planned} runs, {summary.before} of them settled already; {where}")
    if summary.other_code:
        those = "one of them was" if summary.other_code == 1 else f"{summary.other_code} of them were"
        note([f"{those} trained by other code than this; --fresh trains them again, and another --experiment begins anew"])
    if place.device == "cpu":
        note(arithmetic.remarks(((job.config, _epochs_left(job, place)) for job in todo), engine.cores))


def _run(todo: Sequence[Job], old: Old, summary: Summary, place: Place, engine: Engine) -> None:
    """Run them, and write to the summary how they end; runs of other code that they replace speak no more."""
    store = place.store
    try:
        with display(summary.planned, summary.before) as shown:
            for job, outcome in launch(one_by_one(todo), run, place, engine, shown):
                summary.finished += not outcome.failure
                if job.config in old and not outcome.failure:
                    with suppress(*FAULTS):  # else the next launch with --fresh does it
                        _supersede(store, old.pop(job.config))
                if outcome.failure:
                    summary.failed.append(f"{job.name}: {outcome.reason} (run {outcome.run_id or 'without an id yet'})")
    except KeyboardInterrupt:
        say("stopping: each run saves its last whole epoch")
        engine.executor.shutdown(cancel_futures=True)
        settled = f"{summary.before + summary.finished} of {summary.planned} runs are settled"
        tell_failed(summary.failed)
        raise KeyboardInterrupt(f"{settled}; the same command goes on from there") from None


def _look(configs: list[tuple[str, RunConfig]], place: Place, wish: Wish) -> tuple[list[Job], Summary, Old]:
    """What there is to do, what is known already, and the runs of other code that speak until they are replaced."""
    known, old = _without_other_code(configs, place.store) if wish.fresh else (by_config(place.store.runs()), {})
    due = [(cell, config) for cell, config in configs if _is_due(known.get(config), wish.retry_failed)]
    todo = [make_job(cell, config, known, place, fresh=wish.fresh) for cell, config in due]
    settled = [found for _, config in configs if (found := known.get(config)) and not _is_due(found, wish.retry_failed)]
    other = sum(_is_other(found.tags) for found in settled)
    summary = Summary(planned=len(configs), before=len(configs) - len(todo), other_code=other)
    for cell, config in configs:
        if state(found := known.get(config)) == "diverged" and not wish.retry_failed:
            assert found is not None
            reason = found.tags.get(REASON, "")
            line = f"{Job(cell, config).name}: {reason} (run {found.run_id}, before; --retry-failed trains it again)"
            summary.failed.append(line)
    return todo, summary, old


def _epochs_left(job: Job, place: Place) -> int:
    progress = look(place.checkpoints, job.config)
    return job.config.epochs - (progress.epochs if progress else 0)


def _is_due(found: TrackedRun | None, retry_failed: bool) -> bool:
    return not is_settled(found) or (retry_failed and state(found) != "finished")


def _without_other_code(configs: list[tuple[str, RunConfig]], store: Store) -> tuple[Known, Old]:
    """What is known, less the runs of these configs that other code trained; and those that spoke or would speak next."""
    wanted, runs = {config for _, config in configs}, list(store.runs())
    old: Old = defaultdict(list)
    while True:
        known = by_config(runs)
        mine = {config: found for config, found in known.items() if config in wanted}
        other = {config: found for config, found in mine.items() if _is_other(found.tags)}
        if not other:
            break
        for config, found in other.items():
            old[config].append(found)
        gone = {found.run_id for found in other.values()}
        runs = [found for found in runs if found.run_id not in gone]
    for config in [config for config in old if state(known.get(config)) == "finished"]:  # a launch before was cut off
        _supersede(store, old.pop(config))
    return known, old


def _supersede(store: Store, runs: Iterable[TrackedRun]) -> None:
    for found in runs:
        store.supersede(found.run_id)


def _is_other(tags: Mapping[str, str]) -> bool:
    return is_of_other_code(tags, git_commit(), code())


def make_job(cell: str, config: RunConfig, known: Known, place: Place, *, fresh: bool = False) -> Job:
    """A run that stopped before its end goes on with its journal; one that settled, or was deleted, is begun anew."""
    found = known.get(config)
    going_on = found if found and not is_settled(found) and state(found) != "pruned" else None  # which a grid trains whole
    journal = Journal(folder_of(place.checkpoints, config))
    if journal.folder.exists():
        try:
            with journal.held():
                known_here = journal.begun and journal.record.run_id in ("", going_on.run_id if going_on else "")
                if known_here and not (fresh and _is_other(journal.record.tags)):
                    return Job(cell, config)
                journal.remove()
        except (BusyError, InputError):  # the worker will come upon the same and tell of it
            return Job(cell, config, going_on.run_id if going_on else "")
    if going_on and going_on.metrics:
        place.store.lose(going_on)
        going_on = None
    return Job(cell, config, going_on.run_id if going_on else "")


def _end(grid: Grid, launchers: Launchers, place: Place, shard: Shard, summary: Summary, *, interrupted: bool) -> None:
    """Give the parent run its end, unless other shards are still at it; the last of them speaks for all."""
    with launchers.mutex():
        if any(other != shard for other in launchers.held()):
            return
        status = "KILLED" if interrupted else "FAILED" if summary.failed else "FINISHED"
        if place.store.answers():
            with suppress(*FAULTS):
                status = status if shard.is_all else _status(grid, place.store)
            place.store.end(place.parent, status)


def _status(grid: Grid, store: Store) -> str:
    """What the runs of a grid come to: FINISHED, FAILED, or KILLED if some have not ended."""
    known = by_config(store.runs())
    states = {state(known.get(config)) for _, config in grid.configs}
    if states == {"finished"}:
        return "FINISHED"
    return "KILLED" if states & {"new", "interrupted", "running"} else "FAILED"


def end_parents(store: Store, launchers: Launchers) -> list[str]:
    """Give parent runs that no launcher is at any more the end that they could not be given; a line for each without one."""
    with launchers.mutex():
        if any(launchers.held()):
            return []
        try:
            living = {note.parent for note in leases.elsewhere(store, launchers)}
            grids, unread = read_grids(store, running=True)
            for run_id, grid in grids.items():
                if run_id not in living:
                    store.end(run_id, _status(grid, store))
            for run_id in store.open_searches():
                if run_id not in living:
                    store.end(run_id, "KILLED")
        except FAULTS as error:
            return [f"how the grids of {store.name} ended: {stores.shown(brief(error))}"]
        return [f"how run {run_id} ended: {reason}" for run_id, reason in unread.items()]
