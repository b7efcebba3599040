"""Reads a search from its YAML, and says all that is wrong with it before anything starts."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capsnet.config import FIELDS, make_config
from capsnet.errors import InputError, is_text, unknown
from capsnet.variants import Variant, parse
from experiments.documents import read_document, read_mapping, read_named
from experiments.samplers import PRUNERS, SAMPLERS, SINGLE
from experiments.search import OBJECTIVES, PRUNED_BY, Confirm, Search
from experiments.sources import MOST_SEEDS
from experiments.space_yaml import read_space

SHIPPED = Path(__file__).parent / "searches"
KEYS = (
    "description",
    "base",
    "space",
    "trials",
    "time_budget",
    "sampler",
    "pruner",
    "objective",
    "seeds_per_trial",
    "confirm",
)
MESSAGES = 20  # what is wrong with the corners of a space: one wrong value may be told of many


def read_search(name: str) -> Search:
    """A shipped search by its name, or any by its path.

    Raises:
        InputError: no such search, or something in it is wrong; everything wrong is named at once.
    """
    text, stem, place = read_named(name, SHIPPED, "search")
    return parse_search(text, stem, place)


def parse_search(text: str, name: str, place: str) -> Search:
    """A search from its YAML 1.2 text; ``place`` is what messages call it."""
    document, faults = read_document(text, place, KEYS)
    read = _Reader(document, place, faults)
    space_given = document.get("space")
    if not isinstance(space_given, Mapping) or not space_given:
        faults.append(f"space of {place} must be a mapping of fields to ranges and choices, not {space_given!r}")
        space_given = {}
    base = read_mapping(document.get("base"), f"base of {place}", faults, "seeds_per_trial says how many each trial has")
    space = read_space(space_given, f"space of {place}", faults)
    conditional = {key for key, given in space_given.items() if isinstance(given, Mapping) and given.get("when")}
    faults += [
        f"{key} stands both in base and in space of {place}; leave it in one of them, or give it a condition (when) in space"
        for key in base
        if key in space_given.keys() - conditional - {"seed"}  # which may stand in neither
    ]
    search = Search(
        name,
        read.text("description", "").strip(),
        text,
        base,
        space,
        read.count("trials", None),
        read.seconds("time_budget"),
        read.variant("sampler", "tpe", SAMPLERS),
        read.variant("pruner", "none", PRUNERS),
        read.objectives(),
        read.count("seeds_per_trial", 1) or 1,
        read.confirm(),
    )
    if "trials" not in document and "time_budget" not in document:
        faults.append(f"{place} must say how long to search: trials: 50, or time_budget: 2h, or both")
    faults += _mismatches(search, place)
    if faults:
        raise InputError("\n".join(faults))
    _check_corners(search, place)
    return search


def _mismatches(search: Search, place: str) -> list[str]:
    """Parts of a search that are right alone and wrong together."""
    faults, pruned = [], search.pruner.name != "none"
    if len(search.objectives) > 1 and pruned:
        faults.append(f"pruner {search.pruner.text} in {place} compares one objective, but there are several; leave it out")
    if len(search.objectives) > 1 and search.sampler.name in SINGLE:
        able = ", ".join(name for name in SAMPLERS if name not in SINGLE)
        faults.append(f"sampler {search.sampler.name} in {place} minimises one objective, not several; choices: {able}")
    if pruned and len(search.objectives) == 1 and search.objectives != (PRUNED_BY,):
        faults.append(
            f"pruner {search.pruner.text} in {place} compares epochs, of which {search.objectives[0]} knows nothing; leave it "
            f"out, or minimise {PRUNED_BY}"
        )
    return faults


def _check_corners(search: Search, place: str) -> None:
    """Refuse what the config refuses before the first trial, with everything that is wrong at once."""
    faults: dict[str, None] = {}  # a set that keeps its order: one wrong value spoils many points
    epochs = 0
    for values in [*([{}] if search.confirm.defaults else []), *search.space.corners()]:
        try:
            config = make_config({**search.base, **values}, place)
        except InputError as error:
            faults |= dict.fromkeys(line + _left_out(search, values, line) for line in str(error).splitlines())
            continue
        epochs = max(epochs, config.epochs)
        if PRUNED_BY in search.objectives and not config.validation_size:
            faults[f"objective {PRUNED_BY} of {place} needs validation images: validation_size must not be 0"] = None
    for name, last in (("min_resource", epochs), ("n_warmup_steps", epochs - 1)):  # nothing is pruned after the last epoch
        if not faults and (least := search.pruner.arguments.get(name, 0)) >= max(last, 2):
            faults[f"pruner {search.pruner.text} of {place} never prunes: {name} {least} leaves none of {epochs} epochs"] = None
    if not faults and search.seeds_per_trial + search.confirm.seeds > MOST_SEEDS:
        faults[f"seeds_per_trial and the seeds of confirm in {place} must be {MOST_SEEDS} at most, together"] = None
    if faults:
        more = [f"and {len(faults) - MESSAGES} more, of other points of the space"] if len(faults) > MESSAGES else []
        raise InputError("\n".join([*itertools.islice(faults, MESSAGES), *more]))


def _left_out(search: Search, values: Mapping[str, Any], line: str) -> str:
    """What a field that the fault names has at this point, if it is one whose condition doesn't hold there: nobody wrote it."""
    names = [each.name for each in search.space.parameters if each.when and each.name not in values and each.name in line]
    told = (f"{name} is {search.base.get(name, FIELDS[name].default)}" for name in names)
    return f"; where its condition (when) doesn't hold, {', '.join(told)}: base can say another value" if names else ""


