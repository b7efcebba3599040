"""The figures of a study, where Optuna's own can't be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments import study_figures
from experiments.study import Study

NAMES = ["class_dim", "lr_schedule", "lr_schedule.exponential.gamma", "reconstruction_weight"]
LONG = "exponential(gamma=0.5, every=50)"


@pytest.fixture
def study() -> Study:
    """As many trials as a figure needs, the names as long as those of a search."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("lr_schedule", ["constant", LONG]) == LONG:
            trial.suggest_float("lr_schedule.exponential.gamma", 0.3, 0.9)
        weight = trial.suggest_float("reconstruction_weight", 0, 1e-2)
        return weight + trial.suggest_int("class_dim", 8, 24, step=8)

    made.optimize(objective, n_trials=8)
    return cast("Study", SimpleNamespace(study=made, search=SimpleNamespace(objectives=("validation_error",))))


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that are saved, by name."""
    found: dict[str, Figure] = {}
    real = Figure.savefig

    def savefig(self: Figure, name: str, **given: Any) -> None:
        found[Path(name).stem] = self
        real(self, name, **given)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


@pytest.mark.parametrize(("pruned", "said"), [(0, ""), (1, "; without 1 that was pruned"), (3, "; without 3 that were pruned")])
def test_each_figure_says_of_which_trials_it_is(
    study: Study, saved: dict[str, Figure], tmp_path: Path, pruned: int, said: str
) -> None:
    for _ in range(pruned):
        trial = study.study.ask()
        trial.suggest_int("class_dim", 8, 24, step=8)
        study.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    names = study_figures.draw(study, tmp_path)
    assert {"history", "importances", "slice"} <= set(names)
    for name in names:
        words = " ".join(text.get_text() for text in saved[name].findobj(Text))
        assert f" (8 complete trials{said}" in words


def test_parallel_coordinates_have_whole_names_inside_the_picture(
    study: Study, saved: dict[str, Figure], tmp_path: Path
) -> None:
    assert "parallel_coordinates" in study_figures.draw(study, tmp_path)
    figure = saved["parallel_coordinates"]
    names = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in names] == ["validation error (%)", *NAMES]
    picture = figure.get_tightbbox().padded(0.01)
    for label in names:
        box = label.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert picture.containsx(box.x0) and picture.containsy(box.y0), "nothing is cut off"  # noqa: PT018
    boxes = [label.get_window_extent() for panel in figure.axes[1:3] for label in panel.get_yticklabels()]
    beside = figure.axes[0].get_window_extent().width / len(NAMES)
    assert max(box.width for box in boxes) < 1.2 * beside, "a value lies over the next axis but one"


def test_names_in_another_order_than_optunas_stay_as_they_are(study: Study) -> None:
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots()
    panel.set_xticks(range(3), ["objective", "b", "a_very_long_name_..."])
    study_figures._with_whole_names(panel, ["a_very_long_name_of_one", "b"])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["objective", "b", "a_very_long_name_..."]
    study_figures._with_whole_names(panel, ["b", "a_very_long_name_of_one"])
    assert panel.get_xticklabels()[2].get_text() == "a_very_long_name_of_one"
    plt.close(figure)
