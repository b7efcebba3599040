"""Cells: what varies, what is constant, and that no run vanishes."""

import math
import re

import pandas as pd
import pytest
from matplotlib.text import Text

from analysis import findings, plots, tables
from analysis.axes import constants, followers, followers_note, varying
from analysis.cells import cells, config_of
from analysis.fields import legend, name_of, text_of
from analysis.frames import of_cells, of_runs
from analysis.where import chosen
from capsnet.config import FIELDS, RunConfig
from capsnet.errors import InputError


def test_axes_are_what_varies_in_the_order_of_the_config(make_runs):
    runs = make_runs({"lr_schedule": ["constant", "cosine"], "routing_iterations": [1, 3]})
    assert varying(runs) == ["routing_iterations", "lr_schedule"]
    assert varying(make_runs({}, seeds=5)) == []


def test_constants_are_what_differs_and_what_is_always_told(make_runs):
    runs = make_runs({"routing_iterations": [1, 3]}, base={"conv_channels": 64, "decoder_hidden": (8, 16), "epochs": 2})
    expected = ["dataset", "train_size", "validation_size", "conv_channels", "decoder_hidden", "epochs", "batch_size"]
    assert list(constants(runs)) == expected


def settings_of(*rows):
    """Of axes a, b, ... the values of each cell."""
    return [dict(zip("abcd", row, strict=False)) for row in rows]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (settings_of((1, 1), (1, 2), (2, 1), (2, 2)), {}),
        (settings_of((1, 1), (1, 2), (2, 1)), {}),  # one at a time
        (settings_of((1, 1), (2, 2), (3, 3)), {}),  # as many values as cells
        (settings_of((1, 1, 0), (1, 1, 1), (2, 2, 0), (2, 2, 1)), {"b": "a"}),  # each settles the other: the first is kept
        (settings_of((1, 1, 0), (1, 1, 1), (1, 2, 0), (1, 2, 1), (2, 3, 0), (2, 3, 1)), {"a": "b"}),  # b has more values
        (
            settings_of((1, 1, 5, 0), (1, 1, 5, 1), (2, 2, 5, 0), (2, 2, 5, 1), (2, 3, 6, 0)),
            {"a": "b"},
        ),  # c changes beside the product alone
        (settings_of((3, 0, 1), (3, 0, 3), (9, 0, 1), (9, 0, 3), (1, 7, 1)), {}),  # a cell beside a product, in which b is 0
        (settings_of((3, 0, 1), (3, 0, 3), (9, 7, 1), (9, 7, 3), (1, 8, 1)), {"b": "a"}),  # and one in which it follows
        (settings_of((1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)), {}),  # half of a design
        (settings_of((1, 1, 1), (2, 2, 2), (2, 2, 3), (2, 2, 4)), {}),  # a search: no two values of a beside an equal c
        (settings_of((1, 1, 1), (2, 2, 2), (2, 2, 3), (2, 2, 1)), {"b": "a"}),
        (
            settings_of((1, 1, 1, 0), (1, 1, 2, 0), (2, 2, 3, 0), (3, 1, 2, 1), (1, 1, 1, 1)),
            {},
        ),  # c settles b, in a cell of its own
        ([], {}),
    ],
)
def test_an_axis_whose_value_another_settles_follows_it(settings, expected):
    assert followers(settings) == expected


def test_a_model_that_does_not_read_an_axis_has_no_value_of_it():
    """A plain network routes nothing: that r is 3 with it means nothing."""
    cells = [
        {"model": model, "routing": routing, "routing_iterations": r, "train_size": size}
        for model, routing, r in (("capsnet", "dynamic", 3), ("capsnet", "uniform", 1), ("cnn_matched", "uniform", 3))
        for size in (1, 2)
    ]
    assert followers(cells) == {"routing_iterations": "routing"}
    assert followers([*cells, {**cells[0], "routing": "em", "routing_iterations": 1}])["routing_iterations"] == "routing"
    assert followers([*cells, {**cells[0], "routing": "uniform"}]) == {}


