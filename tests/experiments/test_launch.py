"""A launch from YAML to runs: nothing is trained twice, a failure is a result, and Ctrl-C loses nothing that was finished."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import gridding
from experiments.gridding import Summary, Wish
from experiments.known import by_config, sorted_out, state
from experiments.provenance import hardware
from experiments.tracking import Store
from tests.experiments.conftest import launched as launched_named
from tests.experiments.conftest import opened


def launched(mlruns: Path, text: str, **changes: Any) -> tuple[Summary, Store]:
    return launched_named(mlruns, text, "e", **changes), opened(mlruns, "e")


def test_a_second_launch_starts_nothing(mlruns: Path, tiny: Path) -> None:
    first, store = launched(mlruns, tiny.read_text())
    before = list(store.runs())
    second, _ = launched(mlruns, tiny.read_text())
    assert (first.before, first.finished, first.failed) == (0, 4, [])
    assert (second.before, second.finished, second.failed) == (4, 0, [])
    assert list(store.runs()) == before


def test_errors_at_another_r_are_logged_beside_the_test_error_and_read_again(mlruns: Path, tiny: Path) -> None:
    from analysis.runs import read_runs

    text = (
        tiny.read_text()
        .replace("epochs: 2\n", "epochs: 2\n  test_routing_iterations: [2, 5]\n")
        .replace("seeds: 2", "seeds: 1")
    )
    _, store = launched(mlruns, text)
    for run in store.runs():
        if run.params:
            assert {name for name in run.metrics if name.startswith("test_error")} == {
                "test_error",
                "test_error_r2",
                "test_error_r5",
            }
    runs = read_runs("e", mlruns).runs
    assert runs[["test_error_r2", "test_error_r5"]].notna().all(axis=None)
    assert [str(kind) for kind in runs[["test_error_r2", "test_error_r5"]].dtypes] == ["float64"] * 2


def test_runs_of_a_branch_with_more_fields_are_known_unless_they_used_them(mlruns: Path, tiny: Path) -> None:
    """A branch adds a field whose default changes nothing, and logs it with every run."""
    _, store = launched(mlruns, tiny.read_text())
    runs = [replace(run, params={**run.params, "temperature": "1.0"}) for run in store.runs()]
    assert len(by_config(runs)) == len(runs) > 1
    used = [replace(run, tags={**run.tags, "differing": f"{run.tags['differing']} temperature"}) for run in runs]
    known, strangers = sorted_out(used)
    assert not known
    assert set(strangers.values()) == {"this version has no temperature: another branch, or another version, logged it"}
    older = [replace(run, tags={}) for run in runs]  # of before that was logged
    assert not by_config(older)


def test_a_larger_grid_trains_only_what_is_new(mlruns: Path, tiny: Path) -> None:
    launched(mlruns, tiny.read_text())
    # the same configs in other words, and one seed more
    text = tiny.read_text().replace("seeds: 2", "seeds: [2, 1, 0]").replace("lr_schedule: constant", "lr_schedule: constant()")
    summary, _ = launched(mlruns, text)
    assert (summary.before, summary.finished) == (4, 2)


def test_a_run_that_diverges_is_recorded_and_the_others_go_on(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tiny.read_text().replace("seeds: 2", "seeds: 1\nalso:\n  - learning_rate: 1e30")
    summary, store = launched(mlruns, text)
    assert summary.finished == 2
    [line] = summary.failed
    assert "learning_rate=1e+30" in line
    assert "nan" in line
    [failed] = [run for run in store.runs() if run.status == "FAILED"]
    assert failed.run_id in line
    assert failed.tags["failure"] == "diverged"
    assert "test_error" not in failed.metrics
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'grid'")
    assert parent.info.status == "FAILED"

    again, _ = launched(mlruns, text)  # it would diverge again: it is told of, but not trained
    assert (again.before, again.finished, len(again.failed)) == (3, 0, 1)
    assert len(list(store.runs())) == 3
    monkeypatch.setattr(gridding, "code", lambda: "another")
    again, _ = launched(mlruns, text)
    assert again.other_code == 3
    retried, _ = launched(mlruns, text, wish=Wish(retry_failed=True))
    assert (retried.before, retried.finished, len(retried.failed)) == (2, 0, 1)
    assert retried.other_code == 2  # it is trained again anyway


def test_a_run_that_dies_of_an_exception_is_recorded_and_tried_again(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import worker

    evaluate, calls = worker.evaluate, []

    def faulty(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")
        return evaluate(*arguments)

    monkeypatch.setattr(worker, "evaluate", faulty)
    summary, store = launched(mlruns, tiny.read_text())
    assert (summary.finished, len(summary.failed)) == (3, 1)
    assert [run.tags["failure"] for run in store.runs() if run.status == "FAILED"] == ["out of memory"]
    again, _ = launched(mlruns, tiny.read_text())
    assert (again.before, again.finished, again.failed) == (3, 1, [])


@pytest.mark.parametrize(
    ("said", "failures", "exits"),
    [
        ("CUDA error: an illegal memory access was encountered", [], [1]),
        ("CUDA error: out of memory", ["out of memory"], []),
    ],
)
def test_a_process_ends_with_its_use_of_cuda_and_not_for_want_of_memory(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, said: str, failures: list[str], exits: list[int]
) -> None:
    """Where every use of CUDA fails, to free its memory does, too."""
    from experiments import worker

    evaluate, ended = worker.evaluate, []

    def broken(*_: object) -> None:
        monkeypatch.setattr(worker, "evaluate", evaluate)
        monkeypatch.setattr(torch.cuda, "empty_cache", fails)
        fails()

    def fails() -> None:
        raise RuntimeError(said)

    def replaced(code: int) -> None:  # by another process, which is well
        ended.append(code)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    monkeypatch.setattr(worker, "evaluate", broken)
    monkeypatch.setattr(worker.os, "_exit", replaced)
    summary, store = launched(mlruns, tiny.read_text(), expendable=True)
    assert ended == exits
    assert [run.tags["failure"] for run in store.runs() if run.status == "FAILED"] == failures
    assert (summary.finished, len(summary.failed)) == (4 - len(failures), len(failures))


def test_a_card_without_memory_for_its_name_is_no_reason_not_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is none is recorded of a run once it has begun."""

    def full(_: int) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", full)
    assert hardware().endswith(" threads), a card that doesn't answer")


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(mlruns: Path, tiny: Path) -> None:
    # long enough to be interrupted in: the first run is short, the second endless
    text = tiny.read_text().replace("axes:\n  routing_iterations: [1, 3]", "axes:\n  epochs: [1, 100000]")
    tiny.write_text(text.replace("  epochs: 2\n", "").replace("seeds: 2", "seeds: 1"))
    words = [sys.executable, "-m", "experiments", "run", str(tiny), "--mlruns", str(mlruns)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "1/2" in line:
                break
        store = Store.open("tiny", mlruns, create=False)
        assert store is not None
        while not any(run.params for run in store.runs() if run.status == "RUNNING"):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 of 2 runs are settled; the same command goes on" in " ".join(errors.split())
    assert "Traceback" not in errors
    known = by_config(store.runs())
    assert sorted(map(state, known.values())) == ["finished", "interrupted"]
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'grid'")
    assert parent.info.status == "KILLED"


def test_a_collection_after_a_run_looks_through_what_the_run_made_alone(mlruns: Path) -> None:
    """Through all that is imported, it took a third of a second after each run; and a process ends without a word."""
    program = f"""
import gc
counts = []
collect = gc.collect
gc.collect = lambda: (collect(), counts.append(len(gc.get_objects())))[0]
from pathlib import Path
from experiments import jobs, worker
from experiments.sources import parse_grid
from tests.experiments.conftest import TINY, opened
mlruns = Path({str(mlruns)!r})
store = opened(mlruns)
place = jobs.Place(store, mlruns / "checkpoints" / store.key, "tiny", "", Path("nowhere"), "cpu", 0.0)
for cell, config in parse_grid(TINY, "tiny", "tiny.yaml").configs:
    assert not worker.run(jobs.Job(cell, config), place).failure
print(*counts)
"""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    counts = [int(count) for count in done.stdout.split()]
    assert len(counts) == 4
    assert max(counts) < 150_000, "of half a million or more"
    assert done.stderr == ""
