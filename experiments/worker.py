"""What a worker does: train one config to its end and say how it ended. All that it learns goes into the run's journal."""

import atexit
import gc
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from capsnet import agreement_native, further, interrupts
from capsnet.config import RunConfig
from capsnet.data import Data, Split, read
from capsnet.errors import InputError, brief, of_device
from capsnet.files import replaced
from capsnet.kernels import refused
from capsnet.metrics import EpochMetrics
from capsnet.state import Snapshot, TrainingState
from capsnet.training import Evaluation, choose_device, errors_at, evaluate, train
from experiments import stores
from experiments.client import FAULTS
from experiments.jobs import Job, Outcome, Place, kind, trial_state
from experiments.journal import FILES, BusyError, Journal, folder_of
from experiments.labels import brief_label
from experiments.provenance import code, git_commit, hardware, versions
from experiments.record import (
    BEFORE,
    CELL,
    CODE,
    COMMIT,
    DIFFERING,
    EPOCHS,
    FURTHER,
    GRID,
    HARDWARE,
    OTHER_R,
    ROUTED,
    STEPS,
    TRIAL,
    TRIAL_STATE,
    VERSIONS,
    DataSource,
    Ending,
    Record,
    now,
)
from experiments.recorder import PATIENCE, Recorder
from experiments.runlog import GoneError, RunLog

TIMES = ("time", "seconds", "images_per_second")  # fields of an epoch that differ when it is trained again


def run(job: Job, place: Place) -> Outcome:
    """Train a config and test it once, after its last epoch; a failure is recorded and returned, not raised.

    A run that was begun before goes on from its last checkpoint, under its own id. Ctrl-C and SIGTERM are recorded, with a
    checkpoint of the last epoch that is whole, and raised again. The journal of a run that settled stays until the launch
    knows how it ended (:func:`acknowledge`).
    """
    started = time.monotonic()
    _set_modules_aside()
    if place.threads:
        torch.set_num_threads(place.threads)
    journal = Journal(folder_of(place.checkpoints, job.config))
    try:
        with journal.held():
            before = journal.record.ending if journal.begun else None
            # a run that settled is never trained again, even if who trained it died before its launch knew
            if before and before.settled:
                ending, untold = _settled_before(before, place, journal)
            else:
                ending, untold = _recorded(job, place, journal)
            run_id, history = journal.record.run_id, list(journal.history)
    except (InputError, BusyError) as fault:  # the journal is of another version, or somebody else's
        return Outcome(job.run_id, time.monotonic() - started, failure=kind(fault), reason=str(fault))
    finally:
        gc.collect()
        with suppress(RuntimeError):  # where every use of CUDA fails, this one does, too
            torch.cuda.empty_cache()  # what this process doesn't use, another one on the same card can
    if place.expendable and ending.failure != "out of memory" and of_device(ending.reason):
        os._exit(1)  # every use of CUDA in this process would fail from now on
    errors = [(metrics.epoch, metrics.validation_error) for metrics in history if metrics.validation_error is not None]
    return Outcome(
        run_id,
        time.monotonic() - started,
        ending.results.get("test_error"),
        ending.failure,
        ending.reason,
        untold,
        _values(ending, history),
        errors,
    )


@cache
def _set_modules_aside() -> None:
    """Have collections after a run look only through what came since: of 700,000 objects of imported modules none will go."""
    gc.freeze()
    atexit.register(gc.unfreeze)  # when the process ends they do, and libraries complain if not


def acknowledge(job: Job, place: Place) -> None:
    """Delete the journal of a run that settled, once MLflow and the launch both know how it ended."""
    journal = Journal(folder_of(place.checkpoints, job.config))
    if not journal.folder.exists():
        return
    with suppress(BusyError, InputError, OSError), journal.held():
        record = journal.record if journal.begun else None
        if record and record.told and record.ending and record.ending.settled:
            journal.remove()


def _settled_before(ending: Ending, place: Place, journal: Journal) -> tuple[Ending, str]:
    """The ending of a run that settled before, and why MLflow doesn't know of it, if it doesn't."""
    try:
        if not journal.record.told:
            RunLog(place.store, journal, monitored=False).push()
    except (GoneError, *FAULTS) as fault:
        return ending, stores.shown(brief(fault, 120))
    return ending, ""


