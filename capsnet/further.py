"""Further test sets, on which a trained network is tested once after its last epoch, beside its data set's own."""

import hashlib
from pathlib import Path

import torch

from capsnet.data import Split
from capsnet.registry import TEST_SETS, load
from capsnet.verified import add_to_digest, verify


def read_test_set(name: str, folder: Path, device: torch.device) -> tuple[Split, str]:
    """A further test set on the device, and the SHA-256 of its images and labels.

    Raises:
        InputError: its files are not there, or they are not what they should be.
    """
    facts = TEST_SETS[name]
    arrays = load(facts.loader)(folder)
    files = f"the files of test set {name} in {(folder / facts.folder).resolve()}"
    verify(arrays, facts.images, facts.shape, facts.classes, files, again=facts.again)
    digest = hashlib.sha256()
    add_to_digest(digest, arrays)
    return Split.of(arrays, device), digest.hexdigest()
