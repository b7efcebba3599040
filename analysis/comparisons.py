"""What the cells of an experiment say about each other: differences to a reference, and what the test images say of both.

Differences are paired by seed: runs of one seed share first weights and the order of the images, so that their difference
is less noisy than either. Runs of different seeds are the independent units, never the runs of a cell and its neighbour.
Errors on different data sets have neither difference nor order: each data set has a reference, ranks and effects of its own.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from analysis import image_statistics, statistics
from analysis.axes import varying
from analysis.blocks import paired
from analysis.cells import Cell, grouped
from analysis.predictions import Answers, MixedError, named, read_answers, taken_for, wrong
from analysis.references import choose_references
from analysis.statistics import Comparison, Estimate
from analysis.wording import setting_text
from experiments.significance import ALPHA
from experiments.tracking import Store

SEED = 0  # of each bootstrap: a table doesn't depend on chance, nor on which cells stand beside one


@dataclass(frozen=True)
class Pairs:
    """What votes for classes don't tell of images with two labels.

    Attributes:
        wrong: how many runs don't find both digits.
        taken_for: how often a class (row) is found (diagonal), or missed and another (column) named in its place.
    """

    wrong: Int[ndarray, " images"]
    taken_for: Float[ndarray, "classes classes"]


@dataclass(frozen=True)
class Images:
    """What a cell's runs answered on the test images.

    Attributes:
        interval: of the test error in %, over seeds and test images.
        ensemble: test error in % of the mean of the runs' scores, with an interval over test images; None for a single run.
        labels: the true classes, one or two of an image.
        votes: how many runs answered which class; each names as many as an image has labels.
        scores: mean over the runs of the lengths of the class capsules.
        pairs: of images with two labels.
    """

    interval: Estimate
    ensemble: Estimate | None
    labels: Int[ndarray, "images *labels"]
    votes: Int[ndarray, "images classes"]
    scores: Float[ndarray, "images classes"]
    pairs: Pairs | None = None

    @property
    def runs(self) -> int:
        """How many runs answered."""
        return int(self.votes[0].sum()) // (1 if self.pairs is None else 2)

    @property
    def wrong(self) -> Int[ndarray, " images"]:
        """How many runs get an image wrong."""
        if self.pairs:
            return self.pairs.wrong
        return self.votes.sum(axis=1) - self.votes[np.arange(len(self.labels)), self.labels]


@dataclass(frozen=True)
class Difference:
    """A cell against the reference of its data set, in percentage points of test error."""

    cell: Cell
    comparison: Comparison
    p_holm: float  # over all cells of the data set that are compared
    images: Estimate | None  # of the difference, over seeds and test images; None without predictions


@dataclass(frozen=True)
class Comparisons:
    """All cells of an experiment, judged.

    Attributes:
        cells: in the table's order.
        images: by the cell's place; None if its predictions can't be had.
        references: data set -> the cell that its others are compared to, and why that one; none of a data set with one cell.
        differences: of the others, in the table's order.
        faults: why the predictions of runs can't be read, one of each such run.
        doubts: what else is not as it should be: cells and data sets of different images.
    """

    cells: Sequence[Cell]
    images: Sequence[Images | None]
    references: Mapping[str, tuple[Cell, str]]
    differences: Sequence[Difference]
    faults: Sequence[str]
    doubts: Sequence[str] = ()

    @property
    def reference(self) -> Cell | None:
        """Of the first data set that has one; with a single data set, the reference. None if nothing can be compared."""
        return next((cell for cell, _ in self.references.values()), None)

    @property
    def why(self) -> str:
        """Why it is the reference; empty if there is none."""
        return next((why for _, why in self.references.values()), "")

    @property
    def in_reach(self) -> bool:
        """Whether the cell with the most pairs could reach significance at all, after Holm's correction."""
        families = grouped(self.differences, lambda difference: difference.cell).values()
        return any(in_reach([difference.comparison for difference in family]) for family in families)

    @cached_property
    def by_dataset(self) -> "Mapping[str, Comparisons]":
        """Each data set's own, with the axes that vary within it."""
        if len(datasets := grouped(self.cells, lambda cell: cell)) < 2:
            return dict.fromkeys(datasets, self)
        return {name: _of_one(self, name, members) for name, members in datasets.items()}


