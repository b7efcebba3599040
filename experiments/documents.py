"""Reads the YAML of grids and searches as far as they are alike, and says all that is wrong with it at once."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from capsnet.config import FIELDS
from capsnet.errors import InputError, unknown

SEEDS = "seeds are given by the grid's key 'seeds'"


def read_named(name: str, folder: Path, what: str) -> tuple[str, str, str]:
    """The text of a shipped file by its name, or of any by its path, with its name and what messages call it.

    Raises:
        InputError: there is no such file, or it can't be read.
    """
    path = Path(name)
    shipped = sorted(p.stem for p in folder.glob("*.yaml"))
    if not name.endswith((".yaml", ".yml")):
        if name not in shipped:
            near = f"; did you mean {name}.yaml?" if Path(f"{name}.yaml").is_file() else ""
            if path.name == name and not path.is_file():
                raise InputError(f"{unknown(what, name, shipped)}, or the path of a .yaml file{near}")
            raise InputError(f"the {what} {name} is no .yaml file{near}; shipped ones: {', '.join(shipped)}")
        path = folder / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why, beside = getattr(error, "strerror", None) or error, [str(p) for p in path.parent.glob("*.y*ml")]
        named = [] if str(path) in beside else get_close_matches(str(path), beside, n=1)
        hint = f"did you mean {named[0]}?" if named else f"shipped ones: {', '.join(shipped)}"
        raise InputError(f"the {what} {path} can't be read: {why}; {hint}") from None
    return text, path.stem, str(path)


def read_document(text: str, place: str, keys: Sequence[str]) -> tuple[Mapping[Any, Any], list[str]]:
    """A mapping from its YAML 1.2 text, and what is wrong with its keys.

    Raises:
        InputError: it is no YAML, or no mapping.
    """
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        found = re.search(r'duplicate key "(.*?)" with value', str(error.problem))
        at = f", in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{place} has the key {found[1] if found else ''!r} twice{at}") from None
    except (YAMLError, ValueError) as error:
        raise InputError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{place} is nested too deeply") from None
    if not isinstance(document, Mapping):
        raise InputError(f"{place} must be a mapping with some of the keys {', '.join(keys)}")
    return document, [unknown("key", key, keys, place) for key in document if key not in keys]


def read_mapping(value: Any, place: str, faults: list[str], seeds: str = SEEDS) -> dict[str, Any]:
    """Fields and values; what is wrong with their names is added to the faults, with where seeds stand instead."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.append(f"{place} must be a mapping of fields to values, not {value!r}")
        return {}
    for key in value:
        if key == "seed":
            faults.append(f"seed stands in {place}; {seeds}")
        elif key not in FIELDS:
            faults.append(unknown("key", key, FIELDS, place))
    return dict(value)


def read_list(value: Any, place: str, faults: list[str]) -> list[Any]:
    """A list; that it is none is added to the faults."""
    if isinstance(value, list):
        return value
    faults.append(f"{place} must be a list, not {value!r}")
    return []


def refuse(faults: Sequence[str]) -> None:
    """Raise them as one InputError, if there are any."""
    if faults:
        raise InputError("\n".join(faults))
