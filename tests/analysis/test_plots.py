"""Test errors by cell and by axis, main effects, and what is made of all plots: each number where it belongs."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import mistakes, plots, published
from analysis.blocks import full
from analysis.cells import cells
from analysis.effects import main_effects
from analysis.style import NothingToDrawError, style, write_all
from capsnet.errors import InputError
from tests.analysis.legibility import faults, legend_of, texts

ROOT = Path(plots.__file__).parents[1]
DATA = {"_points", "_estimate", "_wider", "_means", "_published", "_line", "_arrow"}


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


def marks(panel, kind):
    """What of one kind is drawn: (x, y) of points, (low, high, y) of intervals, (x, y) of lines' ends."""
    collections = [c for c in panel.collections if c.get_label() == f"_{kind}"]
    if kind in ("estimate", "wider"):
        return [(*segment[:, 0], segment[0, 1]) for c in collections for segment in c.get_segments()]
    points = [tuple(point) for c in collections for point in c.get_offsets()]
    return points + [xy for line in panel.lines if line.get_label() == f"_{kind}" for xy in line.get_xydata().tolist()]


def table(panel):
    """The rows of texts beside a panel, from top to bottom; the header's last line is the first."""
    lines = {}
    for text in panel.texts:
        place = -1.0 if text.xycoords[1] == "axes fraction" else text.xy[1]
        lines.setdefault(place, []).append((text.xyann[0], -text.xyann[1], text.get_text()))
    rows = []
    for _, found in sorted(lines.items()):
        columns = {}
        for x, _, text in sorted(found):
            columns.setdefault(x, []).append(text)
        rows.append([" ".join(words) for words in columns.values()])
    return rows


# --- by cell


def test_a_cells_row_has_its_runs_its_mean_and_both_intervals(make_runs, judge, fail):
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [2, 3]}, errors=[1, 2, 3, 4, 5, 7, 2, 2, 2, 3, 4, 5])
    fail(runs, [3, 4, 5])
    fail(runs, [6], "planned", None)
    comparisons = judge(runs, images=50)
    [figure] = plots.by_cell(comparisons)
    [panel] = figure.axes
    assert table(panel) == [
        ["r", "epochs", "n"],
        ["1", "2", "3"],
        ["1", "3", "0 of 3; 3 diverged"],
        ["3", "2", "2 of 3; 1 not run"],
        ["3", "3", "3"],
    ]
    middles = list(panel.get_yticks())
    by_row = [sorted(x for x, y in marks(panel, "points") if abs(y - middle) < 0.13) for middle in middles]
    assert by_row == [[1, 2, 3], [], [2, 2], [3, 4, 5]]
    assert len(set(marks(panel, "points"))) == 8  # none hides another
    known = [
        (cell.error, images.interval) for cell, images in zip(comparisons.cells, comparisons.images, strict=True) if images
    ]
    assert [x for x, _ in marks(panel, "means")] == [error.mean for error, _ in known] == [2, 2, 4]
    assert [mark[:2] for mark in marks(panel, "estimate")] == [(error.low, error.high) for error, _ in known]
    assert [mark[:2] for mark in marks(panel, "wider")] == [(interval.low, interval.high) for _, interval in known]
    rows = [0, 2, 3]
    for kind in ("means", "estimate", "wider"):
        assert [mark[-1] for mark in marks(panel, kind)] == pytest.approx([middles[i] for i in rows], abs=0.1)
    assert legend_of(figure)[:3] == [
        "one run",
        "mean and 95% Student-t interval",
        "95% bootstrap interval over seeds and test images",
    ]


def test_cells_stand_in_the_tables_order_beside_the_reference_and_the_published(paper, judge):
    comparisons = judge(paper, published.load())
    assert [cell.published.value for cell in comparisons.cells] == [0.34, 0.29, 0.35, 0.25]
    [figure] = plots.by_cell(comparisons)
    [panel] = figure.axes
    assert [row[:2] for row in table(panel)[1:]] == [["1", "0"], ["1", "0.0005"], ["3", "0"], ["3", "0.0005"]]
    assert [x for x, _ in marks(panel, "means")] == [cell.error.mean for cell in comparisons.cells]
    assert [x for x, _ in marks(panel, "published")] == [0.34, 0.29, 0.35, 0.25]
    assert [y for _, y in marks(panel, "published")] == pytest.approx(list(panel.get_yticks()), abs=0.1)
    assert {x for x, _ in marks(panel, "line")} == {comparisons.reference.error.mean}
    assert "mean of the reference: r 3, reconstruction weight 0.0005" in legend_of(figure)
    assert "published: Sabour, Frosst and Hinton 2017 (arXiv 1710.09829), Table 1" in legend_of(figure)


