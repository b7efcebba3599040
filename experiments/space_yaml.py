"""Reads the space of a search from its YAML, and says all that is wrong with it."""

import inspect
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from capsnet.choices import VARIANTS
from capsnet.config import FIELDS
from capsnet.errors import InputError, unknown
from experiments.space import Choice, Key, Option, Parameter, Range, Space, Values, same

RANGE = ("low", "high", "step", "log", "when")


def read_space(document: Mapping[Any, Any], place: str, faults: list[str]) -> Space:
    """A space from what stands in the YAML; what is wrong with it is added to the faults."""
    found: list[Parameter] = []
    for name, given in document.items():
        if name == "seed":
            faults.append(f"seed stands in {place}; seeds are no choice to make: seeds_per_trial says how many each trial has")
        elif name not in FIELDS:
            faults.append(unknown("key", name, FIELDS, place))
        else:
            try:
                found.append(_Reader(name, place).parameter(given))
            except InputError as error:
                faults.append(str(error))
    _check_conditions(found, document, place, faults)
    return Space(tuple(_ordered(found, place, faults)))


class _Reader:
    """Reads what stands at one field; raises an InputError of the first thing that is wrong with it."""

    def __init__(self, name: str, place: str) -> None:
        self.field, self.place = name, place

    def parameter(self, given: Any) -> Parameter:
        conditions = given.get("when", {}) if isinstance(given, Mapping) else {}
        if isinstance(given, Mapping) and "choices" in given:
            if strange := [key for key in given if key not in ("choices", "when")]:
                raise self._fault(self.field, unknown("key", strange[0], ("choices", "when")))
            given = given["choices"]
            if not isinstance(given, list):
                raise self._fault(self.field, f"choices must be a list, not {given!r}")
        values = self._values(self.field, given, FIELDS[self.field].annotation)
        return Parameter(self.field, values, self._conditions(conditions))

    def _fault(self, name: str, what: str) -> InputError:
        return InputError(f"{name} in {self.place}: {what}")

    def _values(self, name: str, given: Any, kind: Any) -> Values:
        if isinstance(given, list):
            return self._choice(name, given)
        if isinstance(given, Mapping):
            return self._range(name, given, kind)
        raise self._fault(name, f"write a range {{low: ..., high: ...}} or a list of choices, not {given!r}")

    def _range(self, name: str, given: Mapping[Any, Any], kind: Any) -> Range:
        if what := _wrong_words(given, kind) or _wrong_numbers(given, kind) or _wrong_range(**given):
            raise self._fault(name, what)
        numbers = {key: kind(value) for key, value in given.items() if key in ("low", "high", "step") and value is not None}
        return Range(**numbers, whole=kind is int, log=given.get("log", False))

    def _choice(self, name: str, given: list[Any]) -> Choice:
        if not given:
            raise self._fault(name, "a list of choices must not be empty")
        options = tuple(self._option(name, value) for value in given)
        for one, other in itertools.combinations((option.key for option in options), 2):
            if same(one, other):
                raise self._fault(name, f"the choice {json.dumps(other)} stands there twice")
        return Choice(options)

    def _option(self, name: str, value: Any) -> Option:
        key = _key(value)
        if isinstance(key, (str, bool)) or _is_finite(key):
            return Option(key, value)
        if name in VARIANTS and isinstance(value, Mapping) and len(value) == 1:
            return self._variant(name, *next(iter(value.items())))
        raise self._fault(name, f"{value!r} is no choice; write a value, or {{name: {{parameter: values}}}} of a variant")

    def _variant(self, name: str, variant: Any, parts: Any) -> Option:
        if variant not in VARIANTS[name]:
            raise self._fault(name, unknown(name, variant, VARIANTS[name]))
        parameters, here = inspect.signature(VARIANTS[name][variant], eval_str=True).parameters, f"{name}.{variant}"
        if not isinstance(parts, Mapping) or not parts:
            raise self._fault(here, f"write parameters with their values, not {parts!r}")
        if strange := [key for key in parts if key not in parameters]:
            raise self._fault(here, unknown("parameter", strange[0], parameters))
        fixed = {key: given for key, given in parts.items() if _is_finite(given)}
        searched = {key: given for key, given in parts.items() if key not in fixed}
        read = (self._part(f"{here}.{key}", given, parameters[key].annotation) for key, given in searched.items())
        return Option(variant, variant, tuple(read), fixed)

    def _part(self, name: str, given: Any, kind: Any) -> Parameter:
        if isinstance(given, Mapping) and "when" in given:
            raise self._fault(name, "it is there when its variant is: no other condition can be made")
        return Parameter(name, self._values(name, given, kind))

    def _conditions(self, given: Any) -> dict[str, tuple[Key, ...]]:
        if not isinstance(given, Mapping):
            raise self._fault(self.field, f"when must be a mapping of fields to the choices that allow it, not {given!r}")
        return {name: tuple(map(_key, wanted)) if isinstance(wanted, list) else (wanted,) for name, wanted in given.items()}


