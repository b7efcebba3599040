"""Learning curves: what lines, thin lines and bands are, and how many cells are told apart."""

import numpy as np
import pandas as pd
import pytest

from analysis import curves
from analysis.style import NothingToDrawError, style
from capsnet.errors import InputError
from tests.analysis.legibility import legend_of, shown_axes, texts


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


def lines_of(panel, kind="mean"):
    return [line for line in panel.lines if (line.get_label() == "_seed") == (kind == "seed")]


def test_lines_are_means_thin_lines_are_seeds_and_bands_are_ranges(quick, make_curves):
    metrics = make_curves(quick)
    [figure] = curves.errors(quick, metrics)
    assert len(shown_axes(figure)) == 3
    cell = quick.query("routing_iterations == 1 and reconstruction_weight == 0 and lr_schedule == 'constant'")["run_id"]
    rows = metrics[metrics["run_id"].isin(cell) & (metrics["metric"] == "validation_error")]
    values = rows.pivot_table(index="epoch", columns="run_id", values="value")
    panel = shown_axes(figure)[0]
    assert [len(lines_of(panel, kind)) for kind in ("mean", "seed")] == [4, 12]
    assert lines_of(panel)[0].get_ydata() == pytest.approx(values.mean(axis=1).to_numpy())
    seeds = [line.get_ydata() for line in lines_of(panel, "seed")[:3]]
    assert np.sort(seeds, axis=0) == pytest.approx(np.sort(values.to_numpy().T, axis=0))
    assert lines_of(panel, "seed")[0].get_linewidth() < lines_of(panel)[0].get_linewidth() / 2
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert set(np.round(band, 9)) == set(np.round([*values.min(axis=1), *values.max(axis=1)], 9))
    assert panel.get_yscale() == "log"


def test_the_legend_says_what_lines_and_bands_are(quick, make_curves, fail):
    fail(quick, [0])
    [figure] = curves.errors(quick, make_curves(quick))
    title = figure.legends[0].get_title().get_text()
    assert title.split("\n") == [curves.SAID, "r: routing iterations"]
    assert legend_of(figure) == [
        "r 1, reconstruction weight 0 (by panel: n=2 of 3; 1 diverged | n=3 | n=3)",
        "r 1, reconstruction weight 0.0005 (n=3)",
        "r 3, reconstruction weight 0 (n=3)",
        "r 3, reconstruction weight 0.0005 (n=3)",
    ]


def test_the_mean_ends_with_the_first_run_that_stops(make_runs):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 5})
    ends = {"run000": 3, "run001": 5, "run002": 2}  # the seed that is left has the highest error
    rows = [
        (run_id, epoch, "validation_error", 9.0 + place - epoch)
        for place, run_id in enumerate(runs["run_id"])
        for epoch in range(1, ends.get(run_id, 5) + 1)
    ]
    metrics = pd.DataFrame(rows, columns=["run_id", "epoch", "metric", "value"])
    [figure] = curves.errors(runs, metrics)
    [panel] = shown_axes(figure)
    stopped, other = lines_of(panel)
    assert [*stopped.get_xdata()] == [1, 2]
    assert [*other.get_xdata()] == [1, 2, 3, 4, 5]
    assert all((np.diff(line.get_ydata()) < 0).all() for line in (stopped, other))
    assert [int(np.isfinite(line.get_ydata()).sum()) for line in lines_of(panel, "seed")] == [3, 5, 2, 5, 5, 5]
    assert panel.collections[0].get_paths()[0].vertices[:, 0].max() == 2
    assert curves.SAID_OF_STOPPED in " ".join(figure.legends[0].get_title().get_text().split())


def test_lines_of_one_panel_differ_in_colour_and_dashes(quick, make_curves):
    [figure] = curves.errors(quick, make_curves(quick))
    looks = [(line.get_color(), line.get_linestyle(), line._unscaled_dash_pattern) for line in lines_of(figure.axes[0])]
    assert len({colour for colour, *_ in looks}) == len({str(dashes) for *_, dashes in looks}) == 4


