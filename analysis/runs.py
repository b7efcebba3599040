"""The tidy tables of an experiment: a row per config, failures and what has not run included; a row per epoch and metric."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from capsnet.config import FIELDS, RunConfig
from capsnet.errors import InputError, unknown
from experiments.known import Known, by_config, state
from experiments.sources import parse_grid
from experiments.tracking import FAILURE, REASON, TRIAL, Store, TrackedRun

CURVES = (
    "train_loss",
    "train_margin_loss",
    "train_reconstruction_loss",
    "train_error",
    "validation_error",
    "learning_rate",
    "seconds",
    "images_per_second",
)
LAST = ("test_error", "validation_error", "train_error", "train_loss")  # metrics whose last value stands in a run's row
STATUS = {"new": "planned", "interrupted": "killed", "finished": "finished", "running": "running"}


@dataclass(frozen=True)
class Runs:
    """An experiment as it is known.

    Attributes:
        experiment: its name.
        experiment_id: its number in MLflow.
        runs: one row per config; errors in percent; ``status`` is finished, failed, killed, running or planned.
        curves: ``run_id, epoch, metric, value``.
        strangers: (run id -> why) of runs that are left out because they are of no config of this version.
    """

    experiment: str
    experiment_id: str
    runs: pd.DataFrame
    curves: pd.DataFrame
    strangers: dict[str, str]


class UnconfirmedError(InputError):
    """A search has nothing to tell yet, which is no fault of the user's."""


def read_runs(experiment: str, folder: Path) -> Runs:
    """Read an experiment, or the one launched last if the name is empty.

    Raises:
        InputError: there is no such experiment (those that there are, are listed), or it holds no run yet.
    """
    name = experiment or Store.latest(folder)
    if name is None:
        raise InputError("nothing has been launched yet: run make ablation, or python -m experiments run GRID")
    store = Store.open(name, folder, create=False)
    if store is None:
        there = Store.names(folder)
        raise InputError(unknown("experiment", name, there) if there else f"no experiment {name!r}: nothing is launched yet")
    known, strangers = by_config(store.runs())
    planned = {config for grid, text in store.grids() for _, config in parse_grid(text, grid, f"grid {grid}").configs}
    # a search's trials are no results: what selection has seen is too good to be true, and its best are confirmed by a grid
    trials = sum(TRIAL in run.tags for run in known.values())
    known = {config: run for config, run in known.items() if config in planned or TRIAL not in run.tags}
    configs = sorted(known.keys() | planned, key=lambda config: list(config.to_params().items()))
    if not configs and trials:
        raise UnconfirmedError(
            f"experiment {name!r} holds {trials} runs of a search's trials, and no trial is confirmed yet: no table"
        )
    if not configs:
        raise InputError(f"experiment {name!r} holds no run of a grid; experiments that do: {', '.join(Store.names(folder))}")
    rows = [_row(name, config, known.get(config)) for config in configs]
    runs = pd.DataFrame(rows)
    runs["ended"] = pd.to_datetime(runs["ended"], unit="ms", utc=True)
    curves = pd.DataFrame(_curves(store, known), columns=["run_id", "epoch", "metric", "value"])
    seconds = curves[curves["metric"] == "seconds"].groupby("run_id")["value"].sum()
    runs["seconds"] = runs["run_id"].map(seconds)
    return Runs(name, store.experiment_id, runs, curves, strangers)


def _row(experiment: str, config: RunConfig, run: TrackedRun | None) -> dict[str, Any]:
    params = config.to_params()
    row: dict[str, Any] = {
        name: params[name] if isinstance(value, tuple) else value
        for name, value in ((name, getattr(config, name)) for name in FIELDS)
    }
    status = STATUS.get(state(run), "failed")
    row |= {"experiment": experiment, "run_id": run.run_id if run else None, "status": status}
    tags, metrics = (run.tags, run.metrics) if run else ({}, {})
    row |= (
        {"failure": tags.get(FAILURE), "reason": tags.get(REASON)} if status == "failed" else {"failure": None, "reason": None}
    )
    row |= {name: metrics.get(name, float("nan")) for name in LAST}
    if status != "finished":
        row["test_error"] = float("nan")
    return row | {"git_commit": tags.get("git_commit"), "ended": run.end if run else None}


def _curves(store: Store, known: Known) -> Iterator[tuple[str, int, str, float]]:
    for run in known.values():
        for name in CURVES:
            if name in run.metrics:
                last = dict(store.history(run.run_id, name))  # the last row of an epoch counts
                yield from ((run.run_id, epoch, name, value) for epoch, value in sorted(last.items()))
