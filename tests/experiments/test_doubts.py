"""Holes that a doubting user found, each closed."""

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from capsnet.config import RunConfig, make_config
from capsnet.errors import InputError
from capsnet.metrics import EpochMetrics
from capsnet.state import TrainingState
from experiments import stores, worker
from experiments.gridding import end_parents
from experiments.jobs import Job, Place, kind
from experiments.journal import BusyError, Journal, folder_of
from experiments.known import read_grids
from experiments.locks import ALL, Launchers, is_locked
from experiments.record import Ending, Record, is_of_other_code
from experiments.sources import parse_grid
from experiments.sync import sync
from experiments.tracking import Store
from experiments.worker import _Trainer
from tests.experiments.conftest import TINY, Command, launched, opened
from tests.services import TrackingServer

ONE = TINY.replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
TAGS = {"git_commit": "", "versions": "", "hardware": ""}


def config_of(text: str) -> RunConfig:
    return next(parse_grid(text, "tiny", "tiny.yaml").configs)[1]


def row(epoch: int) -> EpochMetrics:
    return EpochMetrics(epoch, 1000 + epoch, *[1.0] * 8)


def line(epoch: int, passes: int = 1) -> bytes:
    return json.dumps(asdict(replace(row(epoch), logit_changes=[0.12345] * passes))).encode()


@pytest.mark.parametrize("kept", [10, -1])  # bytes of the last line: all but its end, too
def test_lines_that_a_power_cut_took_come_back_from_the_checkpoint(tmp_path: Path, kept: int) -> None:
    config, journal = config_of(ONE.replace("epochs: 2", "epochs: 5")), Journal(tmp_path / "j")
    with journal.held():
        state = TrainingState(config, torch.device("cpu"))
        for epoch in (1, 2, 3):
            state.history.append(journal.append(row(epoch)))
        journal.save(state)
    lines = (journal.folder / "history.jsonl").read_bytes().splitlines(keepends=True)
    (journal.folder / "history.jsonl").write_bytes(lines[0] + lines[1][:kept])
    again = Journal(journal.folder)
    assert again.epochs_done(config) == 1
    with again.held():
        assert [metrics.epoch for metrics in again.history] == [1]
        assert again.load(config, torch.device("cpu")) is not None
        assert again.history == [row(1), row(2), row(3)]
        again.append(row(4))
    assert [metrics.epoch for metrics in Journal(journal.folder).latest()] == [1, 2, 3, 4]


