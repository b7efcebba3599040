"""What is known of further test sets by their names: those that have files, and those made of a data set's own test images."""

import re
from collections.abc import Iterable

from capsnet.corruptions import CORRUPTIONS, Corruption
from capsnet.errors import unknown
from capsnet.registry import TEST_SETS, DatasetFacts


def corruption(name: str) -> tuple[Corruption, int] | None:
    """The kind and level of ``rotated_30``; None of a name that isn't so."""
    kind, _, level = name.rpartition("_")
    if kind not in CORRUPTIONS or not re.fullmatch(r"[1-9]\d{0,3}", level):
        return None
    return CORRUPTIONS[kind], int(level)


def is_known(name: str) -> bool:
    """Whether it is a test set's name."""
    return name in TEST_SETS or corruption(name) is not None


def require(name: str) -> None:
    """Raise a ValueError that says what there is, if there is no such test set."""
    if name in TEST_SETS:
        return
    made = corruption(name)
    if made is None:
        choices = [*TEST_SETS, *(f"{kind}_N" for kind in CORRUPTIONS)]
        raise ValueError(unknown("test set", name, choices) + "; N is a whole number")
    kind, level = made
    if level == kind.intact:
        raise ValueError(f"test set {name} would be the test images as they are")
    if level not in kind.levels:
        least, most = kind.levels[0], kind.levels[-1]
        raise ValueError(f"test set {name}: the number stands for {kind.unit}, and has to be {least} to {most}")


def kind(name: str) -> str:
    """``rotated`` of ``rotated_30``: what is judged together, at all levels. Of others the name itself."""
    return name.rpartition("_")[0] if corruption(name) else name


def images(name: str, dataset: DatasetFacts) -> int:
    """How many images there are."""
    return TEST_SETS[name].images if name in TEST_SETS else dataset.test_images


def origin(name: str) -> str:
    """What a table or a line of text says of it."""
    if name in TEST_SETS:
        return TEST_SETS[name].origin
    made = corruption(name)
    assert made, name
    kind, level = made
    return f"its test images, each {kind.says.format(level)}"


def place(name: str) -> tuple[str, int]:
    """Where it stands among others: by name, and of one kind by level."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def in_order(names: Iterable[str]) -> list[str]:
    """The names by :func:`place`, each once."""
    return sorted(set(names), key=place)


def listed() -> str:
    """What there is to choose from, for a description."""
    made = [f"{name}_N ({kind.unit})" for name, kind in CORRUPTIONS.items()]
    return f"{', '.join(TEST_SETS)} (mnist_40); or its own test images, {', '.join(made)}"
