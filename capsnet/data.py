"""Data sets as tensors that live on the device: images as bytes, labels, and a digest of all of it.

A loader returns the official training and test sets as NumPy arrays. Validation is carved from the training set here, by one
rule for all data sets and the same for every seed.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet.config import RunConfig
from capsnet.datasets import Arrays
from capsnet.errors import InputError
from capsnet.multimnist import fixed_pairs
from capsnet.registry import DATASETS, load

AGAIN = "delete them, and the official ones are downloaded again or asked for"


@dataclass(frozen=True)
class Split:
    """Images as bytes and their labels, on the device."""

    images: UInt8[Tensor, "count channels height width"]
    labels: Int[Tensor, "count *labels"]

    @classmethod
    def of(cls, arrays: Arrays, device: torch.device) -> "Split":
        """A loader's arrays on the device, with their channels first."""
        images, labels = arrays
        channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return cls(torch.tensor(channels_first, device=device), torch.tensor(labels, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Int[Tensor, " batch"] | slice) -> Float[Tensor, "batch channels height width"]:
        """The images at the index, in [0, 1]."""
        return self.images[index].float() / 255


@dataclass(frozen=True)
class Data:
    """The three parts of a data set that one run sees, and the SHA-256 of the whole data set they are taken from."""

    training: Split
    validation: Split
    test: Split
    digest: str

    def sample(self, count: int) -> Split:
        """The first images of the validation set, or if there is none of the training set, to look at a run with."""
        split = self.validation if len(self.validation) else self.training
        first = Split(split.images[:count], split.labels[:count])
        if split.labels.ndim == self.validation.labels.ndim:
            return first
        pairs = fixed_pairs(first.images[:, 0].cpu().numpy(), first.labels.cpu().numpy(), "validation")
        return Split.of(pairs, first.images.device)


def default_folder() -> Path:
    """``CAPSNET_DATA`` if set, or ``data`` in the current folder."""
    return Path(os.environ.get("CAPSNET_DATA") or "data")


def read(config: RunConfig, folder: Path, device: torch.device) -> Data:
    """The config's data on the device.

    Raises:
        InputError: the files are neither there nor downloadable, or they are not what they should be.
    """
    (images, labels), test, digest = whole(config.dataset, folder)
    order = stratified_order(labels)
    held_out, rest = order[: config.validation_size], order[config.validation_size :]
    chosen = rest[: config.training_images]

    def still(arrays: Arrays) -> Split:
        split = Split.of(arrays, device)
        return Split(config.augment.still(split.images).contiguous(), split.labels)

    validation = images[held_out], labels[held_out]
    if config.facts.labels == 2:
        validation = fixed_pairs(*validation, "validation")
    if config.facts.held_out:
        validation = load(config.facts.held_out)(validation[0], held_out, len(images)), validation[1]
    return Data(Split.of((images[chosen], labels[chosen]), device), still(validation), still(test), digest)


@lru_cache(maxsize=2)  # a process that trains many configs reads a data set once
def whole(dataset: str, folder: Path) -> tuple[Arrays, Arrays, str]:
    """Training arrays, test arrays and digest, found to be what the registry says they are."""
    facts = DATASETS[dataset]
    training, test = load(facts.loader)(folder)
    digest = hashlib.sha256()
    several = () if facts.labels == 1 else (facts.labels,)
    parts = [(training, facts.training_images, "training", ()), (test, facts.test_images, "test", several)]
    for arrays, count, what, each in parts:
        check(arrays, (count, *facts.shape[1:]), facts.classes, f"the {what} files of {dataset} in {folder.resolve()}", each)
        update(digest, arrays)
    if facts.digest and digest.hexdigest() != facts.digest:
        raise InputError(
            f"the files of {dataset} in {folder.resolve()} are corrupt: their SHA-256 is {digest.hexdigest()}, not "
            f"{facts.digest}; {AGAIN}"
        )
    return training, test, digest.hexdigest()


def check(
    arrays: Arrays, shape: tuple[int, ...], classes: int, files: str, each: tuple[int, ...] = (), again: str = AGAIN
) -> None:
    """Raise an InputError if a loader's arrays are not what the registry says.

    Args:
        arrays: images and labels.
        shape: of the images, [n, height, width]; behind it there may be channels.
        classes: labels are below.
        files: that hold them, and where, for the error.
        each: the shape of an image's labels.
        again: what to do then.
    """
    images, labels = arrays
    shaped = images.shape[:3] == shape and labels.shape == (shape[0], *each)
    if not shaped or not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"{files} hold images {images.shape} and labels {labels.shape}, not images {shape} with a label of 0 to "
            f"{classes - 1} each; {again}"
        )


def update(digest: "hashlib._Hash", arrays: Arrays) -> None:
    """Take images and labels into a digest, the latter as integers of 8 bytes."""
    images, labels = arrays
    digest.update(images.tobytes())
    digest.update(labels.astype(np.int64).tobytes())


def stratified_order(labels: Int[np.ndarray, " count"]) -> Int[np.ndarray, " count"]:
    """A fixed random order of which every prefix holds each class in proportion to within an image, every piece to within two.

    Validation is its beginning and training goes on from there, so that a larger train_size contains a smaller one.
    """
    random = np.random.default_rng(0)  # the same for every run: a seed chooses initialisation and order, not the images
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def digits(_folder: Path) -> tuple[Arrays, Arrays]:
    """scikit-learn's 1,797 handwritten digits (UCI), enlarged from 8x8 to 16x16 by bilinear interpolation.

    The first 1,437 of a fixed stratified order are for training, the other 360 for testing.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    large = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    images, labels = (large * 255).round().to(torch.uint8).numpy(), raw.target
    order = stratified_order(labels)
    training, test = order[:1437], order[1437:]
    return (images[training], labels[training]), (images[test], labels[test])
