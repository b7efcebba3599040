"""Errors on further test sets: beside each cell's own, against the reference, and beside the published where that is right."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from analysis import plots, robustness, robustness_figure, robustness_tables, tables
from analysis.cells import cells
from analysis.formats import html, latex, markdown
from analysis.published import load
from analysis.style import NothingToDrawError
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
    table = robustness_tables.errors(judged(runs, published=()), runs)
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
    for table in (robustness_tables.errors(comparisons, runs), tables.ablation(comparisons, runs)):
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
    assert robustness_tables.errors(comparisons, plain) is None
    assert robustness_tables.differences(comparisons, plain) is None


def test_a_failed_run_has_no_errors_anywhere(runs, fail):
    fail(runs, [3])
    table = robustness_tables.errors(judged(runs, published=()), runs)
    assert table.rows[0][4] == "35.50 ± 0.71 (n=2)"
    assert "(n=2 of 3; 1 diverged)" in table.rows[0][3] or table.rows[0][3].endswith("(n=2)")


def test_generated_test_sets_are_called_so_in_every_table(runs):
    comparisons = judged(runs, published=())
    for table in (robustness_tables.errors(comparisons, runs), robustness_tables.differences(comparisons, runs)):
        for text in (markdown(table), latex(table), html(table)):
            assert "generated here from MNIST" in text
            assert "not affNIST" in text


def test_a_generated_test_set_of_another_name_is_called_so_too(runs, monkeypatch):
    monkeypatch.setitem(TEST_SETS, "affnist", replace(TEST_SETS["affnist"], origin="generated here"))
    table = robustness_tables.errors(judged(runs, published=()), runs)
    assert "affnist (generated) (%)" in table.header


def test_cells_are_compared_to_the_reference_by_seed_on_each_set(runs):
    comparisons = judged(runs, published=())
    table = robustness_tables.differences(comparisons, runs)
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
    table = robustness_tables.differences(judged(runs, published=()), runs)
    assert {row[table.header.index("difference on own test set (points)")] for row in table.rows} == {"+0.50"}


def test_another_data_set_that_was_not_tested_there_changes_nothing(runs, make_runs):
    """One that sorts earlier, and so has the first reference of the table."""
    alone = robustness_tables.differences(judged(runs, published=()), runs)
    other = make_runs({"routing_iterations": [3, 1]}, base={"dataset": "fashion_mnist"}, experiment="affnist")
    both = pd.concat([runs, other.assign(run_id="f" + other["run_id"])], ignore_index=True)
    table = robustness_tables.differences(judged(both, published=()), both)
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
    alone, table = (robustness_tables.differences(judged(frame, published=()), frame) for frame in (runs, both))
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
    table = robustness_tables.differences(judged(made, published=()), made)
    p = [float(row[-1]) for row in table.rows]
    assert p[0] <= 0.05 < p[1]
    assert table.marked == {0}


def test_only_common_seeds_make_pairs(runs, fail):
    fail(runs, [0, 4])
    [first, _] = robustness.compared(judged(runs, published=()))
    assert (first[2].difference.n, first[2].difference.mean) == (1, 12.0)


def test_the_papers_numbers_stand_beside_the_official_files_only(runs):
    entries = load()
    table = robustness_tables.errors(judged(runs, published=entries), runs)
    assert [name for name in table.header if name.startswith("paper")] == ["paper, affnist (%)"]
    at = table.header.index("paper, affnist (%)")
    assert [row[at] for row in table.rows] == ["", "21"]
    assert any("99.23 %" in note for note in table.notes)
    generated = runs.drop(columns="test_error_affnist").assign(test_sets=json.dumps(["affnist_generated"]))
    table = robustness_tables.errors(judged(generated, published=entries), generated)
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


# --- corruptions

CORRUPTED = {
    "test_error_noisy_5": [2.0, 3.0, 4.0, 1.0, 2.0, 3.0],
    "test_error_noisy_10": [6.0, 9.0, 6.0, 7.0, 8.0, 9.0],
    "test_error_rotated_30": [50.0, 51.0, 55.0, 40.0, 44.0, 42.0],
    "test_error_scaled_80": [8.0, 7.0, 6.0, 9.0, 9.0, 7.0],
}


@pytest.fixture
def corrupted(make_runs):
    """Two cells of 3 seeds, r = 3 first trained so, then r = 1, tested on images of three kinds."""
    names = tuple(name.removeprefix("test_error_") for name in CORRUPTED)
    made = make_runs({"routing_iterations": [3, 1]}, base={"test_sets": names}, errors=OWN, experiment="corrupted")
    return made.assign(**CORRUPTED)


def test_the_levels_of_a_corruption_are_compared_by_their_mean(corrupted):
    comparisons = judged(corrupted, published=())
    table = robustness_tables.differences(comparisons, corrupted)
    assert [row[1] for row in table.rows] == ["noisy (5, 10)", "rotated_30", "scaled_80"]
    found = {kind.name: made for _, kind, made in robustness.compared(comparisons)}
    for name, levels in {"noisy": ["noisy_5", "noisy_10"], "rotated": ["rotated_30"], "scaled": ["scaled_80"]}.items():
        three, one = np.mean([CORRUPTED[f"test_error_{level}"] for level in levels], axis=0).reshape(2, 3)
        test = ttest_rel(one, three)
        interval = test.confidence_interval()
        assert found[name].difference.mean == pytest.approx(np.mean(one - three))
        assert (found[name].difference.low, found[name].difference.high) == pytest.approx((interval.low, interval.high))
    assert any("corrected for 3 comparisons;" in note for note in table.notes)
    assert "the reference has: noisy (5, 10) 5.0 ± 1.0 (n=3) %, rotated_30 52.0 ± 2.6 (n=3) %" in table.caption


def test_attacks_are_told_apart_from_what_all_networks_are_tested_on(corrupted):
    names = {"test_error_noisy_5": "test_error_pgd_5", "test_error_noisy_10": "test_error_pgd_10"}
    attacked = corrupted.rename(columns=names).drop(columns="test_error_scaled_80")
    comparisons = judged(attacked, published=())
    table = robustness_tables.errors(comparisons, attacked)
    assert "pgd (5, 10) (%)" in table.header
    often = "where that is random, each as often as makes 4,000 images"
    assert table.notes[:3] == [
        f"The own test images, the same for all networks; {often}: rotated_N turned by N degrees to either side.",
        "The own test images, along the gradient of each network's own margin: "
        "pgd_N moved by at most N/255 towards each wrong class, in 20 steps each (PGD).",
        "Where an error is lower, these attacks found less; others may find more.",
    ]
    [row] = [row for row in robustness_tables.differences(comparisons, attacked).rows if row[1].startswith("pgd")]
    assert row[1] == "pgd (5, 10)"


def test_many_kinds_stand_in_a_column_each_and_every_level_in_a_table_of_its_own(corrupted):
    comparisons = judged(corrupted, published=())
    table = robustness_tables.errors(comparisons, corrupted)
    assert table.header == ["r", "test error (%)", "noisy (5, 10)", "rotated_30", "scaled_80"]
    assert table.rows[1] == ["3", "0.80 ± 0.10 (n=3)", "5.0 ± 1.0 (n=3)", "52.0 ± 2.6 (n=3)", "7.0 ± 1.0 (n=3)"]
    said = "noisy_N with Gaussian noise of N % of white, rotated_N turned by N degrees to either side, scaled_N scaled to N %."
    assert table.notes[:2] == [
        f"The own test images, the same for all networks; where that is random, each as often as makes 4,000 images: {said}",
        "Of several levels it is the mean.",
    ]
    every = robustness_tables.levels(comparisons, corrupted)
    assert [row[:3] for row in every.rows[5:]] == [
        ["3", "own", "0.80 ± 0.10 (n=3)"],
        ["3", "noisy_5", "3.0 ± 1.0 (n=3)"],
        ["3", "noisy_10", "7.0 ± 1.7 (n=3)"],
        ["3", "rotated_30", "52.0 ± 2.6 (n=3)"],
        ["3", "scaled_80", "7.0 ± 1.0 (n=3)"],
    ]
    assert every.rows[6][4] == "+2.2"
    stopped = corrupted.assign(stop_at_error=1.0, validation_error=0.9)
    assert "epochs trained" in robustness_tables.errors(judged(stopped, published=()), stopped).header


def test_few_kinds_have_their_intervals_beside_them_and_levels_below(corrupted):
    few = corrupted.drop(columns=["test_error_scaled_80"])
    comparisons = judged(few, published=())
    table = robustness_tables.errors(comparisons, few)
    assert table.header[4:8] == ["noisy (5, 10) (%)", "95% over seeds", "difference (points)", "95% over seeds"]
    assert table.rows[1][4] == "5.0 ± 1.0 (n=3)"
    assert table.rows[1][6] == "+4.2"
    assert len(robustness_tables.levels(comparisons, few).rows) == 2 * 4
    one = few.drop(columns=["test_error_noisy_5", "test_error_noisy_10"])
    assert robustness_tables.levels(judged(one, published=()), one) is None


def test_a_run_counts_for_a_mean_only_with_all_its_levels_and_cells_share_those_that_are_compared(corrupted):
    corrupted.loc[0, "test_error_noisy_5"] = np.nan
    found = robustness.compared(judged(corrupted, published=()))
    assert {kind.called: made.difference.n for _, kind, made in found} == {
        "noisy (5, 10)": 2,
        "rotated_30": 3,
        "scaled_80": 3,
    }
    corrupted.loc[:2, "test_error_noisy_5"] = np.nan
    found = robustness.compared(judged(corrupted, published=()))
    assert {kind.called: made.difference.mean for _, kind, made in found}["noisy_10"] == pytest.approx(1.0)


def test_cells_that_were_tested_at_other_levels_have_columns_of_their_own_and_lose_nothing(corrupted):
    corrupted.loc[:2, "test_error_noisy_5"] = np.nan  # r = 3
    corrupted.loc[3:, "test_error_rotated_30"] = np.nan  # r = 1
    comparisons = judged(corrupted, published=())
    table = robustness_tables.errors(comparisons, corrupted)
    assert table.header[2:] == ["noisy (5, 10)", "noisy_10", "rotated_30", "scaled_80"]
    assert [row[2:5] for row in table.rows] == [["5.0 ± 1.0 (n=3)", "—", "—"], ["—", "7.0 ± 1.7 (n=3)", "52.0 ± 2.6 (n=3)"]]
    assert [row[1] for row in robustness_tables.levels(comparisons, corrupted).rows] == [
        *("own", "noisy_5", "noisy_10", "scaled_80"),
        *("own", "noisy_10", "rotated_30", "scaled_80"),
    ]
    differences = robustness_tables.differences(comparisons, corrupted)
    assert [row[1] for row in differences.rows] == ["noisy_10", "scaled_80"]
    assert "the reference has: noisy_10 7.0 ± 1.7 (n=3) %, scaled_80 7.0 ± 1.0 (n=3) %" in differences.caption


def test_a_rotated_test_set_is_no_r_at_test(corrupted):
    assert tables.other_r(judged(corrupted, published=()), corrupted) is None


def test_further_test_sets_are_no_part_of_what_other_tables_hold_constant(corrupted):
    from analysis.accuracy_table import accuracy

    assert "test sets" not in accuracy(judged(corrupted, published=()), corrupted).caption


def test_corrupted_images_are_drawn_by_level_from_the_images_as_they_are(corrupted, judge):
    [figure] = robustness_figure.by_level(judge(corrupted).cells)
    panels = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_xlabel() for panel in panels] == ["noisy: % of white", "rotated: degrees", "scaled: % of its size"]
    drawn = {
        panel.get_xlabel(): [line.get_xydata().tolist() for line in panel.lines if len(line.get_xdata()) > 1]
        for panel in panels
    }
    one, three = drawn["noisy: % of white"]
    assert one == [[0, pytest.approx(0.8)], [5, 2], [10, 8]]
    assert three == [[0, pytest.approx(0.8)], [5, 3], [10, 7]]
    assert drawn["scaled: % of its size"][1] == [[80, 7], [100, pytest.approx(0.8)]]
    bars = panels[0].collections[1].get_segments()  # of the second cell
    half = 4.302653 * 1 / math.sqrt(3)
    assert bars[1][:, 1] == pytest.approx([3 - half, 3 + half])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["r 1 (n=3)", "r 3 (n=3)"]


def test_nothing_is_said_of_a_figure_of_corruptions_that_nobody_asked_for(runs, make_runs, judge, make_curves, tmp_path):
    plain = make_runs({"routing_iterations": [1, 3]}, base={"epochs": 2})
    paths, skipped = plots.write(judge(plain), plain, make_curves(plain), tmp_path)
    assert not any("corruption" in str(text) for text in [*paths, *skipped])
    with pytest.raises(NothingToDrawError, match=r"^$"):
        robustness_figure.by_level(judge(runs).cells)


def test_too_many_cells_are_no_lines_of_a_panel(make_runs, judge):
    many = make_runs({"routing_iterations": list(range(1, 14))}, base={"test_sets": ("noisy_5",)}, seeds=2)
    with pytest.raises(NothingToDrawError, match="13 cells are too many lines for one panel"):
        robustness_figure.by_level(judge(many.assign(test_error_noisy_5=3.0)).cells)