class _Reader:
    """Reads the keys of a search, and adds what is wrong with them to the faults."""

    def __init__(self, document: Mapping[Any, Any], place: str, faults: list[str]) -> None:
        self.document, self.place, self.faults = document, place, faults

    def text(self, key: str, default: str) -> str:
        value = self.document.get(key, default)
        if isinstance(value, str) and is_text(value):
            return value
        self.faults.append(f"{key} of {self.place} must be text, not {value!r}")
        return default

    def count(self, key: str, default: int | None) -> int | None:
        if key not in self.document:
            return default
        value = self.document[key]
        if _is_whole(value, 1):
            return value
        self.faults.append(f"{key} of {self.place} must be a whole number of 1 or more, not {value!r}")
        return default

    def seconds(self, key: str) -> float | None:
        value = self.document.get(key)
        found = re.fullmatch(r"\s*(?:(\d{1,9})\s*h)?\s*(?:(\d{1,9})\s*m)?\s*(?:(\d{1,9})\s*s)?\s*", str(value))
        if found and (total := sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))):
            return float(total)
        if "time_budget" in self.document:
            self.faults.append(f"{key} of {self.place} must be a time such as 2h, 30m or 1h 30m, not {value!r}")
        return None

    def variant(self, key: str, default: str, registry: Mapping[str, Any]) -> Variant:
        try:
            return parse(self.text(key, default), registry, f"{key} of {self.place}")
        except InputError as error:
            self.faults.append(str(error))
            return parse(default, registry, key)

    def objectives(self) -> tuple[str, ...]:
        given = self.document.get("objective", PRUNED_BY)
        names = given if isinstance(given, list) else [given]
        for name in names:
            if name == "test_error":
                able = ", ".join(OBJECTIVES)
                self.faults.append(f"objective of {self.place}: selection must not see the test set; choices: {able}")
            elif name not in list(OBJECTIVES):  # a list has no hash
                self.faults.append(unknown("objective", name, OBJECTIVES, self.place))
        if not names or len(set(map(str, names))) < len(names):
            self.faults.append(f"objective of {self.place} must be one, or a list of different ones, not {given!r}")
        return tuple(map(str, names))

    def confirm(self) -> Confirm:
        given = self.document.get("confirm", {})
        place = f"confirm of {self.place}"
        if not isinstance(given, Mapping):
            self.faults.append(f"{place} must be a mapping such as {{top: 3, seeds: 6}}, not {given!r}")
            return Confirm()
        keys = Confirm.__dataclass_fields__
        self.faults += [unknown("key", key, keys, place) for key in given if key not in keys]
        found = Confirm(**{key: value for key, value in given.items() if key in keys})
        if not _is_whole(found.top, 0):
            self.faults.append(f"top in {place} must be a number of trials, 0 for none, not {found.top!r}")
        if not _is_whole(found.seeds, 1):
            self.faults.append(f"seeds in {place} must be a whole number of 1 or more, not {found.seeds!r}")
        if not isinstance(found.defaults, bool):
            self.faults.append(f"defaults in {place} must be true or false, not {found.defaults!r}")
        return found


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
