"""Cells against each other: pairs by seed, blocks that are whole, and a reference that is never guessed in silence."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats

from analysis import ensembles, gaps, tables
from analysis.cells import cells
from analysis.comparisons import Comparisons, Difference, compare
from analysis.differences_table import verdict
from analysis.effects import interactions, main_effects, ranks
from analysis.predictions import MixedError, read_answers
from analysis.references import choose_references
from analysis.statistics import Comparison, Estimate
from capsnet.errors import InputError
from experiments.tracking import MissingError

TWO = {"routing_iterations": [1, 3]}
FOUR = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
PAPERS = "the cell with the paper's values of these axes"


class Shelf:
    """Where predictions lie, instead of MLflow's artifacts: (run id -> file)."""

    def __init__(self, folder):
        self.folder = folder

    def artifact(self, run_id, name, folder):
        path = self.folder / f"{run_id}.safetensors"
        if not path.exists():
            raise MissingError(f"run {run_id} has no {name}")
        return path


@pytest.fixture
def answered(tmp_path):
    """(runs) -> the runs with 200 test images each, answered as wrongly as their test error says, and their shelf."""

    def make(runs, labels=None):
        generator = np.random.default_rng(7)
        labels = np.arange(200) % 10 if labels is None else labels
        for i, row in runs.iterrows():
            if not isinstance(row["run_id"], str) or row["status"] != "finished":
                continue
            wrong = generator.choice(200, round(2 * row["test_error"]), replace=False)
            predictions = labels.copy()
            predictions[wrong] = (labels[wrong] + 1 + generator.integers(9, size=len(wrong))) % 10
            scores = generator.random((200, 10)).astype(np.float32) / 2
            scores[np.arange(200), predictions] = 0.9
            runs.loc[i, "test_error"] = 100 * (predictions != labels).mean()
            save_file(
                {"labels": labels, "predictions": predictions, "class_lengths": scores},
                tmp_path / f"{row['run_id']}.safetensors",
            )
        return runs, {"quick": Shelf(tmp_path)}

    return make


def shuffled(frame, seed=0):
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


# --- the reference


@pytest.mark.parametrize(
    ("axes", "setting", "why"),
    [
        (FOUR, {"routing_iterations": 3, "reconstruction_weight": 5e-4}, PAPERS),
        (
            {"routing_iterations": [1, 3], "lr_schedule": ["constant", "cosine"]},
            {"routing_iterations": 3, "lr_schedule": "constant"},
            "no cell has all of the paper's values of these axes; this one is the first with r 3",
        ),
        ({"routing_iterations": [2, 4]}, {"routing_iterations": 2}, "the first cell"),
    ],
)
def test_the_papers_cell_is_the_reference_or_the_one_nearest_to_it(make_runs, axes, setting, why):
    reference, said = choose_references(cells(shuffled(make_runs(axes))))["mnist"]
    assert (reference.setting, said) == (setting, why)


def test_what_a_grid_had_before_an_edit_is_no_reference(make_runs):
    runs = make_runs({"epochs": [4, 8], "routing_iterations": [1, 3]}, base={"validation_size": 100})
    for epochs in (4, 8):
        reference, said = choose_references(cells(shuffled(runs.assign(in_grid=runs["epochs"] == epochs))))["mnist"]
        assert reference.setting == {"epochs": epochs, "routing_iterations": 3}
        assert said == "no cell has all of the paper's values of these axes; this one is the first with r 3"
    runs = make_runs({"routing_iterations": [1, 2, 3]})
    reference, said = choose_references(cells(runs.assign(in_grid=runs["routing_iterations"] < 3)))["mnist"]
    assert (reference.setting, said) == ({"routing_iterations": 1}, "the first cell of the grid as it is now")
    some = runs.assign(in_grid=runs["seed"] == 0)  # a cell is of the grid if one of its seeds is
    assert choose_references(cells(some))["mnist"][0].setting == {"routing_iterations": 3}


