"""Runs that end at a validation error, and further test sets: what is recorded, and what a launch, a plan and a kill do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

import capsnet.training
from analysis.runs import read_runs
from capsnet import further
from capsnet.config import from_params, make_config
from capsnet.data import read
from capsnet.errors import InputError
from capsnet.state import Snapshot, TrainingState
from capsnet.training import evaluate
from experiments import worker
from experiments.costs import Costs, epochs_of
from experiments.journal import folder_of, look
from experiments.known import by_config
from experiments.sources import parse_grid
from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened, weights

LONG = TINY.replace("[1, 3]", "[1]").replace("train_size: 60", "train_size: 200")
LONG = LONG.replace("epochs: 2\n", "epochs: 6\n  learning_rate: 0.005\n")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> tuple[float, dict[str, int]]:
    """An error that both seeds fall to after some epochs, not all; seed -> that epoch, by the history of runs of all epochs."""
    import shutil

    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(migrated, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        launched(folder, LONG)
        store = opened(folder)
        histories = {run.params["seed"]: dict(store.history(run.run_id, "validation_error")) for run in store.runs()}
    lowest = {seed: np.minimum.accumulate([history[e] for e in range(1, 7)]) for seed, history in histories.items()}
    wanted = max(float(errors[3]) for errors in lowest.values())
    stops = {seed: int(np.argmax(errors <= wanted)) + 1 for seed, errors in lowest.items()}
    assert all(1 < epoch < 6 for epoch in stops.values()), stops
    return wanted, stops


def stopping(error: float, more: str = "") -> str:
    return LONG.replace("epochs: 6\n", f"epochs: 6\n  stop_at_error: {error!r}\n{more}")


def histories(store: Store) -> dict[str, Any]:
    return {run.params["seed"]: dict(store.history(run.run_id, "validation_error")) for run in store.runs()}


def test_a_run_ends_after_the_first_epoch_that_is_good_enough(
    mlruns: Path, target: tuple[float, dict[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    error, stops = target
    summary = launched(mlruns, stopping(error))
    store = opened(mlruns)
    assert (summary.finished, summary.failed) == (2, [])
    for seed, history in histories(store).items():
        assert list(history) == list(range(1, stops[seed] + 1))
        assert history[stops[seed]] <= error < min(list(history.values())[:-1])
    for run in store.runs():
        assert run.status == "FINISHED"
        assert run.metrics["epochs_trained"] == stops[run.params["seed"]]
        steps = [metric.step for metric in store.client.get_metric_history(run.run_id, "test_error")]
        assert steps == [stops[run.params["seed"]]]
    rows = read_runs("tiny", mlruns).runs
    assert dict(zip(rows["seed"].astype(str), rows["epochs_trained"], strict=True)) == stops
    assert set(rows["epochs"]) == {6}
    assert "stopped after epoch" in capsys.readouterr().out
    again = launched(mlruns, stopping(error))
    assert (again.before, again.finished) == (2, 0), "it counts as finished"
    assert not list((mlruns / "checkpoints").glob("*/[!.]*"))


def test_a_run_that_never_gets_there_says_so(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launched(mlruns, stopping(0.001).replace("epochs: 6", "epochs: 2"))
    assert capsys.readouterr().out.count("never reached the validation error of 0.001 %") == 2
    for run in opened(mlruns).runs():
        assert (run.status, run.metrics["epochs_trained"]) == ("FINISHED", 2)


def test_without_an_error_to_stop_at_nothing_stops_and_nothing_is_said(
    mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not make_config({}, "here").stops_at(0.0)
    launched(mlruns, TINY)
    printed = capsys.readouterr().out
    assert "test error" in printed
    assert "stopped after" not in printed
    assert "never reached" not in printed


@pytest.mark.parametrize("at", [1, 0])
def test_a_run_that_is_killed_before_or_at_its_stop_goes_on_to_the_bit(
    mlruns: Path, migrated: Path, target: tuple[float, dict[str, int]], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """``at`` epochs before its last, or after it and before its test: then nothing is left to train."""
    error, stops = target
    text = stopping(error).replace("seeds: 2", "seeds: [0]")
    [(_, config)] = parse_grid(text, "tiny", "tiny.yaml").configs
    checkpoints = mlruns / "checkpoints" / opened(mlruns).key
    folder = folder_of(checkpoints, config)

    class Killed(BaseException):
        pass

    def dies(self: Snapshot, path: Path) -> None:
        save(self, path)
        if len(self.history) == stops["0"] - at:
            raise Killed

    save = Snapshot.save
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "save", dies)
        with pytest.raises(Killed):
            launched(mlruns, text)
    assert TrainingState.load(folder / "last.safetensors", torch.device("cpu")).finished == (at == 0)
    assert look(checkpoints, config) == ((6, False) if at == 0 else (stops["0"] - 1, False))
    trained: list[int] = []
    with monkeypatch.context() as patch:
        epoch = capsnet.training._epoch
        patch.setattr(capsnet.training, "_epoch", lambda state, *rest: (trained.append(1), epoch(state, *rest))[1])
        assert launched(mlruns, text).finished == 1
    assert len(trained) == at
    whole = mlruns / "whole"
    whole.mkdir()
    (whole / "mlflow.db").write_bytes(migrated.read_bytes())
    launched(whole, text)
    found = []
    for place in (mlruns, whole):
        store = opened(place)
        [run] = store.runs()
        found.append((weights(store, run.run_id), histories(store), run))
    assert found[0][1] == found[1][1]
    assert found[0][2].metrics["test_error"] == found[1][2].metrics["test_error"]
    assert all(torch.equal(tensor, found[1][0][name]) for name, tensor in found[0][0].items())


def test_stopping_changes_no_epoch_before_it(mlruns: Path, target: tuple[float, dict[str, int]]) -> None:
    """Schedules count on all planned steps."""
    error, _ = target
    text = LONG.replace("lr_schedule: constant", "lr_schedule: one_cycle(rise=0.1)").replace("seeds: 2", "seeds: 1")
    launched(mlruns, text, "whole")
    launched(mlruns, text.replace("epochs: 6\n", f"epochs: 6\n  stop_at_error: {error!r}\n"), "stopped")
    for name in ("train_loss", "learning_rate", "validation_error"):
        every, some = (
            [opened(mlruns, e).history(run.run_id, name) for run in opened(mlruns, e).runs()] for e in ("whole", "stopped")
        )
        assert [part[: len(own)] for part, own in zip(every, some, strict=True)] == some


def test_costs_are_of_the_epochs_that_were_trained(mlruns: Path, target: tuple[float, dict[str, int]]) -> None:
    error, stops = target
    launched(mlruns, stopping(error).replace("seeds: 2", "seeds: 1"))
    known = by_config(opened(mlruns).runs())
    for config, run in known.items():
        assert epochs_of(config, run) == stops[str(config.seed)]
    pace = Costs(known).pace(next(iter(known)))
    assert pace is not None
    assert pace.whole
    shortest = min((run.end - run.start) / 1000 / stops[run.params["seed"]] for run in known.values() if run.end)
    assert pace.seconds >= shortest


# --- further test sets


@pytest.mark.usefixtures("further_digits")
def test_further_test_sets_are_tested_once_and_logged_with_their_digests(mlruns: Path) -> None:
    names = ["fgsm_9", "flipped", "rotated_5", "rotated_30", "turned"]
    more = f"  test_sets: [{', '.join(names)}]\n  test_routing_iterations: [5]\n"
    launched(mlruns, LONG.replace("epochs: 6\n", f"epochs: 6\n{more}").replace("seeds: 2", "seeds: 1"))
    store, cpu, digests = opened(mlruns), torch.device("cpu"), {}
    [run] = [run for run in store.runs() if run.params]
    own = read(from_params(run.params), Path("nowhere"), cpu).test
    for name in names:
        for run in store.runs():
            state = TrainingState(from_params(run.params), cpu)
            state.model.load_state_dict(weights(store, run.run_id))
            split, digests[name] = further.split(name, Path("nowhere"), own, state.model)
            assert run.metrics[f"test_error_{name}"] == evaluate(state.model, split, 1000).error
            assert run.metrics[f"test_error_{name}"] != run.metrics["test_error"]
    for run in store.runs():
        assert [name for name, _ in run.data] == ["digits", *sorted(names)]
        assert dict(run.data[1:]) == digests
        inputs = store.client.get_run(run.run_id).inputs.dataset_inputs
        used = {each.dataset.name: [(tag.key, tag.value) for tag in each.tags] for each in inputs}
        test = [("mlflow.data.context", "test")]
        assert used == {"digits": [], **dict.fromkeys(names, test)}
    rows = read_runs("tiny", mlruns).runs
    assert set(rows["data_sha256"]) == {run.data[0][1] for run in store.runs()}
    columns = [f"test_error_{name}" for name in ("fgsm_9", "flipped", "r5", "rotated_5", "rotated_30", "turned")]
    assert [name for name in rows if name.startswith("test_error_")] == columns
    assert [str(rows[name].dtype) for name in columns] == ["float64"] * 6
    assert rows[columns].notna().all(axis=None)


@pytest.mark.usefixtures("further_digits")
def test_a_run_without_the_files_fails_and_is_tested_when_they_are_there_without_training_anew(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine of a cluster that hasn't got what the launcher has."""
    from dataclasses import replace

    from capsnet.registry import TEST_SETS

    text = tiny.read_text().replace("epochs: 2\n", "epochs: 2\n  test_sets: [turned]\n").replace("seeds: 2", "seeds: 1")
    with monkeypatch.context() as patch:
        patch.setitem(TEST_SETS, "turned", replace(TEST_SETS["turned"], loader="capsnet.affnist:affnist"))
        summary = launched(mlruns, text)
    assert len(summary.failed) == 2
    assert "affNIST's test files are not in" in summary.failed[0]
    left = []
    monkeypatch.setattr(worker, "train", lambda state, data, **_: iter(left.append(state.finished) or ()))
    assert launched(mlruns, text).finished == 2
    assert left == [True, True]


