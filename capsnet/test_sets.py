"""What is known of further test sets by their names: those that have files, and those made of a data set's own test images."""

import re
from collections.abc import Iterable, Mapping

from capsnet.alterations import ATTACKS, Alteration
from capsnet.corruptions import CORRUPTIONS
from capsnet.errors import unknown
from capsnet.registry import TEST_SETS, DatasetFacts

ALTERATIONS: Mapping[str, Alteration] = {**CORRUPTIONS, **ATTACKS}
LEAST = 4_000  # images: of a smaller test set each is corrupted several times, so that no claim hangs on one draw


def alteration(name: str) -> tuple[Alteration, int] | None:
    """The kind and level of ``rotated_30``; None of a name that isn't so."""
    stem, _, level = name.rpartition("_")
    if stem not in ALTERATIONS or not re.fullmatch("[1-9][0-9]{0,3}", level):
        return None
    return ALTERATIONS[stem], int(level)


def is_known(name: str) -> bool:
    """Whether it is a test set's name."""
    return name in TEST_SETS or alteration(name) is not None


def require(name: str) -> None:
    """Raise a ValueError that says what there is, if there is no such test set."""
    if name in TEST_SETS:
        return
    stem, _, _ = name.rpartition("_")
    if stem not in ALTERATIONS:
        raise ValueError(unknown("test set", name, [*TEST_SETS, *(f"{each}_N" for each in ALTERATIONS)]))
    made, alters = alteration(name), ALTERATIONS[stem]
    if made is None or made[1] not in alters.levels or made[1] == alters.intact:
        least, most = alters.levels[0], alters.levels[-1]
        but = f" but {alters.intact}" if alters.intact in alters.levels else ""
        raise ValueError(f"unknown test set {name!r}: after {stem}_ stands how many {alters.unit}, {least} to {most}{but}")


def kind(name: str) -> str:
    """``rotated`` of ``rotated_30``: what is judged together, at all levels. Of others the name itself."""
    return name.rpartition("_")[0] if alteration(name) else name


def times(name: str, count: int) -> int:
    """How often each of so many test images is in a test set that is made of them: once, if nothing of it is random."""
    made = alteration(name)
    return -(-LEAST // count) if made and made[0].drawn else 1


def images(name: str, dataset: DatasetFacts) -> int:
    """How many images there are."""
    count = dataset.test_images
    return TEST_SETS[name].images if name in TEST_SETS else count * times(name, count)


def origin(name: str) -> str:
    """What a table or a line of text says of it."""
    if name in TEST_SETS:
        return TEST_SETS[name].origin
    made = alteration(name)
    assert made, name
    alters, level = made
    return f"its test images, each {alters.says.format(level)}"


def place(name: str) -> tuple[str, int]:
    """Where a name stands among others: by its letters, and then by the number at its end."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def in_order(names: Iterable[str]) -> list[str]:
    """The names by :func:`place`, each once."""
    return sorted(set(names), key=place)


def listed() -> str:
    """What there is to choose from, for a description."""
    made = [f"{name}_N ({alters.unit})" for name, alters in ALTERATIONS.items()]
    return f"{', '.join(TEST_SETS)} (mnist_40); or its own test images, {', '.join(made)}"
