"""The learning rate by step: a line for each schedule, peak and length of a run that there is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.axes import varying
from analysis.cells import config_of
from analysis.fields import text_of
from analysis.style import (
    COLOURS,
    COLUMN,
    DASHES,
    DIFFERENT,
    LINE,
    NothingToDrawError,
    scale,
    wrapped,
)
from capsnet.config import RunConfig

Lines = Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
"""The steps and the learning rate at each, of each line."""

POINTS = 600  # of a line: more than a column can show
DECISIVE = ["lr_schedule", "learning_rate", "epochs", "batch_size", "dataset", "train_size", "validation_size"]
"""What the learning rate at each step depends on, beside the validation errors."""


@dataclass(frozen=True)
class Rate:
    """The learning rates of runs that have the same."""

    config: RunConfig
    follows_errors: bool  # of validation, so that what was logged has to be shown
    run_ids: Sequence[str]


def learning_rates(runs: pd.DataFrame, metrics: pd.DataFrame) -> list[Figure]:
    """The learning rate at each step, from the configurations; as logged if it follows the validation error.

    Raises:
        NothingToDrawError: no learning rate is known, or so many that lines can't be told apart.
    """
    rates = distinct(runs)
    if len(rates) > DIFFERENT:
        raise NothingToDrawError(f"{len(rates)} learning-rate curves can't be told apart; --where chooses some of them")
    logged = metrics[(metrics["metric"] == "learning_rate") & metrics["value"].notna()].sort_values("epoch")
    known = [(rate, lines) for rate in rates if (lines := _lines(rate, logged))]
    if not known:
        raise NothingToDrawError("these schedules follow the validation error, and no run has logged its learning rate")
    labels = [wrapped(label, COLUMN - 0.6) for label in _labels(known)]
    tall = LINE * sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(COLUMN, 2.2 + tall), layout="constrained")
    panel = figure.subplots()
    handles = []
    for i, (rate, lines) in enumerate(known):
        look = "steps-pre" if rate.follows_errors else "default"
        dashes = DASHES[(i + i // (DIFFERENT // 2)) % len(DASHES)]
        alone = len(lines) == 1
        for steps, values in lines:
            drawn = panel.plot(steps, values, color=COLOURS[i % len(COLOURS)], lw=1.2 if alone else 0.6, ds=look)
            drawn[0].set_dashes(dashes or (None, None))
        handles += drawn
    panel.set_xlabel("optimizer step")
    panel.set_ylabel("learning rate")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    drawn_values = np.concatenate([values for _, lines in known for _, values in lines])
    scale([panel], drawn_values)
    if panel.get_yscale() != "linear":  # a millionth of a curve's highest trains nothing any more
        lowest = min(values.max() for _, lines in known for _, values in lines)
        panel.set_ylim(max(panel.get_ylim()[0], 1e-6 * lowest), 1.5 * drawn_values.max())
    figure.legend(handles, labels, loc="outside lower center")
    return [figure]


def distinct(runs: pd.DataFrame) -> list[Rate]:
    """What differs in schedule, peak or length, sorted by these."""
    varying(runs)  # says so if there is no run at all
    rates: dict[tuple[object, ...], Rate] = {}
    for _, rows in runs.groupby(DECISIVE, sort=True):
        config = config_of(rows.iloc[0])
        follows = follows_errors(config)
        key = (config.lr_schedule, config.learning_rate, config.total_steps, config.steps_per_epoch if follows else 0)
        before = rates[key].run_ids if key in rates else []
        rates[key] = Rate(config, follows, sorted([*before, *rows["run_id"].dropna()]))
    return [rate for _, rate in sorted(rates.items())]


def follows_errors(config: RunConfig) -> bool:
    """Whether the schedule asks how validation goes: if an error that never falls changes nothing, nothing does."""
    last = config.total_steps - 1
    return config.schedule(last, config.total_steps, [50.0] * (config.epochs - 1)) != config.schedule(
        last, config.total_steps, ()
    )


def planned(config: RunConfig) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and the learning rate at each, of a schedule that doesn't follow the validation error."""
    total = config.total_steps
    steps = np.unique(np.linspace(0, total - 1, POINTS).round().astype(np.int64))
    return steps, config.learning_rate * np.array([config.schedule(int(step), total, ()) for step in steps])


def _lines(rate: Rate, logged: pd.DataFrame) -> Lines:
    """Steps and learning rates: one line, or one for each run. What is logged is that of an epoch's last step."""
    if not rate.follows_errors:
        return [planned(rate.config)]
    lines = []
    for run_id in rate.run_ids:
        rows = logged[logged["run_id"] == run_id]
        if len(rows):
            steps, values = rows["epoch"].to_numpy() * rate.config.steps_per_epoch - 1, rows["value"].to_numpy()
            lines.append((np.array([0, *steps]), np.array([values[0], *values])))
    return lines


def _labels(known: Sequence[tuple[Rate, Lines]]) -> list[str]:
    """The schedules, with what else tells them apart."""
    several = len({rate.config.learning_rate for rate, _ in known}) > 1
    lengths = len({rate.config.total_steps for rate, _ in known}) > 1
    labels = []
    for rate, lines in known:
        label = text_of(rate.config.lr_schedule)
        label += f", learning rate {text_of(rate.config.learning_rate)}" if several else ""
        label += f", {rate.config.total_steps:,} steps" if lengths else ""
        label += f" (as logged by {len(lines)} run{'s' * (len(lines) > 1)})" if rate.follows_errors else ""
        labels.append(label)
    return labels
