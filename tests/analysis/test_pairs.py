"""Two labels per image, wherever answers are read: exact match, ensembles and mistakes against loops, and figure 5."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from statsmodels.stats.contingency_tables import mcnemar

from analysis import duel, figures, mistakes, pairs_figure, pooled, tables
from analysis.cells import cells
from analysis.comparisons import compare
from analysis.figures_command import Figures, main
from analysis.image_statistics import ensemble
from analysis.predictions import Answers, read_answers, taken_for, wrong
from analysis.runs import read_runs
from analysis.style import style
from analysis.trained import Trained, best_runs, choose
from capsnet.config import RunConfig
from capsnet.data import Split, read
from capsnet.errors import InputError
from capsnet.models import build
from capsnet.state import stream
from experiments import catalog
from experiments.journal import PREDICTIONS
from tests.analysis.looks import texts
from tests.analysis.test_comparisons import Shelf
from tests.experiments.conftest import launched

GRID = """
base: {dataset: multidigits, train_size: 100, validation_size: 50, augmentation: shift(pixels=4), conv_channels: 8,
  conv_kernel: 5, primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 2, batch_size: 20, learning_rate: 5e-3,
  lr_schedule: constant, reconstruction_weight: 0.01}
axes: {routing_iterations: [1, 2]}
also:
  - {dataset: digits, augmentation: shift(pixels=1), routing_iterations: 1}
seeds: 2
"""


@pytest.fixture(scope="module")
def pairs(migrated, tmp_path_factory):
    """The tracking folder of an experiment "pairs" that was really run: pairs of digits, and single ones."""
    import shutil

    folder = tmp_path_factory.mktemp("pairs")
    shutil.copy(migrated, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert not launched(folder, GRID, "pairs").failed
    return folder


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def random():
    return np.random.default_rng(3)


def pairs_of(random, *shape):
    """Two different classes of ten each."""
    return np.array([random.permutation(10)[:2] for _ in range(int(np.prod(shape)))]).reshape(*shape, 2)


@pytest.fixture
def answered(random):
    """Three runs' answers to 200 pairs, half of them right."""
    labels, said = pairs_of(random, 200), pairs_of(random, 3, 200)
    said = np.where(random.random((3, 200, 1)) < 0.5, labels, said)
    scores = random.random((3, 200, 10)).astype(np.float32) / 2
    np.put_along_axis(scores, said, 0.8 + random.random((3, 200, 2)).astype(np.float32) / 10, axis=2)
    return Answers((0, 1, 2), labels, np.sort(said, axis=2), scores)


# --- answers


def test_an_answer_is_wrong_unless_it_names_both_digits(answered):
    expected = [
        [set(said) != set(true) for said, true in zip(run, answered.labels, strict=True)] for run in answered.predictions
    ]
    assert answered.wrong.tolist() == expected
    assert 0.3 < np.mean(expected) < 0.7
    assert wrong(answered.predictions[0], answered.labels).tolist() == expected[0]
    assert wrong(answered.predictions[:, :, 0], answered.labels[:, 0]).shape == (3, 200)


def test_an_ensemble_answers_the_two_largest_mean_scores(random):
    scores = random.random((4, 60, 10))
    found = ensemble(scores, 2)
    for image in range(60):
        means = {k: sum(scores[run, image, k] for run in range(4)) / 4 for k in range(10)}
        assert found[image].tolist() == sorted(sorted(means, key=means.get)[-2:])
    assert ensemble(np.ones((2, 1, 5)), 2).tolist() == [[0, 1]], "of equal ones the lower"
    assert ensemble(scores).tolist() == scores.mean(axis=0).argmax(axis=1).tolist()
    with pytest.raises(ValueError, match="a class for each label"):
        ensemble(np.ones((2, 1, 1)), 2)


def test_what_a_missed_digit_is_taken_for(answered):
    expected = np.zeros((10, 10))
    for run in answered.predictions:
        for said, true in zip(run, answered.labels, strict=True):
            missed, instead = set(true) - set(said), set(said) - set(true)
            for digit in true:
                for other in [digit] if digit not in missed else instead:
                    expected[digit, other] += 1 if digit not in missed else 1 / len(instead)
    found = taken_for(answered)
    assert found == pytest.approx(expected)
    assert found.sum(axis=1) == pytest.approx(3 * np.bincount(answered.labels.flatten(), minlength=10))