def begun_again(folder: Path, tags: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The tags of a run that was begun with some, and is gone on with by the code that is ``here``."""
    journal, config = Journal(folder), config_of(ONE)
    monkeypatch.setattr(worker, "git_commit", lambda: "here")
    monkeypatch.setattr(worker, "code", lambda: "digest")
    with journal.held():
        journal.begin(Record(config.to_params(), "r", "", {"cell": "c", **tags}))
        worker._begin(Job("c", config), Place(None, folder, "g", "", folder, "cpu"), journal)  # type: ignore[arg-type]
        return dict(journal.record.tags)


@pytest.mark.parametrize(
    ("before", "other"),
    [
        ({"git_commit": "there"}, True),  # of a version that logged no digest
        ({"git_commit": "here"}, False),
        ({"git_commit": "there", "code": "digest"}, False),  # a commit of documents lies between
        ({"git_commit": "there", "code": "another"}, True),
    ],
)
def test_a_run_that_other_code_began_stays_one_of_other_code(tmp_path: Path, monkeypatch, before, other) -> None:
    tags = begun_again(tmp_path / "j", before, monkeypatch)
    assert (tags["git_commit"], tags["code"]) == ("here", "digest")
    assert is_of_other_code(tags, "here", "digest") == other


@pytest.mark.parametrize(("now", "told"), [("PyTorch's operations", True), ("in C, gcc 1 for AVX2", False), ("", False)])
def test_a_run_that_another_compiler_began_says_so(tmp_path: Path, monkeypatch, now, told) -> None:
    monkeypatch.setattr(worker.agreement_native, "told", lambda *_: now)
    tags = begun_again(tmp_path / "j", {"git_commit": "here", "routed": "in C, gcc 1 for AVX2"}, monkeypatch)
    assert tags["routed"] == now or not now
    assert ("routed in C, gcc 1 for AVX2" in tags.get("before", "")) == told


@pytest.mark.parametrize(("changed", "marked"), [({"train_loss": 2.0}, True), ({"time": 9, "seconds": 2.0}, False)])
def test_an_epoch_of_which_other_bits_came_is_marked_and_keeps_its_first_line(tmp_path: Path, changed, marked) -> None:
    journal, config = Journal(tmp_path / "j"), config_of(ONE)
    place = Place(None, tmp_path, "", "", tmp_path, "cpu")  # type: ignore[arg-type]
    with journal.held():
        journal.begin(Record(config.to_params(), "r", "", {"cell": "c"}))
        journal.append(row(1))
        written = _Trainer(Job("c", config), place, journal)._written(replace(row(1), **changed))
        assert written == row(1)
        assert ("other_bits" in journal.record.tags) == marked


def test_a_full_disk_is_called_so_by_python_and_by_safetensors() -> None:
    """What safetensors 0.8 raises; test_sharing fills a real file system."""
    assert kind(OSError(28, "No space left on device")) == "disk full"
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert kind(SafetensorError(said)) == "disk full"
    assert kind(SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")) == "error"


def test_a_torn_checkpoint_never_takes_the_place_of_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, journal = config_of(ONE), Journal(tmp_path / "j")
    with journal.held():
        state = TrainingState(config, torch.device("cpu"))
        journal.save(state)
        journal.save(state)
        journal.last.write_bytes(b"torn")
        assert journal.load(config, torch.device("cpu")) is not None  # the one before
        monkeypatch.setattr(TrainingState, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            journal.save(state)
        monkeypatch.undo()
        assert journal.load(config, torch.device("cpu")) is not None


def test_a_checkpoint_that_cannot_be_read_now_is_no_damaged_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with journal.held():
        journal.last.mkdir()  # as if the file server had a bad moment
        with pytest.raises(InputError, match="can't be read"):
            journal.load(config_of(ONE), torch.device("cpu"))
    assert journal.last.exists()


def test_a_run_that_was_deleted_in_mlflow_blocks_nothing(mlruns: Path) -> None:
    store, journals = opened(mlruns), mlruns / "checkpoints" / opened(mlruns).key
    journal = Journal(folder_of(journals, config_of(ONE)))
    with journal.held():
        journal.begin(Record(config_of(ONE).to_params(), "r", "", TAGS))
    assert sync(store, journals).told == 1
    with journal.held():
        journal.update(told=False)
        deleted = journal.record.run_id
    store.client.delete_run(deleted)
    assert launched(mlruns, ONE).finished == 1
    [run] = store.runs()
    assert (run.status, run.run_id == deleted) == ("FINISHED", False)


@pytest.mark.parametrize("what", ["another version", "held"])
def test_a_journal_that_cannot_be_used_now_is_not_called_lost(mlruns: Path, what: str) -> None:
    text = ONE.replace("epochs: 2", "epochs: 3")
    store = opened(mlruns)
    journal, other = (Journal(folder_of(mlruns / "checkpoints" / store.key, config_of(text))) for _ in range(2))
    with journal.held():
        journal.begin(Record(config_of(text).to_params(), "r", "", TAGS))
        journal.append(row(1))
    sync(store, mlruns / "checkpoints" / store.key)
    if what == "held":
        from experiments import launch

        with pytest.MonkeyPatch.context() as patch, other.held():
            patch.setattr(launch, "PAUSE", 0.01)
            [line] = launched(mlruns, text).failed
    else:
        (journal.folder / "run.json").write_text('{"version": 2}')
        [line] = launched(mlruns, text).failed
    assert {"held": "another process", "another version": "of another version"}[what] in line
    [run] = store.runs()
    assert run.tags.get("failure") != "checkpoint lost"
    assert "superseded" not in run.tags


def test_a_run_that_was_deleted_in_mlflow_ends_no_launch(mlruns: Path) -> None:
    """Its worker died, or its journal says that it settled: MLflow is told, and has no such run."""
    from experiments.jobs import Outcome
    from experiments.launch import _given_up
    from experiments.worker import run

    store, job = opened(mlruns), Job("cell", config_of(ONE))
    place = Place(store, mlruns / "checkpoints" / store.key, "tiny", "", Path("nowhere"), "cpu")
    journal = Journal(folder_of(place.checkpoints, job.config))
    with journal.held():
        journal.begin(Record(job.config.to_params(), "r", "", TAGS))
    sync(store, place.checkpoints)
    with journal.held():
        store.client.delete_run(journal.record.run_id)
    lost = Outcome("", 0.0, failure="infrastructure", reason="a worker died")
    assert _given_up(job, lost, place) == lost
    with journal.held():
        journal.append(row(1))
        journal.update(ending=Ending("FINISHED", 1, results={"test_error": 1.0, "parameters": 1}), told=False)
    outcome = run(job, place)
    assert outcome.test_error == 1.0
    assert "has been deleted in MLflow" in outcome.untold


def test_who_is_stopped_on_a_full_disk_is_stopped_and_noted(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors has an error of its own for it, which is no OSError."""
    from experiments.worker import run

    def stopped(self: _Trainer) -> None:
        raise KeyboardInterrupt

    def full(self: _Trainer) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    store, job = opened(mlruns), Job("cell", config_of(ONE))
    place = Place(store, mlruns / "checkpoints" / store.key, "tiny", "", Path("nowhere"), "cpu")
    monkeypatch.setattr(_Trainer, "finish", stopped)
    monkeypatch.setattr(_Trainer, "keep", full)
    with pytest.raises(KeyboardInterrupt):
        run(job, place)
    [found] = store.runs()
    assert found.status == "KILLED"


@pytest.mark.parametrize(
    ("lines", "done"),
    [
        (b"", 0),
        (line(1) + b"\n", 1),
        (line(1), 0),
        (line(1) + b"\n" + line(2)[:15], 1),
        (line(1) + b"\n\0\0\0\0\n", 1),  # what a power cut leaves
        (line(6) + b"\n" + line(7, passes=3000) + b"\n", 7),
        (line(8, passes=3000) + b"\n" + b"\0" * 9000, 8),
    ],
    ids=["nothing", "one", "all but its end", "a half", "zeros", "hundreds of passes", "and zeros"],
)
def test_who_looks_on_sees_the_last_epoch_that_is_whole(tmp_path: Path, lines: bytes, done: int) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "history.jsonl").write_bytes(lines)
    assert journal.epochs_done(config_of(ONE)) == done
    assert not journal.busy, "nobody ever held it"