def test_what_a_model_does_not_read_makes_no_cell_the_reference(make_runs):
    """A matched network has the defaults of all fields of routing, and a network without dropout the default of that."""
    others = [{"routing": "static", "routing_iterations": 1}, {"routing": "em", "routing_iterations": 5}]
    many = [make_runs({}, base=base) for base in (*others, {"model": "cnn_matched"})]
    reference, said = choose_references(cells(pd.concat(many)))["mnist"]
    assert reference.setting == {"model": "capsnet", "routing": "static", "routing_iterations": 1}
    assert said.endswith("this one is the first with model capsnet")
    cnn = {"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0.0}
    many = [make_runs({}, base=base) for base in ({}, cnn, {**cnn, "dropout": 0.5})]
    reference, said = choose_references(cells(pd.concat(many)[::-1]))["mnist"]
    assert (reference.setting["model"], said) == ("capsnet", PAPERS)


@pytest.mark.parametrize(
    "wanted",
    [
        "routing_iterations=1 reconstruction_weight=0",
        "reconstruction_weight=0, routing_iterations=1",
        "routing_iterations=1,reconstruction_weight=0.0",
        "r=1 reconstruction_weight=0e0",
        "r=1 recon=0",
    ],
)
def test_a_reference_is_named_by_its_axes(make_runs, wanted):
    found = cells(make_runs(FOUR))
    assert choose_references(found, wanted)["mnist"][0] is found[0]


def test_a_reference_whose_values_hold_commas_is_found(make_runs):
    found = cells(make_runs({"lr_schedule": ["constant", "exponential(gamma=0.5, every=40)"], "epochs": [2, 3]}))
    wanted = "epochs=3, lr_schedule=exponential(gamma=0.5, every=40)"
    assert choose_references(found, wanted)["mnist"][0].setting == {
        "epochs": 3,
        "lr_schedule": "exponential(gamma=0.5, every=40)",
    }


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("routing_iterations=2", "no cell is the reference 'routing_iterations=2'; there are: routing_iterations=1 recon"),
        (
            "routing_iterations=1",
            "2 cells are the reference 'routing_iterations=1'; name one of: routing_iterations=1 reconstruction_weight=0; "
            "routing_iterations=1 reconstruction_weight=0.0005$",
        ),
        ("routing=dynamic", "unknown axis 'routing' in reference 'routing=dynamic'; choices: routing_iterations, recon"),
        ("the best", "must be axis=value, as in: routing_iterations=1 reconstruction_weight=0"),
    ],
)
def test_an_unknown_reference_names_what_there_is(make_runs, wanted, message):
    with pytest.raises(InputError, match=message):
        choose_references(cells(make_runs(FOUR)), wanted)


def test_a_single_cell_has_nothing_to_be_the_reference_of(make_runs):
    [alone] = cells(make_runs({}))
    assert choose_references([alone]) == {}
    with pytest.raises(InputError, match="reference 'r=3': there is a single cell, and nothing to compare it to"):
        choose_references([alone], "r=3")


def test_a_single_cell_has_no_reference(make_runs):
    made = compare(cells(make_runs({})), {})
    assert (made.reference, list(made.differences)) == (None, [])
    assert tables.differences(made, make_runs({})) is None


# --- pairs


def test_only_seeds_that_both_have_finished_are_paired(make_runs, fail):
    errors = [5.0, 6.0, 7.0, 8.0, 1.0, 3.0, 2.5, 9.0]
    runs = make_runs(TWO, seeds=4, errors=errors)
    fail(runs, [1])  # r = 1, seed 1
    fail(runs, [7], "planned", None)  # r = 3, seed 3
    [difference] = compare(cells(shuffled(runs)), {}).differences
    made = difference.comparison.difference
    assert (made.n, made.mean) == (2, pytest.approx(np.mean([5.0 - 1.0, 7.0 - 2.5])))
    assert difference.comparison.smallest_p == 0.5
    expected = stats.ttest_rel([5.0, 7.0], [1.0, 2.5]).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high))


