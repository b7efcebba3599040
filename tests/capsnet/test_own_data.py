"""Data sets of one's own files: read in a fixed order, refused in one line with the file, registered by what is printed."""

import dataclasses
import itertools
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capsnet.verified
from capsnet import own_data, own_files
from capsnet.config import RunConfig
from capsnet.data import read
from capsnet.errors import InputError
from capsnet.own_data import facts_of, image_folder, lines, npz
from capsnet.registry import DATASETS, DatasetFacts

COUNTS = {"train": {"ant": 3, "bee": 12}, "test": {"ant": 2, "bee": 1}}  # of twelve, 10.png comes before 2.png
RANDOM = np.random.default_rng(0)


def written(folder, shape=(6, 7), counts=COUNTS, suffix="png"):
    """Class folders, the later ones first, with random images; part -> images and labels in the order that they are read in."""
    expected = {}
    for part, classes in counts.items():
        found = []
        for label, (name, count) in reversed([*enumerate(classes.items())]):
            place = folder / part / name
            place.mkdir(parents=True)
            for file in reversed(range(count)):
                pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{file}.{suffix}")
                found.append((label, f"{file}.{suffix}", pixels))
        found.sort(key=lambda each: each[:2])
        expected[part] = np.stack([pixels for *_, pixels in found]), [label for label, *_ in found]
    return [*expected.values()]


def arrays(folder, **changes):
    """mine.npz, of two classes, with these arrays instead; None leaves one out."""
    held = {"train_images": RANDOM.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8), "train_labels": np.array([0, 1] * 3)}
    held |= {"test_images": RANDOM.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8), "test_labels": np.array([1, 0], np.uint8)}
    held = {name: array for name, array in {**held, **changes}.items() if array is not None}
    np.savez(folder / "mine.npz", **held)
    return held


@pytest.fixture
def register(monkeypatch):
    """(facts, reader) -> the data set "mine" is there."""

    def enter(facts, reader):
        monkeypatch.setitem(DATASETS, "mine", dataclasses.replace(facts, loader="capsnet.own_data:mine"))
        monkeypatch.setattr(own_data, "mine", partial(reader, "mine"), raising=False)
        capsnet.verified.whole.cache_clear()

    yield enter
    capsnet.verified.whole.cache_clear()


GREY = DatasetFacts((1, 6, 7), 2, 15, 3, "")
COLOURED = DatasetFacts((3, 6, 7), 2, 15, 3, "")
HELD = DatasetFacts((3, 5, 4), 2, 6, 2, "")


def refused(reader, folder):
    with pytest.raises(InputError) as caught:
        reader("mine", folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


# ---- folders of images


@pytest.mark.parametrize(("shape", "facts"), [((6, 7), GREY), ((6, 7, 3), COLOURED)])
def test_images_and_classes_are_read_in_the_order_of_their_names(tmp_path, register, shape, facts):
    expected = written(tmp_path / "mine", shape)
    register(facts, image_folder)
    for (images, labels), (wanted, classes) in zip(image_folder("mine", tmp_path), expected, strict=True):
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, wanted)
        assert labels.tolist() == classes


def test_the_registry_says_whether_images_are_grey(tmp_path, register):
    (wanted, _), _ = written(tmp_path / "mine", (6, 7, 3))
    register(GREY, image_folder)
    (images, _), _ = image_folder("mine", tmp_path)
    weights = [0.299, 0.587, 0.114]  # ITU-R 601-2, which Pillow says that it takes
    assert np.abs(images - wanted @ weights).max() <= 1
    grey = written(tmp_path / "two" / "mine", (6, 7))
    register(COLOURED, image_folder)
    (images, _), _ = image_folder("mine", tmp_path / "two")
    np.testing.assert_array_equal(images, np.repeat(grey[0][0][..., None], 3, axis=3))


def test_jpegs_are_read_and_hidden_files_are_not(tmp_path, register):
    written(tmp_path / "mine", (6, 7, 3), suffix="JPG")
    for place in (".cache", "train/.DS_Store", "train/ant/.DS_Store"):
        (tmp_path / "mine" / place).touch()
    (tmp_path / "mine" / "train" / "labels.txt").touch()
    register(COLOURED, image_folder)
    (images, _), (test, _) = image_folder("mine", tmp_path)
    assert (images.shape, test.shape) == ((15, 6, 7, 3), (3, 6, 7, 3))


