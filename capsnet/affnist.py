"""MNIST on a canvas of 40x40, and affNIST, on which the paper tests what was trained on it (section 5.2).

The paper trains on "a padded and translated MNIST training set, in which each example is an MNIST digit placed randomly on a
black background of 40 x 40 pixels" and tests on affNIST (Tieleman 2013, https://www.cs.toronto.edu/~tijmen/affNIST), "in which
each example is an MNIST digit with a random small affine transformation". That site has to be fetched from by hand; where its
files are not at hand, :func:`generated` makes digits with transforms in the same ranges, which are another test set.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from capsnet.augmentation import moved
from capsnet.datasets import Arrays, mnist
from capsnet.errors import InputError, brief
from capsnet.registry import AFFNIST, TEST_SETS

SIDE = 40  # pixels of the canvas
FREE = SIDE - 28  # places of a digit's whole image in each direction, less 1
EDGE = FREE // 2  # pixels around one in the middle
ROTATION, SHEAR, SCALE = 20.0, 0.2, 0.2  # degrees and shares, to both sides: affNIST's
PLACES, TESTED_PLACES, TRANSFORMS = range(3)  # fixed streams of random numbers; appended to, never reordered

FOLDER = TEST_SETS["affnist"].folder
WHOLE = "test.mat"
BATCHES = [f"test_batches/{number}.mat" for number in range(1, 33)]

Transforms = Float[np.ndarray, "count 6"]
"""Angle in degrees, shear, factors of height and width, and how far down and right of all the way that there is: 0 to 1."""


def mnist_40(folder: Path) -> tuple[Arrays, Arrays]:
    """MNIST on 40x40: training images in the middle, test images where a fixed draw puts them.

    The augmentation ``shift(pixels=6)`` puts each training image anywhere on the canvas where all of its 28x28 pixels fit, anew
    in each epoch; :func:`placed` does it once to those that are held out for validation. The paper calls these test images
    the expanded MNIST test set.
    """
    (images, labels), (tested, test_labels) = mnist(folder)
    return (centred(images), labels), (moved(centred(tested), _places(len(tested), TESTED_PLACES), EDGE), test_labels)


def centred(images: UInt8[np.ndarray, "count 28 28"]) -> UInt8[np.ndarray, "count 40 40"]:
    """The images with a black edge of 6 pixels."""
    return np.pad(images, ((0, 0), (EDGE, EDGE), (EDGE, EDGE)))


def placed(
    images: UInt8[np.ndarray, "count 40 40"], index: Int[np.ndarray, " count"], total: int
) -> UInt8[np.ndarray, "count 40 40"]:
    """Centred images of 28x28, each where the fixed draw for its place in the training set puts it.

    Args:
        images: those that are held out.
        index: where each stands in the training set: an image has the same place in a smaller and in a larger validation set.
        total: images of the training set.
    """
    return moved(images, _places(total, PLACES)[index], EDGE)


def affnist(folder: Path) -> Arrays:
    """affNIST's official test set: 320,000 images, 32 of each test digit of MNIST.

    Read from ``affNIST/test.mat``, or ``affNIST/test_batches/1.mat`` to ``32.mat`` where it is not there: the unpacked
    ``transformed/test.mat.zip`` or ``transformed/test_batches.zip`` of the site's folder ``32x``. Each has a struct
    ``affNISTdata`` with ``image``, [1600, n] bytes of rows, and ``label_int``, [1, n].

    Raises:
        InputError: a file can't be read, or isn't so.
    """
    parts = [matlab(path) for path in files(folder)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def files(folder: Path) -> list[Path]:
    """Where the official files are.

    Raises:
        InputError: they are not there.
    """
    home = folder / FOLDER
    for names in ([WHOLE], BATCHES):
        if all((home / name).is_file() for name in names):
            return [home / name for name in names]
    there = sum((home / name).is_file() for name in BATCHES)
    found = f"; of these 32 there are {there}" if there else ""
    raise InputError(
        f"affNIST's test files are not in {home.resolve()}: put {WHOLE} there, or test_batches/1.mat to 32.mat{found} "
        f"(test.mat.zip or test_batches.zip of {AFFNIST}, unpacked), name another folder with CAPSNET_DATA or --data, or take "
        "the test set 'affnist_generated', which is made from MNIST"
    )


def matlab(path: Path) -> Arrays:
    """The images and labels of one of affNIST's files.

    Raises:
        InputError: it can't be read, or isn't one.
    """
    from scipy.io import loadmat

    try:
        held = loadmat(path, variable_names=["affNISTdata"])["affNISTdata"][0, 0]
        images, labels = held["image"], held["label_int"].reshape(-1)
    except Exception as error:  # of a broken file scipy raises whatever it stumbles over
        raise InputError(
            f"{path} can't be read as a file of affNIST ({type(error).__name__}: {brief(error, 120)}); unpack it again"
        ) from None
    if images.dtype != np.uint8 or images.shape != (SIDE * SIDE, len(labels)):
        raise InputError(
            f"{path} has images {images.dtype} {list(images.shape)} and {len(labels)} labels, not bytes of {SIDE * SIDE} rows "
            "with a label each"
        )
    return np.ascontiguousarray(images.T).reshape(-1, SIDE, SIDE), labels.astype(np.int64)


@lru_cache(maxsize=1)  # a process that tests many networks makes it once
def generated(folder: Path) -> Arrays:
    """MNIST's 10,000 test digits, each with one fixed draw of affNIST's transforms; not affNIST, whose draws are others.

    A digit is rotated about the middle of its image by -20 to 20 degrees, sheared (x += s y, s from -0.2 to 0.2), and scaled by
    0.8 to 1.2 in height and in width, each uniform; then it is moved to where it stands anywhere on the canvas with all of its
    ink, uniform, too. The ranges are affNIST's; the order, the direction of the shear and movements by parts of pixels are
    choices of this file. Interpolated once, bilinearly, and rounded to bytes.
    """
    _, (images, labels) = mnist(folder)
    return transformed(images, drawn(len(images))), labels


def drawn(count: int) -> Transforms:
    """The fixed draw: the first of a larger count are the same."""
    low = np.array([-ROTATION, -SHEAR, 1 - SCALE, 1 - SCALE, 0, 0])
    high = np.array([ROTATION, SHEAR, 1 + SCALE, 1 + SCALE, 1, 1])
    return low + (high - low) * _stream(TRANSFORMS).random((count, 6))


def transformed(images: UInt8[np.ndarray, "count height width"], how: Transforms) -> UInt8[np.ndarray, "count 40 40"]:
    """Each image as its transform has it on the canvas; all of its ink is there.

    Angles are counterclockwise; a share of 0.5 leaves as much room above the ink as below.
    """
    from scipy.ndimage import affine_transform

    matrices = _matrices(how)
    lowest, highest = _extents(images, matrices)
    # ink reaches to less than a pixel from what it is made of, so its extent may be from -1 to 40, both excluded
    first, last = -1 - lowest, SIDE - highest
    assert (first <= last).all(), "a digit is larger than the canvas"
    shifts = first + how[:, 4:] * (last - first)
    middle = (np.array(images.shape[1:]) - 1) / 2
    made = np.empty((len(images), SIDE, SIDE), np.uint8)
    for canvas, image, back, shift in zip(made, images, np.linalg.inv(matrices), shifts, strict=True):
        # each pixel of the canvas between the four of the image that it comes from; beyond the image's edge, they are black
        offset = middle - back @ shift
        sampled = affine_transform(image, back, offset, canvas.shape, output=float, order=1, mode="grid-constant")
        canvas[:] = sampled.round()
    return made


def _matrices(how: Transforms) -> Float[np.ndarray, "count 2 2"]:
    """What takes (row, column) from the middle of the image to (row, column) from that of the transformed one."""
    angle, shear, taller, wider = np.radians(how[:, 0]), how[:, 1], how[:, 2], how[:, 3]
    cos, sin = np.cos(angle), np.sin(angle)
    # rows go down: counterclockwise, what is to the right goes up
    row, column = np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)
    column = column + shear[:, None] * row
    return np.stack([taller[:, None] * row, wider[:, None] * column], axis=1)


def _extents(
    images: UInt8[np.ndarray, "count height width"], matrices: Float[np.ndarray, "count 2 2"]
) -> tuple[Float[np.ndarray, "count 2"], Float[np.ndarray, "count 2"]]:
    """The least and the greatest row and column, from the middle, that the ink of each transformed image stays within.

    Interpolation spreads a pixel over the square that reaches to its neighbours. An image without ink is a point.
    """
    middle = (np.array(images.shape[1:]) - 1) / 2
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    lowest, highest = np.zeros((len(images), 2)), np.zeros((len(images), 2))
    for i, (image, matrix) in enumerate(zip(images, matrices, strict=True)):
        ink = np.argwhere(image) - middle
        if len(ink):
            reached = (ink[:, None] + corners).reshape(-1, 2) @ matrix.T
            lowest[i], highest[i] = reached.min(axis=0), reached.max(axis=0)
    return lowest, highest


def _stream(which: int) -> np.random.Generator:
    """The same for every run: a seed chooses initialisation and order, not the images that are tested."""
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(which,)))


def _places(count: int, which: int) -> Int[np.ndarray, "count 2"]:
    """How far down and right of the middle each image stands: -6 to 6 pixels."""
    return _stream(which).integers(0, FREE + 1, (count, 2)) - EDGE
