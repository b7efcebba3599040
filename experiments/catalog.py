"""All experiments of a tracking store: which there are, which was launched last, and in which of them a run is."""

import re
from pathlib import Path

from mlflow.entities import Experiment, Run, ViewType

from capsnet.errors import InputError, unknown
from capsnet.terminal import called
from experiments import stores
from experiments.client import PAGE, connected, search, tracked
from experiments.record import FAILURE, GRID, KIND, LAUNCHED, TrackedRun
from experiments.tracking import Store


def stores_in(folder: Path) -> list[Store]:
    """All experiments of the tracking store."""
    uri = stores.uri(folder)
    found = connected(uri).search_experiments(ViewType.ALL) if stores.exists(uri) else []
    return [Store(uri, e.name, e.experiment_id, e.creation_time) for e in found]


def latest(folder: Path) -> str | None:
    """The name of the experiment that was launched last."""
    if not stores.exists(stores.uri(folder)):
        return None
    client = connected(stores.uri(folder))
    names = {e.experiment_id: e.name for e in client.search_experiments()}
    filtered = f"tags.{LAUNCHED} LIKE '%'"  # grids and searches
    runs = client.search_runs(list(names), filtered, order_by=[f"tags.{LAUNCHED} DESC"], max_results=1) if names else []
    return names[runs[0].info.experiment_id] if runs else None


def names(folder: Path) -> list[str]:
    """The experiments that hold a grid."""
    if not stores.exists(stores.uri(folder)):
        return []
    client = connected(stores.uri(folder))
    named = {e.experiment_id: e.name for e in client.search_experiments()}
    held = {run.info.experiment_id for run in search(client, list(named), f"tags.{KIND} = 'grid'")}
    return sorted(name for experiment_id, name in named.items() if experiment_id in held)


class AbsentError(InputError):
    """There is no such experiment; the message lists those that there are."""


def opened(name: str, folder: Path) -> Store:
    """The experiment of that name.

    Raises:
        AbsentError: there is none.
        InputError: the tracking store can't be reached.
    """
    store = Store.open(name, folder, create=False)
    if store is None:
        there = names(folder)
        raise AbsentError(unknown("experiment", name, there) if there else f"no experiment {name!r}: nothing is launched yet")
    return store


def runs_beside(name: str, folder: Path, most: int = PAGE) -> list[TrackedRun]:
    """The child runs of all experiments but that one, oldest first: the latest ``most`` of them, since each costs a ms."""
    client = connected(stores.uri(folder)) if stores.exists(stores.uri(folder)) else None
    others = [e.experiment_id for e in client.search_experiments() if e.name != name] if client else []
    if not client or not others:
        return []
    newest = ["attributes.start_time DESC"]
    found = client.search_runs(others, f"tags.{KIND} = 'run'", max_results=most, order_by=newest)
    return [tracked(run) for run in reversed(found)]


def holding(run_id: str, folder: Path) -> tuple[Store, TrackedRun]:
    """A finished run by its id, or by the beginning of its id as in git, with the experiment that holds it.

    Raises:
        InputError: there is no such run or several, or it has nothing to show: it was deleted, didn't finish, or isn't one
            of a single network.
    """
    uri = stores.uri(folder)
    if not re.fullmatch(r"[0-9a-f]{4,32}", run_id):
        pictured = called(f"python -m analysis figures --experiment {run_id}")
        hint = f"; the best run of an experiment: {pictured}" if run_id in names(folder) else ""
        raise InputError(f"{run_id!r} is no run id: one has 32 characters of 0-9 and a-f, of which the first four may do{hint}")
    client = connected(uri) if stores.exists(uri) else None
    experiments = {e.experiment_id: e for e in client.search_experiments(ViewType.ALL)} if client else {}
    wanted = f"attributes.run_id LIKE '{run_id}%'"
    found = list(search(client, list(experiments), wanted, ViewType.ALL)) if client else []
    if not found:
        held = f"has the experiments {', '.join(there)}" if (there := names(folder)) else "is empty"
        raise InputError(
            f"no run {run_id!r}: the tracking store {stores.shown(uri)} {held}; {stores.browsing(uri)} shows ids of runs"
        )
    if len(found) > 1:
        ids = ", ".join(sorted(run.info.run_id for run in found[:5]))
        raise InputError(f"{len(found)} runs have an id that begins with {run_id}: {ids}{', ...' if found[5:] else ''}")
    experiment = experiments[found[0].info.experiment_id]
    _refuse_unfinished(found[0], experiment, uri)
    return Store(uri, experiment.name, experiment.experiment_id, experiment.creation_time), tracked(found[0])


def _refuse_unfinished(run: Run, experiment: Experiment, uri: str) -> None:
    """Raise an InputError, with what to do, if the run has no network that was trained to its end."""
    tags, run_id, status = run.data.tags, run.info.run_id, run.info.status
    if experiment.lifecycle_stage == "deleted":
        restore = stores.command(uri, f"experiments restore --experiment-id {experiment.experiment_id}")
        fault = f"is of experiment {experiment.name!r}, which has been deleted in MLflow; restore it ({restore})"
    elif run.info.lifecycle_stage == "deleted":
        fault = f"has been deleted in MLflow; restore it ({stores.command(uri, f'runs restore --run-id {run_id}')})"
    elif tags.get(KIND) in {"grid", "search"}:
        fault = f"is that of the whole {tags[KIND]} {tags[GRID]!r}, which has no network: take one of the runs below it"
    elif tags.get(KIND) != "run":
        fault = f"of experiment {experiment.name!r} was not logged by this program, so it has no network to show"
    elif status == "RUNNING":
        fault = "is still being trained, or was interrupted: wait for it, or launch its grid again"
    elif status != "FINISHED":
        fault = f"didn't finish ({tags.get(FAILURE, status.lower())}), and only finished runs keep their weights"
    else:
        return
    raise InputError(f"run {run_id} {fault}; or name another run")
