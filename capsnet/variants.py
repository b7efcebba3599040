"""A variant with its parameters as one readable value: ``exponential(gamma=0.96, every=2000)``.

The same text is the YAML value, the flag, the MLflow parameter and the label of a table's row. A variant is a plain
function with annotated keyword parameters; it checks their ranges and returns what it makes.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from capsnet.errors import InputError, unknown


@dataclass(frozen=True)
class Variant:
    """A parsed value: its canonical text, the name and the arguments (defaults included), and what the function made."""

    text: str
    name: str
    arguments: dict[str, int | float]
    made: Any


def parse(text: str, registry: Mapping[str, Callable[..., Any]], what: str) -> Variant:
    """Read ``name`` or ``name(key=value, ...)`` and call the registered function.

    Two spellings of one variant have one canonical text (parameters in the order of the signature, those at their default
    left out), because a configuration is its own identity.

    Raises:
        InputError: malformed text, an unknown name or parameter, a missing or wrongly typed one, a value out of range.
    """
    name, given = _read(text, what)
    if name not in registry:
        raise InputError(unknown(what, name, registry))
    function = registry[name]
    parameters = _parameters(function)
    for key in given:
        if key not in parameters:
            if not parameters:
                raise InputError(f"{what} '{text}': {name} takes no parameter, so {key!r} has no meaning")
            raise InputError(unknown("parameter", key, parameters, f"{what} '{text}'"))
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise InputError(f"{what} '{text}' lacks {', '.join(missing)}; write {usage(name, function)}")
    for key, value in given.items():
        wanted = parameters[key].annotation
        allowed = (int, float) if wanted is float else (wanted,)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise InputError(f"{what} '{text}': {key} must be of type {wanted.__name__}, not {value!r}")
    arguments = {key: given.get(key, p.default) for key, p in parameters.items()}
    try:
        made = function(**arguments)
    except ValueError as error:
        raise InputError(f"{what} '{text}': {error}") from None
    shown = [f"{key}={_number(arguments[key])}" for key, p in parameters.items() if arguments[key] != p.default]
    return Variant(f"{name}({', '.join(shown)})" if shown else name, name, arguments, made)


def usage(name: str, function: Callable[..., Any]) -> str:
    """How a variant is written, for help and messages: ``exponential(gamma=..., every=..., floor=0, warmup=0)``."""
    parameters = inspect.signature(function).parameters.values()
    shown = [f"{p.name}={'...' if p.default is p.empty else _number(p.default)}" for p in parameters]
    return f"{name}({', '.join(shown)})" if shown else name


def require(holds: bool, name: str, condition: str, value: float) -> None:
    """Raise a ValueError that a parameter must be so, if it isn't; :func:`parse` says of which variant."""
    if not holds:
        raise ValueError(f"{name} must be {condition}, not {value}")


@cache
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


@lru_cache(maxsize=1024)  # thousands of configs hold a few texts
def _read(text: str, what: str) -> tuple[str, Mapping[str, Any]]:
    malformed = InputError(f"malformed {what} {text!r}; write a name, or a name with parameters: name(key=value, ...)")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two from a text nested too deeply
        raise malformed from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise malformed
    given: dict[str, Any] = {}
    for keyword in node.keywords:
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            raise malformed from None
        if keyword.arg is None or keyword.arg in given:
            raise malformed
        given[keyword.arg] = value
    return node.func.id, given


def _number(value: float) -> str:
    return repr(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
