"""Every command explains itself on one screen, with an example."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from capsnet.config import FIELDS

ROOT = Path(__file__).parents[1]
SCREEN, COLUMNS = 50, 100
COMMANDS = [
    "capsnet",
    "experiments",
    "experiments plan",
    "experiments run",
    "experiments search",
    "experiments sync",
    "analysis",
    "analysis figures",
    "analysis compare",
    "benchmarks",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_fits_a_screen_and_has_an_example(command):
    words = [sys.executable, "-m", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    rows = sum(max(1, -(-len(line) // COLUMNS)) for line in lines)  # a long line goes on in the next row
    # python -m capsnet lists every field of a config, some of them in three rows
    assert rows <= (SCREEN if command != "capsnet" else 20 + 3 * len(FIELDS))
    assert f"Example: python -m {command}" in done.stdout
    assert "type: ignore" not in done.stdout
