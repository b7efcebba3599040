"""Augmentations of training images, in batches on the device.

An augmentation is two functions: ``draw`` makes the random numbers of every image of an epoch, on the host and from the
run's own generator; ``apply`` uses a batch of them on the device. So one seed gives the same images on every device, and a
training step contains no random number generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsnet.variants import require

if TYPE_CHECKING:  # names and parameters are checked where no torch is wanted; the functions run where it is loaded
    import numpy as np
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """``draw(count, generator) -> [count, k]`` and ``apply(images [b, c, h, w], drawn [b, k]) -> [b, *shape((c, h, w))]``.

    All that is random is drawn in ``draw``, from its generator: what ``apply`` drew would be others in a run that is resumed.
    """

    draw: Callable[[int, Generator], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]
    reach: int = 0  # pixels by which an image may be displaced: has to stay below its height and width
    size: int = 0  # side in pixels of the patch that the network sees of an image, here and at test; 0 = all of it

    def shape(self, whole: tuple[int, int, int]) -> tuple[int, int, int]:
        """Channels, height and width that the network sees of images of this shape."""
        return (whole[0], self.size, self.size) if self.size else whole

    def still(self, images: Tensor) -> Tensor:
        """Images [b, c, h, w] as the network sees those that nothing is drawn for: [b, *shape((c, h, w))].

        The patch is the middle one; where there are two middles, the upper and left one.
        """
        if not self.size:
            return images
        top, left = ((side - self.size) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.size, left : left + self.size]


def none() -> Augmentation:
    """The images as they are."""

    def draw(count: int, generator: Generator) -> Tensor:  # noqa: ARG001
        import torch

        return torch.empty(count, 0)

    return Augmentation(draw, lambda images, drawn: images)


def shift(*, pixels: int) -> Augmentation:
    """Each image its own shift of -pixels to +pixels in both directions, zeros moving in (paper, section 5: 2 pixels)."""
    if pixels < 1:
        raise ValueError(f"pixels must be 1 or more, not {pixels}; write 'none' for no shift")

    def draw(count: int, generator: Generator) -> Tensor:
        import torch

        return torch.randint(-pixels, pixels + 1, (count, 2), generator=generator)

    def apply(images: Tensor, drawn: Tensor) -> Tensor:
        import torch

        padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
        return _windows(padded, pixels - drawn[:, :1], pixels - drawn[:, 1:], *images.shape[-2:])

    return Augmentation(draw, apply, reach=pixels)


def moved(images: np.ndarray, by: np.ndarray, pixels: int) -> np.ndarray:
    """Images [n, h, w], each moved down and right by its own whole numbers of pixels [n, 2], which are at most ``pixels``."""
    import torch

    return shift(pixels=pixels).apply(torch.from_numpy(images)[:, None], torch.from_numpy(by))[:, 0].numpy()


def affine(*, rotation: float = 20.0, shear: float = 0.2, scale: float = 0.2, pixels: int = 2) -> Augmentation:
    """Each image its own affine transform about its middle, interpolated bilinearly, zeros moving in.

    A pixel at (x, y) from the middle is scaled, sheared, rotated and moved, each by its own uniform draw: both sides by a
    factor of 1 - scale to 1 + scale each, x by -shear to +shear times y, by -rotation to +rotation degrees, and by whole steps
    of -pixels to +pixels in both directions. The defaults but for the last are affNIST's ranges (Tieleman 2013).
    """
    for name, value, limit in (("rotation", rotation, 180), ("shear", shear, 1), ("scale", scale, 0.9)):
        require(0 <= value <= limit, name, f"0 to {limit}", value)
    require(pixels >= 0, "pixels", "0 or more", pixels)
    if not (rotation or shear or scale):
        raise ValueError("rotation, shear and scale are all 0; write shift(pixels=...) for shifts alone, or none")

    def draw(count: int, generator: Generator) -> Tensor:
        import torch

        ranges = torch.tensor([math.radians(rotation), shear, scale, scale])
        uniform = 2 * torch.rand(count, 4, generator=generator) - 1
        moved = torch.randint(-pixels, pixels + 1, (count, 2), generator=generator)
        return torch.cat([uniform * ranges, moved], dim=1)  # angle, shear, scales of height and width less 1, down, right

    def apply(images: Tensor, drawn: Tensor) -> Tensor:
        import torch

        height, width = images.shape[-2:]
        angle, lean, taller, wider, down, right = (column[:, None, None] for column in drawn.unbind(dim=1))
        # for each pixel of the result, where it comes from: every step undone, the last first
        rows = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2 - down
        columns = torch.arange(width, device=images.device) - (width - 1) / 2 - right
        cos, sin = angle.cos(), angle.sin()
        x, y = columns * cos + rows * sin, rows * cos - columns * sin
        x, y = (x - lean * y) / (1 + wider), y / (1 + taller)
        # torch counts from -1 to 1, from the outer edge of the first pixel to that of the last
        places = torch.stack([2 * x / width, 2 * y / height], dim=3)
        return torch.nn.functional.grid_sample(images, places, mode="bilinear", padding_mode="zeros", align_corners=False)

    return Augmentation(draw, apply, reach=pixels)


def crop(*, size: int) -> Augmentation:
    """Of each image its own square patch, from any place within it; at test the middle one (paper, section 7).

    The paper has patches of 24x24 pixels of CIFAR-10's 32x32, and of 32x32 of smallNORB's 48x48.
    """
    require(size >= 1, "size", "1 or more", size)

    def draw(count: int, generator: Generator) -> Tensor:
        import torch

        # shares of 2^31, because only the images tell how many places there are; whole numbers, so that devices agree
        return torch.randint(2**31, (count, 2), generator=generator)

    def apply(images: Tensor, drawn: Tensor) -> Tensor:
        top, left = (drawn[:, i : i + 1] * (side - size + 1) // 2**31 for i, side in enumerate(images.shape[-2:]))
        return _windows(images, top, left, size, size)

    return Augmentation(draw, apply, size=size)


def _windows(images: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Of each image [b, c, h, w] the window that begins in its own row and column [b, 1]: [b, c, height, width]."""
    import torch

    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    which = torch.arange(len(images), device=images.device)
    # indices on both sides of the channels' slice put the channels last
    return images[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {"none": none, "shift": shift, "affine": affine, "crop": crop}
