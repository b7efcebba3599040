"""python -m benchmarks: a whole run on a small network, what it writes, and what it refuses."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from PIL import Image

import benchmarks.__main__
from benchmarks import machine, processes, tables
from benchmarks.clock import Spread
from benchmarks.measure import AXES, SCALES, SHARES, Budget, peak_precisions
from benchmarks.tables import number, shown
from benchmarks.training import changed, chosen, epoch_of, ours, precisions, swept
from capsnet import terminal
from capsnet.errors import InputError
from tests.benchmarks.conftest import LITTLE

ROOT = Path(__file__).parents[2]


def command(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, flags)])


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    """(folder, what was printed) of a whole run."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        command(patch, "--device", "cpu", "--precisions", "fp32", "--seconds", "0.1", "--out", folder / "new")
        assert benchmarks.__main__.main(small(), LITTLE) == 0
    return folder / "new", printed.getvalue()


def test_a_run_writes_json_with_every_sample(run, small):
    (path,) = run[0].glob("*.json")
    found = json.loads(path.read_text())
    assert path.stem == machine.slug(found["machine"]["device"])
    assert found["machine"].keys() >= {"processor", "cores", "threads", "torch", "date", "commit", "load"}
    assert found["config"] == small().to_params()
    rates = found["images_per_second"]
    assert list(rates) == ["textbook", "training fp32", "evaluation fp32"]
    assert found["images_per_second_by"].keys() == set(AXES)
    assert list(found["images_per_second_by"]["batch_size"]) == ["16", "32"]
    for spread in (*rates.values(), *found["images_per_second_of_processes"].values()):
        assert spread["n"] == len(spread["samples"]) >= 2
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    ratio = found["ratios"]["training fp32 / textbook"]["samples"]
    assert ratio == [a / b for a, b in zip(rates["training fp32"]["samples"], rates["textbook"]["samples"], strict=True)]
    step = found["step_in_seconds"]["fp32"]
    assert step["parts"].keys() == step["floors"].keys()
    assert 0 < step["floors"]["PrimaryCaps"]["seconds"] < step["parts"]["PrimaryCaps"]["median"]
    assert found["peaks"]["flops_per_second"].keys() == {"fp32", "bf16"}
    assert all(peak > 2**20 for peak in found["peak_memory_bytes"].values())
    assert list(found["peak_memory_bytes"]) == ["training fp32", "evaluation fp32"]
    assert "64" not in found["images_per_second_of_processes"]
    assert found["left_out"][-1].startswith("64 processes, on ")


def test_a_run_prints_what_its_markdown_says(run):
    (path,) = run[0].glob("*.md")
    markdown, printed = path.read_text(), run[1]
    cells = [cell for line in markdown.splitlines() if line.startswith("| ") for cell in re.split(r" *\| *", line)]
    assert len(cells) > 100
    for cell in cells:
        assert cell.strip("-:") in printed
    assert f"]({path.stem}.png)" in markdown
    assert "PyTorch" in printed


def test_a_run_draws_a_picture(run):
    (path,) = run[0].glob("*.png")
    with Image.open(path) as picture:
        assert picture.size == (2000, 1520)
        assert len(set(picture.convert("L").resize((200, 152)).tobytes())) > 50


