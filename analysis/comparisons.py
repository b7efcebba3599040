"""What the cells of an experiment say about each other: differences to a reference, effects of axes, the test images.

Differences are paired by seed: runs of one seed share first weights and the order of the images, so that their difference
is less noisy than either. Runs of different seeds are the independent units, never the runs of a cell and its neighbour.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis import statistics
from analysis.cells import NAMES, Cell, name_of, text_of, told
from analysis.predictions import Answers, read_answers
from analysis.statistics import Comparison, Estimate
from capsnet.config import FIELDS, VARIANTS
from capsnet.errors import InputError, brief, unknown
from capsnet.variants import parse
from experiments import stores as addresses
from experiments.tracking import FAULTS, Store

ALPHA = 0.05
SEED = 0  # of each bootstrap: a table doesn't depend on chance, nor on which cells stand beside one


@dataclass(frozen=True)
class Images:
    """What a cell's runs answered on the test images.

    Attributes:
        interval: of the test error in %, over seeds and test images.
        ensemble: test error in % of the mean of the runs' scores, with an interval over test images; None for a single run.
        labels: the true classes.
        votes: how many runs answered which class.
        scores: mean over the runs of the lengths of the class capsules.
    """

    interval: Estimate
    ensemble: Estimate | None
    labels: Int[ndarray, " images"]
    votes: Int[ndarray, "images classes"]
    scores: Float[ndarray, "images classes"]


@dataclass(frozen=True)
class Difference:
    """A cell against the reference, in percentage points of test error."""

    cell: Cell
    comparison: Comparison
    p_holm: float  # over all cells that are compared in the table
    images: Estimate | None  # of the difference, over seeds and test images; None without predictions


@dataclass(frozen=True)
class Comparisons:
    """All cells of an experiment, judged.

    Attributes:
        cells: in the table's order.
        images: by the cell's place; None if its predictions can't be had.
        reference: the cell that the others are compared to; None if there is one cell.
        why: that one.
        differences: of the others, in the table's order.
        faults: what could not be read.
    """

    cells: Sequence[Cell]
    images: Sequence[Images | None]
    reference: Cell | None
    why: str
    differences: Sequence[Difference]
    faults: Sequence[str]

    @property
    def in_reach(self) -> bool:
        """Whether the cell with the most pairs could reach significance at all, after Holm's correction."""
        compared = [d.comparison for d in self.differences if d.comparison.difference.n]
        return bool(compared) and min(c.smallest_p for c in compared) * len(compared) <= ALPHA


@dataclass(frozen=True)
class Effect:
    """A value of an axis, or values of two, against the mean over the axis: percentage points of test error."""

    axes: tuple[str, ...]
    levels: tuple[Any, ...]  # a value of each axis
    estimate: Estimate


def compare(cells: Sequence[Cell], stores: Mapping[str, Store], wanted: str = "") -> Comparisons:
    """Judge the cells, each against the reference.

    Args:
        cells: of an experiment.
        stores: where predictions lie; empty: without them.
        wanted: the reference, as ``routing_iterations=1 reconstruction_weight=0``; empty: the paper's cell.

    Raises:
        InputError: no cell, or several, are what is wanted.
    """
    reference, why = choose_reference(cells, wanted)
    faults: list[str] = []
    digests = _digests(stores, faults)
    against = _answers(reference, stores, digests, faults) if reference else None
    images: list[Images | None] = []
    found: list[tuple[Cell, Comparison, Estimate | None]] = []
    for cell in cells:
        answers = against if cell is reference else _answers(cell, stores, digests, faults)
        images.append(_images(answers) if answers else None)
        if reference and cell is not reference:
            values, others = _pairs(cell, reference)
            found.append((cell, statistics.compare(values, others), _difference(answers, against)))
    adjusted = statistics.holm([comparison.p for _, comparison, _ in found])
    differences = [Difference(c, made, float(p), seen) for (c, made, seen), p in zip(found, adjusted, strict=True)]
    return Comparisons(cells, images, reference, why, differences, faults)


