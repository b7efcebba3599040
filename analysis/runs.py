"""The tidy table of experiments: a row per config, failures and what has not run included; a row per epoch and metric."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.where import beside_the_grid, chosen
from capsnet import terminal, test_sets
from capsnet.config import FIELDS, RunConfig
from capsnet.errors import InputError
from capsnet.metrics import LISTS, EpochMetrics
from experiments import catalog
from experiments.client import answering
from experiments.known import read_grids, sorted_out, state
from experiments.record import (
    BEFORE,
    CODE,
    COMMIT,
    EPOCHS,
    FAILURE,
    HARDWARE,
    REASON,
    SUPERSEDED,
    TRIAL,
    VERSIONS,
    TrackedRun,
    further_sets,
    r_of,
)
from experiments.sources import Grid
from experiments.tracking import ANALYSES, Store

CURVES = tuple(each.name for each in fields(EpochMetrics) if each.name not in ("epoch", "time", *LISTS))
LAST = (  # whose last value is in a run's row
    *("test_error", "validation_error", "train_error", "train_loss", "parameters"),
    *("right_length", "wrong_length", "coupling_entropy", "dead_primary_capsules"),
)
TAGS = (COMMIT, CODE, HARDWARE, VERSIONS)
DATA = "data_sha256"  # of the data set; what further test sets were is in Runs.data
THEN = " then "  # between digests of code that trained a run one after the other
STATUS = {"new": "planned", "interrupted": "killed", "finished": "finished", "running": "running"}
TYPES: dict[Any, str] = {int: "int64", float: "float64", bool: "bool"}  # of a field; all else is text


@dataclass(frozen=True)
class Runs:
    """Experiments as they are known.

    Attributes:
        stores: (experiment -> where its runs are tracked).
        runs: one row per config, sorted by it: every field of RunConfig in its type (``decoder_hidden`` as JSON),
            ``experiment, run_id, status`` (finished, failed, killed, running or planned), ``failure, reason``, the last
            values of ``LAST`` (errors in percent), ``seconds`` of training, ``TAGS``, ``DATA``, ``ended``, and ``in_grid``:
            whether one of the grids has it, as they are now. Its ``attrs`` hold ``where``, by which the rows were chosen, and
            how many were ``left_out``.
            ``epochs_trained`` are the epochs of a finished run, fewer than its ``epochs`` if it stopped at an error. Where a
            run was tested at another r there are columns ``test_error_r1`` and so on; where on a further test set,
            ``test_error_affnist`` and so on; where routing's passes or hidden layers were looked at, ``logit_change_1`` and
            ``hidden_length_1`` and so on.
        strangers: (run id -> why) of what is left out: runs of no config of this version, grids that can't be read.
        repeated: finished runs of configs for which another one, that finished before, speaks.
        grids: (experiment -> its grids), as they stood at their last launches.
        data: (run id -> name and SHA-256 of each data set that it read, further test sets included).
    """

    stores: Mapping[str, Store]
    runs: pd.DataFrame
    strangers: Mapping[str, str]
    repeated: int = 0
    grids: Mapping[str, Sequence[Grid]] = field(default_factory=dict)
    data: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    @property
    def left_out(self) -> list[str]:
        """Of strangers, each reason once, with the runs that it is of."""
        reasons: dict[str, list[str]] = {}
        for run_id, why in self.strangers.items():
            reasons.setdefault(why, []).append(run_id)
        told = []
        for why, ids in reasons.items():
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            told.append(f"run{'s' * (len(ids) > 1)} {', '.join(ids[:3])}{more}: {why}")
        return told

    @property
    def experiment(self) -> str:
        """The experiments' names."""
        return "+".join(self.stores)

    @property
    def unplanned(self) -> int:
        """Runs that none of the grids has any more, as after an edit of one; they are rows like others."""
        return beside_the_grid(self.runs)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """``run_id, epoch, metric, value``, the last row of an epoch; MLflow is asked once for each run and metric."""
        rows: list[tuple[str, int, str, float]] = []
        for run_id, store in self._tracked():
            with answering(store.uri):
                rows += _curve(store, run_id)
        return pd.DataFrame(rows, columns=["run_id", "epoch", "metric", "value"])

    def _tracked(self) -> Iterator[tuple[str, Store]]:
        began = self.runs[self.runs["run_id"].notna() & self.runs["train_loss"].notna()]
        return ((run_id, self.stores[name]) for run_id, name in zip(began["run_id"], began["experiment"], strict=True))


