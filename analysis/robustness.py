"""What becomes of trained networks on further test sets: their errors there, and how much higher than on their own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.blocks import paired
from analysis.cells import Cell, dataset_of, grouped, outcomes
from analysis.comparisons import Comparisons
from analysis.statistics import Comparison, Estimate, t_interval
from capsnet import test_sets
from capsnet.config import RunConfig
from capsnet.registry import TEST_SETS
from experiments.record import FURTHER, further_sets


def tested(cells: Sequence[Cell]) -> dict[str, str]:
    """Further test set -> its column in the table of runs, of those on which a run was tested."""
    columns = {name: f"{FURTHER}{name}" for name in further_sets({str(name) for cell in cells for name in cell.runs})}

    def has(column: str) -> bool:
        return any(cell.runs[column].notna().any() for cell in cells if column in cell.runs)

    return {name: column for name, column in columns.items() if has(column)}


@dataclass(frozen=True)
class Kind:
    """Further test sets that are judged together, by the mean of the errors there: all levels of an alteration, or one set."""

    name: str
    sets: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """Of the table of runs."""
        return [f"{FURTHER}{name}" for name in self.sets]

    @property
    def called(self) -> str:
        """``rotated (15, 30)``, ``rotated_30`` of one level, or the name of another set."""
        if len(self.sets) > 1:
            return f"{self.name} ({', '.join(name.rpartition('_')[2] for name in self.sets)})"
        return called(self.sets[0])


def kinds(sets: Iterable[str]) -> list[Kind]:
    """The test sets, those of one kind together."""
    found: dict[str, list[str]] = {}
    for name in test_sets.in_order(sets):
        found.setdefault(test_sets.kind(name), []).append(name)
    return [Kind(name, tuple(members)) for name, members in found.items()]


def called(name: str) -> str:
    """The test set's name; that it is generated stands wherever a number on it does, and is what an alteration's name says."""
    return f"{name} (generated)" if name in TEST_SETS and _is_generated(name) and "generated" not in name else name


def _is_generated(name: str) -> bool:
    """Whether its images are made here, of others."""
    return name not in TEST_SETS or "generated" in TEST_SETS[name].origin


def values(cell: Cell, *columns: str) -> dict[int, float]:
    """Seed -> value of the finished runs that have one; of several columns the mean, if a run has all of them."""
    rows = cell.runs[outcomes(cell.runs) == "finished"]
    if rows.empty or not all(column in rows for column in columns):
        return {}
    found = rows[[*columns]].mean(axis=1, skipna=False)
    known = found.notna()
    return dict(zip(rows["seed"][known], found[known], strict=True))


def mean(cell: Cell, *columns: str) -> Estimate:
    """The mean over the seeds that have a value."""
    return t_interval([*values(cell, *columns).values()])


def gap(cell: Cell, *columns: str) -> Estimate:
    """The error in columns minus the own test error of the same runs, in percentage points."""
    return t_interval(np.subtract(*paired(values(cell, *columns), cell.by_seed)))


def compared(comparisons: Comparisons) -> list[tuple[Cell, Kind, Comparison]]:
    """Each cell but the reference of its data set, on each kind of further test sets, by the seeds that both have finished."""
    found = []
    for cell in comparisons.cells:
        reference, _ = comparisons.references.get(dataset_of(cell), (None, ""))
        if reference is None or cell is reference:
            continue
        for kind in kinds({*tested([cell])} & {*tested([reference])}):
            pairs = paired(values(cell, *kind.columns), values(reference, *kind.columns))
            if pairs.size:
                found.append((cell, kind, statistics.compare(*pairs)))
    return found


@dataclass(frozen=True)
class Further:
    """A cell against the reference of its data set on further test sets of a kind, in percentage points."""

    cell: Cell
    kind: Kind
    comparison: Comparison
    p_holm: float  # over all that are compared on the further test sets of one data set


def judged(comparisons: Comparisons) -> list[Further]:
    """All of :func:`compared`, with p corrected for those of the same data set."""
    found = compared(comparisons)
    families = grouped(found, lambda each: each[0])
    adjusted = {name: iter(statistics.holm([made.p for _, _, made in family])) for name, family in families.items()}
    return [Further(cell, kind, made, float(next(adjusted[dataset_of(cell)]))) for cell, kind, made in found]


def never(cell: Cell) -> list[int]:
    """Seeds of finished runs that trained all their epochs without reaching the error at which they were to stop."""
    errors, wanted = values(cell, "validation_error"), float(cell.runs["stop_at_error"].iloc[0])
    config = RunConfig.model_construct(stop_at_error=wanted)
    seeds = cell.runs["seed"][cell.finished.index]
    return [seed for seed in seeds if wanted > 0 and not config.stops_at(errors.get(seed))]


def frame(comparisons: Comparisons) -> pd.DataFrame:
    """A row per cell and further test set with raw numbers, for other programs; errors in %."""
    rows = []
    for cell in comparisons.cells:
        for name, column in tested(comparisons.cells).items():
            there, difference = mean(cell, column), gap(cell, column)
            if there.n:
                numbers = {"n": there.n, "error": there.mean, "sd": there.sd, "low": there.low, "high": there.high}
                numbers |= {"own": cell.error.mean, "difference": difference.mean}
                numbers |= {"difference_low": difference.low, "difference_high": difference.high, "never": len(never(cell))}
                rows.append({**cell.setting, "test_set": name, "generated": _is_generated(name), **numbers})
    return pd.DataFrame(rows)
