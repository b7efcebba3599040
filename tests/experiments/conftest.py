"""A grid so small that it trains in a second, and a tracking database that is made once and copied."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty database: making one takes seconds, copying it none."""
    from experiments import tracking

    folder = tmp_path_factory.mktemp("migrated")
    tracking._client(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


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


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(mlruns: Path) -> Command:
    """``python -m experiments ...`` as a user runs it, with the test's own tracking folder."""

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "experiments", *arguments, "--mlruns", str(mlruns)]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    return call
