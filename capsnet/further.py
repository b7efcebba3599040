"""Further test sets, on which a trained network is tested once after its last epoch, beside its data set's own."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from capsnet.config import RunConfig
from capsnet.data import Split
from capsnet.errors import InputError
from capsnet.registry import TEST_SETS, load


def require(config: RunConfig, folder: Path) -> None:
    """Raise an InputError if files of the config's further test sets are not in the folder: before any work is done."""
    for name in config.test_sets:
        if check := TEST_SETS[name].check:
            load(check)(folder)


def read_test_set(name: str, folder: Path, device: torch.device) -> tuple[Split, str]:
    """A further test set on the device, and the SHA-256 of its images and labels.

    Raises:
        InputError: its files are not there, or they are not what they should be.
    """
    facts = TEST_SETS[name]
    images, labels = load(facts.loader)(folder)
    wanted = (facts.images, *facts.shape[1:])
    if images.shape[:3] != wanted or labels.shape != wanted[:1] or not 0 <= labels.min() <= labels.max() < facts.classes:
        raise InputError(
            f"the files of test set {name} in {folder.resolve()} hold images {images.shape} and labels {labels.shape}, not "
            f"images {wanted} with a label of 0 to {facts.classes - 1} each"
        )
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.astype(np.int64).tobytes())
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    targets = torch.tensor(labels, dtype=torch.int64, device=device)
    return Split(torch.tensor(channels_first, device=device), targets), digest.hexdigest()
