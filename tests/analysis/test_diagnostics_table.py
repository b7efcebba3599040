"""The table of what capsules did, against numbers that are summed by hand."""

import numpy as np

from analysis import diagnostics_table, tables
from analysis.tables import judged


def made(runs):
    return diagnostics_table.table(judged(runs), runs)


def test_a_row_is_the_mean_of_the_finished_runs(make_runs, fail, tmp_path):
    """Of r = 1 no logit changes, of r = 2 once: what changed before the last pass is compared, whichever it is."""
    runs = make_runs({"routing_iterations": [1, 2, 3]}, seeds=3)
    runs["coupling_entropy"] = [2.3026] * 3 + [2.29, 2.28, 2.27] + [2.1, 2.2, 9.9]
    runs["logit_change_1"] = [np.nan] * 3 + [0.01, 0.02, 0.03] + [7.0] * 3
    runs["logit_change_2"] = [np.nan] * 6 + [0.4, 0.6, 9.9]
    runs["dead_primary_capsules"] = [0.0] * 3 + [0, 3, 6] + [4, 4, 9]
    runs["right_length"], runs["wrong_length"] = 0.875, [0.1, 0.2, 0.3] * 3
    fail(runs, [8])  # the last of the third cell
    table = made(runs)
    capsules = ["coupling entropy", "last change of logits", "dead primary capsules", "right class", "longest wrong class", "n"]
    assert table.header == ["r", *capsules]
    assert table.rows == [
        ["1", "2.303", "—", "0", "0.875", "0.20 ± 0.10", "3"],
        ["2", "2.280 ± 0.010", "0.020 ± 0.010", "3.0 ± 3.0", "0.875", "0.20 ± 0.10", "3"],
        ["3", "2.150 ± 0.071", "0.50 ± 0.14", "4", "0.875", "0.150 ± 0.071", "2"],
    ]
    assert "routing_iterations" in table.caption
    assert {"diagnostics.md", "diagnostics.tex", "diagnostics.html"} <= {
        path.name for path in tables.write(judged(runs), runs, tmp_path)
    }


def test_each_hidden_layer_has_a_column(make_runs):
    runs = make_runs({"hidden_capsules": [(), (16,), (16, 16)]}, seeds=2)
    runs["hidden_length_2"] = [np.nan] * 4 + [0.25, 0.27]  # told of before the first one
    runs["hidden_length_1"] = [np.nan] * 2 + [0.5, 0.7] + [0.8, 0.9]
    table = made(runs)
    runs.loc[2:3, "wrong_length"] = [3e-8, 9e-5]
    runs.loc[4:5, "wrong_length"] = [3e-8, 0.02]
    faded = [row[-2] for row in made(runs).rows]
    assert faded == ["<0.0001", "0.010 ± 0.014"]
    assert table.header == ["hidden capsules", "hidden layer 1", "hidden layer 2", "n"]
    assert [row[1:] for row in table.rows] == [["0.60 ± 0.14", "—", "2"], ["0.850 ± 0.071", "0.260 ± 0.014", "2"]]


def test_a_mean_says_of_how_many_runs_it_is(make_runs):
    """As where some of a cell's runs are of an older version."""
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=3)
    runs["coupling_entropy"] = [np.nan, 2.0, 2.2] + [np.nan] * 3
    assert made(runs).rows == [["1", "2.10 ± 0.14 (n=2)", "3"]]


def test_without_any_there_is_no_table(make_runs, fail, tmp_path):
    runs = make_runs({"routing_iterations": [1, 3]}, seeds=2)
    (tmp_path / "diagnostics.md").write_text("of an earlier build")
    assert made(runs) is None
    tables.write(judged(runs), runs, tmp_path)
    assert not (tmp_path / "diagnostics.md").exists()
    runs["coupling_entropy"] = 2.0
    fail(runs, [0, 1, 2, 3])
    assert made(runs) is None, "of runs that failed nothing is told"
