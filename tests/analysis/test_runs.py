"""The tidy table from a real store: one row per config, with failures and what has not run."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from mlflow.exceptions import MlflowException

from analysis.places import folder_name
from analysis.runs import CURVES, numbered, read_runs
from capsnet.config import make_config
from capsnet.errors import InputError
from capsnet.metrics import EpochMetrics
from experiments.record import Ending
from experiments.tracking import Store
from tests.experiments.conftest import logged, opened
from tests.experiments.test_plan import filled

EPOCH = (1, 1, 0.5, 0.4, None, 30.0, 25.0, 1e-3, 2.0, 30.0)
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
        (1, 0, 2, Ending("FINISHED", now, results={"test_error": 0.5, "parameters": 7, "train_seconds": 4.0})),
        (1, 1, 1, Ending("FAILED", now, "diverged", "DivergedError: the training loss of epoch 2 is nan")),
        (3, 0, 0, Ending("KILLED", now)),
    ):
        config = make_config({"epochs": 2, "routing_iterations": r, "seed": seed}, "here")
        run_id = logged(store, folder, config, ending, history[:epochs], {"git_commit": "abc"}, parent)
    store.client.log_metric(run_id, "test_error", 9.0)  # of a run that has not finished: no result
    stranger = store.client.create_run(store.experiment_id, tags={"kind": "run"}).info.run_id
    store.client.log_param(stranger, "alien", "1")
    store.client.create_run(store.experiment_id, run_name="my own")  # somebody's run that claims nothing
    return folder


def test_what_capsules_did_last_is_in_a_runs_row(mlruns: Path, tmp_path: Path) -> None:
    """Each of several numbers in a column of its own; ten come after two."""
    shutil.copytree(mlruns, tmp_path, dirs_exist_ok=True)
    store = Store.open("e", tmp_path, create=False)
    assert store is not None
    told = {"coupling_entropy": 2.1, "right_length": 0.8, "dead_primary_capsules": 3}
    lengths = [n / 16 for n in range(12)]
    history = [replace(EpochMetrics(*EPOCH), **told, hidden_lengths=lengths, logit_changes=[0.5 * e], epoch=e) for e in (1, 2)]
    config = make_config({"epochs": 2, "routing_iterations": 2, "hidden_capsules": [16] * 12}, "here")
    ending = Ending("FINISHED", 1, results={"test_error": 0.5})
    logged(store, tmp_path, config, ending, history, {}, store.parent("h", GRID, ""))
    runs = read_runs("e", tmp_path).runs
    [row] = runs[runs["hidden_capsules"] != "[]"].to_dict("records")
    assert {name: row[name] for name in told} == told
    assert row["logit_change_1"] == 1.0
    assert numbered(runs, "hidden_length") == [f"hidden_length_{n}" for n in range(1, 13)]
    assert [row[name] for name in numbered(runs, "hidden_length")] == lengths
    assert numbered(runs, "logit_change") == ["logit_change_1"]
    assert runs[runs["hidden_capsules"] == "[]"][[*told, "hidden_length_1"]].isna().all(axis=None)


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
    assert rows[3, 0].test_error != rows[3, 0].test_error
    assert rows[1, 0].seconds == 4.0
    assert rows[1, 0].git_commit == "abc"
    assert rows[1, 0].ended.year >= 2026
    assert (rows[1, 1].failure, rows[1, 1].test_error != rows[1, 1].test_error) == ("diverged", True)
    assert "epoch 2 is nan" in rows[1, 1].reason
    assert found.runs["epochs"].tolist() == [2] * 4
    assert len(found.strangers) == 2  # named, whether they claim to be a run of ours or not
    assert any("this version has no alien" in reason for reason in found.strangers.values())
    assert "'my own' was logged by something else" in found.strangers.values()


def test_a_store_that_goes_away_while_it_is_read_is_told(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> NoReturn:
        raise MlflowException("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "history", gone)
        with pytest.raises(InputError, match=r"store sqlite:.* failed: database is locked; the same command goes on"):
            _ = read_runs("e", mlruns).curves
    monkeypatch.setattr(Store, "sort_out", gone)
    with pytest.raises(InputError, match="failed: database is locked"):
        read_runs("e", mlruns)


def test_columns_have_types_even_where_nothing_has_run(mlruns: Path) -> None:
    for rows in (read_runs("e", mlruns).runs, read_runs("e", mlruns, ["status=planned"]).runs):
        types = {name: str(kind) for name, kind in rows.dtypes.items()}
        assert {types[name] for name in ("routing_iterations", "seed", "epochs")} == {"int64"}
        assert {types[name] for name in ("reconstruction_weight", "test_error", "seconds", "parameters")} == {"float64"}
        assert {types[name] for name in ("lr_schedule", "decoder_hidden", "status", "reason", "git_commit")} == {"str"}
        assert types["capsule_bias"] == "bool"
        assert types["ended"].startswith("datetime64")
        assert types["ended"].endswith("UTC]")


def test_a_drawn_number_is_found_by_the_digits_that_are_shown(mlruns: Path) -> None:
    store = opened(mlruns, "drawn")
    for rate in (0.0032941234567, 0.0033111234567, 0.0033112345678):
        logged(store, mlruns / "journals", make_config({"learning_rate": rate}, "here"))
    assert len(read_runs("drawn", mlruns, ["learning_rate=0.003294"]).runs) == 1
    with pytest.raises(InputError, match=r"=0.003311 is the beginning of several: 0.0033111234567, 0.0033112345678"):
        read_runs("drawn", mlruns, ["learning_rate=0.003311"])


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["routing_iterations=3"], [(3, 0), (3, 1)]),
        (["routing_iterations=3", "seed=1"], [(3, 1)]),
        (["seed=0", "seed=1", "routing_iterations=1"], [(1, 0), (1, 1)]),
        (["status=finished"], [(1, 0)]),
        (["failure=diverged"], [(1, 1)]),
        (["test_error=0.5"], [(1, 0)]),
        (["parameters=7"], [(1, 0)]),
        (["epochs_trained=2", "seconds=4.0"], [(1, 0)]),
        (["capsule_bias=false", "seed=1"], [(1, 1), (3, 1)]),
        (["decoder_hidden=[512,1024]", "seed=1"], [(1, 1), (3, 1)]),
        (["reconstruction_weight=5e-4", "seed=1"], [(1, 1), (3, 1)]),
        (["lr_schedule=exponential(every=2000, gamma=.96, floor=0.001)", "seed=1"], [(1, 1), (3, 1)]),
    ],
)
def test_a_filter_for_any_column(mlruns: Path, where: list[str], left: list[tuple[int, int]]) -> None:
    rows = read_runs("e", mlruns, where).runs
    assert list(zip(rows["routing_iterations"], rows["seed"], strict=True)) == left
    assert list(rows.index) == list(range(len(left)))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (["rooting_iterations=3"], "unknown column 'rooting_iterations'.*did you mean 'routing_iterations'"),
        (["routing_iterations"], "must be column=value"),
        (["routing_iterations=2"], r"no run has --where routing_iterations=2; there are: 1, 3"),
        (["routing_iterations=three"], "there are: 1, 3"),
        (["routing_iterations=true"], "there are: 1, 3"),
        (["capsule_bias=0"], "there are: false"),
        (["parameters=8"], "no run has --where parameters=8; there are: 7$"),
        (["parameters=many"], "there are: 7"),
        (
            ["lr_schedule=exponental(gamma=0.96)"],
            r"^no run has --where lr_schedule=exponental\(gamma=0.96\): unknown lr_schedule 'exponental'; did you mean "
            r"'exponential'\? \(choices: constant, .*\); there are: exponential\(gamma=0.96, every=2000, floor=0.001\)$",
        ),
        (["loss=spread(begin=1)"], r"^no run has --where loss=spread\(begin=1\): unknown parameter .*; there are: margin$"),
        (["status=finished", "seed=1"], "no run of e has all of --where status=finished --where seed=1"),
    ],
)
def test_a_wrong_filter_names_what_there_is(mlruns: Path, where: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_runs("e", mlruns, where)


def test_several_experiments_are_one_table_in_which_a_config_counts_once(mlruns: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    shutil.copytree(mlruns, folder)
    store = Store.open("f", folder, create=True)
    assert store is not None
    ended = time.time_ns() // 1_000_000
    for r, seed, error in ((1, 0, 9.0), (1, 1, 0.75), (5, 0, 1.5)):  # finished in e, diverged in e, unknown to e
        config = make_config({"epochs": 2, "routing_iterations": r, "seed": seed}, "here")
        logged(store, tmp_path, config, Ending("FINISHED", ended, results={"test_error": error}), [EpochMetrics(*EPOCH)])
    found = read_runs(["e", "f"], folder)
    rows = {(row.routing_iterations, row.seed): row for row in found.runs.itertuples()}
    assert {key: (row.experiment, row.status) for key, row in rows.items()} == {
        (1, 0): ("e", "finished"),
        (1, 1): ("f", "finished"),
        (3, 0): ("e", "killed"),
        (3, 1): ("e", "planned"),
        (5, 0): ("f", "finished"),
    }
    assert [rows[key].test_error for key in ((1, 0), (1, 1), (5, 0))] == [0.5, 0.75, 1.5]
    assert found.repeated == 1
    assert found.unplanned == 1
    assert found.experiment == "e+f"
    assert read_runs(["f", "e"], folder).runs.set_index(["routing_iterations", "seed"])["test_error"][1, 0] == 9.0
    assert set(found.curves["run_id"]) == {row.run_id for row in rows.values() if isinstance(row.run_id, str)} - {
        rows[3, 0].run_id
    }


def test_runs_that_an_edited_grid_no_longer_has_are_counted(tmp_path: Path) -> None:
    store = Store.open("e", tmp_path, create=True)
    assert store is not None
    parent = store.parent("g", GRID, "")
    finished = Ending("FINISHED", 1, results={"test_error": 1.0})
    logged(store, tmp_path, make_config({"epochs": 2}, "here"), finished, [EpochMetrics(*EPOCH)], parent=parent)
    assert read_runs("e", tmp_path).unplanned == 0
    store.parent("g", GRID.replace("epochs: 2", "epochs: 4"), "")
    found = read_runs("e", tmp_path)
    assert len(found.runs) == 1 + 4
    assert found.unplanned == 1
    assert found.runs["in_grid"].tolist() == [epochs == 4 for epochs in found.runs["epochs"]]
    now = read_runs("e", tmp_path, ["in_grid=true"])
    assert (len(now.runs), now.unplanned) == (4, 0)
    assert read_runs("e", tmp_path, ["epochs=2"]).unplanned == 1


def test_curves_hold_every_epoch_of_every_metric(mlruns: Path) -> None:
    curves = read_runs("", mlruns).curves  # the experiment launched last
    later = CURVES[CURVES.index("images_per_second") + 1 :]  # runs of older versions have none, and nor have these
    absent = {"train_reconstruction_loss", "train_class_loss", *later}
    assert set(curves["metric"]) == set(CURVES) - absent
    per_run = curves[curves["metric"] == "train_loss"].groupby("run_id")["value"].apply(list)
    assert sorted(per_run.tolist()) == [[0.5], [0.5, 0.25]]


def test_an_unknown_experiment_lists_those_that_there_are(mlruns: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown experiment 'f'.*choices: e"):
        read_runs("f", mlruns)
    with pytest.raises(InputError, match="nothing has been launched yet"):
        read_runs("", tmp_path)
    with pytest.raises(InputError, match=r"unknown experiment 'figure'; choices: e; or did you mean .* analysis figures\?"):
        read_runs("figure", mlruns)


def test_grids_that_cannot_be_read_are_left_out_with_a_note(mlruns: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    shutil.copytree(mlruns, folder)
    store = Store.open("e", folder, create=False)
    assert store is not None
    died = store.client.create_run(store.experiment_id, tags={"kind": "grid", "grid": "died"}).info.run_id
    old = store.parent("old", "base: {gone: 1}", "")  # of another version, as runs of one may be
    found = read_runs("e", folder)
    assert len(found.runs) == 4
    assert [grid.name for grid in found.grids["e"]] == ["g"]
    assert f"grid 'died' planned can't be read: run {died} has no grid.yaml" in found.strangers[died]
    assert "grid 'old' planned can't be read: unknown key 'gone' in base of grid old" in found.strangers[old]
    other = Store.open("f", folder, create=True)
    assert other is not None
    other.client.create_run(other.experiment_id, tags={"kind": "grid", "grid": "h"})
    with pytest.raises(
        InputError, match=r"'f' holds no run of a grid, and what grid 'h' planned can't be read: .*; experiments"
    ):
        read_runs("f", folder)


def test_what_has_other_names_has_other_folders() -> None:
    names = ["a/b", "a_b", "a b", "a:b", "a_where_r=1", "a+b", ".a", "_a"]
    folders = {
        folder_name(name, where=where) for name in names for where in ([], ["r=1"], ["r=1", "s=0"], ["r=(1)"], ["r=[1]"])
    }
    assert len(folders | {folder_name("a", "b")}) == 5 * len(names) + 1
    assert folder_name("a", "b", where=["r=1", "s=0"]) == "a+b_where_r=1_where_s=0"
    assert folder_name("a", where=["s=0"], reference="r=1") == "a_where_s=0_against_r=1"
    assert folder_name("a", reference="r=1 s=0") not in (
        folder_name("a", reference="r=1_s=0"),
        folder_name("a_against_r=1 s=0"),
    )
    assert folder_name("a/b") == folder_name("a/b"), "whenever it is asked"


@pytest.mark.parametrize(
    ("name", "folder"),
    [("quick", "quick"), ("../../etc", "__.._etc-"), ("a/b", "a_b-"), ("..", "_-"), ("r=3 w/o", "r=3_w_o-")],
)
def test_a_name_never_leads_out_of_the_results(name: str, folder: str) -> None:
    assert re.fullmatch(re.escape(folder) + r"[0-9a-f]{6}" * folder.endswith("-"), folder_name(name))
    assert (Path("results") / folder_name(name)).resolve().parent == Path("results").resolve()


TIMED = """
import sys, time
from pathlib import Path
from analysis.runs import read_runs
from experiments.tracking import Store

times = []
search = Store.sort_out

def timed(store):
    start = time.process_time()
    try:
        return search(store)
    finally:
        times.append(time.process_time() - start)

Store.sort_out = timed
read_runs("e", Path(sys.argv[1]))  # what is imported or connected at first use is not the table's
added = []
for _ in range(2):
    start = time.process_time()
    rows = len(read_runs("e", Path(sys.argv[1])).runs)
    added.append(time.process_time() - start - times[-1])
print(rows, min(times), min(added))
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2500, 10_000])
def test_the_table_adds_at_most_a_quarter_to_the_search_and_leaves_no_page_out(
    mlruns: Path, tmp_path: Path, count: int
) -> None:
    """Processor time, because a busy machine makes either wait."""
    filled(tmp_path, count)
    done = subprocess.run([sys.executable, "-c", TIMED, str(tmp_path)], capture_output=True, text=True, check=True)
    rows, search, added = map(float, done.stdout.split())
    assert rows == count
    assert added <= 0.25 * search