def _values(ending: Ending, history: Sequence[EpochMetrics]) -> dict[str, float]:
    """What a search may minimise."""
    if ending.status != "FINISHED":
        return {}
    found = {"seconds": sum(metrics.seconds for metrics in history), "parameters": ending.results["parameters"]}
    last = history[-1].validation_error
    return found if last is None else {"validation_error": last, **found}


def _recorded(job: Job, place: Place, journal: Journal) -> tuple[Ending, str]:
    """How the run ended, and why MLflow doesn't know of it, if it doesn't."""
    _begin(job, place, journal)
    recorder, trainer, patience = Recorder(place.store, journal), _Trainer(job, place, journal), PATIENCE
    try:
        try:
            ending = trainer.finish()
        except PrunedError as fault:
            ending = Ending("KILLED", now(), "pruned", str(fault))
        except Exception as fault:  # whatever a run dies of, the others go on
            ending = Ending("FAILED", now(), kind(fault), f"{type(fault).__name__}: {fault}")
        except BaseException:  # Ctrl-C, or SIGTERM
            patience = 3.0
            for leave in (trainer.keep, lambda: journal.update(ending=Ending("KILLED", now()))):
                with suppress(Exception):  # on a disk that is full: safetensors has an error of its own for it
                    leave()
            raise
        with suppress(OSError):  # on a disk that is full: MLflow and the launch are told nevertheless
            told = {TRIAL_STATE: trial_state(ending.failure, ending.reason)} if job.trial else {}
            journal.update(ending=ending, tags={**journal.record.tags, **told})
    finally:
        untold = recorder.close(patience)
        if trainer.trial:
            trainer.trial.close()
    return ending, untold


def _begin(job: Job, place: Place, journal: Journal) -> None:
    """Write down what the run is, or who goes on with it."""
    device = choose_device(place.device)
    steps = _ways(job.config, place, device)
    made_by = {COMMIT: git_commit(), CODE: code(), VERSIONS: versions(), HARDWARE: hardware(), STEPS: steps}
    routed = agreement_native.told(job.config, device)
    if routed:
        made_by[ROUTED] = routed
    tags = {GRID: place.grid, CELL: job.cell, DIFFERING: " ".join(job.config.differing), **made_by}
    if job.trial:
        tags[TRIAL] = job.trial
    if not journal.begun:
        journal.begin(Record(job.config.to_params(), brief_label(job.name), place.parent, tags, run_id=job.run_id))
        return
    before = journal.record.tags
    changed = [f"{name} {before[name]}" for name in made_by if before.get(name, tags[name]) != tags[name]]
    if CODE not in before and before.get(COMMIT) != tags[COMMIT]:  # a version that had no digest yet began it
        changed.append(f"{CODE} unknown")
    if changed:
        told = f"to epoch {len(journal.history)}: {', '.join(changed)}"  # what was trained by other code, or elsewhere
        tags[BEFORE] = f"{before[BEFORE]}; {told}" if BEFORE in before else told
    journal.update(tags={**before, **tags}, ending=None, told=False)


def _ways(config: RunConfig, place: Place, device: torch.device) -> str:
    """How steps are taken, as far as is known: ``replayed from a CUDA graph without the kernels of Adam``."""
    missing = refused(device) if device.type == "cuda" else []  # on a CPU the tag ROUTED tells
    return str(place.execution.settle(config, device)) + (f" without {', '.join(missing)}" if missing else "")


class PrunedError(RuntimeError):
    """The run's trial does worse than others did at the same epoch."""


