"""The runs one by one: what each is, what became of it and why, and where it can be seen."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.cells import Cell
from analysis.expenses import Expense
from analysis.origins import run_address
from analysis.runs import Runs
from analysis.sentences import setting

FINISHED, WAITING = "finished", "not run"


@dataclass(frozen=True)
class Line:
    """A run.

    Attributes:
        name: its number in MLflow, shortened; empty if it has not begun.
        address: where it can be seen.
        config: what sets it apart from the others, but for the seed.
        seed: its seed.
        outcome: finished, not run, diverged and so on, as tables say it.
        error: test error in %.
        seconds: of training.
        reason: why it failed.
    """

    name: str
    address: str
    config: str
    seed: int
    outcome: str
    error: str
    seconds: str
    reason: str


def roster(found: Runs, cells: Sequence[Cell], spent: Mapping[str, Expense]) -> list[Line]:
    """All runs, cell by cell and seed by seed, with what each took."""
    return [line for cell in cells for line in _lines(found, cell, spent)]


def _lines(found: Runs, cell: Cell, spent: Mapping[str, Expense]) -> Iterator[Line]:
    config = setting(cell.setting)
    for place, row in enumerate(cell.runs.to_dict("records")):
        run_id, error = row["run_id"], row["test_error"]
        began = not pd.isna(run_id)
        seconds = spent[run_id].seconds if began else math.nan
        # a cell of that run alone says what became of it
        outcome = replace(cell, runs=cell.runs.iloc[[place]]).failures.removeprefix("1 ") if math.isnan(error) else ""
        yield Line(
            run_id[:8] if began else "",
            run_address(found.stores[row["experiment"]], run_id) if began else "",
            config,
            int(row["seed"]),
            outcome or FINISHED,
            "—" if math.isnan(error) else f"{error:.2f}",
            "—" if math.isnan(seconds) else f"{seconds:.1f}",
            "" if pd.isna(row["reason"]) else row["reason"].strip(),
        )
