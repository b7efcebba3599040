"""MNIST on 40x40 and affNIST: places, transforms against scipy's, the official format, and what is said without the files."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.io import savemat

from capsnet import affnist, further
from capsnet.affnist import centred, drawn, matlab, placed, transformed
from capsnet.config import RunConfig
from capsnet.data import read
from capsnet.datasets import stratified_order
from capsnet.errors import InputError
from capsnet.registry import DATASETS, TEST_SETS, load

DATA = Path(os.environ.get("CAPSNET_DATA") or "/nowhere")
needs_mnist = pytest.mark.skipif(not (DATA / "MNIST" / "raw").is_dir(), reason="CAPSNET_DATA names no folder that holds MNIST")


def blobs(count, seed=0, shape=(28, 28)):
    """Smooth shapes in the inner 20x20 pixels, as digits are, no two alike."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.random((count, 20, 20)), (0, 2, 2))
    images = np.zeros((count, *shape), np.uint8)
    images[:, 4:24, 4:24] = np.where(noise > np.median(noise), 200 * noise / noise.max() + 55, 0)
    return images


def how(angle=0.0, shear=0.0, taller=1.0, wider=1.0, down=0.5, right=0.5):
    return np.array([[angle, shear, taller, wider, down, right]])


def box(image):
    """Height and width of the smallest box that holds the ink."""
    rows, columns = np.nonzero(image)
    return np.ptp(rows), np.ptp(columns)


def whole_box(image):
    """The image with ink in two opposite corners, so that its ink's box is the image."""
    image = image.copy()
    image[:, 0, 0] = image[:, -1, -1] = 255
    return image


def test_centred_is_the_image_with_an_edge_of_6():
    images = blobs(3)
    assert np.array_equal(centred(images)[:, 6:34, 6:34], images)
    assert centred(images).sum() == images.sum()


def test_no_transform_is_the_centred_image():
    images = whole_box(blobs(5))
    assert np.array_equal(transformed(images, how().repeat(5, axis=0)), centred(images))


def test_without_a_transform_all_places_are_those_where_the_ink_is_on_the_canvas():
    image = whole_box(blobs(1))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        canvas = transformed(image, how(down=down, right=right))[0]
        assert np.array_equal(canvas[12 * down :, 12 * right :][:28, :28], image[0])


@pytest.mark.parametrize("angle", [-20.0, -7.5, 12.0, 20.0])
def test_a_rotation_is_scipys(angle):
    """About the middle, counterclockwise; where the ink lies evenly on all sides, it stays in the middle."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 5:23, 11:17] = 250  # the same when turned by half a turn
    image[0, 5:9, 17:20] = image[0, 19:23, 8:11] = 200
    expected = ndimage.rotate(centred(image)[0].astype(float), angle, reshape=False, order=1)
    assert np.abs(transformed(image, how(angle))[0] - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("changes", "matrix"),
    [
        ({"shear": 0.2}, [[1, 0], [0.2, 1]]),
        ({"taller": 0.8}, [[0.8, 0], [0, 1]]),
        ({"wider": 1.2}, [[1, 0], [0, 1.2]]),
        ({"shear": -0.15, "taller": 1.1, "wider": 0.9}, [[1.1, 0], [-0.15 * 0.9, 0.9]]),
    ],
)
def test_other_transforms_are_scipys(changes, matrix):
    """(row, column) -> matrix (row, column), about the middle: rows go down, and so does the shear's y."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 5:23, 11:17] = 250
    image[0, 5:9, 17:20] = image[0, 19:23, 8:11] = 200
    inverse, middle = np.linalg.inv(matrix), np.array([19.5, 19.5])
    expected = ndimage.affine_transform(centred(image)[0].astype(float), inverse, middle - inverse @ middle, order=1)
    assert np.abs(transformed(image, how(**changes))[0] - expected).max() <= 0.5 + 1e-9


