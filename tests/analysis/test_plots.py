"""Plots: what they show, that they are made without a warning, and that a second build is the same to the byte."""

import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Text

from analysis import plots
from capsnet.errors import InputError
from tests.analysis.looks import clashes, inside, shown_axes, texts


def legend_of(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def test_lines_are_means_and_bands_are_ranges(quick, make_curves, drawn):
    metrics = make_curves(quick)
    plots.curves(quick, metrics, plots.Path())
    figure = drawn["error_by_epoch"]
    assert len(shown_axes(figure)) == 3
    assert all(len(panel.lines) == 4 for panel in shown_axes(figure))
    cell = quick.query("routing_iterations == 1 and reconstruction_weight == 0 and lr_schedule == 'constant'")["run_id"]
    values = metrics[metrics["run_id"].isin(cell) & (metrics["metric"] == "validation_error")].groupby("epoch")["value"]
    panel = shown_axes(figure)[0]
    assert panel.lines[0].get_ydata() == pytest.approx(values.mean().to_numpy())
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert set(np.round(band, 9)) == set(np.round([*values.min(), *values.max()], 9))
    assert panel.get_yscale() == "log"


def test_legend_says_what_a_line_and_a_band_are(quick, make_curves, drawn, fail):
    fail(quick, [0])
    plots.curves(quick, make_curves(quick), plots.Path())
    figure = drawn["error_by_epoch"]
    assert "band: lowest to highest seed" in figure.legends[0].get_title().get_text()
    assert "r: routing_iterations" in figure.legends[0].get_title().get_text()
    assert legend_of(figure) == [
        "r 1, reconstruction weight 0 (by panel: n=2 of 3; 1 diverged | n=3 | n=3)",
        "r 1, reconstruction weight 0.0005 (n=3)",
        "r 3, reconstruction weight 0 (n=3)",
        "r 3, reconstruction weight 0.0005 (n=3)",
    ]


def test_few_cells_share_one_panel(paper, make_curves, drawn):
    plots.curves(paper, make_curves(paper), plots.Path())
    assert len(drawn["error_by_epoch"].axes) == 1
    assert len(legend_of(drawn["error_by_epoch"])) == 4
    assert [panel.get_ylabel().split("\n")[0] for panel in drawn["loss_by_epoch"].axes] == [
        "training loss (total)",
        "margin loss",
        "reconstruction: squared",
    ]
    assert [len(panel.lines) for panel in drawn["loss_by_epoch"].axes] == [4, 4, 2]


def test_a_failed_runs_epochs_are_not_in_the_mean(make_runs, make_curves, fail, drawn):
    runs = make_runs({}, base={"epochs": 3})
    fail(runs, [2])
    metrics = make_curves(runs)
    metrics.loc[metrics["run_id"] == "run002", "value"] = 1e6
    plots.curves(runs, metrics, plots.Path())
    assert drawn["error_by_epoch"].axes[0].lines[0].get_ydata().max() < 100
    assert legend_of(drawn["error_by_epoch"]) == ["all runs (n=2 of 3; 1 diverged)"]


def test_training_error_stands_in_and_says_so(make_runs, make_curves, drawn):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"validation_size": 0, "epochs": 4, "reconstruction_weight": 0.0})
    plots.curves(runs, make_curves(runs), plots.Path())
    assert drawn["error_by_epoch"].axes[0].get_ylabel() == "training error (%)\n(no validation set)"
    assert len(drawn["loss_by_epoch"].axes) == 2  # no reconstruction anywhere


def test_zero_errors_stay_on_the_axis(make_runs, make_curves, drawn):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 6})
    metrics = make_curves(runs)
    metrics.loc[(metrics["metric"] == "validation_error") & (metrics["epoch"] >= 5), "value"] = 0.0
    plots.curves(runs, metrics, plots.Path())
    panel = drawn["error_by_epoch"].axes[0]
    assert panel.get_yscale() == "symlog"
    assert panel.get_ylim()[0] == 0
    ys = panel.lines[0].get_ydata()
    zero, smallest, largest = panel.transData.transform([(1, 0), (1, min(ys[ys > 0])), (1, max(ys))])[:, 1]
    assert zero < smallest < (zero + largest) / 2  # zero is near what is small, and most of the axis is for what isn't


def test_points_means_and_intervals_of_an_axis(make_runs, drawn):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=2, errors=[1.0, 3.0, 2.0, 2.0])
    plots.axes(runs, plots.Path())
    panel = drawn["test_error_by_axis"].axes[0]
    assert [sorted(points.get_offsets()[:, 0]) for points in panel.collections[::2]] == [[1, 3], [2, 2]]
    assert len({tuple(point) for points in panel.collections[::2] for point in points.get_offsets()}) == 4  # none hides another
    half = math.tan(0.475 * math.pi)
    assert panel.collections[1].get_segments()[0][:, 0] == pytest.approx([2 - half, 2 + half])
    assert "over the other axes" not in texts(drawn["test_error_by_axis"])


