"""Data sets: what they hold, how validation is held out, and what is said of files that are absent or broken."""

import dataclasses
import gzip
import hashlib
import itertools
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import capsnet.datasets
import capsnet.verified
from capsnet.config import RunConfig
from capsnet.data import Split, default_folder, read
from capsnet.datasets import digits, stratified_order
from capsnet.errors import InputError
from capsnet.registry import DATASETS
from capsnet.verified import verify


def rows(split):
    """An image and its label as one hashable value, for each image."""
    flat = split.images.flatten(1).numpy()
    return [(image.tobytes(), label) for image, label in zip(flat, split.labels.tolist(), strict=True)]


@pytest.fixture
def whole(tiny, data_of):
    return data_of(tiny(train_size=0, validation_size=237))


def test_digits_holds_1797_images_of_16x16(whole):
    assert (len(whole.training), len(whole.validation), len(whole.test)) == (1200, 237, 360)
    for split in (whole.training, whole.validation, whole.test):
        assert split.images.shape[1:] == (1, 16, 16)
        assert split.images.dtype == torch.uint8
        assert split.labels.unique().tolist() == list(range(10))
    assert len(whole.digest) == 64


def test_digits_are_scikit_learns_enlarged():
    """Bilinear by a factor of 2: a new pixel is 3/4 of the pixel it lies in and 1/4 of the neighbour on its side."""
    from sklearn.datasets import load_digits

    (training, labels), (test, test_labels) = digits(Path("/nowhere"))
    large = np.concatenate([training, test]).astype(float) / 255
    raw = load_digits()
    order = stratified_order(raw.target)
    assert np.array_equal(np.concatenate([labels, test_labels]), raw.target[order])
    expected = raw.images[order] / 16
    for axis in (1, 2):
        own = np.arange(16) // 2
        side = np.clip(own + np.tile([-1, 1], 8), 0, 7)
        expected = 0.75 * expected.take(own, axis) + 0.25 * expected.take(side, axis)
    assert np.abs(large - expected).max() <= 0.5 / 255 + 1e-6


def test_batches_are_in_0_to_1(whole):
    for index in (slice(0, 300), torch.arange(300)):
        batch = whole.training.batch(index)
        assert batch.dtype == torch.float32
        assert torch.equal(batch, whole.training.images[:300].float() / 255)
    assert (batch.min(), batch.max()) == (0, 1)
    assert batch.mean() > 0.1, "not normalised: the decoder ends in a sigmoid"


def test_training_validation_and_test_share_no_image(whole):
    """All 1,797 images differ, so that an image in two parts would be seen."""
    parts = [rows(part) for part in (whole.training, whole.validation, whole.test)]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 1797


def test_a_larger_train_size_contains_a_smaller_one(tiny, data_of):
    parts = [rows(data_of(tiny(train_size=size, validation_size=237)).training) for size in (10, 50, 400, 0)]
    assert [len(part) for part in parts] == [10, 50, 400, 1200]
    for small, large in itertools.pairwise(parts):
        assert set(small) < set(large)


def test_validation_is_the_same_for_each_seed_train_size_and_routing(tiny, data_of):
    first = data_of(tiny())
    for changes in ({"seed": 1}, {"train_size": 7}, {"routing_iterations": 1}, {"augmentation": "none"}, {"batch_size": 9}):
        other = data_of(tiny(**changes))
        assert rows(other.validation) == rows(first.validation)
        assert rows(other.test) == rows(first.test)
    assert rows(data_of(tiny(seed=1)).training) == rows(first.training)


def test_validation_is_the_beginning_of_the_order_and_training_goes_on_from_there(tiny, data_of):
    """Pinned: another choice of images would give old configs other numbers."""
    (images, labels), _ = digits(Path("/nowhere"))
    order = stratified_order(labels)
    data = data_of(tiny(train_size=100, validation_size=60))
    assert np.array_equal(data.validation.images[:, 0].numpy(), images[order[:60]])
    assert np.array_equal(data.training.images[:, 0].numpy(), images[order[60:160]])
    assert data.training.labels.tolist() == labels[order[60:160]].tolist()


def test_the_test_set_does_not_depend_on_the_split(tiny, data_of, whole):
    none = data_of(tiny(train_size=0, validation_size=0))
    assert (len(none.training), len(none.validation)) == (1437, 0)
    assert rows(none.test) == rows(whole.test)
    assert none.digest == whole.digest


@pytest.mark.parametrize("skewed", [False, True])
def test_every_prefix_of_the_stratified_order_is_in_proportion(skewed):
    random = np.random.default_rng(3)
    labels = random.choice(10, 1437, p=np.arange(1, 11) / 55 if skewed else None)
    order = stratified_order(labels)
    assert sorted(order) == list(range(1437)), "every image once"
    found = np.cumsum(labels[order][:, None] == np.arange(10), axis=0)
    wanted = np.arange(1, 1438)[:, None] * found[-1] / 1437
    apart = found - wanted
    assert np.abs(apart).max() <= 1.1, "to within an image, but for rounding of ten classes at once"
    assert apart.max(axis=0).max() - apart.min(axis=0).min() <= 2.2, "and every piece to within two"


