"""One row per run -> one cell per configuration, and what became of every run."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from analysis.axes import sorted_runs, varying
from analysis.published import Published, find
from analysis.statistics import Estimate, t_interval
from analysis.where import beside_the_grid
from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.registry import TEST_SETS

Member = TypeVar("Member")


OUTCOMES = {"planned": "not run", "error": "failed"}  # status or kind of failure -> how a table says it, if not the same


@dataclass(frozen=True)
class Cell:
    """The runs that differ in nothing but their seed."""

    setting: dict[str, Any]  # axis -> value, of the axes that vary
    runs: pd.DataFrame  # all that were planned, by seed
    error: Estimate  # of the test error in %, over the finished runs
    published: Published | None  # of single networks
    published_ensemble: Published | None = None
    published_on: Mapping[str, Published] = field(default_factory=dict)  # of errors on further test sets, by their names
    unpaired: frozenset[int] = frozenset()  # seeds whose runs read other data than those of the cells beside it

    @property
    def in_grid(self) -> bool:
        """Whether a grid has it, as it is now: not all are from before an edit."""
        return beside_the_grid(self.runs) < len(self.runs)

    @cached_property
    def finished(self) -> "pd.Series[float]":
        """Test errors in % of the runs that have one."""
        return self.runs["test_error"][outcomes(self.runs) == "finished"]

    @property
    def data(self) -> "pd.Series[str]":
        """SHA-256 of the data set that each finished run read, where that is known."""
        return self.runs["data_sha256"][self.finished.index]

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """Seed -> test error in % of the runs that have one and can be paired."""
        errors = zip(self.runs["seed"][self.finished.index], self.finished, strict=True)
        return {seed: error for seed, error in errors if seed not in self.unpaired}

    @property
    def failures(self) -> str:
        """What became of the other runs: ``1 diverged, 2 not run``; empty if all finished."""
        counts = outcomes(self.runs).value_counts().drop("finished", errors="ignore")
        return ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts.index, key=lambda k: (k == "not run", k)))

    @property
    def count(self) -> str:
        """``n=3``, or ``n=2 of 3; 1 diverged``."""
        planned = len(self.runs)
        return f"n={planned}" if self.error.n == planned else f"n={self.error.n} of {planned}; {self.failures}"


def cells(runs: pd.DataFrame, published: Iterable[Published] = ()) -> list[Cell]:
    """The cells of an experiment, sorted by the values of the axes.

    Raises:
        InputError: there is no run, or a cell has several published values.
    """
    axes, published = varying(runs), tuple(published)
    ordered = sorted_runs(runs, axes)
    groups = [rows for _, rows in ordered.groupby(axes, sort=False, dropna=False)] if axes else [ordered]
    return [_cell(rows, axes, published) for rows in groups]


def dataset_of(cell: Cell) -> str:
    """The data set that its runs are of."""
    return str(cell.runs["dataset"].iloc[0])


def grouped(members: Iterable[Member], cell_of: Callable[[Member], Cell]) -> dict[str, list[Member]]:
    """By the data set of what each is about."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(dataset_of(cell_of(member)), []).append(member)
    return found


def config_of(row: "pd.Series[Any]") -> RunConfig:
    """The configuration of a row of the table of runs."""
    # a row has NumPy's types, which are none of a configuration's
    values = {field: row[field].item() if hasattr(row[field], "item") else row[field] for field in FIELDS}
    is_list = {field: isinstance(info.default, tuple) for field, info in FIELDS.items()}
    return make_config({k: json.loads(v) if is_list[k] else v for k, v in values.items()}, "a row of the table of runs")


def _cell(rows: pd.DataFrame, axes: list[str], published: tuple[Published, ...]) -> Cell:
    first = {field: rows[field].iloc[0] for field in FIELDS}
    errors = rows["test_error"][outcomes(rows) == "finished"]
    # what several networks answered together is no number of one network, nor the other way round
    single, together = (find(first, (p for p in published if bool(p.ensemble) == many)) for many in (False, True))
    elsewhere = {name: entry for name in sorted(TEST_SETS) if (entry := find(first, published, name))}
    return Cell({axis: first[axis] for axis in axes}, rows, t_interval(errors), single, together, elsewhere)


def outcomes(runs: pd.DataFrame) -> "pd.Series[str]":
    """What became of each run: finished, diverged, out of memory, failed, killed, running, not run."""
    outcome = runs["status"].astype(object)
    outcome = outcome.where(runs["status"] != "failed", runs["failure"].astype(object).fillna("failed"))
    # a run whose result didn't reach the tracking store has no number, but must not vanish from the count
    return outcome.where(~((outcome == "finished") & runs["test_error"].isna()), "without test error").replace(OUTCOMES)
