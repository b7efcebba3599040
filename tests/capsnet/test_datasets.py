"""CIFAR-10, SVHN and smallNORB from small files in the official formats; what is said of files that are absent or broken."""

import dataclasses

import numpy as np
import pytest
import torch

from capsnet.config import RunConfig
from capsnet.data import read
from capsnet.datasets import SMALLNORB, halved
from capsnet.errors import InputError
from capsnet.registry import DATASETS
from capsnet.state import TrainingState
from capsnet.training import evaluate, train
from tests.official import WRITERS, norb_matrix, small


def config_of(dataset, **changes):
    return RunConfig(**{"dataset": dataset, "validation_size": 10, "lr_schedule": "constant", **changes})


def refused(dataset, folder, cpu, **changes):
    with pytest.raises(InputError) as caught:
        read(config_of(dataset, **changes), folder, cpu)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dataset", WRITERS)
def test_files_in_the_official_format_are_read_to_the_byte(dataset, tmp_path, cpu, offline):
    with small(dataset, tmp_path) as (_, (images, labels, test_images, test_labels)):
        data = read(config_of(dataset, augmentation="none"), tmp_path, cpu)
    assert data.test.images.shape[1:] == DATASETS[dataset].shape
    assert torch.equal(data.test.images, torch.tensor(test_images))
    assert data.test.labels.tolist() == test_labels.tolist()
    assert (len(data.training), len(data.validation)) == (30, 10)
    known = {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    for split in (data.training, data.validation):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert known.pop(image.numpy().tobytes()) == label
    assert not known, "each image once"


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_absent_files_that_cannot_be_downloaded(dataset, tmp_path, cpu, offline):
    message = refused(dataset, tmp_path / "no" / "such", cpu)
    assert "nothing is there" in message
    assert "CAPSNET_DATA or --data" in message
    assert "'digits' is embedded" in message


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_each_absent_or_broken_file_is_named(dataset, tmp_path, cpu, offline):
    with small(dataset, tmp_path) as (place, _):
        files = sorted(place.iterdir())
        assert len(files) == {"cifar10": 7, "svhn": 2}[dataset]
        for path in files:
            content = path.read_bytes()
            path.unlink()
            assert f"missing: {path.name}. Put the files into {place}" in refused(dataset, tmp_path, cpu)
            for bad in (b"", content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
                path.write_bytes(bad)
                message = refused(dataset, tmp_path, cpu)
                assert "truncated or corrupt" in message
                assert path.name in message
            path.write_bytes(content)
        assert len(read(config_of(dataset), tmp_path, cpu).test) == 20


@pytest.mark.parametrize("dataset", WRITERS)
def test_another_number_of_images_is_refused(dataset, tmp_path, cpu, offline):
    """Though the checksums are right."""
    with small(dataset, tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, dataset, dataclasses.replace(DATASETS[dataset], test_images=19))
        assert "19" in refused(dataset, tmp_path, cpu)


def test_classes_that_have_names_have_one_each_and_those_of_fashion_mnist_are_the_official():
    from torchvision.datasets import FashionMNIST

    for facts in DATASETS.values():
        assert len(set(facts.names)) in (0, facts.classes)
    names = DATASETS["fashion_mnist"].names
    assert all(own.lower().startswith(name.lower()) for own, name in zip(FashionMNIST.classes, names, strict=True))
    assert [DATASETS[name].called(3) for name in ("cifar10", "mnist")] == ["3 (cat)", "3"]


# ---- smallNORB's own reader


def test_a_matrix_has_the_official_header():
    """Byte for byte, as the authors' page describes it: 0x1E3D4C55 is of bytes, 0x1E3D4C54 of integers; three dimensions."""
    assert norb_matrix(np.array([7, 258], dtype=np.int32)).hex(" ", 4) == (
        "544c3d1e 01000000 02000000 01000000 01000000 07000000 02010000"
    )
    header = norb_matrix(np.zeros((3, 2, 96, 96), dtype=np.uint8))[:24]
    assert header.hex(" ", 4) == "554c3d1e 04000000 03000000 02000000 60000000 60000000"


def test_packed_files_are_read_alike(tmp_path, cpu):
    digests = set()
    for packed in (False, True):
        with small("smallnorb", tmp_path / str(packed), packed=packed):
            digests.add(read(config_of("smallnorb"), tmp_path / str(packed), cpu).digest)
    assert len(digests) == 1


def test_halved_is_the_rounded_mean_of_every_2x2():
    images = np.random.default_rng(0).integers(0, 256, (1003, 2, 6, 4), dtype=np.uint8)
    images[0] = 255
    found = halved(images)
    exact = images.astype(float).reshape(1003, 2, 3, 2, 2, 2).mean(axis=(3, 5)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, np.floor(exact + 0.5))
    assert found.dtype == np.uint8


def test_absent_norb_files_are_all_named_with_where_to_get_them(tmp_path, cpu):
    message = refused("smallnorb", tmp_path, cpu)
    assert str(tmp_path / "smallNORB") in message
    for start in SMALLNORB:
        for kind in ("dat", "cat"):
            assert f"{start}-{kind}.mat" in message
    assert "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/" in message
    assert "CAPSNET_DATA or --data" in message
    with small("smallnorb", tmp_path) as (place, _):
        (place / f"{SMALLNORB[1]}-cat.mat").unlink()
        assert f"missing: {SMALLNORB[1]}-cat.mat, each" in refused("smallnorb", tmp_path, cpu)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["dat", "cat"])
def test_a_broken_norb_file_is_refused_by_name(tmp_path, cpu, kind, packed):
    with small("smallnorb", tmp_path, packed=packed) as (place, _):
        path = place / f"{SMALLNORB[0]}-{kind}.mat{'.gz' * packed}"
        content = path.read_bytes()
        for left in (0, 3, 12, 21, -1):
            path.write_bytes(content[:left])
            message = refused("smallnorb", tmp_path, cpu)
            assert path.name in message
            assert "download it again" in message
        path.write_bytes(content[:-9] + bytes(byte ^ 0x55 for byte in content[-9:]) if packed else content + b"1")
        assert path.name in refused("smallnorb", tmp_path, cpu)


def test_another_matrix_is_no_part_of_smallnorb(tmp_path, cpu):
    with small("smallnorb", tmp_path) as (place, _):
        images, labels = (place / f"{SMALLNORB[0]}-{kind}.mat" for kind in ("dat", "cat"))
        content = images.read_bytes()
        for place_of_byte in range(24):
            images.write_bytes(content[:place_of_byte] + bytes([content[place_of_byte] ^ 2]) + content[place_of_byte + 1 :])
            assert "as smallNORB's binary matrix 40x2x96x96 does" in refused("smallnorb", tmp_path, cpu)
        images.write_bytes(labels.read_bytes())
        message = refused("smallnorb", tmp_path, cpu)
        assert "begins with the bytes 544c3d1e 01000000 28000000" in message
        images.write_bytes(content)
        labels.write_bytes(norb_matrix(np.full(40, 5, dtype=np.int32)))
        assert "hold labels of 5 to 5, not of 0 to 4" in refused("smallnorb", tmp_path, cpu)


# ---- patches


@pytest.mark.parametrize("dataset", ["cifar10", "smallnorb"])
def test_validation_and_test_show_the_middle_and_training_all(dataset, tmp_path, cpu, offline):
    with small(dataset, tmp_path) as (_, (_, _, test_images, _)):
        whole = read(config_of(dataset, augmentation="none"), tmp_path, cpu)
        cropped = read(config_of(dataset, augmentation="crop(size=24)"), tmp_path, cpu)
        assert config_of(dataset, augmentation="crop(size=24)").shape == cropped.test.images.shape[1:]
    edge = (test_images.shape[2] - 24) // 2
    middle = (..., slice(edge, edge + 24), slice(edge, edge + 24))
    assert torch.equal(cropped.test.images, torch.tensor(test_images[middle]))
    assert torch.equal(cropped.validation.images, whole.validation.images[middle])
    assert cropped.test.images.is_contiguous()
    assert torch.equal(cropped.training.images, whole.training.images)
    assert cropped.digest == whole.digest, "of the data set, not of what is seen of it"


@pytest.mark.parametrize(("dataset", "size"), [("cifar10", 24), ("smallnorb", 32)])
def test_a_network_learns_from_patches(tiny, dataset, size, tmp_path, cpu, offline):
    """A tiny one, with none of the above; chance is 90 and 80 %."""
    changes = {"train_size": 0, "validation_size": 0, "epochs": 12, "batch_size": 10, "primary_stride": 3}
    with small(dataset, tmp_path, training=100):
        config = tiny(dataset=dataset, augmentation=f"crop(size={size})", none_of_the_above=True, **changes)
        data, state = read(config, tmp_path, cpu), TrainingState(config, cpu)
        history = list(train(state, data))
    assert history[-1].train_loss < history[0].train_loss / 2
    assert evaluate(state.model, data.test, 100).error <= 20
    images = data.test.batch(slice(0, 4))
    made = state.model.reconstruct(state.model.encode(images), data.test.labels[:4])
    assert made.shape == images.shape == (4, DATASETS[dataset].shape[0], size, size)
