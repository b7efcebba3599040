"""Tables against ones worked out by hand."""

import io
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest

from analysis import published, tables
from analysis.axes import varying, widest
from analysis.cells import cells
from analysis.formats import latex, markdown
from analysis.statistics import Estimate, t_interval
from analysis.tables import judged
from analysis.where import told
from analysis.wording import difference_texts, error_text, interval_text, number_text, p_text
from capsnet.config import FIELDS

PUBLISHED = published.load()
SIZES = {"conv_channels": 32, "primary_types": 4}


def body(text):
    """The rows of a Markdown table, as lists of texts."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines if "---" not in line]


def accuracy(runs, entries=()):
    return tables.accuracy(judged(runs, published=entries), runs)


def write(runs, folder):
    return tables.write(judged(runs), runs, folder)


def shuffled(frame, seed):
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def test_tables_plots_and_the_report_need_no_torch():
    code = "import sys, analysis.tables, analysis.plots, analysis.report, analysis.mistakes\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- digits


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (0.2512, 0.0312, "0.251 ± 0.031"),
        (0.2567, 0.0058, "0.2567 ± 0.0058"),
        (0.3, 0.0996, "0.30 ± 0.10"),
        (3.14159, 1.26, "3.1 ± 1.3"),
        (3.14159, 9.96, "3 ± 10"),
        (88.6, 23.4, "89 ± 23"),
        (0.25, 0.0, "0.25 ± 0.00"),
        (0.25, 1e-17, "0.25 ± 0.00"),
    ],
)
def test_digits_follow_the_deviation(make_runs, mean, sd, text):
    cell = cells(make_runs({}))[0]
    object.__setattr__(cell, "error", Estimate(mean, sd, 0, 0, 3, ""))
    assert error_text(cell) == f"{text} (n=3)"


@pytest.mark.parametrize(
    ("value", "decimals", "signed", "text"),
    [
        (0.126, 2, True, "+0.13"),
        (-0.126, 2, True, "−0.13"),
        (-0.126, 2, False, "−0.13"),
        (-0.004, 2, True, "0.00"),
        (0.004, 2, True, "0.00"),
        (0.0, 1, True, "0.0"),
    ],
)
def test_signs_are_true_and_zero_has_none(value, decimals, signed, text):
    assert number_text(value, decimals, signed=signed) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1"),
        (0.25, "0.25"),
        (0.0503, "0.0503"),
        (0.05, "0.05"),
        (0.0498, "0.05"),
        (0.0312, "0.031"),
        (1e-4, "0.0001"),
        (3e-5, "<0.0001"),
        (float("nan"), "—"),
    ],
)
def test_no_p_value_is_zero(p, text):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("differences", "texts"),
    [
        ([-0.1, -0.2, -0.3], ["−0.20", "[−0.45, +0.05]"]),
        ([0.5, 0.5], ["+0.50", "all equal"]),
        ([0.5], ["+0.50", "—"]),
        ([], ["—", "—"]),
    ],
)
def test_a_difference_is_told_by_what_its_pairs_bear(differences, texts):
    assert difference_texts(t_interval(differences)) == texts


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.1, 0.34, "[0.10, 0.34]"), (-1.25, 3.75, "[−1.2, 3.8]"), (-0.0004, 30.0, "[0, 30]"), (float("nan"), 1.0, "—")],
)
def test_the_ends_of_an_interval_have_the_digits_of_its_half_width(low, high, text):
    assert interval_text(Estimate(1, 1, low, high, 3, "")) == text


def test_table_by_hand(make_runs, fail):
    errors = [0.30, 0.36, 0.42, 0.25, 0.25, 0.28, 1.0, 1.0, 1.0, 0.27, 9.0, 9.0]
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    runs = make_runs(axes, errors=errors, base=SIZES)
    fail(runs, [5])
    fail(runs, [6, 7, 8])
    fail(runs, [10, 11], "planned", None)
    assert body(markdown(accuracy(runs, PUBLISHED))) == [
        ["model", "r", "reconstruction", "test error (%)"],
        ["CapsNet", "1", "no", "0.360 ± 0.060 (n=3)"],
        ["CapsNet", "1", "yes", "0.25 ± 0.00 (n=2 of 3; 1 diverged)"],
        ["CapsNet", "3", "no", "— (n=0 of 3; 3 diverged)"],
        ["CapsNet", "3", "yes", "0.27 (n=1 of 3; 2 not run)"],
    ]


# --- form


def test_the_widest_of_three_axes_is_laid_across(quick):
    rows = body(markdown(accuracy(quick)))
    assert rows[0] == ["model", "r", "reconstruction", *sorted(quick["lr_schedule"].unique())]
    assert [row[1:3] for row in rows[1:]] == [["1", "no"], ["1", "yes"], ["3", "no"], ["3", "yes"]]
    cell = quick.query("routing_iterations == 3 and reconstruction_weight == 0 and lr_schedule == 'constant'")["test_error"]
    assert rows[3][3] == f"{cell.mean():.1f} ± {cell.std():.1f} (n=3)"


def test_on_a_tie_the_last_axis_is_laid_across(make_runs):
    runs = make_runs({"routing_iterations": [1, 3], "epochs": [2, 10], "batch_size": [64, 128]})
    assert widest(runs, varying(runs)) == "batch_size"
    header = accuracy(runs).header
    assert header == ["model", "r", "reconstruction", "epochs", "batch size = 64", "batch size = 128"]  # by number, not letter


def test_only_combinations_that_exist_have_a_row(make_runs):
    axes = {"routing": ["dynamic"], "routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    runs = pd.concat(
        [make_runs(axes, base={"epochs": 2}), make_runs({"routing_iterations": [1]}, base={"routing": "uniform", "epochs": 9})]
    )
    table = accuracy(runs)  # epochs is an axis too; the last of those with two values
    assert [row[1:4] for row in table.rows] == [
        ["1", "no", "dynamic"],
        ["1", "yes", "dynamic"],
        ["1", "yes", "uniform"],
        ["3", "no", "dynamic"],
        ["3", "yes", "dynamic"],
    ]
    assert table.rows[0][5] == ""
    assert table.rows[2][4] == ""


def test_no_axis_is_one_row(make_runs):
    table = accuracy(make_runs({}, errors=[1.0, 1.2, 1.4]))
    assert table.header == ["model", "r", "reconstruction", "test error (%)"]
    assert table.rows == [["CapsNet", "3", "yes", "1.20 ± 0.20 (n=3)"]]
    assert "Reconstruction: weight 0.0005." in table.caption


def test_several_reconstruction_weights_are_told_each(make_runs):
    table = accuracy(make_runs({"reconstruction_weight": [0.0, 6.4e-6, 5e-4, 1e-2]}, seeds=1))
    assert table.header[2] == "reconstruction weight"
    assert [row[2] for row in table.rows] == ["0", "6.4e-6", "0.0005", "0.01"]
    assert "Reconstruction: weight" not in table.caption


def test_footer_tells_the_origin(quick, fail):
    quick.loc[[0, 1, 2], "git_commit"] = ["fedcba9876543210-dirty", "aedcba9876543210", "bedcba9876543210"]
    fail(quick, [35], "planned", None)
    footer = accuracy(quick).notes[-1]
    assert footer == (
        "Experiment quick; commits 0123456, aedcba9, bedcba9, fedcba9-dirty; seeds 0, 1, 2; "
        "36 runs, 35 finished; last run ended 2026-11-22 10:34 UTC."
    )


def test_footer_tells_of_runs_that_no_grid_has(quick):
    assert "no grid" not in accuracy(quick.assign(in_grid=True)).notes[-1]
    quick["in_grid"] = [i > 3 for i in range(len(quick))]
    assert "; 36 runs, 36 finished; 4 of configs that no grid here has any more; last run" in accuracy(quick).notes[-1]


def test_footer_tells_of_editions_of_a_data_set(quick):
    half = ["a" * 64 if i % 2 else None for i in range(len(quick))]  # some runs are of before it was noted
    assert "edition" not in accuracy(quick.assign(data_sha256=half)).notes[-1]
    quick["data_sha256"] = ["a" * 64 if i % 2 else "b" * 64 for i in range(len(quick))]
    expected = " Runs read 2 different editions of digits: means are of all, and only runs of one are compared."
    assert accuracy(quick).notes[-1].endswith(expected)


def test_footer_tells_what_a_filter_left_out_and_counts_results(quick):
    quick.loc[3, "test_error"] = float("nan")
    quick.attrs = {"where": ("routing_iterations=1", "seed=0"), "left_out": 6}
    footer = accuracy(quick).notes[-1]
    assert "; 36 runs, 35 finished; only those with routing_iterations=1 and seed=0, which leaves out 6; " in footer


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("r=1", "routing_iterations=3"), "r=1 or routing_iterations=3"),  # as many as have either
        (("r=1", "seed=0", "r=3"), "(r=1 or r=3) and seed=0"),
        (("r>=1", "r<3", "seed!=0", "seed!=1"), "r>=1 and r<3 and seed!=0 and seed!=1"),
    ],
)
def test_conditions_are_told_as_they_choose(quick, where, said):
    assert told(where) == said
    quick.attrs = {"where": where, "left_out": 6}
    assert f"; only those with {said}, which leaves out 6; " in accuracy(quick).notes[-1]


def test_a_table_of_what_has_not_run(make_runs, fail):
    runs = make_runs({"routing_iterations": [1, 3]})
    fail(runs, list(runs.index), "planned", None)
    table = accuracy(runs)
    assert [row[3] for row in table.rows] == ["— (n=0 of 3; 3 not run)"] * 2
    assert "commit unknown" in table.notes[-1]
    assert "no run has ended" in table.notes[-1]
    latex(table)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_changes_no_byte(quick, fail, tmp_path, seed):
    fail(quick, [4, 9])
    fail(quick, [20, 30, 31], "planned", None)
    first = write(quick, tmp_path / "first")
    second = write(shuffled(quick, seed), tmp_path / "second")
    made = {f"{name}.{kind}" for name in ("accuracy", "ablation", "differences", "effects") for kind in ("md", "tex", "html")}
    assert {path.name for path in first} == made | {"runs.csv", "cells.csv", "differences.csv", "effects.csv"}
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_table_that_there_is_no_more_goes(quick, make_runs, tmp_path):
    write(quick, tmp_path)
    left = {path.name for path in write(make_runs({}), tmp_path)}
    assert {path.name for path in tmp_path.iterdir()} == left
    always = {f"{name}.{kind}" for name in ("accuracy", "ablation") for kind in ("md", "tex", "html")}
    assert left == always | {"runs.csv", "cells.csv"}


def test_csv_has_the_raw_numbers(quick, tmp_path):
    write(quick, tmp_path)
    text = (tmp_path / "cells.csv").read_text()
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame) == 12
    mean = quick.groupby(["routing_iterations", "reconstruction_weight", "lr_schedule"])["test_error"].mean()
    assert frame["mean"].to_list() == pytest.approx(mean.to_list(), rel=1e-14)
    assert set(frame["interval"]) == {"95% Student-t interval"}
    assert frame["published"].isna().all()


def test_other_programs_find_the_columns_of_csvs_by_their_names(quick, judge, tmp_path):
    """With the intervals over images, of which a cell without predictions has none."""
    found = judge(quick, images=40)
    found.images[1] = None
    seen = Estimate(0.5, 0.4, 0.1, 0.9, 2, "bootstrap interval")
    differences = [replace(found.differences[0], images=seen), *found.differences[1:]]
    tables.write(replace(found, differences=differences), quick, tmp_path)
    frames = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in ("cells", "differences", "effects")}
    axes = ["routing_iterations", "reconstruction_weight", "lr_schedule"]
    images = ["low_images", "high_images", "interval_images"]
    assert {name: list(frame) for name, frame in frames.items()} == {
        "cells": [
            *(*axes, "n", "planned", "mean", "sd", "low", "high", "interval", "min", "max", "failures"),
            *("published", "published_sd", "published_n", "published_source", *images, "n_images"),
            *("ensemble", "low_ensemble", "high_ensemble", "rank", "rank_seeds", "seconds_per_run", "parameters"),
        ],
        "differences": [
            *(*axes, "reference", "pairs", "difference", "sd", "low", "high", "interval", *images, "pairs_images"),
            *("effect", "p", "p_holm", "smallest_p", "detectable"),
        ],
        "effects": ["axes", "values", "effect", "sd", "low", "high", "n"],
    }
    first, second = frames["differences"][[*images, "pairs_images"]].to_numpy()[:2]
    assert list(first) == [0.1, 0.9, "bootstrap interval", 2]
    assert pd.isna(second[:3]).all()
    assert second[3] == 0
    assert list(frames["cells"]["n_images"]) == [3, 0, *[3] * 10]
    assert list(frames["cells"]["low_images"].isna()) == list(frames["cells"]["ensemble"].isna()) == [i == 1 for i in range(12)]


def test_csv_has_every_run(quick, fail, tmp_path):
    fail(quick, [4])
    fail(quick, [20], "planned", None)
    write(shuffled(quick, 0), tmp_path)
    frame = pd.read_csv(tmp_path / "runs.csv")
    assert list(frame.columns) == list(quick.columns)
    assert frame.groupby("status").size().to_dict() == {"failed": 1, "finished": 34, "planned": 1}
    by_config = [*FIELDS]
    mine, theirs = (each.set_index(by_config)["test_error"].sort_index() for each in (frame, quick))
    assert mine.to_list() == pytest.approx(theirs.to_list(), rel=1e-14, nan_ok=True)
    in_cells = pd.read_csv(tmp_path / "cells.csv")[["routing_iterations", "reconstruction_weight", "lr_schedule"]]
    assert frame[in_cells.columns].drop_duplicates(ignore_index=True).equals(in_cells)


# --- LaTeX


def test_latex_needs_booktabs_only_and_escapes(make_runs):
    runs = make_runs({"lr_schedule": ["constant", "one_cycle(rise=0.4)"]}, experiment="50%_of & {all} #1 ~^\\ $x$ <a|b>")
    text = latex(accuracy(runs))
    assert "one\\_cycle" in text
    assert r"50\%\_of \& \{all\} \#1 \textasciitilde{}\textasciicircum{}\textbackslash{} \$x\$ $<$a$|$b$>$" in text
    assert r"test error (\%)" in text
    assert "$\\pm$" in text
    assert text.isascii()
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:50-of-all-1-x-a-b}", r"\caption{"):
        assert text.count(line) == 1
    assert not any(word in text for word in ("multirow", "cline", "cellcolor", "bfseries", "textbf"))


def test_latex_breaks_long_texts_into_lines_within_their_column(quick, fail):
    fail(quick, [0])
    text = latex(accuracy(quick))
    assert r"\begin{tabular}[b]{@{}r@{}}exponential \\ (gamma=0.5, \\ every=40)\end{tabular}" in text
    assert r"\\ (n=2 of 3; \\ 1 diverged)\end{tabular}" in text
    assert all(line.count("&") == 5 for line in text.splitlines() if "&" in line)


DRAWN = [0.005099361863064981, 0.0050993618630649, 0.00745791394966254, 0.001]


def test_cells_that_a_search_has_drawn_have_a_row_each_and_short_numbers(make_runs):
    """A column for each number that was drawn would be empty but for one place."""
    cells = [(DRAWN[0], 1, 8), (DRAWN[1], 3, 16), (DRAWN[2], 4, 24), (DRAWN[3], 3, 8)]
    parts = [
        make_runs({"learning_rate": [rate], "routing_iterations": [r], "class_dim": [dim]}, seeds=2) for rate, r, dim in cells
    ]
    table = accuracy(pd.concat(parts, ignore_index=True))
    assert table.header == ["model", "r", "reconstruction", "class dim", "learning rate", "test error (%)"]
    assert [[row[1], row[3], row[4]] for row in table.rows] == [
        ["1", "8", "0.005099"],
        ["3", "8", "0.001"],
        ["3", "16", "0.005099"],
        ["4", "24", "0.007458"],
    ]


def test_numbers_that_look_equal_when_shortened_stay_two_rows(make_runs):
    table = accuracy(make_runs({"learning_rate": DRAWN[:2]}, seeds=2))
    assert [row[3] for row in table.rows] == ["0.005099", "0.005099"]
    assert table.rows[0][4] != table.rows[1][4]


def test_what_somebody_wrote_is_shown_whole(make_runs):
    table = accuracy(make_runs({"learning_rate": [0.01234567, 6.4e-6]}, seeds=1))
    assert [row[3] for row in table.rows] == ["6.4e-6", "0.01234567"]


# --- another r at test


def test_errors_at_another_r_stand_beside_those_of_the_own(make_runs, tmp_path):
    runs = make_runs({"routing_iterations": [1, 3]}, errors=[5.0, 6.0, 7.0, 3.0, 4.0, 5.0])
    assert tables.other_r(judged(runs), runs) is None
    runs["test_error_r1"] = [float("nan")] * 3 + [9.0, 10.0, 11.0]
    runs["test_error_r10"] = [8.0, float("nan"), 6.0] + [float("nan")] * 3
    table = tables.other_r(judged(runs), runs)
    assert table.header == ["r", "r = 1 at test", "r = 3 at test", "r = 10 at test"]
    assert table.rows == [
        ["1", "6.0 ± 1.0 (n=3)", "—", "7.0 ± 1.4 (n=2)"],
        ["3", "10.0 ± 1.0 (n=3)", "4.0 ± 1.0 (n=3)", "—"],
    ]
    assert {"other_r.md", "other_r.tex", "other_r.html"} <= {path.name for path in write(runs, tmp_path)}


def test_only_cells_that_were_tested_at_another_r_are_rows(make_runs):
    runs = make_runs({"routing_iterations": [1, 3]})
    runs["test_error_r2"] = [float("nan")] * 3 + [9.0, 10.0, 11.0]
    assert [row[0] for row in tables.other_r(judged(runs), runs).rows] == ["3"]
