"""What reaches MLflow, read back with MLflow's own client from a real SQLite store."""

import ast
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunData, RunInfo, RunInputs
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file

from capsnet import kernels
from capsnet.config import from_params, make_config
from capsnet.errors import InputError
from capsnet.execution import Execution, Settled
from capsnet.metrics import LISTS, EpochMetrics
from experiments import catalog, client, tracking, worker
from experiments.client import answering, log
from experiments.gridding import make_job
from experiments.jobs import Job, Place
from experiments.journal import Journal, folder_of
from experiments.known import by_config, is_settled, sorted_out, state
from experiments.locks import ALL, Launchers
from experiments.record import DataSource, Ending, Record
from experiments.runlog import RunLog, rows
from experiments.sources import Grid, read_grid
from experiments.tracking import ANALYSES, Store
from experiments.worker import run
from tests.experiments.conftest import logged, weights
from tests.experiments.conftest import opened as opened_named

METRICS = EpochMetrics(1, 1_700_000_000_000, 0.5, 0.4, 200.0, 30.0, 25.0, 1e-3, 2.0, 30.0)


def opened(mlruns: Path) -> Store:
    return opened_named(mlruns, "e")


def trained(mlruns: Path, grid: Grid, index: int = 0) -> tuple[Store, str]:
    store = opened(mlruns)
    parent = store.parent(grid.name, grid.text, grid.description)
    cell, config = list(grid.configs)[index]
    outcome = run(Job(cell, config), Place(store, mlruns / "checkpoints", grid.name, parent, Path("nowhere"), "cpu"))
    return store, outcome.run_id


def test_a_run_holds_all_that_a_reader_needs(mlruns: Path, tiny: Path, tmp_path: Path) -> None:
    grid = read_grid(str(tiny))
    store, run_id = trained(mlruns, grid)
    client = mlflow.MlflowClient(store.uri)
    found = client.get_run(run_id)
    cell, config = next(grid.configs)
    assert found.info.status == "FINISHED"
    assert from_params(found.data.params) == config
    assert (cell, found.info.run_name) == ("routing_iterations=1", "r=1 seed=0")
    tags = found.data.tags
    assert tags["grid"] == "tiny"
    assert tags["cell"] == "routing_iterations=1"
    assert client.get_run(tags["mlflow.parentRunId"]).data.tags["kind"] == "grid"
    assert "torch" in tags["versions"]
    assert "threads" in tags["hardware"]
    assert tags["git_commit"]

    names = set(EpochMetrics.__dataclass_fields__) - {"epoch", "time", *LISTS, "train_class_loss"}
    assert names | {"test_error", "parameters"} <= set(found.data.metrics)
    for name in names:
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == [1, 2]
    assert [metric.step for metric in client.get_metric_history(run_id, "test_error")] == [config.epochs]

    [given] = found.inputs.dataset_inputs
    profile = json.loads(given.dataset.profile)
    assert given.dataset.name == "digits"
    assert given.dataset.digest == profile["sha256"][:32]
    assert (profile["training"], profile["validation"], profile["test"]) == (60, 60, 360)

    files = {item.path for item in client.list_artifacts(run_id)}
    assert files == {"weights.safetensors", "test_predictions.safetensors"}
    answers = load_file(client.download_artifacts(run_id, "test_predictions.safetensors", str(tmp_path)))
    assert answers["class_lengths"].shape == (360, 10)
    assert (answers["class_lengths"].argmax(dim=1) == answers["predictions"]).all()
    wrong = (answers["predictions"] != answers["labels"]).sum().item()
    assert found.data.metrics["test_error"] == pytest.approx(100 * wrong / 360)


def test_the_logged_weights_give_the_logged_error(mlruns: Path, tiny: Path) -> None:
    import torch

    from capsnet.data import read
    from capsnet.state import TrainingState
    from capsnet.training import evaluate

    grid = read_grid(str(tiny))
    store, run_id = trained(mlruns, grid)
    _, config = next(grid.configs)
    device = torch.device("cpu")
    model = TrainingState(config, device).model
    model.load_state_dict(weights(store, run_id))
    error = evaluate(model, read(config, Path("nowhere"), device).test, 100).error
    assert error == pytest.approx(store.client.get_run(run_id).data.metrics["test_error"])


