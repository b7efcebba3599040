"""Whatever ends a launch, the same command goes on, and gives what an uninterrupted one would have given, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from capsnet import interrupts, own_data, own_files
from capsnet.datasets import digits
from capsnet.metrics import EpochMetrics
from capsnet.registry import DATASETS, DatasetFacts
from capsnet.state import Snapshot, TrainingState
from capsnet.verified import whole
from experiments import worker
from experiments.journal import Journal, folder_of
from experiments.locks import ALL, Launchers
from experiments.record import Record
from experiments.sources import parse_grid
from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened, weights

# 12 epochs of some 10 ms each: there is time to be killed between two checkpoints
LONGER = ("epochs: 2", "epochs: 12")
TIMES = {"seconds", "images_per_second", "train_seconds"}


def words(tiny: Path, mlruns: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments",
        "run",
        str(tiny),
        "--mlruns",
        str(mlruns),
        "--workers",
        "0",
        "--checkpoint-every",
        "0",
    ]


def checkpoints(mlruns: Path) -> list[Path]:
    return sorted((mlruns / "checkpoints").rglob("last.safetensors"))


def contents(store: Store) -> dict[tuple[str, str], tuple[dict[str, torch.Tensor], dict[str, list[tuple[int, float]]]]]:
    """(r, seed) -> weights and metric histories of the finished run; asserts that there is one run per config."""
    found = {}
    for run in store.runs():
        assert run.status == "FINISHED"
        key = run.params["routing_iterations"], run.params["seed"]
        assert key not in found, "two runs of one config"
        histories = {name: store.history(run.run_id, name) for name in run.metrics if not name.startswith("system/")}
        for name in TIMES:
            histories[name] = [(epoch, 0.0) for epoch, _ in histories[name]]
        found[key] = weights(store, run.run_id), histories
    return found


def assert_equal_to_the_bit(one: Store, other: Store) -> None:
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    for key, (tensors, histories) in first.items():
        assert histories == second[key][1]  # every epoch once, with the same numbers
        assert tensors.keys() == second[key][0].keys()
        assert all(torch.equal(tensor, second[key][0][name]) for name, tensor in tensors.items())


def test_runs_that_were_given_long_names_are_found_and_gone_on_with(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a version before names were short: one is finished, one was interrupted after its first epoch, others are new."""
    real, came = Snapshot.save, []

    def dies(self: Snapshot, path: Path) -> None:
        real(self, path)
        if self.config.routing_iterations == 3 and not came:
            came.append(len(self.history))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "brief_label", lambda text: text)
        patch.setattr(Snapshot, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            launched(mlruns, TINY.replace("seeds: 2", "seeds: 1"))
    store = opened(mlruns)

    def named() -> dict[str, tuple[str, str]]:
        runs = [store.client.get_run(run.run_id).info for run in store.runs()]
        return {info.run_name: (info.run_id, info.status) for info in runs}

    before = named()
    assert {name: status for name, (_, status) in before.items()} == {
        "routing_iterations=1 seed=0": "FINISHED",
        "routing_iterations=3 seed=0": "KILLED",
    }
    summary = launched(mlruns, TINY)
    assert (summary.planned, summary.finished) == (4, 3)
    after = named()
    assert after.keys() == {*before, "r=1 seed=1", "r=3 seed=1"}
    assert {status for _, status in after.values()} == {"FINISHED"}
    assert all(after[name][0] == run_id for name, (run_id, _) in before.items())
    assert launched(mlruns, TINY).finished == 0
    assert named() == after


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def checkpoint_appears(mlruns: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not checkpoints(mlruns):
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracking folder of the longer tiny grid, launched once and left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    grid = folder / "tiny.yaml"
    grid.write_text(TINY.replace(*LONGER))
    subprocess.run(words(grid, folder), check=True, capture_output=True)
    return folder


@pytest.fixture
def longer(tiny: Path) -> Path:
    tiny.write_text(TINY.replace(*LONGER))
    return tiny


@pytest.mark.slow
def test_a_launch_killed_again_and_again_equals_an_uninterrupted_one(uninterrupted: Path, longer: Path, mlruns: Path) -> None:
    for _ in range(2):
        with running(words(longer, mlruns)) as process:
            checkpoint_appears(mlruns)
            process.kill()
    before = {run.params["seed"] + run.params["routing_iterations"]: run.run_id for run in opened(mlruns).runs()}
    assert "RUNNING" in {run.status for run in opened(mlruns).runs()}
    done = subprocess.run(words(longer, mlruns), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(opened(uninterrupted), opened(mlruns))
    after = {run.params["seed"] + run.params["routing_iterations"]: run.run_id for run in opened(mlruns).runs()}
    assert before.items() <= after.items()  # each goes on under its own id
    assert not list((mlruns / "checkpoints").glob("*/*"))  # of no use any more


IN_THE_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # where Ctrl-C is ignored


@pytest.mark.parametrize(
    ("before", "sent"),
    [([], signal.SIGINT), ([], signal.SIGTERM), pytest.param(IN_THE_BACKGROUND, signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["ctrl-c", "sigterm", "sigterm in the background"],
)
def test_ctrl_c_and_sigterm_end_within_seconds_and_lose_no_checkpoint(
    tiny: Path, mlruns: Path, before: list[str], sent: signal.Signals
) -> None:
    tiny.write_text(tiny.read_text().replace("epochs: 2", "epochs: 100000"))
    with running([*before, *words(tiny, mlruns)]) as process:
        checkpoint_appears(mlruns)
        start = time.monotonic()
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - start < 10
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    [run] = opened(mlruns).runs()
    assert run.status == "KILLED"
    assert checkpoints(mlruns)


ONE = TINY.replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]").replace("epochs: 2", "epochs: 4")


def epochs_written(mlruns: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (mlruns / "checkpoints").rglob("history.jsonl"))


def interrupted_at(
    epoch: int, monkeypatch: pytest.MonkeyPatch, mlruns: Path, *, every: float, writing: bool = False, text: str = ONE
) -> None:
    """Launch one run, with Ctrl-C when an epoch is done with, or while its checkpoint is being written."""
    check, save, came = interrupts.check, Journal.save, []

    def after() -> None:
        if not writing and epochs_written(mlruns) == epoch:
            raise KeyboardInterrupt
        check()

    def torn(self: Journal, state: TrainingState) -> None:
        if writing and len(state.history) == epoch and not came:
            came.append(True)
            if self.last.exists():
                self.last.replace(self.before)
            raise KeyboardInterrupt
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "check", after)
        patch.setattr(Journal, "save", torn)
        with pytest.raises(KeyboardInterrupt):
            launched(mlruns, text, checkpoint_every=every)


@pytest.mark.parametrize(
    ("epoch", "every", "writing"),
    [(3, 0.0, False), (3, 1e9, False), (1, 0.0, True), (3, 0.0, True), (4, 1e9, True)],
)
def test_who_is_stopped_saves_its_last_whole_epoch(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, every: float, writing: bool
) -> None:
    interrupted_at(epoch, monkeypatch, mlruns, every=every, writing=writing)
    [last] = checkpoints(mlruns)
    assert len(TrainingState.load(last, torch.device("cpu")).history) == epoch
    assert launched(mlruns, ONE).finished == 1


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_epoch_that_stands_in_the_history_is_in_a_checkpoint(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """Even if Ctrl-C comes as soon as its line is written."""
    append = Journal.append

    def dies(self: Journal, metrics: EpochMetrics) -> EpochMetrics:
        found = append(self, metrics)
        if metrics.epoch == epoch:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            launched(mlruns, ONE)
    assert epochs_written(mlruns) == epoch
    [last] = checkpoints(mlruns)
    assert len(TrainingState.load(last, torch.device("cpu")).history) == epoch


def test_checkpoints_are_so_far_apart_as_is_asked_for(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of epochs that take two seconds, by a clock of its own, every second one is saved if three seconds are asked for."""
    saved, seconds, save = [], iter(range(0, 1000, 2)), Journal.save

    def noted(self: Journal, state: TrainingState) -> None:
        saved.append(len(state.history))
        save(self, state)

    class Clock:
        now = 0.0

        @staticmethod
        def monotonic() -> float:
            return Clock.now

    def ticking(self: Journal, metrics: EpochMetrics) -> EpochMetrics:
        Clock.now = next(seconds) + 2.0
        return append(self, metrics)

    append = Journal.append
    monkeypatch.setattr(Journal, "save", noted)
    monkeypatch.setattr(Journal, "append", ticking)
    monkeypatch.setattr(worker, "time", Clock)
    launched(mlruns, ONE.replace("epochs: 4", "epochs: 7"), checkpoint_every=3.0)
    assert saved == [2, 4, 6, 7]


def test_a_run_goes_on_with_the_files_that_it_was_begun_with_alone(
    mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a data set whose digest the registry doesn't know: MLflow has the one of the first files, and keeps it."""
    parts = [array for part in digits(tmp_path) for array in part]
    facts = DatasetFacts((1, 16, 16), 10, 1437, 360, "capsnet.own_data:mine")
    monkeypatch.setitem(DATASETS, "mine", facts)
    monkeypatch.setattr(own_data, "mine", partial(own_data.npz, "mine"), raising=False)
    monkeypatch.chdir(tmp_path)
    Path("nowhere").mkdir()  # where launched() looks for data
    text = ONE.replace("dataset: digits", "dataset: mine")

    def put(shift: int) -> None:
        changed = [np.roll(array, shift, axis=2) if array.ndim == 3 else array for array in parts]
        np.savez("nowhere/mine.npz", **dict(zip(own_files.ARRAYS, changed, strict=True)))
        whole.cache_clear()

    put(0)
    interrupted_at(1, monkeypatch, mlruns, every=0.0, text=text)
    [before] = opened(mlruns).runs()
    put(1)
    [line] = launched(mlruns, text).failed
    assert f"the run was begun with mine of SHA-256 {before.data[0][1][:16]}, and the files in {tmp_path}/nowhere have" in line
    assert str(checkpoints(mlruns)[0].parent) in line
    put(0)
    assert launched(mlruns, text).finished == 1
    [after] = opened(mlruns).runs()
    assert (after.run_id, after.data, after.status) == (before.run_id, before.data, "FINISHED")


@pytest.mark.parametrize("damage", ["rotten", "torn", "missing"])
@pytest.mark.slow
def test_the_checkpoint_before_the_last_serves_if_the_last_is_damaged(
    uninterrupted: Path, longer: Path, mlruns: Path, damage: str
) -> None:
    with running(words(longer, mlruns)) as process:
        while not list((mlruns / "checkpoints").rglob("before.safetensors")):
            time.sleep(0.005)
        process.kill()
    [run] = [run for run in opened(mlruns).runs() if run.status == "RUNNING"]
    [before] = (mlruns / "checkpoints").rglob("before.safetensors")
    last = before.with_name("last.safetensors")
    if damage == "missing" or not last.exists():
        last.unlink(missing_ok=True)
    else:
        whole = last.read_bytes()
        middle = len(whole) // 2
        last.write_bytes(
            whole[:middle] if damage == "torn" else whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        )
    subprocess.run(words(longer, mlruns), check=True, capture_output=True)
    assert opened(mlruns).client.get_run(run.run_id).info.status == "FINISHED"
    assert_equal_to_the_bit(opened(uninterrupted), opened(mlruns))  # the epoch of the lost checkpoint is there once, too


@pytest.mark.slow
def test_with_no_whole_checkpoint_the_run_is_trained_again_under_its_id(
    uninterrupted: Path, longer: Path, mlruns: Path
) -> None:
    with running(words(longer, mlruns)) as process:
        checkpoint_appears(mlruns)
        process.kill()
    [before] = opened(mlruns).runs()
    for path in (mlruns / "checkpoints").rglob("*.safetensors"):
        path.write_bytes(b"torn")
    subprocess.run(words(longer, mlruns), check=True, capture_output=True)
    assert before.run_id in {run.run_id for run in opened(mlruns).runs()}
    assert_equal_to_the_bit(opened(uninterrupted), opened(mlruns))


@pytest.mark.slow
def test_a_run_whose_journal_is_gone_is_superseded(uninterrupted: Path, longer: Path, mlruns: Path) -> None:
    with running(words(longer, mlruns)) as process:
        while not any(run.metrics for run in opened(mlruns).runs()):
            time.sleep(0.05)
        process.kill()
    [before] = opened(mlruns).runs()
    shutil.rmtree(mlruns / "checkpoints")
    opened(mlruns).client.set_terminated(before.run_id, "KILLED")  # it may have been measured a moment ago
    subprocess.run(words(longer, mlruns), check=True, capture_output=True)
    old = opened(mlruns).client.get_run(before.run_id)
    assert (old.info.status, old.data.tags["failure"]) == ("FAILED", "checkpoint lost")
    opened(mlruns).client.delete_run(before.run_id)
    assert_equal_to_the_bit(opened(uninterrupted), opened(mlruns))


@pytest.mark.parametrize("what", ["config", "version", "record"])
def test_a_journal_of_another_config_or_version_is_refused_and_kept(tiny: Path, mlruns: Path, what: str) -> None:
    text = tiny.read_text().replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
    config = next(parse_grid(text, "tiny", "tiny.yaml").configs)[1]
    journal = Journal(folder_of(mlruns / "checkpoints" / opened(mlruns).key, config))
    with journal.held():
        journal.begin(Record(config.to_params(), "r", "", {"git_commit": "", "versions": "", "hardware": ""}))
        state = TrainingState(config.model_copy(update={"seed": 7}) if what == "config" else config, torch.device("cpu"))
        journal.save(state)
    if what == "version":
        tensors, metadata = load_file(journal.last), {"format": "capsnet-state-0"}
        save_file(tensors, journal.last, metadata)
    if what == "record":
        (journal.folder / "run.json").write_text('{"params": {}, "unheard": 1}')
    files = {path: path.read_bytes() for path in journal.folder.rglob("*.safetensors")}
    [line] = launched(mlruns, text).failed
    assert {"config": "of another config", "version": "capsnet-state-0", "record": "of another version"}[what] in line
    assert str(journal.folder) in line
    assert {path: path.read_bytes() for path in journal.folder.rglob("*.safetensors")} == files


def test_a_run_that_failed_of_its_surroundings_goes_on_from_its_checkpoint(
    tiny: Path, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import worker

    text = tiny.read_text().replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
    monkeypatch.setattr(worker, "evaluate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    [line] = launched(mlruns, text).failed
    assert "No space left on device" in line
    [run] = opened(mlruns).runs()
    assert checkpoints(mlruns)
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert launched(mlruns, text).finished == 1
    [again] = opened(mlruns).runs()
    assert (again.run_id, again.status) == (run.run_id, "FINISHED")
    assert not {"failure", "reason"} & again.tags.keys()
    assert [epoch for epoch, _ in opened(mlruns).history(run.run_id, "train_loss")] == [1, 2]


@pytest.mark.slow
def test_a_second_launcher_is_refused_and_the_lock_goes_with_its_holder(tiny: Path, mlruns: Path) -> None:
    tiny.write_text(tiny.read_text().replace("epochs: 2", "epochs: 100000"))
    with running(words(tiny, mlruns)) as process:
        checkpoint_appears(mlruns)
        done = subprocess.run(words(tiny, mlruns), check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert "another launch of experiment 'tiny' is going on" in " ".join(done.stderr.split())
        assert {run.status for run in opened(mlruns).runs()} == {"RUNNING"}
        process.kill()
        process.wait()
    store = opened(mlruns)
    with Launchers(mlruns, "tiny", store.key).only(ALL):  # free again
        pass


def test_no_epoch_reaches_mlflow_before_its_line_is_safe_on_the_disk(
    tiny: Path, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, fsync = [0], os.fsync

    def synced(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith("history.jsonl"):
            safe.append(os.fstat(handle).st_size)
        fsync(handle)

    log_batch, sent = MlflowClient.log_batch, []

    def logs(self, run_id, metrics=(), params=(), tags=(), **rest):
        for metric in metrics:
            if metric.key == "train_loss":
                [path] = (mlruns / "checkpoints").rglob("history.jsonl")
                lines = path.read_bytes()[: safe[-1]].splitlines()
                sent.append((metric.step, json.loads(lines[metric.step - 1])["time"] == metric.timestamp))
        return log_batch(self, run_id, metrics, params, tags, **rest)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(MlflowClient, "log_batch", logs)
    launched(mlruns, tiny.read_text().replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]"))
    assert sent == [(1, True), (2, True)]
