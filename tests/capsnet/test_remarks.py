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
    config = make_config({"dataset": dataset, "augmentation": augmentation, "primary_coupling": True}, "here")
    found = remarks([config, config.model_copy(update={"seed": 1})])
    assert len(found) == bool(said), "once for both seeds"
    assert re.search(said, " ".join(found))


PAIRS = {"dataset": "multimnist", "augmentation": "shift(pixels=4)"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "3,200 primary capsules, and a first step of 0.001: "),
        ({"learning_rate": 3e-4}, "3,200 primary capsules, and a first step of 0.0003: "),
        ({"lr_schedule": "constant(warmup=9)", "learning_rate": 0.01}, "3,200 primary capsules, and a first step of 0.001: "),
        ({"learning_rate": 2e-4}, ""),
        ({"lr_schedule": "constant(warmup=9)"}, ""),
        ({"lr_schedule": "one_cycle(rise=0.3)"}, ""),
        ({"primary_types": 20}, ""),
        ({"primary_coupling": True}, ""),
        ({"model": "cnn_matched"}, "first step of 0.001: so many may make all class vectors of cnn_matched long"),
        ({"conv_channels": 16}, ""),
        ({"votes_std": 0.03}, ""),
        ({"hidden_capsules": [16]}, ""),
        ({"dataset": "mnist", "augmentation": "shift(pixels=2)", "model": "cnn_matched"}, "1,152 primary capsules, and "),
        ({"dataset": "mnist", "augmentation": "shift(pixels=2)", "model": "cnn_matched", "primary_coupling": True}, ""),
        ({"dataset": "mnist", "augmentation": "shift(pixels=2)"}, ""),
    ],
)
def test_so_many_primary_capsules_that_the_first_step_is_too_large(changes, said):
    config = make_config(PAIRS | changes, "here")
    found = remarks([config, config.model_copy(update={"seed": 1})])
    assert len(found) == bool(said), "once for both seeds"
    assert said in " ".join(found)


def test_of_shipped_grids_one_asks_what_so_many_primary_capsules_do():
    told = {path.stem: remarks(config for _, config in read_grid(path.stem).configs) for path in SHIPPED.glob("*.yaml")}
    assert [name for name, lines in told.items() if any("primary capsules" in line for line in lines)] == ["primary-coupling"]


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
