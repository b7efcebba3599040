"""The journal of one run: a folder on disk that holds all there is to know of the run until MLflow has it.

    run.json              what the run is, its id in MLflow, and how it ended
    history.jsonl         a line for each epoch, with its timestamp; synced before MLflow is told of it
    last.safetensors      the last checkpoint, and before.safetensors the one before it
    weights.safetensors   of a run that has ended, with test_predictions.safetensors

Training writes here and nowhere else, so that a tracking server may go away in the middle. A run that goes on from a
checkpoint trains the epochs after it again; they keep the lines, and so the timestamps, of their first time: MLflow's key of a
metric holds timestamp, step and value, so that an epoch that is logged again is still there once.
"""

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from capsnet.config import RunConfig
from capsnet.errors import InputError
from capsnet.files import replaced, synced
from capsnet.metrics import EpochMetrics
from experiments.locks import is_locked
from experiments.record import DataSource, Ending, Record

if TYPE_CHECKING:  # a plan reads journals and needs no torch
    import torch

    from capsnet.state import Snapshot, TrainingState

GONE = ".gone-"  # begins the name of a folder that is being deleted
LOOK = 0.5  # seconds: more than a look at a lock takes
TAIL = 8192  # bytes: some twenty epochs
WEIGHTS, PREDICTIONS = FILES = ("weights.safetensors", "test_predictions.safetensors")


class Progress(NamedTuple):
    """How far a run is, by its files on this machine."""

    epochs: int  # that are done with
    training: bool  # whether a process is at it now


class BusyError(RuntimeError):
    """Another process holds the journal: it is training the run."""


