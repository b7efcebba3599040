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

AGAIN = "delete them, and the official ones are downloaded again or asked for"


@lru_cache(maxsize=2)  # a process that trains many configs reads a data set once
def whole(dataset: str, folder: Path) -> tuple[Arrays, Arrays, str]:
    """Training arrays, test arrays and digest, found to be what the registry says they are."""
    facts = DATASETS[dataset]
    training, test = load(facts.loader)(folder)
    digest = hashlib.sha256()
    several = () if facts.labels == 1 else (facts.labels,)
    parts = [(training, facts.training_images, "training", ()), (test, facts.test_images, "test", several)]
    for arrays, count, what, each in parts:
        verify(arrays, (count, *facts.shape[1:]), facts.classes, f"the {what} files of {dataset} in {folder.resolve()}", each)
        add_to_digest(digest, arrays)
    if facts.digest and digest.hexdigest() != facts.digest:
        raise InputError(
            f"the files of {dataset} in {folder.resolve()} are corrupt: their SHA-256 is {digest.hexdigest()}, not "
            f"{facts.digest}; {AGAIN}"
        )
    return training, test, digest.hexdigest()


def verify(
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


def add_to_digest(digest: "hashlib._Hash", arrays: Arrays) -> None:
    """Take images and labels into a digest, the latter as integers of 8 bytes."""
    images, labels = arrays
    digest.update(images.tobytes())
    digest.update(labels.astype(np.int64).tobytes())