def test_cells_of_pairs_are_judged_from_their_files(make_runs, answered, tmp_path):
    base = {"dataset": "multidigits", "augmentation": "shift(pixels=4)", "train_size": 300, "validation_size": 100}
    runs = make_runs({}, base=base, errors=[100 * each for each in answered.wrong.mean(axis=1)])
    for i in range(3):
        told = {"labels": answered.labels, "predictions": answered.predictions[i], "class_lengths": answered.scores[i]}
        save_file({k: np.ascontiguousarray(v) for k, v in told.items()}, tmp_path / f"run{i:03d}.safetensors")
    found = cells(runs)
    read_back, faults = read_answers(found[0], {"quick": Shelf(tmp_path)})
    assert (faults, read_back.wrong.tolist()) == ([], answered.wrong.tolist())
    [images] = compare(found, {"quick": Shelf(tmp_path)}).images
    assert images.interval.mean == pytest.approx(found[0].error.mean)
    assert images.runs == 3
    assert images.wrong.tolist() == answered.wrong.sum(axis=0).tolist()
    assert images.votes.sum(axis=1).tolist() == [6] * 200
    means = answered.scores.mean(axis=0, dtype=float)
    together = [set(np.argsort(row)[-2:]) != set(true) for row, true in zip(means, answered.labels, strict=True)]
    assert images.ensemble.mean == pytest.approx(100 * np.mean(together))


# --- mistakes


def test_the_matrix_of_pairs_says_which_digit_was_seen_in_place_of_which(make_runs, answered, tmp_path):
    base = {"dataset": "multidigits", "augmentation": "shift(pixels=4)", "train_size": 300, "validation_size": 100}
    runs = make_runs({}, base=base)
    for i in range(3):
        told = {"labels": answered.labels, "predictions": answered.predictions[i], "class_lengths": answered.scores[i]}
        save_file({k: np.ascontiguousarray(v) for k, v in told.items()}, tmp_path / f"run{i:03d}.safetensors")
    made = compare(cells(runs), {"quick": Shelf(tmp_path)})
    assert mistakes.counts(made.images[0]) == pytest.approx(taken_for(answered))
    with style():
        [figure] = mistakes.confusion(made)
        assert figure.axes[0].get_ylabel() == "class in the image"
        assert "if both are missed, half in each of two columns" in texts(figure)
        pixels = np.zeros((200, 1, 6, 6), np.uint8)
        [figure] = mistakes.mistaken(made, pixels)
        mistakes.mistaken(made, None)
    group = pooled.seen(made)
    chosen = pooled.most_mistaken(group, 15).tolist()
    count, shorter = (
        answered.wrong.sum(axis=0),
        [answered.scores[:, i, t].mean(axis=0).min() for i, t in enumerate(answered.labels)],
    )
    assert chosen == sorted(range(200), key=lambda i: (-count[i], shorter[i]))[: len(chosen)]
    first = chosen[0]
    lines = pooled.answers_to(group, first)
    said = [set(run[first]) for run in answered.predictions]
    for line, label in zip(lines, answered.labels[first], strict=False):
        share = 100 * sum(label in each for each in said) / 3
        assert line == f"true {label}: {share:.0f}%, length {answered.scores[:, first, label].mean():.2f}"
    assert all(int(line.partition(":")[0]) not in answered.labels[first] for line in lines[2:] if line)
    assert f"of 200, {(count > 0).sum()} are mistaken" in texts(figure).replace("\n", " ")


# --- figures 4 and 5


@pytest.fixture
def made_up():
    """(right, wrong) -> an untrained run that answers so on random pairs, and its images."""

    def make(right, mistaken, **changes):
        values = {"dataset": "multidigits", "train_size": 300, "validation_size": 100, "augmentation": "shift(pixels=4)"}
        values |= {"conv_channels": 8, "conv_kernel": 5, "primary_types": 2, "primary_kernel": 5, "decoder_hidden": (8,)}
        config = RunConfig(**{**values, **changes})
        generator = torch.Generator().manual_seed(5)
        count = right + mistaken
        images = torch.randint(256, (count, 1, 24, 24), generator=generator, dtype=torch.uint8)
        labels = torch.tensor([((3 * i) % 10, (3 * i + 1 + i % 9) % 10) for i in range(count)])
        answers = labels.sort(dim=1).values
        for i in range(right, count):  # one of the two is found
            answers[i] = torch.tensor(sorted([int(labels[i, 1]), next(k for k in range(10) if k not in labels[i].tolist())]))
        trained = Trained("0123456789abcdef" * 2, config, build(config, stream(0, "initialisation")), labels, answers)
        assert int(trained.wrong.sum()) == mistaken
        return trained, Split(images, labels)

    return make