def test_a_cell_without_a_pair_is_said_to_have_none(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=3)
    fail(runs, [0, 1, 2])
    made = compare(cells(runs), {})
    table = tables.differences(made, runs)
    assert table.rows[0] == ["1", "0", *["—"] * 7, "no pair of runs"]
    assert math.isnan(made.differences[0].p_holm)
    assert made.differences[1].p_holm == made.differences[1].comparison.p  # one comparison is left to correct for


def test_p_values_are_corrected_over_the_table(make_runs):
    seeds = 8
    base = np.linspace(1, 2, seeds)
    errors = [*(base + 0.5 + 0.01 * np.arange(seeds)), *(base + 0.1 * np.array([1, -1, 1, 1, -1, 1, 1, 1])), *base]
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=seeds, errors=errors)
    made = compare(cells(runs), {})
    first, second = (d.comparison.p for d in made.differences)
    assert first == 2 / 2**seeds
    assert second > 0.05
    assert [d.p_holm for d in made.differences] == [2 * first, second]
    table = tables.differences(made, runs)
    assert [row[-1] for row in table.rows] == ["higher error", "no difference can be claimed"]
    assert table.marked == {0}
    assert not any("out of reach" in note for note in table.notes)


@pytest.mark.parametrize(("seeds", "cells_compared", "needed"), [(3, 1, 6), (5, 1, 6), (6, 3, 7), (3, 11, 9)])
def test_where_no_data_could_be_significant_it_says_so(make_runs, seeds, cells_compared, needed):
    runs = make_runs({"routing_iterations": list(range(1, cells_compared + 2))}, seeds=seeds)
    made = compare(cells(runs), {})
    table = tables.differences(made, runs)
    assert not made.in_reach
    assert {row[-1] for row in table.rows} == {"out of reach"}
    assert f"; {needed} seeds would be needed for 0.05." in table.notes[1]
    enough = make_runs({"routing_iterations": list(range(1, cells_compared + 2))}, seeds=needed)
    assert compare(cells(enough), {}).in_reach


def test_p_is_corrected_for_the_cells_that_have_pairs(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=3)
    fail(runs, [0, 1, 2])
    made = compare(cells(runs), {})
    assert "corrected for 1 comparison." in tables.differences(made, runs).notes[0]


BOTH = {"dataset": ["mnist", "fashion_mnist"], "routing_iterations": [1, 2, 3]}


def test_each_data_set_has_a_reference_ranks_and_a_correction_of_its_own(make_runs):
    runs = make_runs(BOTH, seeds=6)
    made = compare(cells(runs), {})
    assert {name: (cell.setting, why) for name, (cell, why) in made.references.items()} == {
        name: ({"dataset": name, "routing_iterations": 3}, PAPERS) for name in ("fashion_mnist", "mnist")
    }
    alone = {name: compare(cells(runs[runs["dataset"] == name]), {}) for name in BOTH["dataset"]}
    assert list(made.by_dataset) == ["mnist", "fashion_mnist"]
    for name, part in made.by_dataset.items():
        assert [cell.setting for cell in part.cells] == [{"routing_iterations": r} for r in (1, 2, 3)]
        assert part.reference.setting == alone[name].reference.setting
        for found, expected in zip(part.differences, alone[name].differences, strict=True):
            assert (found.comparison, found.p_holm) == (expected.comparison, expected.p_holm)
        assert ranks(part.cells) == ranks(alone[name].cells)
    assert [d.p_holm for d in made.differences] == [d.p_holm for part in made.by_dataset.values() for d in part.differences]
    assert ranks(made.cells)[0] == [*ranks(alone["mnist"].cells)[0], *ranks(alone["fashion_mnist"].cells)[0]]
    assert {effect.axes for effect in main_effects(made.cells)} == {("routing_iterations",)}
    assert interactions(made.cells) == []