def test_what_follows_is_named():
    settings = [{"train_size": 1, "epochs": 9, "routing": "em", "routing_iterations": r} for r in (1, 2)]
    settings += [{**each, "train_size": 2, "epochs": 5} for each in settings]
    settings = [{**each, "routing": "em" if each["routing_iterations"] == 1 else "dynamic"} for each in settings]
    assert followers_note(settings) == (
        "what changes with train size alone is a part of it: epochs; what changes with routing alone is a part of it: r"
    )


def test_cells_count_every_run(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=5, errors=[0.1, 0.2, 0.6, 9, 9, 1, 2, 3, 4, 5])
    fail(runs, [3])
    fail(runs, [4], "planned", None)
    frame = of_cells(tables.judged(runs, published=()))
    first = frame.iloc[0]
    assert list(frame["routing_iterations"]) == [1, 3]
    assert (first["n"], first["planned"], first["failures"]) == (3, 5, "1 diverged, 1 not run")
    assert (first["min"], first["max"]) == (0.1, 0.6)
    assert first["mean"] == pytest.approx(0.3)
    assert first["sd"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert frame.iloc[1]["failures"] == ""


def test_a_cells_runs_stand_by_seed(quick):
    assert all(list(cell.runs["seed"]) == [0, 1, 2] for cell in cells(quick.sample(frac=1, random_state=0)))


def test_a_finished_run_without_its_error_does_not_vanish(make_runs):
    runs = make_runs({}, errors=[1.0, 2.0, 3.0])
    runs.loc[0, "test_error"] = math.nan
    assert cells(runs)[0].count == "n=2 of 3; 1 without test error"


@pytest.mark.parametrize(
    ("status", "failure", "said"),
    [
        ("failed", "out of memory", "out of memory"),
        ("failed", "error", "failed"),
        ("failed", None, "failed"),
        ("killed", None, "killed"),
        ("running", None, "running"),
        ("planned", None, "not run"),
    ],
)
def test_says_what_became_of_a_run(make_runs, fail, status, failure, said):
    runs = make_runs({}, errors=[1.0, 2.0, 3.0])
    fail(runs, [1], status, failure)
    assert cells(runs)[0].count == f"n=2 of 3; 1 {said}"


def test_no_run_is_an_input_error(quick):
    with pytest.raises(InputError, match="no run"):
        cells(quick.iloc[:0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e-4, "0.0005"), (6.4e-6, "6.4e-6"), (0.0, "0"), (1e-2, "0.01"), (1.5e-10, "1.5e-10"), (True, "true"), (3, "3")],
)
def test_values_are_exact_and_short(value, text):
    assert text_of(value) == text_of(pd.Series([value]).iloc[0]) == text


def test_every_name_leads_back_to_its_field():
    names = [name_of(field) for field in FIELDS]
    assert len(set(names)) == len(names)
    for field, name in zip(FIELDS, names, strict=True):
        assert name.replace(" ", "_") == field or legend([field]) == f"{name}: {field}".replace("_", " ")


def test_a_rows_config_is_the_one_it_was_made_of(make_runs):
    values = {"decoder_hidden": (8, 16), "capsule_bias": True, "learning_rate": 3e-3, "lr_schedule": "one_cycle(rise=0.4)"}
    runs = make_runs({"routing_iterations": [1, 3]}, base=values)
    configs = [RunConfig(**values, routing_iterations=r, seed=seed) for r in (1, 3) for seed in range(3)]
    assert [config_of(runs.iloc[i]) for i in range(len(runs))] == configs


def test_all_training_images_are_called_so_and_come_last(make_runs, tmp_path):
    """A train_size of 0 stands for all images but validation's: the most, and no setting without images."""
    runs = make_runs({"train_size": [100, 0, 500], "routing_iterations": [1, 3]}, seeds=8)
    found = tables.judged(runs, published=())
    assert [cell.setting["train_size"] for cell in found.cells] == [100, 100, 500, 500, 0, 0]
    for table in (tables.ablation(found, runs), tables.accuracy(found, runs)):
        place = table.header.index("train size")
        assert list(dict.fromkeys(row[place] for row in table.rows)) == ["100", "500", "all"]
    levels = [row[1] for row in tables.effects(found, runs).rows if row[0] == "train size"]
    assert levels == ["100", "500", "all"]
    assert list(dict.fromkeys(of_runs(runs)["train_size"])) == [100, 500, 0]
    said = " ".join(finding.text for chapter in findings.find(found).chapters for finding in chapter.findings)
    assert "train size = all against 100" in said
    assert not re.search(r"train size = 0\b", said)
    [figure] = plots.effects(found.cells)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "all" in texts


