"""Data sets as tensors that live on the device: images as bytes, labels, and a digest of all of it.

Validation is carved from the training set here, by one rule for all data sets and the same for every seed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet.config import RunConfig
from capsnet.datasets import Arrays, stratified_order
from capsnet.errors import InputError, brief, headline, shortage
from capsnet.multimnist import fixed_pairs
from capsnet.registry import load
from capsnet.verified import whole

UNREADABLE = (OSError, ValueError, LookupError, EOFError, BadZipFile)
"""What a loader raises where files are missing or broken. Any other exception is a fault of the loader itself."""


@dataclass(frozen=True)
class Split:
    """Images as bytes and their labels, on the device."""

    images: UInt8[Tensor, "count channels height width"]
    labels: Int[Tensor, "count *labels"]

    @classmethod
    def of(cls, arrays: Arrays, device: torch.device) -> "Split":
        """A loader's arrays on the device, with their channels first.

        Raises:
            InputError: images are no bytes: those in [0, 1] would be taken for nearly black ones.
        """
        images, labels = arrays
        if images.dtype != np.uint8:
            raise InputError(f"images must be bytes (uint8), 0 to 255, not {images.dtype}")
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
    try:
        (images, labels), test, digest = whole(config.dataset, folder)
    except UNREADABLE as error:
        if isinstance(error, InputError) or shortage(error):
            raise
        where = f"the data set {config.dataset} can't be read from {folder.resolve()}"
        raise InputError(f"{where}: {brief(headline(error))}") from error  # for who writes its loader, with the traceback
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
