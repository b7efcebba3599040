"""What is known about runs, in MLflow: the only file that imports mlflow (4 s, so import this one late).

One experiment holds one parent run per grid, kept across launches, and one child run per config. A child has every RunConfig
field as a parameter, a metric row per epoch, the final test error, and its weights and test predictions as artifacts.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# before the import, which reads it: nobody is told of a user's runs unless the user says so
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # not two lines for each run that ends

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from capsnet.config import RunConfig
from capsnet.errors import InputError
from experiments import stores

if TYPE_CHECKING:  # a plan needs no torch
    from capsnet.state import EpochMetrics

logging.getLogger("mlflow").setLevel(logging.WARNING)  # not a line for each run's system metrics
logging.getLogger("alembic").setLevel(logging.WARNING)  # nor for each step of making the database

SYSTEM_SECONDS = 5.0  # between two samples of the machine's load
NAME_LENGTH = 200  # of an experiment, which names a folder of results, too
PAGE = 1000  # runs that a search returns at once
BATCH = 1000  # metrics that one call may log
KIND, GRID, CELL, FAILURE, REASON, LAUNCHED = "kind", "grid", "cell", "failure", "reason", "launched"


@dataclass(frozen=True)
class TrackedRun:
    """A child run as it was logged."""

    run_id: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # the last of each
    tags: Mapping[str, str]
    start: int  # milliseconds since 1970
    end: int | None


@dataclass(frozen=True)
class DataSource:
    """The data set of a run, as MLflow's inputs show it."""

    name: str
    digest: str  # SHA-256 of the whole data set
    folder: str
    counts: Mapping[str, int]  # images of each part