def test_columns_are_the_pairs_that_the_rule_names(made_up):
    trained, split = made_up(30, 8)
    found = pairs_figure.columns(trained, split)
    labels = trained.labels.tolist()
    firsts = [next(i for i in range(30) if labels[i][0] == digit) for digit in range(10)]
    assert [(c.image, c.classes, c.mark, c.wrong) for c in found[:10]] == [(i, tuple(labels[i]), "", False) for i in firsts]
    assert [(c.image, c.mark) for c in found[10:12]] == [(firsts[0], "*"), (firsts[1], "*")]
    with torch.inference_mode():
        for column in found[10:12]:
            lengths = trained.network.scores(split.batch(torch.tensor([column.image])))[0]
            absent = [k for k in range(10) if k not in labels[column.image]]
            assert column.classes == (labels[column.image][0], max(absent, key=lambda k: lengths[k]))
    assert [(c.image, c.mark) for c in found[12:]] == [(i, mark) for i in range(30, 36) for mark in ("", "P")]
    assert all(c.wrong for c in found[12:])
    for column in found[13::2]:
        assert set(column.classes) == set(trained.predictions[column.image].tolist())
        assert column.classes[1] == labels[column.image][1], "a digit that is found keeps its colour"


def tiles_of(panel, columns):
    """The mosaic of a panel taken apart again: [2, columns, 24, 24, 3] in [0, 1]."""
    pixels = panel.images[0].get_array() / 255
    return np.array([[pixels[i * 25 : i * 25 + 24, j * 25 : j * 25 + 24] for j in range(columns)] for i in range(2)])


def test_each_digit_is_decoded_alone_and_drawn_in_its_colour(made_up, monkeypatch, tmp_path):
    kept = {}
    monkeypatch.setattr(pairs_figure, "save", lambda figure, stem: kept.update({stem.name: figure}) or [])
    trained, split = made_up(30, 8)
    figures.reconstructions(trained, split, tmp_path)
    figure, found = kept["reconstructions"], pairs_figure.columns(trained, split)
    shown = np.concatenate([tiles_of(panel, 6) for panel in figure.axes], axis=1)
    heads = [label.get_text() for panel in figure.axes for label in panel.get_xticklabels()]
    for i, column in enumerate(found):
        image = split.images[column.image : column.image + 1].float() / 255
        with torch.inference_mode():
            capsules = trained.network.encode(image)
            one, other = (trained.network.decoder(capsules, torch.eye(10)[None, k])[0, 0].numpy() for k in column.classes)
        light = one[:, :, None] * np.array([1.0, 0.55, 0.0]) + other[:, :, None] * np.array([0.0, 0.45, 1.0])
        assert shown[0, i] == pytest.approx(np.repeat(image[0, 0].numpy()[:, :, None], 3, axis=2))
        assert shown[1, i] == pytest.approx(light.clip(0, 1), abs=0.5001 / 255)
        start = {"": "R:", "P": "R:P:", "*": "*R:"}[column.mark]
        l1, l2 = trained.labels[column.image].tolist()
        assert heads[i] == f"{start}({column.classes[0]},{column.classes[1]})\nL:({l1},{l2})"
    colours = [label.get_color() for panel in figure.axes for label in panel.get_xticklabels()]
    assert colours == ["black"] * 12 + [pairs_figure.RED] * 12
    words = texts(figure)
    assert "the first 6 of 8 pairs of 38 that are not recognised" in words
    assert "orange" in words


def test_where_both_digits_are_bright_the_light_is_white():
    both = pairs_figure.overlaid(torch.ones(1, 2, 1, 2, 2))
    assert both.allclose(torch.ones(1, 3, 2, 2))
    alone = pairs_figure.overlaid(torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)])[None])
    assert alone[0, :, 0, 0].tolist() == pytest.approx(list(pairs_figure.FIRST))


