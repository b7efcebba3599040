"""Loaders of data sets' official files: training and test sets as they were published, and what is said where they are absent.

torchvision reads, verifies and downloads those it knows, and scikit-learn holds the digits. The reader of smallNORB is here.
"""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from capsnet.errors import InputError, brief
from capsnet.registry import DATASETS

Arrays = tuple[np.ndarray, np.ndarray]  # images [n, height, width(, channels)] uint8, labels [n] or [n, 2]

BROKEN = (RuntimeError, OSError, ValueError, TypeError, LookupError, EOFError, AssertionError)  # what reading files may raise
ELSEWHERE = (
    "or name another folder with CAPSNET_DATA or --data; the data set 'digits' is embedded and needs no files (grid quick)"
)

SMALLNORB = (  # how the files' names begin, of training and test: with the five toys of each kind that are in them
    "smallnorb-5x46789x9x18x6x2x96x96-training",
    "smallnorb-5x01235x9x18x6x2x96x96-testing",
)
SMALLNORB_PAGE = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
SMALLNORB_AGAIN = f"download it again from {SMALLNORB_PAGE}"
BYTES, INTEGERS = 0x1E3D4C55, 0x1E3D4C54  # magic numbers of the matrices that smallNORB has
NUMBERS: dict[int, np.dtype[Any]] = {BYTES: np.dtype("u1"), INTEGERS: np.dtype("<i4")}


def official(
    name: str, folder: Path, place: Path, wanted: Sequence[str], read: Callable[[], tuple[Arrays, Arrays]]
) -> tuple[Arrays, Arrays]:
    """What torchvision reads or downloads; whatever goes wrong with that is one error.

    Args:
        name: of the data set.
        folder: of all data sets.
        place: within it, where the files are.
        wanted: the files' names.
        read: reads them, or raises what torchvision raises.

    Raises:
        InputError: the files are neither there nor downloadable, or they are broken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return read()
    except BROKEN as error:
        present = {path.name for path in place.glob("*")} if folder.is_dir() else set()
        reason = brief(error, 200) or type(error).__name__
        missing = [file for file in wanted if file not in present]
        found = f"missing: {', '.join(missing)}" if missing else f"of {', '.join(wanted)}, something is truncated or corrupt"
        found = found if present else "nothing is there"
        raise InputError(
            f"{name} can't be read from {folder.resolve()} or downloaded ({reason}); {found}. Put the files into {place}, "
            f"{ELSEWHERE}"
        ) from None


def mnist(folder: Path) -> tuple[Arrays, Arrays]:
    """MNIST (LeCun, Cortes, Burges), read or downloaded by torchvision."""
    return _torchvision("MNIST", folder)


def fashion_mnist(folder: Path) -> tuple[Arrays, Arrays]:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), read or downloaded by torchvision."""
    return _torchvision("FashionMNIST", folder)


def _torchvision(name: str, folder: Path) -> tuple[Arrays, Arrays]:
    from torchvision import datasets  # 5 s, which the embedded data set needn't wait for

    kind = getattr(datasets, name)

    def read() -> tuple[Arrays, Arrays]:
        parts = [kind(folder, train=train, download=True) for train in (True, False)]
        train, test = ((part.data.numpy(), part.targets.numpy()) for part in parts)
        return train, test

    return official(name, folder, folder / name / "raw", [Path(file).stem for file, _ in kind.resources], read)


def digits(_folder: Path) -> tuple[Arrays, Arrays]:
    """scikit-learn's 1,797 handwritten digits (UCI), enlarged from 8x8 to 16x16 by bilinear interpolation.

    The first 1,437 of a fixed stratified order are for training, the other 360 for testing.
    """
    import torch
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    large = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
    images, labels = (large * 255).round().to(torch.uint8).numpy(), raw.target
    order = stratified_order(labels)
    training, test = order[:1437], order[1437:]
    return (images[training], labels[training]), (images[test], labels[test])


def stratified_order(labels: Int[np.ndarray, " count"]) -> Int[np.ndarray, " count"]:
    """A fixed random order of which every prefix holds each class in proportion to within an image, every piece to within two.

    Validation is its beginning and training goes on from there, so that a larger train_size contains a smaller one.
    """
    random = np.random.default_rng(0)  # the same for every run: a seed chooses initialisation and order, not the images
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(place, kind="stable")


