"""A search from beginning to end: its trials, the confirmation of the best, the champion, and what is said of them."""

import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.box import SIMPLE_HEAD
from rich.table import Table

from capsnet.config import RunConfig
from capsnet.errors import InputError
from capsnet.terminal import escaped, note, say, wide
from experiments import arithmetic, champion, leases, study_figures
from experiments.client import answering
from experiments.executors import Engine
from experiments.gridding import Wish, run_grid
from experiments.jobs import Place
from experiments.journal import BusyError, Journal, folder_of
from experiments.known import Known, by_config
from experiments.labels import label
from experiments.launch import launch
from experiments.locks import Launchers
from experiments.progress import display, tell_untold
from experiments.record import GRID, TrackedRun
from experiments.search import Search
from experiments.significance import decimals_of
from experiments.sources import Cell, Grid
from experiments.study import Study, Trial
from experiments.sync import sync
from experiments.tracking import FIGURES
from experiments.trials import Trials
from experiments.worker import run

VALIDATION = "validation_error"
STATES = (("complete", "complete"), ("pruned", "pruned"), ("fail", "failed"))  # Optuna's names, and ours


@dataclass
class Found:
    """What a launch of a search knows when it ends."""

    failed: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    unfinished: int = 0  # trials that the next launch runs again


def run_search(search: Search, study: Study, launchers: Launchers, place: Place, engine: Engine) -> Found:
    """Run the trials that are left, confirm the best, and register the champion; all of it goes on where it stopped.

    Args:
        search: what to search.
        study: its trials.
        launchers: of the experiment; the lock is held by the caller.
        place: where; its parent is filled in here.
        engine: how the work is done.

    Raises:
        InputError: the tracking store or the study's storage has gone away.
        KeyboardInterrupt: Ctrl-C, with how to go on.
    """
    store = place.store
    tell_untold(sync(store, place.checkpoints, ended=True).faults)
    with answering(store.uri):
        leases.refuse(store, launchers)
    with launchers.mutex(), answering(store.uri):
        parent = store.parent(search.name, search.text, search.description, kind="search")
        store.tag(parent, study.provenance)
    place, found, status = replace(place, parent=parent), Found(), "KILLED"
    with leases.held(store, parent, launchers):
        try:
            _search(search, study, place, engine, found)
            if not found.unfinished:
                _report(search, study, place)
                grid = _confirm(search, study, launchers, place, engine, found)
                if grid:
                    _crown(search, grid, place)
            status = "FAILED" if found.unfinished or found.untold or found.failed else "FINISHED"
        except KeyboardInterrupt as stop:
            told = "the same command goes on"
            with suppress(InputError), study.answering():
                told = f"{study.ended()} trials have ended; the same command goes on from there"
            raise KeyboardInterrupt(str(stop) or told) from None
        finally:
            store.end(parent, status)
    return found


def _search(search: Search, study: Study, place: Place, engine: Engine, found: Found) -> None:
    store, seeds = place.store, search.seeds_per_trial
    with study.answering(), answering(store.uri):
        left, before, spent = study.begin(), study.ended(), study.spent
    planned = (search.trials or 0) * seeds
    wanted = [f"{search.trials} trials"] if search.trials else []
    wanted += [f"{search.seconds:g} s, of which {min(spent, search.seconds):.0f} are used up"] if search.seconds else []
    again = f", {left} were running when their launcher died" if left else ""
    where = f"experiment {store.name} in {store.shown}"
    say(f"{' or '.join(wanted)}; {before} have ended already{again}; {where}")
    if place.device == "cpu" and not search.seconds:
        note(arithmetic.search_remarks(search.corners, max(0, planned - before * seeds), engine.cores))
    with answering(store.uri), display(planned, before * seeds) as shown:
        trials, interrupted = Trials(search, study, place, shown), True
        try:
            for job, outcome in launch(trials.following, run, place, engine, shown):
                trials.ended(job, outcome)
            interrupted = False
        except KeyboardInterrupt:
            say("stopping: each run saves its last whole epoch")
            raise
        finally:
            if interrupted:
                engine.executor.shutdown(cancel_futures=True)
            found.failed, found.unfinished = trials.failed, trials.put_back()
            found.untold = sync(store, place.checkpoints, ended=True).faults
            if interrupted:
                tell_untold(found.untold)


def _report(search: Search, study: Study, place: Place) -> None:
    """Say what was found, and keep the study's figures in MLflow."""
    with study.answering():
        counts, best, failures, shares = study.counts(), study.best(), study.failures(), study.importances()
    told = ", ".join(f"{counts[name]} {word}" for name, word in STATES)
    say(f"\n{sum(counts.values())} trials: {told}")
    for number, reason in failures:
        say(f"trial {number} failed: {reason}")
    several, shown = len(search.objectives) > 1, set[str]()
    for trial, values in best if several else best[:1]:
        worth = ", ".join(f"{name} {value:.6g}" for name, value in zip(search.objectives, values, strict=True))
        chosen = _chosen(search, trial)
        if several and chosen in shown:  # an equal trial
            continue
        shown.add(chosen)
        say(f"{'on the Pareto front' if several else 'best'}: trial {trial.number}, {worth}: {chosen}")
    if shares:
        listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        say(f"importance of each parameter for {search.objectives[0]} (PED-ANOVA): {listed}")
    with TemporaryDirectory() as folder, study.answering(), answering(place.store.uri):
        if drawn := study_figures.draw(study, Path(folder)):
            place.store.attach(place.parent, Path(folder), FIGURES)
            say(f"figures, among the artifacts of run {search.name}: {', '.join(drawn)}")


