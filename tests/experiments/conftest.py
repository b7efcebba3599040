"""A grid so small that it trains in a second, and a tracking folder of its own for each test."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from capsnet.config import RunConfig
    from capsnet.metrics import EpochMetrics
    from experiments.gridding import Summary
    from experiments.record import Ending
    from experiments.tracking import Store

TINY = """
description: two routings of a tiny network
base:
  dataset: digits
  train_size: 60
  validation_size: 60
  augmentation: none
  conv_channels: 8
  conv_kernel: 5
  primary_types: 2
  primary_kernel: 5
  decoder_hidden: [16]
  epochs: 2
  batch_size: 20
  lr_schedule: constant
axes:
  routing_iterations: [1, 3]
seeds: 2
"""


@pytest.fixture
def mlruns(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(migrated, folder)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def opened(mlruns: Path, name: str = "tiny") -> "Store":
    from experiments.tracking import Store

    store = Store.open(name, mlruns, create=True)
    assert store is not None
    return store


def weights(store: "Store", run_id: str) -> "dict[str, Tensor]":
    """What a run has learned; the client alone would leave a copy in the temporary folder."""
    from safetensors.torch import load_file

    with TemporaryDirectory() as folder:
        return load_file(store.artifact(run_id, "weights.safetensors", Path(folder)))


def launched(mlruns: Path, text: str, name: str = "tiny", *, wish: Any = None, engine: Any = None, **place: Any) -> "Summary":
    """Launch a grid in this process, with a checkpoint after each epoch."""
    from experiments.executors import Engine, Inline
    from experiments.gridding import Wish, run_grid
    from experiments.jobs import Place
    from experiments.locks import Launchers
    from experiments.sources import parse_grid

    store, wish = opened(mlruns, name), wish or Wish()
    engine = engine or Engine(Inline())
    place = {"checkpoint_every": 0.0, "threads": engine.threads, **place}
    where = Place(store, mlruns / "checkpoints" / store.key, name, "", Path("nowhere"), "cpu", **place)
    launchers = Launchers(mlruns, name, store.key)
    import torch

    threads = torch.get_num_threads()
    try:
        with launchers.only(wish.shard):
            return run_grid(parse_grid(text, name, f"{name}.yaml"), launchers, where, engine, wish)
    finally:
        torch.set_num_threads(threads)


def logged(
    store: "Store",
    folder: Path,
    config: "RunConfig",
    ending: "Ending | None" = None,
    history: "Sequence[EpochMetrics]" = (),
    tags: Mapping[str, str] = {},
    parent: str = "",
) -> str:
    """The id of a run that was told to MLflow by its journal, without any training."""
    from uuid import uuid4

    from experiments.journal import Journal
    from experiments.record import Record
    from experiments.runlog import RunLog

    journal = Journal(folder / uuid4().hex)
    with journal.held():
        journal.begin(Record(config.to_params(), "r", parent, tags))
        for metrics in history:
            journal.append(metrics)
        log = RunLog(store, journal, monitored=False)
        log.push()
        if ending:
            journal.update(ending=ending)
            log.push()
        return journal.record.run_id


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(mlruns: Path) -> Command:
    """``python -m experiments ...`` as a user runs it, with the test's own tracking folder."""

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "experiments", *arguments, "--mlruns", str(mlruns)]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    return call
