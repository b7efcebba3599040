"""What a launch of a grid would do: for each cell what is known of its runs, and what the rest will cost and can show."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from capsnet import test_sets
from capsnet.config import RunConfig
from experiments.costs import Costs, Pace, artifact_bytes, checkpoint_bytes
from experiments.journal import Progress
from experiments.record import FAILURE, TrackedRun, is_of_other_code
from experiments.sources import Cell, Grid

DONE, RUNNING, ELSEWHERE, PARTLY, NEW = "done", "running", "running elsewhere", "partly done", "new"
DIVERGED = "diverged"  # the failure that a launch does not train again


class Standing(NamedTuple):
    """What is known of a config: one of the words above or the kind of a failure, and what a launch has left to do at most."""

    word: str
    epochs_left: int | None = None  # None if it would not be trained here; 0 if only its test is missing
    failed: bool = False


@dataclass(frozen=True)
class CellPlan:
    """A cell's runs, counted by what is known of them, and what is left to do."""

    label: str
    seeds: frozenset[int]
    states: Counter[str]  # done, running, running elsewhere, partly done, new
    failures: Counter[str]  # by kind
    other_code: int  # of those done, by other code, or in part
    left: tuple[int, ...]  # epochs of each run that a launch trains, or is training
    pace: Pace | None = None  # None if no run of a like config was measured
    artifact_bytes: int | None = None  # of one run; None if no run of the same network has finished
    checkpoint_bytes: int | None = None  # of one run while it trains
    dataset: str = ""
    test_sets: tuple[str, ...] = ()  # further ones
    may_stop: bool = False  # before its last epoch, so that what is left is the most

    @property
    def seconds(self) -> float | None:
        """What is left, one run after the other; None if it can't be told."""
        if not self.left:
            return 0.0
        return self.pace.seconds * sum(self.left) if self.pace else None

    @property
    def disk(self) -> int | None:
        """Bytes of the artifacts that are still to come; None if it can't be told."""
        if not self.left:
            return 0
        return None if self.artifact_bytes is None else self.artifact_bytes * len(self.left)


@dataclass(frozen=True)
class GridPlan:
    """All cells, and what they come to."""

    cells: tuple[CellPlan, ...]
    commit: str
    workers: int  # runs at once, 1 or more
    hardware: str  # that the seconds were measured on; empty if none were

    @property
    def states(self) -> Counter[str]:
        """Runs that have not failed, by what is known of them."""
        return sum((cell.states for cell in self.cells), Counter())

    @property
    def failures(self) -> Counter[str]:
        """Failed runs, by kind."""
        return sum((cell.failures for cell in self.cells), Counter())

    @property
    def paired_seeds(self) -> int:
        """How many seeds all cells have in common: pairs of runs that a test of two cells rests on."""
        return len(frozenset.intersection(*(cell.seeds for cell in self.cells)))

    @property
    def own_comparisons(self) -> int:
        """Differences to a reference cell that are corrected together: those on one data set, and the most of them."""
        return max(Counter(cell.dataset for cell in self.cells).values()) - 1

    @property
    def comparisons(self) -> int:
        """Those, or as many on further test sets, which are corrected together, too, if they are more.

        All levels of one alteration are one comparison.
        """
        tested = Counter((cell.dataset, kind) for cell in self.cells for kind in {*map(test_sets.kind, cell.test_sets)})
        further: Counter[str] = Counter()
        for (dataset, _), cells in tested.items():
            further[dataset] += cells - 1
        return max(self.own_comparisons, *further.values(), 0)

    @property
    def seconds(self) -> float:
        """Of the cells that have a prediction: all workers busy to the end, but no less than the longest run takes."""
        runs = [cell.pace.seconds * epochs for cell in self.cells if cell.pace for epochs in cell.left]
        return max(sum(runs) / self.workers, max(runs, default=0.0))

    @property
    def disk(self) -> int:
        """Bytes of artifacts to come, of the cells that have a prediction."""
        return sum(cell.disk or 0 for cell in self.cells)

    @property
    def checkpoint_bytes(self) -> int:
        """Of as many runs as train at once, the largest ones."""
        each = sorted((cell.checkpoint_bytes or 0 for cell in self.cells for _ in cell.left), reverse=True)
        return sum(each[: self.workers])


