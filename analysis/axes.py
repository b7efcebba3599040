"""Which fields of a table of runs are axes: those that vary, what they mean to each network, and which follow others."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.fields import in_order, is_default, name_of, value_text
from capsnet.config import FIELDS
from capsnet.errors import InputError
from capsnet.registry import MODELS

ALWAYS_TOLD = ("dataset", "train_size", "validation_size", "epochs", "batch_size")  # no error can be judged without them


def sorted_runs(runs: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The rows by the values of the axes, and of one setting by seed."""
    by = [*axes, "seed"]
    places = {field: {value: i for i, value in enumerate(in_order(field, runs[field]))} for field in by}
    return runs.sort_values(by, kind="stable", key=lambda column: column.map(places[str(column.name)]))


def axes_read(setting: Mapping[str, Any]) -> dict[str, Any]:
    """The axes that mean something to a cell's network, with their values: not all do to each of several models."""
    unread = MODELS[setting["model"]].unread if "model" in setting else ()
    return {axis: value for axis, value in axes_compared(setting).items() if axis not in unread}


def axes_compared(setting: Mapping[str, Any], compared: Sequence[str] = ()) -> dict[str, Any]:
    """The axes by which cells are equal or differ, with their values.

    The sizes of a decoder are none where there isn't any, unless weights of the reconstruction are ``compared``: beside the
    cells of each size stands its own of weight 0.
    """
    undecoded = setting.get("reconstruction_weight") == 0 and "reconstruction_weight" not in compared
    return {axis: value for axis, value in setting.items() if not (undecoded and axis == "decoder_hidden")}


def texts_of(setting: Mapping[str, Any]) -> list[str]:
    """The value of every axis as text, a dash where it means nothing to the cell's network."""
    means = axes_read(setting)
    return [value_text(axis, value) if axis in means else "—" for axis, value in setting.items()]


def varying(runs: pd.DataFrame) -> list[str]:
    """The axes: the fields with more than one value, in the order of RunConfig. The seed is none.

    Nor is a field that has one value with each of several models, as dropout may, or with each of several data sets, as
    augmentation may: it is a part of what the model, or learning from that data set, is there.
    """
    if runs.empty:
        raise InputError("the experiment has no run, so there is nothing to make a table or a plot of")
    by_others = dictated(runs)
    return [field for field in _several(runs) if field not in by_others]


def dictated(runs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The fields that differ between models, data sets, or models and data sets alone -> between which."""
    found: dict[str, tuple[str, ...]] = {}
    several = _several(runs)
    for by in (("model",), ("dataset",), ("model", "dataset")):
        if not set(by) & set(several):
            continue
        groups = runs.groupby([*by])
        apart = (field for field in several if field not in {"model", "dataset", *found})
        found |= {field: by for field in apart if groups[field].nunique().max() == 1}
    return found


def _several(runs: pd.DataFrame) -> list[str]:
    return [field for field in FIELDS if field != "seed" and len(runs[field].unique()) > 1]


def followers(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The axes whose value another axis settles -> that axis: epochs, where each training-set size has its own number of them.

    No effect of theirs can be told from the other axis', so they are a part of what its values are. Of two axes that settle
    each other the first is the one that is kept. An axis that has another value in every cell settles all others and says
    nothing of them: none follows it. Nor does any follow one that was never varied while all the rest stayed the same: among
    the few settings that a search confirms, one axis settles another by chance.

    Nor does an axis that changes in single cells alone, which stand beside a product and are no part of it.

    Of the settings ``size=100 epochs=90 r=1``, ``size=100 epochs=90 r=3``, ``size=900 epochs=10 r=1`` and ``size=900 epochs=10
    r=3``, epochs follows size: {"epochs": "size"}, and r follows none. With ``size=900 epochs=90 r=3``, too, none follows.

    Args:
        settings: of the cells, all with the same axes.
    """
    axes = list(settings[0]) if settings else []
    read = [axes_read(setting) for setting in settings]

    def settled(axis: str, by: str) -> bool:
        if any(by not in each for each in read if axis in each) or len({each.get(by) for each in read}) == len(read):
            return False
        values: dict[Any, Any] = {}
        return all(values.setdefault(each[by], each[axis]) == each[axis] for each in read if axis in each)

    def crossed(axis: str, by: str) -> bool:
        rest = [other for other in axes if other != by and not settled(other, by)]
        beside: dict[Any, set[tuple[Any, ...]]] = {}
        for each in read:
            if axis in each:
                beside.setdefault(each[by], set()).add(tuple(map(each.get, rest)))
        values = {each[by]: each[axis] for each in read if axis in each}
        whole = [value for value, places in beside.items() if len(places) == max(map(len, beside.values()))]
        return len(whole) < 2 or len({values[value] for value in whole}) > 1

    def above_it(axis: str, by: str) -> bool:
        return settled(axis, by) and crossed(axis, by) and (axes.index(by) < axes.index(axis) or not settled(by, axis))

    def stands(leader: str, own: Mapping[str, str]) -> bool:
        rest = [axis for axis in axes if axis != leader and own.get(axis) != leader]
        beside: dict[tuple[Any, ...], set[Any]] = {}
        for each in read:
            if leader in each:
                beside.setdefault(tuple(each.get(axis) for axis in rest), set()).add(each[leader])
        return any(len(values) > 1 for values in beside.values())

    above = {axis: [by for by in axes if by != axis and above_it(axis, by)] for axis in axes}
    while True:
        found = {axis: next(by for by in leaders if not above[by]) for axis, leaders in above.items() if leaders}
        if not (fallen := {leader for leader in found.values() if not stands(leader, found)}):
            return found
        above = {axis: [by for by in leaders if by not in fallen] for axis, leaders in above.items()}


def followers_note(settings: Sequence[Mapping[str, Any]]) -> str:
    """Says which axes follow others: ``what changes with train size alone is a part of it: epochs``; empty if none does."""
    by_leader: dict[str, list[str]] = {}
    for axis, leader in followers(settings).items():
        by_leader.setdefault(leader, []).append(name_of(axis))
    return "; ".join(
        f"what changes with {name_of(leader)} alone is a part of it: {', '.join(names)}" for leader, names in by_leader.items()
    )


def widest(runs: pd.DataFrame, axes: list[str]) -> str:
    """The axis with the most values, the last of them on a tie: the one to lay side by side."""
    return max(reversed(axes), key=lambda axis: runs[axis].nunique())


def constants(runs: pd.DataFrame) -> dict[str, Any]:
    """Fields with one value that has to be told: it is not the default, or no error can be judged without it.

    Further test sets have tables of their own, which name them.
    """
    others = {*_several(runs), "seed", "test_sets"}
    values = {field: runs[field].iloc[0] for field in FIELDS if field not in others}
    return {k: v for k, v in values.items() if k in ALWAYS_TOLD or not is_default(k, v)}