def test_what_is_not_there_is_not_in_the_legend(make_runs, judge):
    [figure] = plots.by_cell(judge(make_runs({}, seeds=1)))
    assert legend_of(figure) == ["one run", "mean"]
    assert marks(figure.axes[0], "points")[0] != marks(figure.axes[0], "means")[0]  # nor does a mean hide its only run
    assert {mark.get_label() for mark in [*figure.axes[0].collections, *figure.axes[0].lines]} & DATA == {"_points", "_means"}


def test_an_interval_of_two_seeds_does_not_press_the_rest_together(make_runs, judge):
    runs = make_runs({"epochs": [1, 2, 3]}, seeds=2, errors=[2.0, 2.1, 3.0, 3.1, 2.0, 4.0])
    [figure] = plots.by_cell(judge(runs))
    [panel] = figure.axes
    low, high = panel.get_xlim()
    assert marks(panel, "estimate")[2][:2] == pytest.approx((3 - 12.706, 3 + 12.706), abs=1e-3)
    assert (low, high) == (pytest.approx(0, abs=0.25), pytest.approx(7, abs=0.5))
    assert low < 0  # so that a point at 0 is seen whole
    y = marks(panel, "estimate")[2][2]
    assert marks(panel, "arrow") == [[low, y], [high, y]]
    assert legend_of(figure)[-1] == "the interval goes on beyond the axis"


def test_all_points_are_seen_whatever_their_size(make_runs, judge):
    far = [0.3, 0.4, 0.5, 90.0]
    for errors, scale in ((far, "log"), ([0.0, *far[1:]], "linear"), ([2.0] * 4, "linear"), ([0.0] * 4, "linear")):
        [figure] = plots.by_cell(judge(make_runs({"epochs": [1, 2]}, seeds=2, errors=errors)))
        [panel] = figure.axes
        assert panel.get_xscale() == scale
        assert all(panel.get_xlim()[0] < error < panel.get_xlim()[1] for error in errors)
        assert all(tick >= 0 for tick in panel.get_xticks() if tick >= panel.get_xlim()[0])  # no error is negative


def test_a_large_grid_has_pages_with_one_axis_and_a_larger_one_is_refused(make_runs, judge):
    runs = make_runs({"routing_iterations": [1, 2, 3, 4, 5], "class_dim": list(range(1, 13))}, seeds=2, base={"epochs": 1})
    pages = plots.by_cell(judge(runs))
    assert len(pages) == 2
    assert len({page.axes[0].get_xlim() for page in pages}) == 1
    assert sum(len(marks(page.axes[0], "means")) for page in pages) == 60
    assert [row[:2] for page in pages for row in table(page.axes[0])[1:]] == [
        [str(dim), str(r)] for dim in range(1, 13) for r in range(1, 6)
    ]
    with pytest.raises(NothingToDrawError, match="241 cells are too many"):
        plots.by_cell(judge(make_runs({"class_dim": list(range(1, 242))}, seeds=1)))


# --- by axis


def test_points_means_and_intervals_of_an_axis(make_runs):
    [figure] = plots.by_axis(cells(make_runs({"routing_iterations": [1, 3]}, seeds=2, errors=[1.0, 3.0, 2.0, 2.0])))
    [panel] = figure.axes
    assert sorted(x for x, _ in marks(panel, "points")) == [1, 2, 2, 3]
    assert len(set(marks(panel, "points"))) == 4  # none hides another
    assert marks(panel, "estimate")[0][:2] == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)
    assert "over the other axes" not in texts(figure)


