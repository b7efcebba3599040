"""A tiny grid from its YAML to its table and plots, by the commands that the Makefile calls."""

import subprocess
import sys
from pathlib import Path

import pytest

GRID = """
description: two routings, and a learning rate that can't work
base: {dataset: digits, train_size: 60, validation_size: 60, augmentation: none, conv_channels: 8, conv_kernel: 5,
  primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 2, batch_size: 20, lr_schedule: constant}
axes: {routing_iterations: [1, 3], learning_rate: [1e-3, 1e30]}
seeds: 2
"""


def test_from_yaml_to_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "small_rates.yaml").write_text(GRID)
    folders = ["--mlruns", str(tmp_path / "mlruns")]

    def call(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", *words, *folders], capture_output=True, text=True, check=False)

    ran = call("experiments", "run", str(tmp_path / "small_rates.yaml"), "--workers", "0")
    assert ran.returncode == 1, ran.stderr  # half of it diverges
    assert ran.stderr.count("failed:") == 4
    analysed = call("analysis", "--results", str(tmp_path / "results"))
    assert analysed.returncode == 0, analysed.stderr
    assert "(n=2)" in analysed.stdout
    assert "— (n=0 of 2; 2 diverged)" in analysed.stdout

    made = tmp_path / "results" / "small_rates"
    page = (made / "report.html").read_text()
    assert "not drawn: heat_map: reconstruction weight does not vary" in page

    def files() -> dict[str, bytes]:
        return {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}

    before = files()
    tables = {
        "accuracy.md",
        "accuracy.tex",
        "accuracy.html",
        "ablation.md",
        "differences.tex",
        "effects.html",
        "cells.csv",
        "runs.csv",
    }
    assert tables | {"error_by_epoch.png", "test_error_by_axis.pdf", "mistaken_images.png", "report.html"} <= before.keys()
    assert {Path(name).name for name in before} >= {
        "reconstructions.png",
        "perturbations.pdf",
        "perturbation.gif",
        "routing.png",
    }
    again = call("experiments", "run", str(tmp_path / "small_rates.yaml"))
    assert "8 runs, 8 of them settled already" in again.stdout
    assert call("analysis", "small_rates", "--results", str(tmp_path / "results")).returncode == 0
    assert files() == before

    some = call("analysis", "small_rates", "--where", "routing_iterations=1", "--only", "tables", "--results", str(made.parent))
    assert "4 runs, 2 finished; only those with routing_iterations=1, which leaves out 4;" in some.stdout
    assert (made.parent / "small_rates_where_routing_iterations=1" / "accuracy.tex").exists()
    assert files() == before  # what is filtered takes the place of nothing

    assert "beside the grid" not in analysed.stderr + some.stderr
    (tmp_path / "small_rates.yaml").write_text(GRID.replace("seeds: 2", "seeds: 1"))
    call("experiments", "run", str(tmp_path / "small_rates.yaml"), "--workers", "0")
    edited = call("analysis", "small_rates", "--only", "tables", "--results", str(tmp_path / "edited"))
    assert "beside the grid: 4 runs of configs that no grid here has any more" in edited.stderr

    unknown = call("analysis", "small_rate", "--results", str(tmp_path / "results"))
    assert unknown.returncode == 2
    assert "did you mean 'small_rates'" in unknown.stderr
    assert "Traceback" not in unknown.stderr
