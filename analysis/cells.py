"""One row per run -> one cell per configuration: which axes vary, what is constant, and what became of every run."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from analysis.published import Published, find
from analysis.statistics import Estimate, t_interval
from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.errors import InputError
from capsnet.registry import MODELS, TEST_SETS
from experiments.sources import shortened

Member = TypeVar("Member")

NAMES = {"routing_iterations": "r"}
"""Fields whose readable name is not the field's own with spaces for underscores; :func:`legend` explains them."""

ALWAYS_TOLD = ("dataset", "train_size", "validation_size", "epochs", "batch_size")  # no error can be judged without them

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


def name_of(field: str) -> str:
    """How a field is called in headers and labels."""
    return NAMES.get(field, field.replace("_", " "))


def legend(fields: Iterable[str]) -> str:
    """Says which fields stand behind names that don't tell it: ``r: routing_iterations``."""
    return ", ".join(f"{NAMES[field]}: {field}" for field in fields if field in NAMES)


def text_of(value: Any) -> str:
    """A field's value as YAML has it: ``0.0005``, ``6.4e-6``, ``true``, ``[512, 1024]``; drawn numbers to four digits."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return shortened(repr(value)).removesuffix(".0").replace("e-0", "e-")
    return shortened(str(value))


def is_default(field: str, value: Any) -> bool:
    """Whether a field has the value that it has where none is given."""
    default = FIELDS[field].default
    return text_of(value) == text_of(list(default) if isinstance(default, tuple) else default)


def value_text(field: str, value: Any) -> str:
    """A value of a field for readers: ``all`` of a train_size of 0, which are all images but validation's."""
    return "all" if (field, value) == ("train_size", 0) else text_of(value)


def apart(field: str, value: Any, other: Any) -> tuple[str, str]:
    """Two values of a field for readers, who could not tell two drawn numbers apart by their first four digits."""
    shown, beside = value_text(field, value), value_text(field, other)
    return (shown, beside) if shown != beside or value == other else (str(value), str(other))


def named(field: str, value: Any, between: str = " ") -> str:
    """A value with its field's name: ``r 3``."""
    return f"{name_of(field)}{between}{value_text(field, value)}"


def in_order(field: str, values: Iterable[Any]) -> list[Any]:
    """Values of a field, each once and sorted; all training images, which 0 stands for, are the most."""
    return sorted(set(values), key=lambda value: place(field, value))


def place(field: str, value: Any) -> Any:
    """What a value of a field is sorted by: a list, which the table of runs has as JSON, by its members."""
    if isinstance(value, str) and isinstance(FIELDS[field].default, tuple):
        return tuple(json.loads(value))
    return math.inf if (field, value) == ("train_size", 0) else value