def test_an_interval_does_not_take_twins_of_one_seed_for_repetitions(make_runs):
    one = make_runs({"routing_iterations": [1, 3]}, seeds=3, errors=[1.0, 2.0, 4.0, 1.5, 2.5, 3.5])
    alone = marks(plots.by_axis(cells(one))[0].axes[0], "estimate")
    # an axis without any effect doubles the runs, but tells nothing new of the first axis
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    twins = make_runs(axes, seeds=3, errors=[*[1.0, 2.0, 4.0] * 2, *[1.5, 2.5, 3.5] * 2])
    assert np.array(marks(plots.by_axis(cells(twins))[0].axes[0], "estimate")) == pytest.approx(np.array(alone))


def test_every_axis_has_a_panel_that_says_what_it_averages(quick, fail):
    fail(quick, [0, 1])
    [figure] = plots.by_axis(cells(quick))
    assert [table(panel)[0][0] for panel in figure.axes] == ["r: routing iterations", "reconstruction weight", "lr schedule"]
    assert "each the mean over the other axes" in texts(figure)
    # two seeds of one setting didn't finish with r = 1: the third there would be another mean than it is beside them
    assert table(figure.axes[0])[1:] == [["1", "3", "15 of 18"], ["3", "3", "15 of 18"]]
    assert "only of settings that have all values, and of seeds that finished there" in " ".join(texts(figure).split())


def test_a_run_that_read_other_data_is_no_point_of_an_axis(make_runs, make_curves, judge):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=3, errors=[9.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    runs["data_sha256"] = ["b" * 64, *["a" * 64] * 5]
    [figure] = plots.figures(judge(runs), runs, make_curves(runs))["test_error_by_axis"]()
    assert table(figure.axes[0])[1:] == [["1", "2", "2 of 3"], ["3", "2", "2 of 3"]]
    assert [x for x, _ in marks(figure.axes[0], "means")] == [2.5, 2.5]


def test_a_failed_run_mixes_no_other_axis_into_a_mean(make_runs, fail):
    """Where r makes no difference, none is drawn, whichever runs are missing."""
    errors = [(20.0 if size == 50 else 2.0) + seed / 10 for _ in (1, 3) for size in (50, 800) for seed in range(6)]
    runs = make_runs({"routing_iterations": [1, 3], "train_size": [50, 800]}, seeds=6, errors=errors)
    fail(runs, [12, 13, 14, 15, 16])  # r = 3 with 50 images: the last seed alone is left
    [figure] = plots.by_axis(cells(runs))
    panel = figure.axes[1]
    assert table(panel)[1:] == [["1", "6", "6 of 12"], ["3", "6", "6 of 12"]]
    assert [x for x, _ in marks(panel, "means")] == pytest.approx([np.mean(errors[6:12])] * 2)
    assert min(low for low, *_ in marks(panel, "estimate")) == pytest.approx(2.25 - 2.571 * 0.187 / 6**0.5, abs=1e-3)
    assert sorted(x for x, _ in marks(panel, "points")) == pytest.approx(sorted([*errors[6:12]] * 2))


@pytest.mark.parametrize(
    ("finished", "kept"),
    [
        ([{0, 1, 2}, {0, 1, 2}], [{0, 1, 2}] * 2),
        ([{0, 1, 2}, {0}], [{0, 1, 2}]),
        ([{0, 1, 2}, {0, 1}], [{0, 1}] * 2),
        ([{0}, {0, 1}], [{0, 1}]),  # as many blocks, and more seeds
        ([{0, 1}, {2, 3}], [{2, 3}]),
        ([], []),
    ],
)
def test_every_seed_counts_at_every_setting_that_counts(finished, kept):
    found = full([{seed: [1.0] for seed in seeds} for seeds in finished])
    assert [set(block) for block in found] == kept


def test_a_value_with_which_nothing_finished_costs_itself(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 2, 3], "epochs": [2, 3]}, seeds=2)
    fail(runs, [4, 5, 6, 7])
    [figure] = plots.by_axis(cells(runs))
    assert table(figure.axes[0])[1:] == [["1", "2", "4"], ["2", "0", "0 of 4"], ["3", "2", "4"]]


def test_an_axis_of_which_no_seed_has_every_value_is_named(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [2, 3]}, seeds=2)
    fail(runs, [2, 3, 4, 5])  # r = 1 has 2 epochs, r = 3 has 3
    with pytest.raises(NothingToDrawError, match="no cells that have all values of an axis beside equal settings"):
        plots.by_axis(cells(runs))
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [2, 3]}, seeds=2)
    fail(runs, [0, 2, 5, 7])  # r = 1 has seed 1, r = 3 seed 0
    [figure] = plots.by_axis(cells(runs))
    assert [table(panel)[0][0] for panel in figure.axes] == ["epochs"]
    assert "without r, for want of a seed that finished with every value" in " ".join(texts(figure).split())


