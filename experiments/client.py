"""MLflow's client, which takes 4 s to import: late, therefore, and by few files."""

import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from capsnet.errors import InputError, brief
from capsnet.files import synced
from capsnet.terminal import note
from experiments import moved, stores
from experiments.record import TrackedRun

logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line for each run's system metrics
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # nor for a sample that found no server
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # nor for each write to a disk that is full
logging.getLogger("alembic").setLevel(logging.WARNING)  # nor for each step of making the database

FAULTS = (MlflowException, SQLAlchemyError, OSError)  # of a store that is away, or full, or refuses
PAGE = 1000  # runs that a search returns at once


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Raise an InputError, with what was said, if the store goes away in the block, or fails."""
    try:
        yield
    except FAULTS as error:
        said, what = stores.shown(brief(error)), "failed"
        try:
            stores.answers(uri, 3.0)
        except OSError:
            what = "has gone away"
        raise InputError(f"the tracking store {stores.shown(uri)} {what}: {said}; the same command goes on") from None


def log(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log at once, whatever MLFLOW_ENABLE_ASYNC_LOGGING says: a failure that isn't seen here would be lost."""
    as_params, as_tags = [Param(*pair) for pair in (params or {}).items()], [RunTag(*pair) for pair in (tags or {}).items()]
    client.log_batch(run_id, metrics=metrics, params=as_params, tags=as_tags, synchronous=True)


def made(uri: str) -> MlflowClient:
    """Its registry is the store's, too, whatever MLFLOW_REGISTRY_URI says: a champion is where its run is."""
    return MlflowClient(uri, registry_uri=uri)


def connected(uri: str) -> MlflowClient:
    """A client of the store, whose first use makes or migrates the database.

    Raises:
        InputError: the store can't be reached.
    """
    try:
        database = stores.database(uri)
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        stores.answers(uri)
        if before := moved.follow(uri):
            note([f"this store was in {before} before; from now on its artifacts are those beside {stores.database(uri)}"])
        if database and not database.exists():
            _make_whole(database)
        client = made(uri)
        client.search_experiments(max_results=1)
        stores.write_ahead(uri)
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        said = stores.shown(brief(error))
        way = (
            f"it holds no run and can be deleted: {database}"
            if stores.is_torn(database)
            else "MLFLOW_TRACKING_URI names another"
        )
        raise InputError(f"the tracking store {stores.shown(uri)} can't be used: {said}; {way}") from None
    return client


def _make_whole(database: Path) -> None:
    """Make the tables of a new SQLite store elsewhere, and put the file in its place when it is whole.

    MLflow makes them one by one: where that is interrupted it can neither use the file any more nor mend it. Whoever
    calls holds the store's lock (:func:`experiments.stores.alone`).
    """
    first, whole = (database.with_name(f".{database.name}.{part}") for part in ("first", "whole"))
    try:
        for path in (first, whole):
            path.unlink(missing_ok=True)  # of a launch that was killed here
        made(f"sqlite:///{first}").search_experiments(max_results=1)
        # a copy takes the place, because MLflow keeps the first one open in this process
        with closing(sqlite3.connect(first)) as source, closing(sqlite3.connect(whole)) as target:
            source.backup(target)
        synced(whole)
        if not database.exists():
            whole.replace(database)
    finally:
        for path in (first, whole):
            path.unlink(missing_ok=True)


def tracked(run: Run) -> TrackedRun:
    """What is taken over of MLflow's run."""
    data, info = run.data, run.info
    return TrackedRun(
        info.run_id, info.status, data.params, data.metrics, data.tags, info.start_time, info.end_time, _read_by(run)
    )


def _read_by(run: Run) -> list[tuple[str, str]]:
    """The (name, SHA-256) of the run's data set, which has no tag, and of further test sets by their names."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    ordered = sorted(inputs, key=lambda source: (len(source.tags), source.dataset.name))
    profiles = ((source.dataset, json.loads(source.dataset.profile or "{}")) for source in ordered)
    return [(data.name, profile.get("sha256", data.digest)) for data, profile in profiles]


def search(client: MlflowClient, experiments: Sequence[str], filtered: str, view: int = ViewType.ACTIVE_ONLY) -> Iterator[Run]:
    """All runs that a filter finds, oldest first, page by page."""
    token: Any = None
    while experiments:
        page = client.search_runs(list(experiments), filtered, view, PAGE, ["attributes.start_time ASC"], token)
        yield from page
        if not (token := page.token):
            return