def test_the_stratified_order_is_fixed_and_mixed():
    labels = np.repeat(np.arange(10), 20)
    order = stratified_order(labels)
    assert np.array_equal(order, stratified_order(labels))
    members = order[labels[order] == 3]
    assert not np.array_equal(members, np.sort(members)), "in a class, the order is random"


@pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
def test_images_that_are_no_bytes_are_refused(cpu, kind):
    with pytest.raises(InputError, match="images must be bytes"):
        Split.of((np.ones((5, 16, 16), kind), np.zeros(5)), cpu)


def test_a_colour_data_set_has_its_channels_first(monkeypatch, cpu, tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 4, 5, 3), dtype=np.uint8)
    facts = dataclasses.replace(DATASETS["digits"], shape=(3, 4, 5), training_images=20, test_images=10)
    monkeypatch.setitem(DATASETS, "colour", facts)
    monkeypatch.setattr(
        capsnet.datasets, "digits", lambda folder: ((images[:20], np.arange(20) % 10), (images[20:], np.arange(10)))
    )
    config = RunConfig(
        dataset="colour", validation_size=0, conv_kernel=1, primary_kernel=2, augmentation="none", lr_schedule="constant"
    )
    data = read(config, tmp_path, cpu)
    assert data.training.images.shape == (20, 3, 4, 5)
    assert torch.equal(data.test.images[4, 2], torch.tensor(images[24, :, :, 2]))


def test_default_folder(monkeypatch):
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    assert default_folder() == Path("data")
    monkeypatch.setenv("CAPSNET_DATA", "/elsewhere")
    assert default_folder() == Path("/elsewhere")
    monkeypatch.setenv("CAPSNET_DATA", "")
    assert default_folder() == Path("data")


def test_unequal_counts_are_an_impossible_split():
    """The import hook checks the shapes of a data class too."""
    import jaxtyping

    with pytest.raises(jaxtyping.TypeCheckError):
        Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))


# ---- files in the official IDX format

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    """The official format: two zero bytes, the type (8: bytes), the number of dimensions, the dimensions, the numbers."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(monkeypatch, tmp_path, offline):
    """20 training and 10 test images as files of MNIST's format, and a registry that expects just these."""
    random = np.random.default_rng(0)
    arrays = [
        random.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        np.arange(20) % 10,
        random.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        np.arange(10),
    ]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes() if array.ndim == 3 else array.astype("<i8").tobytes())
    facts = dataclasses.replace(DATASETS["mnist"], training_images=20, test_images=10, digest=digest.hexdigest())
    monkeypatch.setitem(DATASETS, "mnist", facts)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in zip(NAMES, arrays, strict=True):
        (raw / name).write_bytes(idx(array))
    capsnet.verified.whole.cache_clear()
    yield raw
    capsnet.verified.whole.cache_clear()


def config_of(dataset="mnist"):
    return RunConfig(dataset=dataset, validation_size=5, lr_schedule="constant")


def refused(folder, cpu, dataset="mnist"):
    with pytest.raises(InputError) as caught:
        read(config_of(dataset), folder, cpu)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_files_in_the_official_format_are_read_to_the_byte(small_mnist, tmp_path, cpu):
    data = read(config_of(), tmp_path, cpu)
    assert (len(data.training), len(data.validation), len(data.test)) == (15, 5, 10)
    assert data.digest == DATASETS["mnist"].digest
    raw = (small_mnist / NAMES[2]).read_bytes()[16:]
    assert data.test.images.numpy().tobytes() == raw
    assert data.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_byte_is_corrupt(small_mnist, tmp_path, cpu, name):
    good = (small_mnist / name).read_bytes()
    header = 16 if "images" in name else 8
    for place in [*range(header), header, len(good) - 1]:
        for flip in (1, 2, 0x80, 0xFF):
            bad = bytearray(good)
            bad[place] ^= flip
            (small_mnist / name).write_bytes(bad)
            message = refused(tmp_path, cpu)
            assert "corrupt" in message or f"the {'training' if 'train' in name else 'test'} files" in message
    (small_mnist / name).write_bytes(good)
    assert len(read(config_of(), tmp_path, cpu).test) == 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("left", [0, 1, 3, 4, 7, 8, 15, -1])