def test_few_cells_share_one_panel(paper, make_curves):
    metrics = make_curves(paper)
    [errors], [losses] = curves.errors(paper, metrics), curves.losses(paper, metrics)
    assert len(errors.axes) == 1
    assert len(legend_of(errors)) == 4
    names = ["training loss (total)", "margin loss", "reconstruction: squared"]
    assert [panel.get_ylabel().split("\n")[0] for panel in losses.axes] == names
    assert [len(lines_of(panel)) for panel in losses.axes] == [4, 4, 2]


@pytest.mark.parametrize(
    ("axes", "panels", "lines"),
    [
        ({"routing_iterations": [1, 2, 3], "epochs": [2, 3]}, 1, 6),
        ({"routing_iterations": [1, 2, 3, 4], "epochs": [2, 3]}, 2, 4),
        ({"routing_iterations": [1, 2, 3, 4, 5], "epochs": [2, 3], "batch_size": [64, 128, 256]}, 10, 3),
        ({"routing_iterations": list(range(1, 9))}, 8, 1),
    ],
)
def test_many_cells_get_as_few_panels_as_leave_four_lines(make_runs, make_curves, axes, panels, lines):
    runs = make_runs(axes, seeds=1)
    pages = curves.errors(runs, make_curves(runs))
    shown = [panel for page in pages for panel in shown_axes(page)]
    assert len(shown) == panels
    assert {len(lines_of(panel)) for panel in shown} == {lines}
    assert len({panel.get_title(loc="left") for panel in shown}) == panels


def test_sizes_of_a_decoder_have_panels_beside_the_weights_only(make_runs, make_curves):
    axes = {"decoder_hidden": [(size,) for size in range(8, 18)], "reconstruction_weight": [0.0, 5e-4]}
    runs = make_runs(axes, seeds=1, base={"epochs": 2})
    panels = [panel for page in curves.errors(runs, make_curves(runs)) for panel in shown_axes(page)]
    titles = [panel.get_title(loc="left").replace("\n", " ") for panel in panels]
    assert titles.count("reconstruction weight 0") == 10
    assert "decoder hidden [8], reconstruction weight 0.0005" in titles


def test_settings_that_were_drawn_have_a_panel_each_and_all_runs_are_shown(make_runs, make_curves):
    values = {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3], "class_dim": [4, 5, 6, 7, 8, 9, 10]}
    runs = make_runs(values, seeds=1, base={"epochs": 2})
    runs = runs[[i % 8 == 0 for i in range(49)]]
    pages = curves.errors(runs, make_curves(runs))
    assert sum(len(lines_of(panel)) for page in pages for panel in shown_axes(page)) == 7


def test_too_many_cells_are_refused_and_many_have_pages(make_runs, make_curves):
    runs = make_runs({"class_dim": list(range(1, 98))}, seeds=1, base={"epochs": 1})
    metrics = make_curves(runs)
    with pytest.raises(NothingToDrawError, match="97 cells are too many"):
        curves.errors(runs, metrics)
    pages = curves.losses(runs[runs["class_dim"] <= 5], metrics)
    assert len(pages) == 1
    assert len(curves.losses(runs[runs["class_dim"] <= 12], metrics)) == 3


def test_a_failed_runs_epochs_are_not_in_the_mean(make_runs, make_curves, fail):
    runs = make_runs({}, base={"epochs": 3})
    fail(runs, [2])
    metrics = make_curves(runs)
    metrics.loc[metrics["run_id"] == "run002", "value"] = 1e6
    [figure] = curves.errors(runs, metrics)
    assert max(max(line.get_ydata()) for line in figure.axes[0].lines) < 100
    assert legend_of(figure) == ["all runs (n=2 of 3; 1 diverged)"]


def test_one_run_is_not_called_a_mean_over_seeds(make_runs, make_curves):
    runs = make_runs({}, seeds=1, base={"epochs": 1})
    [figure] = curves.errors(runs, make_curves(runs))
    assert "mean" not in texts(figure)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o"]  # a line of one point can't be seen


def test_training_error_stands_in_and_says_so(make_runs, make_curves):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"validation_size": 0, "epochs": 4, "reconstruction_weight": 0.0})
    metrics = make_curves(runs)
    [errors], [losses] = curves.errors(runs, metrics), curves.losses(runs, metrics)
    assert errors.axes[0].get_ylabel() == "training error (%)\n(no validation set)"
    assert len(losses.axes) == 2  # no reconstruction anywhere


