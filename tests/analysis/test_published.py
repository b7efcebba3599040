"""Published numbers: beside the cells that are theirs, and beside no other."""

import pandas as pd
import pytest

from analysis import ensembles, published, tables
from analysis.cells import cells
from analysis.formats import latex
from analysis.frames import of_cells
from capsnet.config import FIELDS
from capsnet.errors import InputError
from capsnet.registry import MODELS
from experiments.sources import read_grid
from tests.analysis.conftest import row

PUBLISHED = published.load()


def accuracy(runs, entries):
    return tables.accuracy(tables.judged(runs, published=entries), runs)


def test_table_1_stands_beside_its_cells(paper):
    table = accuracy(paper, PUBLISHED)
    assert table.header == ["model", "r", "reconstruction", "test error (%)", "paper (%)"]
    as_printed = ["0.34 ± 0.032 (n=3)", "0.29 ± 0.011 (n=3)", "0.35 ± 0.036 (n=3)", "0.25 ± 0.005 (n=3)"]
    assert [row[-1] for row in table.rows] == as_printed
    notes = table.notes
    assert len(notes) == 2
    assert "1710.09829" in notes[0]
    assert "may differ" in notes[0]
    schedule = "exponential(gamma=0.96, every=2000, floor=0.001)"
    assert notes[0].endswith(
        f"Here: epochs 50, batch size 128, learning rate 0.001, lr schedule {schedule}, precision fp32, validation size 5000."
    )
    assert list(of_cells(tables.judged(paper, published=PUBLISHED))["published"]) == [0.34, 0.29, 0.35, 0.25]


@pytest.mark.parametrize(
    "same",
    [
        {"epochs": 3},
        {"batch_size": 64},
        {"lr_schedule": "cosine"},
        {"validation_size": 0},
        {"validation_size": 15000},
        {"learning_rate": 0.002},
        {"precision": "bf16"},
    ],
)
def test_training_may_differ_from_the_papers(make_runs, same):
    assert [c.published.value for c in cells(make_runs({"routing_iterations": [1, 3]}, base=same), PUBLISHED)] == [0.29, 0.25]


@pytest.mark.parametrize(
    "other",
    [
        {"train_size": 5000},
        {"validation_size": 15001},
        {"validation_size": 59000},
        {"dataset": "fashion_mnist"},
        {"augmentation": "none"},
        {"augmentation": "shift(pixels=1)"},
        {"conv_channels": 128},
        {"conv_kernel": 7},
        {"primary_types": 16},
        {"primary_dim": 4},
        {"primary_kernel": 7},
        {"primary_stride": 1},
        {"class_dim": 8},
        {"capsule_bias": True},
        {"decoder_hidden": (512,)},
        {"routing": "uniform", "routing_iterations": 1},
        {"routing_iterations": 2},
        {"reconstruction_weight": 1e-2},
        {"none_of_the_above": True},
        {"squash": "efficient"},
        {"votes_std": 0.3},
        {"mask": "none"},
        {"loss": "spread"},
        {"loss": "margin(m_plus=0.8)"},
        {"model": "cnn_matched"},
        {"routing_gradient": "detached"},
        {"adam_epsilon": 1e-7},
        {"weight_decay": 1e-4},
        {"gradient_clip": 1.0},
        {"stop_at_error": 0.5},
    ],
)
def test_another_network_or_task_is_not_the_papers(make_runs, other):
    runs = make_runs({}, base=other)
    assert cells(runs, PUBLISHED)[0].published is None
    assert accuracy(runs, PUBLISHED).header == ["model", "r", "reconstruction", "test error (%)"]
    assert len(accuracy(runs, PUBLISHED).notes) == 1


def test_a_field_that_no_entry_names_has_to_have_its_default():
    """As one that somebody adds to RunConfig."""
    [entry, *_] = PUBLISHED
    unnamed = entry.model_copy(update={"match": {k: v for k, v in entry.matches[0].items() if k != "capsule_bias"}})
    config = {**published.DEFAULTS, "routing_iterations": 1, "reconstruction_weight": 0.0}
    assert unnamed.is_of(config)
    assert unnamed.is_of({**config, "epochs": 9, "decoder_hidden": "[64]"})  # there is no decoder
    assert not unnamed.is_of({**config, "capsule_bias": True})


