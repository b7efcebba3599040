"""Shifts of training images against a naive loop over images, rows and columns."""

import pytest
import torch

from capsnet.augmentation import none, shift


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
    assert len(drawn) == 4, "it is cut into batches like any other"
    assert torch.equal(generator.get_state(), before)


def test_reach_is_the_number_of_pixels():
    assert (none().reach, shift(pixels=3).reach) == (0, 3)
    with pytest.raises(ValueError, match="write 'none' for no shift"):
        shift(pixels=0)
