"""Fields of a RunConfig for readers: their names, their values as text, and the order of values."""

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from capsnet.choices import CHOICES, VARIANTS
from capsnet.config import FIELDS
from capsnet.errors import InputError
from capsnet.variants import parse
from experiments.labels import SHORT, shortened

NAMES = {"routing_iterations": "r"}
"""Fields whose readable name is not the field's own with spaces for underscores; :func:`legend` explains them."""


FIELD_OF = {shown: field for names in (SHORT, NAMES) for field, shown in names.items()}
"""What names of runs, or tables, call a field -> the field."""


def name_of(field: str) -> str:
    """How a field is called in headers and labels."""
    return NAMES.get(field, field.replace("_", " "))


def legend(fields: Iterable[str]) -> str:
    """Says what is behind names that don't tell it: ``r: routing iterations``."""
    return ", ".join(f"{NAMES[field]}: {field.replace('_', ' ')}" for field in fields if field in NAMES)


def text_of(value: Any) -> str:
    """A field's value as YAML has it: ``0.0005``, ``6.4e-6``, ``true``, ``[512, 1024]``; drawn numbers to four digits."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return shortened(repr(value)).removesuffix(".0").replace("e-0", "e-")
    return shortened(str(value))


def is_default(field: str, value: Any) -> bool:
    """Whether a field has the value that it has where none is given."""
    default = FIELDS[field].default
    return text_of(value) == text_of(list(default) if isinstance(default, tuple) else default)


def value_text(field: str, value: Any) -> str:
    """A value of a field for readers: ``all`` of a train_size of 0, which are all images but validation's."""
    return "all" if (field, value) == ("train_size", 0) else text_of(value)


def apart(field: str, value: Any, other: Any) -> tuple[str, str]:
    """Two values of a field for readers, who could not tell two drawn numbers apart by their first four digits."""
    shown, beside = value_text(field, value), value_text(field, other)
    return (shown, beside) if shown != beside or value == other else (str(value), str(other))


def named(field: str, value: Any, between: str = " ") -> str:
    """A value with its field's name: ``r 3``."""
    return f"{name_of(field)}{between}{value_text(field, value)}"


def in_order(field: str, values: Iterable[Any]) -> list[Any]:
    """Values of a field, each once and sorted; all training images, which 0 stands for, are the most."""
    return sorted(set(values), key=lambda value: place(field, value))


def place(field: str, value: Any) -> Any:
    """What a value of a field is sorted by.

    A choice by the place of its name in the registry, where the paper's is the first or stands beside its like; one with
    parameters then by these, of which those that it doesn't name have their defaults. A list, which the table of runs has as
    JSON, by its members.
    """
    if field in VARIANTS:
        return _place_of_variant(field, value)
    if field in CHOICES:
        return _place_of_name(value, CHOICES[field]), value
    if isinstance(value, str) and isinstance(FIELDS[field].default, tuple):
        return tuple(json.loads(value))
    return math.inf if (field, value) == ("train_size", 0) else value


@lru_cache(maxsize=4096)  # runs by the thousand hold a few texts
def _place_of_variant(field: str, text: str) -> tuple[Any, ...]:
    try:
        variant = parse(text, VARIANTS[field], field)
    except InputError:  # a table is shown whatever stands in it
        return len(VARIANTS[field]), text
    return _place_of_name(variant.name, VARIANTS[field]), *variant.arguments.values()


def _place_of_name(name: str, registry: Mapping[str, Any]) -> int:
    return [*registry].index(name) if name in registry else len(registry)
