"""``python -m experiments`` as a user meets it: what it prints, how fast it answers, and how it refuses."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.__main__ import _default

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
def test_plan_run_plan(command: Command, tiny: Path) -> None:
    planned = command("plan", str(tiny))
    assert planned.returncode == 0
    assert "two routings of a tiny network" in planned.stdout
    assert "2 cells, 4 runs, 0 finished" in planned.stdout
    ran = command("run", str(tiny), "--workers", "0")
    assert ran.returncode == 0, ran.stderr
    assert "4 runs on cpu: 4 finished, 4 of them now; 0 failed" in ran.stdout
    assert "2 cells, 4 runs, 4 finished" in command("plan", str(tiny)).stdout


def test_without_cuda_and_without_a_grid_quick_is_chosen_and_the_reason_given(tmp_path: Path) -> None:
    code = "import experiments.__main__ as m; print(m._default('grid', 'paper'))"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=hidden, check=True)
    assert "because there is no CUDA device" in done.stdout
    assert done.stdout.split()[-1] == "quick"


@pytest.mark.parametrize(("capability", "chosen"), [((7, 5), "quick"), ((8, 0), "paper")])
def test_a_card_without_bfloat16_gets_quick_and_the_reason_is_given(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert _default("grid", "paper", (8, 0)) == chosen
    assert ("a card has no bfloat16, in which paper trains" in capsys.readouterr().out) == (chosen == "quick")


def seconds_and_modules(*arguments: str) -> tuple[float, int, str]:
    """Processor time of a command (a busy machine is no fault), its exit code, its output, then the heavy modules imported."""
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print('heavy:', *sorted({'torch', 'mlflow', 'pandas', 'optuna'} & set(sys.modules))))\n"
        f"sys.argv = ['experiments', *{arguments!r}]\n"
        "runpy.run_module('experiments', run_name='__main__')\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.returncode, done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["run", "--help"], ["run", "papr"], ["plan", "papr"]])
def test_help_and_refusal_answer_at_once_without_torch_and_mlflow(arguments: list[str]) -> None:
    took, code, printed = min(seconds_and_modules(*arguments) for _ in range(3))
    assert code == (0 if "--help" in arguments else 2)
    assert printed.rstrip().endswith("heavy:")
    assert took < 1


def test_plan_imports_no_torch(mlruns: Path, tiny: Path) -> None:
    _, code, printed = seconds_and_modules("plan", str(tiny), "--mlruns", str(mlruns))
    assert code == 0
    assert "heavy: mlflow" in printed
    assert "torch" not in printed.splitlines()[-1]


BAD: dict[str, tuple[list[str], list[str]]] = {
    "unknown grid": (["run", "papr"], ["unknown grid 'papr'", "did you mean 'paper'"]),
    "misspelt flag": (["run", "quick", "--experimant", "x"], ["--experimant", "--experiment"]),
    "unknown device": (["run", "quick", "--device", "tpu"], ["'tpu'", "auto, cpu, cuda"]),
    "absent device": (["run", "quick", "--device", "cuda:99"], ["cuda:99", "choices: auto, cpu"]),
    "workers": (["run", "quick", "--workers", "-1"], ["--workers", "-1"]),
    "workers as text": (["run", "quick", "--workers", "two"], ["--workers", "two"]),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_before_anything_is_recorded(
    command: Command, mlruns: Path, arguments: list[str], words: list[str]
) -> None:
    before = (mlruns / "mlflow.db").read_bytes()
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.replace("│", " ").split())
    for word in words:
        assert word in said
    assert (mlruns / "mlflow.db").read_bytes() == before


def test_a_data_set_that_is_not_there_is_found_out_before_anything_is_recorded(
    command: Command, mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torchvision's urllib obeys the proxy of the environment, and nobody listens at this one
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    before = (mlruns / "mlflow.db").read_bytes()
    done = command("run", "mnist-small", "--data", str(tmp_path / "nothing"))
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    for word in ("MNIST can't be read", str(tmp_path / "nothing"), "CAPSNET_DATA", "'digits' is embedded"):
        assert word in said
    assert "Traceback" not in said
    assert (mlruns / "mlflow.db").read_bytes() == before


def test_what_few_would_want_is_said_once_and_trained_nevertheless(command: Command, tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    small = "dataset: multidigits, validation_size: 100, conv_kernel: 5, primary_kernel: 5"
    grid.write_text(f"base: {{{small}}}\naxes: {{augmentation: [none, shift(pixels=4)]}}\nseeds: 2")
    done = command("plan", str(grid))
    assert done.returncode == 0
    assert done.stderr.count("note: test images of multidigits are moved by up to 4 pixels") == 1
