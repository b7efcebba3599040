"""Sentences against ones written by hand, and against the statistics that they tell of."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

from analysis import contrasts, findings, heat, robustness, statistics, tables
from analysis.effects import held_note
from analysis.findings import find
from analysis.sentences import count, listed, some
from analysis.style import style
from analysis.wording import interval_text, p_text, signed_text
from experiments.significance import ALPHA, seeds_needed, smallest_p

R = {"routing_iterations": [1, 3]}
TWO = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
BASE = {"epochs": 2}  # no cell is one of a paper's


def judged(make_runs, axes, errors, seeds, reference="", base=BASE):
    return tables.judged(make_runs(axes, seeds=seeds, errors=errors, base=base), published=(), reference=reference)


def chapter(found, title):
    [one] = [chapter for chapter in found.chapters if chapter.title == title]
    return one


def texts(found, title):
    return [finding.text for finding in chapter(found, title).findings]


def everything(found):
    return [found.answer, *(text for one in found.chapters for text in [one.lead, *(each.text for each in one.findings)])]


# --- by hand


def test_a_difference_is_claimed(make_runs):
    ones = [0.40, 0.42, 0.44, 0.46, 0.48, 0.50]
    threes = [one - step for one, step in zip(ones, [0.07, 0.08, 0.09, 0.08, 0.07, 0.09], strict=True)]
    found = find(judged(make_runs, R, ones + threes, 6, "routing_iterations=1"))
    assert texts(found, "Each cell against the reference") == [
        "r = 3 against 1 lowers the test error by 0.0800 points (95% interval [−0.0894, −0.0706], p = 0.031, n = 6)."
    ]
    assert found.answer == (
        "r = 3 against 1 lowers the test error by 0.0800 points. "
        "The lowest mean test error is 0.370 ± 0.035 % (n=6), with r = 3."
    )
    assert texts(found, "Lowest error")[1:] == [
        "It is lower than that of the other cell.",
        "Chosen for being the lowest, it is likely lower than the mean of new seeds would be.",
    ]
    assert [one.title for one in found.chapters] == ["Lowest error", "Each cell against the reference", "What is missing"]
    assert chapter(found, "Each cell against the reference").lead == (
        "The reference is r = 1 (as asked for); it has 0.450 ± 0.037 % (n=6). "
        "A cell is named by what it has that the reference has not."
    )


def test_seen_from_the_other_side_it_raises_the_error(make_runs):
    found = find(judged(make_runs, R, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.89], 6, "routing_iterations=3"))
    [text] = texts(found, "Each cell against the reference")
    assert text.startswith(
        "r = 1 against 3 raises the test error by 0.1017 points (95% interval [+0.0974, +0.1060], p = 0.031,"
    )


def test_no_difference_is_claimed_but_how_small_a_one_would_be_missed(make_runs):
    threes = [0.5 + step for step in (0.1, -0.1, 0.05, -0.02, 0.03, -0.04)]
    found = find(judged(make_runs, R, [0.5] * 6 + threes, 6, "routing_iterations=1"))
    # sd 0.0712, so the interval is 0.0033 ± 2.571 * 0.0712 / sqrt(6), and 80% power needs a mean of 1.40 sd for n = 6
    assert texts(found, "Each cell against the reference") == [
        "r = 3 against 1: no difference can be claimed (+0.003 points, 95% interval [−0.071, +0.078], p = 0.94, n = 6); one of "
        "less than 0.10 points would be missed."
    ]
    assert found.answer.startswith("No difference can be claimed. The lowest mean")
    assert not any(finding.claims for one in found.chapters for finding in one.findings)


def test_seeds_that_are_too_few_for_any_difference(make_runs):
    found = find(judged(make_runs, R, [1.0, 1.1, 1.2, 0.5, 0.6, 0.7], 3, "routing_iterations=1"))
    one = chapter(found, "Each cell against the reference")
    assert one.lead.endswith(
        "With 3 pairs p is 0.25 at least: no difference can be claimed, however large; that takes 6 seeds."
    )
    assert [each.text for each in one.findings] == [
        "r = 3 against 1: no difference can be claimed (−0.50 points, all pairs equal, p = 0.25, n = 3)."
    ]
    assert found.answer.startswith("No difference can be claimed: 3 seeds are too few to show one.")
    assert texts(found, "Lowest error")[1] == (
        "It cannot be told apart from that of any other cell: 3 seeds cannot show a difference, however large, when the lowest "
        "of 2 is chosen first; that takes 6."
    )


def test_a_single_seed_has_no_interval(make_runs):
    found = find(judged(make_runs, R, [0.5, 0.4], 1, "routing_iterations=1"))
    assert texts(found, "Each cell against the reference") == [
        "r = 3 against 1: −0.10 points by the only seed, which gives no interval, so nothing can be claimed."
    ]
    assert "Each cell has a single finished run, so there is no interval over seeds, and nothing can be claimed." in texts(
        found, "What is missing"
    )
    assert found.answer.startswith("No difference can be claimed: 1 seed is too few to show one.")


def test_equal_errors_are_no_proof_of_equality(make_runs):
    found = find(judged(make_runs, R, [0.5, 0.4, 0.3] * 2, 3, "routing_iterations=1"))
    assert texts(found, "Each cell against the reference") == [
        "r = 3 against 1: the test errors are equal in all 3 pairs, which shows neither a difference nor that there is none."
    ]
    assert texts(found, "Lowest error")[0].endswith("with r = 1; 1 other cell has the same.")


def test_equal_differences_have_no_interval_of_no_width(make_runs):
    runs = make_runs(R, seeds=6, errors=[0.75, 0.5, 0.25, 1.0, 1.25, 1.5, 0.5, 0.25, 0.0, 0.75, 1.0, 1.25], base=BASE)
    made = tables.judged(runs, published=(), reference="routing_iterations=1")
    assert texts(find(made), "Each cell against the reference") == [
        "r = 3 against 1 lowers the test error by 0.25 points (all pairs equal, p = 0.031, n = 6)."
    ]
    effects = tables.effects(made, runs)
    assert [row[effects.header.index("95% interval")] for row in effects.rows] == ["all equal"] * 2


def test_a_claim_whose_interval_includes_0_is_of_uncertain_size(make_runs):
    """All six pairs have one sign, and one is far from the others."""
    errors = [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 4.9, 4.8, 4.9, 4.8, 4.9, 1.0]
    [said] = texts(find(judged(make_runs, R, errors, 6, "routing_iterations=1")), "Each cell against the reference")
    assert said.startswith("r = 3 against 1 lowers the test error by")
    assert said.endswith("p = 0.031, n = 6; the size is uncertain, as the interval includes 0).")
    assert "where its interval includes 0, as of one pair far from the others, its size is uncertain" in findings.METHOD
    assert "of more than 40 pairs, of a paired t-test" in findings.METHOD


def test_no_pair_of_runs(make_runs, fail):
    runs = make_runs(R, seeds=2, errors=[0.5, 0.4, 0.3, 0.2], base=BASE)
    fail(runs, [0, 3])
    found = find(tables.judged(runs, published=(), reference="routing_iterations=1"))
    assert texts(found, "Each cell against the reference") == [
        "r = 3 against 1 cannot be compared: no seed has finished with both, all else being equal."
    ]
    assert texts(found, "Lowest error")[1] == "It cannot be compared: no seed has finished both there and in another cell."
    assert found.answer.startswith("No difference can be claimed: no seed has finished in two cells. The")


def test_few_pairs_among_many_say_so_themselves(make_runs, fail):
    errors = [0.50, 0.52, 0.51, 0.53, 0.50, 0.52, 0.51] + [0.40, 0.41, 0.42, 0.43, 0.40, 0.41, 0.41] + [0.3] * 7
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=7, errors=errors, base=BASE)
    fail(runs, [14, 15, 16, 17])
    found = find(tables.judged(runs, published=(), reference="routing_iterations=1"))
    claimed, far = texts(found, "Each cell against the reference")
    assert "p = 0.016, corrected 0.031, n = 7)." in claimed
    assert far.endswith("p = 0.25, corrected 0.25, n = 3); 3 pairs cannot show any.")
    assert found.answer.startswith("r = 2 against 1 lowers the test error by")
    assert "; no other difference to the reference can be claimed." in found.answer
    table = tables.differences(tables.judged(runs, published=(), reference="routing_iterations=1"), runs)
    assert [row[table.header.index("detectable")] == "—" for row in table.rows] == [False, True]
    assert [row[-1] for row in table.rows] == ["lower error", "out of reach"]
    assert table.notes[1] == "Out of reach: 3 pairs can show no difference, however large."


def test_changes_that_no_pairs_can_show_are_not_said_to_be_missed_by_size(make_runs, fail):
    generator = np.random.default_rng(1)
    runs = make_runs({"routing_iterations": [1, 2, 3], "reconstruction_weight": [0.0, 5e-4]}, seeds=8, base=BASE)
    runs["test_error"] = 5 + generator.normal(size=len(runs))
    fail(runs, [*range(19, 24)])  # of r 2 three seeds are left
    made = contrasts.of_two_axes(tables.judged(runs, published=()))
    able = [each.comparison.detectable for each in made if each.comparison.smallest_p <= ALPHA]
    assert (len(made), len(able)) == (3, 1)
    said = texts(find(tables.judged(runs, published=())), "Interactions")[1]
    assert said == f"Of such changes, one of less than {able[0]:.1f} points would be missed; 2 of 3 cannot show any."


FACTORS = [0.50, 0.52, 0.51, 0.53, 0.50, 0.54]  # r 1, weight 0, by seed


def two_by_two(make_runs, *shifts, noise=0.001, fail=None):
    """r 1 and weight 0; r 1 and 5e-4; r 3 and 0; r 3 and 5e-4: the first with shifts."""
    generator = np.random.default_rng(0)
    errors = [e + shift + noise * generator.standard_normal() for shift in shifts for e in FACTORS]
    runs = make_runs(TWO, seeds=6, errors=errors, base=BASE)
    if fail:
        fail(runs)
    return tables.judged(runs, published=())


def test_axes_are_told_by_their_means_over_otherwise_equal_settings(make_runs):
    found = find(two_by_two(make_runs, 0, 0.0001, -0.1, -0.1))
    one, other = chapter(found, "Each axis by itself").findings
    assert one.text.startswith(
        "r = 3 against 1, averaged over 2 settings of reconstruction weight, lowers the test error by 0.100"
    )
    assert one.claims
    assert other.text.startswith(
        "reconstruction weight = 0.0005 against 0, averaged over 2 settings of r: no difference can be claimed ("
    )
    assert not other.claims
    assert found.answer.startswith("On average over the other axes, r = 3 against 1 lowers the test error by 0.10")
    assert "; for reconstruction weight no difference can be claimed. The lowest mean test error is" in found.answer
    [none, missed] = texts(found, "Interactions")
    assert none.startswith(
        "None can be claimed. The strongest: with reconstruction weight = 0.0005 instead of 0, the difference"
    )
    assert re.fullmatch(r"Of such changes, one of less than 0\.00\d+ points would be missed\.", missed)


def test_an_interaction_is_claimed_by_how_much_a_difference_changes(make_runs):
    found = find(two_by_two(make_runs, 0, 0, -0.1, -0.2))
    assert chapter(found, "Interactions").lead == (
        "Whether the difference between two values of an axis depends on another axis."
    )
    [one] = chapter(found, "Interactions").findings
    assert re.fullmatch(
        r"With reconstruction weight = 0\.0005 instead of 0, the difference of r = 3 against 1 changes by −0\.(09|10)\d+ "
        r"points \(95% interval \[−0\.\d+, −0\.\d+\], p = 0\.031, n = 6\)\.",
        one.text,
    )
    assert one.claims


def test_axes_out_of_reach_say_how_many_seeds_each_takes(make_runs):
    axes = {**TWO, "batch_size": [32, 64, 128]}
    found = find(judged(make_runs, axes, None, 3))
    lead = chapter(found, "Each axis by itself").lead
    assert lead.endswith(
        " With so few seeds no difference can be claimed, however large: it takes 6 for r and reconstruction weight, 7 for "
        "batch size."
    )
    assert len(texts(found, "Each axis by itself")) == 1 + 1 + 3
    assert "out of reach" not in " ".join(everything(found))


def test_an_axis_of_more_values_takes_more_seeds(make_runs):
    found = find(judged(make_runs, {**R, "batch_size": [32, 64, 128]}, None, 6))
    assert chapter(found, "Each axis by itself").lead.endswith(", however large: it takes 7 for batch size.")


STEP = [0.05] * 6 + [-0.001]  # 4 of 128 sign flips are as extreme: p = 0.031, and 0.094 as the least of three


def three_sizes():
    """Batches of 64 have the error of 32 and STEP, those of 128 have it a little higher and lower in turn."""
    base = [0.3 + 0.01 * (seed % 3) for seed in range(7)]
    swing = [b + 0.01 * (-1) ** seed for seed, b in enumerate(base)]
    return [*base, *(b + step for b, step in zip(base, STEP, strict=True)), *swing]


def test_what_correction_takes_away_is_not_claimed(make_runs):
    found = find(judged(make_runs, {**R, "batch_size": [32, 64, 128]}, three_sizes() * 2, 7))
    [one] = [text for text in texts(found, "Each axis by itself") if text.startswith("batch size = 64 against 32")]
    assert "no difference can be claimed (" in one
    assert "p = 0.031, corrected 0.094, n = 7);" in one
    assert found.answer.startswith("No difference can be claimed. The lowest")


def test_the_lowest_is_chosen_and_its_p_multiplied(make_runs):
    found = find(judged(make_runs, {"batch_size": [32, 64, 128]}, three_sizes(), 7))
    assert texts(found, "Lowest error")[1].startswith(
        "It cannot be told apart from that of any other cell. p is multiplied by 3"
    )


def test_values_that_nothing_else_is_equal_beside_cannot_be_compared(make_runs):
    parts = [
        make_runs({"learning_rate": [rate], "class_dim": [dim]}, seeds=6, base=BASE) for rate, dim in ((0.001, 8), (0.002, 16))
    ]
    found = find(tables.judged(pd.concat(parts, ignore_index=True), published=()))
    assert texts(found, "Each axis by itself") == [
        "Values of class dim cannot be compared: no two stand at otherwise equal settings.",
        "Values of learning rate cannot be compared: no two stand at otherwise equal settings.",
    ]
    assert texts(found, "Interactions") == [
        "None can be judged: no seed has finished two values of each of two axes at otherwise equal settings."
    ]


def test_the_answer_tells_of_an_interaction_and_denies_none_of_its_axes(make_runs):
    crossed = find(two_by_two(make_runs, 0, -0.1, -0.1, 0))
    assert crossed.answer.startswith(
        "With reconstruction weight = 0.0005 instead of 0, the difference of r = 3 against 1 changes by +0.2"
    )
    assert "no difference" not in crossed.answer.lower()
    both = find(two_by_two(make_runs, 0, 0.1, -0.3, -0.4)).answer
    assert both.startswith("On average over the other axes, r = 3 against 1 lowers the test error by 0.40")
    assert ". With reconstruction weight = 0.0005 instead of 0, the difference of r = 3 against 1 changes by −0.1986" in both
    assert "no difference" not in both


def beside_the_reference(make_runs, shifts):
    """A cell, and one for each field that differs from it in that alone."""
    base = {"epochs": 2, "routing_iterations": 3}
    fields = {"routing_iterations": 1, "class_dim": 8, "primary_dim": 4, "batch_size": 64}
    cells = [base, *({**base, field: value} for field, value in fields.items())]
    runs = pd.concat([make_runs({}, seeds=7, base=cell) for cell in cells], ignore_index=True)
    runs["test_error"] = [0.5 + seed / 100 + shift * (1 + seed / 50) for shift in (0, *shifts) for seed in range(7)]
    return tables.judged(runs, published=())


def test_two_cells_are_told_apart_everywhere_or_nowhere(make_runs):
    """Of one factor at a time, an axis is but a cell against the reference: 7 seeds show nothing corrected for 4, if for 1."""
    comparisons = beside_the_reference(make_runs, [-0.1, 0.1, -0.1, 0.1])
    assert {d.comparison.p for d in comparisons.differences} == {2 / 2**7}
    assert {d.p_holm for d in comparisons.differences} == {8 / 2**7}
    found = find(comparisons)
    assert not any(finding.claims for one in found.chapters for finding in one.findings if one.title != "Lowest error")
    assert found.answer.startswith("No difference can be claimed")
    assert {each.p_holm for each in contrasts.of_axes(comparisons)} == {8 / 2**7}
    assert all("p = 0.016, corrected 0.062, n = 7)" in text for text in texts(found, "Each axis by itself"))


def test_a_setting_is_named_where_nothing_is_averaged_over(make_runs):
    comparisons = beside_the_reference(make_runs, [-0.1, 0, 0, 0])
    two = dataclasses.replace(comparisons, cells=comparisons.cells[:], differences=comparisons.differences)
    [text] = [text for text in texts(find(two), "Each axis by itself") if text.startswith("r = 3 against 1")]
    assert text.startswith("r = 3 against 1, all else as in the reference: no difference can be claimed (")
    runs = make_runs({"routing_iterations": [1, 3], "lr_schedule": ["constant", "one_cycle"]}, seeds=8, base=BASE)
    shift = {1: 0.4, 3: 0}
    runs["test_error"] = [
        5 + seed / 9 + shift[r] * (1 + seed / 50) for r, seed in zip(runs["routing_iterations"], runs["seed"], strict=True)
    ]
    gone = (runs["routing_iterations"] == 1) & (runs["lr_schedule"] != "constant")
    runs.loc[gone, ["status", "failure"]] = "failed", "diverged"
    found = find(tables.judged(runs, published=(), reference="routing_iterations=3 lr_schedule=one_cycle"))
    start = "r = 3 against 1, with lr schedule = constant, lowers the test error by 0.4"
    assert texts(found, "Each axis by itself")[0].startswith(start)
    assert found.answer.startswith(start)


@pytest.fixture
def routings(make_runs):
    """Uniform routing has one pass, so that it stands beside dynamic with r = 1 alone."""
    axes = {"epochs": [5, 9], "reconstruction_weight": [0.0, 5e-4]}
    dynamic = make_runs({**axes, "routing_iterations": [1, 3]}, seeds=9, base=BASE)
    uniform = make_runs(axes, seeds=9, base={**BASE, "routing": "uniform", "routing_iterations": 1})
    runs = pd.concat([dynamic, uniform], ignore_index=True)
    runs["test_error"] = [
        3 + (row.routing_iterations == 1) * (1 + row.seed / 90) + (row.epochs == 5) * (0.5 + row.seed / 50) + row.seed / 9
        for row in runs.itertuples()
    ]
    return runs


def test_an_axis_whose_values_stand_beside_each_other_at_one_value_of_another_is_said_to(routings):
    found = find(tables.judged(routings, published=()))
    own = texts(found, "Each axis by itself")
    over = "averaged over 4 settings of reconstruction weight and epochs"
    assert any(text.startswith(f"routing = uniform against dynamic, with r = 1, {over}: the test") for text in own)
    assert any(text.startswith(f"r = 3 against 1, with routing = dynamic, {over}, lowers") for text in own)
    assert any(text.startswith("epochs = 9 against 5, averaged over 6 settings of routing, r and") for text in own)
    assert found.answer.startswith(f"r = 3 against 1, with routing = dynamic, {over}, lowers the test error by 1.04")
    assert "for routing (with r = 1) and reconstruction weight no difference can be claimed on average" in found.answer
    assert not found.answer.startswith("On average over the other axes")
    [strongest] = [text for text in texts(found, "Interactions") if "The strongest" in text]
    assert ", with r = 1, changes by" in strongest or ", with routing = dynamic, changes by" in strongest


def test_of_a_single_setting_the_answer_names_no_value_of_another_axis(routings):
    """The sentence of the axis itself does."""
    alone = routings[(routings["epochs"] == 5) & (routings["reconstruction_weight"] == 0)].reset_index(drop=True)
    found = find(tables.judged(alone, published=()))
    assert "for routing no difference can be claimed on average" in found.answer
    assert "r = 3 against 1, all else as in the reference, lowers" in found.answer


def test_effects_say_at_which_value_of_another_axis_they_are(routings):
    made = tables.judged(routings, published=())
    notes = " ".join(tables.effects(made, routings).notes)
    assert "Routing: with r = 1 alone; r: with routing = dynamic alone." in notes
    assert held_note(made.cells) == "routing: with r = 1 alone; r: with routing = dynamic alone"
    assert held_note(made.cells, pairs=True) == held_note(made.cells), "what holds for one of two axes is said of it"
    whole = routings[routings["routing"] == "dynamic"]
    assert held_note(tables.judged(whole, published=()).cells) == ""


def test_interactions_say_at_which_value_of_a_third_axis_they_are(make_runs):
    """Of a product that lacks one corner: each pair of axes has all four only at one value of the third."""
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [5, 9], "batch_size": [20, 100]}, seeds=9, base=BASE)
    corner = (runs["routing_iterations"] == 3) & (runs["epochs"] == 9) & (runs["batch_size"] == 100)
    runs = runs[~corner].reset_index(drop=True)
    made = tables.judged(runs, published=())
    assert held_note(made.cells) == ""
    assert held_note(made.cells, pairs=True) == (
        "r × epochs: with batch size = 20 alone; r × batch size: with epochs = 5 alone; epochs × batch size: with r = 1 alone"
    )
    assert "R × epochs: with batch size = 20 alone;" in " ".join(tables.effects(made, runs).notes)
    with style():
        [figure] = heat.of_interactions(made.cells)
    assert "r × epochs: with batch size = 20 alone" in figure.get_supxlabel().replace("\n", " ")


def test_what_counts_is_whole_blocks_of_seeds(make_runs, fail):
    """At r = 3 both numbers of epochs have finished, but none of the seeds with both."""
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [5, 9]}, seeds=4, base=BASE)
    at_3 = [i for i in runs.index if runs.loc[i, "routing_iterations"] == 3]
    fail(runs, [i for i in at_3 if (runs.loc[i, "seed"] < 2) == (runs.loc[i, "epochs"] == 5)])
    assert held_note(tables.judged(runs, published=()).cells) == "epochs: with r = 1 alone"


def test_means_over_settings_with_unlike_seeds_say_so(make_runs, fail):
    runs = make_runs(TWO, seeds=6, errors=[e + i for i in range(4) for e in FACTORS], base=BASE)
    fail(runs, [6 + 1, 6 + 2])  # r = 1 with reconstruction
    found = find(tables.judged(runs, published=()))
    assert "r = 3 against 1, averaged over 2 settings of reconstruction weight (seeds: 6 and 4), raises" in " ".join(
        texts(found, "Each axis by itself")
    )
    assert chapter(found, "Each axis by itself").lead.endswith("those with more weigh more.")


def test_the_answer_has_the_largest_difference_of_each_axis(make_runs):
    axes = {"routing_iterations": [1, 3], "batch_size": [32, 64, 128], "class_dim": [8, 16], "primary_dim": [4, 8]}
    runs = make_runs(axes, seeds=9, base=BASE)
    size = {32: 0, 64: 1, 128: 3}
    runs["test_error"] = [
        5 + seed / 9 + (1 + seed / 50) * (size[b] + 0.5 * (r == 3) + 0.2 * (c == 8) + 0.1 * (p == 4))
        for b, r, c, p, seed in zip(
            *(runs[name] for name in ("batch_size", "routing_iterations", "class_dim", "primary_dim", "seed")), strict=True
        )
    ]
    found = find(tables.judged(runs, published=())).answer
    assert re.match(
        r"On average over the other axes, class dim = 16 against 8 lowers the test error by 0\.216\d* points; r = 3 against 1 "
        r"raises the test error by 0\.54\d* points; batch size = 128 against 32 raises the test error by 3\.24\d* points;",
        found,
    )
    assert "; 3 more differences can be claimed." in found


def test_a_model_stands_beside_the_cell_with_the_defaults_of_what_it_does_not_read(make_runs):
    capsules = make_runs({"routing_iterations": [1, 3]}, seeds=8, base=BASE)
    plain = make_runs({}, seeds=8, base={**BASE, "model": "cnn_matched"})
    runs = pd.concat([capsules, plain], ignore_index=True)
    runs["test_error"] = [9 + seed / 9 + shift * (1 + seed / 50) for shift in (0, 1, -2) for seed in range(8)]
    for reference, said in (("3", ", all else as in the reference,"), ("1", ", with r = 3,")):
        answer = find(tables.judged(runs, published=(), reference=f"model=capsnet routing_iterations={reference}")).answer
        assert f"model = cnn_matched against capsnet{said} lowers the test error by 3.2" in answer


def test_a_model_that_stands_beside_no_other_is_in_the_answer_by_its_cell(make_runs):
    capsules = make_runs({"routing_iterations": [1, 2]}, seeds=8, base=BASE)
    plain = make_runs({}, seeds=8, base={**BASE, "model": "cnn_matched"})
    runs = pd.concat([capsules, plain], ignore_index=True)
    runs["test_error"] = [9 + seed / 9 + shift * (1 + seed / 50) for shift in (0, 1, -2) for seed in range(8)]
    answer = find(tables.judged(runs, published=(), reference="model=capsnet routing_iterations=2")).answer
    assert "r = 2 against 1, all else as in the reference, raises the test error by 1.07" in answer
    assert "Of single cells, model = cnn_matched against model = capsnet with r = 2 lowers the test error by 3.2" in answer
    assert "for model no difference" not in answer
    few = find(tables.judged(runs[runs["seed"] < 3], published=(), reference="model=capsnet routing_iterations=2")).answer
    assert few.startswith("No difference can be claimed: 3 seeds are too few to show one.")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([], ""),
        ([0], " trained the runs of 1 cell: if it matters, no mean of theirs is of one program"),
        ([0, 7], " trained the runs of 2 cells: if it matters, no mean"),
        ([0, 1, 2, 3, 4, 5], " trained the cells: what differs between them may be the code"),
    ],
)
@pytest.mark.parametrize("column", ["code", "git_commit"])
def test_runs_of_different_code_are_told_of(make_runs, places, said, column):
    runs = make_runs(R, seeds=6, base=BASE)
    if column == "git_commit":  # of before there was a digest
        runs["code"] = None
    runs.loc[places, column] = "another"
    found = [text for text in texts(find(tables.judged(runs, published=())), "What is missing") if text.startswith("Different")]
    assert len(found) == bool(said)
    assert not said or found[0].startswith(f"Different {'code' if column == 'code' else 'commits'}{said}")


def test_a_run_of_which_other_code_trained_a_part_is_of_different_code_and_a_commit_alone_is_not(make_runs):
    runs = make_runs(R, seeds=6, base=BASE)
    runs.loc[3, "git_commit"] = "of documents"
    assert not any(text.startswith("Different") for text in texts(find(tables.judged(runs, published=())), "What is missing"))
    runs.loc[3, "code"] = f"another then {runs['code'][3]}"
    found = texts(find(tables.judged(runs, published=())), "What is missing")
    assert any(text.startswith("Different code trained the runs of 1 cell") for text in found)


def test_a_claimed_cell_is_in_the_answer_where_its_axes_claim_nothing(make_runs):
    """Without a decoder the errors are all over the place, so that only cells with one can be told apart."""
    generator = np.random.default_rng(1)
    best = 6 + generator.normal(0, 0.01, 8)
    worse = best + 0.2 + generator.normal(0, 0.01, 8)
    three, one = (best + generator.normal(0, 1.0, 8) for _ in range(2))
    runs = make_runs(TWO, seeds=8, errors=[*map(float, (*one, *worse, *three, *best))], base=BASE)
    found = find(tables.judged(runs, published=(), reference="routing_iterations=3 reconstruction_weight=0.0005"))
    assert not any(each.claims for each in chapter(found, "Each axis by itself").findings)
    assert any(each.claims for each in chapter(found, "Each cell against the reference").findings)
    assert found.answer.startswith("Of single cells, r = 1 against 3 raises the test error by 0.2")


def test_no_difference_is_denied_of_an_axis_by_which_a_single_cell_differs(make_runs):
    """With the other batch size the errors are far higher and all over the place, so that r shows nothing on average."""
    generator = np.random.default_rng(1)
    best = 6 + generator.normal(0, 0.01, 9)
    worse = best + 0.2 + generator.normal(0, 0.01, 9)
    three, one = (best + 9 + generator.normal(0, 1.0, 9) for _ in range(2))
    axes = {"routing_iterations": [1, 3], "batch_size": [32, 64]}
    runs = make_runs(axes, seeds=9, errors=[*map(float, (*worse, *one, *best, *three))], base=BASE)
    answer = find(tables.judged(runs, published=(), reference="routing_iterations=3 batch_size=32")).answer
    assert answer.startswith("On average over the other axes, batch size = 64 against 32 raises the test error by 8.9")
    assert "Of single cells, r = 1 against 3 raises the test error by 0.1998 points. " in answer
    assert "no difference" not in answer


@pytest.mark.parametrize(
    ("shifts", "named", "rest"),
    [
        ((1, 4, 2, 3, 0), (16, 64, 128), "; 1 more difference can be claimed; no other difference to the reference"),
        ((1, 4, 2, 3, 5), (16, 128, 256), "; 2 more differences can be claimed."),
        ((0, 4, 2, 3, 0), (16, 64, 128), "; no other difference to the reference can be claimed."),
    ],
)
def test_of_many_claimed_cells_the_answer_has_the_largest_and_counts_the_rest(make_runs, shifts, named, rest):
    sizes = {"batch_size": [8, 16, 32, 64, 128, 256]}
    errors = [5 + seed / 9 + shift * (1 + seed / 50) for shift in (*shifts[:2], 0, *shifts[2:]) for seed in range(10)]
    answer = find(judged(make_runs, sizes, errors, 10, "batch_size=32")).answer
    said = [rf"batch size = {size} against 32 raises the test error by [\d.]+ points" for size in named]
    assert re.match("; ".join(said) + re.escape(rest), answer)


def test_further_test_sets_are_judged_and_in_the_answer(make_runs):
    base = {**BASE, "dataset": "mnist_40", "test_sets": ("affnist",), "augmentation": "none"}
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=6, base=base, errors=[0.8, 0.9, 0.7, 0.8, 0.6, 0.5] * 2)
    runs["test_error_affnist"] = [
        30 - 5 * (r == 3) + seed for r, seed in zip(runs["routing_iterations"], runs["seed"], strict=True)
    ]
    comparisons = tables.judged(runs, published=(), reference="routing_iterations=1")
    [each] = robustness.judged(comparisons)
    assert (each.comparison.difference.mean, each.p_holm) == (-5, 2 / 2**6)
    found = find(comparisons)
    [said] = chapter(found, "Further test sets").findings
    assert said.text.startswith("On affnist, r = 3 against 1 lowers the test error by 5.00 points (")
    assert said.claims
    assert found.answer.startswith("On affnist, r = 3 against 1 lowers the test error by 5.00 points. The lowest")


def test_what_changes_with_an_axis_alone_is_a_part_of_it(make_runs):
    """As many steps of training whatever the size: the effects are the sizes', as if epochs were no field at all."""
    sizes = {50: 80, 200: 20, 800: 5}
    parts = [make_runs({"train_size": [size], "epochs": [n], **R}, seeds=6, base=BASE) for size, n in sizes.items()]
    runs = pd.concat(parts, ignore_index=True)
    runs["test_error"] = [5 + math.log(size) + seed / 7 for size, seed in zip(runs["train_size"], runs["seed"], strict=True)]
    runs["test_error"] -= (runs["routing_iterations"] == 3) * (runs["train_size"] == 50) * (1 + runs["seed"] / 100)
    found, fixed = (find(tables.judged(each, published=())) for each in (runs, runs.assign(epochs=7)))
    alone, without = chapter(found, "Each axis by itself"), chapter(fixed, "Each axis by itself")
    said, told = [each.text for each in alone.findings], [each.text for each in without.findings]
    assert [re.sub(r" \(and epochs = \d+ against \d+\)", "", text) for text in said] == told
    assert any("train size = 200 against 50 (and epochs = 20 against 80), averaged" in text for text in said)
    assert alone.lead.replace(" What changes with train size alone is a part of it: epochs.", "") == without.lead
    assert alone.lead != without.lead
    assert texts(found, "Interactions") == texts(fixed, "Interactions")
    assert any("with r = 3 instead of 1, the difference of train size" in text.lower() for text in texts(found, "Interactions"))
    assert set(re.findall(r"epochs[^;.,]*", found.answer.split("The lowest")[0])) <= {"epochs = 5 against 80)"}


