"""Every command explains itself on one screen, with an example."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from experiments.__main__ import COMMANDS as OF_EXPERIMENTS

ROOT = Path(__file__).parents[1]
SCREEN, COLUMNS = 50, 100
NARROW = 80  # columns, of the help of most flags
COMMANDS = [
    "capsnet",
    "capsnet.own_data",
    "experiments",
    *(f"experiments {each.__name__.lower()}" for each in get_args(OF_EXPERIMENTS)),
    "analysis",
    "analysis figures",
    "analysis compare",
    "benchmarks",
    "benchmarks.kernels",
    "tests.chaos",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_fits_a_screen_and_has_an_example(command):
    rows, text = printed(command, COLUMNS)
    assert rows <= SCREEN
    assert f"Example: python -m {command}" in text
    assert "type: ignore" not in text
    assert "(default: '')" not in text, "nothing is no default that a user could name"


def test_the_flags_of_a_config_fit_a_narrow_screen_of_which_most_take_one_row():
    rows, text = printed("capsnet", NARROW)
    assert rows <= SCREEN - 10
    alone = [line for line in text.splitlines() if line.startswith("│ --") and not line.strip("│ ").partition("  ")[2]]
    assert not alone, "flags whose texts stand in rows of their own"


def printed(command, columns):
    """The rows that a command's help takes on a terminal of so many columns, and the help."""
    words = [sys.executable, "-m", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": str(columns)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return sum(max(1, -(-len(line) // columns)) for line in lines), done.stdout  # a long line goes on in the next row