def test_differences_are_in_the_order_of_the_cells_whatever_that_is(make_runs):
    found = cells(make_runs(BOTH))
    mixed = [*found[::2], *found[1::2]]  # of both data sets in turn
    made = compare(mixed, {})
    references = [id(cell) for cell, _ in made.references.values()]
    assert [id(each.cell) for each in made.differences] == [id(cell) for cell in mixed if id(cell) not in references]


def test_a_single_data_set_is_its_own_part(make_runs):
    made = compare(cells(make_runs(TWO)), {})
    assert list(made.by_dataset.values()) == [made]


def test_a_reference_is_asked_for_on_each_data_set_that_has_it(make_runs):
    found = cells(pd.concat([make_runs(BOTH), make_runs({"routing_iterations": [5]})], ignore_index=True))
    both = compare(found, {}, "routing_iterations=1").references
    assert {name: (cell.setting["routing_iterations"], why) for name, (cell, why) in both.items()} == {
        "fashion_mnist": (1, "as asked for"),
        "mnist": (1, "as asked for"),
    }
    one = compare(found, {}, "routing_iterations=5").references
    assert {name: (cell.setting["routing_iterations"], why) for name, (cell, why) in one.items()} == {
        "fashion_mnist": (3, PAPERS),
        "mnist": (5, "as asked for"),
    }
    with pytest.raises(InputError, match="3 cells are the reference 'dataset=fashion_mnist'"):
        compare(found, {}, "dataset=fashion_mnist")


def test_tables_of_several_data_sets_say_of_which_each_number_is(make_runs):
    runs = make_runs(BOTH, seeds=3)
    made = compare(cells(runs), {})
    table = tables.differences(made, runs)
    assert [row[:3] for row in table.rows] == [
        ["mnist", "1", "3"],
        ["mnist", "2", "3"],
        ["fashion_mnist", "1", "3"],
        ["fashion_mnist", "2", "3"],
    ]
    assert "corrected for 2 comparisons on mnist and 2 on fashion_mnist." in table.notes[0]
    assert table.notes[1].startswith("On mnist and fashion_mnist: significance is out of reach")
    assert table.caption.count(PAPERS) == 2
    effects = tables.effects(made, runs)
    assert effects.header[:3] == ["dataset", "axis", "value"]
    assert [row[:3] for row in effects.rows] == [[d, "r", r] for d in ("mnist", "fashion_mnist") for r in "123"]


def test_tables_of_several_data_sets_of_which_nothing_has_finished(make_runs, fail, tmp_path):
    runs = make_runs(BOTH, seeds=3)
    fail(runs, list(runs.index), "planned", None)
    assert "corrected for 0 comparisons." in tables.differences(compare(cells(runs), {}), runs).notes[0]
    assert tables.write(compare(cells(runs), {}), runs, tmp_path)
    runs = make_runs(BOTH, seeds=3)
    fail(runs, list(runs.index[runs["dataset"] == "mnist"]), "planned", None)
    assert "corrected for 2 comparisons on fashion_mnist." in tables.differences(compare(cells(runs), {}), runs).notes[0]


def test_a_data_set_with_one_cell_is_not_compared(make_runs):
    runs = pd.concat([make_runs(TWO), make_runs({}, base={"dataset": "fashion_mnist"})], ignore_index=True)
    made = compare(cells(runs), {})
    assert list(made.references) == ["mnist"]
    assert [d.cell.setting["dataset"] for d in made.differences] == ["mnist"]
    assert len(tables.differences(made, runs).rows) == 1


