"""Test sets made of a data set's own test images: each kind against an oracle, and what holds for all of them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from capsnet import further, test_sets
from capsnet.config import make_config
from capsnet.corruptions import CORRUPTIONS
from capsnet.data import Split, read
from capsnet.errors import InputError
from capsnet.models import Network

SIDE = 21
LEVELS = {
    "blurred": 12,
    "dimmed": 40,
    "noisy": 20,
    "occluded": 5,
    "rotated": 30,
    "scaled": 80,
    "sheared": 25,
    "shifted": 3,
}
NOBODY = Network(make_config({}, "here"))  # whom no corruption asks
NAMES = [f"{kind}_{level}" for kind, level in LEVELS.items()]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """60 images with a soft blob somewhere, and not the same one upside down or mirrored."""
    random = np.random.default_rng(5)
    made = np.zeros((60, 1, SIDE, SIDE), np.float32)
    for image in made:
        image[0, 7:12, 8:11], image[0, 11:13, 8:15] = 255, 160
    made = ndimage.gaussian_filter(made, 0.7, axes=(2, 3)) + random.uniform(0, 20, made.shape)
    return torch.from_numpy(made.clip(0, 255).round().astype(np.uint8))


def turned(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """By scipy: each (row, column) from the middle goes to the matrix times it; black outside."""
    back, middle = np.linalg.inv(np.array(matrix)), (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image.astype(float), back, middle - back @ middle, order=1, mode="grid-constant", output=float
    )


def nearest(image: torch.Tensor, candidates: list[np.ndarray]) -> int:
    """Which of the candidates an image is: to within a level of brightness."""
    off = [np.abs(image.numpy().astype(float) - candidate).max() for candidate in candidates]
    assert min(off) <= 1.01, off
    return int(np.argmin(off))


def test_levels_are_tried_of_every_kind():
    assert LEVELS.keys() == CORRUPTIONS.keys()
    assert all(LEVELS[kind] in made.levels for kind, made in CORRUPTIONS.items())


def test_images_are_rotated_to_either_side(images):
    angle = np.radians(30)
    cos, sin = np.cos(angle), np.sin(angle)
    ways = []
    for made, image in zip(further.corrupted(images, "rotated_30")[:, 0], images[:, 0], strict=True):
        candidates = [turned(image.numpy(), [[cos, s * sin], [-s * sin, cos]]) for s in (1, -1)]
        ways.append(nearest(made, candidates))
    assert 15 <= sum(ways) <= 45


def test_images_are_sheared_to_either_side(images):
    ways = []
    for made, image in zip(further.corrupted(images, "sheared_25")[:, 0], images[:, 0], strict=True):
        ways.append(nearest(made, [turned(image.numpy(), [[1, 0], [s * 0.25, 1]]) for s in (1, -1)]))
    assert 15 <= sum(ways) <= 45


@pytest.mark.parametrize("level", [80, 130])
def test_images_are_scaled_about_their_middle(images, level):
    for made, image in zip(further.corrupted(images, f"scaled_{level}")[:, 0], images[:, 0], strict=True):
        nearest(made, [turned(image.numpy(), [[level / 100, 0], [0, level / 100]])])


def test_images_are_moved_in_four_ways_by_whole_pixels(images):
    ways = []
    for made, image in zip(further.corrupted(images, "shifted_3")[:, 0], images[:, 0], strict=True):
        candidates = [ndimage.shift(image.numpy(), way, order=0) for way in ((-3, 0), (3, 0), (0, -3), (0, 3))]
        [way] = [i for i, candidate in enumerate(candidates) if np.array_equal(made.numpy(), candidate)]
        ways.append(way)
    assert np.bincount(ways, minlength=4).min() >= 5


def test_noise_has_its_deviation_and_no_mean_and_grows_with_its_level():
    grey = torch.full((200, 2, 16, 16), 127, dtype=torch.uint8)
    ten, twenty = (further.corrupted(grey, f"noisy_{level}").double() - 127 for level in (10, 20))
    assert abs(ten.mean()) < 0.5
    assert_close(ten.std().item(), 25.5, rtol=0.01, atol=0)
    inside = twenty.abs() < 126
    assert_close(twenty[inside], 2 * ten[inside], rtol=0, atol=1.5)
    assert not torch.equal(ten[:, 0], ten[:, 1]), "each channel has its own"
    black = further.corrupted(torch.zeros(50, 1, 8, 8, dtype=torch.uint8), "noisy_10")
    assert_close((black == 0).double().mean().item(), 0.5, rtol=0, atol=0.03)  # what is below black is cut off


def test_a_blurred_point_has_the_variance_of_its_gaussian():
    point = torch.zeros(1, 1, 31, 31, dtype=torch.uint8)
    point[0, 0, 13:18, 13:18] = 250  # 5 x 5: variance 2 in each direction
    made = further.corrupted(point, "blurred_20")[0, 0].double()
    assert_close(made.sum().item(), 25 * 250.0, rtol=0.02, atol=0)
    away = (torch.arange(31) - 15.0).double() ** 2
    for direction in (0, 1):
        assert_close((made.sum(1 - direction) * away).sum().item() / made.sum().item(), 2 + 2.0**2, rtol=0.05, atol=0)
    flat = torch.full((2, 3, 9, 9), 200, dtype=torch.uint8)
    assert torch.equal(further.corrupted(flat, "blurred_30"), flat), "nothing dark comes in from beyond the edge"


def test_a_square_is_black_and_may_be_anywhere_within_the_image():
    white = torch.full((2000, 3, 9, 11), 255, dtype=torch.uint8)
    made = further.corrupted(white, "occluded_4")
    black = made == 0
    assert set(made.unique().tolist()) == {0, 255}
    assert torch.equal(black[:, 0], black[:, 2]), "the same in all channels"
    rows, columns = black[:, 0].any(dim=2), black[:, 0].any(dim=1)
    assert (rows.sum(1) == 4).all()
    assert (columns.sum(1) == 4).all()
    assert (black[:, 0].sum((1, 2)) == 16).all()
    corners = {(int(r.int().argmax()), int(c.int().argmax())) for r, c in zip(rows, columns, strict=True)}
    assert corners == {(row, column) for row in range(6) for column in range(8)}


def test_dimmed_images_have_a_share_of_their_brightness(images):
    assert torch.equal(further.corrupted(images, "dimmed_40"), (images.double() * 0.4).round().to(torch.uint8))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_images_come_out_every_time_whatever_is_made_at_once(images, name, monkeypatch):
    before = torch.get_rng_state()
    made = further.corrupted(images, name)
    assert made.dtype == torch.uint8
    assert made.shape == images.shape
    assert not torch.equal(made, images)
    assert torch.equal(further.corrupted(images, name), made)
    assert torch.equal(torch.get_rng_state(), before), "a run's own random numbers are left alone"
    several = further.corrupted(torch.cat([255 - images, images], dim=1), name)
    assert several.shape == (60, 2, SIDE, SIDE)
    if not name.startswith("noisy"):
        assert torch.equal(several[:, 1], made[:, 0]), "a channel is its own"
    for size in (7, 60):
        monkeypatch.setattr(further, "CHUNK", size)
        assert torch.equal(further.corrupted(images, name), made)


def way(made: torch.Tensor, image: torch.Tensor, kind: str, level: int) -> int:
    """Which way an image went."""
    if kind == "shifted":
        ways = ((-level, 0), (level, 0), (0, -level), (0, level))
        [found] = [i for i, by in enumerate(ways) if np.array_equal(made.numpy(), ndimage.shift(image.numpy(), by, order=0))]
        return found
    cos, sin, lean = np.cos(np.radians(level)), np.sin(np.radians(level)), level / 100
    matrices = {"rotated": lambda s: [[cos, s * sin], [-s * sin, cos]], "sheared": lambda s: [[1, 0], [s * lean, 1]]}
    return nearest(made, [turned(image.numpy(), matrices[kind](s)) for s in (1, -1)])


@pytest.mark.parametrize("kind", ["rotated", "sheared", "shifted"])
def test_an_image_goes_the_same_way_at_every_level(images, kind):
    """So that a larger level is more of the same."""
    ways = []
    for level in (2, 3, 6):
        made = zip(further.corrupted(images, f"{kind}_{level}")[:, 0], images[:, 0], strict=True)
        ways.append([way(m, i, kind, level) for m, i in made])
    assert ways[0] == ways[1] == ways[2]


def test_a_square_is_about_the_same_place_at_every_level():
    white = torch.full((50, 1, 20, 20), 255, dtype=torch.uint8)
    small, large = (further.corrupted(white, f"occluded_{level}")[:, 0] == 0 for level in (1, 10))
    middle = [np.argwhere(each.numpy()).reshape(50, -1, 3)[:, :, 1:].mean(1) for each in (small, large)]
    share = (middle[0] / 19, (middle[1] - 4.5) / 10)
    assert np.abs(share[0] - share[1]).max() < 0.11


@pytest.mark.parametrize("name", NAMES)
def test_of_few_images_each_is_drawn_several_times_and_of_many_once(images, name):
    split = Split(images, torch.arange(60))
    made, _ = further.split(name, Path("nowhere"), split, NOBODY)
    often = 67 if CORRUPTIONS[test_sets.kind(name)].drawn else 1  # 4,000 images at least
    assert len(made) == 60 * often
    assert torch.equal(made.labels.reshape(often, 60), torch.arange(60).expand(often, 60))
    copies = made.images.unflatten(0, (often, 60))
    assert torch.equal(copies[0], further.corrupted(images, name))
    assert often == 1 or not torch.equal(copies[1], copies[0])
    assert [test_sets.times(name, count) for count in (3_999, 4_000, 10_000)] == [1 + (often > 1), 1, 1]
    two, _ = further.split(name, Path("nowhere"), Split(images, torch.arange(120).reshape(60, 2)), NOBODY)
    assert two.labels[-1].tolist() == [118, 119]


def test_a_levels_range_is_that_of_its_error():
    for kind, made in CORRUPTIONS.items():
        least, most = made.levels[0], made.levels[-1]
        assert make_config({"test_sets": [f"{kind}_{least}"]}, "here")
        with pytest.raises(InputError, match=f"{least} to {most}"):
            make_config({"test_sets": [f"{kind}_{most + 1}"]}, "here")
    assert {kind: (made.levels[0], made.levels[-1]) for kind, made in CORRUPTIONS.items() if not made.inside} == {
        "blurred": (1, 100),
        "dimmed": (1, 99),
        "noisy": (1, 200),
        "rotated": (1, 180),
        "scaled": (10, 300),
        "sheared": (1, 100),
    }


def test_both_ends_of_every_level_can_be_made():
    few = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for kind, made in CORRUPTIONS.items():
        for level in (made.levels[0], 27 if made.inside else made.levels[-1]):
            assert further.corrupted(few, f"{kind}_{level}").shape == few.shape


def test_a_test_set_keeps_the_labels_and_has_a_digest_of_what_it_is_made_of():
    config = make_config({"dataset": "digits", "conv_kernel": 5, "primary_kernel": 5, "validation_size": 100}, "here")
    test = read(config, Path("nowhere"), torch.device("cpu")).test
    made, digest = further.split("rotated_30", Path("nowhere"), test, NOBODY)
    assert torch.equal(made.labels, test.labels.repeat(12))
    assert torch.equal(made.images[:360], further.corrupted(test.images, "rotated_30"))
    wanted = hashlib.sha256(b"rotated_30" + test.images.numpy().tobytes() + test.labels.numpy().tobytes()).hexdigest()
    assert digest == wanted
    assert further.split("rotated_31", Path("nowhere"), test, NOBODY)[1] != digest
    other = Split(test.images.clone(), test.labels)
    other.images[0, 0, 0, 0] += 1
    assert further.split("rotated_30", Path("nowhere"), other, NOBODY)[1] != digest


def test_of_a_crop_the_patch_is_corrupted():
    values = {"dataset": "digits", "augmentation": "crop(size=12)", "conv_kernel": 3, "primary_kernel": 3}
    config = make_config({**values, "validation_size": 100, "test_sets": ["occluded_11"]}, "here")
    test = read(config, Path("nowhere"), torch.device("cpu")).test
    made, _ = further.split("occluded_11", Path("nowhere"), test, NOBODY)
    assert made.images.shape == (12 * 360, 1, 12, 12)
    with pytest.raises(InputError, match="occluded_12 would leave nothing of the 12x12 images"):
        make_config({**values, "validation_size": 100, "test_sets": ["occluded_12"]}, "here")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rotatd_30", "unknown test set 'rotatd_30'; did you mean 'rotated_N'?"),
        ("rotated", "unknown test set 'rotated'; did you mean 'rotated_N'?"),
        ("rotated_0", "unknown test set 'rotated_0': after rotated_ stands how many degrees, 1 to 180 (in"),
        ("rotated_030", "unknown test set 'rotated_030': after rotated_ stands how many degrees, 1 to 180 (in"),
        ("rotated_1.5", "unknown test set 'rotated_1.5': after rotated_ stands how many degrees, 1 to 180 (in"),
        ("rotated_3\u0660", "after rotated_ stands how many degrees, 1 to 180 (in"),
        ("rotated_181", "unknown test set 'rotated_181': after rotated_ stands how many degrees, 1 to 180 (in"),
        ("rotated_99999", "unknown test set 'rotated_99999': after rotated_ stands how many degrees, 1 to 180 (in"),
        ("dimmed_100", "unknown test set 'dimmed_100': after dimmed_ stands how many % of brightness, 1 to 99 (in"),
        ("scaled_100", "unknown test set 'scaled_100': after scaled_ stands how many % of its size, 10 to 300 but 100 (in"),
        ("fgsn_8", "unknown test set 'fgsn_8'; did you mean 'fgsm_N'?"),
        ("fgsm_0", "unknown test set 'fgsm_0': after fgsm_ stands how many 255ths of white, 1 to 255 (in"),
        ("pgd_256", "unknown test set 'pgd_256': after pgd_ stands how many 255ths of white, 1 to 255 (in"),
        ("shifted_28", "test set shifted_28 would leave nothing of the 28x28 images"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, said):
    with pytest.raises(InputError) as caught:
        make_config({"test_sets": [name]}, "here")
    assert said in str(caught.value)
    assert "here" in str(caught.value)


def test_names_stand_in_the_order_of_their_levels():
    ordered = ["affnist", "noisy_5", "noisy_10", "noisy_100", "rotated_15"]
    assert test_sets.in_order([*reversed(ordered), "noisy_5"]) == ordered
    assert make_config({"test_sets": ordered[1:]}, "here").test_sets == tuple(ordered[1:])
    assert make_config({"test_sets": ["noisy_10", "noisy_5"]}, "here") == make_config(
        {"test_sets": ["noisy_5", "noisy_10"]}, "here"
    )
    with pytest.raises(InputError, match="must name each once"):
        make_config({"test_sets": ["noisy_5", "noisy_5"]}, "here")


def test_what_is_told_of_a_test_set_names_its_level():
    assert test_sets.origin("occluded_5") == "its test images, each with a black square of 5x5 pixels"
    assert test_sets.kind("occluded_5") == "occluded"
    assert test_sets.kind("affnist_generated") == "affnist_generated"
    assert all(f"{name}_N" in test_sets.listed() for name in [*CORRUPTIONS, "fgsm", "pgd"])
