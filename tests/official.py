"""Data sets so small that a test trains on them, written in the official formats, and a registry that expects just these.

torchvision's checksums become those of the files that are written: the readers themselves are the real ones.
"""

import dataclasses
import gzip
import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import capsnet.verified
from capsnet.datasets import SMALLNORB
from capsnet.registry import DATASETS


def made_up(count, channels, side, classes, seed):
    """Images [count, channels, side, side], noise about their class's own 4x4 coloured tiles, and their labels, by turns."""
    tiles = np.random.default_rng(99).integers(0, 256, (classes, channels, 4, 4)).repeat(side // 4, 2).repeat(side // 4, 3)
    labels = np.arange(count) % classes
    images = np.random.default_rng(seed).normal(tiles[labels], 20)
    return images.clip(0, 255).astype(np.uint8), labels


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar10(folder, training, test, patch):
    """Five pickled batches of training images, one of test images: rows of 3072 bytes, red first; and the names."""
    from torchvision.datasets import CIFAR10

    place = folder / CIFAR10.base_folder
    place.mkdir(parents=True)

    def batch(name, images, labels):
        content = {"batch_label": name, "data": images.reshape(len(images), -1), "labels": labels.tolist()}
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, _md5(place / name)]

    pieces = zip(np.array_split(training[0], 5), np.array_split(training[1], 5), strict=True)
    patch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}", *piece) for i, piece in enumerate(pieces, start=1)])
    patch.setattr(CIFAR10, "test_list", [batch("test_batch", *test)])
    meta = place / CIFAR10.meta["filename"]
    meta.write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": _md5(meta)})
    return place


def svhn(folder, training, test, patch):
    """MATLAB files with X [height, width, channels, count] and y [count, 1], in which the digit 0 is 10."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    place = folder / "SVHN"
    place.mkdir(parents=True)
    listed = dict(SVHN.split_list)
    for part, (images, labels) in (("train", training), ("test", test)):
        url, name, _ = listed[part]
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(place / name, {"X": images.transpose(2, 3, 1, 0), "y": y})
        listed[part] = [url, name, _md5(place / name)]
    patch.setattr(SVHN, "split_list", listed)
    return place


def norb_matrix(array):
    """NORB's binary matrix, byte by byte: magic number, dimensions, at least three of them, little end first, numbers."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    dims = [*array.shape, *[1] * (3 - array.ndim)]
    return (
        b"".join(n.to_bytes(4, "little") for n in (magic, array.ndim, *dims))
        + array.astype(f"<{array.dtype.str[1:]}").tobytes()
    )


def smallnorb(folder, training, test, patch, packed=False):
    """Matrices of bytes [count, 2, 96, 96], each made of 48x48 pixels that are repeated, and matrices of integers [count]."""
    place = folder / "smallNORB"
    place.mkdir(parents=True)
    for start, (images, labels) in zip(SMALLNORB, (training, test), strict=True):
        large = images.repeat(2, axis=2).repeat(2, axis=3)
        for kind, array in (("dat", large), ("cat", labels.astype(np.int32))):
            content = norb_matrix(array)
            name = f"{start}-{kind}.mat"
            if packed:
                (place / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (place / name).write_bytes(content)
    return place


WRITERS = {"cifar10": cifar10, "svhn": svhn, "smallnorb": smallnorb}


@contextmanager
def small(
    dataset: str, folder: Path, training: int = 40, test: int = 20, **how: bool
) -> Iterator[tuple[Path, list[np.ndarray]]]:
    """Inside, a data set of so many images: the folder of its files, and its arrays (images channels first)."""
    channels, side, _ = DATASETS[dataset].shape
    arrays = [made_up(count, channels, side, DATASETS[dataset].classes, i) for i, count in enumerate((training, test))]
    facts = dataclasses.replace(DATASETS[dataset], training_images=training, test_images=test)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, dataset, facts)
        capsnet.verified.whole.cache_clear()
        yield WRITERS[dataset](folder, *arrays, patch, **how), [part for pair in arrays for part in pair]
    capsnet.verified.whole.cache_clear()
