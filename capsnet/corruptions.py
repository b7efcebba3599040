"""Test sets made of a data set's own test images, such as ``rotated_30``: how far from what it learned does a network hold?

The kinds are those of MNIST-C (Mu and Gilmer 2019) and ImageNet-C (Hendrycks and Dietterich 2019) that one number describes;
the images are not theirs. What is corrupted is what a network sees at test, of a crop the patch. What is random follows from an
image's place and size alone: it is turned the same way, and has the same noise, for every network and at every level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsnet.alterations import Alteration
from capsnet.augmentation import affine, shift

if TYPE_CHECKING:  # names and levels are checked where no torch is wanted; the functions run where it is loaded
    import numpy as np
    from torch import Tensor

    Apply = Callable[[Tensor, int, np.random.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Corruption(Alteration):
    """One kind: ``apply(images [n, c, h, w] in [0, 1], level, random) -> [n, c, h, w]``, which may leave [0, 1]."""

    apply: Apply


def rotated(images: Tensor, level: int, random: np.random.Generator) -> Tensor:
    """Turned about the middle, each image one way or the other; black comes in."""
    return _affine(images, math.radians(level) * _signs(len(images), random), 0)


def sheared(images: Tensor, level: int, random: np.random.Generator) -> Tensor:
    """Slanted about the middle row: x changes by a share of y, to either side."""
    return _affine(images, level / 100 * _signs(len(images), random), 1)


def scaled(images: Tensor, level: int, random: np.random.Generator) -> Tensor:  # noqa: ARG001
    """Both sides to a percentage of theirs, about the middle."""
    import torch

    return _affine(images, torch.full((len(images),), level / 100 - 1), 2, 3)


def shifted(images: Tensor, level: int, random: np.random.Generator) -> Tensor:
    """Up, down, left or right by whole pixels; black comes in."""
    import torch

    ways = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
    return shift(pixels=level).apply(images, level * ways[random.integers(4, size=len(images))])


def noisy(images: Tensor, level: int, random: np.random.Generator) -> Tensor:
    """Gaussian noise on every pixel of every channel, cut off at black and white."""
    import torch

    return images + level / 100 * torch.from_numpy(random.standard_normal(tuple(images.shape))).float()


def blurred(images: Tensor, level: int, random: np.random.Generator) -> Tensor:  # noqa: ARG001
    """Weighted with a Gaussian of so many tenths of a pixel; beyond the edge its pixels go on."""
    import torch
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(images.numpy(), level / 10, axes=(2, 3), mode="nearest"))


def occluded(images: Tensor, level: int, random: np.random.Generator) -> Tensor:
    """A black square somewhere within the image."""
    import torch

    height, width = images.shape[-2:]
    # shares of the places that there are, so that squares of all sizes lie in the same corner or in the middle
    places = torch.from_numpy(random.random((len(images), 2))) * torch.tensor([height - level + 1, width - level + 1])
    top, left = places.long().unbind(dim=1)
    rows, columns = torch.arange(height), torch.arange(width)
    within = (rows >= top[:, None]) & (rows < top[:, None] + level)
    beside = (columns >= left[:, None]) & (columns < left[:, None] + level)
    return images.masked_fill((within[:, :, None] & beside[:, None, :])[:, None], 0)


def dimmed(images: Tensor, level: int, random: np.random.Generator) -> Tensor:  # noqa: ARG001
    """A percentage of its brightness."""
    return images * (level / 100)


CORRUPTIONS: Mapping[str, Corruption] = {
    "blurred": Corruption(
        "blurred by a Gaussian of {} tenths of a pixel", "tenths of a pixel", range(1, 101), apply=blurred, drawn=False
    ),
    "dimmed": Corruption("at {} % of its brightness", "% of brightness", range(1, 100), apply=dimmed, drawn=False, intact=100),
    "noisy": Corruption("with Gaussian noise of {} % of white", "% of white", range(1, 201), apply=noisy),
    "occluded": Corruption("with a black square of {0}x{0} pixels", "pixels", range(1, 1000), apply=occluded, inside=True),
    "rotated": Corruption("turned by {} degrees to either side", "degrees", range(1, 181), apply=rotated),
    "scaled": Corruption("scaled to {} %", "% of its size", range(10, 301), apply=scaled, drawn=False, intact=100),
    "sheared": Corruption("sheared by {} % to either side", "% of y added to x", range(1, 101), apply=sheared),
    "shifted": Corruption("moved by {} pixels up, down, left or right", "pixels", range(1, 1000), apply=shifted, inside=True),
}
"""By name: a test set is called by its kind and its level, ``rotated_30``. A kind's random numbers follow from its name."""


def _signs(count: int, random: np.random.Generator) -> Tensor:
    import torch

    return torch.from_numpy(1.0 - 2.0 * random.integers(2, size=count)).float()


def _affine(images: Tensor, value: Tensor, *which: int) -> Tensor:
    """The transforms of the augmentation ``affine``, of which each image has its value of some and nothing of the others."""
    import torch

    drawn = torch.zeros(len(images), 6)  # angle, shear, scales of height and width less 1, down, right
    drawn[:, which] = value[:, None]
    return affine().apply(images, drawn)
