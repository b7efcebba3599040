"""The shipped grids of natural images, network for network, on small files in the official formats: from YAML to the tables."""

import csv
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from experiments.sources import SHIPPED, read_grid
from tests.official import WRITERS, small


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """``python -m`` the first word with the others as arguments, in this process, because it knows of the small files."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, words)))
        patch.delitem(sys.modules, f"{words[0]}.__main__", raising=False)  # which another test may have imported
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(str(words[0]), run_name="__main__", alter_sys=True)
    return int(ended.value.code or 0)


SLOW = [pytest.param(dataset, "all", marks=pytest.mark.slow) for dataset in WRITERS]  # half a minute each


@pytest.mark.parametrize(("dataset", "only"), [("svhn", "tables"), *SLOW])
def test_a_shipped_grid_trains_on_small_official_files(
    dataset: str, only: str, tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an epoch and two seeds instead of 50 and its own; everything else is as shipped."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlruns, grid, results = tmp_path / "mlruns", tmp_path / f"{dataset}.yaml", tmp_path / "results"
    mlruns.mkdir()
    shutil.copy(migrated, mlruns)
    yaml = YAML(typ="safe", pure=True)
    text = yaml.load(SHIPPED / grid.name)
    text["base"]["epochs"], text["seeds"] = 1, 2
    yaml.dump(text, grid)
    cells = len(read_grid(dataset).cells)
    with small(dataset, tmp_path / "data"):
        places = ["--data", tmp_path / "data", "--mlruns", mlruns]
        assert call(monkeypatch, "experiments", "run", grid, "--workers", "0", "--device", "cpu", *places) == 0
        assert call(monkeypatch, "analysis", dataset, "--only", only, *places, "--results", results) == 0
    shutil.rmtree(mlruns)  # hundreds of megabytes of weights
    with (results / dataset / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["n"], row["failures"]) for row in rows] == [("2", "")] * cells
    assert [row["published_n"] for row in rows] == [""] * cells
    table = (results / dataset / "ensembles.md").read_text().splitlines()
    lines = [[text.strip() for text in line.strip("| ").split("|")] for line in table if "(n=2)" in line]
    assert len(lines) == cells
    assert all("20" in line and "2" in line for line in lines), "of two networks on 20 images"
    if only == "all":
        page = (results / dataset / "report.html").read_text()
        assert '<h2 id="ensembles-title">Ensembles</h2>' in page
        assert (results / dataset / "mistaken_images.png").exists()
        assert "not drawn: the" not in page
        assert (dataset == "cifar10") != bool(list(results.rglob("reconstructions.png")))