class _Trainer:
    """Trains one run from its last checkpoint to its end."""

    def __init__(self, job: Job, place: Place, journal: Journal) -> None:
        self.config, self.place, self.journal = job.config, place, journal
        self.trial = job.watch.open() if job.watch else None
        self.snapshot: Snapshot | None = None  # the last whole epoch, if no checkpoint holds it

    def finish(self) -> Ending:
        """Train, test once, and leave weights and predictions in the journal."""
        device = choose_device(self.place.device)
        data = read(self.config, self.place.data, device)
        counts = {"training": len(data.training), "validation": len(data.validation), "test": len(data.test)}
        source = DataSource(self.config.dataset, data.digest, str(self.place.data.resolve()), counts)
        self._refuse_others(self.journal.record.source, source)
        self.journal.update(source=source)
        state = self.journal.load(self.config, device) or TrainingState(self.config, device)
        self._train(state, data)
        steps = _ways(self.config, self.place, device)  # which a compiler that failed has changed, or a kernel
        if steps != self.journal.record.tags[STEPS]:
            self.journal.update(tags={**self.journal.record.tags, STEPS: steps})
        result = evaluate(state.model, data.test, self.config.test_batch_size)
        parameters = sum(p.numel() for p in state.model.parameters())
        _write_files(self.journal.folder, state, data, result)
        seconds = sum(metrics.seconds for metrics in state.history)
        results = {"test_error": result.error, "parameters": parameters, "train_seconds": seconds, EPOCHS: len(state.history)}
        others = errors_at(state.model, data.test, self.config.test_batch_size, self.config.test_routing_iterations)
        results |= {f"{OTHER_R}{r}": error for r, error in others.items()}
        results |= {f"{FURTHER}{name}": self._tested(name, state, data.test) for name in self.config.test_sets}
        return Ending("FINISHED", now(), results=results)

    def _tested(self, name: str, state: TrainingState, test: Split) -> float:
        """The error on a further test set, of which the journal is told; it lies on the device for no longer than that."""
        split, digest = further.split(name, self.place.data, test, state.model)
        source = DataSource(name, digest, str(self.place.data.resolve()), {"test": len(split)})
        before = {each.name: each for each in self.journal.record.tested}  # as of a run that is tested again
        self._refuse_others(before.get(name), source)
        self.journal.update(tested=[*(before | {name: source}).values()])
        return evaluate(state.model, split, self.config.test_batch_size).error

    def _refuse_others(self, before: DataSource | None, source: DataSource) -> None:
        """Raise an InputError if the run has read other files than those that are there now: its record is of the first."""
        if before and before.digest != source.digest:
            raise InputError(
                f"the run was begun with {before.name} of SHA-256 {before.digest[:16]}, and the files in {source.folder} have "
                f"{source.digest[:16]}: put those back, or delete {self.journal.folder}, and it is trained from the beginning"
            )

    def keep(self) -> None:
        """Save the last whole epoch of a run that is being stopped."""
        if self.snapshot:
            self.journal.save(self.snapshot)

    def _train(self, state: TrainingState, data: Data) -> None:
        saved = time.monotonic()
        for metrics in train(state, data, execution=self.place.execution):
            self.snapshot = state.snapshot()  # first: an interruption may come at any moment
            state.history[-1] = self._written(metrics)
            self.snapshot = replace(self.snapshot, history=tuple(state.history))
            if state.finished or time.monotonic() - saved >= self.place.checkpoint_every:
                self.journal.save(self.snapshot)
                self.snapshot, saved = None, time.monotonic()
            interrupts.check()
            if self.trial and self.trial.prunes([m.validation_error for m in state.history]) and not state.finished:
                raise PrunedError(f"pruned at epoch {metrics.epoch} of {self.config.epochs}")

    def _written(self, metrics: EpochMetrics) -> EpochMetrics:
        """The epoch as it stands in the journal, where it may stand since before an interruption."""
        written = self.journal.append(metrics)
        if _numbers(written) != _numbers(metrics):  # MLflow has those, the weights come from these: not to be hidden
            note = f"epoch {metrics.epoch} was trained again with other bits, as on another machine or number of threads"
            self.journal.update(tags={**self.journal.record.tags, "other_bits": note})
        return written


def _numbers(metrics: EpochMetrics) -> Mapping[str, Any]:
    return {name: value for name, value in vars(metrics).items() if name not in TIMES}


def _write_files(folder: Path, state: TrainingState, data: Data, result: Evaluation) -> None:
    weights = {name: tensor.cpu().contiguous() for name, tensor in state.model.state_dict().items()}
    answers = {"labels": data.test.labels.cpu(), "predictions": result.predictions, "class_lengths": result.scores}
    metadata = {"config": json.dumps(state.config.to_params())}
    for name, tensors in zip(FILES, (weights, answers), strict=True):
        with replaced(folder / name) as temporary:
            save_file(tensors, temporary, metadata)