def test_equal_pairs_are_no_certainty(make_runs):
    runs = make_runs(TWO, errors=[1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    [row] = tables.differences(compare(cells(runs), {}), runs).rows
    assert row[3] == "all equal"


# --- effects


def test_effects_of_a_design_are_what_made_it(make_runs):
    """errors = 5 + effect of r + effect of weight + interaction + seed; the last must not matter at all."""
    r, weight, both = {1: 0.5, 3: -0.5}, {0.0: 0.2, 5e-4: -0.2}, {1: 0.1, 3: -0.1}
    errors = [5 + r[a] + weight[b] + both[a] * (1 if b else -1) + seed for a, b, seed in itertools.product(r, weight, range(3))]
    runs = make_runs(FOUR, errors=errors)
    found = {(effect.axes, effect.levels): effect.estimate for effect in main_effects(cells(runs))}
    assert {key: round(e.mean, 12) for key, e in found.items()} == {
        (("routing_iterations",), (1,)): 0.5,
        (("routing_iterations",), (3,)): -0.5,
        (("reconstruction_weight",), (0.0,)): 0.2,
        (("reconstruction_weight",), (5e-4,)): -0.2,
    }
    assert all(e.n == 3 and e.high - e.low < 1e-9 for e in found.values())
    crossed = {effect.levels: round(effect.estimate.mean, 12) for effect in interactions(cells(runs))}
    assert crossed == {(1, 0.0): -0.1, (1, 5e-4): 0.1, (3, 0.0): 0.1, (3, 5e-4): -0.1}


@pytest.mark.parametrize("failed", [0, 6])  # r = 1 or 3, weight 0, seed 0
def test_a_failed_run_costs_its_block_and_not_its_seed(make_runs, fail, failed):
    runs = make_runs(FOUR, errors=[float(i * i % 17) for i in range(12)])
    fail(runs, [failed])
    table = runs.pivot_table(index="seed", columns=["routing_iterations", "reconstruction_weight"], values="test_error")
    by_seed = [(table[1, 5e-4] - table[3, 5e-4])[0] / 2]  # the block of weight 0 is broken for this seed
    by_seed += [(table[1] - table[3]).mean(axis=1)[seed] / 2 for seed in (1, 2)]
    effect = next(e for e in main_effects(cells(runs)) if e.levels == (1,))
    assert effect.estimate.n == 3
    assert effect.estimate.mean == pytest.approx(np.mean(by_seed))


def test_settings_that_lack_a_value_have_no_part_in_its_axis(make_runs):
    runs = pd.concat([make_runs(FOUR), make_runs({"routing_iterations": [5]})], ignore_index=True)
    found = {(effect.axes[0], effect.levels[0]): effect.estimate.mean for effect in main_effects(cells(runs))}
    means = runs.groupby(["reconstruction_weight", "routing_iterations"])["test_error"].mean()
    for r in (1, 3, 5):  # weight 0 was not tried with r = 5
        assert found["routing_iterations", r] == pytest.approx(means[5e-4][r] - means[5e-4].mean())
    lower = (means[0.0][[1, 3]] - means[5e-4][[1, 3]]).mean()  # and r = 5 not with weight 0
    assert found["reconstruction_weight", 0.0] == pytest.approx(lower / 2)


def test_a_value_with_which_nothing_finished_takes_no_other_with_it(make_runs, fail):
    runs = make_runs({"learning_rate": [1e-3, 5e-3, 1e30], "routing_iterations": [1, 3]})
    fail(runs, [i for i, rate in enumerate(runs["learning_rate"]) if rate == 1e30])
    levels = {effect.levels for effect in main_effects(cells(runs))}
    assert levels == {(1e-3,), (5e-3,), (1,), (3,)}
    means, seeds = ranks(cells(runs))
    assert sorted(seeds) == [0, 0, 3, 3, 3, 3]
    assert sorted(map(math.isnan, means)) == [False] * 4 + [True] * 2


def test_ranks_are_over_the_seeds_that_all_have(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 2, 3]}, errors=[3.0, 3.0, 9.0, 2.0, 1.0, 9.0, 1.0, 1.0, 0.0])
    fail(runs, [8])
    assert ranks(cells(runs)) == ([3.0, 1.75, 1.25], [2, 2, 2])
    fail(runs, [0, 4])
    means, seeds = ranks(cells(runs))
    assert seeds == [0, 0, 0]
    assert all(map(math.isnan, means))