def test_zero_errors_stay_on_the_axis(make_runs, make_curves):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 6})
    metrics = make_curves(runs)
    metrics.loc[(metrics["metric"] == "validation_error") & (metrics["epoch"] >= 5), "value"] = 0.0
    [figure] = curves.errors(runs, metrics)
    panel = figure.axes[0]
    assert panel.get_yscale() == "symlog"
    assert panel.get_ylim()[0] == 0
    ys = lines_of(panel)[0].get_ydata()
    zero, smallest, largest = panel.transData.transform([(1, 0), (1, min(ys[ys > 0])), (1, max(ys))])[:, 1]
    assert zero < smallest < (zero + largest) / 2  # zero is near what is small, and most of the axis is for what isn't


def test_nothing_finished_no_run_and_no_metric_are_told_apart(quick, make_curves, fail):
    metrics = make_curves(quick)
    with pytest.raises(NothingToDrawError, match="none of these metrics"):
        curves.errors(quick, metrics.iloc[:0])
    with pytest.raises(InputError, match="no run"):
        curves.errors(quick.iloc[:0], metrics)
    fail(quick, list(quick.index))
    with pytest.raises(NothingToDrawError, match="none of the experiment's 36 runs is finished"):
        curves.losses(quick, metrics)


def test_no_panel_says_how_a_plain_network_routes(make_runs, make_curves):
    weights = {"reconstruction_weight": [0.0, 5e-4]}
    plain = make_runs(weights, base={"model": "cnn_matched"})
    plain["run_id"] = "plain" + plain["run_id"]
    runs = pd.concat([make_runs({"routing_iterations": [1, 2, 3, 5], **weights}), plain], ignore_index=True)
    figures = curves.errors(runs, make_curves(runs))
    titled = [(panel.get_title(loc="left"), panel) for figure in figures for panel in shown_axes(figure)]
    assert sum(len(lines_of(panel)) for _, panel in titled) == 10, "every cell has its line"
    for title, _ in titled:
        assert "model" in title or not title.startswith("r ")
        assert "cnn_matched" not in title or "r 3" not in title
    assert any("cnn_matched" in title for title, _ in titled)


@pytest.mark.parametrize("sizes", [[4, 8], [4, 8, 16, 32, 64]])
def test_only_panels_with_something_to_draw_are_drawn(make_runs, make_curves, fail, sizes):
    """Another loss than margin has no margin loss, and the other way round; of runs that failed there is nothing at all."""
    axes = {"loss": ["margin", "cross_entropy", "spread"], "class_dim": sizes, "routing_iterations": [1, 3, 5, 7]}
    runs = make_runs(axes, base={"epochs": 3})
    fail(runs, list(runs.index[runs["loss"] == "spread"]))
    metrics = make_curves(runs)
    others = metrics["run_id"].isin(runs.loc[runs["loss"] != "margin", "run_id"])
    metrics.loc[others & (metrics["metric"] == "train_margin_loss"), "metric"] = "train_class_loss"
    pages = curves.losses(runs, metrics)
    drawn = [panel for page in pages for panel in shown_axes(page)]
    assert all(lines_of(panel) for panel in drawn)
    assert sum(len(lines_of(panel)) for panel in drawn) == 2 * len(sizes) * 4 * 3, "total, class scores and reconstruction"
    for page in pages:
        for column in {panel.get_subplotspec().colspan.start for panel in page.axes}:
            own = [panel for panel in shown_axes(page) if panel.get_subplotspec().colspan.start == column]
            assert [panel.xaxis.label.get_visible() for panel in own] == [*[False] * (len(own) - 1), True], "of no empty column"
    empty = [panel for page in pages for panel in page.axes if panel.get_title(loc="left") and not panel.lines]
    assert all("loss spread" in panel.get_title(loc="left").replace("\n", " ") for panel in empty)
    assert [text.get_text() for panel in empty for text in panel.texts] == ["no finished run"] * len(empty)
    assert empty
