"""What is allowed and seldom meant is said."""

import re

import pytest

from capsnet.config import make_config
from capsnet.remarks import remarks
from experiments.sources import SHIPPED, read_grid


@pytest.mark.parametrize(
    ("dataset", "augmentation", "said"),
    [
        ("mnist", "none", ""),
        ("multimnist", "shift(pixels=4)", ""),
        ("mnist_40", "shift(pixels=6)", ""),
        ("multimnist", "shift(pixels=2)", "by up to 4 pixels, .* by augmentation shift.*; shift.pixels=4. moves them alike"),
        ("mnist_40", "none", "test images of mnist_40 are moved by up to 6 pixels, .* by augmentation none"),
    ],
)
def test_training_images_that_are_moved_otherwise_than_test_images(dataset, augmentation, said):
    config = make_config({"dataset": dataset, "augmentation": augmentation}, "here")
    found = remarks([config, config.model_copy(update={"seed": 1})])
    assert len(found) == bool(said), "once for both seeds"
    assert re.search(said, " ".join(found))


SAME = "; runs that differ in it alone train the same network"


@pytest.mark.parametrize(
    ("configs", "said"),
    [
        ([(5e-4, [8])], None),
        ([(0, [512, 1024])], None),  # the default, which nobody wrote
        ([(0, [8])], ""),
        ([(0, [8]), (5e-4, [8])], None),  # a grid with both weights has one size for both
        ([(0, [8]), (5e-4, [8]), (0, [9]), (5e-4, [9])], SAME),  # and as an axis, it is one for half of the cells alone
        ([(0, [8]), (0, [512, 1024])], SAME),
    ],
)
def test_sizes_of_a_decoder_that_is_not_made(configs, said):
    made = [make_config({"reconstruction_weight": float(w), "decoder_hidden": hidden}, "here") for w, hidden in configs]
    plain = make_config({"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0.0}, "here")
    told = "decoder_hidden means nothing at reconstruction_weight 0, where there is no decoder"
    assert remarks([*made, plain]) == ([] if said is None else [told + said])


def test_no_shipped_grid_has_sizes_of_a_decoder_that_nobody_reads():
    for path in SHIPPED.glob("*.yaml"):
        assert not any("decoder" in line for line in remarks(config for _, config in read_grid(path.stem).configs))