def test_the_order_is_rotation_shear_scale():
    """A point of ink far from the middle goes where the three matrices, one after the other, take it."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 4, 20] = image[0, 23, 7] = 255  # opposite each other
    angle, shear, taller, wider = 20.0, 0.2, 1.2, 0.8
    x, y = 20 - 13.5, 4 - 13.5
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    x, y = x * cos + y * sin, y * cos - x * sin
    x += shear * y
    x, y = wider * x, taller * y
    found = np.argwhere(transformed(image, how(angle, shear, taller, wider))[0] > 0) - 19.5
    upper = found[found[:, 0] < 0]
    assert np.abs(upper.mean(axis=0) - [y, x]).max() < 0.75


def test_all_ink_of_the_drawn_transforms_is_on_the_canvas():
    """As much as scipy finds on a canvas that nothing can leave; and it reaches every side of it."""
    images, transforms = blobs(300), drawn(300)
    made = transformed(images, transforms)
    for image, canvas, (angle, shear, taller, wider, _, _) in zip(images[:100], made, transforms, strict=False):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        matrix = np.diag([taller, wider]) @ [[1, 0], [shear, 1]] @ [[cos, -sin], [sin, cos]]  # of (row, column)
        inverse, middle = np.linalg.inv(matrix), np.array([39.5, 39.5])
        larger = ndimage.affine_transform(np.pad(image, 26).astype(float), inverse, middle - inverse @ middle, order=1)
        assert (larger[[0, -1]].max(), larger[:, [0, -1]].max()) == (0, 0)
        # places by parts of pixels sample the ink otherwise
        assert canvas.sum() == pytest.approx(larger.sum(), rel=0.05)
        assert np.abs(np.subtract(box(canvas), box(larger.round()))).max() <= 1
    edges = [made[:, :2], made[:, -2:], made[:, :, :2], made[:, :, -2:]]
    assert all(edge.max() > 0 for edge in edges)


def test_the_draw_fills_its_ranges_and_is_fixed():
    transforms = drawn(10_000)
    low, high = [-20, -0.2, 0.8, 0.8, 0, 0], [20, 0.2, 1.2, 1.2, 1, 1]
    assert (transforms >= low).all()
    assert (transforms <= high).all()
    reach = np.subtract(high, low)
    assert np.abs(transforms.min(axis=0) - low).max() < 0.01 * reach.max()
    assert (np.abs(transforms.mean(axis=0) - np.add(high, low) / 2) < 0.02 * reach).all()
    assert np.array_equal(drawn(7), transforms[:7])
    assert np.abs(np.corrcoef(transforms.T) - np.eye(6)).max() < 0.05


def test_placed_images_are_whole_and_anywhere_and_an_image_always_in_the_same_place():
    images = whole_box(blobs(200))
    index = np.arange(200) * 3
    made = placed(centred(images), index, 600)
    corners = np.array([np.argwhere(image)[0] for image in made])
    for image, canvas, (row, column) in zip(images, made, corners, strict=True):
        assert np.array_equal(canvas[row : row + 28, column : column + 28], image)
        assert canvas.sum() == image.sum()
    assert set(corners[:, 0]) == set(corners[:, 1]) == set(range(13))
    assert np.array_equal(placed(centred(images[5:6]), index[5:6], 600), made[5:6])


# --- the data set and the generated test set


@needs_mnist
def test_mnist_40_is_mnist_of_which_only_training_images_stand_in_the_middle(cpu):
    config = RunConfig(dataset="mnist_40", validation_size=500, augmentation="shift(pixels=6)")
    data, plain = read(config, DATA, cpu), read(RunConfig(validation_size=500), DATA, cpu)
    assert torch.equal(data.training.images[:50, :, 6:34, 6:34], plain.training.images[:50])
    for part, source in ((data.validation, plain.validation), (data.test, plain.test)):
        assert torch.equal(part.labels, source.labels)
        assert torch.equal(part.images.flatten(1).sum(dim=1), source.images.flatten(1).sum(dim=1))
        assert not torch.equal(part.images[:, :, 6:34, 6:34], source.images)
    again = read(RunConfig(dataset="mnist_40", validation_size=300), DATA, cpu)
    assert torch.equal(again.validation.images, data.validation.images[:300])
    index = stratified_order(np.concatenate([data.training.labels, data.validation.labels]))
    assert len(index) == 60_000


@needs_mnist
def test_the_generated_test_set_is_always_the_same(cpu):
    split, digest = further.read_test_set("affnist_generated", DATA, cpu)
    assert split.images.shape == (10_000, 1, 40, 40)
    assert digest == "b700c2da60acf067fdb4a206764028911f81e3bd64dc5aefe39f202355fe7451"
    sums = hashlib.sha256(split.images.numpy().tobytes() + split.labels.numpy().tobytes()).hexdigest()
    assert digest == sums


def test_the_names_of_test_sets_and_what_they_are_of():
    """A name that begins with r would be taken for an r."""
    for name, facts in TEST_SETS.items():
        assert not name.startswith("r")
        assert callable(load(facts.loader))
        assert ("generated" in name) == ("generated" in facts.origin)
    assert TEST_SETS["affnist"].shape == TEST_SETS["affnist_generated"].shape == DATASETS["mnist_40"].shape


# --- the official files


def official(path, images, labels):
    """A file as the site has it, with some of its other fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "image": images.reshape(len(images), -1).T,
        "label_int": labels[None].astype(np.uint8),
        "label_one_of_n": np.eye(10, dtype=np.uint8)[labels].T,
        "human_readable_transform": np.zeros((6, len(images))),
    }
    savemat(path, {"affNISTdata": fields}, do_compression=True)


@pytest.fixture
def few(monkeypatch):
    """64 images instead of 320,000."""
    from dataclasses import replace

    monkeypatch.setitem(TEST_SETS, "affnist", replace(TEST_SETS["affnist"], images=64))
    random = np.random.default_rng(0)
    return random.integers(0, 256, (64, 40, 40), dtype=np.uint8), random.integers(0, 10, 64)