class UnconfirmedError(InputError):
    """A search has nothing to tell yet, which is no fault of the user's."""


def read_runs(experiments: str | Sequence[str], folder: Path, where: Sequence[str] = ()) -> Runs:
    """Read experiments, or the one launched last if none is named.

    Args:
        experiments: their names. A config that several have finished counts once, in the first of them.
        folder: of the tracking database.
        where: ``column=value`` (or ``!=``, ``<``, ``<=``, ``>``, ``>=``): only these rows. Of several ``=`` of one column,
            any; of all else, all.

    Raises:
        InputError: there is no such experiment (those that there are, are listed), it holds no run yet, or no run is left
            by ``where``.
    """
    stores = _open([experiments] if isinstance(experiments, str) else experiments, folder)
    there = _Tracked(stores)
    planned = there.planned
    known, alien = sorted_out(there.runs)
    # a search's trials are no results: what selection has seen is too good to be true, and its best are confirmed by a grid
    trials = sum(TRIAL in run.tags for run in known.values())
    known = {config: run for config, run in known.items() if config in planned or TRIAL not in run.tags}
    configs = sorted(known.keys() | planned, key=lambda config: tuple(vars(config).values()))
    if not configs:
        raise _nothing(list(stores), trials, folder, [*there.unread.values()])
    rows = [_row(config, known.get(config), planned.get(config, "")) for config in configs]
    frame = pd.DataFrame(rows).assign(in_grid=[not planned or config in planned for config in configs])
    frame["experiment"] = frame["run_id"].map(there.places).fillna(frame["experiment"])
    frame = _typed(frame)
    everything, frame = len(frame), frame[chosen(where, frame)]
    frame.attrs = {"where": tuple(where), "left_out": everything - len(frame)}  # for whoever has to say so
    if frame.empty:
        raise InputError(f"no run of {'+'.join(stores)} has all of --where {' --where '.join(where)}")
    speaking = {run.run_id for run in known.values()}
    silent = [run for run in there.runs if run.run_id not in speaking and not {TRIAL, SUPERSEDED} & run.tags.keys()]
    repeated = sum(state(run) == "finished" and run.run_id not in alien for run in silent)
    data = {run.run_id: run.data for run in known.values()}
    strangers = {**there.unread, **there.others, **alien}
    return Runs(stores, frame.reset_index(drop=True), strangers, repeated, there.grids, data)


