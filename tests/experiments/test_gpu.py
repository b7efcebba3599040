"""What the runner promises of graphics cards. ``make test-gpu`` runs it, where there is one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.executors import choose
from experiments.tracking import Store
from tests.experiments.conftest import TINY
from tests.experiments.test_executors import at_once, spans, timed
from tests.experiments.test_executors import launched as handed_out
from tests.experiments.test_resume import assert_equal_to_the_bit, checkpoint_appears, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

LONGER = TINY.replace("epochs: 2", "epochs: 200")


def words(grid: Path, mlruns: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "experiments", "run", str(grid), "--mlruns", str(mlruns), "--device", "cuda", *flags]


def store(folder: Path) -> Store:
    found = Store.open("tiny", folder, create=False)
    assert found is not None
    return found


def test_shares_of_a_card_hold_as_many_runs_at_once(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with choose(2, 0.5, "", "cuda", 4) as engine:
        assert (engine.slots, engine.device) == (2, "cuda")
        handed_out(timed, engine, tmp_path)
    assert at_once(spans(tmp_path)) == 2


def test_a_run_killed_on_a_card_equals_one_that_was_left_alone(tmp_path: Path) -> None:
    (grid := tmp_path / "tiny.yaml").write_text(LONGER)
    (mlruns := tmp_path / "killed").mkdir()
    with running(words(grid, mlruns, "--workers", "0", "--checkpoint-every", "0")) as process:
        checkpoint_appears(mlruns, 180)  # a first start on a card loads and compiles
        time.sleep(0.3)
        process.kill()
    for folder in (mlruns, tmp_path / "alone"):
        done = subprocess.run(words(grid, folder, "--workers", "0"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(store(mlruns), store(tmp_path / "alone"))


def test_two_on_a_card_give_the_bits_of_one(tmp_path: Path) -> None:
    (grid := tmp_path / "tiny.yaml").write_text(TINY)
    for folder, flags in (("packed", ("--workers", "2", "--gpus-per-run", "0.5")), ("alone", ("--workers", "0"))):
        done = subprocess.run(words(grid, tmp_path / folder, *flags), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(store(tmp_path / "packed"), store(tmp_path / "alone"))


def test_more_runs_than_the_cards_hold_are_refused(tmp_path: Path) -> None:
    (grid := tmp_path / "tiny.yaml").write_text(TINY)
    most = 2 * torch.cuda.device_count()
    flags = ("--workers", str(most + 1), "--gpus-per-run", "0.5")
    done = subprocess.run(words(grid, tmp_path, *flags), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"GPUs hold {most} runs with --gpus-per-run 0.5" in done.stderr


def test_a_run_that_finds_no_memory_says_so_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    (grid := tmp_path / "tiny.yaml").write_text(TINY)
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - 2**26, dtype=torch.uint8, device="cuda")  # less is left than another process needs to begin
    done = subprocess.run(words(grid, tmp_path, "--workers", "0"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert {run.tags["failure"] for run in store(tmp_path).runs()} == {"out of memory"}
    del held
    torch.cuda.empty_cache()
    done = subprocess.run(words(grid, tmp_path, "--workers", "0"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