@pytest.mark.parametrize(
    "field", [name for name in FIELDS if name not in MODELS["capsnet"].unread and name not in ("dataset", "model")]
)
def test_training_alone_may_differ_and_nothing_else(field):
    """Of an entry that names nothing of the field."""
    entry = PUBLISHED[0].model_copy(update={"match": {"dataset": "mnist"}})
    config = {**published.DEFAULTS, "reconstruction_weight": 5e-4}
    assert entry.is_of(config)
    free = {"epochs", "batch_size", "learning_rate", "lr_schedule", "precision", "test_batch_size", "test_sets"}
    free |= {"test_routing_iterations", "seed", "validation_size", "primary_coupling"}
    assert entry.is_of({**config, field: "another" if isinstance(config[field], str) else config[field] + 1}) == (field in free)


def test_paper_columns_stand_beside_the_columns_they_belong_to(make_runs):
    axes = {"conv_kernel": [7, 9], "routing_iterations": [1, 3], "reconstruction_weight": [0.0, 6.4e-6, 5e-4]}
    table = accuracy(make_runs(axes), PUBLISHED)
    names = ["reconstruction weight = 0", "reconstruction weight = 6.4e-6", "reconstruction weight = 0.0005"]
    first = ["model", "r", "conv kernel"]
    assert table.header == [*first, names[0], f"paper, {names[0]}", names[1], names[2], f"paper, {names[2]}"]
    assert [row[4] for row in table.rows] == ["", "0.34 ± 0.032 (n=3)", "", "0.35 ± 0.036 (n=3)"]
    latex(table)


CNN = {"model": "cnn", "dropout": 0.5, "loss": "cross_entropy", "reconstruction_weight": 0.0}


def test_the_baseline_stands_beside_its_cell(make_runs):
    assert [c.published.value for c in cells(make_runs({}, base=CNN), PUBLISHED)] == [0.39]
    for other in ({"dropout": 0.0}, {"loss": "sigmoid_cross_entropy"}, {"train_size": 5000}, {"dataset": "mnist_40"}):
        assert cells(make_runs({}, base=CNN | other), PUBLISHED)[0].published is None


PAIRS = {"dataset": "multimnist", "augmentation": "shift(pixels=4)"}
PAIRS_CNN = PAIRS | {"model": "cnn", "loss": "sigmoid_cross_entropy", "reconstruction_weight": 0.0}


@pytest.mark.parametrize("base", [{}, {"dataset": "multimnist", "augmentation": "shift(pixels=4)"}])
def test_the_paper_does_not_tell_of_the_authors_division_so_its_numbers_stand_beside_both(make_runs, base):
    found = cells(make_runs({"primary_coupling": [False, True]}, base=base), PUBLISHED)
    assert [cell.published.value for cell in found] == [5.2 if base else 0.25] * 2


def test_the_numbers_on_multimnist_stand_beside_runs_of_multimnist_alone(make_runs):
    found = [c.published for c in cells(make_runs({"routing_iterations": [1, 2, 3]}, base=PAIRS), PUBLISHED)]
    assert [each and each.value for each in found] == [7.5, None, 5.2]
    assert "100,000 pairs" in found[0].protocol
    assert [c.published.value for c in cells(make_runs({}, base=PAIRS_CNN), PUBLISHED)] == [8.1]


@pytest.mark.parametrize(
    "other",
    [
        {"augmentation": "shift(pixels=2)"},
        {"reconstruction_weight": 0.0},
        {"capsule_bias": True},
        {"train_size": 5000},
        {"dataset": "multidigits", "train_size": 0, "validation_size": 100},
        {"dataset": "mnist"},
        {"loss": "sigmoid_cross_entropy"},
        PAIRS_CNN | {"dropout": 0.5},
        PAIRS_CNN | {"train_size": 5000},
        PAIRS_CNN | {"dataset": "mnist"},
    ],
)
def test_other_pairs_and_networks_are_not_those_of_multimnist(make_runs, other):
    assert cells(make_runs({}, base=PAIRS | other), PUBLISHED)[0].published is None