# --- the test images


def test_answers_stand_by_seed_and_agree_with_the_errors(make_runs, answered):
    runs, stores = answered(make_runs(TWO, errors=[5.0, 7.5, 10.0, 2.0, 4.0, 3.0]))
    found = cells(shuffled(runs))
    answers, faults = read_answers(found[0], stores)
    assert faults == []
    assert list(answers.seeds) == [0, 1, 2]
    assert list(100 * answers.wrong.mean(axis=1)) == [5.0, 7.5, 10.0]
    made = compare(found, stores)
    assert made.images[0].votes.sum(axis=1).tolist() == [3] * 200
    right = made.images[0].votes[np.arange(200), made.images[0].labels]
    assert 100 * (1 - right.mean() / 3) == pytest.approx(7.5)
    assert made.images[0].interval.mean == pytest.approx(7.5)
    assert made.images[0].interval.low < 7.5 < made.images[0].interval.high
    assert made.differences[0].images.mean == pytest.approx(4.5)


def test_the_interval_over_images_is_wider_and_the_order_of_runs_changes_nothing(make_runs, answered):
    runs, stores = answered(make_runs(TWO, errors=[5.0, 5.0, 5.5, 2.0, 2.0, 2.5]))
    made, again = compare(cells(runs), stores), compare(cells(shuffled(runs)), stores)
    assert [images.interval for images in made.images] == [images.interval for images in again.images]
    assert [d.images for d in made.differences] == [d.images for d in again.differences]
    for cell, images in zip(made.cells, made.images, strict=True):
        assert images.interval.high - images.interval.low > cell.error.high - cell.error.low


def test_predictions_that_are_gone_are_named_and_the_rest_is_built(make_runs, answered, tmp_path):
    runs, stores = answered(make_runs(TWO))
    (tmp_path / "run000.safetensors").unlink()
    (tmp_path / "run001.safetensors").write_bytes(b"torn")
    for i in (3, 4, 5):
        (tmp_path / f"run{i:03d}.safetensors").unlink()
    made = compare(cells(runs), stores)
    assert [fault.split(" has no")[0] for fault in made.faults if "has no" in fault] == [f"run run00{i}" for i in (3, 4, 5, 0)]
    assert any(re.search(r"test_predictions.safetensors of run run001 can't be read", fault) for fault in made.faults)
    assert [images is not None for images in made.images] == [True, False]
    assert made.differences[0].comparison.difference.n == 3  # the logged errors are there
    assert made.differences[0].images is None
    table = tables.ablation(made, runs)
    assert "Without the predictions of 5 finished runs, which are gone." in table.notes
    assert [row[3] for row in table.rows][1] == "—"
    assert table.rows[0][3].endswith("] (n=1)")  # the interval of the one run whose predictions are left


def test_other_test_images_are_never_paired(make_runs, answered):
    runs = make_runs(TWO)
    first, stores = answered(runs[runs["routing_iterations"] == 1].copy())
    second, _ = answered(runs[runs["routing_iterations"] == 3].copy(), labels=np.arange(200)[::-1] % 10)
    made = compare(cells(pd.concat([first, second])), stores)
    assert all(images is not None for images in made.images)
    assert made.differences[0].images is None


def test_images_are_paired_by_the_seeds_that_both_have(make_runs, answered, fail):
    runs = make_runs(TWO, seeds=4, errors=[5.0, 10.0, 6.0, 9.0, 2.0, 4.0, 1.0, 3.0])
    fail(runs, [1])
    fail(runs, [7])
    runs, stores = answered(runs)
    [difference] = compare(cells(runs), stores).differences
    assert (difference.images.n, difference.images.mean) == (2, pytest.approx((5.0 - 2.0 + 6.0 - 1.0) / 2))
    fail(runs, [0, 2])  # now they have no seed in common
    [difference] = compare(cells(runs), stores).differences
    assert (difference.images, difference.comparison.difference.n) == (None, 0)


