"""The order of a field's values: numbers as numbers, wherever they stand."""

import itertools

import pytest

from analysis.fields import in_order
from capsnet.choices import VARIANTS
from capsnet.objectives import margin


def focal(*, gamma: float = 2.0, scale: float = 10.0):
    return margin()


ORDERS = {
    "numbers and defaults": (
        "loss",
        ["focal(gamma=0.5)", "focal(scale=2)", "focal", "focal(scale=30)", "focal(gamma=2.5)", "focal(gamma=10)"],
    ),
    "names first, as the registry has them": (
        "routing",
        ["dynamic", "uniform", "attention(temperature=0.5)", "attention", "attention(temperature=4)", "em"],
    ),
    "names without parameters": ("model", ["capsnet", "cnn_matched", "cnn", "gone"]),
    "without defaults": (
        "lr_schedule",
        [
            "constant",
            "exponential(gamma=0.5, every=40)",
            "exponential(gamma=0.5, every=200)",
            "exponential(gamma=0.5, every=200, floor=0.1)",
            "exponential(gamma=0.96, every=2)",
        ],
    ),
    "texts that mean nothing": ("loss", ["margin", "focal", "margin(", "margin(unknown=3)", "nonesuch"]),
    "lists": ("decoder_hidden", ["[64]", "[64, 128]", "[512]"]),
    "all images are the most": ("train_size", [100, 2000, 0]),
}


@pytest.mark.parametrize("which", ORDERS)
def test_values_are_ordered_by_their_numbers(which, monkeypatch):
    monkeypatch.setitem(VARIANTS["loss"], "focal", focal)
    field, expected = ORDERS[which]
    for given in itertools.permutations(expected):
        assert in_order(field, given) == expected
