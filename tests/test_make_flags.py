"""What ``make ablation`` and ``make search`` do with flags that only one of their two commands would hear of."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def made(*words: str) -> subprocess.CompletedProcess[str]:
    line = ["make", "--no-print-directory", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("target", ["ablation", "search"])
@pytest.mark.parametrize(
    "flags", ["--experiment mine", "--fresh --experiment=mine", "--mlruns /there", "--mlruns=/there", "--data /there"]
)
def test_flags_after_which_the_tables_would_be_of_other_runs_are_refused(target: str, flags: str) -> None:
    done = made(target, "GRID=nothing is begun", f"FLAGS={flags}")
    assert done.returncode == 2
    assert "error: FLAGS with --data, --experiment or --mlruns are not heard by the analysis that follows" in done.stderr
    assert "DATA=folder names the folder of data sets, EXPERIMENT=name the experiment" in done.stderr
    assert "unknown grid" not in done.stderr


@pytest.mark.parametrize("flags", ["", "--fresh", "--gpus-per-run 0.25 --checkpoint-every 5"])
def test_other_flags_are_handed_on(flags: str) -> None:
    done = made("--dry-run", "ablation", f"FLAGS={flags}")
    assert done.returncode == 0, done.stderr
    assert f"{flags}; code=$?" in done.stdout
