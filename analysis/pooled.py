"""What all runs that were tested on the same images answered: pooled votes, the images most often mistaken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from analysis.cells import Cell, config_of, dataset_of
from analysis.comparisons import Comparisons, Images
from analysis.style import NothingToDrawError
from capsnet.config import RunConfig
from capsnet.registry import MODELS

NO_PREDICTIONS = "no run's predictions can be read"


@dataclass(frozen=True)
class Seen:
    """What all runs that were tested on the same images answered, of the group with the most cells.

    Attributes:
        cells: of the group.
        left_out: how many cells were tested on other images, and of how many no prediction can be read.
        runs: how many there are.
        labels: the true classes, one or two of an image.
        votes: how many runs answered which class.
        wrong: how many runs get an image wrong.
        lengths: mean over the runs of the lengths of the class capsules; of networks without any, of their logits.
        measure: which of them, in a word.
    """

    cells: Sequence[Cell]
    left_out: tuple[int, int]
    runs: int
    labels: Int[ndarray, "images *labels"]
    votes: Int[ndarray, "images classes"]
    wrong: Int[ndarray, " images"]
    lengths: Float[ndarray, "images classes"]
    measure: str = "length"


def tested(comparisons: Comparisons) -> dict[str, tuple[RunConfig, set[str]]]:
    """Data set -> a configuration that has its test images, of those with predictions, and their SHA-256 as far as known."""
    found = {}
    for name, part in comparisons.by_dataset.items():
        if any(part.images):
            cells = seen(part).cells
            found[name] = config_of(cells[0].runs.iloc[0]), {digest for cell in cells for digest in cell.data.dropna()}
    return found


def seen(comparisons: Comparisons) -> Seen:
    """Pool the answers of the cells that were tested on the same images.

    Raises:
        NothingToDrawError: no cell has predictions.
    """
    groups: dict[tuple[str, bytes], list[tuple[Cell, Images]]] = {}
    for cell, images in zip(comparisons.cells, comparisons.images, strict=True):
        if images is not None:
            groups.setdefault((dataset_of(cell), images.labels.tobytes()), []).append((cell, images))
    if not groups:
        raise NothingToDrawError(NO_PREDICTIONS)
    group = max(groups.values(), key=len)  # the first of the largest, in the table's order
    unread = sum(images is None for images in comparisons.images)
    votes = np.sum([images.votes for _, images in group], axis=0)
    wrong = np.sum([images.wrong for _, images in group], axis=0)
    # a logit is no length: they have no mean in common
    alike = [(cell, images) for cell, images in group if not MODELS[cell.runs["model"].iloc[0]].logits] or group
    lengths = np.average([images.scores for _, images in alike], axis=0, weights=[images.runs for _, images in alike])
    measure = "logit" if MODELS[alike[0][0].runs["model"].iloc[0]].logits else "length"
    left_out = (len(comparisons.cells) - len(group) - unread, unread)
    runs = sum(images.runs for _, images in group)
    return Seen([cell for cell, _ in group], left_out, runs, group[0][1].labels, votes, wrong, lengths, measure)


def most_mistaken(group: Seen, most: int) -> Int[ndarray, " chosen"]:
    """The images with the most wrong answers, at least one; of equally many, those with the shortest true capsule.

    Of two true ones the shorter counts.
    """
    true = np.take_along_axis(group.lengths, group.labels.reshape(len(group.labels), -1), axis=1).min(axis=1)
    order = np.lexsort((true, -group.wrong))[:most]
    return order[group.wrong[order] > 0]


def classes_beside(group: Seen, image: int) -> list[int]:
    """The true class and, if they are others, the two most frequent answers.

    Of two true classes both, and the two most frequent answers that are neither.
    """
    labels, votes, lengths = group.labels[image].reshape(-1), group.votes[image], group.lengths[image]
    ordered = np.lexsort((-lengths, -votes))
    others = ordered[:2] if len(labels) == 1 else ordered[~np.isin(ordered, labels)][:2]
    return [*labels.tolist(), *(int(answer) for answer in others if votes[answer] and answer not in labels)]


def answers_to(group: Seen, image: int) -> list[str]:
    """Of each of :func:`classes_beside` its share of the runs and the mean length of its capsule; as many lines for all."""
    labels, votes, lengths = group.labels[image].reshape(-1), group.votes[image], group.lengths[image]
    lines = [
        f"{'true ' * (i in labels)}{i}: {100 * votes[i] / group.runs:.0f}%, {group.measure} {lengths[i]:.2f}"
        for i in classes_beside(group, image)
    ]
    return [*lines, *[""] * (2 + len(labels) - len(lines))]