def cifar10(folder: Path) -> tuple[Arrays, Arrays]:
    """CIFAR-10 (Krizhevsky 2009), 10 kinds of things, read or downloaded (170 MB) by torchvision."""
    from torchvision import datasets

    kind = datasets.CIFAR10

    def read() -> tuple[Arrays, Arrays]:
        train, test = (kind(folder, train=part, download=True) for part in (True, False))
        return (train.data, np.array(train.targets)), (test.data, np.array(test.targets))

    wanted = [file for file, _ in (*kind.train_list, *kind.test_list)]
    return official("CIFAR10", folder, folder / kind.base_folder, [*wanted, kind.meta["filename"]], read)


def svhn(folder: Path) -> tuple[Arrays, Arrays]:
    """SVHN (Netzer et al. 2011), house numbers cut into digits, read or downloaded (250 MB) by torchvision.

    The training set is the small one of 73,257 images, as in the paper; the 531,131 further ones are not read.
    """
    from torchvision import datasets

    kind, place = datasets.SVHN, folder / "SVHN"

    def read() -> tuple[Arrays, Arrays]:
        train, test = (kind(place, split=part, download=True) for part in ("train", "test"))
        return (train.data.transpose(0, 2, 3, 1), train.labels), (test.data.transpose(0, 2, 3, 1), test.labels)

    return official("SVHN", folder, place, [kind.split_list[part][1] for part in ("train", "test")], read)


def smallnorb(folder: Path) -> tuple[Arrays, Arrays]:
    """smallNORB (LeCun, Huang, Bottou 2004), 5 kinds of toys, from its official files, packed by gzip or not.

    The two cameras' images are the two channels. Each is halved from 96x96 to 48x48 pixels: the mean of every 2x2, rounded.
    The paper doesn't say how it resized them.

    Raises:
        InputError: a file is missing, broken, or no part of smallNORB.
    """
    place, facts = folder / "smallNORB", DATASETS["smallnorb"]
    files = [f"{start}-{kind}.mat" for start in SMALLNORB for kind in ("dat", "cat")]
    there = {name: [path for path in (place / name, place / f"{name}.gz") if path.is_file()] for name in files}
    if missing := [name for name, paths in there.items() if not paths]:
        raise InputError(
            f"smallNORB can't be read from {place.resolve()}; missing: {', '.join(missing)}, each as it is or packed as .gz. "
            f"Download the files from {SMALLNORB_PAGE} and put them there, {ELSEWHERE}"
        )
    parts = []
    for start, count in zip(SMALLNORB, (facts.training_images, facts.test_images), strict=True):
        images = matrix(there[f"{start}-dat.mat"][0], BYTES, (count, 2, 96, 96))
        parts.append((halved(images), matrix(there[f"{start}-cat.mat"][0], INTEGERS, (count,)).astype(np.int64)))
    return parts[0], parts[1]


def matrix(path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of a file in the binary matrix format of NORB, which has to be of this type and shape.

    The format, in little-endian integers of 4 bytes: the magic number, which tells the type; the number of dimensions; the
    dimensions, at least three of them, filled up with ones; then the numbers, the last dimension running fastest.

    Raises:
        InputError: it is another file, truncated, or broken.
    """
    numbers, filled = NUMBERS[magic], (*shape, 1, 1)[: max(len(shape), 3)]
    header = np.array([magic, len(shape), *filled], dtype="<i4")
    size = int(np.prod(shape)) * numbers.itemsize
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            found, content = file.read(header.nbytes), file.read(size + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path.resolve()} can't be read: {brief(error, 200)}; {SMALLNORB_AGAIN}") from None
    if found != header.tobytes():
        begins, wanted = (part.hex(" ", 4) or "none" for part in (found, header.tobytes()))
        raise InputError(
            f"{path.resolve()} begins with the bytes {begins}, and not with {wanted}, as smallNORB's binary matrix "
            f"{'x'.join(map(str, shape))} does; {SMALLNORB_AGAIN}"
        )
    if len(content) != size:
        more = "more" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path.resolve()} should hold {size:,} bytes after its header, not {more}; {SMALLNORB_AGAIN}")
    return np.frombuffer(content, dtype=numbers).reshape(shape)


def halved(
    images: UInt8[np.ndarray, "count channels height width"],
) -> UInt8[np.ndarray, "count height//2 width//2 channels"]:
    """The mean of every 2x2 pixels, halves rounded up; channels last."""
    count, channels, height, width = images.shape
    small = np.empty((count, height // 2, width // 2, channels), dtype=np.uint8)
    for start in range(0, count, 1000):  # because sums take twice the memory
        piece = images[start : start + 1000].astype(np.uint16)
        rows = piece[:, :, ::2] + piece[:, :, 1::2]
        small[start : start + 1000] = ((rows[..., ::2] + rows[..., 1::2] + 2) // 4).transpose(0, 2, 3, 1)
    return small
