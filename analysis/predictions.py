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
        labels: the true classes; of images with two labels both, the first digit's first.
        predictions: the classes with the largest score; of two labels the two largest, in rising order.
        scores: lengths of the class capsules.
        digest: SHA-256 of the data set that the images are of; empty if no run's is known.
    """

    seeds: Sequence[int]
    labels: Int[ndarray, "images *labels"]
    predictions: Int[ndarray, "runs images *labels"]
    scores: Float[ndarray, "runs images classes"]
    digest: str = ""

    @property
    def wrong(self) -> Bool[ndarray, "runs images"]:
        """Which answers are wrong."""
        return wrong(self.predictions, self.labels)


def wrong(predictions: Int[ndarray, "..."], labels: Int[ndarray, "images *labels"]) -> Bool[ndarray, "..."]:
    """Which answers [images *labels], or [runs images *labels], are wrong, by the rule of :func:`capsnet.answers.wrong`."""
    if labels.ndim == 1:
        return predictions != labels
    import torch  # late, because it takes seconds

    from capsnet import answers

    each = torch.from_numpy(predictions.reshape(-1, *labels.shape))
    found = [answers.wrong(run, torch.from_numpy(labels)).numpy() for run in each]
    return np.array(found, dtype=bool).reshape(predictions.shape[:-1])


def named(answers: Int[ndarray, "images *labels"], classes: int) -> Bool[ndarray, "images classes"]:
    """Which classes an answer names, or an image's labels."""
    return (answers.reshape(len(answers), -1, 1) == np.arange(classes)).any(axis=1)


def taken_for(answers: Answers) -> Float[ndarray, "classes classes"]:
    """Of images with two labels: how often a class (row) is found (diagonal), or missed and another named in its place.

    Summed over the runs. Where both digits are missed, each of the two answers counts half for each of them.
    """
    classes = answers.scores.shape[2]
    true = named(answers.labels, classes)
    table = np.zeros((classes, classes))
    for predictions in answers.predictions:
        said = named(predictions, classes)
        missed, instead = true & ~said, said & ~true
        share = missed / np.maximum(missed.sum(axis=1, keepdims=True), 1)
        table += np.diag((true & said).sum(axis=0)) + share.T @ instead
    return table


class MixedError(InputError):
    """The runs of a cell were tested on different images; ``faults`` says why the answers of others can't be had."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("the runs of a cell were tested on different images")
        self.faults = faults


def read_answers(cell: Cell, stores: Mapping[str, Store]) -> tuple[Answers | None, list[str]]:
    """The answers of a cell's finished runs, and why some can't be had; None if none can.

    Args:
        cell: its runs; of those whose data set's SHA-256 isn't known, labels have to tell.
        stores: (experiment -> where its runs are tracked).

    Raises:
        MixedError: they are not of the same images.
    """
    rows = cell.runs[cell.runs["status"] == "finished"]
    found: list[tuple[str, int, dict[str, ndarray]]] = []
    faults: list[str] = []
    with TemporaryDirectory() as folder:
        for run_id, seed, experiment in zip(rows["run_id"], rows["seed"], rows["experiment"], strict=True):
            try:
                found.append((run_id, seed, load(stores[experiment], run_id, Path(folder))))
            except InputError as fault:
                faults.append(str(fault))
    if not found:
        return None, faults
    ids, seeds, tensors = zip(*found, strict=True)
    labels, read = tensors[0]["labels"], set(cell.runs.loc[cell.runs["run_id"].isin(ids), "data_sha256"].dropna())
    if len(read) > 1 or any(not np.array_equal(labels, other["labels"]) for other in tensors):
        raise MixedError(faults)
    predictions, scores = (np.stack([each[name] for each in tensors]) for name in ("predictions", "class_lengths"))
    return Answers(seeds, labels, predictions, scores, next(iter(read), "")), faults


def load(store: Store, run_id: str, folder: Path) -> dict[str, ndarray]:
    """A run's ``labels``, ``predictions`` and ``class_lengths``, fetched into a folder.

    Raises:
        MissingError: the file is gone or damaged.
    """
    path = store.artifact(run_id, PREDICTIONS, folder)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise MissingError(f"{PREDICTIONS} of run {run_id} can't be read: {error}") from None