class Store:
    """The runs of one experiment."""

    def __init__(self, client: MlflowClient, experiment_id: str, name: str, uri: str) -> None:
        self.client, self.experiment_id, self.name, self.uri = client, experiment_id, name, uri

    @classmethod
    def open(cls, name: str, folder: Path, *, create: bool) -> "Store | None":
        """The experiment of that name; if it isn't there, a new one or None.

        Raises:
            InputError: the tracking store can't be reached, or the experiment has been deleted.
        """
        if len(name) > NAME_LENGTH:
            raise InputError(f"the experiment's name has {len(name)} characters; {NAME_LENGTH} are the most: {name[:40]}...")
        uri = stores.uri(folder)
        if not create and not stores.exists(uri):
            return None
        client = _client(uri)
        try:
            found = client.get_experiment_by_name(name)
            if found is None and not create:
                return None
            if found is not None and found.lifecycle_stage == "deleted":
                raise InputError(
                    f"experiment {name!r} has been deleted in MLflow; restore it (mlflow experiments restore "
                    f"--experiment-id {found.experiment_id}) or choose another name with EXPERIMENT="
                )
            if found is None:
                # a server keeps artifacts where it was told to; a database file has them beside it
                database = stores.database(uri)
                beside = (database.parent / "artifacts").as_uri() if database else None
                return cls(client, client.create_experiment(name, beside), name, uri)
        except MlflowException as error:
            raise InputError(f"the tracking store {uri} refuses experiment {name!r}: {error.message}") from None
        return cls(client, found.experiment_id, name, uri)

    @classmethod
    def latest(cls, folder: Path) -> str | None:
        """The name of the experiment that was launched last."""
        if not stores.exists(stores.uri(folder)):
            return None
        client = _client(stores.uri(folder))
        names = {e.experiment_id: e.name for e in client.search_experiments()}
        filtered = f"tags.{KIND} = 'grid'"
        runs = client.search_runs(list(names), filtered, order_by=[f"tags.{LAUNCHED} DESC"], max_results=1) if names else []
        return names[runs[0].info.experiment_id] if runs else None

    @classmethod
    def names(cls, folder: Path) -> list[str]:
        """The experiments that hold a grid."""
        if not stores.exists(stores.uri(folder)):
            return []
        client = _client(stores.uri(folder))
        named = {e.experiment_id: e.name for e in client.search_experiments()}
        held = {run.info.experiment_id for run in _search(client, list(named), f"tags.{KIND} = 'grid'")}
        return sorted(name for experiment_id, name in named.items() if experiment_id in held)

    def runs(self) -> Iterator[TrackedRun]:
        """Every child run of the experiment, oldest first; runs that something else logged are left out."""
        for run in _search(self.client, [self.experiment_id], f"tags.{KIND} = 'run'"):
            data, info = run.data, run.info
            yield TrackedRun(info.run_id, info.status, data.params, data.metrics, data.tags, info.start_time, info.end_time)

    def grids(self) -> Iterator[tuple[str, str]]:
        """The (name, YAML) of each grid launched into the experiment, as it stood at its last launch."""
        for run in _search(self.client, [self.experiment_id], f"tags.{KIND} = 'grid'"):
            path = self.client.download_artifacts(run.info.run_id, "grid.yaml")
            yield run.data.tags[GRID], Path(path).read_text(encoding="utf-8")

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """The (epoch, value) rows of one metric of a run."""
        return [(m.step, m.value) for m in self.client.get_metric_history(run_id, name)]

    def parent(self, grid: str, text: str, description: str) -> str:
        """The run id of a grid's parent run, which is made at its first launch and opened again at each later one."""
        parents = _search(self.client, [self.experiment_id], f"tags.{KIND} = 'grid'")
        found = next((run for run in parents if run.data.tags[GRID] == grid), None)
        tags = {KIND: "grid", GRID: grid, "mlflow.note.content": description}
        run = found or self.client.create_run(self.experiment_id, tags=tags, run_name=grid)
        run_id: str = run.info.run_id
        self.client.update_run(run_id, status="RUNNING")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}"
        self.client.log_batch(run_id, tags=[RunTag(LAUNCHED, stamp), RunTag("mlflow.note.content", description)])
        self.client.log_text(run_id, text, "grid.yaml")
        return run_id

    def end(self, run_id: str, status: str) -> None:
        """Give a run its end: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)


class RunLog:
    """One child run while it trains."""

    def __init__(self, store: Store, run_id: str, *, resumed: bool) -> None:
        self.client, self.run_id = store.client, run_id
        self.system = SystemMetricsMonitor(
            run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=resumed, tracking_uri=store.uri
        )
        self.system.start()
        self._sent = 0

    @classmethod
    def start(cls, store: Store, config: RunConfig, parent: str, tags: Mapping[str, str], name: str) -> "RunLog":
        """A new run."""
        tags = {**tags, KIND: "run", MLFLOW_PARENT_RUN_ID: parent}
        run_id: str = store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id
        store.client.log_batch(run_id, params=[Param(*pair) for pair in config.to_params().items()])
        return cls(store, run_id, resumed=False)

    @classmethod
    def take_over(cls, store: Store, run_id: str, tags: Mapping[str, str]) -> "RunLog":
        """A run that was interrupted or failed, under its own id, with the tags of whoever goes on with it."""
        store.client.update_run(run_id, status="RUNNING")
        for name in store.client.get_run(run_id).data.tags.keys() & {FAILURE, REASON}:
            store.client.delete_tag(run_id, name)
        store.client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items()])
        return cls(store, run_id, resumed=True)

    def data(self, source: DataSource) -> None:
        """Record what the run learns from."""
        dataset = Dataset(
            source.name,
            source.digest[:32],  # MLflow takes at most 36 characters; the whole stands in the profile
            "local",
            json.dumps({"folder": source.folder}),
            profile=json.dumps({**source.counts, "sha256": source.digest}),
        )
        self.client.log_inputs(self.run_id, [DatasetInput(dataset)])

    def epochs(self, history: Sequence["EpochMetrics"]) -> None:
        """Send what is new of a run's history, in batches as large as MLflow takes them."""
        new = [row for metrics in history[self._sent :] for row in rows(metrics)]
        for start in range(0, len(new), BATCH):
            self.client.log_batch(self.run_id, new[start : start + BATCH])
        self._sent = len(history)

    def finish(self, last: "EpochMetrics", results: Mapping[str, float], files: Sequence[Path]) -> None:
        """Record the final results and artifacts, and end the run as finished.

        The results carry the last epoch's timestamp: logged a second time by whoever goes on after a fault, they are the same.
        """
        self.client.log_batch(self.run_id, [Metric(name, value, last.time, last.epoch) for name, value in results.items()])
        for file in files:
            self.client.log_artifact(self.run_id, str(file))
        self._end("FINISHED")

    def fail(self, kind: str, reason: str) -> None:
        """End the run as failed, with what happened in a word and in full."""
        self.client.log_batch(self.run_id, tags=[RunTag(FAILURE, kind), RunTag(REASON, reason[:5000])])
        self._end("FAILED")

    def kill(self) -> None:
        """End a run that was interrupted."""
        self._end("KILLED")

    def _end(self, status: str) -> None:
        self.system.collect_metrics()  # what came after the last sample: all there is of a short run
        self.system.publish_metrics(self.system.aggregate_metrics())
        self.system.finish()
        self.client.set_terminated(self.run_id, status)


def rows(metrics: "EpochMetrics") -> list[Metric]:
    """An epoch's metrics as MLflow's rows: the same again, timestamps included, so that logging them twice leaves one."""
    named = asdict(metrics)
    epoch, when = named.pop("epoch"), named.pop("time")
    return [Metric(name, value, when, epoch) for name, value in named.items() if value is not None]


def _client(uri: str) -> MlflowClient:
    """A client of the store, whose first use makes or migrates the database.

    Raises:
        InputError: the store can't be reached.
    """
    try:
        if database := stores.database(uri):
            database.parent.mkdir(parents=True, exist_ok=True)
        if uri.startswith(("http://", "https://")):
            stores.answers(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"the tracking store {uri} can't be used: {said}; MLFLOW_TRACKING_URI names another") from None
    return client


def _search(client: MlflowClient, experiments: Sequence[str], filtered: str) -> Iterator[Run]:
    token: Any = None
    while experiments:
        page = client.search_runs(list(experiments), filtered, ViewType.ACTIVE_ONLY, PAGE, ["attributes.start_time ASC"], token)
        yield from page
        if not (token := page.token):
            return