def compare(cells: Sequence[Cell], stores: Mapping[str, Store], wanted: str = "") -> Comparisons:
    """Judge the cells, each against the reference of its data set.

    Args:
        cells: of an experiment.
        stores: where predictions lie; empty: without them.
        wanted: the reference, as ``routing_iterations=1 reconstruction_weight=0``; empty, and of data sets that have no such
            cell: the one with the paper's values of the axes, or what is nearest to it.

    Raises:
        InputError: no cell, or several of one data set, are what is wanted.
    """
    images: dict[int, Images | None] = {}  # by the cell's place
    differences: dict[int, Difference] = {}
    faults: list[str] = []
    doubts: list[str] = []
    cells = _by_data(cells, choose_references(cells, wanted), doubts)
    references = choose_references(cells, wanted)
    for name, members in grouped(list(enumerate(cells)), lambda pair: pair[1]).items():
        reference, _ = references.get(name, (None, ""))
        against = _answers(reference, stores, faults, doubts) if reference else None
        found: dict[int, tuple[Cell, Comparison, Estimate | None]] = {}
        for i, cell in members:
            answers = against if cell is reference else _answers(cell, stores, faults, doubts)
            images[i] = _images(answers) if answers else None
            if reference and cell is not reference:
                compared = statistics.compare(*paired(cell.by_seed, reference.by_seed))
                found[i] = cell, compared, _difference(answers, against)
        adjusted = statistics.holm([comparison.p for _, comparison, _ in found.values()])
        for (i, (cell, made, seen)), p in zip(found.items(), adjusted, strict=True):
            differences[i] = Difference(cell, made, float(p), seen)
    in_order = [differences[i] for i in sorted(differences)]
    return Comparisons(cells, [images[i] for i in range(len(cells))], references, in_order, faults, doubts)


def in_reach(family: Sequence[Comparison]) -> bool:
    """Whether any comparison could be significant at all, whatever the data, when corrected for those that have pairs."""
    known = [made for made in family if made.difference.n]
    return bool(known) and min(made.smallest_p for made in known) * len(known) <= ALPHA


def _of_one(whole: Comparisons, name: str, members: Sequence[Cell]) -> Comparisons:
    """What is of one data set, whose cells are given."""
    axes = varying(pd.concat([cell.runs for cell in members]))
    own = {id(cell): replace(cell, setting={axis: cell.setting[axis] for axis in axes}) for cell in members}
    images = [seen for cell, seen in zip(whole.cells, whole.images, strict=True) if id(cell) in own]
    references = {of: (own[id(cell)], why) for of, (cell, why) in whole.references.items() if of == name}
    differences = [replace(d, cell=own[id(d.cell)]) for d in whole.differences if id(d.cell) in own]
    return Comparisons(list(own.values()), images, references, differences, whole.faults, whole.doubts)


def _by_data(cells: Sequence[Cell], references: Mapping[str, tuple[Cell, str]], doubts: list[str]) -> list[Cell]:
    """The cells, each with the seeds whose runs read other data than most of the reference's did, and are nobody's pair."""
    found = list(cells)
    for name, members in grouped(list(enumerate(cells)), lambda pair: pair[1]).items():
        known = {i: list(cell.data.dropna()) for i, cell in members}
        several = Counter(itertools.chain(*known.values()))
        if len(several) < 2:
            continue
        reference, _ = references.get(name, (None, ""))
        own = next((known[i] for i, cell in members if cell is reference and known[i]), several)
        chosen = min(Counter(own), key=lambda digest: (-Counter(own)[digest], digest))
        for i, cell in members:
            others = cell.runs["seed"][cell.data.index[cell.data.notna() & (cell.data != chosen)]]
            found[i] = replace(cell, unpaired=frozenset(others))
        counted = ", ".join(f"{digest[:8]} {n} run{'s' * (n > 1)}" for digest, n in sorted(several.items()))
        doubts.append(f"runs on {name} read different data, by SHA-256 {counted}; only those of {chosen[:8]} are compared")
    return found


def _answers(cell: Cell, stores: Mapping[str, Store], faults: list[str], doubts: list[str]) -> Answers | None:
    try:
        answers, missing = read_answers(cell, stores) if stores else (None, [])
    except MixedError as mixed:
        answers, missing = None, [*mixed.faults]
        what = f"the runs of {setting_text(cell.setting, ' = ')} were tested on different images"
        doubts.append(f"{what}: there is no interval over test images of them, and no ensemble")
    faults += missing
    return answers


def _images(answers: Answers) -> Images:
    interval = image_statistics.bootstrap(answers.wrong, np.random.default_rng(SEED))
    labels, several = answers.labels, answers.labels.ndim > 1
    together = wrong(image_statistics.ensemble(answers.scores, labels[0].size), labels)
    classes = answers.scores.shape[2]
    votes = np.sum([named(each, classes) for each in answers.predictions], axis=0)
    ensemble = image_statistics.bootstrap(together[None], np.random.default_rng(SEED)) if len(answers.seeds) > 1 else None
    pairs = Pairs(answers.wrong.sum(axis=0), taken_for(answers)) if several else None
    return Images(interval, ensemble, labels, votes, answers.scores.mean(axis=0), pairs)


def _difference(answers: Answers | None, reference: Answers | None) -> Estimate | None:
    if answers is None or reference is None or not np.array_equal(answers.labels, reference.labels):
        return None
    if answers.digest and reference.digest and answers.digest != reference.digest:
        return None  # of generated images labels may agree, and of those of another size of the same digits
    common = [seed for seed in answers.seeds if seed in reference.seeds]
    if not common:
        return None
    one = answers.wrong[[answers.seeds.index(seed) for seed in common]]
    other = reference.wrong[[reference.seeds.index(seed) for seed in common]]
    return image_statistics.bootstrap_difference(one, other, np.random.default_rng(SEED))
