"""The figures of a study, by Optuna: what MLflow keeps beside the search's runs."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from optuna.trial import FrozenTrial, TrialState

from experiments.search import OBJECTIVES
from experiments.study import Study

NAMES = {"validation_error": "validation error (%)", "seconds": "seconds of training", "parameters": "parameters"}
assert NAMES.keys() == OBJECTIVES.keys()


def draw(study: Study, folder: Path) -> list[str]:
    """Write the figures that the trials allow: history, importances, parallel coordinates, slice, and a Pareto front.

    Args:
        study: of which at least two trials are complete, or nothing is drawn.
        folder: where they go, as PNG.

    Returns:
        Their names.
    """
    objectives = study.search.objectives
    if len(study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 2:
        return []
    from optuna.visualization import matplotlib as plots

    drawn: dict[str, Callable[[], Any]] = {}
    for i, objective in enumerate(objectives):
        suffix = f"-{objective}" if len(objectives) > 1 else ""
        target = partial(_value, i) if suffix else None
        for name, plot in (
            ("history", plots.plot_optimization_history),
            ("importances", plots.plot_param_importances),
            ("parallel_coordinates", plots.plot_parallel_coordinate),
            ("slice", plots.plot_slice),
        ):
            drawn[name + suffix] = partial(plot, study.study, target=target, target_name=NAMES[objective])
    if len(objectives) in (2, 3):
        drawn["pareto_front"] = partial(plots.plot_pareto_front, study.study, target_names=[NAMES[name] for name in objectives])
    folder.mkdir(parents=True, exist_ok=True)
    return [name for name, plot in drawn.items() if _save(plot, folder / f"{name}.png")]


def _value(i: int, trial: FrozenTrial) -> float:
    return float(trial.values[i])


def _save(plot: Callable[[], Any], path: Path) -> bool:
    """Whether there was something to draw."""
    from matplotlib import pyplot as plt

    before = mpl.get_backend()
    plt.switch_backend("agg")
    try:
        with warnings.catch_warnings(action="ignore"), plt.rc_context({"figure.figsize": (9, 5), "savefig.dpi": 150}):
            plot()
            figure = plt.gcf()
            figure.savefig(path, bbox_inches="tight")
    except (ValueError, RuntimeError, ZeroDivisionError):  # such as an importance of a parameter that never varied
        return False
    finally:
        plt.close("all")
        plt.switch_backend(before)
    return True
