"""The figures of a study, by Optuna: what MLflow keeps beside the search's runs."""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from experiments.search import OBJECTIVES
from experiments.study import Study

NAMES = {"validation_error": "validation error (%)", "seconds": "seconds of training", "parameters": "parameters"}
assert NAMES.keys() == OBJECTIVES.keys()
PAGE, ACROSS = 7.0, 3  # inches that a page is wide, and panels beside each other


def draw(study: Study, folder: Path) -> list[str]:
    """Write the figures that the trials allow: history, importances, parallel coordinates, slice, and a Pareto front.

    Args:
        study: of which at least two trials are complete, or nothing is drawn.
        folder: where they go, as PNG and PDF.

    Returns:
        Their names.
    """
    objectives = study.search.objectives
    trials = study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) < 2:
        return []
    parameters = sorted({name for trial in trials for name in trial.params})
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
    pruned = len(study.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    told = f"{len(trials)} complete trials" + (
        f"; without {pruned} that {'were' if pruned > 1 else 'was'} pruned" if pruned else ""
    )
    folder.mkdir(parents=True, exist_ok=True)
    return [name for name, plot in drawn.items() if _save(plot, folder / name, parameters, told)]


def _value(i: int, trial: FrozenTrial) -> float:
    return float(trial.values[i])


def _save(plot: Callable[[], Any], stem: Path, parameters: Sequence[str], told: str) -> bool:
    """Whether there was something to draw; ``told`` says of which trials."""
    from matplotlib import pyplot as plt

    before = mpl.get_backend()
    plt.switch_backend("agg")
    try:
        with warnings.catch_warnings(action="ignore"), plt.rc_context({"pdf.fonttype": 42}):
            plot()
            figure = plt.gcf()
            if stem.name.startswith("parallel"):
                _with_whole_names(figure.axes[0], parameters)
            _fit(figure, stem.name, told)
            box = None if figure.get_layout_engine() else "tight"
            figure.savefig(f"{stem}.png", dpi=150, bbox_inches=box, metadata={"Software": None})
            figure.savefig(f"{stem}.pdf", bbox_inches=box, metadata={"CreationDate": None})
    except (ValueError, RuntimeError, ZeroDivisionError):  # such as an importance of a parameter that never varied
        return False
    finally:
        plt.close("all")
        plt.switch_backend(before)
    return True


def _fit(figure: Figure, name: str, told: str) -> None:
    """Optuna's figure as wide as a page, with letters of 7 points, dark on white, and no label over another."""
    panels = [panel for panel in figure.axes if panel.get_label() != "<colorbar>"]
    figure.set_size_inches(PAGE, 3.6)
    if name.startswith("slice") and len(panels) > 1:
        _in_rows(figure, panels)
        figure.suptitle(f"Slice Plot ({told}; the darker, the later the trial)")
    else:
        panels[0].set_title(f"{panels[0].get_title('left') or panels[0].get_title()} ({told})")
        panels[0].set_title("", loc="left")
    if len(panels) == len(figure.axes):  # the layout can't place the bar of a figure that was made without it
        figure.set_layout_engine("constrained")
    for panel in figure.axes:
        panel.set_facecolor("white")
        _tick(panel.xaxis)
        _tick(panel.yaxis)
    for panel in panels:
        if name.startswith("parallel"):  # whose labels lie on the lines
            texts = [label.get_text() for label in panel.get_yticklabels()]
            if any("(" in text for text in texts):  # a long value would lie over the next axis
                panel.set_yticks(panel.get_yticks(), [re.sub(r"(?<=[(,]) *", "\n", text) for text in texts])
                panel.get_yticklabels()[-1].set_verticalalignment("top")  # below the title
            for label in panel.get_yticklabels():
                label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
        else:
            panel.grid(color="0.85", lw=0.5)
            panel.set_axisbelow(True)
        if panel.get_legend():
            panel.legend(loc="best")
    for text in figure.findobj(Text):
        text.set_fontsize(7)


def _tick(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, no more than fit."""
    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        narrow = MaxNLocator(nbins=3)  # where a decade has two ticks at most, and matplotlib would take whatever fits a line
        axis.set_major_locator(narrow if high < 5 * low else LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _with_whole_names(panel: Axes, parameters: Sequence[str]) -> None:
    """Names of parameters as they are: Optuna, which has the axes in the names' order, cuts them to 17 letters.

    Args:
        panel: whose places on x are the objective and the parameters.
        parameters: in order.
    """
    shown = [label.get_text() for label in panel.get_xticklabels()]
    objectives = shown[: len(shown) - len(parameters)]
    cut = zip(shown[len(objectives) :], parameters, strict=True)
    if not all(name.startswith(text.removesuffix("...")) for text, name in cut):  # another order, so none that is known
        return
    panel.set_xticks(panel.get_xticks(), [*objectives, *parameters], rotation=40, ha="right", rotation_mode="anchor")


def _in_rows(figure: Figure, panels: Sequence[Axes]) -> None:
    """Panels that stood side by side, below each other; their colour's bar goes, since a title can say it."""
    for bar in set(figure.axes) - set(panels):
        bar.remove()
    down = -(-len(panels) // ACROSS)
    figure.set_size_inches(PAGE, 1.9 * down + 0.3)
    grid = GridSpec(down, ACROSS, figure=figure)
    for i, panel in enumerate(panels):
        panel.set_subplotspec(grid[i // ACROSS, i % ACROSS])
        panel.tick_params(labelleft=i % ACROSS == 0)
        panel.set_ylabel(panels[0].get_ylabel() if i % ACROSS == 0 else "")