@pytest.mark.parametrize(
    ("right", "mistaken", "said"),
    [(20, 0, "all 20 pairs are recognised"), (0, 5, "no pair of 5 is recognised"), (20, 2, "every pair (2) of 22")],
)
def test_it_says_so_if_all_pairs_are_right_or_none(made_up, monkeypatch, tmp_path, right, mistaken, said):
    kept = {}
    monkeypatch.setattr(pairs_figure, "save", lambda figure, stem: kept.update({stem.name: figure}) or [])
    pairs_figure.reconstructions(*made_up(right, mistaken), tmp_path)
    assert said in texts(kept["reconstructions"])


def test_without_a_decoder_there_is_no_figure_5(made_up, tmp_path):
    with pytest.raises(InputError, match="no decoder"):
        pairs_figure.reconstructions(*made_up(3, 1, reconstruction_weight=0.0), tmp_path)


def test_a_perturbation_is_of_the_longer_of_the_two_capsules(made_up, drawn, tmp_path):
    trained, split = made_up(12, 3)
    for image in (0, 4, 13):
        with torch.inference_mode():
            lengths = trained.network.scores(split.batch(slice(image, image + 1)))[0]
        expected = max(trained.predictions[image].tolist(), key=lambda k: lengths[k])
        assert figures.longest(trained, split, image) == expected
        rows = figures.perturbed(trained, split, image)
        with torch.inference_mode():
            capsules = trained.network.encode(split.batch(slice(image, image + 1)))
            capsules[0, expected, 3] += figures.DELTAS[0]
            torch.testing.assert_close(rows[3, 0], trained.network.reconstruct(capsules, torch.tensor([expected]))[0])
    figures.perturbations(trained, split, tmp_path, 4)
    assert f"capsule of {figures.longest(trained, split, 4)}" in texts(drawn["perturbations"])


# --- runs that were really trained


def test_the_whole_way_from_runs_to_tables_and_pictures(pairs, tmp_path, capsys):
    found = read_runs("pairs", pairs)
    made = tables.judged(found.runs, found.stores)
    for cell, images in zip(made.cells, made.images, strict=True):
        assert 100 * images.wrong.mean() / 2 == pytest.approx(cell.error.mean, abs=1e-3)
    written = tables.write(made, found.runs, tmp_path)
    assert (tmp_path / "table1.md") in written
    best = best_runs(found.runs)
    assert set(best) == {"digits", "multidigits"}
    assert main(Figures(experiment="pairs", mlruns=pairs, results=tmp_path, data=Path("/nowhere"))) == 0
    for run_id in best.values():
        there = {path.name for path in (tmp_path / "pairs" / "figures" / run_id[:8]).iterdir()}
        assert there > {"reconstructions.png", "perturbations.png", "perturbation.gif", "routing.png"}
    assert json.loads((tmp_path / "pairs" / "figures" / best["multidigits"][:8] / "routing.json").read_text())["images"] == 3600
    trained = Trained.load(*catalog.holding(best["multidigits"], pairs), tmp_path)
    row = found.runs.set_index("run_id").loc[best["multidigits"]]
    assert f"test error {row['test_error']:.2f} %" in trained.title
    trained.check(read(trained.config, Path("/nowhere"), torch.device("cpu")).test)
    assert choose("", "pairs", pairs)[1].run_id in best.values()


def test_two_runs_on_pairs_are_compared_by_exact_match(pairs, tmp_path, capsys):
    runs = read_runs("pairs", pairs, ["dataset=multidigits"]).runs
    first, *_, second = runs["run_id"]
    said = []
    for run_id in (first, second):
        store, _ = catalog.holding(run_id, pairs)
        told = load_file(store.artifact(run_id, PREDICTIONS, tmp_path))
        said.append(np.array([set(a) != set(b) for a, b in zip(told["predictions"], told["labels"], strict=True)]))
    one, other = said
    assert duel.main(duel.Compare(first, second, pairs)) == 0
    printed = capsys.readouterr().out
    assert f"run {first}: {one.sum()} of 3600 test images wrong ({100 * one.mean():.2f} %)" in printed
    assert f"in the first alone: {(one & ~other).sum()}; in the second alone: {(other & ~one).sum()}" in printed
    table = [[0, (~one & other).sum()], [(one & ~other).sum(), 0]]
    assert f"p = {mcnemar(table, exact=True).pvalue:.2g}" in printed or "p < 0.0001" in printed
