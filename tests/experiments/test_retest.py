"""Finished networks tested on further test sets: as if they had been tested there when they were trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis import figures_command
from analysis.runs import read_runs
from capsnet.errors import InputError
from capsnet.training import DivergedError
from experiments import retest
from experiments.__main__ import test as command
from experiments.flags import Test as Flags
from experiments.record import LATER, TRIAL
from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened

NAMES = ("noisy_20", "pgd_9", "rotated_30")
ERRORS = [f"test_error_{name}" for name in NAMES]

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """Four finished runs in a folder that no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(migrated, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        launched(folder, TINY)
    return folder


@pytest.fixture
def mlruns(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(trained, tmp_path / "mlruns"))


@pytest.fixture
def again(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code and what was printed of the command."""

    def run(*names: str, experiment: str = "tiny", **more: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = command(Flags(experiment, names, device="cpu", mlruns=mlruns, **more))
        return code, *capsys.readouterr()

    return run


def test_the_errors_are_those_of_a_run_that_was_tested_there_at_once(mlruns: Path, again: Callable[..., Any]) -> None:
    before = {run.run_id: run for run in opened(mlruns).runs()}
    code, out, _ = again(*NAMES)
    assert code == 0
    assert "4 finished runs: 4 tested now, 0 before; 0 failed" in out
    text = TINY.replace("base:\n", "base:\n  test_sets: [noisy_20, pgd_9, rotated_30]\n").replace("seeds: 2", "seeds: [1]")
    launched(mlruns, text, name="at_once")
    later, at_once = (read_runs(name, mlruns).runs for name in ("tiny", "at_once"))
    for name in (*ERRORS, "test_error"):
        assert later[later["seed"] == 1][name].tolist() == at_once[name].tolist()
    assert later[ERRORS].notna().all(axis=None)
    data = next(opened(mlruns, "at_once").runs()).data
    for run in opened(mlruns).runs():
        assert run.data == data
        assert run.tags[LATER].startswith("noisy_20, pgd_9, rotated_30 by ")
        old = before[run.run_id]
        assert (run.params, run.status, run.start, run.end) == (old.params, old.status, old.start, old.end)
        assert {k: v for k, v in run.metrics.items() if k not in ERRORS} == old.metrics


def test_what_is_there_is_not_tested_again_and_no_launch_trains_anew(mlruns: Path, again: Callable[..., Any]) -> None:
    again("noisy_20")
    tested = []
    with pytest.MonkeyPatch.context() as patch:
        evaluate = retest.evaluate
        patch.setattr(retest, "evaluate", lambda *given: tested.append(given) or evaluate(*given))
        code, out, _ = again("rotated_30", "pgd_9", "noisy_20")
        assert code == 0
        assert len(tested) == 4 * 3, "each its own test set and the new ones"
        assert "noisy_20" not in out
        assert "4 finished runs: 4 tested now" in out
        code, out, _ = again(*NAMES)
    assert len(tested) == 4 * 3
    assert "4 finished runs: 0 tested now, 4 before; 0 failed" in out
    assert {run.tags[LATER].count(" by ") for run in opened(mlruns).runs()} == {2}
    summary = launched(mlruns, TINY)
    assert (summary.before, summary.finished) == (4, 0)


def test_whoever_is_interrupted_goes_on(mlruns: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        told = retest.tell
        count = iter(range(9))

        def stopped(*given: Any) -> None:
            if next(count) == 2:
                raise KeyboardInterrupt
            told(*given)

        patch.setattr(retest, "tell", stopped)
        with pytest.raises(KeyboardInterrupt):
            again(*NAMES)
    code, out, _ = again(*NAMES)
    assert code == 0
    assert "4 finished runs: 2 tested now, 2 before; 0 failed" in out


def test_a_network_that_is_not_the_one_that_was_tested_is_refused_and_the_others_are_not(
    mlruns: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list(opened(mlruns).runs())
    artifact = Store.artifact

    def fetched(store: Store, run_id: str, name: str, folder: Path) -> Path:
        path = artifact(store, run_id, name, folder)
        if run_id == runs[0].run_id:
            copy = shutil.copy(path, folder / "copy")
            weights = load_file(copy)
            save_file({name: -tensor for name, tensor in weights.items()}, copy)
            return Path(copy)
        if run_id == runs[1].run_id:
            (folder / "broken").write_bytes(b"no weights")
            return folder / "broken"
        return path

    monkeypatch.setattr(Store, "artifact", fetched)
    code, out, err = again(*NAMES)
    said = " ".join(err.split())
    assert code == 1
    assert "4 finished runs: 2 tested now, 0 before; 2 failed" in out
    assert "the code that tests it is other" in said
    assert "its weights are damaged, or of another version of the network" in said
    assert not runs[0].metrics.keys() & set(ERRORS)
    assert [len(run.metrics.keys() & set(ERRORS)) for run in opened(mlruns).runs()] == [0, 0, 3, 3]


def test_a_network_whose_attack_diverges_is_a_fault_of_its_own(
    mlruns: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, asked = retest.further.split, []

    def diverging(*given: Any) -> Any:
        asked.append(given)
        if len(asked) == 1:
            raise DivergedError("the gradient is not finite")
        return split(*given)

    monkeypatch.setattr(retest.further, "split", diverging)
    code, out, err = again("fgsm_9")
    assert code == 1
    assert "4 finished runs: 3 tested now, 0 before; 1 failed" in out
    assert "the gradient is not finite" in err
    assert again("fgsm_9")[0] == 0


def test_other_files_than_a_run_read_are_refused(
    mlruns: Path, again: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    read = retest.read
    monkeypatch.setattr(retest, "read", lambda *given: replace(read(*given), digest="0" * 64))
    code, _, err = again("noisy_20")
    assert code == 1
    assert "and the files in" in " ".join(err.split())
    assert not any("test_error_noisy_20" in run.metrics for run in opened(mlruns).runs())


@pytest.mark.parametrize(
    ("names", "experiment", "said"),
    [
        ((), "tiny", "--test-sets names none; choices: affnist, affnist_generated"),
        (("rotatd_30",), "tiny", r"unknown test set 'rotatd_30'; did you mean 'rotated_N'\?.*in --test-sets"),
        (("rotated_181",), "tiny", "after rotated_ stands how many degrees, 1 to 180 .in --test-sets"),
        (("noisy_20",), "tinny", "unknown experiment 'tinny'; did you mean 'tiny'"),
        (("noisy_20", "occluded_16"), "tiny", r"occluded_16 would leave nothing of the 16x16 images \(in run \w{8} of tiny\)"),
        (("affnist_generated",), "tiny", "don't fit those of digits"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is(
    mlruns: Path, again: Callable[..., Any], names: tuple[str, ...], experiment: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        again(*names, experiment=experiment)
    assert not any("test_error_noisy_20" in run.metrics for run in opened(mlruns).runs())


def test_trials_of_a_search_are_left_out(mlruns: Path, again: Callable[..., Any]) -> None:
    store = opened(mlruns)
    first = next(store.runs())
    store.tag(first.run_id, {TRIAL: "7"})
    assert "3 finished runs: 3 tested now" in again("noisy_20")[1]
    assert "test_error_noisy_20" not in next(store.runs()).metrics


def test_an_experiment_without_a_finished_run_is_refused(mlruns: Path, again: Callable[..., Any]) -> None:
    Store.open("empty", mlruns, create=True)
    with pytest.raises(InputError, match="'empty' has no finished run to test"):
        again("noisy_20", experiment="empty")
    (mlruns / "mlflow.db").unlink()
    with pytest.raises(InputError, match="nothing is launched yet"):
        again("noisy_20")


def test_figures_that_were_drawn_before_get_the_one_of_the_new_test_sets(
    mlruns: Path, again: Callable[..., Any], tmp_path: Path
) -> None:
    run = next(run for run in opened(mlruns).runs())

    def made(results: str) -> dict[str, bytes]:
        paths = figures_command.make(run.run_id, mlruns, Path("nowhere"), tmp_path / results)
        return {path.name: path.read_bytes() for path in paths}

    before = made("results")
    assert before
    assert made("results") == before
    for names in (NAMES[:1], NAMES):
        assert again(*names)[0] == 0
        after = made("results")
        assert after.keys() - before.keys() == {"corruptions.png", "corruptions.pdf"}
        assert after == made(f"fresh {len(names)}")