def test_a_data_set_of_images_is_read_like_any_other(tmp_path, register, cpu):
    _, (test, labels) = written(tmp_path / "mine", (12, 12, 3))
    register(dataclasses.replace(COLOURED, shape=(3, 12, 12)), image_folder)
    config = RunConfig(dataset="mine", validation_size=5, conv_kernel=3, primary_kernel=3, augmentation="none")
    data = read(config, tmp_path, cpu)
    np.testing.assert_array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), test)
    assert data.test.labels.tolist() == labels
    assert (len(data.training), len(data.validation)) == (10, 5)
    assert data.validation.labels.tolist().count(0) == 1


def test_what_is_missing_of_a_folder_is_named(tmp_path, register):
    register(GREY, image_folder)
    message = refused(image_folder, tmp_path)
    assert f"there is no folder {tmp_path / 'mine'};" in message
    assert "CAPSNET_DATA or --data" in message
    (tmp_path / "mine").mkdir()
    for missing in ("train", "test"):
        assert f"there is no folder {tmp_path / 'mine' / missing};" in refused(image_folder, tmp_path)
        written(tmp_path / "mine", counts={missing: COUNTS[missing]})
    image_folder("mine", tmp_path)
    (tmp_path / "empty" / "mine" / "train").mkdir(parents=True)
    assert "has no folder of a class" in refused(image_folder, tmp_path / "empty")


