"""Fields of numbers: each number is its cells', in the right square, on a colour that shows it."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from analysis import heat
from analysis.cells import cells
from analysis.effects import interactions
from analysis.style import NothingToDrawError, luminance, style
from analysis.wording import error_text
from tests.analysis.legibility import shown_axes, texts


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


def squares_of(panel):
    """(row's name, column's name) -> what is written in the square."""
    rows, columns = ([label.get_text() for label in axis.get_ticklabels()] for axis in (panel.yaxis, panel.xaxis))
    return {(rows[int(t.get_position()[1])], columns[int(t.get_position()[0])]): t.get_text() for t in panel.texts}


def colours_of(panel):
    """The colours of the squares, from top left to bottom right, in the order of the texts."""
    [mesh] = panel.collections
    mesh.update_scalarmappable()
    return mesh.get_facecolors()


def test_squares_are_the_cells_errors(quick):
    every = cells(quick)
    [figure] = heat.of_errors(every)
    assert [panel.get_title(loc="left").replace("\n", " ") for panel in figure.axes] == [
        f"lr schedule {schedule}" for schedule in sorted(quick["lr_schedule"].unique())
    ]
    for panel, schedule in zip(figure.axes, sorted(quick["lr_schedule"].unique()), strict=True):
        own = [cell for cell in every if cell.setting["lr_schedule"] == schedule]
        names = {1: "1", 3: "3", 0.0: "0", 5e-4: "0.0005"}
        assert squares_of(panel) == {
            (names[cell.setting["routing_iterations"]], names[cell.setting["reconstruction_weight"]]): (
                error_text(cell).replace(" (n=3)", "").replace(" ±", "\n±")
            )
            for cell in own
        }
    assert "n seeds (n=3)" in texts(figure)
    assert "each the mean over" not in texts(figure)


def test_panels_are_in_the_order_of_the_schedules_parameters(make_runs):
    schedules = [f"exponential(gamma=0.5, every={every})" for every in (1000, 90, 200)]
    runs = make_runs({"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "lr_schedule": schedules})
    [figure] = heat.of_errors(cells(runs))
    titles = [panel.get_title(loc="left").replace("\n", " ") for panel in figure.axes]
    assert titles == [f"lr schedule {schedules[i]}" for i in (1, 2, 0)]


def test_an_axis_of_which_all_squares_have_one_value_alone_is_named(make_runs):
    """Uniform routing has no r = 3: nothing of it is in any square."""
    axes = {"reconstruction_weight": [0.0, 5e-4], "epochs": [2, 4]}
    dynamic = make_runs({"routing_iterations": [1, 3], **axes})
    uniform = make_runs(axes, base={"routing": "uniform", "routing_iterations": 1})
    both = cells(pd.concat([dynamic, uniform], ignore_index=True))
    assert heat.squares(both) == heat.squares(cells(dynamic))
    [figure] = heat.of_errors(both)
    assert "each the mean over epochs, all with routing = dynamic; " in texts(figure).replace("\n", " ")


def test_the_darker_the_higher_in_all_panels(quick):
    [figure] = heat.of_errors(cells(quick))
    means = [float(text.get_text().split()[0]) for panel in figure.axes for text in panel.texts]
    light = [luminance(colour) for panel in figure.axes for colour in colours_of(panel)]
    exact = [e.mean for e in heat.squares(cells(quick)).values()]
    assert len(set(np.round(light, 9))) == len(set(np.round(exact, 9)))
    for a, b in ((a, b) for a in range(len(means)) for b in range(len(means)) if means[a] > means[b]):
        assert light[a] < light[b]


def test_over_other_axes_each_seed_is_averaged_before_their_spread(make_runs, fail):
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "epochs": [2, 4]}
    errors = [1, 2, 4, 3, 2, 8, *[5, 5, 5, 7, 7, 7] * 2, 1, 1, 1, 2, 2, 2]
    runs = make_runs(axes, seeds=3, errors=list(map(float, errors)))
    fail(runs, [11])  # seed 2 of a square's second cell: its first cell's would stand alone, and is left out
    found = heat.squares(cells(runs))
    first = found[1, 0.0, None]  # the seeds have (1 + 3) / 2, (2 + 2) / 2, (4 + 8) / 2
    assert (first.n, first.mean, first.sd) == (3, pytest.approx(10 / 3), pytest.approx(math.sqrt(16 / 3)))
    assert (found[1, 5e-4, None].n, found[1, 5e-4, None].mean) == (2, 6)
    [figure] = heat.of_errors(cells(runs))
    assert "each the mean over epochs" in texts(figure)
    assert squares_of(figure.axes[0])["1", "0.0005"] == "6.00\n± 0.00\nn=2"


def test_what_follows_an_axis_of_the_map_is_a_part_of_it(make_runs):
    """No square has the setting of another."""
    parts = [
        make_runs({"routing_iterations": [r], "epochs": [n], "reconstruction_weight": [0.0, 5e-4]}, seeds=3)
        for r, n in ((1, 4), (3, 8))
    ]
    runs = pd.concat(parts, ignore_index=True)
    found = heat.squares(cells(runs))
    assert found == heat.squares(cells(runs.assign(epochs=4)))
    assert [estimate.n for estimate in found.values()] == [3] * 4
    plain = make_runs({"epochs": [8]}, seeds=3, base={"model": "cnn_matched"})  # which has no r
    for each in (runs, pd.concat([runs, plain], ignore_index=True)):
        [figure] = heat.of_errors(cells(each))
        assert "each the mean over" not in texts(figure)


def test_settings_that_some_squares_lack_do_not_make_them_incomparable(make_runs):
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "epochs": [2, 4]}
    runs = make_runs(axes, seeds=1, errors=[1.0, 50.0, 2.0, 50.0, 3.0, 50.0, 4.0, 50.0])
    runs = runs.drop(index=7)
    assert [estimate.mean for estimate in heat.squares(cells(runs)).values()] == [1, 2, 3, 4]


def test_a_square_without_a_result_is_grey_and_says_so(quick, fail):
    fail(quick, [0, 1, 2, 3])
    [figure] = heat.of_errors(cells(quick))
    panel = figure.axes[0]
    assert squares_of(panel)["1", "0"] == "—\nn=0"
    assert squares_of(figure.axes[1])["1", "0"].endswith("n=2")
    assert np.ma.getmaskarray(panel.collections[0].get_array()).ravel().tolist() == [True, False, False, False]


def test_the_two_axes_have_to_vary_and_to_be_crossed(make_runs, fail):
    with pytest.raises(NothingToDrawError, match=r"^r and reconstruction weight do not vary"):
        heat.of_errors(cells(make_runs({"epochs": [1, 2]})))
    with pytest.raises(NothingToDrawError, match=r"^reconstruction weight does not vary"):
        heat.of_errors(cells(make_runs({"routing_iterations": [1, 2]})))
    runs = make_runs({"routing_iterations": [1, 2, 3], "reconstruction_weight": [0.0, 1e-4, 1e-3]})
    with pytest.raises(NothingToDrawError, match="more than half"):
        heat.of_errors(cells(runs[runs.index % 12 < 3]))  # the diagonal
    fail(runs, list(runs.index))
    with pytest.raises(NothingToDrawError, match="no seed is finished"):
        heat.of_errors(cells(runs))


def test_more_than_a_page_takes_is_refused_or_named(make_runs):
    wide = {"routing_iterations": [1, 2], "reconstruction_weight": [i / 1000 for i in range(20)]}
    runs = make_runs(wide, seeds=2)
    with pytest.raises(NothingToDrawError, match="too many values"):
        heat.of_errors(cells(runs))
    many = make_runs({"routing_iterations": [1, 3], "class_dim": list(range(1, 23)), "epochs": [1, 2]}, seeds=2)
    pages = heat.of_interactions(cells(many))
    assert [panel.get_title(loc="left") for page in pages for panel in shown_axes(page)] == ["r × epochs"]
    assert "without class dim × r and class dim × epochs, too large for a page" in texts(pages[0])


def test_interactions_are_those_of_the_table(quick):
    every = cells(quick)
    [figure] = heat.of_interactions(every)
    panels = {panel.get_title(loc="left"): panel for panel in shown_axes(figure)}
    assert list(panels) == ["r × reconstruction weight", "r × lr schedule", "reconstruction weight × lr schedule"]
    shown = squares_of(panels["r × lr schedule"])
    found = [effect for effect in interactions(every) if effect.axes == ("routing_iterations", "lr_schedule")]
    assert len(shown) == len(found) == 6
    for effect in found:
        r, schedule = effect.levels
        texts_of = {(row.replace("\n", " "), column): text for (row, column), text in shown.items()}
        mean, half = (float(part.replace("−", "-").strip("± ")) for part in texts_of[schedule, str(r)].split("\n"))
        assert mean == pytest.approx(effect.estimate.mean, abs=0.06)
        assert half == pytest.approx((effect.estimate.high - effect.estimate.low) / 2, rel=0.06)


def test_an_interaction_is_as_strong_in_colour_as_in_its_interval(make_runs):
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [1, 2]}, seeds=1, errors=[1.0, 2.0, 2.0, 1.0])
    [figure] = heat.of_interactions(cells(runs))
    orange, purple = colours_of(figure.axes[0])[[1, 0]]
    assert squares_of(figure.axes[0]) == {("1", "1"): "−0.50", ("1", "3"): "+0.50", ("2", "1"): "+0.50", ("2", "3"): "−0.50"}
    assert orange[0] > orange[2]
    assert purple[2] > purple[0]
    assert luminance(purple) < 0.1  # as far as the scale goes: one seed has no interval
    noisy = make_runs(
        {"routing_iterations": [1, 3], "epochs": [1, 2]}, seeds=2, errors=[1.0, 9.0, 2.0, 1.0, 2.0, 1.0, 1.0, 9.0]
    )
    [figure] = heat.of_interactions(cells(noisy))
    assert all(luminance(colour) > 0.5 for colour in colours_of(figure.axes[0]))


def test_numbers_can_be_read_on_their_squares(quick):
    for figure in [*heat.of_errors(cells(quick)), *heat.of_interactions(cells(quick))]:
        for panel in shown_axes(figure):
            for text, colour in zip(panel.texts, colours_of(panel), strict=True):
                light, dark = sorted([luminance(to_rgb(text.get_color())), luminance(colour)], reverse=True)
                assert (light + 0.05) / (dark + 0.05) > 4.5


def test_fewer_than_two_axes_have_no_interaction(make_runs):
    with pytest.raises(NothingToDrawError, match="fewer than two axes"):
        heat.of_interactions(cells(make_runs({"epochs": [1, 2]})))


def test_fields_of_unlike_many_seeds_say_each_how_many(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4], "epochs": [1, 2]})
    [figure] = heat.of_interactions(cells(runs))
    assert {panel.get_title(loc="left").count("(n=") for panel in shown_axes(figure)} == {0}
    assert "over n=3 seeds" in " ".join(texts(figure).split())
    fail(runs, [0, 3])  # of r = 1 and weight 0, seed 0
    [figure] = heat.of_interactions(cells(runs))
    titles = [" ".join(panel.get_title(loc="left").split()) for panel in shown_axes(figure)]
    assert titles == ["r × reconstruction weight (n=2)", "r × epochs (n=3)", "reconstruction weight × epochs (n=3)"]
    assert "over n seeds" in " ".join(texts(figure).split())
