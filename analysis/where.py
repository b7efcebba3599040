"""Which runs a table is of: --where column=value, and how many of them no grid has any more."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.fields import value_text
from capsnet.choices import VARIANTS
from capsnet.config import FIELDS
from capsnet.errors import InputError, unknown
from capsnet.variants import parse

LISTED = 12  # values that a message lists at most


def beside_the_grid(runs: pd.DataFrame) -> int:
    """How many of the runs no grid has any more, as after an edit of one; none if nobody knows."""
    return int((~runs["in_grid"].astype(bool)).sum()) if "in_grid" in runs else 0


def chosen(where: Sequence[str], frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows have one of the values wanted in each column that is named."""
    wanted: dict[str, list[str]] = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--where {text!r} must be column=value, as in routing_iterations=3")
        if column not in frame:
            raise InputError(unknown("column", column, [*map(str, frame.columns)], f"--where {text}"))
        wanted.setdefault(column, []).append(value)
    chosen = pd.Series(True, frame.index)
    for column, values in wanted.items():
        chosen &= frame[column].isin([_value(column, value, frame[column]) for value in values])
    return chosen


def _value(column: str, text: str, there: "pd.Series[Any]") -> Any:
    """The value that a text means in a column.

    Raises:
        InputError: it is none of the column's type, or no run has it.
    """
    value: Any = "0" if (column, text) == ("train_size", "all") else text
    why = ""
    if column in VARIANTS:
        try:
            value = parse(text, VARIANTS[column], column).text
        except InputError as error:
            why = f": {error}"
    elif is_numeric_dtype(there) or (column in FIELDS and FIELDS[column].annotation is not str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
        value = json.dumps(value) if isinstance(value, list) else value
    values = sorted(there.dropna().unique())
    alike = [each for each in values if value_text(column, each) == text]  # drawn numbers are shown with four digits
    if value not in values and len(alike) == 1:
        return alike[0]
    if value not in values and alike:
        raise InputError(f"--where {column}={text} is the beginning of several: {', '.join(map(str, alike[:LISTED]))}")
    if value not in values or isinstance(value, bool) != (there.dtype == bool):
        more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
        listed = ", ".join(value_text(column, each) for each in values[:LISTED]) or "none"
        raise InputError(f"no run has --where {column}={text}{why}; there are: {listed}{more}")
    return value