def _confirm(search: Search, study: Study, launchers: Launchers, place: Place, engine: Engine, found: Found) -> Grid | None:
    """Train the best trials again, on seeds that no trial had, as a grid of their own; None if there is nothing to confirm."""
    if not (search.confirm.top or search.confirm.defaults):
        return None
    with study.answering():
        best = [trial for trial, _ in study.best()]
    if not best:
        found.failed.append("no trial was complete, so that there is nothing to confirm")
        return None
    grid = _named(search, search.confirmation([trial.values for trial in best]), best)
    with answering(place.store.uri):
        _drop(grid, place)
    say(f"\nconfirming {len(grid.cells)} configurations on {search.confirm.seeds} fresh seeds")
    summary = run_grid(grid, launchers, place, engine, Wish())
    found.failed += summary.failed
    found.untold += summary.untold
    return grid


def _named(search: Search, grid: Grid, best: Sequence[Trial]) -> Grid:
    """The grid, its cells named by their trials and all that was searched, not only by what tells them apart."""
    names: dict[RunConfig, str] = {}
    for trial in best:
        names.setdefault(search.config(trial.values, 0), f"trial {trial.number}: {_chosen(search, trial)}")
    firsts = [cell.configs[0].model_copy(update={"seed": 0}) for cell in grid.cells]
    labels = [names.get(first, f"defaults: {label(first, search.space.fields)}") for first in firsts]
    return replace(grid, cells=tuple(Cell(name, cell.configs) for name, cell in zip(labels, grid.cells, strict=True)))


def _chosen(search: Search, trial: Trial) -> str:
    return label(search.config(trial.values, 0), [name for name in search.space.fields if name in trial.values])


def _drop(grid: Grid, place: Place) -> None:
    """Forget runs that were to confirm what later trials have beaten, if they were cut off; those that finished are results."""
    known = by_config(place.store.runs())
    wanted = {config for _, config in grid.configs}
    for config, found in known.items():
        if found.tags.get(GRID) == grid.name and found.status != "FINISHED" and config not in wanted:
            place.store.supersede(found.run_id)
            journal = Journal(folder_of(place.checkpoints, config))
            with suppress(BusyError, InputError), journal.held():
                journal.remove()


def _crown(search: Search, grid: Grid, place: Place) -> None:
    """Print the confirmed table, and register the best model: the test set chooses nothing."""
    with answering(place.store.uri):
        known = by_config(place.store.runs())
        wide().print(_table(grid, known))
        finished = {cell: _finished(cell, known) for cell in grid.cells}
        most = max(len(runs) for runs in finished.values())
        judged = [cell for cell, runs in finished.items() if runs and len(runs) == most]  # of fewer seeds one may be lucky
        if not judged:
            return
        validated = all(VALIDATION in run.metrics for cell in judged for run in finished[cell].values())
        # without validation images it is the search's order, in which the cells stand
        best = min(judged, key=lambda cell: _mean(finished[cell].values(), VALIDATION)) if validated else judged[0]
        runs = finished[best]
        config = min(runs, key=lambda config: (runs[config].metrics[VALIDATION] if validated else 0.0, config.seed))
        tags = {"search": search.name, "experiment": place.store.name, "cell": best.label}
        told = champion.crown(place.store, runs[config], config, tags)
    how = "validation error" if validated else "place in the search"
    error = runs[config].metrics["test_error"]
    say(f"best model, by its {how}: {best.label} seed={config.seed}, test error {error:.2f} %")
    say(f"  {told}")


def _finished(cell: Cell, known: Known) -> dict[RunConfig, TrackedRun]:
    return {config: known[config] for config in cell.configs if config in known and known[config].status == "FINISHED"}


def _mean(runs: Iterable[TrackedRun], name: str) -> float:
    values = [run.metrics[name] for run in runs if name in run.metrics]
    return statistics.fmean(values) if values else 0.0


def _table(grid: Grid, known: Known) -> Table:
    """Mean and standard deviation over the fresh seeds; intervals and tests are the analysis's."""
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("confirmed on fresh seeds", overflow="fold")
    for head in ("n", "validation\nerror %", "test error %\nmean ± sd"):
        made.add_column(head, justify="right", no_wrap=True)
    for cell in grid.cells:
        runs = list(_finished(cell, known).values())
        errors_ = [run.metrics["test_error"] for run in runs]
        sd = statistics.stdev(errors_) if len(errors_) > 1 else 0.0
        decimals = decimals_of(sd)  # as the tables of the analysis have it
        test = f"{statistics.fmean(errors_):.{decimals}f}" if runs else "-"
        test += f" ± {sd:.{decimals}f}" if len(errors_) > 1 else ""
        validation = f"{_mean(runs, VALIDATION):.3f}" if any(VALIDATION in run.metrics for run in runs) else "-"
        count = f"{len(runs)}" if len(runs) == len(cell.configs) else f"{len(runs)} of {len(cell.configs)}"
        made.add_row(escaped(cell.label), count, validation, test)
    return made