class Journal:
    """The folder of one config's run within an experiment. Only who holds it writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.before = folder / "last.safetensors", folder / "before.safetensors"
        self.history: list[EpochMetrics] = []
        self._record: Record | None = None
        self._mutex = threading.RLock()  # the run's thread and the one that talks to MLflow
        self._held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the journal, read what is there, and let go of it at the end; the system does so for a process that dies.

        Raises:
            BusyError: another process holds it.
            InputError: run.json can't be read by this version.
        """
        lock = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _take(handle)
            except BlockingIOError:
                os.close(handle)
                raise BusyError(f"another process is training this run (it holds {lock})") from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(lock), os.fstat(handle)):
                    break
            os.close(handle)  # whoever held it has just removed the journal, and this lock with it
        try:
            self._read()
            for torn in self.folder.glob(".*.[0-9]*"):  # what a process that was killed was writing: capsnet/files.py
                torn.unlink(missing_ok=True)
            self._held = True
            yield
        finally:
            with self._mutex:
                self._held = False
                os.close(handle)

    @property
    def busy(self) -> bool:
        """Whether a process holds it now."""
        return is_locked(self.folder / "lock")

    @property
    def record(self) -> Record:
        """What is known of the run."""
        assert self._record is not None, "no run was begun"
        return self._record

    @property
    def begun(self) -> bool:
        """Whether there is a run in it."""
        return self._record is not None

    def begin(self, record: Record) -> None:
        """Write down what the run is."""
        with self._mutex:
            if not self._held:
                raise BusyError("the journal has been let go of")  # to a thread that waited too long for a server
            self._record = record  # first: a disk that is full is no reason not to tell MLflow
            with replaced(self.folder / "run.json") as temporary:
                temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")

    def update(self, **changes: Any) -> None:
        """Change some fields of the record."""
        with self._mutex:
            self.begin(replace(self.record, **changes))

    def append(self, metrics: EpochMetrics) -> EpochMetrics:
        """Write an epoch down. One that is trained again stands there already: what it was the first time is returned."""
        if metrics.epoch <= len(self.history):
            return self.history[metrics.epoch - 1]
        assert metrics.epoch == len(self.history) + 1
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(metrics)) + "\n")
        self.history.append(metrics)
        return metrics

    def sync(self) -> int:
        """Bring the history to the disk; the number of epochs that are safe there."""
        count = len(self.history)
        if count:
            synced(self.folder / "history.jsonl")
        return count

    def save(self, state: "TrainingState | Snapshot") -> None:
        """Write a checkpoint; the one that was the last becomes the one before. The history is brought to the disk first."""
        self.sync()
        if self.last.exists():
            self.last.replace(self.before)
        state.save(self.last)

    def load(self, config: RunConfig, device: "torch.device") -> "TrainingState | None":
        """The newest whole checkpoint; None if there is none, so that training begins at the beginning.

        Raises:
            InputError: a checkpoint is of another config, or of a version that this one can't read; nothing is overwritten.
        """
        from capsnet.state import DamagedError, TrainingState

        for path in (self.last, self.before):
            if not path.exists():
                continue
            try:
                state = TrainingState.load(path, device)
            except DamagedError:
                path.unlink()  # so that the next one to be saved doesn't put it in the place of a whole one
                continue
            if state.config != config:
                raise InputError(f"the checkpoint {path} is of another config: move it away, or delete it")
            for metrics in state.history[len(self.history) :]:  # lines that a power cut took
                self.append(metrics)
            return state
        return None

    def latest(self) -> list[EpochMetrics]:
        """The last epochs, for whoever looks on without holding the journal."""
        return list(_epochs(self._tail()))

    def epochs_done(self, config: RunConfig) -> int:
        """How many epochs of the config's are done with, for whoever looks on: all if it stopped before the last."""
        if not (history := self.latest()):
            return 0
        return config.epochs if config.stops_at(history[-1].validation_error) else history[-1].epoch

    def _tail(self) -> list[bytes]:
        try:
            with (self.folder / "history.jsonl").open("rb") as file:
                size, length = file.seek(0, os.SEEK_END), TAIL
                while True:
                    file.seek(max(0, size - length))
                    lines = file.read().split(b"\n")
                    if size <= length or len(lines) > 2:  # the first is a part of one, and so is what no end follows
                        return lines[size > length : -1]
                    length *= 2
        except OSError:
            return []

    def remove(self) -> None:
        """Delete the journal, at once for whoever looks, of a run that MLflow has whole or that has no use any more."""
        bin_ = self.folder.with_name(f"{GONE}{uuid4().hex}")
        self.folder.rename(bin_)
        shutil.rmtree(bin_, ignore_errors=True)
        self.history, self._record = [], None

    def _read(self) -> None:
        path = self.folder / "run.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            source, ending, tested = held.pop("source"), held.pop("ending"), held.pop("tested", ())
            self._record = Record(
                **held,
                source=source and DataSource(**source),
                ending=ending and Ending(**ending),
                tested=[DataSource(**each) for each in tested],
            )
        except FileNotFoundError:
            self._record = None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise InputError(
                f"{path} is of another version of this program, or damaged ({error}): use the version that wrote it, or delete "
                f"{self.folder} to train the run from the beginning"
            ) from None
        self.history, lines = [], self.folder / "history.jsonl"
        if lines.exists():
            ended = lines.read_bytes().split(b"\n")[:-1]
            self.history = list(_epochs(ended))
            kept = sum(len(line) + 1 for line in ended[: len(self.history)])
            if kept < lines.stat().st_size:  # a line that a power cut tore
                os.truncate(lines, kept)


def _take(handle: int) -> None:
    """Lock a file for oneself; a BlockingIOError of another who holds it, and doesn't just look whether somebody does."""
    until = time.monotonic() + LOOK
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(LOOK / 50)


def folder_of(checkpoints: Path, config: RunConfig) -> Path:
    """A config's folder: named by what differs from the defaults, so that a field which is new doesn't rename the old ones."""
    params = config.to_params()
    differing = {name: params[name] for name in config.differing}
    return checkpoints / hashlib.sha256(json.dumps(differing, sort_keys=True).encode()).hexdigest()[:20]


def journals(checkpoints: Path) -> Iterator[Journal]:
    """All that there are; what is left of deleted ones is swept away."""
    for folder in sorted(checkpoints.glob("*")):
        if folder.name.startswith(GONE):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir():
            yield Journal(folder)


def look(checkpoints: Path, config: RunConfig) -> Progress | None:
    """How far a config's run is; None if there is no journal."""
    journal = Journal(folder_of(checkpoints, config))
    return Progress(journal.epochs_done(config), journal.busy) if journal.folder.exists() else None


def _epochs(lines: list[bytes]) -> Iterator[EpochMetrics]:
    """The whole lines, up to the first that is not: a power cut leaves zeros."""
    for line in lines:
        try:
            yield EpochMetrics(**json.loads(line))
        except (ValueError, TypeError):
            return
