"""The tidy table from a real store: one row per config, with failures and what has not run."""

import time
from pathlib import Path

import pytest

from analysis.__main__ import folder_name
from analysis.runs import CURVES, read_runs
from capsnet.config import make_config
from capsnet.errors import InputError
from capsnet.state import EpochMetrics
from experiments.record import Ending
from experiments.tracking import Store
from tests.experiments.conftest import logged

GRID = "base: {epochs: 2}\naxes: {routing_iterations: [1, 3]}\nseeds: 2"


@pytest.fixture(scope="module")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in which one run finished, one diverged, one was interrupted and one has not started."""
    folder = tmp_path_factory.mktemp("mlruns")
    store = Store.open("e", folder, create=True)
    assert store is not None
    parent = store.parent("g", GRID, "")
    history = [EpochMetrics(n, n, 0.5 / n, 0.4, None, 30.0, 25.0 / n, 1e-3, 2.0, 30.0) for n in (1, 2)]
    now = time.time_ns() // 1_000_000
    for r, seed, epochs, ending in (
        (1, 0, 2, Ending("FINISHED", now, results={"test_error": 0.5, "parameters": 7})),
        (1, 1, 1, Ending("FAILED", now, "diverged", "DivergedError: the training loss of epoch 2 is nan")),
        (3, 0, 0, Ending("KILLED", now)),
    ):
        config = make_config({"epochs": 2, "routing_iterations": r, "seed": seed}, "here")
        logged(store, folder, config, ending, history[:epochs], {"git_commit": "abc"}, parent)
    stranger = store.client.create_run(store.experiment_id, tags={"kind": "run"}).info.run_id
    store.client.log_param(stranger, "alien", "1")
    store.client.create_run(store.experiment_id)  # somebody's run that claims nothing
    return folder


def test_a_row_per_config(mlruns: Path) -> None:
    found = read_runs("e", mlruns)
    rows = {(row.routing_iterations, row.seed): row for row in found.runs.itertuples()}
    assert {key: row.status for key, row in rows.items()} == {
        (1, 0): "finished",
        (1, 1): "failed",
        (3, 0): "killed",
        (3, 1): "planned",
    }
    assert rows[1, 0].test_error == 0.5
    assert rows[1, 0].validation_error == 12.5
    assert rows[1, 0].seconds == 4.0
    assert rows[1, 0].git_commit == "abc"
    assert rows[1, 0].ended.year >= 2026
    assert (rows[1, 1].failure, rows[1, 1].test_error != rows[1, 1].test_error) == ("diverged", True)
    assert "epoch 2 is nan" in rows[1, 1].reason
    assert found.runs["epochs"].tolist() == [2] * 4
    [reason] = found.strangers.values()
    assert "'alien'" in reason


def test_curves_hold_every_epoch_of_every_metric(mlruns: Path) -> None:
    curves = read_runs("", mlruns).curves  # the experiment launched last
    assert set(curves["metric"]) == set(CURVES) - {"train_reconstruction_loss"}
    per_run = curves[curves["metric"] == "train_loss"].groupby("run_id")["value"].apply(list)
    assert sorted(per_run.tolist()) == [[0.5], [0.5, 0.25]]


def test_an_unknown_experiment_lists_those_that_there_are(mlruns: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown experiment 'f'.*choices: e"):
        read_runs("f", mlruns)
    with pytest.raises(InputError, match="nothing has been launched yet"):
        read_runs("", tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("quick", "quick"), ("../../etc", "__.._etc"), ("a/b", "a_b"), ("..", "_"), ("r=3 w/o", "r=3_w_o")],
)
def test_a_name_never_leads_out_of_the_results(name: str, folder: str) -> None:
    assert folder_name(name) == folder
    assert (Path("results") / folder_name(name)).resolve().parent == Path("results").resolve()
