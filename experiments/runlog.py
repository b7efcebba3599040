"""One run in MLflow, kept like its journal: made or taken over, its epochs in batches, its end. It imports mlflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from capsnet.metrics import LISTS, EpochMetrics
from experiments.client import log, search
from experiments.journal import FILES, Journal
from experiments.record import (
    EPOCHS,
    FAILURE,
    GRID,
    KEY,
    KIND,
    LATER,
    REASON,
    SUPERSEDED,
    DataSource,
    Ending,
    Record,
    TrackedRun,
)
from experiments.tracking import CONTEXT, NOTE, Store

SYSTEM_SECONDS = 5.0  # between two samples of the machine's load
BATCH = 1000  # metrics that one call may log


class GoneError(RuntimeError):
    """Somebody deleted the run in MLflow."""


class RunLog:
    """Keeps one run in MLflow like its journal; each push may fail, and the next one makes up for it.

    Whatever was logged before is logged again by a new RunLog, which changes nothing: parameters, tags and artifacts are the
    same, and so are the rows of metrics with their timestamps.
    """

    def __init__(self, store: Store, journal: Journal, *, monitored: bool) -> None:
        self.store, self.journal, self.monitored = store, journal, monitored
        self.system: SystemMetricsMonitor | None = None
        self._opened = False
        self._inputs: set[str] = set()  # names of the data sets that MLflow knows
        self._tags: Mapping[str, str] = {}
        self._sent = 0  # epochs

    def push(self) -> None:
        """Tell MLflow what it doesn't know yet. Raises whatever MLflow raises."""
        ending = self.journal.record.ending
        client, count = self.store.client, self.journal.sync()
        if not self._opened:
            self._open()
        self._describe()
        run_id = self.journal.record.run_id
        new = [row for metrics in self.journal.history[self._sent : count] for row in rows(metrics)]
        for start in range(0, len(new), BATCH):
            log(client, run_id, metrics=new[start : start + BATCH])
        self._sent = count
        if ending:
            self._end(ending)
            self.journal.update(told=True)

    def _open(self) -> None:
        """The run, made or taken over, with all that is known of it at its beginning."""
        client, record = self.store.client, self.journal.record
        run_id = record.run_id
        if not run_id:  # it may have been made by who died before noting its id
            experiment = [self.store.experiment_id]
            made = next(search(client, experiment, f"tags.{KEY} = '{record.key}'"), None)
            tags = {KEY: record.key, KIND: "run", MLFLOW_PARENT_RUN_ID: record.parent}
            run = made or client.create_run(self.store.experiment_id, tags=tags, run_name=record.name)
            run_id = run.info.run_id
        before = self._run(run_id)
        if before.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        # nor does the description of its failure stand any more
        for name in before.data.tags.keys() & {FAILURE, REASON, *({NOTE} if FAILURE in before.data.tags else ())}:
            client.delete_tag(run_id, name)
        if not before.data.params:
            log(client, run_id, params=record.params)
        # not before: a launch takes a noted run of which MLflow has no parameters for one that was deleted
        if not record.run_id:
            self.journal.update(run_id=run_id)
        self._inputs = {each.dataset.name for each in before.inputs.dataset_inputs} if before.inputs else set()
        if self.monitored and not self.system:
            uri, resumed = self.store.uri, bool(before.data.metrics)
            self.system = SystemMetricsMonitor(run_id, resume_logging=resumed, tracking_uri=uri)
            # the report reads what it measures: MLFLOW_SYSTEM_METRICS_* would rename it, or thin it out
            self.system.sampling_interval, self.system.samples_before_logging, self.system.node_id = SYSTEM_SECONDS, 1, None
            self.system.start()
        self._opened = True

    def _run(self, run_id: str) -> Run:
        try:
            found = self.store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            if found.info.lifecycle_stage == "active":
                return found
        raise GoneError(f"run {run_id} has been deleted in MLflow")

    def _describe(self) -> None:
        """Tags and the data set, which may be known only while the run trains, or change."""
        client, record = self.store.client, self.journal.record
        if record.tags != self._tags:
            log(client, record.run_id, tags=record.tags)
            self._tags = record.tags
        sources = [(record.source, False)] if record.source else []
        for source, is_further in [*sources, *((source, True) for source in record.tested)]:
            if source.name not in self._inputs:
                _use(client, record.run_id, source, is_further=is_further)
                self._inputs.add(source.name)

    def stop(self) -> None:
        """Measure the machine no more, whether MLflow was told of the end or not."""
        if self.system:
            self.system.finish()
            self.system = None

    def _end(self, ending: Ending) -> None:
        """Results carry the last epoch's timestamp: logged a second time, they are the same."""
        client, run_id = self.store.client, self.journal.record.run_id
        if ending.results:
            last = self.journal.history[-1]
            results = [Metric(name, value, last.time, last.epoch) for name, value in ending.results.items()]
            log(client, run_id, metrics=results)
        tags = {NOTE: _summary(self.journal.record, ending, len(self.journal.history))}
        if ending.failure:
            tags |= {FAILURE: ending.failure, REASON: ending.reason[:5000]}
        log(client, run_id, tags=tags)
        for name in FILES:
            if ending.status == "FINISHED" and (self.journal.folder / name).exists():
                client.log_artifact(run_id, str(self.journal.folder / name))
        if self.system:
            self.system.collect_metrics()  # what came after the last sample: all there is of a short run
            self.system.publish_metrics(self.system.aggregate_metrics())
            self.stop()
        if ending.status == "FINISHED":  # whatever was thought of it meanwhile
            for name in client.get_run(run_id).data.tags.keys() & {FAILURE, REASON, SUPERSEDED}:
                client.delete_tag(run_id, name)
        client.set_terminated(run_id, ending.status, ending.time)