def _key(value: Any) -> Any:
    """How Optuna keeps a choice: a list of plain values as JSON, all else as it is."""
    plain = isinstance(value, list) and all(isinstance(part, (str, int, float)) for part in value)
    return json.dumps(value) if plain else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) <= sys.float_info.max  # whole numbers may be larger than any float


def _wrong_words(given: Mapping[Any, Any], kind: Any) -> str:
    """What is wrong with the keys of a range, or nothing."""
    if strange := [key for key in given if key not in RANGE]:
        return unknown("key", strange[0], RANGE)
    if kind not in (int, float):
        return "its values are no numbers: write a list of choices instead of a range"
    missing = [key for key in ("low", "high") if key not in given]
    return f"the range lacks {' and '.join(missing)}" if missing else ""


def _wrong_numbers(given: Mapping[Any, Any], kind: Any) -> str:
    """What is wrong with the types of a range, or nothing."""
    for key in ("low", "high", "step"):
        number = given.get(key, 1)
        if not _is_number(number) or (kind is int and not isinstance(number, int)):
            return f"{key} must be a {'whole ' if kind is int else ''}number, not {number!r}"
        if not _is_finite(number):
            return f"{key} must be finite, not {number!r}"
    log = given.get("log", False)
    return "" if isinstance(log, bool) else f"log must be true or false, not {log!r}"


def _wrong_range(low: float, high: float, step: float | None = None, log: bool = False, when: Any = None) -> str:  # noqa: ARG001
    """What is wrong with the numbers of a range, or nothing."""
    if low >= high:
        return f"low must be below high, but they are {low} and {high}"
    if log:
        both = "a range has either log or step" if step is not None else ""
        return both if low > 0 else f"low must be above 0 with log: true, not {low}"
    if step is not None and step <= 0:
        return f"step must be above 0, not {step}"
    first, last, one = (Fraction(str(number)) for number in (low, high, step or 1))  # as written: 0.3 is three times 0.1
    whole = step is None or (last - first) % one == 0
    return "" if whole else f"steps of {step} from {low} don't end at {high}"


def _check_conditions(found: list[Parameter], document: Mapping[Any, Any], place: str, faults: list[str]) -> None:
    known = {parameter.name: parameter for parameter in found}
    for parameter in found:
        for name, wanted in parameter.when.items():
            told = f"{parameter.name} in {place}: when"
            if name not in known:
                if name not in document:  # else what is wrong with it has been told
                    faults.append(f"{told} names {name!r}, which isn't in the space; there are: {', '.join(known)}")
                continue
            values = known[name].values
            if isinstance(values, Range):
                faults.append(f"{told} names {name}, which is a range: a condition needs a list of choices")
                continue
            keys = [option.key for option in values.options]
            strange = [key for key in wanted if not any(same(key, other) for other in keys)]
            faults += [f"{told}: {unknown(name, key, map(str, keys))}" for key in strange]
            if not wanted:
                faults.append(f"{told} names no choice of {name}; choices: {', '.join(map(str, keys))}")


def _ordered(found: list[Parameter], place: str, faults: list[str]) -> Iterator[Parameter]:
    """Each after those that its conditions name, else as in the YAML."""
    left, done = list(found), {name for p in found for name in p.when} - {p.name for p in found}
    while left:
        ready = next((parameter for parameter in left if parameter.when.keys() <= done), None)
        if ready is None:
            faults.append(f"the conditions of {', '.join(parameter.name for parameter in left)} in {place} name each other")
            return
        left.remove(ready)
        done.add(ready.name)
        yield ready
