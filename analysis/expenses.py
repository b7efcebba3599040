"""What runs took: seconds of training, images, and the energy of graphics cards where MLflow has measured their power."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.axes import texts_of
from analysis.cells import Cell
from analysis.fields import name_of
from analysis.formats import Table
from analysis.sentences import count
from capsnet.config import RunConfig
from capsnet.errors import brief
from experiments.client import FAULTS
from experiments.overview import duration
from experiments.stores import shown
from experiments.tracking import Store

POWER = "system/gpu_{}_power_usage_watts"  # of every card of the machine, as MLflow numbers them


@dataclass(frozen=True)
class Expense:
    """What some runs took, NaN where it is not known of each of them.

    Attributes:
        runs: those that began.
        seconds: of training, without validation and test.
        images: that were trained on, each as often as it was.
        joules: of the graphics cards of the machine while training; NaN if their power was not measured.
    """

    runs: int = 0
    seconds: float = 0.0
    images: float = 0.0
    joules: float = 0.0

    def __add__(self, other: "Expense") -> "Expense":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Expense(*(one + another for one, another in pairs))


def of_runs(cells: Iterable[Cell], stores: Mapping[str, Store]) -> tuple[dict[str, Expense], list[str]]:
    """(Run id -> what it took) of those that began, failed ones included, and what could not be read.

    The rows know the seconds of finished runs; their stores are asked for those of others, and for the power. One that has
    gone away is not asked again.
    """
    away: dict[str, str] = {}  # experiment -> what was said
    found = {}
    for cell in cells:
        for row in cell.runs[cell.runs["run_id"].notna()].to_dict("records"):
            name = row["experiment"]
            try:
                found[row["run_id"]] = _of_run(row, None if name in away else stores[name])
            except FAULTS as error:
                away[name] = f"seconds and power of runs of {name} can't be read: {shown(brief(error))}"
                found[row["run_id"]] = _of_run(row, None)
    return found, list(away.values())


def of_cell(cell: Cell, spent: Mapping[str, Expense]) -> Expense:
    """What its runs took together."""
    return sum((spent[run_id] for run_id in cell.runs["run_id"].dropna()), Expense())


def table(cells: Sequence[Cell], spent: Mapping[str, Expense]) -> Table:
    """What each cell took."""
    measured = any(each.joules > 0 for each in spent.values())
    header = ["runs", "training (s)", "per run (s)", "images", "images/s", *(["energy (Wh)"] if measured else [])]
    rows = []
    for cell in cells:
        each = of_cell(cell, spent)
        labels = texts_of(cell.setting)
        numbers = [_text(each.seconds), _text(each.seconds / each.runs if each.runs else math.nan), _text(each.images, 0)]
        numbers += [_text(each.images / each.seconds if each.seconds else math.nan, 0)]
        rows.append([*labels, str(each.runs), *numbers, *([_text(each.joules / 3600)] if measured else [])])
    axes = [name_of(axis) for axis in cells[0].setting]
    caption = "What the runs of each cell took, failed ones included."
    return Table("cost-by-cell", caption, [*axes, *header], rows, len(axes), [])


def lines_of(total: Expense) -> list[str]:
    """What all runs took, in sentences."""
    if not total.runs:
        return ["No run has begun."]
    said = f"{count(total.runs, 'run')} trained for {duration(total.seconds)} in all, without validation and test"
    if math.isnan(total.seconds):
        return [f"How long {count(total.runs, 'run')} trained is not known of each of them."]
    if total.seconds:
        said += f": {count(round(total.images), 'image')}, {total.images / total.seconds:,.0f} per second"
    energy = "The energy of graphics cards was not measured."
    if total.joules > 0:
        energy = (
            f"Meanwhile graphics cards took {_text(total.joules / 3600)} Wh. MLflow measures all cards of a machine for each "
            "run; where runs were trained side by side, they are counted for each of them."
        )
    return [f"{said}.", energy]


def _text(number: float, decimals: int = 1) -> str:
    """With commas, and without decimals that a large number doesn't need; a dash if it isn't known."""
    decimals = decimals if abs(number) < 100 else 0
    return "—" if math.isnan(number) else f"{number:,.{decimals}f}"


def _of_run(row: Mapping[Any, Any], store: Store | None) -> Expense:
    """From the row alone without a store."""
    seconds, epochs = float(row["seconds"]), float(row["epochs_trained"])
    if row["status"] != "finished" or math.isnan(seconds):
        history = dict(store.history(row["run_id"], "seconds")) if store else None  # the last row of an epoch counts
        seconds = math.fsum(history.values()) if history is not None else math.nan
        epochs = len(history) if history is not None else math.nan
    config = RunConfig.model_construct(**{name: row[name] for name in ("dataset", "train_size", "validation_size")})
    watts = _watts(row["run_id"], store) if store and seconds else math.nan
    return Expense(1, seconds, epochs * config.training_images, seconds * watts if seconds else 0.0)


def _watts(run_id: str, store: Store) -> float:
    """The mean power of the samples of each card, summed over the cards; NaN without any."""
    cards = (store.history(run_id, POWER.format(number)) for number in itertools.count())
    means = [math.fsum(w for _, w in samples) / len(samples) for samples in itertools.takewhile(bool, cards)]
    return math.fsum(means) if means else math.nan
