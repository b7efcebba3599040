"""The one loop: next config -> submit -> record the outcome; what grids and searches have in common."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import replace

from capsnet import interrupts
from capsnet.errors import InputError
from capsnet.terminal import escaped
from experiments.client import FAULTS
from experiments.executors import Engine
from experiments.jobs import Job, Outcome, Place, kind
from experiments.journal import BusyError, Journal, folder_of
from experiments.progress import Display
from experiments.ray_tasks import Ray
from experiments.record import Ending, now
from experiments.runlog import GoneError, RunLog
from experiments.worker import acknowledge

Work = Callable[[Job, Place], Outcome]
Following = Callable[[], Job | None]

RETRIES = 3  # of a run that its surroundings failed
PAUSE = 2.0  # seconds before the first of them; twice as many before the next
LOOK = 5.0  # seconds between two looks at whether the executor is well


def launch(following: Following, work: Work, place: Place, engine: Engine, shown: Display) -> Iterator[tuple[Job, Outcome]]:
    """Keep the engine's slots full until there are no more runs, and yield each when it ends, in the order in which they end.

    A run that its surroundings failed is tried again, a few times; one that found no memory beside others, once alone.

    Args:
        following: the next run, asked for when a slot is free; None = none now, but perhaps when another has ended.
        work: what to do with it.
        place: where.
        engine: how.
        shown: what is shown meanwhile.
    """
    crowded: list[Job] = []
    while True:
        for job, outcome in _through(following, work, place, engine.executor, engine.slots, shown):
            if outcome.failure == "out of memory" and engine.alone:
                shown.again(job.name, f"{escaped(outcome.reason)}; it will be tried with nothing beside it")
                crowded.append(job)
            else:
                yield job, _shown(job, outcome, shown)
        if not crowded or not engine.alone:
            return
        for job, outcome in _through(one_by_one(crowded), work, place, engine.alone, engine.alone_slots, shown):
            yield job, _shown(job, outcome, shown)
        crowded = []  # how they ended may bring new ones


def one_by_one(jobs: Iterable[Job]) -> Following:
    """What follows, of a list."""
    left = iter(jobs)
    return lambda: next(left, None)


def _through(
    following: Following, work: Work, place: Place, executor: Executor, slots: int, shown: Display
) -> Iterator[tuple[Job, Outcome]]:
    again = deque[tuple[float, Job]]()  # when, and what
    running: dict[Future[Outcome], Job] = {}
    tries: Counter[str] = Counter()
    while True:
        interrupts.check()
        while len(running) < slots and (job := _next(following, again, idle=not running)):
            shown.begin(job.name, job.config.epochs, Journal(folder_of(place.checkpoints, job.config)).latest)
            running[executor.submit(work, job, place)] = job
        if not running:
            return
        soon = max(0.0, again[0][0] - time.monotonic()) if again and len(running) < slots else LOOK
        done = wait(running, min(soon, LOOK), return_when=FIRST_COMPLETED).done
        ended = [(running.pop(future), _outcome(future)) for future in done]
        if isinstance(executor, Ray) and (not done or any(outcome.failure == "infrastructure" for _, outcome in ended)):
            executor.session.heal()  # before anything is handed to a node that is dead
        for job, outcome in ended:
            tries[job.name] += outcome.failure == "infrastructure"
            if outcome.failure != "infrastructure":
                tries.pop(job.name, None)
                acknowledge(job, place)
                yield job, outcome
            elif tries[job.name] <= RETRIES:
                shown.again(job.name, f"{escaped(outcome.reason)}; attempt {tries[job.name] + 1} of {RETRIES + 1} follows")
                again.append((time.monotonic() + PAUSE * 2 ** (tries[job.name] - 1), job))
            else:
                yield job, _given_up(job, outcome, place)


def _next(following: Following, again: "deque[tuple[float, Job]]", *, idle: bool) -> Job | None:
    """What to submit now: what is to be tried again, if its time has come, before what is new."""
    if again and again[0][0] <= time.monotonic():
        return again.popleft()[1]
    if job := following():
        return job
    if again and idle:
        time.sleep(max(0.0, again[0][0] - time.monotonic()))
        return again.popleft()[1]
    return None


def _outcome(future: "Future[Outcome]") -> Outcome:
    fault = future.exception()
    return Outcome("", 0.0, failure=kind(fault), reason=f"{type(fault).__name__}: {fault}") if fault else future.result()


def _shown(job: Job, outcome: Outcome, shown: Display) -> Outcome:
    told = escaped(outcome.reason) if outcome.failure else f"test error {outcome.test_error:.2f} %"
    if outcome.failure not in ("", "pruned"):
        told = f"[red]{told}[/]"
    if job.trial and "validation_error" in outcome.values:
        told = f"validation error {outcome.values['validation_error']:.2f} %"
    if job.config.stop_at_error and not outcome.failure and outcome.history:
        epoch, error = outcome.history[-1]
        stop = f"validation error of {job.config.stop_at_error:g} %"
        told += f", stopped after epoch {epoch}" if job.config.stops_at(error) else f", [bold]never reached the {stop}[/]"
    untold = f"; MLflow will be told later: {escaped(outcome.untold)}" if outcome.untold else ""
    shown.end(job.name, f"{told} ({outcome.seconds:.1f} s){untold}")
    return outcome


def _given_up(job: Job, outcome: Outcome, place: Place) -> Outcome:
    """Record the failure of a run whose worker can't do it any more."""
    journal = Journal(folder_of(place.checkpoints, job.config))
    with suppress(BusyError, InputError, GoneError, *FAULTS), journal.held():
        if journal.begun:
            ending = Ending("FAILED", now(), outcome.failure, outcome.reason)
            journal.update(ending=ending, told=False)
            RunLog(place.store, journal, monitored=False).push()
            return replace(outcome, run_id=journal.record.run_id)
    return outcome
