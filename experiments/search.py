"""A search: what is tried, how it is chosen, and what confirms it. search_yaml.py reads one."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from capsnet.config import RunConfig, make_config
from capsnet.variants import Variant
from experiments.significance import ALPHA, seeds_needed, smallest_p
from experiments.sources import Grid, counted, make_grid
from experiments.space import Space

OBJECTIVES = {
    "validation_error": "in %, after the last epoch",
    "seconds": "of training, validation not included",
    "parameters": "of the network",
}
"""What can be minimised, all of it known without the test set."""

PRUNED_BY = "validation_error"  # the objective that each epoch has


@dataclass(frozen=True)
class Confirm:
    """How the best trials are trained again."""

    top: int = 3  # trials
    seeds: int = 6  # of each, none of which any trial had
    defaults: bool = False  # and what base and the defaults make, beside them


@dataclass(frozen=True)
class Search:
    """A space, and how it is searched."""

    name: str
    description: str
    text: str  # the YAML itself
    base: Mapping[str, Any]
    space: Space
    trials: int | None  # None = as many as the time budget allows
    seconds: float | None  # of launches; None = no limit
    sampler: Variant
    pruner: Variant
    objectives: tuple[str, ...]
    seeds_per_trial: int
    confirm: Confirm

    @cached_property
    def corners(self) -> tuple[RunConfig, ...]:
        """Configs at which every parameter is at an end of its range."""
        return tuple(make_config({**self.base, **values}, self.name) for values in self.space.corners())

    @property
    def epochs(self) -> int:
        """The most that a trial can have."""
        return max(config.epochs for config in self.corners)

    @property
    def remarks(self) -> list[str]:
        """What will be regretted afterwards: seeds of which no difference between the confirmed can be significant."""
        others, seeds = self.confirm.top + self.confirm.defaults - 1, self.confirm.seeds
        if others < 1 or (least := min(1.0, others * smallest_p(seeds))) <= ALPHA:
            return []
        few = f"{seeds} seed{'s' * (seeds > 1)}"
        return [
            f"confirm trains {others + 1} settings on {few}, of which none can be told from another: p, corrected, will be "
            f"{least:.4g} or more, whatever comes out; it takes {seeds_needed(others)} seeds"
        ]

    def config(self, values: Mapping[str, Any], seed: int) -> RunConfig:
        """The config of a point of the space.

        Raises:
            InputError: the point is refused; its corners were not.
        """
        return make_config({**self.base, **values, "seed": seed}, f"a trial of {self.name}")

    def confirmation(self, best: Iterable[Mapping[str, Any]]) -> Grid:
        """The grid that trains the best points again, on seeds that no trial had.

        Args:
            best: values of the space, the best first; those that make an equal config count once.
        """
        seeds = range(self.seeds_per_trial, self.seeds_per_trial + self.confirm.seeds)
        distinct = {counted(make_config({**self.base, **values}, self.name)): {**self.base, **values} for values in best}
        chosen = dict(itertools.islice(distinct.items(), self.confirm.top))
        if self.confirm.defaults:
            chosen[counted(make_config(self.base, self.name))] = dict(self.base)
        # the experiment's tables and pages are of this grid, so it says what the search asked
        told = f"The best trials of the search {self.name}, trained again on fresh seeds.\n\n{self.description}"
        return make_grid(f"{self.name}-confirm", told, list(chosen.values()), seeds)
