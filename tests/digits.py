"""Further test sets that are made of the embedded digits, for tests that are to need no files."""

from pathlib import Path

import numpy as np

from capsnet.datasets import Arrays, digits


def turned(folder: Path) -> Arrays:
    """The test digits, a quarter of a turn counterclockwise."""
    _, (images, labels) = digits(folder)
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2))), labels


def flipped(folder: Path) -> Arrays:
    """The test digits, upside down."""
    _, (images, labels) = digits(folder)
    return np.ascontiguousarray(images[:, ::-1]), labels
