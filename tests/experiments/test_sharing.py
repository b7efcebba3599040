"""What launchers and workers share: the experiment's lock, its parent run, its database."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from capsnet.errors import InputError
from capsnet.state import TrainingState
from experiments import stores
from experiments.executors import Engine, Inline
from experiments.gridding import Wish
from experiments.known import by_config, state
from experiments.locks import ALL, Launchers, Shard
from experiments.record import SUPERSEDED
from experiments.sources import parse_grid, read_grid
from tests.experiments.conftest import TINY, launched, opened
from tests.experiments.test_resume import checkpoint_appears, running, words


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_have_nothing_in_common_and_are_all_together(count: int) -> None:
    things = list(range(36))
    parts = [list(Shard(i, count).of(things)) for i in range(1, count + 1)]
    assert sorted(thing for part in parts for thing in part) == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1 / 2"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard must be i/n.*1/8"):
        Shard.parse(text)


def test_who_may_launch_beside_whom(tmp_path: Path) -> None:
    launchers = Launchers(tmp_path, "e", "1-7")
    with launchers.only(Shard(1, 2)):
        with launchers.only(Shard(2, 2)):
            assert sorted(map(str, launchers.held())) == ["1/2", "2/2"]
        for other in (Shard(1, 2), ALL, Shard(3, 3)):
            with pytest.raises(InputError, match=r"launch of experiment 'e', shard 1/2, is going on"), launchers.only(other):
                pass
        with Launchers(tmp_path, "other", "2-7").only(ALL):
            pass
    with launchers.only(ALL), pytest.raises(InputError, match="'e' is going on"), launchers.only(Shard(1, 2)):
        pass


@pytest.mark.slow
def test_wait_waits_and_then_finds_nothing_left_to_do(tiny: Path, mlruns: Path) -> None:
    tiny.write_text(TINY.replace("epochs: 2", "epochs: 60"))
    with running(words(tiny, mlruns)) as first:
        checkpoint_appears(mlruns)
        with running([*words(tiny, mlruns), "--wait"]) as second:
            printed, errors = second.communicate(timeout=200)
        ended, _ = first.communicate(timeout=30)
    assert "4 finished, 4 of them now" in ended
    assert second.returncode == 0, errors
    assert "waiting for another launch of experiment 'tiny' to end" in printed
    assert "4 finished, 0 of them now" in printed
    assert len(list(opened(mlruns).runs())) == 4


@pytest.mark.slow
def test_shards_on_a_fresh_folder_share_one_parent_and_one_database(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"  # both make the database, or neither
    with running([*words(tiny, folder), "--shard", "1/2"]) as one, running([*words(tiny, folder), "--shard", "2/2"]) as two:
        for process in (one, two):
            printed, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
            assert "2 runs on cpu: 2 finished, 2 of them now; 0 failed" in printed
    store = opened(folder)
    runs = list(store.runs())
    assert [run.status for run in runs] == ["FINISHED"] * 4
    known = by_config(runs)
    assert len(known) == 4  # each config once
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'grid'")
    assert parent.info.status == "FINISHED"
    assert {run.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}


def test_the_parent_of_a_shard_alone_says_that_something_is_missing(mlruns: Path) -> None:
    first = launched(mlruns, TINY, wish=Wish(Shard(1, 2)))
    store = opened(mlruns)

    def status() -> str:
        [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'grid'")
        found: str = parent.info.status
        return found

    assert (first.planned, first.finished, status()) == (2, 2, "KILLED")
    launched(mlruns, TINY, wish=Wish(Shard(2, 2)))
    assert status() == "FINISHED"


def test_fresh_trains_again_what_other_code_trained_and_the_old_run_stays(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments import gridding, worker

    text = TINY.replace("seeds: 2", "seeds: 1")
    launched(mlruns, text)
    assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 0  # the same code
    for module in (gridding, worker):
        monkeypatch.setattr(module, "git_commit", lambda: "of documents")
    assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 0  # no module has changed
    for module in (gridding, worker):
        monkeypatch.setattr(module, "git_commit", lambda: "another")
        monkeypatch.setattr(module, "code", lambda: "another digest")
    capsys.readouterr()
    assert launched(mlruns, text).finished == 0
    assert "2 of them were trained by other code than this; --fresh trains them again" in capsys.readouterr().err.replace(
        "\n", " "
    )
    assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 2
    runs = list(opened(mlruns).runs())
    assert len(runs) == 4
    assert {run.tags["git_commit"] for run in by_config(runs).values()} == {"another"}
    assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 0


def test_fresh_replaces_all_that_other_code_finished(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch before may have been cut off before it could say that the first is superseded."""
    from experiments import gridding, worker

    text = TINY.replace("seeds: 2", "seeds: 1")
    for commit in ("first", "second", "third"):
        for module in (gridding, worker):
            monkeypatch.setattr(module, "git_commit", lambda commit=commit: commit)
            monkeypatch.setattr(module, "code", lambda commit=commit: commit)
        assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 2
        store = opened(mlruns)
        assert {run.tags["git_commit"] for run in by_config(store.runs()).values()} == {commit}
        if commit == "second":
            for run in store.runs():
                if SUPERSEDED in run.tags:
                    store.client.delete_tag(run.run_id, SUPERSEDED)


