"""Errors on further test sets: beside each cell's own, against the reference, and beside the published where that is right."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from analysis import robustness, tables
from analysis.cells import cells
from analysis.formats import html, latex, markdown
from analysis.published import load
from analysis.tables import judged, write
from capsnet.registry import TEST_SETS

BASE = {
    "dataset": "mnist_40",
    "augmentation": "shift(pixels=6)",
    "stop_at_error": 0.77,
    "test_sets": ("affnist", "affnist_generated"),
    "validation_size": 5000,
    "epochs": 30,
}
OWN = [0.8, 0.9, 0.7, 0.6, 0.8, 1.0]
THERE = [20.0, 22.0, 24.0, 31.0, 35.0, 36.0]
GENERATED = [10.0, 12.0, 11.0, 15.0, 16.0, 20.0]


@pytest.fixture
def runs(make_runs):
    """Two cells of 3 seeds, r = 3 first trained so, then r = 1."""
    made = make_runs({"routing_iterations": [3, 1]}, base=BASE, errors=OWN, experiment="affnist")
    made["test_error_affnist"], made["test_error_affnist_generated"] = THERE, GENERATED
    made["validation_error"] = [0.75, 0.6, 0.77, 0.7, 0.78, 0.5]
    made["epochs_trained"] = [7.0, 9.0, 12.0, 6.0, 30.0, 5.0]
    return made


def test_each_cell_has_its_errors_and_how_much_higher_they_are(runs):
    table = robustness.errors(judged(runs, published=()), runs)
    columns = ["r", "epochs trained", "validation error (%)", "test error (%)"]
    for name in ("affnist", "affnist_generated"):
        columns += [f"{name} (%)", "95% over seeds", "difference (points)", "95% over seeds"]
    assert table.header == columns
    first, second = table.rows
    assert first[:4] == ["1", "5–30 (1 of 3 never reached 0.77 %)", "0.66 ± 0.14 (n=3)", "0.80 ± 0.20 (n=3)"]
    assert second[:4] == ["3", "7–12", "0.707 ± 0.093 (n=3)", "0.80 ± 0.10 (n=3)"]
    assert second[4] == "22.0 ± 2.0 (n=3)"
    half = 4.302653 * 2 / math.sqrt(3)
    assert second[5] == f"[{22 - half:.1f}, {22 + half:.1f}]"
    gaps = np.subtract(THERE[:3], OWN[:3])
    assert second[6] == f"+{gaps.mean():.1f}"
    half = 4.302653 * gaps.std(ddof=1) / math.sqrt(3)
    assert second[7] == f"[+{gaps.mean() - half:.1f}, +{gaps.mean() + half:.1f}]"


def test_who_did_not_reach_the_error_is_named(runs):
    comparisons = judged(runs, published=())
    said = "Runs were to stop at the validation error stop_at_error: "
    said += "never reached it, and are counted as they ended: 1 of 3 (r 1)."
    for table in (robustness.errors(comparisons, runs), tables.ablation(comparisons, runs)):
        assert said in table.notes
    runs["validation_error"] = 0.77
    notes = tables.ablation(judged(runs, published=()), runs).notes
    assert "Runs were to stop at the validation error stop_at_error: all finished ones reached it." in notes
    runs["status"] = "planned"
    notes = tables.ablation(judged(runs, published=()), runs).notes
    assert "Runs were to stop at the validation error stop_at_error: none has finished." in notes


def test_without_such_a_wish_nothing_is_said_of_it(make_runs):
    plain = make_runs({"routing_iterations": [1, 3]})
    comparisons = judged(plain, published=())
    assert not any("stop_at_error" in note for note in tables.ablation(comparisons, plain).notes)
    assert robustness.errors(comparisons, plain) is None
    assert robustness.differences(comparisons, plain) is None


def test_a_failed_run_has_no_errors_anywhere(runs, fail):
    fail(runs, [3])
    table = robustness.errors(judged(runs, published=()), runs)
    assert table.rows[0][4] == "35.50 ± 0.71 (n=2)"
    assert "(n=2 of 3; 1 diverged)" in table.rows[0][3] or table.rows[0][3].endswith("(n=2)")


def test_generated_test_sets_are_called_so_in_every_table(runs):
    comparisons = judged(runs, published=())
    for table in (robustness.errors(comparisons, runs), robustness.differences(comparisons, runs)):
        for text in (markdown(table), latex(table), html(table)):
            assert "generated here from MNIST" in text
            assert "not affNIST" in text


def test_a_generated_test_set_of_another_name_is_called_so_too(runs, monkeypatch):
    monkeypatch.setitem(TEST_SETS, "affnist", replace(TEST_SETS["affnist"], origin="generated here"))
    table = robustness.errors(judged(runs, published=()), runs)
    assert "affnist (generated) (%)" in table.header


def test_cells_are_compared_to_the_reference_by_seed_on_each_set(runs):
    comparisons = judged(runs, published=())
    table = robustness.differences(comparisons, runs)
    assert [row[:3] for row in table.rows] == [["1", "affnist", "3"], ["1", "affnist_generated", "3"]]
    for (_, _, made), (one, other) in zip(
        robustness.compared(comparisons), [(THERE[3:], THERE[:3]), (GENERATED[3:], GENERATED[:3])], strict=True
    ):
        test = ttest_rel(one, other)
        interval = test.confidence_interval()
        assert made.difference.mean == pytest.approx(np.mean(one) - np.mean(other))
        assert (made.difference.low, made.difference.high) == pytest.approx((interval.low, interval.high))
        assert made.p == 0.25
    at = table.header.index("difference on own test set (points)")
    test = ttest_rel(OWN[3:], OWN[:3])
    low, high = test.confidence_interval()
    for row in table.rows:  # whether the networks are as good as each other where they were trained
        assert row[at] == "0.00"
        assert row[at + 1] == f"[−{-low:.2f}, +{high:.2f}]"
    assert [row[-2:] for row in table.rows] == [["0.25", "0.5"], ["0.25", "0.5"]]
    assert "corrected for 2 comparisons" in " ".join(table.notes)


def test_the_difference_on_the_own_test_set_has_the_sign_of_the_one_beside_it(runs):
    runs.loc[runs["routing_iterations"] == 1, "test_error"] += 0.5
    table = robustness.differences(judged(runs, published=()), runs)
    assert {row[table.header.index("difference on own test set (points)")] for row in table.rows} == {"+0.50"}


def test_another_data_set_that_was_not_tested_there_changes_nothing(runs, make_runs):
    """One that sorts earlier, and so has the first reference of the table."""
    alone = robustness.differences(judged(runs, published=()), runs)
    other = make_runs({"routing_iterations": [3, 1]}, base={"dataset": "fashion_mnist"}, experiment="affnist")
    both = pd.concat([runs, other.assign(run_id="f" + other["run_id"])], ignore_index=True)
    table = robustness.differences(judged(both, published=()), both)
    at = table.header.index("test set")
    assert [row[at:] for row in table.rows] == [row[alone.header.index("test set") :] for row in alone.rows]
    assert {row[0] for row in table.rows} == {"mnist_40"}
    assert table.caption.startswith("Difference to the reference of its data set (dataset mnist_40, r 3) ")
    assert "the reference has: affnist 22.0 ± 2.0 (n=3) %" in table.caption
    assert any("corrected for 2 comparisons;" in note for note in table.notes)


def test_each_data_set_has_a_reference_and_a_correction_of_its_own(runs):
    """No second data set fits a test set of those that there are; that one could is no reason to mix them."""
    other = runs.assign(dataset="digits", run_id="d" + runs["run_id"])
    other[["test_error_affnist", "test_error_affnist_generated"]] += 5
    both = pd.concat([runs, other], ignore_index=True)
    alone, table = (robustness.differences(judged(frame, published=()), frame) for frame in (runs, both))
    first = alone.header.index("difference on own test set (points)")
    assert [row[0] for row in table.rows] == ["digits"] * 2 + ["mnist_40"] * 2
    assert [row[first + 1 :] for row in table.rows] == 2 * [row[first:] for row in alone.rows]
    assert any("corrected for 2 comparisons on digits and 2 on mnist_40;" in note for note in table.notes)
    assert "the references have: affnist 27.0 ± 2.0 (n=3) %" in table.caption
    assert "; affnist 22.0 ± 2.0 (n=3) %" in table.caption


def test_what_is_significant_after_the_correction_is_marked(make_runs):
    made = make_runs({"routing_iterations": [3, 1]}, seeds=9, base=BASE, experiment="affnist")
    noise = np.tile([1.0, -1.0, 0.5], 6) * np.repeat([1, -1], 9)
    made["test_error_affnist"] = np.where(made["routing_iterations"] == 1, 40, 20) + noise
    made["test_error_affnist_generated"] = 20 + noise
    made["validation_error"], made["epochs_trained"] = 0.5, 7.0
    table = robustness.differences(judged(made, published=()), made)
    p = [float(row[-1]) for row in table.rows]
    assert p[0] <= 0.05 < p[1]
    assert table.marked == {0}


def test_only_common_seeds_make_pairs(runs, fail):
    fail(runs, [0, 4])
    [first, _] = robustness.compared(judged(runs, published=()))
    assert (first[2].difference.n, first[2].difference.mean) == (1, 12.0)


def test_the_papers_numbers_stand_beside_the_official_files_only(runs):
    entries = load()
    table = robustness.errors(judged(runs, published=entries), runs)
    assert [name for name in table.header if name.startswith("paper")] == ["paper, affnist (%)"]
    at = table.header.index("paper, affnist (%)")
    assert [row[at] for row in table.rows] == ["", "21"]
    assert any("99.23 %" in note for note in table.notes)
    generated = runs.drop(columns="test_error_affnist").assign(test_sets=json.dumps(["affnist_generated"]))
    table = robustness.errors(judged(generated, published=entries), generated)
    assert not any(name.startswith("paper") for name in table.header)
    assert not any(entry.test_set not in ("", "affnist") for entry in entries)
    assert all(cell.published is None for cell in cells(runs, entries)), "the number is not of the own test set"


def test_affnists_number_is_an_error_where_the_paper_prints_the_accuracy():
    [entry] = [entry for entry in load() if entry.test_set == "affnist"]
    assert entry.value == 100 - 79
    assert "section 5.2" in entry.source


def test_all_of_it_is_written(runs, tmp_path):
    names = {path.name for path in write(judged(runs, published=()), runs, tmp_path)}
    parts = {f"{name}.{kind}" for name in ("robustness", "robustness_differences") for kind in ("md", "tex", "html")}
    assert parts | {"robustness.csv"} <= names
    frame = pd.read_csv(tmp_path / "robustness.csv")
    assert list(frame["test_set"]) == ["affnist", "affnist_generated"] * 2
    assert list(frame["generated"]) == [False, True] * 2
    assert list(frame["error"]) == pytest.approx([34.0, 17.0, 22.0, 11.0])
    assert list(frame["own"]) == pytest.approx([0.8] * 4)
    assert list(frame["never"]) == [1, 1, 0, 0]


def test_runs_that_were_not_to_stop_never_missed_it(runs):
    runs["stop_at_error"] = 0.0
    assert {len(robustness.never(cell)) for cell in judged(runs, published=()).cells} == {0}