def choose_reference(cells: Sequence[Cell], wanted: str = "") -> tuple[Cell | None, str]:
    """The cell that others are compared to, and why that one.

    Raises:
        InputError: no cell, or several, are what is wanted.
    """
    if wanted:
        return _named(cells, wanted), "as asked for"
    if len(cells) < 2:
        return None, ""
    own = [sum(_is_default(*pair) for pair in cell.setting.items()) for cell in cells]
    chosen = cells[own.index(max(own))]
    if max(own) == len(chosen.setting):
        return chosen, "the paper's cell"
    near = ", ".join(_told(*pair) for pair in chosen.setting.items() if _is_default(*pair))
    return chosen, f"no cell is the paper's; this one is the first with {near}" if near else "the first cell"


def main_effects(cells: Sequence[Cell]) -> list[Effect]:
    """Of each value of each axis, over the cells that have every value of the axis beside otherwise equal settings."""
    return [effect for axis in _axes(cells) for effect in _effects(cells, (axis,))]


def interactions(cells: Sequence[Cell]) -> list[Effect]:
    """Of each pair of values of two axes: what is left of a cell's mean when the effects of both are taken off."""
    return [effect for pair in itertools.combinations(_axes(cells), 2) for effect in _effects(cells, pair)]


def ranks(cells: Sequence[Cell]) -> tuple[list[float], int]:
    """Each cell's mean rank by test error (1 = best) over the seeds that all cells with a result have finished; their number.

    A cell without a result has none, and nor has any if the cells are of several data sets.
    """
    able = [i for i, cell in enumerate(cells) if cell.error.n]
    errors = _by_seed([cells[i] for i in able])
    found = [float("nan")] * len(cells)
    if len(errors) and len({_dataset(cells[i]) for i in able}) == 1:  # errors on different data sets have no order
        for i, rank in zip(able, statistics.ranks(errors), strict=True):
            found[i] = float(rank)
        return found, len(errors)
    return found, 0


def _named(cells: Sequence[Cell], wanted: str) -> Cell:
    found = list(cells)
    axes = list(cells[0].setting)
    if not axes:
        raise InputError(f"reference {wanted!r}: there is a single cell, and nothing to compare it to")
    own = {shown: field for field, shown in NAMES.items()}
    for part in re.split(r"[,\s]+(?=\w+=)(?![^(]*\))", wanted.strip()):  # not at a parameter's name=value
        axis, equals, value = (text.strip() for text in part.partition("="))
        axis = own.get(axis, axis)
        if not equals:
            raise InputError(f"reference {wanted!r} must be axis=value, as in: {_label(cells[0])}")
        if axis not in axes:
            raise InputError(unknown("axis", axis, axes, f"reference {wanted!r}"))
        found = [cell for cell in found if _is(cell.setting[axis], value, axis)]
    if len(found) != 1:
        listed = "; ".join(map(_label, cells[:12])) + (f"; and {len(cells) - 12} more" if len(cells) > 12 else "")
        many = f"{len(found)} cells are" if found else "no cell is"
        raise InputError(f"{many} the reference {wanted!r}; there are: {listed}")
    return found[0]


def _is(value: Any, text: str, axis: str) -> bool:
    """Whether a text means the value: as a table shows it, or as YAML may spell it."""
    if text in (text_of(value), str(value)):
        return True
    try:
        if axis in VARIANTS:
            return parse(text, VARIANTS[axis], axis).text == value
        return bool(json.loads(text) == (json.loads(value) if isinstance(value, str) else value))
    except (json.JSONDecodeError, InputError):
        return False


def _label(cell: Cell) -> str:
    return " ".join(f"{axis}={text_of(value)}" for axis, value in cell.setting.items()) or "a single cell"


def _told(axis: str, value: Any) -> str:
    return f"{name_of(axis)} {text_of(value)}"


def _is_default(axis: str, value: Any) -> bool:
    default = FIELDS[axis].default
    return text_of(list(default) if isinstance(default, tuple) else default) == text_of(value)


def _digests(stores: Mapping[str, Store], faults: list[str]) -> dict[str, str]:
    """Run id -> SHA-256 of its data set; without those of a store that has gone away."""
    found: dict[str, str] = {}
    for name, store in stores.items():
        try:
            found |= {run_id: read[0][1] for run_id, read in store.datasets().items()}
        except FAULTS as error:
            faults.append(f"the data sets of {name} can't be read: {addresses.shown(brief(error))}")
    return found


