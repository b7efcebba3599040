"""Samplers and pruners by name, with their parameters: ``tpe(n_startup_trials=20)``. Meanings and defaults are Optuna's.

Each is a recipe, from which study.py makes the object.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from capsnet.variants import require


@dataclass(frozen=True)
class Recipe:
    """The name of a class of Optuna's, and its arguments."""

    name: str
    arguments: Mapping[str, int | float]


def tpe(*, n_startup_trials: int = 10, n_ei_candidates: int = 24, seed: int = 0) -> Recipe:
    """Tree-structured Parzen estimator, aware of trials that are running; multivariate for one objective."""
    require(n_startup_trials >= 0, "n_startup_trials", "a number of trials, 0 or more", n_startup_trials)
    require(n_ei_candidates >= 1, "n_ei_candidates", "1 or more", n_ei_candidates)
    return _recipe("TPESampler", seed, n_startup_trials=n_startup_trials, n_ei_candidates=n_ei_candidates)


def random(*, seed: int = 0) -> Recipe:
    """Each trial independent of the others."""
    return _recipe("RandomSampler", seed)


def cmaes(*, n_startup_trials: int = 1, seed: int = 0) -> Recipe:
    """Covariance matrix adaptation: for numbers alone; choices, and what is conditional, are drawn at random."""
    require(n_startup_trials >= 0, "n_startup_trials", "a number of trials, 0 or more", n_startup_trials)
    return _recipe("CmaEsSampler", seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False)


def nsga2(*, population_size: int = 50, crossover_prob: float = 0.9, swapping_prob: float = 0.5, seed: int = 0) -> Recipe:
    """NSGA-II: a genetic algorithm for several objectives."""
    require(population_size >= 2, "population_size", "2 or more", population_size)
    for name, value in (("crossover_prob", crossover_prob), ("swapping_prob", swapping_prob)):
        require(0 <= value <= 1, name, "in [0, 1]", value)
    return _recipe(
        "NSGAIISampler", seed, population_size=population_size, crossover_prob=crossover_prob, swapping_prob=swapping_prob
    )


SAMPLERS: dict[str, Callable[..., Recipe]] = {"tpe": tpe, "random": random, "cmaes": cmaes, "nsga2": nsga2}
SINGLE = {"cmaes"}  # for one objective only


def none() -> Recipe:
    """Every trial trains all its epochs."""
    return Recipe("NopPruner", {})


def median(*, n_startup_trials: int = 5, n_warmup_steps: int = 0, interval_steps: int = 1) -> Recipe:
    """Prunes a trial whose best epoch so far is worse than the median of the others at the same epoch.

    Nothing is pruned in the first ``n_warmup_steps`` epochs, nor before ``n_startup_trials`` trials are complete.
    """
    require(n_startup_trials >= 0, "n_startup_trials", "a number of trials, 0 or more", n_startup_trials)
    require(n_warmup_steps >= 0, "n_warmup_steps", "a number of epochs, 0 or more", n_warmup_steps)
    require(interval_steps >= 1, "interval_steps", "a number of epochs, 1 or more", interval_steps)
    arguments = {"n_startup_trials": n_startup_trials, "n_warmup_steps": n_warmup_steps, "interval_steps": interval_steps}
    return Recipe("MedianPruner", arguments)


def hyperband(*, min_resource: int = 1, reduction_factor: int = 3) -> Recipe:
    """Brackets of successive halving over epochs (Li et al. 2018); its most is the epochs of a whole trial."""
    require(min_resource >= 1, "min_resource", "a number of epochs, 1 or more", min_resource)
    require(reduction_factor >= 2, "reduction_factor", "2 or more", reduction_factor)
    return Recipe("HyperbandPruner", {"min_resource": min_resource, "reduction_factor": reduction_factor})


PRUNERS: dict[str, Callable[..., Recipe]] = {"none": none, "median": median, "hyperband": hyperband}


def _recipe(name: str, seed: int, **arguments: int | float) -> Recipe:
    require(0 <= seed < 2**31, "seed", "0 or more", seed)
    return Recipe(name, {**arguments, "seed": seed})
