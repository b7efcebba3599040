"""Shifts of training images against a naive loop over images, rows and columns."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from capsnet.augmentation import affine, crop, none, shift


def naive(images, drawn):
    moved = torch.zeros_like(images)
    _, _, height, width = images.shape
    for n, (down, right) in enumerate(drawn.tolist()):
        for row in range(height):
            for column in range(width):
                if 0 <= row - down < height and 0 <= column - right < width:
                    moved[n, :, row, column] = images[n, :, row - down, column - right]
    return moved


@pytest.mark.parametrize("pixels", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_shift_is_a_naive_loop(generator, pixels, channels):
    """Each image its own shift, zeros moving in, all channels alike; images wider than high, with no zero in them."""
    augmentation = shift(pixels=pixels)
    images = torch.rand(40, channels, 5, 7, generator=generator) + 0.5
    drawn = augmentation.draw(40, generator)
    moved = augmentation.apply(images, drawn)
    assert torch.equal(moved, naive(images, drawn))
    assert moved.is_contiguous() or moved.shape == images.shape
    assert len({tuple(d) for d in drawn.tolist()}) > 5, "one shift for the whole batch"


def test_all_25_shifts_occur_about_equally_often(generator):
    drawn = shift(pixels=2).draw(25_000, generator)
    assert drawn.shape == (25_000, 2)
    shifts, counts = drawn.unique(dim=0, return_counts=True)
    assert {tuple(s) for s in shifts.tolist()} == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert (counts - 1000).abs().max() < 150  # 5 standard deviations


def test_a_shift_of_nothing_changes_nothing(generator):
    images = torch.rand(3, 1, 6, 6, generator=generator)
    assert torch.equal(shift(pixels=2).apply(images, torch.zeros(3, 2, dtype=torch.int64)), images)


def test_images_are_not_changed_in_place(generator):
    images = torch.rand(3, 1, 6, 6, generator=generator)
    before = images.clone()
    shift(pixels=2).apply(images, torch.full((3, 2), 2))
    assert torch.equal(images, before)


def test_draws_come_from_the_passed_generator_alone():
    torch.manual_seed(1)
    first = shift(pixels=2).draw(50, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    assert torch.equal(shift(pixels=2).draw(50, torch.Generator().manual_seed(5)), first)
    assert not torch.equal(shift(pixels=2).draw(50, torch.Generator().manual_seed(6)), first)


def test_none_keeps_the_images_and_draws_nothing(generator):
    before = generator.get_state()
    drawn = none().draw(4, generator)
    images = torch.rand(4, 1, 3, 3)
    assert none().apply(images, drawn[:4]) is images
    assert drawn.shape == (4, 0), "it is cut into batches like any other"
    assert torch.equal(generator.get_state(), before)


def test_reach_is_the_number_of_pixels():
    assert (none().reach, shift(pixels=3).reach) == (0, 3)
    with pytest.raises(ValueError, match="write 'none' for no shift"):
        shift(pixels=0)


def matrix_of(angle, shear, taller, wider):
    """Rows first: scale, then shear, then rotate, as the docstring has it."""
    cos, sin = np.cos(angle), np.sin(angle)
    scaled = np.diag([1 + taller, 1 + wider])
    sheared = np.array([[1, 0], [shear, 1]])  # columns move by shear times rows
    rotated = np.array([[cos, sin], [-sin, cos]])
    return rotated @ sheared @ scaled


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 14)], ids=str)
def test_affine_is_scipys_transform_of_each_image(generator, shape):
    augmentation = affine(rotation=40, shear=0.3, scale=0.3, pixels=2)
    images = torch.rand(30, *shape, generator=generator, dtype=torch.float64)
    images[..., [0, -1], :] = images[..., :, [0, -1]] = 0  # at the edge SciPy interpolates towards nothing, torch towards 0
    drawn = augmentation.draw(30, generator).double()
    moved = augmentation.apply(images, drawn)
    middle = (np.array(shape[1:]) - 1) / 2
    for image, (angle, shear, taller, wider, down, right), found in zip(images, drawn.tolist(), moved, strict=True):
        back = np.linalg.inv(matrix_of(angle, shear, taller, wider))
        offset = middle - back @ (middle + np.array([down, right]))
        for channel, mine in zip(image, found, strict=True):
            wanted = affine_transform(channel.numpy(), back, offset, order=1, mode="constant")
            np.testing.assert_allclose(mine.numpy(), wanted, atol=1e-9)
    assert (moved - images).abs().flatten(1).amax(dim=1).min() > 0.1, "each image is moved"


def test_affine_draws_each_range_to_its_ends(generator):
    drawn = affine(rotation=20, shear=0.2, scale=0.1, pixels=3).draw(20_000, generator)
    assert drawn.shape == (20_000, 6)
    limits = torch.tensor([np.pi / 9, 0.2, 0.1, 0.1])
    torch.testing.assert_close(drawn[:, :4].amax(dim=0), limits, rtol=2e-3, atol=0)
    torch.testing.assert_close(drawn[:, :4].amin(dim=0), -limits, rtol=2e-3, atol=0)
    torch.testing.assert_close(drawn[:, :4].std(dim=0), limits / 3**0.5, rtol=0.03, atol=0)
    assert drawn[:, 4:].unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.04, "draws are independent"


def test_affines_defaults_are_affnists_ranges_and_two_pixels():
    named = affine(rotation=20, shear=0.2, scale=0.2, pixels=2)
    assert torch.equal(*(each.draw(50, torch.Generator().manual_seed(5)) for each in (affine(), named)))
    assert affine().reach == named.reach == 2


def test_an_affine_transform_by_nothing_changes_nothing(generator):
    images = torch.rand(3, 1, 6, 8, generator=generator)
    torch.testing.assert_close(affine().apply(images, torch.zeros(3, 6)), images)


def test_affine_without_a_shift_keeps_the_middle(generator):
    images = torch.rand(20, 1, 9, 9, generator=generator)
    augmentation = affine(pixels=0)
    moved = augmentation.apply(images, augmentation.draw(20, generator))
    torch.testing.assert_close(moved[..., 4, 4], images[..., 4, 4])
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_each_image_has_its_own_patch(generator):
    """Every patch is where the draw says, a share of all places; all channels alike; images wider than high."""
    images = torch.rand(200, 3, 6, 9, generator=generator)
    augmentation = crop(size=4)
    drawn = augmentation.draw(200, generator)
    found = augmentation.apply(images, drawn)
    assert found.shape == (200, *augmentation.shape((3, 6, 9))) == (200, 3, 4, 4)
    places = set()
    for image, (down, right), patch in zip(images, (drawn.double() / 2**31).tolist(), found, strict=True):
        top, left = int(down * 3), int(right * 6)
        places.add((top, left))
        assert torch.equal(patch, image[:, top : top + 4, left : left + 4])
    assert places == {(top, left) for top in range(3) for left in range(6)}, "each place occurs, the last ones too"


def test_patches_are_drawn_from_all_places_equally_often(generator):
    """And the first and the last number that can be drawn are the first and the last place."""
    augmentation = crop(size=24)
    column = torch.arange(32.0).expand(1, 1, 32, 32)
    drawn = augmentation.draw(90_000, generator)
    assert drawn.dtype == torch.int64
    lefts = augmentation.apply(column.expand(9000, -1, -1, -1), drawn[:9000])[:, 0, 0, 0]
    assert (torch.bincount(lefts.long(), minlength=9) - 1000).abs().max() < 150  # 5 standard deviations
    ends = augmentation.apply(column.expand(2, -1, -1, -1), torch.tensor([[0, 0], [2**31 - 1, 2**31 - 1]]))
    assert ends[:, 0, 0, 0].tolist() == [0, 8]
    assert torch.corrcoef(drawn.T.double()).fill_diagonal_(0).abs().max() < 0.02, "rows and columns are independent"


def test_at_test_the_middle_is_seen_and_of_two_middles_the_first():
    image = torch.arange(48.0).reshape(1, 1, 6, 8)
    assert torch.equal(crop(size=4).still(image), image[..., 1:5, 2:6])
    assert torch.equal(crop(size=3).still(image), image[..., 1:4, 2:5])
    for whole in (none(), shift(pixels=1), affine()):
        assert whole.still(image) is image
        assert whole.shape((1, 6, 8)) == (1, 6, 8)
