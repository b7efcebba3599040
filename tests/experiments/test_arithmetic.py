"""What a launch without a CUDA device says of its length: counted as benchmarks count, for what is left, and else nothing."""

from pathlib import Path

import pytest
import torch

from benchmarks.floors import work
from capsnet.config import RunConfig
from experiments import arithmetic
from experiments.executors import Engine, Inline
from experiments.search_yaml import parse_search, read_search
from experiments.sources import read_grid
from tests.experiments.conftest import launched
from tests.experiments.test_searching import GRIDLESS, SEARCH, searched


@pytest.mark.parametrize("changes", [{}, {"routing_iterations": 1}, {"reconstruction_weight": 0}, {"precision": "bf16"}])
def test_flops_are_those_of_the_benchmarks(changes: dict[str, object]) -> None:
    config = RunConfig(**{"dataset": "mnist", **changes})  # type: ignore[arg-type]
    parts = {name: part.flops for name, part in work(config).items()}
    parts["conv1"] = parts["conv1"] * 3 // 2  # whose images need no gradient, which is not counted here
    # routing that keeps no votes in memory makes them anew in each pass
    assert arithmetic.flops(config) == pytest.approx(sum(parts.values()), rel=0.03 if config.routing_iterations > 1 else 1e-3)


def test_plain_networks_are_counted_too_and_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    config = RunConfig(model="cnn", dropout=0.5, loss="cross_entropy", reconstruction_weight=0.0)
    assert arithmetic.flops(config) == pytest.approx(11.8e9, rel=0.01)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("grid", "told"), [("paper", True), ("table1", True), ("mnist-full", False), ("mnist-small", False)])
def test_grids_for_a_gpu_are_told_of_and_those_for_a_cpu_are_not(grid: str, told: bool) -> None:
    left = [(config, config.epochs) for _, config in read_grid(grid).configs]
    assert bool(arithmetic.remarks(left, cores=2)) == told


def test_what_is_left_and_the_cores_count() -> None:
    config = next(config for _, config in read_grid("mnist-full").configs)
    [line] = arithmetic.remarks([(config, 240)], cores=1)
    hours = arithmetic.flops(config) * config.training_images * 240 / arithmetic.PACE / 3600
    assert f"may take {hours:.0f} h: 18 PFLOP" in line
    assert "(cores here: 1)" in line
    assert arithmetic.remarks([(config, 24)], cores=1) == arithmetic.remarks([(config, 240)], cores=8) == []


def test_attacks_count_as_their_steps_would_in_training() -> None:
    """Of 10,000 images 20 for each of 9 classes, as many as 36 epochs of 50,000 have."""
    plain, attacked = (RunConfig(train_size=50_000, test_sets=names) for names in (("noisy_20",), ("noisy_20", "pgd_8")))
    [told] = arithmetic.remarks([(attacked, 200)], cores=1)
    assert [told] == arithmetic.remarks([(plain, 236)], cores=1)
    assert [told] != arithmetic.remarks([(plain, 200)], cores=1)


def test_a_launch_says_it_before_the_first_run_of_what_it_has_to_train(
    mlruns: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arithmetic, "PACE", 1.0)
    launched(mlruns, tiny.read_text(), "e")
    said = capsys.readouterr()
    assert "0 of them settled already" in said.out
    assert said.err.count("note: on a CPU this may take") == 1
    launched(mlruns, tiny.read_text(), "e")
    assert "on a CPU" not in capsys.readouterr().err


def test_a_search_is_told_of_as_if_each_trial_had_its_longest_corner() -> None:
    search = read_search("mnist")
    config = next(corner for corner in search.corners if corner.routing_iterations == 5)
    hours = arithmetic.flops(config) * 55_000 * 20 * 60 / arithmetic.PACE / 3600
    [line] = arithmetic.search_remarks(search.corners, 60, cores=4)
    assert f"may take {hours / 4:.0f} h if none of the trials is pruned: 85 PFLOP" in line
    assert "time_budget" in line
    assert arithmetic.search_remarks(search.corners, 1, cores=4) == []
    quick = read_search("quick")
    assert arithmetic.search_remarks(quick.corners, (quick.trials or 0) * quick.seeds_per_trial, cores=2) == []


def test_a_search_says_it_of_the_trials_that_are_left(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corners = parse_search(SEARCH, "tiny", "tiny.yaml").corners
    # five trials are just too long, of which two are left afterwards
    most = max(map(arithmetic.flops, corners)) * 60 * 2 * 4.5
    monkeypatch.setattr(arithmetic, "PACE", most / arithmetic.LONG / Engine(Inline()).cores)
    searched(mlruns, GRIDLESS)
    assert capsys.readouterr().err.count("note: on a CPU this may take 13 h if none of the trials is pruned") == 1
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 7"))
    assert "on a CPU" not in capsys.readouterr().err
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 20\ntime_budget: 1s"))
    assert "on a CPU" not in capsys.readouterr().err
