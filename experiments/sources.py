"""What to run next: a grid, read from YAML and validated whole before anything starts."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.errors import InputError, is_text, unknown

SHIPPED = Path(__file__).parent / "grids"
KEYS = ("description", "base", "axes", "also", "seeds")
SHORT = {
    "routing_iterations": "r",
    "test_routing_iterations": "test_r",
    "reconstruction_weight": "recon",
    "learning_rate": "lr",
    "lr_schedule": "schedule",
}
"""What names of runs call the fields that are varied most: of a name, MLflow shows some twenty letters."""
MOST_SEEDS = 10_000  # of a grid, or of a search's trial and its confirmation
SEEDS = "seeds are given by the grid's key 'seeds'"


@dataclass(frozen=True)
class Cell:
    """Configs that differ in their seed only, named by what sets them apart from the grid's other cells."""

    label: str
    configs: tuple[RunConfig, ...]


@dataclass(frozen=True)
class Grid:
    """A product of axes, single extra cells, and seeds."""

    name: str
    description: str
    text: str  # the YAML itself
    cells: tuple[Cell, ...]

    @property
    def configs(self) -> Iterator[tuple[str, RunConfig]]:
        """Every (cell label, config), seed by seed, so that all cells have a result before one has them all."""
        for row in itertools.zip_longest(*(cell.configs for cell in self.cells)):
            yield from ((cell.label, config) for cell, config in zip(self.cells, row, strict=True))


def read_grid(name: str) -> Grid:
    """A shipped grid by its name, or any by its path.

    Raises:
        InputError: no such grid, or something in it is wrong; everything wrong is named at once.
    """
    return parse_grid(*read_named(name, SHIPPED, "grid"))


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
    except (YAMLError, ValueError) as error:
        raise InputError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{place} is nested too deeply") from None
    if not isinstance(document, Mapping):
        raise InputError(f"{place} must be a mapping with some of the keys {', '.join(keys)}")
    return document, [unknown("key", key, keys, place) for key in document if key not in keys]


def parse_grid(text: str, name: str, place: str) -> Grid:
    """A grid from its YAML 1.2 text; ``place`` is what messages call it."""
    document, faults = read_document(text, place, KEYS)
    base = read_mapping(document.get("base"), f"base of {place}", faults)
    axes = read_mapping(document.get("axes"), f"axes of {place}", faults)
    listed = _list(document.get("also", []), f"also of {place}", faults)
    if None in listed:
        faults.append(f"also of {place} has an empty cell")
    also = [read_mapping(cell, f"also of {place}", faults) for cell in listed]
    for key in axes:
        if key in base:
            faults.append(f"{key} stands both in base and in axes of {place}; leave it in one of them")
        if not isinstance(axes[key], list) or not axes[key]:
            faults.append(f"axis {key} of {place} must be a list of one value or more, not {axes[key]!r}")
    seeds = _seeds(document.get("seeds", 1), place, faults)
    if not isinstance(description := document.get("description", ""), str) or not is_text(description):
        faults.append(f"description of {place} must be text, not {description!r}")
    if not base and not axes and not also and not faults:
        faults.append(f"{place} is an empty grid: give it a base, axes or also")
    if faults:
        raise InputError("\n".join(faults))
    chosen = [base | dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    chosen = (chosen if axes or not also else []) + [base | cell for cell in also]
    return Grid(name, description.strip(), text, _cells(chosen, seeds, place))


def make_grid(name: str, description: str, cells: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Grid:
    """A grid of single cells, whose text is YAML that gives it again."""
    listed = [{key: list(value) if isinstance(value, tuple) else value for key, value in cell.items()} for cell in cells]
    document = {"description": description, "also": listed, "seeds": list(seeds)}
    text = json.dumps(document, indent=1, ensure_ascii=False)  # which YAML contains, but for pairs of surrogates
    return parse_grid(text, name, f"grid {name}")


def _cells(chosen: Sequence[Mapping[str, Any]], seeds: Sequence[int], place: str) -> tuple[Cell, ...]:
    faults: dict[str, None] = {}  # a set that keeps its order: one wrong value spoils many cells
    cells: list[tuple[RunConfig, ...]] = []
    for values in chosen:
        try:
            cells.append(tuple(make_config({**values, "seed": seed}, place) for seed in seeds))
        except InputError as error:
            faults |= dict.fromkeys(str(error).splitlines())
    if faults:
        raise InputError("\n".join(faults))
    firsts = [cell[0] for cell in cells]
    varying = [name for name in FIELDS if len({getattr(first, name) for first in firsts}) > 1]
    labels = [label(first, varying) for first in firsts]
    before: dict[RunConfig, int] = {}
    for i, first in enumerate(firsts):
        if (same := before.setdefault(counted(first), i)) != i:
            which = f"{place} has two equal cells, the {same + 1}. and the {i + 1}.: {labels[i]}"
            raise InputError(which if first == firsts[same] else f"{which} trains on the same images as {labels[same]}")
    if len(set(labels)) < len(labels):  # they differ behind the digits that are shown
        labels = [label(first, varying, digits=17) for first in firsts]
    return tuple(Cell(*pair) for pair in zip(labels, cells, strict=True))


def counted(config: RunConfig) -> RunConfig:
    """The config with the number of images that a train_size of 0 stands for: of equal ones one training tells all."""
    return config.model_copy(update={"train_size": config.training_images})


def label(config: RunConfig, names: Sequence[str], digits: int = 4) -> str:
    """The named fields of a config as ``routing_iterations=3 reconstruction_weight=0``, drawn numbers shortened."""
    return shortened(" ".join(f"{name}={_short(getattr(config, name))}" for name in names) or "base", digits)


def brief_label(text: str) -> str:
    """A label as it names runs in MLflow: ``r=3 recon=0``; of different labels, different ones."""
    return re.sub(r"(?:^|(?<= ))\w+(?==)", lambda found: SHORT.get(found[0], found[0]), text)


def shortened(text: str, digits: int = 4) -> str:
    """The text with fewer digits of numbers that nobody wrote: 0.005099361863064981, as a sampler draws it, is 0.005099."""
    return re.sub(r"\d+\.\d{9,}(?:e[+-]?\d+)?", lambda found: f"{float(found[0]):.{digits}g}", text)


def _short(value: object) -> str:
    """As YAML has it, without spaces: ``0.0005``, ``true``, ``[512,1024]``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_short, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value).replace(" ", "")


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


def _list(value: Any, place: str, faults: list[str]) -> list[Any]:
    if isinstance(value, list):
        return value
    faults.append(f"{place} must be a list, not {value!r}")
    return []


def _seeds(value: Any, place: str, faults: list[str]) -> list[int]:
    if (len(value) if isinstance(value, list) else value if isinstance(value, int) else 0) > MOST_SEEDS:
        faults.append(f"seeds of {place} must be {MOST_SEEDS} at most")
        return [0]
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    whole = isinstance(seeds, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds
    )
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        faults.append(f"seeds of {place} must be a number of 1 or more, or a list of different seeds, not {value!r}")
        return [0]
    return seeds
