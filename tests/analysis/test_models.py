"""Several models in one experiment: what means nothing to one of them is neither a value nor an effect of its."""

import pandas as pd
import pytest

from analysis import tables
from analysis.axes import axes_read, dictated, texts_of, varying
from analysis.cells import cells
from analysis.contrasts import _contrasts
from analysis.effects import interactions, main_effects
from analysis.heat import squares
from analysis.published import load
from analysis.sentences import against, setting
from analysis.wording import setting_text

CNN = {"model": "cnn", "dropout": 0.5, "loss": "cross_entropy", "reconstruction_weight": 0.0}
AXES = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}


@pytest.fixture
def table1(make_runs):
    """The four cells of capsules and the CNN, with 3 seeds each."""
    parts = [make_runs(AXES), make_runs({}, base=CNN)]
    parts[1]["run_id"] = [f"cnn{i}" for i in range(3)]
    return pd.concat(parts, ignore_index=True)


def test_table_1_comes_out_as_the_paper_has_it(table1):
    table = tables.accuracy(tables.judged(table1, published=load()), table1)
    assert table.header == ["model", "r", "reconstruction", "test error (%)", "paper (%)"]
    assert [row[:3] for row in table.rows] == [
        ["CapsNet", "1", "no"],
        ["CapsNet", "1", "yes"],
        ["CapsNet", "3", "no"],
        ["CapsNet", "3", "yes"],
        ["Baseline CNN", "—", "—"],
    ]
    printed = ["0.34 ± 0.032 (n=3)", "0.29 ± 0.011 (n=3)", "0.35 ± 0.036 (n=3)", "0.25 ± 0.005 (n=3)", "0.39"]
    assert [row[-1] for row in table.rows] == printed
    assert "CapsNet: loss margin. Baseline CNN: dropout 0.5, loss cross_entropy." in table.caption


def test_models_stand_one_below_the_other_however_many_there_are(table1, make_runs):
    more = pd.concat([table1, make_runs({}, base={"model": "cnn_matched"})], ignore_index=True)
    table = tables.accuracy(tables.judged(more, published=load()), more)
    assert table.header == ["model", "r", "reconstruction", "test error (%)", "paper (%)"]
    assert [row[:3] for row in table.rows[4:]] == [["CNN, matched", "—", "yes"], ["Baseline CNN", "—", "—"]]
    assert [row[-1] for row in table.rows[4:]] == ["", "0.39"]


def test_what_comes_with_a_model_is_no_axis(table1, make_runs):
    assert varying(table1) == ["model", "routing_iterations", "reconstruction_weight"]
    assert dictated(table1) == {"dropout": ("model",), "loss": ("model",)}
    more = pd.concat([table1, make_runs({}, base={**CNN, "dropout": 0.0})], ignore_index=True)
    assert varying(more) == ["model", "dropout", "routing_iterations", "reconstruction_weight"]


def test_a_cell_is_named_by_what_means_something_to_it(table1):
    one, *_, last = cells(table1)
    assert last.setting == {"model": "cnn", "routing_iterations": 3, "reconstruction_weight": 0.0}
    assert axes_read(last.setting) == {"model": "cnn"}
    assert texts_of(last.setting) == ["cnn", "—", "—"]
    assert (setting(last.setting), setting_text(last.setting)) == ("model = cnn", "model cnn")
    assert texts_of(one.setting) == ["capsnet", "1", "0"]
    expected = "model = cnn against model = capsnet with r = 1 and reconstruction weight = 0"
    assert against(last.setting, one.setting) == expected
    assert against(one.setting, cells(table1)[1].setting) == "reconstruction weight = 0 against 0.0005"


def test_a_model_without_routing_says_nothing_of_its_effects_and_stands_beside_the_cell_with_the_defaults(table1):
    """As its config has r = 3 without reconstruction, it would seem to be one of the cells that these effects are of."""
    capsules = table1[table1["model"] == "capsnet"]
    found = {(e.axes, e.levels): e.estimate.mean for e in main_effects(cells(table1))}
    alone = {(e.axes, e.levels): e.estimate.mean for e in main_effects(cells(capsules))}
    models = {own: found.pop(own) for own in [*found] if own[0] == ("model",)}
    assert found == alone
    assert {axes for axes, _ in found} == {("routing_iterations",), ("reconstruction_weight",)}
    assert {k: v.mean for k, v in squares(cells(table1)).items()} == {k: v.mean for k, v in squares(cells(capsules)).items()}
    judged = tables.judged(table1, published=())
    [beside] = [c for c in judged.cells if c.setting == {**judged.cells[-1].setting, "model": "capsnet"}]
    difference = judged.cells[-1].error.mean - beside.error.mean
    assert models == {
        (("model",), ("capsnet",)): pytest.approx(-difference / 2),
        (("model",), ("cnn",)): pytest.approx(difference / 2),
    }
    for asked, settings in (({"model": [("cnn", "capsnet")]}, 1), ({"routing_iterations": [(3, 1)]}, 2)):
        [contrast] = _contrasts(judged.cells, asked)
        assert len(contrast.rows) == settings
        assert "model" not in asked or contrast.comparison.difference.mean == pytest.approx(difference)


def test_a_cell_beside_the_product_hides_no_effect_of_the_model(make_runs):
    """It makes an axis of what one of the models doesn't read."""
    product = {"model": ["capsnet", "cnn_matched"], "capsule_bias": [False, True]}
    runs = make_runs(product, seeds=6)
    more = pd.concat([runs, make_runs({}, seeds=6, base={"routing": "uniform", "routing_iterations": 1})], ignore_index=True)
    for effects in (main_effects, interactions):
        alone = {(e.axes, e.levels): e.estimate.mean for e in effects(cells(runs))}
        assert alone
        assert {(e.axes, e.levels): e.estimate.mean for e in effects(cells(more))}.items() >= alone.items()


def test_every_table_and_plot_of_several_models_is_made(table1, tmp_path):
    from analysis import plots

    judged = tables.judged(table1, published=load())
    for path in tables.write(judged, table1, tmp_path):
        assert path.stat().st_size
    text = (tmp_path / "differences.md").read_text()
    assert "| cnn" in text
    assert "—" in text
    assert len(plots.by_cell(judged)) == len(plots.by_axis(judged.cells)) == len(plots.effects(judged.cells)) == 1
