"""Which runs a table is of: --where column=value and the like, and how many of them no grid has any more."""

import json
import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.fields import FIELD_OF, value_text
from capsnet.choices import VARIANTS
from capsnet.config import FIELDS
from capsnet.errors import InputError, unknown
from capsnet.variants import parse

CONDITION = re.compile(r"(.*?)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)  # a column, how its values compare, a value
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
LISTED = 12  # values that a message lists at most


def beside_the_grid(runs: pd.DataFrame) -> int:
    """How many of the runs no grid has any more, as after an edit of one; none if nobody knows."""
    return int((~runs["in_grid"].astype(bool)).sum()) if "in_grid" in runs else 0


def chosen(where: Sequence[str], frame: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows have, in each column that is named, one of the values wanted (=), and fulfil all else that is said of it.

    A row without a value, as a failed run has no test error, is none of those below or above a number, and is not equal to it.

    Raises:
        InputError: a condition is none, or has no such column; or its value is none of the column's type, or no run has it.
    """
    wanted: dict[str, list[Any]] = {}
    chosen = pd.Series(True, frame.index)
    for text in where:
        if not (found := CONDITION.fullmatch(text)):
            raise InputError(f"--where {text!r} must be column=value, as in routing_iterations=3, or have !=, <, <=, > or >=")
        column, compared, value = found.groups()
        column = FIELD_OF.get(column, column)
        if column not in frame:
            raise InputError(unknown("column", column, [*map(str, frame.columns)], f"--where {text}"))
        if compared == "=":
            wanted.setdefault(column, []).append(_value(text, column, value, frame[column]))
        elif compared == "!=":
            chosen &= frame[column] != _value(text, column, value, frame[column])
        else:
            chosen &= ORDERS[compared](*_numbers(text, column, value, frame[column]))
    for column, values in wanted.items():
        chosen &= frame[column].isin(values)
    return chosen


def told(where: Sequence[str]) -> str:
    """The conditions in a sentence: of several values of a column a run has one, and all else holds together."""
    together: dict[object, list[str]] = {}
    for text in where:
        found = CONDITION.fullmatch(text)
        assert found, "they have chosen runs"
        column, compared, _ = found.groups()
        together.setdefault(FIELD_OF.get(column, column) if compared == "=" else text, []).append(text)
    either = [" or ".join(each) for each in together.values()]
    return " and ".join(f"({each})" if " or " in each and len(either) > 1 else each for each in either)


def _numbers(condition: str, column: str, text: str, there: "pd.Series[Any]") -> "tuple[pd.Series[Any], float]":
    """A column's values and a number, to be compared by size; nothing compares with a value that is missing.

    Raises:
        InputError: one or the other is no number.
    """
    if not is_numeric_dtype(there) or there.dtype == bool:
        raise InputError(f"--where {condition}: the values of {column} are no numbers; write {column}=value or {column}!=value")
    everything = column == "train_size"  # of which 0 is all images
    try:
        number = math.inf if everything and text == "all" else float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"--where {condition}: {text!r} is no number")
    return (there.astype(float).replace(0, math.inf) if everything else there), number


def _value(condition: str, column: str, text: str, there: "pd.Series[Any]") -> Any:
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
        raise InputError(f"--where {condition} is the beginning of several: {', '.join(map(str, alike[:LISTED]))}")
    if value not in values or isinstance(value, bool) != (there.dtype == bool):
        more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
        listed = ", ".join(value_text(column, each) for each in values[:LISTED]) or "none"
        raise InputError(f"no run has --where {condition}{why}; there are: {listed}{more}")
    return value
