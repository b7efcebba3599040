"""MultiMNIST (paper, section 6): two digits of the same split and of different classes, one laid over the other.

Each digit stands on a canvas of 36 x 36, moved by up to 4 pixels in both directions; the two are added and clipped at 255. In
training the pairs are an endless stream: an epoch takes every training digit once, lays it over a partner that is drawn anew
from all digits of other classes, and moves each of the two by a draw of its own (``augmentation: shift(pixels=4)``). Validation
and test pairs are made once, by a fixed seed: one of each validation digit, and ``TEST_PAIRS`` of each test digit, where the
paper has 1,000 (10 million in all).
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from capsnet.augmentation import moved
from capsnet.datasets import Arrays
from capsnet.verified import whole

REACH = 4  # pixels by which a digit is moved, and that its canvas has more on each side
TEST_PAIRS = 10  # of each test digit
SEEDS = {"validation": 1, "test": 2}  # of fixed pairs; the training stream is the run's own


def of_mnist(folder: Path) -> tuple[Arrays, Arrays]:
    """MultiMNIST: training digits, each in the middle of its canvas, and the test pairs, with two labels each."""
    return _of("mnist", folder)


def of_digits(folder: Path) -> tuple[Arrays, Arrays]:
    """The same of scikit-learn's digits, which need no files: 24 x 24 pixels, on which the digits overlap as much or more."""
    return _of("digits", folder)


def _of(dataset: str, folder: Path) -> tuple[Arrays, Arrays]:
    training, test = _singles(dataset, folder)
    return training, fixed_pairs(*test, "test", TEST_PAIRS)


def _singles(dataset: str, folder: Path) -> tuple[Arrays, Arrays]:
    """Single digits, each in the middle of its canvas."""
    (images, labels), (test, test_labels), _ = whole(dataset, folder)
    return (_placed(images), labels), (_placed(test), test_labels)


def fixed_pairs(
    digits: UInt8[np.ndarray, "count height width"], labels: Int[np.ndarray, " count"], what: str, each: int = 1
) -> Arrays:
    """Pairs that are the same every time.

    Args:
        digits: each in the middle of its canvas.
        labels: of the digits.
        what: validation or test.
        each: how many pairs every digit is the first of.

    Returns:
        images [each * count, height, width], uint8, and labels [each * count, 2], the first digit's first.
    """
    first, second, by = recipe(labels, what, each)
    one, other = (moved(digits[which], by[:, i], REACH) for i, which in enumerate((first, second)))
    total = np.minimum(one.astype(np.uint16) + other, 255).astype(np.uint8)
    return total, np.stack([labels[first], labels[second]], axis=1)


def recipe(
    labels: Int[np.ndarray, " count"], what: str, each: int = 1
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, "pairs 2 2"]]:
    """What fixed pairs are made of: the first and the second digit of each, and for both the pixels moved down and right."""
    generator = torch.Generator().manual_seed(SEEDS[what])
    first = torch.arange(len(labels)).repeat(each)
    second = partners(torch.from_numpy(labels).long(), first, generator)
    by = torch.randint(-REACH, REACH + 1, (len(first), 2, 2), generator=generator)
    return first.numpy(), second.numpy(), by.numpy()


def partners(labels: Int[Tensor, " count"], first: Int[Tensor, " pairs"], generator: Generator) -> Int[Tensor, " pairs"]:
    """For each first digit another, drawn evenly from all digits of other classes.

    Raises:
        ValueError: all digits are of one class.
    """
    by_class = labels.argsort(stable=True)
    counts = labels.bincount()
    starts = counts.cumsum(0) - counts
    own = labels[first]
    others = len(labels) - counts[own]
    if not len(first):
        return first
    if not others.all():
        raise ValueError("pairs need digits of two classes at least")
    # 62 random bits: their remainder favours no digit by more than one in 10^13
    rank = torch.randint(2**62, (len(first),), generator=generator) % others
    return by_class[rank + (rank >= starts[own]) * counts[own]]


def overlaid(digits: Float[Tensor, "batch 2 channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Two images in [0, 1], added and clipped at 1."""
    return digits.sum(dim=1).clamp(max=1)


def _placed(images: UInt8[np.ndarray, "count rows columns"]) -> UInt8[np.ndarray, "count height width"]:
    """In the middle of the canvas."""
    return np.pad(images, ((0, 0), (REACH, REACH), (REACH, REACH)))