def test_only_axes_that_were_varied_alone_have_a_panel(make_runs):
    """A search draws all values of a trial at once, so that a value's mean is one of other settings, too."""
    axes = {"routing_iterations": [1, 3], "batch_size": [16, 64], "learning_rate": [1e-3, 3e-3, 1e-2]}
    grid = make_runs(axes, seeds=2)
    of = grid["learning_rate"].map({1e-3: (1, 16), 3e-3: (3, 16), 1e-2: (1, 64)})
    searched = grid[[pair == (r, b) for pair, r, b in zip(of, grid["routing_iterations"], grid["batch_size"], strict=True)]]
    assert len(searched) == 6
    with pytest.raises(NothingToDrawError, match="no axis was varied alone"):
        plots.by_axis(cells(searched))
    # beside them, one cell that differs from the first in r alone
    more = grid[(grid["learning_rate"] == 1e-3) & (grid["batch_size"] == 16)]
    [figure] = plots.by_axis(cells(pd.concat([searched, more]).drop_duplicates(["run_id"])))
    assert [table(panel)[0][0] for panel in figure.axes] == ["r: routing iterations"]
    assert "without batch size and learning rate, not varied alone" in " ".join(texts(figure).split())
    [whole] = plots.by_axis(cells(grid))
    assert len(whole.axes) == 3
    assert "without" not in texts(whole)


# --- effects


def test_effects_are_those_of_the_table_around_zero(quick, judge):
    comparisons = judge(quick)
    [figure] = plots.effects(comparisons.cells)
    found = main_effects(comparisons.cells)
    assert [x for panel in figure.axes for x, _ in marks(panel, "means")] == [effect.estimate.mean for effect in found]
    drawn = [mark[:2] for panel in figure.axes for mark in marks(panel, "estimate")]
    assert drawn == [(effect.estimate.low, effect.estimate.high) for effect in found]
    assert {x for panel in figure.axes for x, _ in marks(panel, "line")} == {0}
    values = [row[0] for panel in figure.axes for row in table(panel)[1:]]
    assert values[:4] == ["1", "3", "0", "0.0005"]
    assert values[4:] == sorted(quick["lr_schedule"].unique())


def test_an_axis_without_a_complete_design_is_named(make_runs, judge):
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [1, 2, 3]}, seeds=2)
    runs = runs[(runs["routing_iterations"] == 1) | (runs["epochs"] == 1)]
    [figure] = plots.effects(judge(runs[runs["routing_iterations"].isin([1, 3])]).cells)
    assert len(figure.axes) == 2
    both = runs[(runs["epochs"] == 1) | ((runs["routing_iterations"] == 1) & (runs["epochs"] == 2))]
    diagonal = both[(both["routing_iterations"] == 3) | (both["epochs"] == 2)]
    with pytest.raises(NothingToDrawError, match="no cells that have all values"):
        plots.effects(judge(diagonal).cells)


# --- all of them

LONG = [
    "constant",
    "exponential(gamma=0.96, every=2000, floor=0.001)",
    "one_cycle(rise=0.25, start=0.05, final=0.001)",
    "plateau(factor=0.5, patience=3, floor=0.001)",
]
QUICK = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "lr_schedule": LONG[:3]}
ALL = ["test_error_by_cell", "test_error_by_axis", "main_effects", "interactions", "heat_map", "error_by_epoch"]
ALL += ["loss_by_epoch", "learning_rate_by_step", "confusion", "mistaken_images"]
FORMS = ["test_error_by_cell", "heat_map", "error_by_epoch", "mistaken_images"]  # one of each way to draw
LARGE = {"augmentation": ["none", "shift(pixels=2)"], "routing_iterations": [1, 2, 3, 4, 5], "lr_schedule": LONG}
GRIDS = {  # axes, seeds, runs that failed, base
    "a single cell": ({}, 3, [], {}),
    "quick with failures": (QUICK, 3, [1, 10, 22], {}),
    "one seed and epoch": (QUICK, 1, [], {"epochs": 1}),
    "large": (LARGE, 2, [], {}),
}


