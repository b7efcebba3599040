"""What MLflow knows, or should know, of a run besides its epochs, and by which names. It imports no MLflow."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from capsnet import test_sets
from capsnet.config import RunConfig, from_params


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


# tags of runs
KIND, GRID, CELL, FAILURE, REASON, LAUNCHED = "kind", "grid", "cell", "failure", "reason", "launched"
COMMIT, CODE, VERSIONS, HARDWARE, STEPS = "git_commit", "code", "versions", "hardware", "steps"  # what trained a run, and how
ROUTED = "routed"  # by which code on a CPU, and by which compiler, where that can change bits
BEFORE = "before"  # code, versions and so on of the epochs before it was resumed, where they were others
KEY, SUPERSEDED = "journal", "superseded"
LATER = "tested_later"  # on which further test sets, and by which commit
LEASE = "launched_with."  # begins a tag for each launch that is going on: last sign of life, its folder's identity, and where
DIFFERING = "differing"  # names of the fields that are not at their defaults
TRIAL, TRIAL_STATE = "trial", "trial_state"  # of a search; the state is complete, pruned at epoch e of n, or failed

OTHER_R = "test_error_r"
"""Begins the names of test errors at an r other than that of training."""

FURTHER = "test_error_"
"""Begins the names of test errors on further test sets, of which none is called by r and a number."""


def further_sets(names: Iterable[str]) -> list[str]:
    """The test sets whose errors are among some names of metrics or columns, in the order in which they are shown."""
    sets = (name.removeprefix(FURTHER) for name in names if name.startswith(FURTHER))
    return test_sets.in_order(filter(test_sets.is_known, sets))


EPOCHS = "epochs_trained"
"""The epochs of a finished run, which may have stopped before the last."""


def r_of(name: str) -> int:
    """The r of ``test_error_r5``; 0 of a name that isn't so."""
    r = name.removeprefix(OTHER_R)
    return int(r) if name.startswith(OTHER_R) and r.isdecimal() else 0


@dataclass(frozen=True)
class DataSource:
    """The data set of a run, or a further test set, as MLflow's inputs show it."""

    name: str
    digest: str  # SHA-256 of the whole data set
    folder: str
    counts: Mapping[str, int]  # images of each part


@dataclass(frozen=True)
class Ending:
    """How a run ended, or stopped for now."""

    status: str  # MLflow's word: FINISHED, FAILED or KILLED
    time: int  # milliseconds since 1970
    failure: str = ""  # diverged, pruned, out of memory, disk full, input, infrastructure or error
    reason: str = ""
    results: Mapping[str, float] = field(default_factory=dict)  # test_error in percent, and so on

    @property
    def settled(self) -> bool:
        """Whether training again would tell nothing new."""
        return self.status == "FINISHED" or self.failure in ("diverged", "pruned")


@dataclass(frozen=True)
class Record:
    """What MLflow should know of a run besides its epochs."""

    params: Mapping[str, str]  # of the config
    name: str
    parent: str  # run id of the grid
    tags: Mapping[str, str]
    key: str = field(default_factory=lambda: uuid4().hex)  # of this run, before MLflow gives it an id
    run_id: str = ""
    source: DataSource | None = None
    ending: Ending | None = None
    told: bool = False  # MLflow knows of the ending
    tested: Sequence[DataSource] = ()  # further test sets


@dataclass(frozen=True)
class TrackedRun:
    """A child run as it was logged."""

    run_id: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # the last of each
    tags: Mapping[str, str]
    start: int  # milliseconds since 1970
    end: int | None
    data: Sequence[tuple[str, str]] = ()  # (name, SHA-256) of what it read: its data set, then further test sets by name

    @property
    def config(self) -> RunConfig:
        """What was run.

        Raises:
            InputError: this version of the program has no such config.
        """
        known = self.tags.get(DIFFERING)
        return from_params(self.params, known.split() if known is not None else None)


def is_of_other_code(tags: Mapping[str, str], commit: str, digest: str) -> bool:
    """Whether other code trained a run that has these tags, or a part of it.

    Args:
        tags: of the run; one of before there was a digest goes by its commit.
        commit, digest: of the code that is asked for, as :mod:`experiments.provenance` gives them.
    """
    name, mine = (CODE, digest) if CODE in tags else (COMMIT, commit)
    return tags.get(name) != mine or f"{name} " in tags.get(BEFORE, "")
