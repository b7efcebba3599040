"""What to run next: a grid, read from YAML and validated whole before anything starts."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.errors import InputError, is_text
from experiments.documents import read_document, read_list, read_mapping, read_named, refuse
from experiments.exclusions import left, proposal, read_exclusion
from experiments.labels import label

SHIPPED = Path(__file__).parent / "grids"
KEYS = ("description", "base", "axes", "exclude", "also", "seeds")
ASKED = ("test_sets", "test_routing_iterations")  # fields that ask a trained network something, and train it no other way
MOST_SEEDS = 10_000  # of a grid, or of a search's trial and its confirmation


@dataclass(frozen=True)
class Cell:
    """Configs that differ in their seed only, named by what sets them apart from the grid's other cells."""

    label: str
    configs: tuple[RunConfig, ...]


@dataclass(frozen=True)
class Grid:
    """A product of axes, less what it excludes, single extra cells, and seeds."""

    name: str
    description: str
    text: str  # the YAML itself
    cells: tuple[Cell, ...]

    @property
    def configs(self) -> Iterator[tuple[str, RunConfig]]:
        """Every (cell label, config), seed by seed, so that all cells have a result before one has them all."""
        for row in itertools.zip_longest(*(cell.configs for cell in self.cells)):
            yield from ((cell.label, config) for cell, config in zip(self.cells, row, strict=True))

    @property
    def remarks(self) -> list[str]:
        """That cells train the same network, as those with uniform routing and with a single pass of dynamic routing do."""
        alike: dict[RunConfig, list[Cell]] = {}
        for cell in self.cells:
            alike.setdefault(_computed(cell.configs[0]), []).append(cell)
        several = [members for members in alike.values() if len(members) > 1]
        if not several:
            return []
        first, second, *_ = several[0]
        more = sum(map(len, several)) - len(several)
        others = f", and so on: {more} cells more than there are networks" if more > 1 else ""
        uniform = any(cell.configs[0].routing == "uniform" for members in several for cell in members)
        why = ["uniform routing is dynamic routing with r = 1"] * uniform

        def differ(field: str) -> bool:
            return any(len({getattr(cell.configs[0], field) for cell in members}) > 1 for members in several)

        why += ["without reconstruction there is no decoder, of whatever sizes"] * differ("decoder_hidden")
        why += ["what it is tested on changes no training, and one cell can have all of it"] * any(map(differ, ASKED))
        told = f" ({' and '.join(why)})" if why else ""
        return [f"the same network is trained twice, as {first.label} and {second.label}{others}{told}; one of them can go"]


def read_grid(name: str) -> Grid:
    """A shipped grid by its name, or any by its path.

    Raises:
        InputError: no such grid, or something in it is wrong; everything wrong is named at once.
    """
    return parse_grid(*read_named(name, SHIPPED, "grid"))


def parse_grid(text: str, name: str, place: str) -> Grid:
    """A grid from its YAML 1.2 text; ``place`` is what messages call it."""
    document, faults = read_document(text, place, KEYS)
    base = read_mapping(document.get("base"), f"base of {place}", faults)
    axes = read_mapping(document.get("axes"), f"axes of {place}", faults)
    listed = read_list(document.get("also", []), f"also of {place}", faults)
    if None in listed:
        faults.append(f"also of {place} has an empty cell")
    also = [read_mapping(cell, f"also of {place}", faults) for cell in listed]
    for key in axes:
        if key in base:
            faults.append(f"{key} stands both in base and in axes of {place}; leave it in one of them")
        if not isinstance(axes[key], list) or not axes[key]:
            faults.append(f"axis {key} of {place} must be a list of one value or more, not {axes[key]!r}")
            axes[key] = []
        twice = [value for i, value in enumerate(axes[key]) if value in axes[key][:i]]
        if twice:
            faults.append(f"axis {key} of {place} has {twice[0]!r} twice")
    where = f"exclude of {place}"
    excluded = [read_mapping(entry, where, faults) for entry in read_list(document.get("exclude", []), where, faults)]
    exclusions = [read_exclusion(entry, axes, where, faults) for entry in excluded]
    seeds = _seeds(document.get("seeds", 1), place, faults)
    if not isinstance(description := document.get("description", ""), str) or not is_text(description):
        faults.append(f"description of {place} must be text, not {description!r}")
    if not base and not axes and not also and not faults:
        faults.append(f"{place} is an empty grid: give it a base, axes or also")
    refuse(faults)
    combined = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    product = left(combined, exclusions, where, faults) if axes or not also else []
    cells, spoilt = _read([{**base, **cell} for cell in (*product, *also)], seeds, place)
    bad = [[cell for i, cell in enumerate(product) if i in those] for those in spoilt.values()]
    good = [cell for i, cell in enumerate(product) if not any(i in those for those in spoilt.values())]
    way = proposal(bad, good, axes, exclusions)
    refuse([*faults, *spoilt, *([f"to leave out what can't be: {way}"] if way else [])])
    return Grid(name, description.strip(), text, _labelled(cells, place))