@pytest.mark.parametrize("name", ["loose.png", "LOOSE.JPG", "broken.jpeg"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_beside_the_folders_of_classes_is_refused_by_name(tmp_path, register, part, name):
    """Its class is unknown, and it would be missing without a word."""
    written(tmp_path / "mine")
    (tmp_path / "mine" / part / f".{name}").touch()
    register(GREY, image_folder)
    image_folder("mine", tmp_path)
    loose = tmp_path / "mine" / part / name
    loose.touch()
    assert refused(image_folder, tmp_path) == f"{loose} is in no folder of a class; move it into one, or out of {part}"


def test_an_empty_class_is_refused_by_name(tmp_path, register):
    written(tmp_path / "mine")
    (tmp_path / "mine" / "test" / "cow").mkdir()
    register(GREY, image_folder)
    assert f"class cow is empty: there is no image in {tmp_path / 'mine' / 'test' / 'cow'}" in refused(image_folder, tmp_path)


def test_classes_of_one_part_alone_are_named(tmp_path, register):
    counts = {"train": {"ant": 1, "bee": 1, "cow": 1}, "test": {"ant": 1, "dog": 1}}
    written(tmp_path / "mine", counts=counts)
    register(GREY, image_folder)
    message = refused(image_folder, tmp_path)
    assert message.endswith("different classes: only train has bee, cow; only test has dog")


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_of_different_sizes_are_refused_with_both(tmp_path, register, part):
    written(tmp_path / "mine")
    odd = tmp_path / "mine" / part / "bee" / "0.png"
    Image.new("L", (7, 8)).save(odd)
    register(GREY, image_folder)
    message = refused(image_folder, tmp_path)
    assert message == f"{odd} has 7x8 pixels (width x height), and {tmp_path / 'mine' / 'train' / 'ant' / '0.png'} 7x6"


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "LA", "CMYK", "P"])
def test_pixels_that_are_no_bytes_of_grey_or_rgb_are_refused(tmp_path, register, mode):
    """Rather than converted, by which 16 bits were cut off and what is transparent became some colour."""
    written(tmp_path / "mine")
    path = tmp_path / "mine" / "train" / "bee" / f"3.{'jpg' if mode == 'CMYK' else 'png'}"
    path.unlink(missing_ok=True)
    Image.new(mode, (7, 6)).save(path, **({"transparency": 0} if mode == "P" else {}))
    register(GREY, image_folder)
    assert f"{path} is of Pillow's mode {mode}" in refused(image_folder, tmp_path)


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path, register):
    written(tmp_path / "mine", (60, 70))
    register(dataclasses.replace(GREY, shape=(1, 60, 70)), image_folder)
    path = tmp_path / "mine" / "train" / "ant" / "1.png"
    content = path.read_bytes()
    for left in (0, 20, len(content) // 2):
        path.write_bytes(content[:left])
        assert f"{path} can't be read as an image: " in refused(image_folder, tmp_path)
    path.rename(path.with_suffix(".gif"))
    assert f"{path.with_suffix('.gif')} is none of .png, .jpg, .jpeg" in refused(image_folder, tmp_path)


def test_what_the_registry_says_otherwise_is_named_with_what_prints_the_right_line(tmp_path, register):
    written(tmp_path / "mine")
    register(DatasetFacts((1, 7, 6), 3, 15, 4, ""), image_folder)
    message = refused(image_folder, tmp_path)
    assert "shape (1, 6, 7), not (1, 7, 6); classes 2, not 3; test_images 3, not 4; " in message
    assert f"python -m capsnet.own_data {tmp_path / 'mine'} prints" in message
    register(dataclasses.replace(GREY, names=("ant", "wasp")), image_folder)
    assert "says of mine: names ('ant', 'bee'), not ('ant', 'wasp'); " in refused(image_folder, tmp_path)
    register(dataclasses.replace(HELD, names=("ant", "wasp")), npz)  # whose arrays tell no names
    arrays(tmp_path)
    assert len(npz("mine", tmp_path)) == 2
    register(dataclasses.replace(GREY, shape=(2, 6, 7)), image_folder)
    assert "1 or 3 channels, and the registry says 2" in refused(image_folder, tmp_path)


# ---- arrays in a file


def test_arrays_are_read_as_they_are(tmp_path, register, cpu):
    held = arrays(tmp_path)
    register(HELD, npz)
    (images, labels), (test, test_labels) = npz("mine", tmp_path)
    for found, name in (
        (images, "train_images"),
        (labels, "train_labels"),
        (test, "test_images"),
        (test_labels, "test_labels"),
    ):
        np.testing.assert_array_equal(found, held[name])
    config = RunConfig(dataset="mine", validation_size=2, conv_kernel=2, primary_kernel=2, augmentation="none")
    assert read(config, tmp_path, cpu).test.images.shape == (2, 3, 5, 4)


def test_an_axis_of_one_channel_is_none(tmp_path, register, cpu):
    plain = {
        name: RANDOM.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        for name, count in (("train_images", 6), ("test_images", 2))
    }
    arrays(tmp_path, **{name: images[..., None] for name, images in plain.items()})
    register(dataclasses.replace(HELD, shape=(1, 5, 4)), npz)
    (images, _), (test, _) = npz("mine", tmp_path)
    np.testing.assert_array_equal(images, plain["train_images"])
    np.testing.assert_array_equal(test, plain["test_images"])
    config = RunConfig(dataset="mine", validation_size=2, conv_kernel=2, primary_kernel=2, augmentation="none")
    assert read(config, tmp_path, cpu).test.images.shape == (2, 1, 5, 4)


def test_a_file_or_an_array_that_is_missing_is_named(tmp_path, register):
    register(HELD, npz)
    message = refused(npz, tmp_path)
    assert f"there is no file {tmp_path / 'mine.npz'}" in message
    assert "CAPSNET_DATA or --data" in message
    arrays(tmp_path, test_labels=None, train_labels=None, labels=np.zeros(3))
    assert "lacks train_labels, test_labels; it has train_images, test_images, labels" in refused(npz, tmp_path)


def test_a_broken_file_is_named(tmp_path, register):
    register(HELD, npz)
    arrays(tmp_path)
    path = tmp_path / "mine.npz"
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0].header_offset + 200
    single = tmp_path / "one.npy"
    np.save(single, np.zeros(3))
    flipped = content[:first] + bytes([content[first] ^ 1]) + content[first + 1 :]
    np.savez_compressed(tmp_path / "packed.npz", **{name: np.zeros((6, 5), np.uint8) for name in own_files.ARRAYS})
    packed = (tmp_path / "packed.npz").read_bytes()
    start = packed.index(b"train_images.npy") + 40
    packed = packed[:start] + b"\x07" * 3 + packed[start + 3 :]
    for bad in (packed, b"", b"no numbers", content[: len(content) // 2], flipped, single.read_bytes()):
        path.write_bytes(bad)
        assert f"{path} can't be read: " in refused(npz, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"train_images": np.zeros((6, 5, 4, 3))},
            "train_images are float64 of shape (6, 5, 4, 3), not bytes (uint8) of shape",
        ),
        ({"test_images": np.zeros((2, 20), np.uint8)}, "test_images are uint8 of shape (2, 20), not bytes"),
        ({"train_images": np.zeros((0, 5, 4, 3), np.uint8)}, "train_images are uint8 of shape (0, 5, 4, 3)"),
        ({"train_labels": np.zeros(6)}, "train_labels are float64 of shape (6,), not 6 whole numbers"),
        ({"test_labels": np.array([0, 1, 1])}, "test_labels are int64 of shape (3,), not 2 whole numbers"),
        ({"train_labels": np.array([0, 1, -1, 0, 1, 0])}, "train_labels begin at -1, not at 0"),
        ({"train_labels": np.array([0, 10**12, 2, 0, 1, 0])}, "class 3 is empty: "),
        ({"train_labels": np.array([1, 2, 2, 1, 1, 2])}, "class 0 is empty: "),
        ({"test_labels": np.array([1, 2])}, "only train has 0; only test has 2"),
        ({"test_images": np.zeros((2, 5, 5, 3), np.uint8)}, "different sizes: train_images 5x4x3 and test_images 5x5x3"),
        ({"train_images": np.array([None] * 6)}, "can't be read: "),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, register, changes, said):
    arrays(tmp_path, **changes)
    register(HELD, npz)
    message = refused(npz, tmp_path)
    assert said in message
    assert str(tmp_path / "mine.npz") in message