ENTRY = "- {name: x, value: 0.3, sd: null, n: 3, source: s, protocol: p, match: %s}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY % "{rooting_iterations: 3}", "did you mean 'routing_iterations'"),
        (ENTRY % "{routing_iterations: three}", "routing_iterations"),
        (ENTRY % "{dataset: mnits}", "mnits"),
        (ENTRY.replace("match", "test_set: afnist, match") % "{seed: 0}", "unknown test set 'afnist'.* did you mean 'affnist'"),
        (ENTRY % "{}", "empty"),
        (ENTRY % "null", "0.match"),  # which no table could show
        (ENTRY % "[]", "no table can show it"),
        (ENTRY.replace("0.3", "much") % "{routing_iterations: 3}", "0.value"),
        ("- {name: x}", "source"),
        ("name: x", "tuple"),
        ("- {a: 1, a: 2}", "duplicate"),
        ("- [", "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        published.load(path)
    assert "published.yaml" in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="gone"):
        published.load(tmp_path / "gone.yaml")


def test_two_published_values_for_one_cell_are_refused(paper):
    with pytest.raises(InputError, match="several published cells"):
        accuracy(paper, [*PUBLISHED, PUBLISHED[0]])


# --- natural images, and ensembles


def rows_of(grid, error):
    """A finished run for each config of a shipped grid, as the table of runs has them."""
    configs = [config for _, config in read_grid(grid).configs]
    return pd.DataFrame([row(grid, i, config.model_dump(), error + i / 100) for i, config in enumerate(configs)])


@pytest.mark.parametrize(("grid", "cells_of_it", "value"), [("smallnorb", 2, 2.7), ("svhn", 2, 4.3)])
def test_the_papers_number_stands_beside_each_cell_of_its_shipped_grid(grid, cells_of_it, value):
    found = cells(rows_of(grid, 3.0), PUBLISHED)
    assert [(cell.published.value, cell.published_ensemble) for cell in found] == [(value, None)] * cells_of_it
    assert accuracy(rows_of(grid, 3.0), PUBLISHED).header[-1] == "paper (%)"


def test_the_number_of_an_ensemble_stands_beside_no_single_network(judge):
    runs = rows_of("cifar10", 15.0)
    [cell] = cells(runs, PUBLISHED)
    assert cell.published is None
    assert (cell.published_ensemble.value, cell.published_ensemble.ensemble) == (10.6, 7)
    assert accuracy(runs, PUBLISHED).header == ["model", "r", "reconstruction", "test error (%)"]
    made = judge(runs, PUBLISHED, images=40)
    assert of_cells(made)["published"].isna().all()
    table = ensembles.table(made, runs)
    assert table.header[-1] == "paper (%)"
    assert table.rows[0][-1] == "10.6 (ensemble of 7)"
    assert any("section 7" in note and "of a single one there is no number" in note for note in table.notes)
    assert not any("section 7" in note for note in tables.accuracy(made, runs).notes)


def test_the_number_of_single_networks_stands_beside_no_ensemble(judge):
    runs = rows_of("smallnorb", 3.0)
    assert "paper (%)" not in ensembles.table(judge(runs, PUBLISHED, images=40), runs).header


def test_a_cell_of_a_small_data_set_needs_no_validation_images(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(ENTRY % "{dataset: digits, conv_kernel: 5, primary_kernel: 5}")
    [entry] = published.load(path)
    assert entry.matches == [{"dataset": "digits", "conv_kernel": 5, "primary_kernel": 5}]


def test_an_ensemble_of_one_is_refused(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(ENTRY.replace("n: 3", "n: 3, ensemble: 1") % "{routing_iterations: 3}")
    with pytest.raises(InputError, match=r"entry 0\.ensemble"):
        published.load(path)