def _answers(cell: Cell, stores: Mapping[str, Store], digests: Mapping[str, str], faults: list[str]) -> Answers | None:
    answers, missing = read_answers(cell, stores, digests) if stores else (None, [])
    faults += missing
    return answers


def _images(answers: Answers) -> Images:
    interval = statistics.bootstrap(answers.wrong, np.random.default_rng(SEED))
    together = statistics.ensemble(answers.scores) != answers.labels
    classes = np.arange(answers.scores.shape[2])
    votes = (answers.predictions[:, :, None] == classes).sum(axis=0)
    ensemble = statistics.bootstrap(together[None], np.random.default_rng(SEED)) if len(answers.seeds) > 1 else None
    return Images(interval, ensemble, answers.labels, votes, answers.scores.mean(axis=0))


def _pairs(cell: Cell, reference: Cell) -> tuple[Float[ndarray, " pairs"], Float[ndarray, " pairs"]]:
    """Test errors of the seeds that both have finished; none if they are of different data sets, which no pair can be."""
    errors = _by_seed([cell, reference] if _dataset(cell) == _dataset(reference) else [])
    if not errors.size:
        return np.empty(0), np.empty(0)
    return errors[:, 0], errors[:, 1]


def _difference(answers: Answers | None, reference: Answers | None) -> Estimate | None:
    if answers is None or reference is None or not np.array_equal(answers.labels, reference.labels):
        return None
    common = [seed for seed in answers.seeds if seed in reference.seeds]
    if not common:
        return None
    one = answers.wrong[[answers.seeds.index(seed) for seed in common]]
    other = reference.wrong[[reference.seeds.index(seed) for seed in common]]
    return statistics.bootstrap_difference(one, other, np.random.default_rng(SEED))


def _by_seed(cells: Sequence[Cell]) -> Float[ndarray, "seeds cells"]:
    """Test errors of the seeds that every cell has finished."""
    found = [cell.by_seed for cell in cells]
    seeds = sorted(set.intersection(*(set(errors) for errors in found))) if found else []
    return np.array([[errors[seed] for errors in found] for seed in seeds], dtype=float).reshape(len(seeds), len(cells))


def _dataset(cell: Cell) -> str:
    return str(cell.runs["dataset"].iloc[0])


def _axes(cells: Sequence[Cell]) -> list[str]:
    """What can have an effect: a data set is no treatment of another."""
    return [axis for axis in cells[0].setting if axis != "dataset"] if cells else []


def _effects(cells: Sequence[Cell], axes: tuple[str, ...]) -> list[Effect]:
    """Of the combinations of the axes' values.

    A block is a seed at one setting of all other axes. Only blocks that are whole count, those of a seed are averaged, and
    the seeds are what intervals count: a failed run costs its block, not its seed, and a value with which no run finished costs
    itself.
    """
    cells = [cell for cell in cells if cell.error.n and told(cell.setting).keys() >= set(axes)]
    levels = [sorted({cell.setting[axis] for cell in cells}) for axis in axes]
    combinations = list(itertools.product(*levels))
    blocks: dict[tuple[Any, ...], dict[tuple[Any, ...], Cell]] = {}  # setting of the other axes -> values -> cell
    for cell in cells:
        read = told(cell.setting)
        rest = tuple(read.get(axis) for axis in cell.setting if axis not in axes)
        blocks.setdefault(rest, {})[tuple(cell.setting[axis] for axis in axes)] = cell
    by_seed: dict[int, list[list[float]]] = {}
    for block in blocks.values():
        if len(block) == len(combinations):
            errors = [block[values].by_seed for values in combinations]
            for seed in set.intersection(*map(set, errors)):
                by_seed.setdefault(seed, []).append([each[seed] for each in errors])
    if not by_seed or min(map(len, levels)) < 2:
        return []
    means = np.array([np.mean(by_seed[seed], axis=0) for seed in sorted(by_seed)]).reshape(-1, *map(len, levels))
    found: Iterable[Estimate] = (
        statistics.main_effects(means) if len(axes) == 1 else itertools.chain(*statistics.interaction(means))
    )
    return [Effect(axes, values, estimate) for values, estimate in zip(combinations, found, strict=True)]