def test_runs_of_a_cell_that_saw_different_images_are_not_averaged(make_runs, answered):
    runs = make_runs({})
    answered(runs.iloc[:2].copy())
    _, stores = answered(runs.iloc[2:].copy(), labels=np.arange(200)[::-1] % 10)
    with pytest.raises(MixedError, match="different images"):
        read_answers(cells(runs)[0], stores)
    made = compare(cells(runs), stores)
    assert made.faults == []
    [doubt] = made.doubts
    assert doubt.startswith("the runs of the only cell were tested on different images: ")


@pytest.mark.parametrize(
    ("mean", "p", "p_holm", "n", "said"),
    [
        (-0.5, 0.01, 0.03, 8, "lower error"),
        (0.5, 0.01, 0.05, 8, "higher error"),
        (0.5, 0.03, 0.06, 8, "no difference can be claimed"),
        (math.nan, math.nan, math.nan, 0, "no pair of runs"),
    ],
)
def test_what_is_said_follows_the_corrected_p(make_runs, mean, p, p_holm, n, said):
    estimate = Estimate(mean, 0.1, mean - 0.1, mean + 0.1, n, "")
    cell = cells(make_runs({}))[0]
    assert verdict(Difference(cell, Comparison(estimate, p, 0.01, 1.0, 0.1), p_holm, None)) == said


def test_an_ensemble_is_only_told_of_several_runs(make_runs, answered):
    runs, stores = answered(make_runs(TWO, seeds=1, errors=[5.0, 6.0]))
    made = compare(cells(runs), stores)
    assert isinstance(made, Comparisons)
    assert [images.ensemble for images in made.images] == [None, None]
    assert ensembles.table(made, runs) is None
    assert "over test images" in made.images[0].interval.kind


# --- ensembles


def oracle(folder, run_ids):
    """The errors in % of single networks and of their mean scores, from the files alone, image by image and class by class."""
    files = [load_file(folder / f"{run_id}.safetensors") for run_id in run_ids]
    labels, wrong = files[0]["labels"], 0
    for image, label in enumerate(labels):
        means = [sum(float(file["class_lengths"][image, c]) for file in files) / len(files) for c in range(10)]
        wrong += means.index(max(means)) != label
    return [100 * np.mean(file["predictions"] != labels) for file in files], 100 * wrong / len(labels), wrong


def test_a_row_of_the_table_of_ensembles_is_what_the_files_say(make_runs, answered, tmp_path):
    """Jeffreys' interval, which the bootstrap of one network's errors is, within what 10,000 resamples tell."""
    runs, stores = answered(make_runs(TWO, seeds=7, errors=[float(e) for e in range(56, 84, 2)]))
    made = compare(cells(runs), stores)
    table = ensembles.table(made, runs)
    header = ["r", "single network (%)", "networks", "ensemble (%)", "95% over images", "test images"]
    assert table.header == header
    for found, cell, images in zip(table.rows, made.cells, made.images, strict=True):
        singles, error, wrong = oracle(tmp_path, cell.runs["run_id"])
        assert 0 < error < min(singles)
        assert found[1].startswith(f"{np.mean(singles):.1f} ± {np.std(singles, ddof=1):.1f} (n=7)")
        assert found[2:4] + found[5:] == ["7", f"{error:.2f}", "200"]
        low, high = (float(text) for text in found[4].strip("[]").split(", "))
        jeffreys = stats.beta.ppf([0.025, 0.975], wrong + 0.5, 200 - wrong + 0.5) * 100
        assert [low, high] == pytest.approx(list(jeffreys), abs=0.25)
        assert images.ensemble.mean == pytest.approx(error)
    assert {path.name for path in tables.write(made, runs, tmp_path / "t")} >= {
        "ensembles.md",
        "ensembles.tex",
        "ensembles.html",
    }
    frame = pd.read_csv(tmp_path / "t" / "cells.csv")
    assert frame["ensemble"].tolist() == pytest.approx([images.ensemble.mean for images in made.images])
    assert (frame["low_ensemble"] < frame["ensemble"]).all()
    assert (frame["ensemble"] < frame["high_ensemble"]).all()


