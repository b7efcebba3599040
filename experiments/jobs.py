"""A run as it is handed to a worker, where it computes, and how it ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capsnet.config import RunConfig
from capsnet.errors import InputError, of_device, shortage
from capsnet.execution import AUTO, Execution
from capsnet.training import DivergedError
from experiments.journal import BusyError
from experiments.tracking import Store

if TYPE_CHECKING:  # a grid needs no optuna
    from experiments.watch import Watch


@dataclass(frozen=True)
class Place:
    """Where the runs of one launch compute and where they are recorded; none of it is a field of a config."""

    store: Store
    checkpoints: Path  # the experiment's journals
    grid: str
    parent: str  # run id
    data: Path
    device: str
    checkpoint_every: float = 60.0  # seconds from one checkpoint to the next, at the end of an epoch
    threads: int = 0  # of the CPU for one run; 0 = torch's choice
    execution: Execution = AUTO
    expendable: bool = False  # whether the process may end with a run, because another takes its place


@dataclass(frozen=True)
class Job:
    """A config to train, or to go on with."""

    cell: str
    config: RunConfig
    run_id: str = ""  # in MLflow, of a run that was begun and has no journal
    trial: str = ""  # its number, if it is a part of a search's trial
    watch: "Watch | None" = None  # where it reports its epochs and learns that it is to be pruned

    @property
    def name(self) -> str:
        """How the run is called on the screen, and with shorter names of fields in MLflow."""
        return f"{self.cell} seed={self.config.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str  # empty if MLflow was away all the time
    seconds: float
    test_error: float | None = None  # percent, if it finished
    failure: str = ""  # diverged, pruned, out of memory, disk full, input, infrastructure or error, if it didn't finish
    reason: str = ""
    untold: str = ""  # why MLflow doesn't know yet
    values: Mapping[str, float] = field(default_factory=dict)  # validation_error, seconds and parameters, if it finished
    history: Sequence[tuple[int, float]] = ()  # (epoch, validation error)


def trial_state(failure: str, reason: str) -> str:
    """Complete, pruned at an epoch, or failed: how a run that ended is called as a part of a trial."""
    return "complete" if not failure else reason if failure == "pruned" else "failed"


def kind(fault: BaseException) -> str:
    """A word for what a run died of; only infrastructure faults are worth an attempt in the same launch."""
    if isinstance(fault, DivergedError):
        return "diverged"
    if short := shortage(fault):
        return short
    if isinstance(fault, InputError):
        return "input"
    if isinstance(fault, (BusyError, OSError)) or of_device(str(fault)):
        return "infrastructure"
    return "error"