def test_a_journals_name_depends_on_what_differs_from_the_defaults_alone(tmp_path: Path) -> None:
    """So that a field which is new, at its default, renames none."""
    named = {"epochs": "2", "seed": "7"}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:20]
    assert folder_of(tmp_path, RunConfig(epochs=2, seed=7)).name == digest
    assert folder_of(tmp_path, RunConfig(reconstruction_weight=-0.0)) == folder_of(tmp_path, RunConfig(reconstruction_weight=0))


def test_who_does_not_hold_a_journal_writes_nothing(tmp_path: Path) -> None:
    """Neither before, nor after it has been let go of, as a thread may that waited for a server."""
    journal, record = Journal(tmp_path / "j"), Record({}, "r", "", {})
    with pytest.raises(BusyError):
        journal.begin(record)
    with journal.held():
        journal.begin(record)
    with pytest.raises(BusyError):
        journal.update(told=True)
    with journal.held():
        assert not journal.record.told


def test_who_holds_a_journal_again_sees_what_is_there_now(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    with journal.held():
        journal.begin(Record({}, "r", "", {}))
        journal.append(row(1))
    with other.held():
        assert (other.begun, other.history) == (True, [row(1)])
        other.remove()
    with journal.held():
        assert (journal.begun, journal.history) == (False, [])


def test_what_answers_as_no_web_server_does_is_away(mlruns: Path) -> None:
    """A port where something else listens, and addresses that are none."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(OSError, match="SSH"):
            stores.answers(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    for uri in ("http://localhost:50oo", "postgresql://localhost:50oo/db"):
        with pytest.raises(OSError, match="50oo"):
            stores.answers(uri)


def test_sync_gives_a_parent_its_end_that_was_left_open(mlruns: Path) -> None:
    launched(mlruns, ONE)
    store = opened(mlruns)
    parent = store.parent("tiny", ONE, "")  # as a launch leaves it whose server went away
    launchers = Launchers(mlruns, "tiny", store.key)
    with launchers.only(ALL):
        end_parents(store, launchers)
        assert store.client.get_run(parent).info.status == "RUNNING"  # somebody is at it
    end_parents(store, launchers)
    assert store.client.get_run(parent).info.status == "FINISHED"


def test_a_grid_that_cannot_be_read_keeps_sync_from_no_other_experiment(mlruns: Path, command: Command) -> None:
    first, second = (opened(mlruns, name) for name in ("first", "second"))
    for store in (first, second):
        (mlruns / "checkpoints" / store.key).mkdir(parents=True)
    died = first.client.create_run(first.experiment_id, tags={"kind": "grid", "grid": "died"}).info.run_id
    old, fine = first.parent("old", "base: {gone: 1}", ""), first.parent("fine", ONE, "")
    last = second.parent("last", ONE, "")
    done = command("sync")
    assert done.returncode == 1
    errors = " ".join(done.stderr.split())
    assert f"how run {died} ended: what grid 'died' planned can't be read: run {died} has no grid.yaml" in errors
    assert f"how run {old} ended: what grid 'old' planned can't be read: unknown key 'gone'" in errors
    assert "Traceback" not in errors
    states = {run_id: first.client.get_run(run_id).info.status for run_id in (died, old, fine, last)}
    assert states == {died: "RUNNING", old: "RUNNING", fine: "KILLED", last: "KILLED"}


def test_a_store_that_goes_away_keeps_sync_from_no_other_experiment(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("it is away")

    monkeypatch.setattr(Store, "parents", away)
    store = opened(mlruns)
    assert end_parents(store, Launchers(mlruns, "tiny", store.key)) == ["how the grids of tiny ended: it is away"]


def test_a_grid_that_a_server_holds_is_read_and_no_copy_is_left(
    mlflow_server: Callable[..., TrackingServer], mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server().uri)
    store, copies = opened(mlruns), tmp_path / "copies"
    parent = store.parent("g", ONE, "")
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    assert read_grids(store) == ({parent: parse_grid(ONE, "g", "grid g")}, {})
    assert not list(copies.iterdir())


def test_what_is_known_late_of_a_run_reaches_mlflow(mlruns: Path) -> None:
    from experiments.runlog import RunLog

    store, journal = opened(mlruns), Journal(mlruns / "j")
    with journal.held():
        journal.begin(Record(make_config({}, "here").to_params(), "r", "", {"cell": "c"}))
        log = RunLog(store, journal, monitored=False)
        log.push()
        journal.update(tags={"cell": "c", "other_bits": "epoch 3"})
        journal.update(ending=Ending("KILLED", 1))
        log.push()
    [run] = store.runs()
    assert run.tags["other_bits"] == "epoch 3"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "quick", "--checkpoint-every", "nan"], "--checkpoint-every"),
        (["run", "quick", "--address", "foo"], "--address must be HOST:PORT"),
        (["sync", "--mlruns", "nowhere"], "there is no folder"),
        (["run", "quick", "--mlruns", "a?b"], "can't hold ?"),
    ],
)
def test_bad_input_is_refused_in_a_line(tmp_path: Path, arguments: list[str], word: str) -> None:
    line = [sys.executable, "-m", "experiments", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False)
    assert done.returncode == 2
    assert word in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_who_looks_whether_a_journal_is_held_is_in_nobodys_way(tmp_path: Path) -> None:
    journal, ended, seen = Journal(tmp_path / "j"), threading.Event(), []
    with journal.held():
        pass

    def look() -> None:
        while not ended.is_set():
            seen.append(Journal(tmp_path / "j").busy)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            with Journal(tmp_path / "j").held():
                pass
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 300
    with journal.held(), pytest.raises(BusyError), Journal(tmp_path / "j").held():
        pass


def test_who_looks_whether_an_experiment_is_launched_is_in_nobodys_way(tmp_path: Path) -> None:
    launchers, ended, seen = Launchers(tmp_path, "e", "key"), threading.Event(), []
    lock = tmp_path / "locks" / "key" / "1-of-1.lock"
    with launchers.only(ALL):
        assert is_locked(lock)

    def look() -> None:
        while not ended.is_set():
            seen.append(is_locked(lock))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            with launchers.only(ALL):
                assert list(launchers.held()) == [ALL]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(seen) > 100
    assert not is_locked(lock)


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    with journal.held():
        journal.begin(Record(config_of(ONE).to_params(), "r", "", {}))
    code = (
        "import os, sys; from pathlib import Path; from capsnet.files import replaced\n"
        "with replaced(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(journal.last)], check=False)
    assert len(list(journal.folder.glob(".*"))) == 1
    with journal.held():
        assert list(journal.folder.glob(".*")) == []
        assert journal.begun


def test_passwords_are_not_shown_wherever_they_stand() -> None:
    assert stores.shown("postgresql://h:1/db?user=u&password=topsecret&x=1") == "postgresql://h:1/db?user=u&password=***&x=1"
    assert "topsecret" not in stores.shown("API request to http://me:topsecret@h:1/api failed")
    assert stores.shown("http://me:p@ss/w0rd@host:5000 or http://h:1") == "http://me:***@host:5000 or http://h:1"
    advice = (
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block if this flush is ...) "
    )
    assert (
        stores.shown(f"{advice}(sqlite3.OperationalError) database is locked")
        == "(sqlite3.OperationalError) database is locked"
    )


@pytest.mark.parametrize("uri", ["sqlite:////a/b.db", "sqlite+pysqlite:////a/b.db", "sqlite:////a/b.db?timeout=5"])
def test_a_sqlite_store_is_known_however_it_is_written(uri: str) -> None:
    assert stores.database(uri) == Path("/a/b.db")
    assert stores.database("postgresql://h/db") is None


def test_a_server_that_wants_a_password_in_its_address_is_found(mlflow_server) -> None:
    server = mlflow_server()
    stores.answers(server.uri.replace("http://", "http://me:secret@"))
