"""What there is to choose from in the fields of a RunConfig, and what a description says of it."""

from collections.abc import Callable, Mapping
from typing import Any

from capsnet.augmentation import AUGMENTATIONS
from capsnet.objectives import LOSSES
from capsnet.registry import (
    DATASETS,
    GRADIENTS,
    MASKS,
    MODELS,
    PRECISIONS,
    SQUASHES,
    DatasetFacts,
)
from capsnet.routings import ROUTINGS
from capsnet.schedules import SCHEDULES
from capsnet.variants import usage

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "dataset": DATASETS,
    "model": MODELS,
    "mask": MASKS,
    "squash": SQUASHES,
    "routing_gradient": GRADIENTS,
    "precision": PRECISIONS,
}
"""Fields whose value is a name, and what there is to choose from."""

VARIANTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "augmentation": AUGMENTATIONS,
    "loss": LOSSES,
    "lr_schedule": SCHEDULES,
    "routing": ROUTINGS,
}
"""Fields whose value is a variant with its parameters, and what there is to choose from."""

TOLD: Mapping[str, Mapping[str, str]] = {
    "dataset": {"mnist_40": "mnist's digits"},
    "model": {"capsnet": "the paper's network", "cnn_matched": "of its size, no capsules", "cnn": "its baseline"},
    "routing": {
        "dynamic": "paper, procedure 1",
        "uniform": "every coupling 1 / classes",
        "random": "drawn once",
        "static": "learned logits",
        "attention": "Efficient-CapsNet's",
        "em": "of matrix capsules",
    },
    "mask": MASKS,
    "routing_gradient": GRADIENTS,
    "precision": PRECISIONS,
    "squash": {"paper": "equation 1", "efficient": "1 - 1/e^|s|", "half": "0.5 for equation 1's 1"},
}
"""What a field's description says of a choice beside its name. One of which nothing is said here is named all the same."""


def listed(field: str) -> str:
    """What there is to choose from, for a description: made of the registries, so that it is whole whatever is added."""
    texts = {name: usage(name, made) for name, made in VARIANTS[field].items()} if field in VARIANTS else {}
    told = TOLD.get(field, {})
    if field == "dataset":
        told = {name: _seen(facts, told.get(name, "")) for name, facts in DATASETS.items()}
    named = texts or {name: name for name in CHOICES[field]}
    return ", ".join(f"{text} ({told[name]})" if name in told else text for name, text in named.items())


def _seen(facts: DatasetFacts, told: str) -> str:
    """The size of a data set's images, what they are, and what is done to those of test."""
    channels, height, width = facts.shape
    size = f"{height}x{width}" if channels == 1 else f"{channels} x {height}x{width}"
    pairs = "two overlapping digits" if facts.labels == 2 else ""
    moved = f"at test moved as by shift(pixels={facts.moved})" if facts.moved else ""
    return ", ".join(filter(None, [size, told, pairs, moved]))
