"""What a grid leaves out of the product of its axes: combinations that mean nothing, or that nobody needs.

    exclude:
      - {routing: uniform, routing_iterations: [2, 3]}   # those with uniform and one of the two

Each entry names axes, and of each a value or a list of values: a cell that has them all is left out.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from capsnet.config import FIELDS
from experiments.space import same

Axes = Mapping[str, Sequence[Any]]
Cell = Mapping[str, Any]  # of the product: axis -> value
Exclusion = Mapping[str, Sequence[Any]]  # axis -> the values that it names


def read_exclusion(given: Cell, axes: Axes, place: str, faults: list[str]) -> Exclusion:
    """An entry as it stands in YAML; what is wrong with it is added to the faults, but for names of fields."""
    if not given:
        faults.append(f"{place} has an empty entry, which would leave out everything")
    named = {}
    for axis, value in given.items():
        if axis not in axes:
            if axis in FIELDS:  # else it has been told
                faults.append(f"{axis} in {place} is no axis; axes: {', '.join(axes) or 'none'}")
            continue
        whole = _among(value, axes[axis])  # a value of some fields, as decoder_hidden, is a list itself
        named[axis] = wanted = value if isinstance(value, list) and not whole else [value]
        if not axes[axis]:  # what is wrong with it has been told
            continue
        strange = [each for each in wanted if not _among(each, axes[axis])] if wanted else [wanted]
        values = ", ".join(map(_written, axes[axis]))
        faults += [f"{_written(each)} in {place} is no value of the axis {axis}; values: {values}" for each in strange]
    return named


def left(product: Sequence[Cell], exclusions: Iterable[Exclusion], place: str, faults: list[str]) -> list[Cell]:
    """The cells that no entry leaves out; an entry without effect, and that nothing is left, are added to the faults."""
    cells = list(product)
    for number, exclusion in enumerate(exclusions, start=1):
        kept = [cell for cell in cells if not _covers(exclusion, cell)]
        if len(kept) == len(cells):
            faults.append(f"the {number}. entry of {place} leaves out nothing that those before it have not left out")
        cells = kept
    if not cells:
        faults.append(f"{place} leaves out every cell")
    return cells


def proposal(bad: Iterable[Sequence[Cell]], good: Sequence[Cell], axes: Axes, present: Sequence[Exclusion]) -> str:
    """The key ``exclude`` that leaves out bad cells and no good one; nothing if there is no such entry.

    Args:
        bad: for each fault, the cells that have it.
        good: the cells without any.
        axes: of the grid.
        present: the entries that it has already.
    """
    found: list[Exclusion] = []
    for cells in bad:
        entry = _entry(cells, good, axes)
        if entry and not all(any(_covers(other, cell) for other in found) for cell in cells):
            found.append(entry)
    return f"exclude: [{', '.join(map(_flow, (*present, *found)))}]" if found else ""


def _entry(bad: Sequence[Cell], good: Sequence[Cell], axes: Axes) -> Exclusion:
    """What leaves out these cells and no good one, of as few axes as do; nothing where a value never fits."""
    found = {axis: [value for value in values if any(same(value, cell[axis]) for cell in bad)] for axis, values in axes.items()}
    for axis in axes:
        rest = {other: values for other, values in found.items() if other != axis}
        if not any(_covers(rest, cell) for cell in good):
            found = rest
    return found if len(found) > 1 and not any(_covers(found, cell) for cell in good) else {}


def _flow(exclusion: Exclusion) -> str:
    texts = {axis: _written(values[0] if len(values) == 1 else list(values)) for axis, values in exclusion.items()}
    return f"{{{', '.join(f'{axis}: {text}' for axis, text in texts.items())}}}"


def _covers(exclusion: Exclusion, cell: Cell) -> bool:
    return all(_among(cell[axis], values) for axis, values in exclusion.items())


def _among(value: Any, values: Iterable[Any]) -> bool:
    return any(same(value, each) for each in values)


def _written(value: Any) -> str:
    """As a flow of YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    plain = isinstance(value, str) and re.fullmatch(r"[a-z]\w*(\([\w=.+-]*\))?", value)  # a comma would end it
    return str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)