def test_a_cell_beside_the_product_is_mixed_into_no_effect(make_runs):
    """That the learning rate of the only cell with attention is another says nothing of learning rates."""
    product = make_runs({"routing_iterations": [1, 3], "learning_rate": [3e-3, 1e-2]}, seeds=8, base=BASE)
    beside = make_runs({}, seeds=8, base={**BASE, "routing": "attention", "routing_iterations": 1, "learning_rate": 1e-3})
    product["test_error"] += (product["learning_rate"] == 3e-3) * 5
    beside["test_error"] += 40
    alone, both = (
        find(tables.judged(runs, published=())) for runs in (product, pd.concat([product, beside], ignore_index=True))
    )
    for title in ("Each axis by itself", "Interactions"):
        said = [text.replace(", with routing = dynamic, averaged", ", averaged") for text in texts(both, title)]
        said = [text.replace(", with routing = dynamic, ", " ") for text in said]
        assert set(texts(alone, title)) <= set(said)
    assert "against 0.001" not in both.answer
    assert "learning rate = 0.01 against 0.003" in both.answer


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 4, 5], [1, 2, 3, 4, 5]])
def test_a_model_that_does_not_read_an_axis_changes_none_of_its_findings(make_runs, values):
    """Not by the default that its runs carry, and not as the reference."""
    schedules = ["constant", "one_cycle(rise=0.3)"]
    capsules = make_runs({"routing_iterations": values, "lr_schedule": schedules}, seeds=8, base=BASE)
    plain = make_runs({"lr_schedule": schedules}, seeds=8, base={**BASE, "model": "cnn_matched"})
    both = pd.concat([capsules, plain], ignore_index=True)
    alone = find(tables.judged(capsules, published=(), reference="routing_iterations=1 lr_schedule=constant"))
    of_paper = (
        find(tables.judged(capsules, published=(), reference="routing_iterations=3 lr_schedule=constant"))
        if 3 in values
        else alone
    )
    for reference, other in (
        ("model=capsnet routing_iterations=1 lr_schedule=constant", alone),
        ("model=cnn_matched lr_schedule=constant", of_paper),
    ):
        found = find(tables.judged(both, published=(), reference=reference))
        said, expected = (
            [text.replace("model and lr", "lr") for text in texts(each, "Each axis by itself") if text.startswith("r = ")]
            for each in (found, other)
        )
        assert said == expected
        assert len(said) == (4 if len(values) > 4 else len(values) * (len(values) - 1) // 2)
    assert ("each is compared to the paper's" in chapter(found, "Each axis by itself").lead) == (len(values) > 4)


def test_sizes_of_a_decoder_mean_nothing_where_there_is_none(make_runs):
    """Of a reconstruction weight of 0 each size is the same network: no size has an effect there, nor is a setting of it."""
    plain, small, large = ([base + 0.01 * (k * step % 7) for k in range(8)] for base, step in ((5, 3), (5, 4), (4, 5)))
    axes = {"decoder_hidden": [(64,), (128, 256)], "reconstruction_weight": [0.0, 0.01]}
    runs = make_runs(axes, seeds=8, errors=plain + small + plain + large, base=BASE)
    made = tables.judged(runs, published=())
    shown = [row[2:4] for row in tables.accuracy(made, runs).rows]
    assert sorted(shown) == [["no", "—"], ["no", "—"], ["yes", "[128, 256]"], ["yes", "[64]"]]
    size, weight = contrasts.of_axes(made)
    assert (size.axes, len(size.rows)) == (("decoder_hidden",), 1)
    assert abs(size.comparison.difference.mean) == pytest.approx(abs(np.mean(large) - np.mean(small)))
    assert (weight.axes, len(weight.rows)) == (("reconstruction_weight",), 2)
    assert weight.comparison.difference.mean == pytest.approx((np.mean(small) + np.mean(large)) / 2 - np.mean(plain))
    said = texts(find(made), "Each axis by itself")
    assert ", with reconstruction weight = 0.01" in said[0] or "as in the reference" in said[0]
    assert "averaged over 2 settings of decoder hidden" in said[1]
    assert contrasts.of_two_axes(made) == []
    found = find(tables.judged(runs, published=(), reference="decoder_hidden=[64] reconstruction_weight=0"))
    assert any(
        text.startswith("decoder hidden = [128, 256] against [64], which is the same network: the test errors are equal")
        for text in texts(found, "Each cell against the reference")
    )


def test_a_long_axis_is_compared_to_the_references_value(make_runs):
    found = find(judged(make_runs, {"epochs": [1, 2, 3, 4, 5], **R}, None, 6, "epochs=3 routing_iterations=1", base={}))
    said = [text for text in texts(found, "Each axis by itself") if text.startswith("epochs")]
    assert [text.split(",")[0] for text in said] == [f"epochs = {n} against 3" for n in (1, 2, 4, 5)]
    assert "Of more than 4 values, each is compared to the reference's." in chapter(found, "Each axis by itself").lead


def test_a_single_cell_has_its_error_and_its_interval(make_runs):
    found = find(judged(make_runs, {}, [1.0, 1.2, 1.4], 3))
    assert found.answer == "The test error is 1.20 ± 0.20 % (n=3)."
    assert texts(found, "Result")[1] == "The 95% Student-t interval is [0.70, 1.70]."
    assert [one.title for one in found.chapters] == ["Result", "What is missing"]


def test_failures_are_named_cell_by_cell(make_runs, fail):
    runs = make_runs(R, seeds=3, errors=[0.5, 0.4, 0.3, 0.2, 0.1, 0.3], base=BASE)
    fail(runs, [0])
    fail(runs, [4, 5], "planned", None)
    found = find(tables.judged(runs, published=()))
    assert texts(found, "What is missing") == [
        "3 of 6 runs have finished; 1 diverged, 2 not run.",
        "r = 1: n=2 of 3; 1 diverged.",
        "r = 3: n=1 of 3; 2 not run.",
        "Where runs diverged, the mean is of the others, and flatters the cell.",
        "1 cell with a single finished run has no interval over seeds.",
        "Predictions were not read, so there is no interval over test images.",
    ]


def test_nothing_has_finished(make_runs, fail):
    runs = make_runs(R, seeds=1, base=BASE)
    fail(runs, [0])
    fail(runs, [1], "planned", None)
    found = find(tables.judged(runs, published=()))
    assert found.answer == "There is no result yet: 0 of 2 runs have finished; 1 diverged, 1 not run."
    assert texts(found, "What is missing") == [
        "0 of 2 runs have finished; 1 diverged, 1 not run.",
        "r = 1: n=0 of 1; 1 diverged.",
        "r = 3: n=0 of 1; 1 not run.",
    ]


def test_many_cells_that_lack_runs_are_counted(make_runs, fail):
    runs = make_runs({"epochs": [*range(1, 10)]}, seeds=2)
    fail(runs, [*range(0, 14, 2)], "killed", None)
    found = find(tables.judged(runs, published=()))
    assert "1 more cell lacks runs." in texts(found, "What is missing")
    fail(runs, [14], "killed", None)
    assert "2 more cells lack runs." in texts(find(tables.judged(runs, published=())), "What is missing")


def test_only_one_cell_has_a_result(make_runs, fail):
    runs = make_runs(R, seeds=2, errors=[0.5, 0.4, 0.3, 0.2], base=BASE)
    fail(runs, [0, 1])
    found = find(tables.judged(runs, published=()))
    assert texts(found, "Lowest error") == ["Only one cell has a result: 0.250 ± 0.071 % (n=2), with r = 3."]


@pytest.mark.parametrize(
    ("number", "said"), [(1, "The predictions of 1 finished run"), (2, "The predictions of 2 finished runs")]
)
def test_missing_predictions_are_counted(make_runs, number, said):
    comparisons = dataclasses.replace(judged(make_runs, R, None, 2), faults=["gone"] * number)
    text = texts(find(comparisons), "What is missing")[-1]
    assert text == f"{said} could not be read: intervals over test images and ensembles are without them."


def test_the_lowest_is_told_apart_from_some(make_runs):
    near = [0.11 + 0.02 * (-1) ** s for s in range(9)]  # above and below in turn
    errors = [0.5 + 0.001 * s for s in range(9)] + [0.1 + 0.002 * s for s in range(9)] + near
    found = find(judged(make_runs, {"epochs": [1, 2, 3]}, errors, 9, base={}))
    assert texts(found, "Lowest error") == [
        "The lowest mean test error is 0.1080 ± 0.0055 % (n=9), with epochs = 2.",
        "It is lower than that of 1 of the 2 other cells, but cannot be told apart from that of epochs = 3. "
        "p is multiplied by 3, the pairs of cells, because the lowest was chosen among them.",
        "Chosen for being the lowest, it is likely lower than the mean of new seeds would be.",
    ]


# --- properties


@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_the_statistics(make_runs, fail, seed):
    generator = np.random.default_rng(seed)
    axes = {"routing_iterations": [1, 3], "batch_size": [32, 64, 128][: generator.integers(1, 4)]}
    seeds = int(generator.integers(1, 13))
    shifts = np.repeat(generator.normal(0, 0.2, 2 * len(axes["batch_size"])), seeds)
    runs = make_runs(axes, seeds=seeds, errors=list(1 + shifts + 0.1 * generator.standard_normal(len(shifts))), base=BASE)
    fail(runs, [int(i) for i in np.flatnonzero(generator.random(len(runs)) < 0.15)])
    comparisons = tables.judged(runs, published=())
    found = find(comparisons)
    if not any(cell.error.n for cell in comparisons.cells):
        return
    told = chapter(found, "Each cell against the reference").findings
    for difference, finding in zip(comparisons.differences, told, strict=True):
        check(finding, difference.comparison, difference.p_holm)
    of_axes = contrasts.of_axes(comparisons) if len(comparisons.cells[0].setting) > 1 else []
    if of_axes and all(each.rows for each in of_axes):
        for contrast, finding in zip(of_axes, chapter(found, "Each axis by itself").findings, strict=True):
            check(finding, contrast.comparison, contrast.p_holm)
    for text in everything(found):
        assert not re.search(r"no (effect|influence|difference\b(?! can be claimed))|\bequal to\b|nan|None\b(?! can)", text), (
            text
        )
        assert text == "" or text.endswith(".")
        assert "  " not in text
        assert not re.search(r"\b1 (seeds|pairs|runs|cells|points)\b", text)


def check(finding, made, corrected):
    """What a sentence says is what was computed."""
    n = made.difference.n
    claims = corrected <= ALPHA and n > 1
    assert finding.claims == claims
    assert ("lowers" in finding.text) == (claims and made.difference.mean < 0)
    assert ("raises" in finding.text) == (claims and made.difference.mean > 0)
    if n < 2:
        assert "interval [" not in finding.text
        return
    assert f"n = {n})" in finding.text
    assert f"p = {p_text(made.p)}" in finding.text
    assert f"95% interval {interval_text(made.difference, signed=True)}," in finding.text
    size = signed_text(made.difference.mean, made.difference)
    assert (f"by {size.lstrip('+−')} points" if claims else f"({size} points") in finding.text


def test_contrasts_of_a_whole_design_are_differences_of_main_effects(make_runs):
    axes = {"routing_iterations": [1, 3], "batch_size": [32, 64, 128], "epochs": [1, 2]}
    comparisons = judged(make_runs, axes, None, 5, base={})
    errors = np.array([cell.finished.to_numpy() for cell in comparisons.cells]).T.reshape(5, 2, 2, 3)  # r, epochs, batch
    made = {(c.axes[0], c.pairs[0]): c for c in contrasts.of_axes(comparisons)}
    effects = statistics.main_effects(errors.mean(axis=(1, 2)))
    for (high, low), (i, j) in {(64, 32): (1, 0), (128, 32): (2, 0), (128, 64): (2, 1)}.items():
        contrast = made["batch_size", (high, low)]
        assert contrast.comparison.difference.mean == pytest.approx(effects[i].mean - effects[j].mean)
        assert (contrast.comparison.difference.n, len(contrast.rows)) == (5, 4)
    [both] = [c for c in contrasts.of_two_axes(comparisons) if c.axes == ("routing_iterations", "epochs")]
    of_both = statistics.interaction(errors.mean(axis=3))
    assert both.comparison.difference.mean == pytest.approx(4 * of_both[1][1].mean)


def test_a_failed_run_costs_its_block_and_not_its_seed(make_runs, fail):
    runs = make_runs(TWO, seeds=3, errors=[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], base=BASE)
    fail(runs, [0])  # r 1, weight 0, seed 0
    [r, weight] = contrasts.of_axes(tables.judged(runs, published=()))
    assert (r.comparison.difference.n, len(r.rows)) == (3, 2)
    assert r.comparison.difference.mean == pytest.approx(6)
    assert (weight.comparison.difference.n, len(weight.rows)) == (3, 2)


def test_correction_is_for_the_pairs_of_one_axis(make_runs):
    made = contrasts.of_axes(judged(make_runs, {**R, "batch_size": [32, 64, 128]}, None, 4))
    r, *batch = made
    assert r.p_holm == r.comparison.p
    assert [c.p_holm for c in batch] == pytest.approx(list(statistics.holm([c.comparison.p for c in batch])))


def test_the_order_of_rows_makes_no_difference(quick):
    shuffled = quick.sample(frac=1, random_state=1).reset_index(drop=True)
    assert find(tables.judged(quick)) == find(tables.judged(shuffled))


@pytest.mark.parametrize("family", [1, 2, 3, 7, 11, 66])
def test_seeds_that_are_needed_are_the_fewest(family):
    assert smallest_p(seeds_needed(family)) * family <= ALPHA < smallest_p(seeds_needed(family) - 1) * family


def test_words():
    assert [count(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
    assert some([*"abcdefg"], "cell") == "a; b; c; d; e; f; and 1 more cell"
    assert some([*"abcdefgh"], "cell").endswith("; and 2 more cells")
    assert "at most 0.05" in findings.METHOD