def test_a_journal_of_before_there_were_test_sets_is_read(mlruns: Path, tiny: Path) -> None:
    from experiments.journal import Journal
    from experiments.record import Record

    journal = Journal(mlruns / "journal")
    with journal.held():
        journal.begin(Record({}, "r", "", {}))
    path = mlruns / "journal" / "run.json"
    held = json.loads(path.read_text())
    assert held.pop("tested") == []
    path.write_text(json.dumps(held))
    with journal.held():
        assert list(journal.record.tested) == []


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (None, ["affNIST's test files are not in", "affnist_generated"]),
        (0, ["test.mat can't be read as a file of affNIST"]),
        (60, ["the files of test set affnist in", "hold images (60, 40, 40)"]),
    ],
)
def test_a_command_refuses_wrong_files_before_anything_is_recorded(
    command: Any, tmp_path: Path, mlruns: Path, count: int | None, wanted: list[str]
) -> None:
    grid, file = tmp_path / "g.yaml", tmp_path / "data" / "affNIST" / "test.mat"
    grid.write_text("base: {dataset: mnist_40, test_sets: [affnist]}")
    if count is not None:
        file.parent.mkdir(parents=True)
        file.touch()
    if count:
        savemat(
            file, {"affNISTdata": {"image": np.zeros((1600, count), np.uint8), "label_int": np.zeros((1, count), np.uint8)}}
        )
    done = command("run", str(grid), "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert all(words in said for words in wanted)
    assert Store.open("g", mlruns, create=False) is None
    with pytest.raises(InputError):
        make_config({"dataset": "mnist", "test_sets": ["affnist"]}, "here")
