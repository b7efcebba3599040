"""The table of what capsules did, against numbers that are summed by hand."""

import math

import numpy as np

from analysis import diagnostics_table, tables
from analysis.tables import judged


def made(runs):
    return diagnostics_table.table(judged(runs), runs)


def test_a_row_is_the_mean_of_the_finished_runs(make_runs, fail, tmp_path):
    """Of r = 1 no logit changes, of r = 2 once: what changed before the last pass is compared, whichever it is."""
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=3)
    even = math.log(10)
    runs["coupling_entropy"] = [even - 1e-9, even, even, *(share * even for share in (0.97, 0.96, 0.95, 0.8, 0.9, 9.9))]
    runs["logit_change_1"] = [np.nan] * 3 + [0.01, 0.02, 0.03] + [7.0] * 3
    runs["logit_change_2"] = [np.nan] * 6 + [0.4, 0.6, 9.9]
    runs["dead_primary_capsules"] = [0.0] * 3 + [0, 3, 6] + [4, 4, 9]
    runs["right_length"], runs["wrong_length"] = 0.875, [0.1, 0.2, 0.3] * 3
    fail(runs, [8])  # the last of the third cell
    table = made(runs)
    capsules = ["coupling entropy (%)", "last change of logits", "dead primary capsules"]
    assert table.header == ["r", *capsules, "length: right class", "longest wrong", "n"]
    assert table.rows == [
        ["1", "100", "—", "0", "0.875", "0.20 ± 0.10", "3"],
        ["2", "96.0 ± 1.0", "0.020 ± 0.010", "3.0 ± 3.0", "0.875", "0.20 ± 0.10", "3"],
        ["3", "85.0 ± 7.1", "0.50 ± 0.14", "4", "0.875", "0.150 ± 0.071", "2"],
    ]
    assert "r: routing iterations" in table.caption
    assert {"diagnostics.md", "diagnostics.tex", "diagnostics.html"} <= {
        path.name for path in tables.write(judged(runs), runs, tmp_path)
    }


def test_each_hidden_layer_has_a_column(make_runs):
    runs = make_runs({"hidden_capsules": [(), (16,), (16, 16)]}, seeds=2)
    runs["hidden_length_2"] = [np.nan] * 4 + [0.25, 0.27]  # told of before the first one
    runs["hidden_length_1"] = [np.nan] * 2 + [0.5, 0.7] + [0.8, 0.9]
    table = made(runs)
    assert table.header == ["hidden capsules", "length: hidden 1", "length: hidden 2", "n"]
    assert [row[1:] for row in table.rows] == [["0.60 ± 0.14", "—", "2"], ["0.850 ± 0.071", "0.260 ± 0.014", "2"]]


def test_what_has_faded_is_no_number_to_read(make_runs):
    runs = make_runs({"hidden_capsules": [(16,), (16, 16)]}, seeds=2)
    runs["hidden_length_1"], runs["wrong_length"] = 0.5, [3e-8, 9e-5, 3e-8, 0.02]
    assert [row[-2] for row in made(runs).rows] == ["<0.0001", "0.010 ± 0.014"]


def test_evenly_is_among_none_of_the_above_too(make_runs):
    runs = make_runs({"none_of_the_above": [False, True]}, seeds=2)
    runs["coupling_entropy"] = [math.log(10)] * 2 + [math.log(11)] * 2
    assert [row[1] for row in made(runs).rows] == ["100", "100"]


def test_a_network_without_primary_capsules_has_no_row(make_runs):
    runs = make_runs({"model": ["capsnet", "cnn_matched"]}, seeds=2)
    runs["right_length"] = 0.75
    runs["dead_primary_capsules"] = [12345.0] * 2 + [np.nan] * 2
    assert made(runs).rows == [["capsnet", "12345", "0.75", "2"]]
    assert made(runs[runs["model"] == "cnn_matched"]) is None


def test_a_mean_says_of_how_many_runs_it_is(make_runs):
    """As where some of a cell's runs are of an older version."""
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=3)
    runs["dead_primary_capsules"] = [np.nan, 20, 22] + [np.nan] * 3
    assert made(runs).rows == [["1", "21.0 ± 1.4 (n=2)", "3"]]


def test_without_any_there_is_no_table(make_runs, fail, tmp_path):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=2)
    (tmp_path / "diagnostics.md").write_text("of an earlier build")
    assert made(runs) is None
    tables.write(judged(runs), runs, tmp_path)
    assert not (tmp_path / "diagnostics.md").exists()
    runs["coupling_entropy"] = 2.0
    fail(runs, [0, 1, 2, 3])
    assert made(runs) is None, "of runs that failed nothing is told"
