"""Which cell of a data set the others are compared to: one that is asked for, or has the paper's values, or most of them."""

import json
import re
from collections.abc import Sequence
from typing import Any

from analysis.axes import axes_read
from analysis.cells import Cell, dataset_of, grouped
from analysis.fields import FIELD_OF, is_default, named, text_of, value_text
from capsnet.choices import VARIANTS
from capsnet.errors import InputError, unknown
from capsnet.variants import parse

# not "the paper's cell": what is equal in all cells, as the data set and the size of the network, need not be the paper's
PAPERS = "the cell with the paper's values of these axes"
FIRST = "the first cell"


def choose_references(cells: Sequence[Cell], wanted: str = "") -> dict[str, tuple[Cell, str]]:
    """Data set -> the cell that its others are compared to, and why that one.

    Raises:
        InputError: no cell, or several of one data set, are what is wanted.
    """
    asked = {dataset_of(cell): cell for cell in _named(cells, wanted)} if wanted else {}
    found = {}
    for name, members in grouped(cells, lambda cell: cell).items():
        chosen, why = (asked[name], "as asked for") if name in asked else choose_reference(members)
        if chosen:
            found[name] = chosen, why
    return found


def choose_reference(cells: Sequence[Cell]) -> tuple[Cell | None, str]:
    """Of the cells of one data set the one that the others are compared to, and why that one; None of a single cell."""
    if len(cells) < 2:
        return None, ""
    # what a cell's model doesn't read has its default, and makes the cell no nearer to the paper's
    settings = [{axis: value for axis, value in axes_read(cell.setting).items() if axis != "dataset"} for cell in cells]
    own = [[pair for pair in setting.items() if is_default(*pair)] for setting in settings]
    whole = [len(mine) == len(setting) for mine, setting in zip(own, settings, strict=True)]
    # what a grid had before an edit is nothing to compare its cells to
    place = max(range(len(cells)), key=lambda i: (cells[i].in_grid, whole[i], len(own[i])))
    chosen, near = cells[place], ", ".join(named(*pair) for pair in own[place])
    if whole[place]:
        return chosen, PAPERS
    of_now = " of the grid as it is now" if any(whole) else ""
    why = f"no cell{of_now} has all of the paper's values of these axes; this one is the first with {near}"
    return chosen, why if near else f"{FIRST}{of_now}"


def _named(cells: Sequence[Cell], wanted: str) -> list[Cell]:
    """The cells that are wanted, one of a data set at most."""
    found = list(cells)
    axes = list(cells[0].setting)
    if not axes:
        raise InputError(f"reference {wanted!r}: there is a single cell, and nothing to compare it to")
    for part in re.split(r"[,\s]+(?=\w+=)(?![^(]*\))", wanted.strip()):  # not at a parameter's name=value
        axis, equals, value = (text.strip() for text in part.partition("="))
        axis = FIELD_OF.get(axis, axis)
        if not equals:
            raise InputError(f"reference {wanted!r} must be axis=value, as in: {_label(cells[0])}")
        if axis not in axes:
            raise InputError(unknown("axis", axis, axes, f"reference {wanted!r}"))
        found = [cell for cell in found if _is(cell.setting[axis], value, axis)]
    if not found or len(found) > len(grouped(found, lambda cell: cell)):
        which = found or cells
        listed = "; ".join(map(_label, which[:12])) + (f"; and {len(which) - 12} more" if len(which) > 12 else "")
        many = f"{len(found)} cells are" if found else "no cell is"
        raise InputError(f"{many} the reference {wanted!r}; {'name one of' if found else 'there are'}: {listed}")
    return found


def _is(value: Any, text: str, axis: str) -> bool:
    """Whether a text means the value: as a table shows it, or as YAML may spell it."""
    if text in (text_of(value), str(value), value_text(axis, value)):
        return True
    try:
        if axis in VARIANTS:
            return parse(text, VARIANTS[axis], axis).text == value
        return bool(json.loads(text) == (json.loads(value) if isinstance(value, str) else value))
    except (json.JSONDecodeError, InputError):
        return False


def _label(cell: Cell) -> str:
    return " ".join(f"{axis}={text_of(value)}" for axis, value in cell.setting.items())
