"""Further test sets, on which a trained network is tested once after its last epoch, beside its data set's own."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from capsnet import test_sets
from capsnet.data import Split
from capsnet.datasets import Arrays
from capsnet.registry import TEST_SETS, load
from capsnet.verified import add_to_digest, verify

CHUNK = 1000  # images that are corrupted at once, on the CPU, so that all devices see the same


def split(name: str, folder: Path, test: Split) -> tuple[Split, str]:
    """A further test set on the device, and the SHA-256 of its images and labels, or of those that it is made of and its name.

    Args:
        name: of it.
        folder: of all data sets.
        test: the test images of the run's own data set, as its network sees them, on the device.

    Raises:
        InputError: its files are not there, or they are not what they should be.
    """
    device = test.images.device
    if name in TEST_SETS:
        return read_test_set(name, folder, device)
    images, labels = test.images.cpu(), test.labels
    # of the images that are corrupted: the corrupted ones differ by rounding from machine to machine
    digest = _digest((images.numpy(), labels.cpu().numpy()), name)
    times = test_sets.times(name, len(test))
    made = corrupted(images.repeat(times, 1, 1, 1), name)
    return Split(made.to(device), labels.repeat(times, *[1] * (labels.ndim - 1))), digest


def read_test_set(name: str, folder: Path, device: torch.device) -> tuple[Split, str]:
    """One of ``TEST_SETS`` on the device, and the SHA-256 of its images and labels.

    Raises:
        InputError: its files are not there, or they are not what they should be.
    """
    facts = TEST_SETS[name]
    arrays = load(facts.loader)(folder)
    files = f"the files of test set {name} in {(folder / facts.folder).resolve()}"
    verify(arrays, facts.images, facts.shape, facts.classes, files, again=facts.again)
    return Split.of(arrays, device), _digest(arrays)


def corrupted(images: UInt8[Tensor, "n c h w"], name: str) -> UInt8[Tensor, "n c h w"]:
    """The images as ``rotated_30`` and the like have them (:mod:`capsnet.corruptions`); the first of more are the same."""
    made = test_sets.corruption(name)
    assert made, name
    corrupts, level = made
    random = np.random.default_rng([*test_sets.kind(name).encode()])
    found = torch.empty_like(images)
    for part, place in zip(images.split(CHUNK), found.split(CHUNK), strict=True):
        place.copy_((255 * corrupts.apply(part.float() / 255, level, random).clamp(0, 1)).round())
    return found


def _digest(arrays: Arrays, name: str = "") -> str:
    digest = hashlib.sha256(name.encode())
    add_to_digest(digest, arrays)
    return digest.hexdigest()
