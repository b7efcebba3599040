"""Learning rates by step: the configurations' own, and as logged where they follow the validation error."""

import numpy as np
import pandas as pd
import pytest

from analysis import rates
from analysis.style import NothingToDrawError, style
from capsnet.config import RunConfig
from tests.analysis.legibility import legend_of

PLATEAU = "plateau(factor=0.5, patience=0)"
BASE = {"train_size": 1000, "batch_size": 50, "epochs": 3}  # 60 steps
NONE = pd.DataFrame({"run_id": [], "epoch": [], "metric": [], "value": []})


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


def test_lines_are_the_schedules_times_the_peak(make_runs):
    schedules = ["constant", "cosine(warmup=5)", "one_cycle(rise=0.3)", "step(gamma=0.5, every=20)"]
    runs = make_runs({"lr_schedule": schedules, "routing_iterations": [1, 3]}, base={**BASE, "learning_rate": 2e-3})
    [figure] = rates.learning_rates(runs, NONE)
    assert legend_of(figure) == [RunConfig(lr_schedule=text).lr_schedule for text in sorted(schedules)]
    for line, text in zip(figure.axes[0].lines, sorted(schedules), strict=True):
        config = RunConfig(lr_schedule=text, **BASE)
        assert list(line.get_xdata()) == list(range(60))
        assert line.get_ydata() == pytest.approx([2e-3 * config.schedule(step, 60, ()) for step in range(60)])
    assert figure.axes[0].get_yscale() == "log"  # one cycle ends at 4e-6 of its peak


def test_a_linear_axis_is_for_less_than_a_decade(make_runs):
    [figure] = rates.learning_rates(make_runs({"lr_schedule": ["constant", "step(gamma=0.5, every=20)"]}, base=BASE), NONE)
    assert figure.axes[0].get_yscale() == "linear"


def test_what_is_a_millionth_of_the_highest_does_not_press_the_rest_together(make_runs):
    runs = make_runs({"lr_schedule": ["constant", "exponential(gamma=0.01, every=1)"]}, base=BASE)
    [figure] = rates.learning_rates(runs, NONE)
    assert figure.axes[0].get_ylim() == pytest.approx((1e-9, 1.5e-3))


def test_a_rate_that_cannot_work_hides_no_other(make_runs):
    runs = make_runs({"learning_rate": [1e-3, 1e30]}, base={**BASE, "lr_schedule": "constant"})
    [figure] = rates.learning_rates(runs, NONE)
    low, high = figure.axes[0].get_ylim()
    assert low < 1e-3
    assert high > 1e30


def test_lines_differ_in_schedule_peak_and_length_and_in_nothing_else(make_runs):
    axes = {"learning_rate": [1e-3, 2e-3], "batch_size": [50, 100], "routing_iterations": [1, 3]}
    runs = make_runs(axes, base={**BASE, "lr_schedule": "constant"})
    [figure] = rates.learning_rates(runs, NONE)
    assert legend_of(figure) == [f"constant, learning rate {rate}, {n} steps" for rate in (0.001, 0.002) for n in (30, 60)]


def test_a_schedule_that_follows_the_validation_error_is_shown_as_logged(make_runs, make_curves):
    runs = make_runs({"lr_schedule": ["constant", PLATEAU]}, seeds=2, base=BASE)
    metrics = make_curves(runs)
    logged = (metrics["metric"] == "learning_rate") & (metrics["run_id"] == "run003") & (metrics["epoch"] == 3)
    metrics.loc[logged, "value"] = 5e-4
    [figure] = rates.learning_rates(runs, metrics.sample(frac=1, random_state=0))
    assert legend_of(figure)[1] == f"{PLATEAU} (as logged by 2 runs)"
    _, first, second = figure.axes[0].lines
    assert list(first.get_xdata()) == [0, 19, 39, 59]  # what holds at an epoch's last step
    assert list(first.get_ydata()) == [1e-3] * 4
    assert list(second.get_ydata()) == [1e-3, 1e-3, 1e-3, 5e-4]


@pytest.mark.parametrize(
    ("schedule", "follows"),
    [
        (PLATEAU, True),
        ("constant", False),
        ("plateau(factor=0.5, patience=18)", False),
        ("plateau(factor=0.5, patience=17)", True),
    ],
)
def test_whether_a_schedule_follows_the_error_is_tried(schedule, follows):
    assert rates.follows_errors(RunConfig(lr_schedule=schedule, epochs=20)) == follows


def test_a_long_run_keeps_its_first_and_last_step_and_its_shape():
    config = RunConfig(lr_schedule="step(gamma=0.1, every=10000)")  # 21,500 steps
    steps, values = rates.planned(config)
    assert (steps[0], steps[-1], len(steps)) == (0, config.total_steps - 1, rates.POINTS)
    assert values == pytest.approx([1e-3 * config.schedule(int(step), config.total_steps, ()) for step in steps])
    assert sorted(set(np.round(values, 12))) == pytest.approx([1e-5, 1e-4, 1e-3])


def test_planned_runs_have_a_learning_rate_but_none_that_was_logged(make_runs, fail):
    runs = make_runs({"lr_schedule": ["constant", PLATEAU]}, base=BASE)
    fail(runs, list(runs.index), "planned", None)
    [figure] = rates.learning_rates(runs, NONE)
    assert legend_of(figure) == ["constant"]
    with pytest.raises(NothingToDrawError, match="no run has logged"):
        rates.learning_rates(runs[runs["lr_schedule"] == PLATEAU], NONE)


def test_more_lines_than_can_be_told_apart_are_refused(make_runs):
    runs = make_runs({"learning_rate": [i / 1000 for i in range(1, 26)]}, seeds=1, base=BASE)
    with pytest.raises(NothingToDrawError, match="25 learning-rate curves"):
        rates.learning_rates(runs, NONE)
    [figure] = rates.learning_rates(runs[runs["learning_rate"] < 0.0245], NONE)
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in figure.axes[0].lines}
    assert len(looks) == 24
