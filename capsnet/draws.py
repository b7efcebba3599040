"""All that is random in an epoch, drawn on the host before it begins, and the batches that are made of it on the device."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor

from capsnet.augmentation import Augmentation
from capsnet.data import Split
from capsnet.multimnist import overlaid, partners


@dataclass(frozen=True)
class Draws:
    """For each place in the epoch's order, or for those of one batch.

    Attributes:
        order: the training image there, or the two digits that are laid over each other.
        drawn: what the augmentation drew for it, or for each of the two.
        noise: two random numbers of 32 bits, of which dropout is made; none without it.
    """

    order: Int[Tensor, "count *labels"]
    drawn: Shaped[Tensor, "count *labels k"]
    noise: Int[Tensor, "count n"]

    def to(self, device: torch.device) -> "Draws":
        """The same on a device."""
        return Draws(self.order.to(device), self.drawn.to(device), self.noise.to(device))

    def at(self, places: Int[Tensor, " batch"] | slice) -> "Draws":
        """Those of a batch."""
        return Draws(self.order[places], self.drawn[places], self.noise[places])

    def copy_(self, other: "Draws") -> None:
        """Take the values of another epoch into the same memory."""
        for name, tensor in vars(self).items():
            tensor.copy_(getattr(other, name))


def draw(training: Split, labels: int, augment: Augmentation, dropout: bool, generators: dict[str, Generator]) -> Draws:
    """An epoch that takes every training image once, in random order.

    Args:
        training: the training images, or the digits of which pairs are made.
        labels: of an image; 2 = each training digit is laid over a partner.
        augment: of the training images.
        dropout: whether a step drops units.
        generators: the run's streams: shuffling, augmentation, dropout and pairing.
    """
    count = len(training)
    order = torch.randperm(count, generator=generators["shuffling"])
    drawn = augment.draw(labels * count, generators["augmentation"])
    if labels == 2:
        order = torch.stack([order, partners(training.labels.cpu(), order, generators["pairing"])], dim=1)
        drawn = drawn.unflatten(0, (count, labels))
    return Draws(order, drawn, torch.randint(2**32, (count, 2 if dropout else 0), generator=generators["dropout"]))


@dataclass(frozen=True)
class Batch:
    """What a step trains on.

    Attributes:
        images: in [0, 1].
        labels: of each.
        noise: of which dropout is made; None = no dropout.
        digits: what each image was made of, if it has two labels.
    """

    images: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, "batch *labels"]
    noise: Int[Tensor, "batch 2"] | None = None
    digits: Float[Tensor, "batch 2 channels height width"] | None = None


def composed(training: Split, draws: Draws, augment: Augmentation) -> Batch:
    """The batch that the draws are for."""
    noise = draws.noise if draws.noise.shape[1] else None
    labels = training.labels[draws.order]
    if draws.order.ndim == 1:
        return Batch(augment.apply(training.batch(draws.order), draws.drawn), labels, noise)
    moved = augment.apply(training.batch(draws.order.flatten()), draws.drawn.flatten(0, 1))
    digits = moved.unflatten(0, draws.order.shape)
    return Batch(overlaid(digits), labels, noise, digits)