def plan_grid(
    grid: Grid,
    known: Mapping[RunConfig, TrackedRun],
    progress: Callable[[RunConfig], Progress | None],
    commit: str,
    workers: int,
    elsewhere: Callable[[], Mapping[RunConfig, TrackedRun]] = dict,
    digest: str = "",
) -> GridPlan:
    """Look up every config of a grid, and what is like it; :mod:`experiments.costs` says what predictions include.

    Args:
        grid: what would be launched.
        known: the run that speaks for each config of the experiment.
        progress: what the files on this machine say of a run that has not finished; None = there are none.
        commit: of the code that would train.
        workers: runs at once; 0 and 1: one after the other.
        elsewhere: runs of other experiments, asked for what those of this one don't tell of costs, on the same hardware.
        digest: of the code that would train; runs of before there was one go by the commit.
    """
    costs = Costs(known)
    cells = [_priced(_cell(cell, known, progress, commit, digest), cell, costs) for cell in grid.cells]
    if any(planned.left and (planned.pace is None or planned.artifact_bytes is None) for planned in cells):
        costs = Costs(elsewhere(), costs.hardware)
        cells = [_priced(planned, cell, costs, elsewhere=True) for planned, cell in zip(cells, grid.cells, strict=True)]
    return GridPlan(tuple(cells), commit, max(workers, 1), costs.hardware)


def standing(config: RunConfig, run: TrackedRun | None, journal: Progress | None) -> Standing:
    """What is known of a config, by its run in MLflow and by its files here, which know more of a run that has not ended."""
    status = run.status if run else ""
    epochs, alive = journal or Progress(0, training=False)
    left = config.epochs - epochs
    if status == "FINISHED":
        return Standing(DONE)
    if alive:
        return Standing(RUNNING, left)
    if run and status == "FAILED":
        kind = run.tags.get(FAILURE, "error")
        return Standing(kind, None if kind == DIVERGED else left, failed=True)
    if status == "RUNNING" and journal is None:
        return Standing(ELSEWHERE)
    # a run that was stopped and has no files here had epochs, but nothing to go on from: all of them are left
    begun = epochs > 0 or (run is not None and journal is None and "images_per_second" in run.metrics)
    return Standing(PARTLY if begun else NEW, left)


def _cell(
    cell: Cell,
    known: Mapping[RunConfig, TrackedRun],
    progress: Callable[[RunConfig], Progress | None],
    commit: str,
    digest: str,
) -> CellPlan:
    """What is known of a cell's runs, without what they cost."""
    standings, other_code = [], 0
    for config in cell.configs:
        run = known.get(config)
        finished = run is not None and run.status == "FINISHED"
        other_code += run is not None and finished and is_of_other_code(run.tags, commit, digest)
        standings.append(standing(config, run, None if finished else progress(config)))
    return CellPlan(
        label=cell.label,
        seeds=frozenset(config.seed for config in cell.configs),
        states=Counter(s.word for s in standings if not s.failed),
        failures=Counter(s.word for s in standings if s.failed),
        other_code=other_code,
        left=tuple(s.epochs_left for s in standings if s.epochs_left is not None),
        dataset=cell.configs[0].dataset,
        test_sets=cell.configs[0].test_sets,
        may_stop=cell.configs[0].stop_at_error > 0,
    )


def _priced(planned: CellPlan, cell: Cell, costs: Costs, *, elsewhere: bool = False) -> CellPlan:
    """The plan with what it didn't know yet of the costs."""
    first = cell.configs[0]  # the others differ in their seed
    pace, parameters = planned.pace, costs.parameters(first)
    if pace is None and (found := costs.pace(first)):
        pace = replace(found, elsewhere=elsewhere)
    if planned.artifact_bytes is not None or parameters is None:
        return replace(planned, pace=pace)
    return replace(
        planned, pace=pace, artifact_bytes=artifact_bytes(first, parameters), checkpoint_bytes=checkpoint_bytes(parameters)
    )