class _Tracked:
    """All runs and grids of some experiments."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self.runs: list[TrackedRun] = []
        self.others: dict[str, str] = {}  # run id -> why it is none of these
        self.places: dict[str, str] = {}  # run id -> experiment
        self.grids: dict[str, Sequence[Grid]] = {}
        self.unread: dict[str, str] = {}  # run id of a grid's parent -> why it can't be read
        self.planned: dict[RunConfig, str] = {}  # config -> the first experiment with a grid that asks for it
        for name, store in stores.items():
            with answering(store.uri):
                runs, others = store.sort_out()
                by_parent, faults = read_grids(store)
            self.runs += runs
            self.others |= others
            self.places |= dict.fromkeys((run.run_id for run in runs), name)
            self.grids[name] = [*by_parent.values()]
            self.unread |= faults
            for _, config in itertools.chain(*(grid.configs for grid in self.grids[name])):
                self.planned.setdefault(config, name)


def _open(names: Sequence[str], folder: Path) -> dict[str, Store]:
    latest = [] if any(names) else [catalog.latest(folder)]
    stores: dict[str, Store] = {}
    for name in latest or names:
        if name is None:
            start = "make ablation, or " if terminal.has_make() else ""
            raise InputError(f"nothing has been launched yet: run {start}{terminal.called('python -m experiments run')} GRID")
        try:
            stores[name] = catalog.opened(name, folder)
        except catalog.AbsentError as error:
            meant = get_close_matches(name, ANALYSES, n=1)
            command = f"; or did you mean the command {terminal.called(f'python -m analysis {meant[0]}')}?" if meant else ""
            raise InputError(f"{error}{command}") from None
    return stores


def _nothing(names: Sequence[str], trials: int, folder: Path, unread: Sequence[str]) -> InputError:
    name = "+".join(names)
    if trials:
        return UnconfirmedError(
            f"experiment {name!r} holds {trials} runs of a search's trials, and no trial is confirmed yet: no table"
        )
    there = ", ".join(catalog.names(folder)) or "none"
    but = "".join(f", and {why}" for why in unread)
    return InputError(f"experiment {name!r} holds no run of a grid{but}; experiments that do: {there}")


def _row(config: RunConfig, run: TrackedRun | None, experiment: str) -> dict[str, Any]:
    values = {name: json.dumps(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}
    status = STATUS.get(state(run), "failed")
    tags, metrics = (run.tags, run.metrics) if run else ({}, {})
    failed = status == "failed"
    row = {**values, "experiment": experiment, "run_id": run.run_id if run else None, "status": status}
    row |= {"failure": tags.get(FAILURE) if failed else None, "reason": tags.get(REASON) if failed else None}
    row |= {name: metrics.get(name, float("nan")) for name in LAST}
    if status != "finished":
        row["test_error"] = float("nan")
    row[EPOCHS] = float("nan")
    if status == "finished":
        row[EPOCHS] = metrics.get(EPOCHS, float(config.epochs))  # older runs all trained to their last
        row |= {name: value for name, value in metrics.items() if _is_extra(name)}
    row["seconds"] = metrics.get("train_seconds", float("nan"))
    row |= {name: tags.get(name) for name in TAGS} | {CODE: _code(tags)}
    row[DATA] = run.data[0][1] if run and run.data else None
    return row | {"ended": run.end if run else None}


def _code(tags: Mapping[str, str]) -> str | None:
    """The digest of the code, or of several one after the other: ``0123 then 4567``; None of a run that has none."""
    before = re.findall(rf"\b{CODE} (\w+)", tags.get(BEFORE, ""))
    return THEN.join(dict.fromkeys([*before, tags[CODE]])) if CODE in tags else None


def _is_extra(name: str) -> bool:
    """Whether a column is there only if a run has it: of other r or test sets, or one of several numbers of capsules."""
    return bool(further_sets([name])) or r_of(name) > 0 or _place(name) > 0


def _place(name: str) -> int:
    """Which of several numbers a metric is, from 1; 0 of one that stands alone."""
    stem, _, number = name.rpartition("_")
    return int(number) if stem in LISTS.values() and number.isdecimal() else 0


def numbered(runs: pd.DataFrame, stem: str) -> list[str]:
    """The columns ``stem_1``, ``stem_2`` and so on, in this order."""
    return sorted((str(name) for name in runs if _place(str(name)) and str(name).startswith(stem)), key=_place)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    types: dict[str, Any] = {name: TYPES.get(info.annotation, "str") for name, info in FIELDS.items()}
    types |= dict.fromkeys(("experiment", "run_id", "status", "failure", "reason", *TAGS, DATA), "str")
    more = sorted((str(name) for name in frame if _is_extra(str(name))), key=test_sets.place)
    types |= dict.fromkeys((*LAST, "seconds", EPOCHS, *more), "float64")
    others = [name for name in frame if name not in more]
    at = others.index("seconds")
    frame = frame[[*others[:at], *more, *others[at:]]]
    return frame.assign(ended=pd.to_datetime(frame["ended"], unit="ms", utc=True)).astype(types)


def _curve(store: Store, run_id: str) -> Iterator[tuple[str, int, str, float]]:
    for name in CURVES:
        last = dict(store.history(run_id, name))  # the last row of an epoch counts
        yield from ((run_id, epoch, name, value) for epoch, value in sorted(last.items()))