def make_grid(name: str, description: str, cells: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Grid:
    """A grid of single cells, whose text is YAML that gives it again."""
    listed = [{key: list(value) if isinstance(value, tuple) else value for key, value in cell.items()} for cell in cells]
    document = {"description": description, "also": listed, "seeds": list(seeds)}
    text = json.dumps(document, indent=1, ensure_ascii=False)  # which YAML contains, but for pairs of surrogates
    return parse_grid(text, name, f"grid {name}")


def _read(
    chosen: Sequence[Mapping[str, Any]], seeds: Sequence[int], place: str
) -> tuple[list[tuple[RunConfig, ...]], dict[str, set[int]]]:
    """The configs of each cell, and what is wrong -> the cells that it is wrong with: one wrong value spoils many."""
    cells, faults = [], dict[str, set[int]]()
    for i, values in enumerate(chosen):
        try:
            cells.append(tuple(make_config({**values, "seed": seed}, place) for seed in seeds))
        except InputError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, set()).add(i)
    return cells, faults


def _labelled(cells: Sequence[tuple[RunConfig, ...]], place: str) -> tuple[Cell, ...]:
    firsts = [cell[0] for cell in cells]
    varying = [name for name in FIELDS if len({getattr(first, name) for first in firsts}) > 1]
    named = [[name for name in varying if name not in first.network.unread] for first in firsts]
    labels = [label(*each) for each in zip(firsts, named, strict=True)]
    before: dict[RunConfig, int] = {}
    for i, first in enumerate(firsts):
        if (same := before.setdefault(counted(first), i)) != i:
            which = f"{place} has two equal cells, the {same + 1}. and the {i + 1}.: {labels[i]}"
            raise InputError(which if first == firsts[same] else f"{which} trains on the same images as {labels[same]}")
    if len(set(labels)) < len(labels):  # they differ behind the digits that are shown
        labels = [label(first, names, digits=17) for first, names in zip(firsts, named, strict=True)]
    return tuple(Cell(*pair) for pair in zip(labels, cells, strict=True))


def _computed(config: RunConfig) -> RunConfig:
    """A config that stands for all that train the same network, to the bit."""
    same: dict[str, object] = {"routing": "dynamic"} if config.routing == "uniform" else {}
    same |= {"decoder_hidden": ()} if config.reconstruction_weight == 0 else {}
    same |= dict.fromkeys(ASKED, ())
    return counted(config).model_copy(update=same)


def counted(config: RunConfig) -> RunConfig:
    """The config with the number of images that a train_size of 0 stands for: of equal ones one training tells all."""
    return config.model_copy(update={"train_size": config.training_images})


def _seeds(value: Any, place: str, faults: list[str]) -> list[int]:
    if (len(value) if isinstance(value, list) else value if isinstance(value, int) else 0) > MOST_SEEDS:
        faults.append(f"seeds of {place} must be {MOST_SEEDS} at most")
        return [0]
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    whole = isinstance(seeds, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds
    )
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        faults.append(
            f"seeds of {place} must be a number of 1 or more, or a list of different whole numbers from 0, not {value!r}"
        )
        return [0]
    return seeds