def test_a_journal_told_twice_leaves_one_run_and_one_row_of_each_epoch(mlruns: Path) -> None:
    store, journal = opened(mlruns), Journal(mlruns / "j")
    with journal.held():
        journal.begin(Record(make_config({}, "here").to_params(), "r", "", {"cell": "c"}))
        journal.append(METRICS)
        RunLog(store, journal, monitored=False).push()
        journal.update(run_id="")  # as if who made the run had died before noting its id
        RunLog(store, journal, monitored=False).push()
    [run] = store.runs()
    assert journal.record.run_id == run.run_id
    assert store.history(run.run_id, "train_loss") == [(1, 0.5)]


def test_a_run_says_how_its_steps_were_taken_even_where_compiling_failed(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a CUDA device without a C compiler."""

    def fails(*_: object) -> None:
        raise RuntimeError("no C compiler")

    given_up: set[object] = set()
    monkeypatch.setattr("capsnet.execution._failed", {"compile": given_up, "graph": set()})
    monkeypatch.setattr("capsnet.step._compiled", lambda _: fails)
    monkeypatch.setattr(Execution, "settle", lambda *_: Settled(compile=not given_up, graph=False))
    with pytest.warns(UserWarning, match="steps are eager"):
        store, run_id = trained(mlruns, read_grid(str(tiny)))
    found = mlflow.MlflowClient(store.uri).get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["steps"] == "eager"


def test_a_run_says_without_which_kernels_it_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsnet.kernels._refused", {})
    place = Place(None, Path(), "g", "", Path(), "cuda")  # type: ignore[arg-type]
    config, device = make_config({"epochs": 1}, "here"), torch.device("cuda")
    assert worker._ways(config, place, device) == "replayed from a CUDA graph"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    for what in ("the kernels of routing", "the kernels of Adam"):
        with pytest.warns(UserWarning, match=f"{what} are not used on a card: off by 3"):
            assert not kernels.accepted("off by 3", what, device)
    assert (
        worker._ways(config, place, device) == "replayed from a CUDA graph without the kernels of Adam, the kernels of routing"
    )
    assert worker._ways(config, place, torch.device("cpu")) == "eager"


def test_who_dies_before_mlflow_knows_the_parameters_leaves_no_second_run(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, store = read_grid(str(tiny)), opened(mlruns)
    cell, config = next(iter(grid.configs))
    place = Place(store, mlruns / "checkpoints", grid.name, "", Path("nowhere"), "cpu")
    journal = Journal(folder_of(place.checkpoints, config))
    log_batch = MlflowClient.log_batch

    def dies(self: MlflowClient, run_id: str, *given: Any, **named: Any) -> None:
        if named.get("params"):
            raise KeyboardInterrupt
        log_batch(self, run_id, *given, **named)

    with monkeypatch.context() as patch, journal.held():
        patch.setattr(MlflowClient, "log_batch", dies)
        journal.begin(Record(config.to_params(), "r", "", {"cell": cell}))
        with pytest.raises(KeyboardInterrupt):
            RunLog(store, journal, monitored=False).push()
    run(make_job(cell, config, by_config(store.runs()), place), place)
    [only] = store.runs()
    assert (only.status, only.params["seed"]) == ("FINISHED", str(config.seed))


def test_two_runs_that_name_a_data_set_for_the_first_time_at_once(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow looks whether it has the data set, and then adds it: another run may have done so in between."""
    log_inputs, said = MlflowClient.log_inputs, ["(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name"]

    def beaten(self: MlflowClient, *given: Any) -> None:
        if said:
            raise MlflowException(said.pop())
        log_inputs(self, *given)

    monkeypatch.setattr(MlflowClient, "log_inputs", beaten)
    store, journal = opened(mlruns), Journal(mlruns / "j")
    with journal.held():
        source = DataSource("digits", "0" * 64, "here", {"test": 1})
        journal.begin(Record(make_config({}, "here").to_params(), "r", "", {"cell": "c"}, source=source))
        RunLog(store, journal, monitored=False).push()
        [used] = store.client.get_run(journal.record.run_id).inputs.dataset_inputs
        assert used.dataset.name == "digits"
        said.append("another fault")
        journal.update(source=replace(source, name="mnist"))
        with pytest.raises(MlflowException, match="another fault"):
            RunLog(store, journal, monitored=False).push()


def test_a_runs_data_set_comes_before_further_test_sets_whatever_their_names() -> None:
    data = DatasetInput(Dataset("mnist_40", "1", "local", "{}"))
    further = [
        DatasetInput(Dataset(name, "2", "local", "{}"), [InputTag("mlflow.data.context", "test")]) for name in ("z", "affnist")
    ]
    info = RunInfo("id", "0", "somebody", "FINISHED", 0, 1, "active")
    run = Run(info, RunData(), RunInputs([*further, data]))
    assert [name for name, _ in client.tracked(run).data] == ["mnist_40", "affnist", "z"]


def test_more_metrics_than_a_batch_may_hold_arrive(mlruns: Path) -> None:
    store = opened(mlruns)
    history = [EpochMetrics(epoch, epoch, *[1.0] * 8) for epoch in range(1, 301)]
    run_id = logged(store, mlruns, make_config({}, "here"), history=history)
    assert [row[0] for row in store.history(run_id, "images_per_second")] == list(range(1, 301))


def test_no_run_is_left_out_of_a_long_search(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(mlruns)
    for seed in range(5):
        logged(store, mlruns, make_config({"seed": seed}, "here"))
    monkeypatch.setattr(client, "PAGE", 2)
    assert {run.params["seed"] for run in store.runs()} == {"0", "1", "2", "3", "4"}


def test_a_parent_is_kept_across_launches_and_holds_the_grid(mlruns: Path) -> None:
    store = opened(mlruns)
    first = store.parent("it's", "base: {}", "what it answers")
    store.end(first, "FINISHED")
    assert store.parent("it's", "base: {epochs: 2}", "what it answers") == first
    assert store.client.get_run(first).info.status == "RUNNING"
    assert list(store.parents()) == list(store.parents(running=True)) == [(first, "it's")]
    assert store.grid(first) == "base: {epochs: 2}"
    assert store.client.get_run(first).data.tags["mlflow.note.content"] == "what it answers"


def test_an_experiment_is_described_from_its_first_launch_until_something_else_describes_it(mlruns: Path) -> None:
    store = opened(mlruns)

    def described() -> str | None:
        return store.client.get_experiment(store.experiment_id).tags.get("mlflow.note.content")

    store.parent("g", "base: {}", "")
    assert described() is None
    store.parent("g", "base: {}", "Why?" + "x" * 30_000)  # MLflow would refuse it whole
    assert str(described()).startswith("g: Why?x")
    store.parent("h", "base: {}", "Another question")
    assert str(described()).startswith("g: Why?x")
    store.describe({"mlflow.note.content": "with its table"})
    store.parent("g", "base: {}", "Why?")
    assert described() == "with its table"


def test_the_experiment_launched_last_is_known(mlruns: Path) -> None:
    assert catalog.latest(mlruns) is None
    for name in ("a", "b"):
        store = Store.open(name, mlruns, create=True)
        assert store is not None
        store.parent("g", "", "")
    assert catalog.latest(mlruns) == "b"
    again = Store.open("a", mlruns, create=False)
    assert again is not None
    again.parent("g", "", "")
    assert catalog.latest(mlruns) == "a"
    assert catalog.names(mlruns) == ["a", "b"]
    assert Store.open("c", mlruns, create=False) is None


def test_what_is_known_of_a_config(mlruns: Path) -> None:
    store = opened(mlruns)
    first, second, third, fourth = (make_config({"seed": seed}, "here") for seed in range(4))
    killed = Ending("KILLED", 1)
    logged(store, mlruns, first, Ending("FAILED", 1, "error", "a fault"))
    finished = logged(store, mlruns, first, Ending("FINISHED", 1, results={"test_error": 1.0}), [METRICS])
    logged(store, mlruns, first, killed)
    logged(store, mlruns, second, killed)
    logged(store, mlruns, second, Ending("FAILED", 1, "diverged", "loss is nan"))  # the last speaks, if none finished
    logged(store, mlruns, third, killed)
    nameless = store.client.create_run(store.experiment_id, tags={"kind": "run"}).info.run_id  # of somebody else ...
    alien = store.client.create_run(store.experiment_id, tags={"kind": "run"}).info.run_id
    store.client.log_param(alien, "alien", "1")  # ... or of another version
    known, strangers = sorted_out(store.runs())
    assert [state(known.get(c)) for c in (first, second, third, fourth)] == ["finished", "diverged", "interrupted", "new"]
    assert [is_settled(known.get(c)) for c in (first, second, third, fourth)] == [True, True, False, False]
    assert strangers.keys() == {nameless, alien}
    assert "this version has no alien" in strangers[alien]
    store.supersede(finished)
    assert state(by_config(store.runs()).get(first)) == "interrupted"


def test_a_finished_run_is_found_by_its_id_in_any_experiment(mlruns: Path) -> None:
    ending = Ending("FINISHED", 1, results={"test_error": 1.0})
    for name in ("a", "b"):
        logged(opened_named(mlruns, name), mlruns, make_config({"seed": 3}, "here"), ending, [METRICS])
    store = opened_named(mlruns, "b")
    [run] = store.runs()
    for text in (run.run_id, run.run_id[:12]):
        found, same = catalog.holding(text, mlruns)
        assert (found.name, found.experiment_id, found.key) == ("b", store.experiment_id, store.key)
        assert same == run
    with pytest.raises(InputError, match="no run"):
        catalog.holding(run.run_id[1:12], mlruns)


def test_an_id_that_begins_several_runs_is_refused_with_all_of_them(mlruns: Path) -> None:
    store = opened(mlruns)
    with closing(sqlite3.connect(mlruns / "mlflow.db")) as database:
        for new in ("abcd1", "abcd2", "abc00"):
            made = store.client.create_run(store.experiment_id).info.run_id
            database.execute("UPDATE runs SET run_uuid = ? WHERE run_uuid = ?", (new + made[5:], made))
            database.commit()
    with pytest.raises(InputError, match=r"2 runs have an id that begins with abcd: abcd1\w{27}, abcd2\w{27}$"):
        catalog.holding("abcd", mlruns)


def test_a_run_without_a_trained_network_is_refused_with_what_to_do(mlruns: Path) -> None:
    store, config = opened(mlruns), make_config({}, "here")
    finished = Ending("FINISHED", 1, results={"test_error": 1.0})
    deleted = logged(store, mlruns, config, finished, [METRICS])
    store.client.delete_run(deleted)
    other = opened_named(mlruns, "other")
    gone = logged(other, mlruns, config, finished, [METRICS])
    other.client.delete_experiment(other.experiment_id)
    expected = {
        "0000": r"no run '0000': the tracking store sqlite:.* has the experiments e; make ui",
        "abc": "is no run id.* may do$",
        "e": "is no run id.*; the best run of an experiment: python -m analysis figures --experiment e$",
        "best": "is no run id",
        "%%%%": "is no run id",
        "0" * 33: "is no run id",
        deleted: rf"has been deleted in MLflow; .*.MLFLOW_TRACKING_URI=sqlite:\S+ \S*mlflow runs restore --run-id {deleted}",
        gone: f"experiment 'other', which has been deleted .*--experiment-id {other.experiment_id}",
        store.parent("g", "base: {}", ""): "of the whole grid 'g', which has no network",
        store.parent("s", "base: {}", "", "search"): "of the whole search 's', which has no network",
        store.client.create_run(store.experiment_id).info.run_id: "not logged by this program",
        logged(store, mlruns, config): "still being trained, or was interrupted",
        logged(store, mlruns, config, Ending("KILLED", 1)): r"didn't finish \(killed\)",
        logged(store, mlruns, config, Ending("FAILED", 1, "diverged", "loss is nan")): r"didn't finish \(diverged\)",
    }
    for run_id, message in expected.items():
        with pytest.raises(InputError, match=message):
            catalog.holding(run_id, mlruns)


def test_a_deleted_experiment_is_named_with_what_restores_it(mlruns: Path) -> None:
    store = opened(mlruns)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(InputError, match=rf"deleted.*--experiment-id {store.experiment_id}"):
        opened(mlruns)


def test_a_run_of_a_second_has_system_metrics(mlruns: Path, tiny: Path) -> None:
    store, run_id = trained(mlruns, read_grid(str(tiny)))
    measured = {name for name in store.client.get_run(run_id).data.metrics if name.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= measured


def test_what_the_report_reads_of_a_run_is_measured_whatever_the_environment_says(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NODE_ID", "myhost"), ("SAMPLES_BEFORE_LOGGING", "100"), ("SAMPLING_INTERVAL", "3600")):
        monkeypatch.setenv(f"MLFLOW_SYSTEM_METRICS_{name}", value)
    store, run_id = trained(mlruns, read_grid(str(tiny)))
    measured = {name for name in store.client.get_run(run_id).data.metrics if name.startswith("system/")}
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= measured


@pytest.mark.parametrize("word", ["true", "maybe"])
def test_a_failure_is_seen_at_once_whatever_the_environment_says(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Logged in the background, a test error that MLflow refused would be lost for good."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", word)
    with pytest.raises(MlflowException):
        log(opened(mlruns).client, "0" * 32, tags={"a": "b"})


def test_a_registry_elsewhere_is_left_alone(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    client = opened(mlruns).client
    client.create_registered_model("champion")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert MlflowClient(client.tracking_uri).get_registered_model("champion").name == "champion"


MAKING = """
import os, sqlite3, sys
from pathlib import Path
from experiments.tracking import Store

steps, last = [], int(sys.argv[2])

def dies(self, *given, **named):  # of the statements that make MLflow's tables one is the last
    steps.append(1)
    if len(steps) == last:
        os._exit(9)

from sqlalchemy import event
from sqlalchemy.engine import Engine
event.listen(Engine, "before_cursor_execute", dies)
Store.open("e", Path(sys.argv[1]), create=True)
print(len(steps))
"""


def test_a_start_that_is_killed_while_tables_are_made_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    def started(name: str, last: int) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", MAKING, str(tmp_path / name), str(last)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    whole = started("whole", 0)
    assert whole.returncode == 0, whole.stderr
    for share in (0.3, 0.7):  # of some hundred statements
        assert started("torn", int(share * int(whole.stdout))).returncode == 9
    again = started("torn", 0)
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in (tmp_path / "torn").iterdir()) == ["locks", "mlflow.db"]
    kept = [sqlite3.connect(tmp_path / name / "mlflow.db") for name in ("whole", "torn")]
    one, other = ([*each.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY name")] for each in kept)
    assert one == other


def test_a_store_that_holds_no_run_and_can_not_be_used_may_be_deleted(tmp_path: Path) -> None:
    """As earlier versions left it where a first launch was stopped at a bad moment."""
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE secrets (a)")
        connection.commit()
    with pytest.raises(InputError, match=rf"can't be used: .*; it holds no run and can be deleted: {tmp_path}/mlflow.db$"):
        opened(tmp_path)


def test_a_store_that_was_moved_finds_its_artifacts_and_adds_to_them(mlruns: Path, tiny: Path, tmp_path: Path) -> None:
    _, first = trained(mlruns, read_grid(str(tiny)))
    moved = mlruns.rename(tmp_path / "moved with a blank")
    store, second = trained(moved, read_grid(str(tiny)), 1)
    assert not list(mlruns.rglob("*.safetensors"))
    for run_id in (first, second):
        assert store.artifact(run_id, "weights.safetensors", tmp_path / "fetched").is_file()
        assert (moved / "artifacts" / run_id).is_dir()


def test_a_copy_of_a_store_has_its_own_artifacts(mlruns: Path, tiny: Path, tmp_path: Path) -> None:
    trained(mlruns, read_grid(str(tiny)))
    shutil.copytree(mlruns, tmp_path / "copy")
    before = sorted(mlruns.rglob("*.safetensors"))
    trained(tmp_path / "copy", read_grid(str(tiny)), 1)
    assert sorted(mlruns.rglob("*.safetensors")) == before
    _, third = trained(mlruns, read_grid(str(tiny)), 2)
    assert (mlruns / "artifacts" / third).is_dir()


def test_a_store_that_was_moved_before_it_had_artifacts(mlruns: Path, tmp_path: Path) -> None:
    opened(mlruns)
    moved = mlruns.rename(tmp_path / "moved")
    parent = opened(moved).parent("g", "base: {}", "")
    assert (moved / "artifacts" / parent).is_dir()


def test_nobody_changes_paths_of_a_launch_that_lives(mlruns: Path, tmp_path: Path) -> None:
    """As who looks at its folder from another place where it is mounted."""
    store = opened(mlruns)
    store.parent("g", "base: {}", "")
    moved = mlruns.rename(tmp_path / "mounted")
    with Launchers(moved, store.name, store.key).only(ALL):
        opened(moved)
        assert store.client.get_experiment_by_name("e").artifact_location == (mlruns / "artifacts").as_uri()  # type: ignore[union-attr]


def test_artifacts_that_are_kept_elsewhere_on_purpose_stay_there(mlruns: Path, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    away = (tmp_path / "away" / "artifacts").as_uri()
    client = MlflowClient(f"sqlite:///{mlruns / 'mlflow.db'}")
    client.create_run(client.create_experiment("e", away))
    opened(mlruns)
    found = client.get_experiment_by_name("e")
    assert found is not None
    assert found.artifact_location == away


def test_a_store_that_fails_has_not_gone_away(mlruns: Path) -> None:
    store = opened(mlruns)
    with pytest.raises(InputError, match=r"mlflow.db failed: .*; the same command goes on"), answering(store.uri):
        store.client.get_run("0" * 32)
    with pytest.raises(InputError, match=r"127.0.0.1:9 has gone away: no"), answering("http://127.0.0.1:9"):
        raise OSError("no")


def test_a_description_of_any_length_is_kept_whole_with_the_grid(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    store, words = opened(mlruns), "long " * 5000
    parent = store.parent("g", f"description: {words}", words)
    assert words.startswith(store.client.get_run(parent).data.tags[tracking.NOTE])
    assert store.grid(parent) == f"description: {words}"


def test_a_name_that_is_no_text_is_refused(mlruns: Path) -> None:
    with pytest.raises(InputError, match=r"name is no text: 'a\\udcff'"):
        Store.open("a\udcff", mlruns, create=True)


def test_a_server_that_does_not_answer_is_named_within_seconds(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 can't be used.*MLFLOW_TRACKING_URI"):
        opened(mlruns)
    assert time.monotonic() - start < 15


def test_to_look_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "none"
    assert Store.open("e", folder, create=False) is None
    assert catalog.latest(folder) is None
    assert catalog.names(folder) == []
    with pytest.raises(InputError, match=r"the tracking store .* is empty"):
        catalog.holding("0123abcd", folder)
    assert not folder.exists()


def test_artifacts_lie_beside_the_database_that_the_environment_names(
    mlruns: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (mlruns / "mlflow.db").rename(tmp_path / "other" / "x.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other' / 'x.db'}")
    trained(mlruns, read_grid(str(tiny)))
    assert list((tmp_path / "other" / "artifacts").rglob("weights.safetensors"))


@pytest.mark.parametrize("name", [*ANALYSES, "Default"])
def test_a_name_that_something_else_has_is_refused(name: str, mlruns: Path) -> None:
    with pytest.raises(InputError, match=rf"can't be called '{name}'.*--experiment names another"):
        Store.open(name, mlruns, create=True)
    assert name == "Default" or Store.open(name, mlruns, create=False) is None


def test_every_command_of_the_analysis_is_such_a_name() -> None:
    source = ast.parse((Path(__file__).parents[2] / "analysis" / "__main__.py").read_text())
    [match] = [node for node in ast.walk(source) if isinstance(node, ast.Match)]
    assert {ast.unparse(case.pattern) for case in match.cases} == {f"['{name}']" for name in ANALYSES}


def test_an_endless_name_is_refused(mlruns: Path) -> None:
    with pytest.raises(InputError, match="300 characters; 200 are the most"):
        Store.open("x" * 300, mlruns, create=True)


def test_a_store_that_is_no_database_is_refused(mlruns: Path) -> None:
    (mlruns / "mlflow.db").write_text("not a database, but a text")
    with pytest.raises(InputError, match=r"mlflow.db can't be used"):
        opened(mlruns)


def test_lengths_of_hidden_capsules_are_a_metric_for_each_layer() -> None:
    found = {metric.key: metric.value for metric in rows(replace(METRICS, hidden_lengths=(0.75, 0.5)))}
    assert {name: value for name, value in found.items() if "hidden" in name} == {
        "hidden_length_1": 0.75,
        "hidden_length_2": 0.5,
    }
    assert not [metric.key for metric in rows(METRICS) if "hidden" in metric.key]


def test_changes_of_the_logits_are_a_metric_for_each_pass() -> None:
    found = {metric.key: metric.value for metric in rows(replace(METRICS, logit_changes=(0.5, 0.25)))}
    assert (found["logit_change_1"], found["logit_change_2"]) == (0.5, 0.25)
    assert not [name for name in found if name.startswith("logit_changes")]
    assert not [metric.key for metric in rows(METRICS) if "logit" in metric.key], "none in runs of older versions"