def test_arrays_that_the_registry_describes_otherwise(tmp_path, register):
    arrays(tmp_path)
    register(dataclasses.replace(HELD, training_images=7), npz)
    assert "training_images 6, not 7; " in refused(npz, tmp_path)


# ---- the lines of a data set


@pytest.mark.parametrize("kind", ["image_folder", "npz"])
def test_the_lines_that_are_printed_register_what_is_read(tmp_path, register, cpu, kind):
    written(tmp_path / "mine", (6, 7, 3)) if kind == "image_folder" else arrays(tmp_path)
    place = tmp_path / ("mine" if kind == "image_folder" else "mine.npz")
    words = [sys.executable, "-m", "capsnet.own_data", str(place)]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert tuple(done.stdout.splitlines()) == lines(place)
    named, registered = lines(place)
    assert named == f'mine = partial({kind}, "mine")'
    found = eval("{" + registered + "}", {"DatasetFacts": DatasetFacts})
    assert found["mine"].names == (("ant", "bee") if kind == "image_folder" else ())
    register(found["mine"], getattr(own_data, kind))
    config = RunConfig(dataset="mine", validation_size=2, conv_kernel=2, primary_kernel=2, augmentation="none")
    assert read(config, tmp_path, cpu).digest == found["mine"].digest
    assert facts_of(getattr(own_data, kind)("mine", tmp_path)) == dataclasses.replace(
        found["mine"], loader="", digest="", names=()
    )


def test_names_of_classes_may_be_any_text_and_numbers_in_their_order_are_none(tmp_path):
    names = ('Caf\u00e9 "au lait"', "it's", "null")
    for part, name in itertools.product(("train", "test"), names):
        (tmp_path / "odd" / part / name).mkdir(parents=True)
        Image.new("L", (7, 6)).save(tmp_path / "odd" / part / name / "0.png")
    assert eval("{" + lines(tmp_path / "odd")[1] + "}", {"DatasetFacts": DatasetFacts})["odd"].names == names
    for part, number in itertools.product(("train", "test"), range(11)):
        (tmp_path / "numbers" / part / str(number)).mkdir(parents=True)
        Image.new("L", (7, 6)).save(tmp_path / "numbers" / part / str(number) / "0.png")
    assert '("0", "1", "10", "2",' in lines(tmp_path / "numbers")[1]  # the folder 10 holds class 2
    for part in ("train", "test"):
        shutil.rmtree(tmp_path / "numbers" / part / "10")
    assert "names" not in lines(tmp_path / "numbers")[1]


def test_grey_images_are_registered_as_such_and_a_name_that_is_no_pythons_gets_one(tmp_path):
    written(tmp_path / "my-ants")
    named, registered = lines(tmp_path / "my-ants")
    assert named == 'my_ants = partial(image_folder, "my-ants")'
    assert registered.startswith('"my-ants": DatasetFacts((1, 6, 7), 2, 15, 3, "capsnet.own_data:my_ants", "')
    Image.new("RGB", (7, 6)).save(tmp_path / "my-ants" / "test" / "bee" / "0.png")
    assert "(3, 6, 7)" in lines(tmp_path / "my-ants")[1]