@pytest.fixture
def readable(make_curves, judge):
    """(runs) -> the names of the figures that they have; each was found to be legible, its first and last page."""

    def look(runs):
        comparisons, metrics, seen = judge(runs, images=60), make_curves(runs), []
        for name, make in {**plots.figures(comparisons, runs, metrics), **mistakes.figures(comparisons, {})}.items():
            try:
                pages = make()
            except NothingToDrawError:
                continue
            for page in {id(page): page for page in (pages[0], pages[-1])}.values():
                assert faults(page) == [], name
            seen.append(name)
        return seen

    return look


@pytest.mark.parametrize("grid", GRIDS)
def test_every_figure_can_be_read(make_runs, fail, readable, grid):
    axes, seeds, failed, base = GRIDS[grid]
    runs = make_runs(axes, seeds=seeds, base={"epochs": 12, **base})
    fail(runs, failed)
    missing = {"a single cell": ["main_effects", "interactions", "heat_map"], "large": ["heat_map"]}.get(grid, [])
    assert [name for name in ALL if name not in missing] == readable(runs)


def test_settings_that_were_drawn_can_be_read(make_runs, readable):
    fields = ["conv_channels", "primary_types", "class_dim", "routing_iterations", "batch_size", "epochs"]
    runs = []
    for i in range(7):
        base = {name: 8 + i + j for j, name in enumerate(fields)} | {"learning_rate": 0.00123456 * (i + 1)}
        schedule = f"exponential(gamma=0.{i + 1}23456, every=50, floor=0.001)"
        runs.append(make_runs({}, seeds=2, base={**base, "lr_schedule": schedule}))
    together = pd.concat(runs, ignore_index=True)
    together["run_id"] = [f"run{i}" for i in range(len(together))]
    assert set(ALL) - set(readable(together)) == {"test_error_by_axis", "main_effects", "interactions", "heat_map"}


def test_what_has_no_data_is_left_out_with_a_reason(make_runs, make_curves, judge, fail, tmp_path):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 2})
    metrics = make_curves(runs)
    fail(runs, list(runs.index))
    paths, skipped = plots.write(judge(runs), runs, metrics, tmp_path)
    assert {path.name for path in paths} == {"learning_rate_by_step.png", "learning_rate_by_step.pdf"}
    assert skipped == [
        "test_error_by_cell, test_error_by_axis, main_effects, error_by_epoch, loss_by_epoch: none of the experiment's 6 runs "
        "is finished yet",
        "interactions: fewer than two axes vary",
        "heat_map: reconstruction weight does not vary",
    ]
    with pytest.raises(InputError, match="no run"):
        plots.by_axis(cells(runs.iloc[:0]))


def test_another_process_makes_the_same_bytes_of_shuffled_rows(make_runs, make_curves, judge, tmp_path):
    # strings hash otherwise in every process, and matplotlib names the fonts in a PDF by a hash
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    runs = make_runs(axes, seeds=2, base={"epochs": 3})
    metrics = make_curves(runs)
    pixels = {"digits": np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)}
    shuffled = [frame.sample(frac=1, random_state=3) for frame in (runs, metrics)]
    with (tmp_path / "data.pickle").open("wb") as file:
        pickle.dump((judge(shuffled[0], images=40), *shuffled, pixels), file)
    code = f"""import pickle, pathlib
from analysis import mistakes, plots, style
with pathlib.Path({str(tmp_path / "data.pickle")!r}).open("rb") as file:
    comparisons, runs, metrics, pixels = pickle.load(file)
figures = {{**plots.figures(comparisons, runs, metrics), **mistakes.figures(comparisons, pixels)}}
style.write_all({{name: figures[name] for name in {FORMS}}}, pathlib.Path({str(tmp_path / "other")!r}))"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "7"})
    comparisons = judge(runs, images=40)
    figures = {**plots.figures(comparisons, runs, metrics), **mistakes.figures(comparisons, pixels)}
    paths, skipped = write_all({name: figures[name] for name in FORMS}, tmp_path / "here")
    assert ([path.name for path in paths], skipped) == ([f"{name}.{kind}" for name in FORMS for kind in ("png", "pdf")], [])
    for path in paths:
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name
        assert b"CreationDate" not in path.read_bytes()
