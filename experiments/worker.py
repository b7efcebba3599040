"""What a worker does: train one config from beginning to end, tell the tracking store of it, and say how it ended."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from capsnet.config import RunConfig
from capsnet.data import Data, read
from capsnet.errors import InputError
from capsnet.state import EpochMetrics, TrainingState
from capsnet.training import DivergedError, Evaluation, choose_device, evaluate, train
from experiments.checkpoints import Checkpoints
from experiments.provenance import git_commit, hardware, versions
from experiments.tracking import CELL, GRID, DataSource, RunLog, Store

Report = Callable[[EpochMetrics], None]


@dataclass(frozen=True)
class Place:
    """Where the runs of one launch compute and where they are recorded; none of it changes a number."""

    experiment: str
    folder: Path  # of mlflow.db, artifacts and checkpoints
    grid: str
    parent: str  # run id
    data: Path
    device: str
    checkpoint_every: float = 60.0  # seconds from one checkpoint to the next, at the end of an epoch


@dataclass(frozen=True)
class Job:
    """A config to train, or to go on with."""

    cell: str
    config: RunConfig
    unfinished: str = ""  # id of the run that was begun with it before, if any

    @property
    def name(self) -> str:
        """How the run is called in MLflow and on the screen."""
        return f"{self.cell} seed={self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    seconds: float
    test_error: float | None = None  # percent, if it finished
    failure: str = ""  # diverged, out of memory, input or error, if it failed
    reason: str = ""


def run(job: Job, place: Place, report: Report) -> Outcome:
    """Train a config and test it once, after its last epoch; a failure is recorded and returned, not raised.

    A run that was begun before goes on from its last checkpoint, under its own id. Ctrl-C is recorded and raised again.
    """
    started = time.monotonic()
    store = Store.open(place.experiment, place.folder, create=True)
    assert store is not None
    log, state = _begin(job, place, store)
    try:
        error = _train(state, Checkpoints(place.folder, log.run_id), place, log, report)
    except KeyboardInterrupt:
        log.kill()
        raise
    except Exception as fault:  # whatever a run dies of, the others go on
        kind = _kind(fault)
        reason = f"{type(fault).__name__}: {fault}"
        if kind == "diverged":  # its last epochs won't be trained again, so they may be told of without a checkpoint
            log.epochs(state.history)
        log.fail(kind, reason)
        return Outcome(log.run_id, time.monotonic() - started, failure=kind, reason=reason)
    return Outcome(log.run_id, time.monotonic() - started, test_error=error)


def _begin(job: Job, place: Place, store: Store) -> tuple[RunLog, TrainingState]:
    device = choose_device(place.device)
    tags = {GRID: place.grid, CELL: job.cell, "git_commit": git_commit(), "versions": versions(), "hardware": hardware()}
    if job.unfinished:
        try:
            saved = Checkpoints(place.folder, job.unfinished).load(job.config, device)
        except InputError as error:  # nothing to go on from, and MLflow may hold epochs: they stay, under that id
            RunLog.take_over(store, job.unfinished, tags).fail("checkpoint lost", str(error))
        else:
            return RunLog.take_over(store, job.unfinished, tags), saved or TrainingState(job.config, device)
    return RunLog.start(store, job.config, place.parent, tags, job.name), TrainingState(job.config, device)


def _train(state: TrainingState, checkpoints: Checkpoints, place: Place, log: RunLog, report: Report) -> float:
    config = state.config
    data = read(config, place.data, state.device)
    counts = {"training": len(data.training), "validation": len(data.validation), "test": len(data.test)}
    log.data(DataSource(config.dataset, data.digest, str(place.data.resolve()), counts))
    log.epochs(state.history)
    saved = time.monotonic()
    for metrics in train(state, data):
        report(metrics)
        if state.finished or time.monotonic() - saved >= place.checkpoint_every:
            checkpoints.save(state)
            saved = time.monotonic()
            log.epochs(state.history)
    result = evaluate(state.model, data.test, config.test_batch_size)
    parameters = sum(p.numel() for p in state.model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), state, data, result)
        log.finish(state.history[-1], {"test_error": result.error, "parameters": parameters}, files)
    checkpoints.remove()
    return result.error


def _files(folder: Path, state: TrainingState, data: Data, result: Evaluation) -> list[Path]:
    weights, predictions = folder / "weights.safetensors", folder / "test_predictions.safetensors"
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.model.state_dict().items()}
    save_file(tensors, weights, {"config": json.dumps(state.config.to_params())})
    answers = {"labels": data.test.labels.cpu(), "predictions": result.predictions, "class_lengths": result.scores}
    save_file(answers, predictions)
    return [weights, predictions]


def _kind(fault: Exception) -> str:
    if isinstance(fault, DivergedError):
        return "diverged"
    if isinstance(fault, MemoryError) or "out of memory" in str(fault) or "can't allocate memory" in str(fault):
        return "out of memory"
    if isinstance(fault, InputError):
        return "input"
    return "error"