def test_an_interval_does_not_take_twins_of_one_seed_for_repetitions(make_runs, drawn):
    one = make_runs({"routing_iterations": [1, 3]}, seeds=3, errors=[1.0, 2.0, 4.0, 1.5, 2.5, 3.5])
    plots.axes(one, plots.Path())
    alone = drawn["test_error_by_axis"].axes[0].collections[1].get_segments()[0][:, 0]
    # an axis without any effect doubles the runs, but tells nothing new of the first axis
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    plots.axes(make_runs(axes, seeds=3, errors=[*[1.0, 2.0, 4.0] * 2, *[1.5, 2.5, 3.5] * 2]), plots.Path())
    twins = drawn["test_error_by_axis"].axes[0].collections[1].get_segments()[0][:, 0]
    assert twins == pytest.approx(alone)


def test_every_axis_has_a_panel_that_says_what_it_averages(quick, drawn, fail):
    fail(quick, [0, 1])
    plots.axes(quick, plots.Path())
    figure = drawn["test_error_by_axis"]
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["r: routing_iterations", "reconstruction weight", "lr schedule"]
    assert "each the mean over the other axes" in texts(figure)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["1 (n=3; 16 of 18 runs)", "3 (n=3; 18 runs)"]


LONG = [
    "constant",
    "exponential(gamma=0.96, every=2000, floor=0.001)",
    "one_cycle(rise=0.25, start=0.05, final=0.001)",
    "plateau(factor=0.5, patience=3, floor=0.001)",
]
GRIDS = {
    "quick": {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "lr_schedule": LONG[:3]},
    "one axis": {"lr_schedule": LONG},
    "no axis": {},
    "two axes": {"routing_iterations": [1, 3], "lr_schedule": LONG},
    "large": {"augmentation": ["none", "shift(pixels=2)"], "routing_iterations": [1, 2, 3, 4, 5], "lr_schedule": LONG},
}


@pytest.mark.parametrize(("grid", "epochs"), [*((grid, 12) for grid in GRIDS), ("two axes", 1)])
def test_texts_fit_and_can_be_read(make_runs, make_curves, drawn, grid, epochs):
    runs = make_runs(GRIDS[grid], seeds=2, base={"epochs": epochs})
    plots.curves(runs, make_curves(runs), plots.Path())
    plots.axes(runs, plots.Path())
    assert len(drawn) == 3
    for figure in drawn.values():
        assert figure.get_figwidth() in {3.4, 7.0}
        assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 7
        with plots.style():  # ticks are made anew when they are measured
            assert inside(figure)
            for panel in shown_axes(figure):
                assert clashes(panel.xaxis) == clashes(panel.yaxis) == []


def test_only_failures_are_an_input_error(quick, make_curves, fail, tmp_path):
    metrics = make_curves(quick)
    fail(quick, list(quick.index))
    for draw in (lambda: plots.curves(quick, metrics, tmp_path), lambda: plots.axes(quick, tmp_path)):
        with pytest.raises(InputError, match="none of the experiment's 36 runs is finished"):
            draw()
    assert list(tmp_path.iterdir()) == []


def test_no_run_and_no_metric_are_input_errors(quick, make_curves, tmp_path):
    metrics = make_curves(quick)
    with pytest.raises(InputError, match="no run"):
        plots.axes(quick.iloc[:0], tmp_path)
    with pytest.raises(InputError, match="no errors and losses"):
        plots.curves(quick, metrics.iloc[:0], tmp_path)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_single_cell_makes_files(make_runs, make_curves, tmp_path, seeds):
    runs = make_runs({}, seeds=seeds, base={"epochs": 2})
    paths = plots.curves(runs, make_curves(runs), tmp_path / "new") + plots.axes(runs, tmp_path / "new")
    names = ["error_by_epoch", "loss_by_epoch", "test_error_by_axis"]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_second_build_of_shuffled_rows_is_the_same_to_the_byte(make_runs, make_curves, tmp_path):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 4})
    metrics = make_curves(runs)
    first = plots.curves(runs, metrics, tmp_path / "1") + plots.axes(runs, tmp_path / "1")
    runs, metrics = (frame.sample(frac=1, random_state=3) for frame in (runs, metrics))
    second = plots.curves(runs, metrics, tmp_path / "2") + plots.axes(runs, tmp_path / "2")
    assert [path.name for path in first if path.read_bytes() != second[first.index(path)].read_bytes()] == []
    assert not any(b"CreationDate" in path.read_bytes() for path in first)


def test_another_process_makes_the_same_bytes(make_runs, tmp_path):
    # strings hash otherwise in every process, and matplotlib names the fonts in a PDF by a hash
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=2)
    runs.to_pickle(tmp_path / "runs.pickle")
    code = "import sys, pathlib, pandas; from analysis import plots; f = pathlib.Path(sys.argv[1])\n"
    code += "plots.axes(pandas.read_pickle(f / 'runs.pickle'), f / 'other')"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=plots.Path(plots.__file__).parents[1])
    for path in plots.axes(runs, tmp_path / "here"):
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_drawing_leaves_the_callers_style_alone(make_runs, tmp_path):
    with mpl.rc_context({"font.size": 33, "pdf.fonttype": 3}):
        plots.axes(make_runs({}), tmp_path)
        assert (mpl.rcParams["font.size"], mpl.rcParams["pdf.fonttype"]) == (33, 3)