def test_a_run_that_is_cut_off_leaves_what_it_has_measured(monkeypatch, tmp_path, small):
    """And says what it has not."""
    calls, seen = [], []

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.measure._sweep", lambda *_: cut_off() if calls else calls.append(1) or {})
    plain = benchmarks.__main__.write
    monkeypatch.setattr(
        benchmarks.__main__, "write", lambda found, path: plain(found, path) or seen.append(json.loads(path.read_text()))
    )
    command(monkeypatch, "--device", "cpu", "--precisions", "fp32", "--seconds", "0.1", "--out", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        benchmarks.__main__.main(small(), LITTLE)
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert found == seen[-1]
    assert [list(partial["step_in_seconds"]) for partial in seen] == [[], *[["fp32"]] * 4]
    assert [list(partial["images_per_second"]) for partial in seen[2:4]] == [
        [],
        ["textbook", "training fp32", "evaluation fp32"],
    ]
    assert found["ratios"].keys() == {"training fp32 / textbook", "evaluation fp32 / training fp32"}
    assert list(found["images_per_second_by"]) == [AXES[0]]
    assert found["left_out"] == [f"{section}: not measured yet" for section in (*AXES[1:], "memory", "processes")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "tpu"], "unknown device 'tpu'; choices: auto, cpu, cuda, cuda:N"),
        (["--device", "cpu", "--precisions", "fp32", "fp16"], "unknown precision 'fp16'; did you mean 'bf16'?"),
        (["--device", "cpu", "--precisions", "tf32"], "precision tf32 can't be had here; choices on cpu: fp32, bf16"),
        (["--seconds", "0"], "--seconds must be above 0, not 0"),
        (["--seconds", "nan"], "--seconds must be above 0, not nan"),
        (
            ["--out", "/proc/none"],
            "nothing can be written to /proc/none: No such file or directory; --out names another folder",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_choices(monkeypatch, capsys, tmp_path, flags, said):
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, *flags)
    with pytest.raises(SystemExit) as ended:
        terminal.finish(benchmarks.__main__.main)
    assert ended.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_help_answers_without_torch():
    words = [sys.executable, "-X", "importtime", "-m", "benchmarks", "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--precisions" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "capsnet.config" in loaded
    assert not loaded & {"torch", "matplotlib", "seaborn"}


def test_precisions_are_named_once(cpu):
    assert chosen(("fp32", "fp32"), cpu) == ("fp32",)
    assert chosen((), cpu) == precisions(cpu)
    with pytest.raises(InputError, match="choices: fp32"):
        chosen(("fp23",), cpu)
    assert peak_precisions(cpu, ["bf16"]) == ["bf16", "fp32"]
    assert peak_precisions(torch.device("cuda"), ["fp32"]) == ["fp32", "tf32", "bf16"]


def test_sweeps_are_of_what_a_gpu_is_fastest_in_and_of_a_cpus_first(cpu):
    cuda = torch.device("cuda")
    assert swept(precisions(cuda), cuda) == swept(("bf16", "fp32"), cuda) == "bf16"
    assert swept(("tf32", "fp32"), cuda) == "tf32"
    assert swept(precisions(cpu), cpu) == "fp32"
    assert swept(("bf16",), cpu) == "bf16"


def test_an_epoch_is_of_whole_batches_that_there_are(small):
    assert epoch_of(small(), 100).training_images == 96
    assert epoch_of(small(), 1).training_images == 32
    assert epoch_of(small(), 10**6).training_images == 1437 // 32 * 32
    assert epoch_of(small(batch_size=2000), 10).training_images == 1437


def test_ours_is_trained_as_a_run_trains_it(small, cpu):
    run = ours(epoch_of(small(), 64), cpu)
    assert all(0 < run() < 10 for _ in range(3))


def test_a_change_is_validated(small):
    assert changed(small(), batch_size=7).batch_size == 7
    with pytest.raises(ValueError, match="batch_size"):
        changed(small(), batch_size=0)


def test_time_that_a_section_leaves_or_overdraws_is_shared_by_the_others():
    now = iter([0.0, 0.0, 70.0, 120.0])
    budget = Budget(100, {"a": 1, "b": 1, "c": 2}, lambda: next(now))
    assert budget.share("a") == 25
    assert budget.share("b") == 10  # 30 s are left: a third of them
    assert budget.share("c") == 0


def test_every_section_has_its_share():
    assert SHARES.keys() == {"peaks", "step", "peaks again", "training", *AXES, "memory", "processes"}
    for scale in SCALES.values():
        assert scale.values.keys() == set(AXES)
        assert scale.rounds >= 3


def test_processes_are_as_many_as_there_are_cores_and_memory_for(monkeypatch, cpu):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.setattr(machine, "free", lambda device: 10e9)
    assert processes.fitting((1, 2, 4, 16), cpu, 1e8) == [1, 2, 4]
    assert processes.fitting((1, 2, 4, 16), cpu, 3e9) == [1, 2]
    assert processes.fitting((1, 2), cpu, 100e9) == [1]


def test_a_process_that_ends_is_an_error_and_no_wait():
    with processes.Elsewhere(_ending) as worker, pytest.raises(RuntimeError, match="has ended with code 7"):
        worker()


def _ending():
    return lambda: os._exit(7)


def test_a_name_as_that_of_a_file():
    assert machine.slug("Intel(R) Xeon(R) Processor, 2 threads") == "intel-xeon-processor-2-threads"
    assert machine.slug("NVIDIA H200") == "nvidia-h200"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.2345, "1.23"),
        (9.999, "10.0"),
        (99.96, "100"),
        (123456, "123,000"),
        (0.0012345, "0.00123"),
        (-5.678, "-5.68"),
        (999.9, "1,000"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_a_spread_is_shown_with_its_range():
    assert shown(Spread((0.002, 0.001, 0.004)), 1e3) == "2.00 (1.00–4.00)"


def test_markup_in_a_name_is_shown_as_it_is():
    table = tables.Table("[bold]t", ("a", "b"), (("[red]x", "1"),), ("note",))
    with terminal.console.capture() as printed:
        terminal.console.print(table.rich())
    assert "[red]x" in printed.get()
    assert table.markdown() == "**[bold]t**\n\n| a      |   b |\n| ------ | --: |\n| [red]x |   1 |\n\nnote\n"