def test_the_one_file_is_read_to_the_byte(few, tmp_path, cpu):
    images, labels = few
    official(tmp_path / "affNIST" / "test.mat", images, labels)
    split, digest = further.read_test_set("affnist", tmp_path, cpu)
    assert np.array_equal(split.images[:, 0].numpy(), images)
    assert split.labels.tolist() == labels.tolist()
    assert digest == hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def test_the_32_files_are_read_in_the_order_of_their_numbers(few, tmp_path, cpu):
    images, labels = few
    for i in range(32):
        official(tmp_path / "affNIST" / "test_batches" / f"{i + 1}.mat", images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2])
    assert np.array_equal(further.read_test_set("affnist", tmp_path, cpu)[0].images[:, 0].numpy(), images)


def test_a_single_image_is_read(few, tmp_path):
    images, labels = few
    official(tmp_path / "1.mat", images[:1], labels[:1])
    found, label = matlab(tmp_path / "1.mat")
    assert np.array_equal(found, images[:1])
    assert label.tolist() == labels[:1].tolist()


def test_absent_files_are_named_with_the_folder_and_the_alternative(tmp_path, cpu):
    with pytest.raises(InputError) as caught:
        further.read_test_set("affnist", tmp_path, cpu)
    for part in (str(tmp_path / "affNIST"), "test.mat", "test_batches/1.mat to 32.mat", "affnist_generated", "--data"):
        assert part in str(caught.value)


def test_one_absent_batch_is_an_absent_set(few, tmp_path):
    for i in range(31):
        official(tmp_path / "affNIST" / "test_batches" / f"{i + 1}.mat", few[0][:2], few[1][:2])
    with pytest.raises(InputError, match="of these 32 there are 31"):
        affnist.affnist(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no matlab", b"\0" * 200])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "affNIST").mkdir()
    (tmp_path / "affNIST" / "test.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"affNIST/test\.mat can't be read as a file of affNIST"):
        affnist.affnist(tmp_path)


def test_a_torn_file_is_refused(few, tmp_path):
    official(tmp_path / "affNIST" / "test.mat", *few)
    whole = (tmp_path / "affNIST" / "test.mat").read_bytes()
    for left in (len(whole) // 2, len(whole) - 1):
        (tmp_path / "affNIST" / "test.mat").write_bytes(whole[:left])
        with pytest.raises(InputError, match="can't be read as a file of affNIST"):
            affnist.affnist(tmp_path)


def test_another_file_of_matlabs_is_refused(tmp_path):
    (tmp_path / "affNIST").mkdir()
    savemat(tmp_path / "affNIST" / "test.mat", {"other": np.zeros(3)})
    with pytest.raises(InputError, match=r"affNIST/test\.mat can't be read as a file of affNIST \(KeyError: 'affNISTdata'\)"):
        affnist.affnist(tmp_path)


def test_another_size_or_number_of_images_is_refused(few, tmp_path, cpu):
    """As the file of centred digits, which has the same name. They were never downloaded, so nothing downloads them again."""
    images, labels = few
    official(tmp_path / "affNIST" / "test.mat", images[:60], labels[:60])
    with pytest.raises(InputError) as caught:
        further.read_test_set("affnist", tmp_path, cpu)
    said = str(caught.value)
    assert said.startswith(f"the files of test set affnist in {tmp_path / 'affNIST'} hold images (60, 40, 40) and labels (60,)")
    assert "affNIST/32x/transformed there" in said
    assert "downloaded" not in said
    official(tmp_path / "affNIST" / "test.mat", images[:, :28, :28], labels)
    with pytest.raises(InputError, match=r"test\.mat has images uint8 \[784, 64\]"):
        further.read_test_set("affnist", tmp_path, cpu)
    (tmp_path / "affNIST" / "test.mat").unlink()
    for i in range(32):
        official(tmp_path / "affNIST" / "test_batches" / f"{i + 1}.mat", images[:3], labels[:3])
    with pytest.raises(InputError, match=r"hold images \(96, 40, 40\)"):
        further.read_test_set("affnist", tmp_path, cpu)


def blank(path, count):
    """A file as the site has it, but for its number of images."""
    official(path, np.zeros((count, 40, 40), np.uint8), np.arange(count) % 10)


REFUSED = {
    "absent": (lambda path: None, "affNIST's test files are not in {}: put test.mat there"),
    "another number": (lambda path: blank(path, 60), "the files of test set affnist in {} hold images (60, 40, 40)"),
    "no MAT file": (lambda path: path.write_bytes(b"no matlab"), "{}/test.mat can't be read as a file of affNIST"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_a_command_refuses_wrong_files_before_it_trains(tmp_path, monkeypatch, capsys, content, said):
    """In one line, and before it looks at MNIST, which isn't there, either."""
    from capsnet import __main__ as program
    from capsnet import terminal

    (tmp_path / "affNIST").mkdir()
    content(tmp_path / "affNIST" / "test.mat")
    words = "capsnet --dataset mnist_40 --test-sets affnist --device cpu --data"
    monkeypatch.setattr("sys.argv", [*words.split(), str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        terminal.finish(program.main)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert said.format(tmp_path / "affNIST") in " ".join(err.split())
    assert not out
