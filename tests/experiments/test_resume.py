"""Whatever ends a launch, the same command goes on, and gives what an uninterrupted one would have given, to the bit."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from capsnet.errors import InputError
from experiments.checkpoints import Checkpoints
from experiments.executors import Inline
from experiments.launch import Summary, only_launch, run_grid
from experiments.sources import parse_grid
from experiments.tracking import Store
from experiments.worker import Place
from tests.experiments.conftest import TINY

# 12 epochs of some 10 ms each: there is time to be killed between two checkpoints
LONGER = ("epochs: 2", "epochs: 12")
TIMES = {"seconds", "images_per_second"}


def words(tiny: Path, mlruns: Path) -> list[str]:
    return [sys.executable, "-m", "experiments", "run", str(tiny), "--mlruns", str(mlruns), "--checkpoint-every", "0"]


def opened(mlruns: Path) -> Store:
    store = Store.open("tiny", mlruns, create=True)
    assert store is not None
    return store


def launched(mlruns: Path, text: str, **changes: float) -> Summary:
    store = opened(mlruns)
    place = Place("tiny", mlruns, "tiny", "", Path("nowhere"), "cpu", **{"checkpoint_every": 0.0, **changes})
    with only_launch(store, mlruns):
        return run_grid(parse_grid(text, "tiny", "tiny.yaml"), store, place, Inline(), slots=1, retry_failed=False)


def contents(mlruns: Path) -> dict[tuple[str, str], tuple[dict[str, torch.Tensor], dict[str, list[tuple[int, float]]]]]:
    """(r, seed) -> weights and metric histories of the finished run; asserts that there is one run per config."""
    store = opened(mlruns)
    found = {}
    for run in store.runs():
        assert run.status == "FINISHED"
        key = run.params["routing_iterations"], run.params["seed"]
        assert key not in found, "two runs of one config"
        histories = {name: store.history(run.run_id, name) for name in run.metrics if not name.startswith("system/")}
        for name in TIMES:
            histories[name] = [(epoch, 0.0) for epoch, _ in histories[name]]
        found[key] = load_file(store.client.download_artifacts(run.run_id, "weights.safetensors")), histories
    return found


def assert_equal_to_the_bit(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    for key, (weights, histories) in first.items():
        assert histories == second[key][1]  # every epoch once, with the same numbers
        assert weights.keys() == second[key][0].keys()
        assert all(torch.equal(tensor, second[key][0][name]) for name, tensor in weights.items())


@contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def checkpoint_appears(mlruns: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not list((mlruns / "checkpoints").glob("*.safetensors")):
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


def test_a_launch_killed_again_and_again_equals_an_uninterrupted_one(uninterrupted: Path, longer: Path, mlruns: Path) -> None:
    for _ in range(2):
        with running(words(longer, mlruns)) as process:
            checkpoint_appears(mlruns)
            process.kill()
    before = {run.params["seed"] + run.params["routing_iterations"]: run.run_id for run in opened(mlruns).runs()}
    assert "RUNNING" in {run.status for run in opened(mlruns).runs()}
    done = subprocess.run(words(longer, mlruns), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(uninterrupted, mlruns)
    after = {run.params["seed"] + run.params["routing_iterations"]: run.run_id for run in opened(mlruns).runs()}
    assert before.items() <= after.items()  # each goes on under its own id
    assert not list((mlruns / "checkpoints").iterdir())  # of no use any more


IN_THE_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # where Ctrl-C is ignored


@pytest.mark.parametrize(
    ("before", "sent"),
    [([], signal.SIGINT), ([], signal.SIGTERM), (IN_THE_BACKGROUND, signal.SIGTERM)],
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
    assert Checkpoints(mlruns, run.run_id).last.exists()


@pytest.mark.parametrize("damage", ["torn", "rotten", "missing"])
def test_the_checkpoint_before_the_last_serves_if_the_last_is_damaged(
    uninterrupted: Path, longer: Path, mlruns: Path, damage: str
) -> None:
    with running(words(longer, mlruns)) as process:
        while not list((mlruns / "checkpoints").glob("*.before.safetensors")):
            time.sleep(0.005)
        process.kill()
    [run] = [run for run in opened(mlruns).runs() if run.status == "RUNNING"]
    last = Checkpoints(mlruns, run.run_id).last
    if damage == "missing" or not last.exists():
        last.unlink(missing_ok=True)
    else:
        whole = last.read_bytes()
        middle = len(whole) // 2
        last.write_bytes(
            whole[:middle] if damage == "torn" else whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        )
    subprocess.run(words(longer, mlruns), check=True, capture_output=True)
    store = opened(mlruns)
    # the epoch of the lost checkpoint was trained, and perhaps logged, a second time: with the same numbers, later
    assert store.client.get_run(run.run_id).info.status == "FINISHED"
    weights = contents(mlruns)[run.params["routing_iterations"], run.params["seed"]][0]
    wanted = contents(uninterrupted)[run.params["routing_iterations"], run.params["seed"]][0]
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())


def test_with_no_whole_checkpoint_the_run_is_begun_anew_and_the_old_one_says_why(tiny: Path, mlruns: Path) -> None:
    tiny.write_text(TINY.replace(*LONGER).replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]"))
    with running(words(tiny, mlruns)) as process:
        checkpoint_appears(mlruns)
        process.kill()
    for path in (mlruns / "checkpoints").iterdir():
        path.write_bytes(b"torn")
    assert launched(mlruns, tiny.read_text()).finished == 1
    old, new = opened(mlruns).runs()
    assert (old.status, new.status) == ("FAILED", "FINISHED")
    assert "can't be read as a checkpoint" in old.tags["reason"]


def test_a_run_that_failed_of_its_surroundings_goes_on_from_its_checkpoint(
    tiny: Path, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import worker

    text = tiny.read_text().replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]")
    monkeypatch.setattr(worker, "evaluate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    [line] = launched(mlruns, text).failed
    assert "No space left on device" in line
    [run] = opened(mlruns).runs()
    assert Checkpoints(mlruns, run.run_id).last.exists()
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert launched(mlruns, text).finished == 1
    [again] = opened(mlruns).runs()
    assert (again.run_id, again.status) == (run.run_id, "FINISHED")
    assert not {"failure", "reason"} & again.tags.keys()
    assert [epoch for epoch, _ in opened(mlruns).history(run.run_id, "train_loss")] == [1, 2]


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
    with only_launch(store, mlruns), pytest.raises(InputError, match="going on"), only_launch(store, mlruns):  # free again
        pass


def test_no_epoch_reaches_mlflow_before_the_checkpoint_that_holds_it(
    tiny: Path, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.tracking import RunLog

    saved, sent = [0], []
    save, epochs = Checkpoints.save, RunLog.epochs
    monkeypatch.setattr(Checkpoints, "save", lambda self, state: (save(self, state), saved.append(len(state.history)))[0])
    monkeypatch.setattr(
        RunLog, "epochs", lambda self, history: (sent.append((len(history), saved[-1])), epochs(self, history))[1]
    )
    launched(mlruns, tiny.read_text().replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]"))
    assert sent == [(0, 0), (1, 1), (2, 2)]
