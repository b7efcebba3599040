"""What an experiment already knows: its grids, and of a config the runs that were logged, matched to whole configs."""

from collections.abc import Iterable

from capsnet.config import RunConfig
from capsnet.errors import InputError, brief
from experiments.record import FAILURE, SUPERSEDED, TrackedRun
from experiments.sources import Grid, parse_grid
from experiments.tracking import Store

Known = dict[RunConfig, TrackedRun]


def read_grids(store: Store, *, running: bool = False) -> tuple[dict[str, Grid], dict[str, str]]:
    """Each grid by its parent run's id, as it stood at its last launch, and (run id -> reason) of those that can't be read.

    Args:
        store: the experiment's.
        running: those alone whose parent run has no end.
    """
    grids: dict[str, Grid] = {}
    unread: dict[str, str] = {}
    for run_id, name in store.parents(running=running):
        try:
            grids[run_id] = parse_grid(store.grid(run_id), name, f"grid {name}")
        except InputError as error:
            unread[run_id] = f"what grid {name!r} planned can't be read: {brief(error)}; launching it again mends that"
    return grids, unread


def by_config(runs: Iterable[TrackedRun]) -> Known:
    """The run that speaks for each config."""
    return sorted_out(runs)[0]


def sorted_out(runs: Iterable[TrackedRun]) -> tuple[Known, dict[str, str]]:
    """The run that speaks for each config, and (run id -> reason) of runs that are of no config of this version.

    A config is its own identity: it is rebuilt whole from the logged parameters and compared, not its name. The first run
    that finished speaks for its config, or else the last one; a run that was superseded never does.

    Args:
        runs: oldest first.
    """
    known: Known = {}
    strangers: dict[str, str] = {}
    for run in runs:
        if SUPERSEDED in run.tags:
            continue
        if not run.params:  # no field at all would be the default config
            strangers[run.run_id] = "it has no parameters"
            continue
        try:
            config = run.config
        except InputError as error:
            strangers[run.run_id] = str(error)
            continue
        if config not in known or known[config].status != "FINISHED":
            known[config] = run
    return known, strangers


def state(run: TrackedRun | None) -> str:
    """What is known of a config in a word: new, running, interrupted, finished, pruned, or how it failed."""
    if run is None:
        return "new"
    if run.status == "FAILED" or run.tags.get(FAILURE) == "pruned":
        return run.tags.get(FAILURE, "error")
    return {"FINISHED": "finished", "KILLED": "interrupted", "RUNNING": "running"}[run.status]


def is_finished(run: TrackedRun | None) -> bool:
    """Whether the run has a test error and weights."""
    return state(run) == "finished"


def is_settled(run: TrackedRun | None) -> bool:
    """Whether training the config again would tell nothing new: it finished, or it diverged and would do so again."""
    return state(run) in ("finished", "diverged")
