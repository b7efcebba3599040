"""The space of a search: fields of RunConfig and the values that each may take, some of them under a condition.

    learning_rate: {low: 1e-4, high: 1e-2, log: true}
    class_dim: {low: 8, high: 32, step: 8}
    decoder_hidden: [[512, 1024], [128]]
    routing: [dynamic, uniform]
    routing_iterations: {low: 1, high: 5, when: {routing: dynamic}}   # else what base has
    lr_schedule:
      - constant
      - exponential: {gamma: {low: 0.5, high: 0.99}, every: [500, 2000]}   # parameters of its own

Nothing here is particular to a field: whether numbers are whole follows its type, and RunConfig refuses what it doesn't accept.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CORNERS = 4096  # points of a space that are looked at before the first trial

Key = str | int | float | bool


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both included: all of them, or in steps, or with a logarithm that is uniform."""

    low: float
    high: float
    whole: bool
    step: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Option:
    """One of several values; a variant's may have parameters of its own."""

    key: Key  # how Optuna keeps it: numbers, texts, and JSON for lists
    value: Any
    parts: "tuple[Parameter, ...]" = ()
    fixed: Mapping[str, float] = field(default_factory=dict)  # parameters of a variant that aren't searched

    def made(self, values: Mapping[str, Any]) -> Any:
        """The field's value: ``name(key=value, ...)`` of a variant whose parameters have these values."""
        if not self.parts and not self.fixed:
            return self.value
        return f"{self.key}({', '.join(f'{name}={value!r}' for name, value in {**self.fixed, **values}.items())})"


@dataclass(frozen=True)
class Choice:
    """Several values without an order."""

    options: tuple[Option, ...]

    def option(self, key: Key) -> Option:
        """The one that Optuna calls so."""
        return next(option for option in self.options if same(option.key, key))


Values = Range | Choice
Pick = Callable[[str, Values], Any]  # (name of a parameter, what there is) -> a number, or the key of an option


@dataclass(frozen=True)
class Parameter:
    """A field, or a variant's own parameter such as ``lr_schedule.exponential.gamma``."""

    name: str
    values: Values
    when: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)  # choices on which it depends, and the keys that allow it

    def holds(self, picked: Mapping[str, Any]) -> bool:
        """Whether its conditions hold; one on a parameter that isn't there doesn't."""
        return all(name in picked and picked[name] in keys for name, keys in self.when.items())


@dataclass(frozen=True)
class Space:
    """Parameters, each after those that it depends on."""

    parameters: tuple[Parameter, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it sets."""
        return tuple(parameter.name for parameter in self.parameters)

    def values(self, pick: Pick) -> dict[str, Any]:
        """A point of the space: field -> value, without those whose conditions don't hold.

        Args:
            pick: asked for each parameter that the point has, in order.
        """
        picked: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.holds(picked):
                found[parameter.name] = _value(parameter, pick, picked)
        return found

    def corners(self) -> Iterator[dict[str, Any]]:
        """Points at which every parameter is at an end of its range: all of them, or if there are too many, some of them."""
        points = list(itertools.islice(self._all_corners(), CORNERS + 1))
        if len(points) <= CORNERS:
            yield from points
            return
        generator = random.Random(0)
        for _ in range(CORNERS):
            yield self.values(lambda _, values: generator.choice(_ends(values)))

    def _all_corners(self) -> Iterator[dict[str, Any]]:
        path: list[tuple[int, int]] = []  # what was picked at each question, and out of how many
        while True:
            questions = itertools.count()

            def pick(_: str, values: Values, questions: Iterator[int] = questions) -> Any:
                question, ends = next(questions), _ends(values)
                if question == len(path):
                    path.append((0, len(ends)))
                return ends[path[question][0]]

            yield self.values(pick)
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = path[-1][0] + 1, path[-1][1]


def _value(parameter: Parameter, pick: Pick, picked: dict[str, Any]) -> Any:
    values = parameter.values
    picked[parameter.name] = answer = pick(parameter.name, values)
    if isinstance(values, Range):
        return answer
    option = values.option(answer)
    parts = {part.name.rpartition(".")[2]: _value(part, pick, picked) for part in option.parts}
    return option.made(parts)


def _ends(values: Values) -> list[Any]:
    return [values.low, values.high] if isinstance(values, Range) else [option.key for option in values.options]


def same(one: Any, other: Any) -> bool:
    """Whether two keys are one choice: 1 and 1.0 are, 1 and true are not."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)
