"""What is allowed and seldom meant is said."""

import re

import pytest

from capsnet.config import make_config
from capsnet.remarks import remarks


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