def sorted_runs(runs: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The rows by the values of the axes, and of one setting by seed."""
    by = [*axes, "seed"]
    places = {field: {value: i for i, value in enumerate(in_order(field, runs[field]))} for field in by}
    return runs.sort_values(by, kind="stable", key=lambda column: column.map(places[str(column.name)]))


def axes_read(setting: Mapping[str, Any], compared: Sequence[str] = ()) -> dict[str, Any]:
    """The axes that mean something to a cell's network, with their values: not all do to each of several models.

    Nor do the sizes of a decoder where there is none, unless weights of the reconstruction are ``compared``: beside the cells
    of each size stands its own of weight 0.
    """
    unread = MODELS[setting["model"]].unread if "model" in setting else ()
    if setting.get("reconstruction_weight") == 0 and "reconstruction_weight" not in compared:
        unread = (*unread, "decoder_hidden")
    return {axis: value for axis, value in setting.items() if axis not in unread}


def texts_of(setting: Mapping[str, Any]) -> list[str]:
    """The value of every axis as text, a dash where it means nothing to the cell's network."""
    means = axes_read(setting)
    return [value_text(axis, value) if axis in means else "—" for axis, value in setting.items()]


def varying(runs: pd.DataFrame) -> list[str]:
    """The axes: the fields with more than one value, in the order of RunConfig. The seed is none.

    Nor is a field that has one value with each of several models, as dropout may, or with each of several data sets, as
    augmentation may: it is a part of what the model, or learning from that data set, is there.
    """
    if runs.empty:
        raise InputError("the experiment has no run, so there is nothing to make a table or a plot of")
    return [field for field in _several(runs) if field not in dictated(runs)]


def dictated(runs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The fields that differ between models, data sets, or models and data sets alone -> between which."""
    found: dict[str, tuple[str, ...]] = {}
    several = _several(runs)
    for by in (("model",), ("dataset",), ("model", "dataset")):
        if not set(by) & set(several):
            continue
        groups = runs.groupby([*by])
        apart = (field for field in several if field not in {"model", "dataset", *found})
        found |= {field: by for field in apart if groups[field].nunique().max() == 1}
    return found


def _several(runs: pd.DataFrame) -> list[str]:
    return [field for field in FIELDS if field != "seed" and len(runs[field].unique()) > 1]


def followers(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The axes whose value another axis settles -> that axis: epochs, where each training-set size has its own number of them.

    No effect of theirs can be told from the other axis', so they are a part of what its values are. Of two axes that settle
    each other the first is the one that is kept. An axis that has another value in every cell settles all others and says
    nothing of them: none follows it. Nor does any follow one of which no two values stand beside equal settings of the rest:
    among the few settings that a search confirms, one axis settles another by chance.

    Args:
        settings: of the cells, all with the same axes.
    """
    axes = list(settings[0]) if settings else []
    read = [axes_read(setting) for setting in settings]

    def settled(axis: str, by: str) -> bool:
        if any(by not in each for each in read if axis in each) or len({each.get(by) for each in read}) == len(read):
            return False
        values: dict[Any, Any] = {}
        return all(values.setdefault(each[by], each[axis]) == each[axis] for each in read if axis in each)

    def above_it(axis: str, by: str) -> bool:
        return settled(axis, by) and (axes.index(by) < axes.index(axis) or not settled(by, axis))

    def stands(leader: str, own: Mapping[str, str]) -> bool:
        rest = [axis for axis in axes if axis != leader and own.get(axis) != leader]
        beside: dict[tuple[Any, ...], set[Any]] = {}
        for each in read:
            if leader in each:
                beside.setdefault(tuple(each.get(axis) for axis in rest), set()).add(each[leader])
        return any(len(values) > 1 for values in beside.values())

    above = {axis: [by for by in axes if by != axis and above_it(axis, by)] for axis in axes}
    while True:
        found = {axis: next(by for by in leaders if not above[by]) for axis, leaders in above.items() if leaders}
        if not (fallen := {leader for leader in found.values() if not stands(leader, found)}):
            return found
        above = {axis: [by for by in leaders if by not in fallen] for axis, leaders in above.items()}


def followers_note(settings: Sequence[Mapping[str, Any]]) -> str:
    """Says which axes follow others: ``what changes with train size alone is a part of it: epochs``; empty if none does."""
    by_leader: dict[str, list[str]] = {}
    for axis, leader in followers(settings).items():
        by_leader.setdefault(leader, []).append(name_of(axis))
    return "; ".join(
        f"what changes with {name_of(leader)} alone is a part of it: {', '.join(names)}" for leader, names in by_leader.items()
    )


def widest(runs: pd.DataFrame, axes: list[str]) -> str:
    """The axis with the most values, the last of them on a tie: the one to lay side by side."""
    return max(reversed(axes), key=lambda axis: runs[axis].nunique())


def constants(runs: pd.DataFrame) -> dict[str, Any]:
    """Fields with one value that has to be told: it is not the default, or no error can be judged without it."""
    values = {field: runs[field].iloc[0] for field in FIELDS if field not in (*_several(runs), "seed")}
    return {k: v for k, v in values.items() if k in ALWAYS_TOLD or not is_default(k, v)}


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