def test_lists_are_sorted_by_their_members(make_runs):
    runs = make_runs({"decoder_hidden": [(1024,), (128, 256), (16,), (128, 32, 8)]})
    made = tables.judged(runs, published=())
    expected = ["[16]", "[128, 32, 8]", "[128, 256]", "[1024]"]
    assert [cell.setting["decoder_hidden"] for cell in made.cells] == expected
    table = tables.accuracy(made, runs)
    assert [row[table.header.index("decoder hidden")] for row in table.rows] == expected
    assert [row[1] for row in tables.effects(made, runs).rows] == expected


def test_drawn_numbers_are_told_apart_where_they_are_compared(make_runs):
    first, second = 0.0012345678901, 0.0012348765432
    axes = {"learning_rate": [first, second], "routing_iterations": [1, 3]}
    found = findings.find(tables.judged(make_runs(axes, seeds=6), published=()))
    said = [finding.text for chapter in found.chapters for finding in chapter.findings]
    assert any(f"learning rate = {second} against {first}" in text for text in said)
    assert not any("0.001235 against 0.001235" in text for text in said)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["routing_iterations!=3"], [1, 2, 5]),
        (["routing_iterations!=3", "routing_iterations!=1"], [2, 5]),
        (["routing_iterations<3"], [1, 2]),
        (["routing_iterations<=3"], [1, 2, 3]),
        (["routing_iterations>2"], [3, 5]),
        (["routing_iterations>=2", "routing_iterations<5"], [2, 3]),
        (["routing_iterations=1", "routing_iterations=5", "routing_iterations>1.5"], [5]),
        (["routing_iterations>9"], []),
        (["r=3"], [3]),
        (["test_error<=0.25"], [1, 2]),
        (["test_error>0"], [1, 2, 3]),  # the last has none
        (["routing!=dynamic"], [5]),
    ],
)
def test_runs_are_chosen_by_what_they_are_not_and_by_size(make_runs, where, expected):
    runs = make_runs({"routing_iterations": [1, 2, 3, 5]}, seeds=1, errors=[0.1, 0.25, 0.3, math.nan])
    runs.loc[3, "routing"] = "uniform"
    assert list(runs[chosen(where, runs)]["routing_iterations"]) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("routing_iterations", "must be column=value, as in routing_iterations=3, or have !=, <, <=, > or >="),
        (
            "routing>dynamic",
            "--where routing>dynamic: the values of routing are no numbers; write routing=value or routing!=value",
        ),
        ("capsule_bias<1", "the values of capsule_bias are no numbers"),
        ("epochs<many", "--where epochs<many: 'many' is no number"),
        ("epochs<nan", "'nan' is no number"),
        ("epochs!=7", "no run has --where epochs!=7; there are: "),
        ("epoch>7", "did you mean 'epochs'"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(make_runs, where, message):
    runs = make_runs({})
    with pytest.raises(InputError) as caught:
        chosen([where], runs)
    assert message in str(caught.value)


def test_all_training_images_are_more_than_any_number(make_runs):
    runs = make_runs({"train_size": [100, 300, 0]}, seeds=1)
    for where, expected in (
        (">100", [300, 0]), ("<=300", [100, 300]), (">=all", [0]), ("<all", [100, 300]), ("!=all", [100, 300]),
    ):  # fmt: skip
        assert list(runs[chosen([f"train_size{where}"], runs)]["train_size"]) == expected


def test_all_training_images_can_be_asked_for(make_runs):
    runs = make_runs({"train_size": [100, 0]})
    assert list(runs[chosen(["train_size=all"], runs)]["train_size"]) == [0, 0, 0]
    with pytest.raises(InputError, match="train_size=7; there are: all, 100"):
        chosen(["train_size=7"], runs)
    assert tables.judged(runs, published=(), reference="train_size=all").reference.setting == {"train_size": 0}
    assert (
        "train size all, validation size" in tables.accuracy(tables.judged(make_runs({}), published=()), make_runs({})).caption
    )