def tell(store: Store, run: TrackedRun, errors: Mapping[str, float], sources: Sequence[DataSource], commit: str) -> None:
    """Add to a finished run the errors of further tests, by the metrics' names, and what they were read from.

    Told again, as by who was interrupted, it is as if it had been told once.
    """
    known = {name for name, _ in run.data}
    for source in sources:
        if source.name not in known:
            _use(store.client, run.run_id, source, is_further=True)
    when, epochs = run.end or run.start, int(run.metrics.get(EPOCHS, 0))
    said = f"{', '.join(source.name for source in sources)} by {commit}"
    before = run.tags.get(LATER)
    tags = {LATER: f"{before}; {said}" if before else said}
    log(store.client, run.run_id, metrics=[Metric(name, value, when, epochs) for name, value in errors.items()], tags=tags)


def _use(client: MlflowClient, run_id: str, source: DataSource, *, is_further: bool) -> None:
    """Name a data set as an input of the run: its own, or a further test set."""
    used = [DatasetInput(_dataset(source), [InputTag(CONTEXT, "test")] if is_further else [])]
    try:
        client.log_inputs(run_id, used)
    except MlflowException as error:  # another run named the data set at the same moment: now it is there
        if "IntegrityError" not in str(error):
            raise
        client.log_inputs(run_id, used)


def _dataset(source: DataSource) -> Dataset:
    return Dataset(
        source.name,
        source.digest[:32],  # MLflow takes at most 36 characters; the whole stands in the profile
        "local",
        json.dumps({"folder": source.folder}),
        profile=json.dumps({**source.counts, "sha256": source.digest}),
    )


def rows(metrics: EpochMetrics) -> list[Metric]:
    """An epoch's metrics as MLflow's rows: the same again, timestamps included, so that logging them twice leaves one."""
    named = asdict(metrics)
    epoch, when = named.pop("epoch"), named.pop("time")
    for several, one in LISTS.items():
        named.update({f"{one}_{number}": value for number, value in enumerate(named.pop(several) or (), start=1)})
    return [Metric(name, value, when, epoch) for name, value in named.items() if value is not None]


def _summary(record: Record, ending: Ending, epochs: int) -> str:
    """A run's description: what came out, or why nothing did."""
    named = f"{record.name}, of *{record.tags.get(GRID, '')}*"
    if ending.failure:
        return f"**{ending.failure}** after {epochs} epochs: {ending.reason[:1000]}\n\n{named}"
    if "test_error" in ending.results:
        return f"Test error **{ending.results['test_error']:.2f} %** after {epochs} epochs.\n\n{named}"
    return f"{ending.status.capitalize()} after {epochs} epochs.\n\n{named}"
