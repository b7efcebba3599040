"""Fifteen kills of whatever takes part in a launch, and nothing is lost. ``make chaos KILLS=200`` goes on for longer."""

from pathlib import Path

import pytest

from tests.chaos import SearchChaos, chaos


@pytest.mark.slow
def test_a_grid_that_was_killed_fifteen_times_equals_one_that_was_left_alone(tmp_path: Path) -> None:
    killed = chaos(tmp_path, 15, seed=1)
    assert killed.total() >= 15
    assert len(killed) >= 4  # of the six kinds


@pytest.mark.slow
def test_a_search_that_was_killed_fifteen_times_has_exactly_its_trials(tmp_path: Path) -> None:
    assert chaos(tmp_path, 15, seed=1, kind=SearchChaos).total() >= 15
