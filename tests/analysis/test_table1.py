"""The paper's Table 1 whole: a row per configuration whatever its data sets dictate, and the paper's numbers beside ours."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import findings, plots, tables
from analysis.axes import dictated, varying
from analysis.comparisons import Images
from analysis.published import load
from analysis.style import by_dataset
from analysis.table1 import paper_form
from experiments.sources import read_grid

PUBLISHED = load()
PAPER = {
    ("Baseline CNN", "—", "—"): ("0.39", "8.1"),
    ("CapsNet", "1", "no"): ("0.34 ± 0.032 (n=3)", "—"),
    ("CapsNet", "1", "yes"): ("0.29 ± 0.011 (n=3)", "7.5"),
    ("CapsNet", "3", "no"): ("0.35 ± 0.036 (n=3)", "—"),
    ("CapsNet", "3", "yes"): ("0.25 ± 0.005 (n=3)", "5.2"),
}


@pytest.fixture
def of_grid(make_runs):
    """(name of a shipped grid) -> its runs, all finished, with errors that say which run is which: 0.01, 0.02, ..."""

    def make(name):
        rows = []
        for number, (_, config) in enumerate(read_grid(name).configs):
            values = {k: v for k, v in config.model_dump().items() if k != "seed"}
            one = make_runs({"seed": [config.seed]}, seeds=1, base=values, errors=[(number + 1) / 100])
            rows.append(one.assign(run_id=f"run{number:03d}"))
        return pd.concat(rows, ignore_index=True)

    return make


def judged(runs, published=PUBLISHED):
    return tables.judged(runs, published=published)


def test_the_shipped_grid_is_table_1_of_the_paper(of_grid):
    runs = of_grid("table1")
    table = paper_form(judged(runs), runs)
    assert table.header == [
        *("method", "r", "reconstruction"),
        *("MNIST (%)", "95% interval", "paper (%)"),
        *("MultiMNIST (%)", "95% interval", "paper (%)"),
    ]
    assert table.labels == 3
    assert {tuple(row[:3]): (row[5], row[8]) for row in table.rows} == PAPER
    assert [tuple(row[:3]) for row in table.rows] == list(PAPER)
    for row, dataset in itertools.product(table.rows, ("mnist", "multimnist")):
        model = "cnn" if row[0] == "Baseline CNN" else "capsnet"
        own = runs[(runs["dataset"] == dataset) & (runs["model"] == model)]
        if model == "capsnet":
            own = own[(own["routing_iterations"] == int(row[1])) & ((own["reconstruction_weight"] > 0) == (row[2] == "yes"))]
        shown = row[3 if dataset == "mnist" else 6]
        if own.empty:
            assert shown == "—"
            assert dataset == "multimnist"
        else:
            assert len(own) == 8
            mean = shown.partition(" ")[0]
            assert float(mean) == pytest.approx(own["test_error"].mean(), abs=0.51 * 10.0 ** -len(mean.partition(".")[2]))
            assert shown.endswith("(n=8)")


def test_what_the_data_sets_dictate_is_told_and_is_no_axis(of_grid):
    runs = of_grid("table1")
    assert varying(runs) == ["dataset", "model", "routing_iterations", "reconstruction_weight"]
    assert dictated(runs) == {
        **dict.fromkeys(("dropout", "loss", "primary_coupling"), ("model", "dataset")),
        **dict.fromkeys(("augmentation", "lr_schedule"), ("dataset",)),
    }
    table = paper_form(judged(runs), runs)
    slower = "exponential(gamma=0.96, every=20000, floor=0.001)"
    assert f"MultiMNIST: augmentation shift(pixels=4), lr schedule {slower}." in table.caption
    assert "Baseline CNN on MNIST: dropout 0.5, loss cross_entropy." in table.caption
    assert "Baseline CNN on MultiMNIST: dropout 0, loss sigmoid_cross_entropy." in table.caption
    assert any(note.startswith("MultiMNIST: an answer is right if it names both digits") for note in table.notes)
    here = [note for note in table.notes if "60 million" in note]
    assert len(here) == 1
    assert slower in here[0]


def test_the_small_grid_has_the_same_rows_with_the_matched_network(of_grid):
    runs = of_grid("table1-digits")
    table = paper_form(judged(runs), runs)
    rows = {tuple(row[:3]): [cell != "—" for cell in (row[3], row[5])] for row in table.rows}
    assert rows == {
        ("CNN, matched", "—", "no"): [True, True],
        ("CapsNet", "1", "no"): [True, False],
        ("CapsNet", "1", "yes"): [True, True],
        ("CapsNet", "3", "no"): [True, False],
        ("CapsNet", "3", "yes"): [True, True],
    }
    assert "paper (%)" not in table.header


def test_one_data_set_has_no_such_table_and_an_old_one_is_removed(make_runs, tmp_path):
    both = make_runs({"dataset": ["mnist", "fashion_mnist"], "routing_iterations": [1, 3]})
    tables.write(judged(both), both, tmp_path)
    assert {path.name for path in tmp_path.glob("table1.*")} == {"table1.md", "table1.tex", "table1.html"}
    one = both[both["dataset"] == "mnist"].reset_index(drop=True)
    assert paper_form(judged(one), one) is None
    tables.write(judged(one), one, tmp_path)
    assert not list(tmp_path.glob("table1.*"))


def test_failed_runs_and_other_axes_are_seen(make_runs, fail):
    axes = {"dataset": ["fashion_mnist", "mnist"], "class_dim": [8, 16], "reconstruction_weight": [5e-4, 1e-2]}
    runs = make_runs(axes)
    fail(runs, [0])
    table = paper_form(judged(runs, ()), runs)
    assert table.header[:4] == ["method", "r", "reconstruction weight", "class dim"]
    assert [row[1:4] for row in table.rows] == [
        ["3", "0.0005", "8"],
        ["3", "0.0005", "16"],
        ["3", "0.01", "8"],
        ["3", "0.01", "16"],
    ]
    assert table.header[4:] == ["MNIST (%)", "95% interval", "fashion_mnist (%)", "95% interval"]
    assert "(n=2 of 3; 1 diverged)" in table.rows[0][6]


def test_rows_are_in_the_order_of_other_tables(make_runs):
    routings = ["attention(temperature=10)", "attention(temperature=0.5)", "attention(temperature=2.5)", "attention"]
    sizes, base = {"train_size": [0, 2000, 300]}, {"routing_iterations": 1}
    runs = make_runs({"dataset": ["fashion_mnist", "mnist"], **sizes, "routing": routings}, base=base)
    table = paper_form(judged(runs, ()), runs)
    first = table.header.index("train size")
    assert [row[first : first + 2] for row in table.rows] == [
        [size, routing] for size in ("300", "2000", "all") for routing in (routings[1], routings[3], routings[2], routings[0])
    ]


def test_the_interval_is_over_images_where_predictions_were_read(make_runs):
    runs = make_runs({"dataset": ["digits", "mnist"]}, base={"train_size": 300, "validation_size": 100, "conv_kernel": 5})
    made = judged(runs)
    cell = made.cells[0]
    wider = replace(cell.error, low=1.0, high=2.0, kind="95% bootstrap interval over seeds and test images")
    labels = np.arange(10)
    seen = Images(wider, 1.0, labels, np.eye(10, dtype=int) * 3, np.zeros((10, 10)))
    table = paper_form(replace(made, images=[seen, None]), runs)
    assert table.rows[0][4] == "[1.00, 2.00]"
    assert "over seeds and test images or 95% Student-t interval over seeds without predictions" in table.notes[0]


def test_findings_of_two_data_sets_stand_apart(make_runs):
    runs = make_runs({"dataset": ["fashion_mnist", "mnist"], "routing_iterations": [1, 3]}, seeds=6)
    runs.loc[runs["dataset"] == "mnist", "test_error"] /= 100
    found = findings.find(judged(runs))
    lowest = {each.title: each.findings[0].text for each in found.chapters if each.title.startswith("Lowest")}
    assert list(lowest) == ["Lowest error on mnist", "Lowest error on fashion_mnist"]
    means = runs.groupby(["dataset", "routing_iterations"])["test_error"].mean()
    for dataset in ("fashion_mnist", "mnist"):
        assert f"with r = {means[dataset].idxmin()}." in lowest[f"Lowest error on {dataset}"]
        assert f"On {dataset}: " in found.answer
        assert not any("dataset" in each.text for part in found.chapters for each in part.findings)


def test_a_figure_has_a_page_for_each_data_set_that_it_can_be_drawn_of(make_runs, make_curves):
    both = make_runs({"dataset": ["fashion_mnist", "mnist"], "routing_iterations": [1, 3]}, base={"epochs": 2})
    runs = pd.concat([both, make_runs({"reconstruction_weight": [0.0]}, base={"epochs": 2})], ignore_index=True)
    runs["run_id"] = [f"run{i}" for i in range(len(runs))]
    figures, without = plots.figures(judged(runs), runs, make_curves(runs)), {"interactions", "error_by_corruption"}
    names = {name: [page.get_suptitle() for page in make()] for name, make in figures.items() if name not in without}
    assert names.pop("heat_map") == ["mnist"]
    assert set(map(tuple, names.values())) == {("mnist", "fashion_mnist")}


def test_of_one_data_set_pages_are_as_they_were(make_runs):
    runs = make_runs({"routing_iterations": [1, 3]})
    pages = plots.by_cell(judged(runs))
    assert by_dataset({"mnist": lambda: pages}) == pages
    assert pages[0].get_suptitle() == ""