def test_a_truncated_file_is_refused(small_mnist, tmp_path, cpu, name, left):
    good = (small_mnist / name).read_bytes()
    (small_mnist / name).write_bytes(good[:left])
    message = refused(tmp_path, cpu)
    assert name in message
    assert "truncated or corrupt" in message
    assert "CAPSNET_DATA" in message


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("exists", [True, False])
def test_absent_files_that_cannot_be_downloaded(tmp_path, cpu, offline, dataset, exists):
    folder = tmp_path if exists else tmp_path / "no" / "such"
    message = refused(folder, cpu, dataset)
    assert "CAPSNET_DATA" in message
    assert "--data" in message
    assert "'digits' is embedded" in message
    assert "nothing is there" in message


def test_a_folder_that_is_a_file(tmp_path, cpu, offline):
    (tmp_path / "file").touch()
    assert "CAPSNET_DATA" in refused(tmp_path / "file", cpu)


@pytest.mark.parametrize("name", NAMES)
def test_one_absent_file_of_four(small_mnist, tmp_path, cpu, name):
    (small_mnist / name).unlink()
    assert "CAPSNET_DATA" in refused(tmp_path, cpu)


def test_a_download_that_broke_off_is_refused(small_mnist, tmp_path, cpu):
    """A packed file with other contents than the official one, and no way to have it again."""
    (small_mnist / NAMES[0]).unlink()
    (small_mnist / f"{NAMES[0]}.gz").write_bytes(gzip.compress(b"half")[:-3])
    assert "CAPSNET_DATA" in refused(tmp_path, cpu)


@pytest.mark.parametrize(("which", "label"), [(1, 10), (3, 255)])
def test_a_label_that_is_no_class_is_refused(small_mnist, tmp_path, cpu, which, label):
    content = bytearray((small_mnist / NAMES[which]).read_bytes())
    content[-1] = label
    (small_mnist / NAMES[which]).write_bytes(content)
    assert f"hold labels of 0 to {label}, not of 0 to 9; delete them" in refused(tmp_path, cpu)


def test_another_number_of_images_is_refused(small_mnist, tmp_path, cpu):
    (small_mnist / NAMES[1]).write_bytes(idx(np.arange(19) % 10))
    assert "not images (20, 28, 28)" in refused(tmp_path, cpu)


GLYPHS = np.zeros((3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (GLYPHS / np.float32(3), [0, 1, 2], "hold images of type float32 of 0 to 0, not of bytes (uint8) from 0 to 255"),
        (GLYPHS.astype(np.int64) + 2550, [0, 1, 2], "of type int64 of 2550 to 2550, not of bytes"),
        (GLYPHS, [0.7, 1.7, 1.9], "hold labels of type float64, not integers of 0 to 2"),
        (GLYPHS, ["a", "b", "c"], "hold labels of type <U1, not integers"),
        (
            GLYPHS,
            [1, 2, 3],
            "of 1 to 3, not of 0 to 2; mend the files, or the data set's line in capsnet/registry.py",
        ),
        (GLYPHS[..., 0], [0, 1, 2], "hold images (3, 8, 8) and labels (3,), not images (3, 8, 8, 3)"),
        (np.zeros((3, 8, 8, 4), np.uint8), [0, 1, 2], "hold images (3, 8, 8, 4)"),
    ],
)
def test_arrays_of_another_kind_are_refused_by_what_they_are(images, labels, said):
    with pytest.raises(InputError) as caught:
        verify((images, np.array(labels)), 3, (3, 8, 8), 3, "the test files of mine in /data")
    assert str(caught.value).startswith("the test files of mine in /data hold ")
    assert said in str(caught.value)


def test_a_single_channel_has_no_axis_of_its_own():
    labels = np.array([0, 1, 2])
    verify((GLYPHS[..., 0], labels), 3, (1, 8, 8), 3, "files")
    with pytest.raises(InputError, match=r"not images \(3, 8, 8\) with"):
        verify((GLYPHS[..., :1], labels), 3, (1, 8, 8), 3, "files")


def test_two_files_exchanged_are_refused(small_mnist, tmp_path, cpu):
    """Same shapes, other order: only the digest sees it."""
    first = (small_mnist / NAMES[0]).read_bytes()
    (small_mnist / NAMES[0]).write_bytes(first[:16] + first[-784:] + first[16:-784])
    assert "corrupt: their SHA-256" in refused(tmp_path, cpu)


@pytest.mark.skipif(
    not (Path(os.environ.get("CAPSNET_DATA") or "/nowhere") / "MNIST" / "raw").is_dir(),
    reason="CAPSNET_DATA names no folder that holds MNIST",
)
def test_the_real_mnist_passes_its_digest(cpu, offline):
    data = read(RunConfig(), default_folder(), cpu)
    assert (len(data.training), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    for split in (data.training, data.validation, data.test):
        assert split.images.shape[1:] == (1, 28, 28)
        assert split.images.float().mean() / 255 == pytest.approx(0.131, abs=0.003)