def test_nothing_to_register_is_the_users_fault(tmp_path):
    words = [sys.executable, "-m", "capsnet.own_data", str(tmp_path / "none")]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: there is no {tmp_path / 'none'}; it must be a folder with train/CLASS/*.png")
    (tmp_path / "mine.zip").touch()
    with pytest.raises(InputError, match=r"mine.zip is neither a folder with train/CLASS/\*.png .* nor an .npz file"):
        lines(tmp_path / "mine.zip")


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "x\u00b2", "two\nlines", "caf\u00e9", "3d"])
def test_the_lines_of_any_name_are_python(tmp_path, name):
    written(tmp_path / name)
    named, registered = lines(tmp_path / name)
    held = {"partial": partial, "image_folder": image_folder, "DatasetFacts": DatasetFacts}
    exec(named, held)
    facts = eval("{" + registered + "}", held)[name]
    assert held[facts.loader.removeprefix("capsnet.own_data:")].args == (name,)


def test_two_names_that_differ_in_signs_alone_get_two_loaders(tmp_path, register):
    register(dataclasses.replace(GREY), image_folder)  # mine
    DATASETS["my-set"] = dataclasses.replace(GREY, loader="capsnet.own_data:my_set")
    try:
        written(tmp_path / "my_set")
        assert lines(tmp_path / "my_set")[0] == 'my_set_ = partial(image_folder, "my_set")'
    finally:
        del DATASETS["my-set"]


@pytest.mark.parametrize("name", ["class", "npz", "lines", "DATASETS", "partial", "map", "sorted"])
def test_a_name_that_python_or_the_module_has_gets_another_one(tmp_path, name):
    written(tmp_path / name)
    named, registered = lines(tmp_path / name)
    assert named == f'{name}_ = partial(image_folder, "{name}")'
    assert registered.startswith(f'"{name}": DatasetFacts((1, 6, 7), 2, 15, 3, "capsnet.own_data:{name}_", "')


@pytest.mark.parametrize("kind", ["image_folder", "npz"])
def test_one_class_is_nothing_to_tell_apart(tmp_path, register, kind):
    if kind == "image_folder":
        written(tmp_path / "mine", counts={"train": {"ant": 6}, "test": {"ant": 2}})
    else:
        arrays(tmp_path, train_labels=np.zeros(6, dtype=np.int64), test_labels=np.zeros(2, dtype=np.int64))
    place = tmp_path / ("mine" if kind == "image_folder" else "mine.npz")
    with pytest.raises(InputError, match=f"{place} has one class: there is nothing to tell apart"):
        lines(place)
    register(dataclasses.replace(GREY, classes=1, training_images=6, test_images=2), getattr(own_data, kind))
    with pytest.raises(InputError, match="the data set mine has one class"):
        capsnet.verified.whole("mine", tmp_path)


@pytest.mark.parametrize("name", ["digits", "mnist.npz"])
def test_the_name_of_another_data_set_is_refused(tmp_path, name):
    """Of two equal keys in the registry Python takes the last, and would train on the other in silence."""
    written(tmp_path / "digits")
    arrays(tmp_path)
    (tmp_path / "mine.npz").rename(tmp_path / "mnist.npz")
    with pytest.raises(InputError, match=f"the name {name.removesuffix('.npz')} is taken by .*; rename {tmp_path / name}"):
        lines(tmp_path / name)


def test_lines_are_printed_again_of_a_data_set_that_is_registered(tmp_path, register):
    written(tmp_path / "mine")
    before = lines(tmp_path / "mine")
    register(dataclasses.replace(GREY, loader="capsnet.own_data:mine"), image_folder)
    assert lines(tmp_path / "mine") == before


# ---- a loader written by hand


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "x.bin"),
        ValueError("7 bytes " * 999),
        KeyError("images"),
        zipfile.BadZipFile("x"),
    ],
)
def test_what_a_loader_raises_of_files_is_told_in_one_line_and_its_faults_are_not(tmp_path, register, monkeypatch, cpu, error):
    def loader(name, folder):
        raise error

    register(GREY, loader)
    config = RunConfig(dataset="mine", validation_size=2, conv_kernel=2, primary_kernel=2, augmentation="none")
    with pytest.raises(InputError) as caught:
        read(config, tmp_path, cpu)
    message = str(caught.value)
    assert message.startswith(f"the data set mine can't be read from {tmp_path}: {type(error).__name__}: ")
    assert len(message) < 500
    assert "\n" not in message
    assert caught.value.__cause__ is error
    for fault in (TypeError("unsupported operand"), OSError(28, "No space left on device"), InputError("as the loader says")):
        error = fault
        with pytest.raises(type(fault)) as caught:
            read(config, tmp_path, cpu)
        assert caught.value is fault
