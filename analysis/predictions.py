"""What finished runs answered on the test images: read cell by cell, because ten thousand runs don't fit in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from analysis.cells import Cell
from capsnet.errors import InputError
from experiments.journal import PREDICTIONS
from experiments.tracking import MissingError, Store


@dataclass(frozen=True)
class Answers:
    """The test images as the runs of a cell saw them, in the order of their seeds.

    Attributes:
        seeds: of the runs.
        labels: the true classes.
        predictions: the classes with the largest score.
        scores: lengths of the class capsules.
    """

    seeds: Sequence[int]
    labels: Int[ndarray, " images"]
    predictions: Int[ndarray, "runs images"]
    scores: Float[ndarray, "runs images classes"]

    @property
    def wrong(self) -> Bool[ndarray, "runs images"]:
        """Which answers are wrong."""
        return self.predictions != self.labels


def read_answers(cell: Cell, stores: Mapping[str, Store], digests: Mapping[str, str]) -> tuple[Answers | None, list[str]]:
    """The answers of a cell's finished runs, and why some can't be had; None if none can, or not of the same images.

    Args:
        cell: its runs.
        stores: (experiment -> where its runs are tracked).
        digests: (run id -> SHA-256 of the data set that it read); of runs that are not in it, labels have to tell.
    """
    rows = cell.runs[cell.runs["status"] == "finished"]
    found: list[tuple[str, int, dict[str, ndarray]]] = []
    faults: list[str] = []
    with TemporaryDirectory() as folder:
        for run_id, seed, experiment in zip(rows["run_id"], rows["seed"], rows["experiment"], strict=True):
            try:
                found.append((run_id, seed, load(stores[experiment].artifact(run_id, PREDICTIONS, Path(folder)))))
            except InputError as fault:
                faults.append(str(fault))
    if not found:
        return None, faults
    ids, seeds, tensors = zip(*found, strict=True)
    labels, read = tensors[0]["labels"], {digests.get(run_id) for run_id in ids} - {None}
    if len(read) > 1 or any(not np.array_equal(labels, other["labels"]) for other in tensors):
        return None, [*faults, f"the runs of a cell were tested on different images: {', '.join(ids)}"]
    predictions = np.stack([each["predictions"] for each in tensors])
    return Answers(seeds, labels, predictions, np.stack([each["class_lengths"] for each in tensors])), faults


def load(path: Path) -> dict[str, ndarray]:
    """A run's ``labels``, ``predictions`` and ``class_lengths``.

    Raises:
        MissingError: the file is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingError(f"{path} can't be read: {error}") from None
