"""Further test sets, on which a trained network is tested once after its last epoch, beside its data set's own."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from capsnet import test_sets
from capsnet.alterations import Alteration, Attack
from capsnet.attacks import attacked
from capsnet.corruptions import Corruption
from capsnet.data import Split
from capsnet.datasets import Arrays
from capsnet.models import Network
from capsnet.registry import TEST_SETS, load
from capsnet.verified import add_to_digest, verify

CHUNK = 1000  # images that are corrupted at once, on the CPU, so that all devices see the same


def split(name: str, folder: Path, test: Split, network: Network) -> tuple[Split, str]:
    """A further test set on the device, and the SHA-256 of its images and labels, or of those that it is made of and its name.

    Args:
        name: of it.
        folder: of all data sets.
        test: the test images of the run's own data set, as its network sees them, on the device.
        network: that is tested, there, too; an attack is made against it.

    Raises:
        InputError: its files are not there, or they are not what they should be.
        DivergedError: an attack finds no finite gradient.
    """
    device = test.images.device
    if name in TEST_SETS:
        return read_test_set(name, folder, device)
    # of the images that are altered: the altered ones differ by rounding from machine to machine, and by attacks from network
    # to network
    digest = _digest((test.images.cpu().numpy(), test.labels.cpu().numpy()), name)
    times = test_sets.times(name, len(test))
    several = Split(test.images.repeat(times, 1, 1, 1), test.labels.repeat(times, *[1] * (test.labels.ndim - 1)))
    return Split(altered(name, several, network), several.labels), digest


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


def altered(name: str, test: Split, network: Network) -> UInt8[Tensor, "n c h w"]:
    """Test images, on the device, as ``rotated_30``, ``fgsm_8`` and the like have them."""
    kind, level = _kind(name)
    if isinstance(kind, Attack):
        return attacked(network, test, kind, level)
    return corrupted(test.images.cpu(), name).to(test.images.device)


def corrupted(images: UInt8[Tensor, "n c h w"], name: str) -> UInt8[Tensor, "n c h w"]:
    """The images as ``rotated_30`` and the like have them (:mod:`capsnet.corruptions`); the first of more are the same."""
    kind, level = _kind(name)
    assert isinstance(kind, Corruption), name
    random = np.random.default_rng([*test_sets.kind(name).encode()])
    found = torch.empty_like(images)
    for part, place in zip(images.split(CHUNK), found.split(CHUNK), strict=True):
        place.copy_((255 * kind.apply(part.float() / 255, level, random).clamp(0, 1)).round())
    return found


def _kind(name: str) -> tuple[Alteration, int]:
    made = test_sets.alteration(name)
    assert made, name
    return made


def _digest(arrays: Arrays, name: str = "") -> str:
    digest = hashlib.sha256(name.encode())
    add_to_digest(digest, arrays)
    return digest.hexdigest()