class _Stopped(Inline):
    """Ctrl-C comes before the second run."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "begun", False):
            raise KeyboardInterrupt
        self.begun = True
        return super().submit(function, *args, **kwargs)


def test_an_old_result_speaks_until_its_replacement_is_there(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--fresh that is cut off takes no result away, and goes on where it stopped."""
    from experiments import gridding, worker

    text = TINY.replace("seeds: 2", "seeds: 1")
    launched(mlruns, text)
    for module in (gridding, worker):
        monkeypatch.setattr(module, "git_commit", lambda: "another")
        monkeypatch.setattr(module, "code", lambda: "another")
    with pytest.raises(KeyboardInterrupt):
        launched(mlruns, text, wish=Wish(fresh=True), engine=Engine(_Stopped()))
    known = by_config(opened(mlruns).runs())
    assert [run.status for run in known.values()] == ["FINISHED"] * 2
    assert sorted(run.tags["git_commit"] == "another" for run in known.values()) == [False, True]
    assert launched(mlruns, text, wish=Wish(fresh=True)).finished == 1
    known = by_config(opened(mlruns).runs())
    assert {run.tags["git_commit"] for run in known.values()} == {"another"}


def test_sqlite_keeps_a_write_ahead_log(mlruns: Path) -> None:
    opened(mlruns)
    with sqlite3.connect(mlruns / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


WRITER = """
import sys, time
from pathlib import Path
from capsnet.config import make_config
from capsnet.metrics import EpochMetrics
from experiments.journal import Journal
from experiments.record import Ending, Record
from experiments.runlog import RunLog
from experiments.tracking import Store

folder, number = Path(sys.argv[1]), int(sys.argv[2])
store = Store.open("tiny", folder, create=True)
(folder / f"ready-{number}").touch()
while len(list(folder.glob("ready-*"))) < 16:
    time.sleep(0.01)
journal = Journal(folder / "checkpoints" / str(number))
with journal.held():
    journal.begin(Record(make_config({"seed": number}, "here").to_params(), "r", "", {}))
    log = RunLog(store, journal, monitored=True)
    for epoch in range(1, 31):
        journal.append(EpochMetrics(epoch, time.time_ns() // 1_000_000, *[float(epoch)] * 8))
        log.push()
    journal.update(ending=Ending("FINISHED", 1, results={"test_error": 1.0}))
    log.push()
"""


@pytest.mark.slow
def test_sixteen_writers_see_no_lock_error(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"  # they make the database, too
    folder.mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(i)], stderr=subprocess.PIPE, text=True)
        for i in range(16)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")  # nor is a word said
    store = opened(folder)
    runs = list(store.runs())
    assert len(runs) == 16
    for run in runs:
        assert run.status == "FINISHED"
        assert [epoch for epoch, _ in store.history(run.run_id, "train_loss")] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_fails_the_run_with_the_reason_and_leaves_the_last_good_checkpoint(tiny: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where a second checkpoint doesn't fit beside the first."""
    tiny.write_text(TINY.replace("epochs: 2", "epochs: 50").replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]"))
    small = tmp_path / "small"
    small.mkdir()
    config = next(read_grid(str(tiny)).configs)[1]
    TrainingState(config, torch.device("cpu")).save(tmp_path / "begun")
    size = (tmp_path / "begun").stat().st_size // 1024  # KiB
    script = f"""
        mount -t tmpfs -o size={10 * size}k none {small} || exit 77
        dd if=/dev/zero of={small}/filler bs=1k count={8 * size + size // 2} status=none
        {sys.executable} -m experiments run {tiny} --mlruns {small} --checkpoint-every 0 --workers 0
        echo "code $?"
        find {small}/checkpoints -name before.safetensors -size +{size // 2}k
        rm {small}/filler
        {sys.executable} -m experiments run {tiny} --mlruns {small} --checkpoint-every 0 --workers 0
        echo "code $?"
    """
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    line = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=200, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"a file system can't be mounted here: {done.stderr.strip()}")
    assert "No space left on device" in " ".join(done.stderr.split()), done.stdout + done.stderr
    assert "SQLAlchemy database error" not in done.stderr
    first, second = done.stdout.split("code ")[1:]
    assert first.startswith("1")
    assert "before.safetensors" in first
    assert second.startswith("0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system read-only")
