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
from experiments.provenance import git_commit, hardware, versions
from experiments.tracking import CELL, GRID, DataSource, RunLog, Store

Report = Callable[[EpochMetrics], None]


@dataclass(frozen=True)
class Place:
    """Where the runs of one launch compute and where they are recorded; none of it changes a number."""

    experiment: str
    folder: Path  # of mlflow.db and artifacts
    grid: str
    parent: str  # run id
    data: Path
    device: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    seconds: float
    test_error: float | None = None  # percent, if it finished
    failure: str = ""  # diverged, out of memory or error, if it failed
    reason: str = ""


def run(config: RunConfig, cell: str, place: Place, report: Report) -> Outcome:
    """Train a config and test it once, after its last epoch; a failure is recorded and returned, not raised.

    Ctrl-C is recorded and raised again.
    """
    started = time.monotonic()
    tags = {GRID: place.grid, CELL: cell, "git_commit": git_commit(), "versions": versions(), "hardware": hardware()}
    store = Store.open(place.experiment, place.folder, create=True)
    assert store is not None
    log = RunLog(store, config, place.parent, tags, f"{cell} seed={config.seed}")
    try:
        error = _train(config, place, log, report)
    except KeyboardInterrupt:
        log.kill()
        raise
    except Exception as fault:  # whatever a run dies of, the others go on
        kind = _kind(fault)
        reason = f"{type(fault).__name__}: {fault}"
        log.fail(kind, reason)
        return Outcome(log.run_id, time.monotonic() - started, failure=kind, reason=reason)
    return Outcome(log.run_id, time.monotonic() - started, test_error=error)


def _train(config: RunConfig, place: Place, log: RunLog, report: Report) -> float:
    device = choose_device(place.device)
    data = read(config, place.data, device)
    counts = {"training": len(data.training), "validation": len(data.validation), "test": len(data.test)}
    log.data(DataSource(config.dataset, data.digest, str(place.data.resolve()), counts))
    state = TrainingState(config, device)
    for metrics in train(state, data):
        log.epoch(metrics)
        report(metrics)
    result = evaluate(state.model, data.test, config.test_batch_size)
    parameters = sum(p.numel() for p in state.model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), state, data, result)
        log.finish(config.epochs, {"test_error": result.error, "parameters": parameters}, files)
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
