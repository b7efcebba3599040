"""Reads data sets of one's own: images in a folder for each class, or arrays in one file. What can't be used is named."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from capsnet.datasets import BROKEN, Arrays
from capsnet.errors import InputError, brief

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {"1": 1, "L": 1, "P": 3, "RGB": 3}  # Pillow's of at most a byte per channel -> channels
UNREADABLE = (*BROKEN, BadZipFile, zlib.error, SyntaxError)  # the last is Pillow's of a PNG
INTO = "train/CLASS/*.png and test/CLASS/*.png"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

# ---- folders of images


def read_folder(place: Path, channels: int = 0) -> tuple[Arrays, Arrays]:
    """Training and test images; ``channels`` are 1 for grey, 3 for RGB, or 0 for grey if all images are."""
    if channels not in (0, 1, 3):
        raise InputError(f"{place.resolve()}: images are grey or RGB, of 1 or 3 channels, and the registry says {channels}")
    training, test = (_files(place / part) for part in ("train", "test"))
    _same_classes([*training], [*test], place)
    headers = {path: _header(path) for part in (training, test) for paths in part.values() for path in paths}
    first, (size, _) = next(iter(headers.items()))
    for path, (other, _) in headers.items():
        if other != size:
            raise InputError(f"{path.resolve()} has {_by(other)} pixels (width x height), and {first.resolve()} {_by(size)}")
    mode = "RGB" if (channels or max(own for _, own in headers.values())) == 3 else "L"
    return _arrays(training, mode), _arrays(test, mode)


def class_names(place: Path) -> tuple[str, ...]:
    """What the folders of classes are called; nothing if that is their numbers."""
    names = tuple(_files(place / "train"))
    return () if names == tuple(map(str, range(len(names)))) else names


def _arrays(files: Mapping[str, Sequence[Path]], mode: str) -> Arrays:
    images = np.stack([_pixels(path, mode) for paths in files.values() for path in paths])
    return images, np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])


def _files(place: Path) -> dict[str, list[Path]]:
    """Class -> its images, both in the order of their names."""
    if not place.is_dir():
        raise InputError(f"there is no folder {place.resolve()}; put images into its CLASS/*.png")
    beside = _visible(place)
    # other files, as a list of labels, are nobody's images
    if loose := [path for path in beside if path.suffix.lower() in SUFFIXES and not path.is_dir()]:
        raise InputError(f"{loose[0].resolve()} is in no folder of a class; move it into one, or out of {place.name}")
    found = {path.name: _visible(path) for path in beside if path.is_dir()}
    if not found:
        raise InputError(f"{place.resolve()} has no folder of a class; put images into its CLASS/*.png")
    for name, paths in found.items():
        if not paths:
            raise InputError(f"class {name} is empty: there is no image in {(place / name).resolve()}")
        if other := [path for path in paths if path.suffix.lower() not in SUFFIXES]:
            raise InputError(f"{other[0].resolve()} is none of {', '.join(SUFFIXES)}; move it out of the class's folder")
    return found


def _visible(place: Path) -> list[Path]:
    """What is in a folder, but for what systems hide there, as .DS_Store."""
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height, and channels."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            size, mode, transparent = image.size, image.mode, "transparency" in image.info
    except UNREADABLE as error:
        raise InputError(f"{path.resolve()} can't be read as an image: {brief(error, 200)}") from None
    if mode not in MODES or transparent:
        raise InputError(
            f"{path.resolve()} is of Pillow's mode {mode}{' with transparency' * transparent}; save it as grey or RGB with a "
            "byte per channel"
        )
    return size, MODES[mode]


def _pixels(path: Path, mode: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except UNREADABLE as error:
        raise InputError(f"{path.resolve()} can't be read as an image: {brief(error, 200)}") from None


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _same_classes(training: Sequence[object], test: Sequence[object], place: Path) -> None:
    """Raise an InputError that names the classes which train or test alone has."""
    pairs = (("train", training, test), ("test", test, training))
    alone = {part: [str(each) for each in own if each not in other] for part, own, other in pairs}
    if any(alone.values()):
        told = "; ".join(f"only {part} has {', '.join(names)}" for part, names in alone.items() if names)
        raise InputError(f"train and test of {place.resolve()} have different classes: {told}")


# ---- arrays in a file


def read_npz(path: Path) -> tuple[Arrays, Arrays]:
    """Training and test arrays, found to be of the form that :func:`capsnet.own_data.npz` says."""
    try:
        with path.open("rb") as file, np.load(file) as held:
            there, missing = [*held], [name for name in ARRAYS if name not in held]
            arrays = [] if missing else [held[name] for name in ARRAYS]
    except UNREADABLE as error:
        raise InputError(f"{path.resolve()} can't be read: {brief(error, 200)}") from None
    if missing:
        raise InputError(f"{path.resolve()} lacks {', '.join(missing)}; it has {', '.join(there) or 'nothing'}")
    training, test = (_checked(arrays[i], arrays[i + 1], part, path) for i, part in ((0, "train"), (2, "test")))
    if training[0].shape[1:] != test[0].shape[1:]:
        sizes = " and test_images ".join(_by(images.shape[1:]) for images, _ in (training, test))
        raise InputError(f"{path.resolve()} has images of different sizes: train_images {sizes}")
    classes = np.unique(training[1])
    empty = next((i for i, label in enumerate(classes) if i != label), None)
    if empty is not None:
        raise InputError(f"class {empty} is empty: {path.resolve()} has train_labels up to {classes[-1]}, but none of {empty}")
    _same_classes(classes.tolist(), np.unique(test[1]).tolist(), path)
    return training, test


def _checked(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> Arrays:
    """Images and labels of a part, if they are of the form that :func:`capsnet.own_data.npz` says."""
    wanted = ""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        shape = f"{images.dtype} of shape {images.shape}"
        wanted = f"{part}_images are {shape}, not bytes (uint8) of shape [n, height, width] or [n, height, width, channels]"
    elif not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        wanted = f"{part}_labels are {labels.dtype} of shape {labels.shape}, not {len(images)} whole numbers"
    elif labels.min() < 0:
        wanted = f"{part}_labels begin at {labels.min()}, not at 0"
    if wanted:
        raise InputError(f"{path.resolve()}: {wanted}")
    single = images.ndim == 4 and images.shape[3] == 1  # of which loaders give no axis
    return np.ascontiguousarray(images[..., 0]) if single else images, labels.astype(np.int64)
