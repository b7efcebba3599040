"""Tables of runs as analysis.runs makes them, with made-up but realistic errors, and a few runs that were really trained."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.cells import Cell, cells
from analysis.comparisons import Comparisons, Images, compare
from analysis.published import Published
from capsnet.config import RunConfig
from tests.experiments.conftest import launched

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCHEDULES = ["constant", "exponential(gamma=0.5, every=40)", "one_cycle(rise=0.4, start=0.1)"]
QUICK = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "lr_schedule": SCHEDULES}
QUICK_BASE = {"dataset": "digits", "train_size": 600, "validation_size": 237, "epochs": 8, "batch_size": 32}
QUICK_BASE |= {"conv_channels": 32, "conv_kernel": 5, "primary_types": 8, "primary_kernel": 5, "decoder_hidden": (64, 128)}
PAPER = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}


PICTURES = """
base: {dataset: digits, train_size: 300, validation_size: 100, augmentation: none, conv_channels: 16, conv_kernel: 5,
  primary_types: 4, primary_kernel: 5, decoder_hidden: [32], epochs: 4, batch_size: 20, learning_rate: 3e-3,
  lr_schedule: constant, reconstruction_weight: 0.01}
axes: {routing_iterations: [3]}
also:
  - {routing: uniform, routing_iterations: 1, reconstruction_weight: 0}
seeds: 2
"""


def row(experiment: str, number: int, values: dict[str, Any], test_error: float) -> dict[str, Any]:
    config = RunConfig(**values)
    return {
        **{name: json.dumps(value) if isinstance(value, tuple) else value for name, value in config.model_dump().items()},
        "experiment": experiment,
        "run_id": f"run{number:03d}",
        "status": "finished",
        "failure": None,
        "reason": None,
        "test_error": test_error,
        "validation_error": test_error + 0.5 if config.validation_size else np.nan,
        "train_error": test_error / 2,
        "train_loss": test_error / 50,
        **dict.fromkeys(("right_length", "wrong_length", "coupling_entropy", "dead_primary_capsules"), np.nan),
        "parameters": 8_215_568.0,
        "epochs_trained": float(config.epochs),
        "seconds": 12.5,
        "git_commit": COMMIT,
        "code": "0123456789abcdef",
        "hardware": "2 cores",
        "versions": "torch 2.15",
        "data_sha256": None,
        "ended": pd.Timestamp("2026-11-22 10:00", tz="UTC") + pd.Timedelta(minutes=number),
    }


@pytest.fixture
def make_runs() -> Callable[..., pd.DataFrame]:
    """(axes, seeds, base, experiment, errors) -> a finished run for every combination; errors in order, else random."""

    def make(
        axes: dict[str, list[Any]],
        seeds: int = 3,
        base: dict[str, Any] | None = None,
        experiment: str = "quick",
        errors: list[float] | None = None,
    ) -> pd.DataFrame:
        generator = np.random.default_rng(0)
        products = itertools.product(*axes.values(), range(seeds))
        rows = []
        for number, values in enumerate(products):
            error = errors[number] if errors else round(generator.integers(5, 22) * 100 / 360, 4)
            rows.append(row(experiment, number, {**(base or {}), **dict(zip([*axes, "seed"], values, strict=True))}, error))
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures that are saved, by name, instead of the files."""
    from analysis import figures, routing_figure

    kept: dict[str, Any] = {}

    def save(figure: Any, stem: Path) -> list[Path]:
        figure.draw_without_rendering()
        kept[stem.name] = figure
        return []

    for module in (figures, routing_figure):
        monkeypatch.setattr(module, "save", save)
    return kept


@pytest.fixture(scope="session")
def gallery(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracking folder of an experiment "pictures": two seeds with a decoder and r = 3, two of uniform routing without."""
    folder = tmp_path_factory.mktemp("gallery")
    shutil.copy(migrated, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        summary = launched(folder, PICTURES, "pictures")
    assert not summary.failed
    return folder


@pytest.fixture
def quick(make_runs: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """36 runs of a grid with the axes of the shipped quick: three seeds, and three schedules."""
    return make_runs(QUICK, base=QUICK_BASE)


@pytest.fixture
def paper(make_runs: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """The paper's four cells with 6 seeds each."""
    return make_runs(PAPER, seeds=6, experiment="paper", errors=[round(0.25 + 0.01 * (i * 7 % 11), 2) for i in range(24)])


@pytest.fixture
def fail() -> Callable[..., None]:
    """(runs, rows, status, failure): those rows never finished."""

    def mark(runs: pd.DataFrame, rows: list[int], status: str = "failed", failure: str | None = "diverged") -> None:
        runs.loc[rows, ["test_error", "validation_error"]] = np.nan
        runs.loc[rows, "status"] = status
        runs["failure"] = runs["failure"].astype(object)
        runs.loc[rows, "failure"] = failure
        if status == "planned":
            runs.loc[rows, ["run_id", "git_commit"]] = None
            runs.loc[rows, "ended"] = pd.NaT

    return mark


@pytest.fixture
def make_curves() -> Callable[[pd.DataFrame], pd.DataFrame]:
    """(runs) -> their metrics per epoch, falling towards the run's errors."""

    def make(runs: pd.DataFrame) -> pd.DataFrame:
        generator = np.random.default_rng(1)
        rows: list[tuple[str, int, str, float]] = []
        for run in runs[runs["run_id"].notna()].to_dict("records"):
            for epoch in range(1, run["epochs"] + 1):
                fall = np.exp(-5 * epoch / run["epochs"]) * np.exp(generator.normal(0, 0.15))
                margin = 0.01 + 0.5 * fall
                metrics = {"train_margin_loss": margin, "train_error": 1 + 40 * fall, "learning_rate": 1e-3}
                metrics["train_loss"] = margin
                if run["reconstruction_weight"]:
                    metrics["train_reconstruction_loss"] = 15 + 40 * fall
                    metrics["train_loss"] += run["reconstruction_weight"] * metrics["train_reconstruction_loss"]
                if run["validation_size"]:
                    metrics["validation_error"] = round((2 + 60 * fall) * 2.37) / 2.37
                rows += [(run["run_id"], epoch, metric, float(value)) for metric, value in metrics.items()]
        return pd.DataFrame(rows, columns=["run_id", "epoch", "metric", "value"])

    return make


@pytest.fixture
def judge() -> Callable[..., Comparisons]:
    """(runs, published, images) -> their cells compared; with made-up answers of each cell's finished runs if images > 0."""

    def answers(cell: Cell, images: int, generator: np.random.Generator) -> Images | None:
        if not (runs := cell.error.n):
            return None
        labels = np.arange(images) % 10
        wrong = generator.random((runs, images)) < np.linspace(0, 0.9, images) ** 3
        given = np.where(wrong, (labels + generator.integers(1, 10, wrong.shape)) % 10, labels)
        votes = (given[:, :, None] == np.arange(10)).sum(axis=0)
        low, high = max(cell.error.mean - 1.1, 0.0), cell.error.mean + 1.3
        interval = replace(cell.error, low=low, high=high, kind="95% bootstrap interval over seeds and test images")
        return Images(interval, replace(interval, mean=1.0), labels, votes, generator.random((images, 10)))

    def make(runs: pd.DataFrame, published: tuple[Published, ...] = (), images: int = 0) -> Comparisons:
        made = compare(cells(runs, published), {})
        generator = np.random.default_rng(2)
        return replace(made, images=[answers(cell, images, generator) for cell in made.cells]) if images else made

    return make
