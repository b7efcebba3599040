"""Augmentations of training images, in batches on the device.

An augmentation is two functions: ``draw`` makes the random numbers of every image of an epoch, on the host and from the
run's own generator; ``apply`` uses a batch of them on the device. So one seed gives the same images on every device, and a
training step contains no random number generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # names and parameters are checked where no torch is wanted; the functions run where it is loaded
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """``draw(count, generator) -> [count, k]`` and ``apply(images [b, c, h, w], drawn [b, k]) -> [b, c, h, w]``."""

    draw: Callable[[int, Generator], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]
    reach: int = 0  # pixels by which an image may be displaced: has to stay below its height and width


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

        height, width = images.shape[-2:]
        padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
        rows = torch.arange(height, device=images.device) + pixels - drawn[:, :1]
        columns = torch.arange(width, device=images.device) + pixels - drawn[:, 1:]
        which = torch.arange(len(images), device=images.device)
        # indices on both sides of the channels' slice put the channels last
        return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return Augmentation(draw, apply, reach=pixels)


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {"none": none, "shift": shift}