def test_a_folder_that_cannot_be_written_to_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    script = f"mount -t tmpfs -o ro none {folder} || exit 77; {sys.executable} -m experiments run {tiny} --mlruns {folder}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"a file system can't be mounted here: {done.stderr.strip()}")
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert f"nothing can be written to {folder}: Read-only file system" in said
    assert "--mlruns" in said


@pytest.mark.parametrize("address", ["10.0.0.1:6379"])
def test_sqlite_is_refused_for_a_cluster_with_the_commands_that_help(tiny: Path, mlruns: Path, address: str) -> None:
    before = (mlruns / "mlflow.db").read_bytes()
    line = [*words(tiny, mlruns)[:-2], "--address", address]
    done = subprocess.run([w for w in line if w not in ("--workers", "0")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for word in ("SQLite", "one machine", address, "mlflow server", "postgresql://", "MLFLOW_TRACKING_URI", "docs/cluster.md"):
        assert word in done.stderr
    assert (mlruns / "mlflow.db").read_bytes() == before


def test_a_password_is_not_shown() -> None:
    assert stores.shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert stores.shown("at https://me:se:cret@host ...") == "at https://me:***@host ..."
    assert stores.shown("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_a_run_that_another_process_trains_is_left_to_it(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the launcher was killed and its worker is not dead yet."""
    from experiments import launch
    from experiments.journal import Journal, folder_of

    text = TINY.replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
    monkeypatch.setattr(launch, "PAUSE", 0.01)
    config = next(parse_grid(text, "tiny", "tiny.yaml").configs)[1]
    journal = Journal(folder_of(mlruns / "checkpoints" / opened(mlruns).key, config))
    with journal.held():
        summary = launched(mlruns, text, engine=Engine(Inline()))
    [line] = summary.failed
    assert "another process is training this run" in line
    assert launched(mlruns, text).finished == 1
    assert [state(run) for run in opened(mlruns).runs()] == ["finished"]


@pytest.mark.slow
def test_a_shard_ends_on_sigterm_and_goes_on(tiny: Path, mlruns: Path) -> None:
    """As Slurm ends a job before its time limit."""
    tiny.write_text(TINY.replace("epochs: 2", "epochs: 150"))
    line = [*words(tiny, mlruns), "--shard", "2/2"]
    with running(line) as process:
        while len(list((mlruns / "checkpoints").rglob("before.safetensors"))) < 1:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 2 runs are settled; the same command goes on" in errors
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [run.status for run in opened(mlruns).runs()] == ["FINISHED"] * 2
