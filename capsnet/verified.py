"""What a loader returns, found to be what the registry says, and its digest.

A loader returns the official training and test sets as NumPy arrays.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from capsnet.datasets import Arrays
from capsnet.errors import InputError
from capsnet.registry import DATASETS, load

MEND = "mend the files, or the data set's line in capsnet/registry.py"


@lru_cache(maxsize=2)  # a process that trains many configs reads a data set once
def whole(dataset: str, folder: Path) -> tuple[Arrays, Arrays, str]:
    """Training arrays, test arrays and digest, found to be what the registry says they are."""
    facts = DATASETS[dataset]
    if facts.classes < 2:
        raise InputError(f"the data set {dataset} has one class in capsnet/registry.py: there is nothing to tell apart")
    training, test = load(facts.loader)(folder)
    digest = hashlib.sha256()
    several = () if facts.labels == 1 else (facts.labels,)
    parts = [(training, facts.training_images, "training", ()), (test, facts.test_images, "test", several)]
    for arrays, count, what, each in parts:
        files = f"the {what} files of {dataset} in {folder.resolve()}"
        verify(arrays, count, facts.shape, facts.classes, files, each, facts.again)
        add_to_digest(digest, arrays)
    if facts.digest and digest.hexdigest() != facts.digest:
        raise InputError(
            f"the files of {dataset} in {folder.resolve()} are corrupt: their SHA-256 is {digest.hexdigest()}, not "
            f"{facts.digest}; {facts.again or MEND}"
        )
    return training, test, digest.hexdigest()


def verify(
    arrays: Arrays,
    count: int,
    shape: tuple[int, int, int],
    classes: int,
    files: str,
    each: tuple[int, ...] = (),
    again: str = "",
) -> None:
    """Raise an InputError if a loader's arrays are not what the registry says.

    Args:
        arrays: images of bytes [count, height, width] or, of several channels, [count, height, width, channels]; labels.
        count, shape, classes: as the registry has them: images, (channels, height, width), and what labels are below.
        files: that hold them, and where, for the error.
        each: the shape of an image's labels.
        again: what to do then; "" = mend one or the other.
    """
    images, labels = arrays
    channels, *sides = shape
    wanted = (count, *sides, *((channels,) if channels > 1 else ()))
    if images.shape != wanted or labels.shape != (count, *each):
        said = (
            f"hold images {images.shape} and labels {labels.shape}, not images {wanted} with a label of 0 to {classes - 1} each"
        )
    elif images.dtype != np.uint8:
        told = f" of {images.min():g} to {images.max():g}" if np.issubdtype(images.dtype, np.number) else ""
        said = f"hold images of type {images.dtype}{told}, not of bytes (uint8) from 0 to 255"
    elif not np.issubdtype(labels.dtype, np.integer):
        said = f"hold labels of type {labels.dtype}, not integers of 0 to {classes - 1}"
    elif not 0 <= labels.min() <= labels.max() < classes:
        said = f"hold labels of {labels.min()} to {labels.max()}, not of 0 to {classes - 1}"
    else:
        return
    raise InputError(f"{files} {said}; {again or MEND}")


def add_to_digest(digest: "hashlib._Hash", arrays: Arrays) -> None:
    """Take images and labels into a digest, the latter as integers of 8 bytes."""
    images, labels = arrays
    digest.update(images.tobytes())
    digest.update(labels.astype(np.int64).tobytes())
