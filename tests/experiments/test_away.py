"""A tracking server that goes away takes nothing with it: training goes on, and sync or the next launch tells it the rest."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.journal import Journal
from experiments.record import Ending, Record
from experiments.sync import sync
from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened
from tests.experiments.test_resume import assert_equal_to_the_bit, running, words
from tests.services import TrackingServer

Server = Callable[..., TrackingServer]
LONGER = TINY.replace("epochs: 2", "epochs: 80")


@pytest.fixture
def server(mlflow_server: Server, mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> TrackingServer:
    found = mlflow_server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    return found


def synced(mlruns: Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "experiments", "sync", "--mlruns", str(mlruns)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_stops_no_run_and_is_told_by_sync(
    server: TrackingServer, tiny: Path, mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # bits depend on the number of threads
    tiny.write_text(LONGER)
    with running(words(tiny, mlruns)) as process:
        while not any(run.metrics for run in opened(mlruns).runs()):
            time.sleep(0.1)
        server.kill()
        printed, errors = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "4 runs on cpu: 4 finished, 4 of them now; 0 failed" in printed
    assert "MLflow will be told later" in printed
    assert "nothing is lost: python -m experiments sync" in errors
    assert "Traceback" not in printed + errors

    refused = synced(mlruns)  # still away: said, and nothing lost
    assert refused.returncode == 2
    assert server.uri in refused.stderr
    server.start()
    done = synced(mlruns)
    assert done.returncode == 0, done.stderr
    assert "MLflow is up to date" in done.stdout
    assert {run.status for run in opened(mlruns).runs()} == {"FINISHED"}
    assert not list((mlruns / "checkpoints").glob("*/*"))

    other = tmp_path / "uninterrupted"  # and it is what a server that never went away has
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    launched(other, LONGER, threads=1)
    there = Store.open("tiny", other, create=False)
    assert there is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert_equal_to_the_bit(opened(mlruns), there)


@pytest.mark.slow
def test_the_next_launch_tells_it_too_and_trains_nothing(server: TrackingServer, mlruns: Path) -> None:
    text = TINY.replace("epochs: 2", "epochs: 60").replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
    from experiments.recorder import Recorder

    push, gone = Recorder._push, []

    def goes_away(self: Recorder) -> None:
        push(self)
        if not gone:  # after the run was made
            server.kill()
            gone.append(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "_push", goes_away)
        summary = launched_until_away(mlruns, text)
    assert summary == (1, 1)  # finished, and untold
    server.start()
    again = launched(mlruns, text)
    assert (again.before, again.finished, again.untold) == (1, 0, [])
    [run] = opened(mlruns).runs()
    assert run.status == "FINISHED"
    assert [epoch for epoch, _ in opened(mlruns).history(run.run_id, "train_loss")] == list(range(1, 61))


def launched_until_away(mlruns: Path, text: str) -> tuple[int, int]:
    found = launched(mlruns, text)
    return found.finished, len(found.untold)


def test_a_server_that_accepts_and_never_answers_holds_no_run_up(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments import recorder

    monkeypatch.setattr(recorder, "PATIENCE", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store, journal = Store(uri, "e", "1", 1), Journal(mlruns / "j")
        with journal.held():
            journal.begin(Record({}, "r", "", {}))
            start = time.monotonic()
            found = recorder.Recorder(store, journal)
            assert time.monotonic() - start < 1.5
            assert found.close() == "the tracking store doesn't answer"
            assert time.monotonic() - start < 8


def test_a_thread_that_waited_too_long_writes_to_no_journal_that_another_holds(mlruns: Path) -> None:
    journal = Journal(mlruns / "j")
    with journal.held():
        journal.begin(Record({}, "r", "", {}))
    with pytest.raises(RuntimeError, match="let go"):
        journal.update(run_id="late")
    with journal.held():
        assert journal.record.run_id == ""


def test_sync_leaves_alone_who_is_training_and_ends_who_died(mlruns: Path) -> None:
    store, checkpoints = opened(mlruns), mlruns / "checkpoints" / opened(mlruns).key
    from capsnet.config import make_config

    busy, dead, settled = (Journal(checkpoints / name) for name in ("busy", "dead", "settled"))
    for seed, journal in enumerate((dead, settled)):
        with journal.held():
            journal.begin(Record(make_config({"seed": seed}, "here").to_params(), "r", "", {}))
            if journal is settled:
                journal.update(ending=Ending("FAILED", 7, "diverged", "nan"))
    with busy.held():
        found = sync(store, checkpoints)
    assert (found.told, found.busy, found.faults) == (2, 1, [])
    assert {run.params["seed"]: run.status for run in store.runs()} == {"0": "KILLED", "1": "FAILED"}
    assert dead.folder.exists()  # it can go on
    assert not settled.folder.exists()  # it can't
    assert sync(store, checkpoints).told == 0