def test_an_ensemble_says_how_many_networks_it_has(make_runs, answered, fail, tmp_path):
    """One run diverged, the predictions of another are gone: two of four answer together; a cell with one left has no row."""
    runs = make_runs(TWO, seeds=4, errors=[30.0] * 8)
    fail(runs, [1, 5, 6])
    runs, stores = answered(runs)
    for gone in ("run002", "run007"):
        (tmp_path / f"{gone}.safetensors").unlink()
    made = compare(cells(runs), stores)
    table = ensembles.table(made, runs)
    assert [each[0] for each in table.rows] == ["1"]
    assert table.rows[0][1].endswith("(n=3 of 4; 1 diverged)")
    assert table.rows[0][2] == "2"
    assert len(made.faults) == 2


@pytest.mark.parametrize("other", [0, 1])
def test_runs_of_another_data_set_are_no_ensemble_though_labels_agree(make_runs, answered, other):
    runs, stores = answered(make_runs(TWO, seeds=2, errors=[30.0] * 4))
    runs["data_sha256"] = [("b" if i == other else "a") * 64 for i in range(4)]
    made = compare(cells(runs), stores)
    assert made.images[0] is None
    assert [each[0] for each in ensembles.table(made, runs).rows] == ["3"]
    assert made.faults == []
    mixed, several = sorted(made.doubts)[::-1]
    assert mixed.startswith("the runs of r = 1 were tested on different images: ")
    counted = "by SHA-256 aaaaaaaa 3 runs, bbbbbbbb 1 run; only those of aaaaaaaa are compared"
    assert several == f"runs on mnist read different data, {counted}"
    assert list(made.cells[0].by_seed) == [1 - other]
    assert made.cells[0].error.n == 2
    assert not any("gone" in note for note in tables.ablation(made, runs).notes)
    said = [finding.text for finding in gaps.missing_runs(made).findings]
    assert said[1:] == [f"{doubt[0].upper()}{doubt[1:]}." for doubt in made.doubts]


def test_cells_that_read_other_data_of_one_name_are_not_paired(make_runs, answered):
    """Neither by seed nor by image, though labels agree; what isn't known is taken for the same."""
    runs, stores = answered(make_runs({"routing_iterations": [1, 2, 3]}, seeds=6, errors=[30.0] * 18))
    without = compare(cells(runs), stores)
    runs["data_sha256"] = [*(("b" if i < 6 else "a") * 64 for i in range(17)), None]
    made = compare(cells(runs), stores)
    assert made.reference.setting == {"routing_iterations": 3}
    other, same = made.differences
    assert (other.comparison.difference.n, other.images) == (0, None)
    assert verdict(other) == "no pair of runs"
    assert (same.comparison.difference.n, same.images.n) == (6, 6)
    assert all(made.images)
    assert [len(doubt) > 0 for doubt in made.doubts] == [True]
    assert ranks(made.cells)[1] == [0, 0, 0]
    assert [each.comparison.difference.n for each in without.differences] == [6, 6]
    assert without.doubts == []


@pytest.mark.parametrize(("read", "compared"), [("bba", "b"), ("abb", "b"), ("bca", "a"), ("cbc", "c")])
def test_what_most_runs_of_the_reference_read_is_compared(make_runs, read, compared):
    """Whatever most runs of all cells read; on a tie the digest that sorts first, whatever the order of the runs."""
    runs = make_runs(TWO)
    runs["data_sha256"] = [digest * 64 for digest in "aaa" + read]
    other, reference = compare(cells(runs), {}).cells
    assert list(reference.by_seed) == [seed for seed, digest in enumerate(read) if digest == compared]
    assert list(other.by_seed) == ([0, 1, 2] if compared == "a" else [])
