"""Figures of a trained network: what they show, held to the run's own files, and that another build has the same bytes."""

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import analysis.__main__
from analysis import figures, figures_command, routing_figure
from analysis.figures import DELTAS, examples, perturbation_gif, perturbations, perturbed, reconstructions, write
from analysis.figures_command import Figures, log, main
from analysis.pictures import mosaic
from analysis.routing_figure import routing
from analysis.trained import Trained, best_run, choose
from analysis.wording import class_text
from capsnet.config import RunConfig
from capsnet.data import Data, Split, read
from capsnet.diagnostics import diagnose
from capsnet.errors import InputError
from capsnet.models import build
from capsnet.registry import DATASETS
from capsnet.state import stream
from capsnet.verified import whole
from experiments import catalog
from experiments.journal import FILES
from experiments.tracking import MissingError, Store
from tests.analysis.looks import clashes, inside, smallest, texts
from tests.experiments.conftest import TINY, launched


@pytest.fixture(scope="session")
def loaded(gallery, tmp_path_factory):
    """The run with a decoder that validation likes best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Trained.load(*choose("", "pictures", gallery), tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def data(loaded) -> Data:
    return read(loaded.config, Path("/nowhere"), torch.device("cpu"))


@pytest.fixture
def mlruns(gallery, monkeypatch):
    """The gallery's tracking folder: who changes it puts it back."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return gallery


@pytest.fixture
def made_up():
    """(test images, how many of them are mistaken, field=value, ...) -> an untrained run that answers so, and its images."""

    def make(count: int, mistakes: int, **changes) -> tuple[Trained, Split]:
        config = RunConfig(**{"dataset": "digits", "train_size": 100, "validation_size": 100, "conv_kernel": 5, **changes})
        generator = torch.Generator().manual_seed(5)
        images = torch.randint(256, (count, *config.facts.shape), generator=generator, dtype=torch.uint8)
        labels = torch.arange(count) % config.facts.classes
        answers = labels.clone()
        answers[count - mistakes :] = (answers[count - mistakes :] + 3) % config.facts.classes
        network = build(config, stream(0, "initialisation"))
        return Trained("0123456789abcdef" * 2, config, network, labels, answers), Split(images, labels)

    return make


SMALL = {"conv_channels": 8, "primary_types": 2, "primary_kernel": 5, "decoder_hidden": (8,)}


def tiles_of(panel, rows, columns, side):
    """The mosaic of a panel taken apart again: [rows, columns, side, side] in [0, 1]."""
    pixels = panel.images[0].get_array()[:, :, 0] / 255
    pitch = side + max(1, side // 14)
    return np.array(
        [[pixels[i * pitch : i * pitch + side, j * pitch : j * pitch + side] for j in range(columns)] for i in range(rows)]
    )


def heads_of(panel):
    return [label.get_text() for label in panel.get_xticklabels()]


# figure 3


def test_examples_are_the_first_of_each_class_and_failures_from_the_whole_test_set():
    labels = [2, 0, 1, 0, 2, 1, 1, 0, 2, 2, 1, 0, 0, 0]
    answers = [1, 0, 1, 0, 2, 0, 0, 1, 0, 0, 2, 0, 0, 0]
    assert examples(labels, answers) == ([1, 2, 4], [0, 5, 6, 7, 8, 9, 10])
    ordered = [label for label in range(5) for _ in range(20)]
    assert examples(ordered, [9] * 100) == ([], [0, 16, 33, 50, 66, 82, 99])
    assert examples([0, 1, 1], [1, 1, 1]) == ([1], [0])
    assert examples([0], [0]) == ([0], [])


def test_reconstructions_are_of_the_run_and_its_failures_those_of_the_predictions_file(loaded, data, gallery, drawn, tmp_path):
    store, run = catalog.holding(loaded.run_id, gallery)
    told = load_file(store.artifact(run.run_id, "test_predictions.safetensors", tmp_path))
    labels, answers = told["labels"].tolist(), told["predictions"].tolist()
    wrong = [i for i in range(360) if labels[i] != answers[i]]
    assert 100 * len(wrong) / 360 == pytest.approx(run.metrics["test_error"])
    assert len(wrong) >= 7
    expected = [(next(i for i in range(360) if labels[i] == answers[i] == digit), digit) for digit in range(10)]
    for i in (wrong[round(j * (len(wrong) - 1) / 6)] for j in range(7)):
        expected += [(i, answers[i]), (i, labels[i])]

    reconstructions(loaded, data.test, tmp_path)
    panels = drawn["reconstructions"].axes
    assert [head for panel in panels for head in heads_of(panel)] == [f"({labels[i]}, {answers[i]}, {r})" for i, r in expected]
    shown = np.concatenate([tiles_of(panel, 2, 6, 16) for panel in panels], axis=1)
    assert shown.shape[1] == 24 == len(expected)
    for column, (i, r) in enumerate(expected):
        image = data.test.images[i : i + 1].float() / 255
        with torch.inference_mode():
            made = loaded.network.decoder(loaded.network.encode(image), torch.eye(10)[None, r])
        assert shown[0, column] == pytest.approx(image[0, 0].numpy())
        assert shown[1, column] == pytest.approx(made[0, 0].numpy(), abs=0.5001 / 255)
    colours = [text.get_color() for panel in panels for text in panel.get_xticklabels()]
    assert colours == ["black"] * 10 + [figures.ORANGE] * 14
    words = texts(drawn["reconstructions"])
    assert f"orange: 7 of {len(wrong)} failures in 360 test images, evenly spread" in words
    assert loaded.run_id[:8] in words


@pytest.mark.parametrize(
    ("mistakes", "columns", "said"),
    [
        (0, 10, "no failure in 40 test images"),
        (3, 16, "orange: every failure (3) in 40 test images"),
        (40, 14, "orange: 7 of 40 failures in 40 test images, evenly spread"),
    ],
)
def test_reconstructions_say_how_many_failures_there_are(made_up, drawn, tmp_path, mistakes, columns, said):
    reconstructions(*made_up(40, mistakes, **SMALL), tmp_path)
    figure = drawn["reconstructions"]
    assert said in texts(figure)
    assert sum(len(heads_of(panel)) for panel in figure.axes) == columns
    assert len(figure.axes) == -(-columns // 6)


def test_a_decoder_of_all_capsules_makes_one_image_of_each(made_up, drawn, tmp_path):
    trained, split = made_up(40, 3, **SMALL, mask="none")
    reconstructions(trained, split, tmp_path)
    panels = drawn["reconstructions"].axes
    labels, answers = trained.labels.tolist(), trained.predictions.tolist()
    indices = [*range(10), 37, 38, 39]
    assert [head for panel in panels for head in heads_of(panel)] == [f"({labels[i]}, {answers[i]})" for i in indices]
    shown = np.concatenate([tiles_of(panel, 2, 6, 16) for panel in panels], axis=1)
    with torch.inference_mode():
        made = trained.network.decoder.layers(trained.network.encode(split.batch(torch.tensor(indices))).flatten(1))
    assert shown[1, :13] == pytest.approx(made.view(13, 16, 16).numpy(), abs=0.5001 / 255)
    assert "all capsules are decoded" in texts(drawn["reconstructions"])

    rows = perturbed(trained, split, 2)
    with torch.inference_mode():
        changed = trained.network.encode(split.batch(slice(2, 3)))
        changed[0, answers[2], 4] += DELTAS[9]
        torch.testing.assert_close(rows[4, 9], trained.network.decoder.layers(changed.flatten(1)).view(1, 16, 16))
    perturbations(trained, split, tmp_path, 2)
    assert "all other capsules are decoded, too" in texts(drawn["perturbations"])


def test_a_figure_says_which_class_of_those_in_it_has_which_name(made_up, drawn, tmp_path):
    trained, split = made_up(12, 0, **SMALL, dataset="fashion_mnist")
    trained.labels.clamp_(max=4)
    trained.predictions.copy_(trained.labels)
    trained.predictions[11] = 9
    reconstructions(trained, split, tmp_path)
    figure = drawn["reconstructions"]
    key = "classes: 0 (T-shirt), 1 (trouser), 2 (pullover), 3 (dress), 4 (coat), 9 (ankle boot) run"
    assert key in texts(figure).replace("\xa0", " ")
    assert heads_of(figure.axes[-1])[-1] == "(1, 9, 1)"
    assert inside(figure)
    perturbations(trained, split, tmp_path, 11)
    words = texts(drawn["perturbations"])
    assert "test image 11 and its reconstruction: label 1 (trouser), prediction 9 (ankle boot)" in words
    assert "dimension of the capsule of class 9 (ankle boot)" in words
    assert inside(drawn["perturbations"])


def test_a_dollar_in_a_name_begins_no_mathematics(made_up, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], names=tuple(f"US${i} $\\foo$" for i in range(10))))
    trained, split = made_up(20, 3, **SMALL)
    assert [path.suffix for path in (*reconstructions(trained, split, tmp_path), *perturbations(trained, split, tmp_path))]
    assert class_text("digits", 3) == "3 (US\\$3 \\$\\foo\\$)"


# figure 4


def test_a_perturbation_changes_one_number_of_the_longest_capsule(loaded, data):
    rows = perturbed(loaded, data.test, 5)
    assert rows.shape == (16, 11, 1, 16, 16)
    assert pytest.approx([-0.25, -0.2, -0.15, -0.1, -0.05, 0, 0.05, 0.1, 0.15, 0.2, 0.25]) == DELTAS
    with torch.inference_mode():
        capsules = loaded.network.encode(data.test.batch(slice(5, 6)))
        longest = int(loaded.predictions[5])
        assert int(capsules[0].norm(dim=1).argmax()) == longest
        for dim in range(16):
            for column, delta in enumerate(DELTAS):
                changed = torch.zeros(1, 10, 16)  # the decoder is given the one capsule alone
                changed[0, longest] = capsules[0, longest]
                changed[0, longest, dim] += delta
                torch.testing.assert_close(rows[dim, column], loaded.network.decoder(changed, torch.ones(1, 10))[0])


def test_the_middle_column_is_the_plain_reconstruction_and_others_differ(loaded, data):
    rows = perturbed(loaded, data.test, 2)
    with torch.inference_mode():
        plain = loaded.network.reconstruct(loaded.network.encode(data.test.batch(slice(2, 3))), loaded.predictions[2:3])
    for dim in range(16):
        torch.testing.assert_close(rows[dim, 5], plain[0])
        for column in (0, 4, 6, 10):
            assert (rows[dim, column] - plain[0]).abs().max() > 1e-4
    assert (rows[:, 0] - rows[:, 10]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_perturbations_show_every_dimension_and_step(loaded, data, drawn, tmp_path):
    perturbations(loaded, data.test, tmp_path, 7)
    above, below = drawn["perturbations"].axes
    assert heads_of(below) == ["−0.25", "−0.20", "−0.15", "−0.10", "−0.05", "0", "+0.05", "+0.10", "+0.15", "+0.20", "+0.25"]
    assert [label.get_text() for label in below.get_yticklabels()] == [str(dim) for dim in range(1, 17)]
    expected = perturbed(loaded, data.test, 7)[:, :, 0].numpy()
    assert tiles_of(below, 16, 11, 16) == pytest.approx(expected, abs=0.5001 / 255)
    image, plain = tiles_of(above, 1, 2, 16)[0]
    assert image == pytest.approx(data.test.images[7, 0].numpy() / 255)
    assert plain == pytest.approx(expected[0, 5], abs=1.5 / 255)
    label, prediction = loaded.labels[7], loaded.predictions[7]
    assert f"test image 7 and its reconstruction: label {label}, prediction {prediction}" in texts(drawn["perturbations"])


@pytest.mark.parametrize(("dims", "beside"), [(2, ""), (5, ""), (6, "dimension of the capsule of class")])
def test_few_rows_have_no_label_beside_them_which_would_be_longer_than_they(made_up, drawn, tmp_path, dims, beside):
    perturbations(*made_up(20, 0, **SMALL, class_dim=dims), tmp_path)
    _, below = drawn["perturbations"].axes
    assert below.get_ylabel().startswith(beside)
    assert bool(below.get_ylabel()) == bool(beside)
    assert "of the capsule of class" in below.get_ylabel() + below.get_title()


def test_the_first_image_that_is_recognised_is_perturbed(made_up, drawn, tmp_path):
    trained, split = made_up(20, 0, **SMALL)
    trained.predictions[:4] = (trained.labels[:4] + 1) % 10
    perturbations(trained, split, tmp_path)
    assert "test image 4 and" in texts(drawn["perturbations"])
    perturbations(*made_up(20, 20, **SMALL), tmp_path)
    assert "test image 0 and" in texts(drawn["perturbations"])


def test_an_image_that_is_not_there_is_refused(loaded, data, tmp_path):
    for image in (-1, 360):
        with pytest.raises(InputError, match=f"no test image {image} of digits: choose 0 to 359"):
            perturbations(loaded, data.test, tmp_path, image)
    assert list(tmp_path.iterdir()) == []


def test_the_film_goes_forth_and_back_and_shows_each_dimension(loaded, data, tmp_path):
    [path] = perturbation_gif(loaded, data.test, tmp_path, 3)
    assert path.stat().st_size < 300_000
    frames = []
    with Image.open(path) as film:
        assert (film.n_frames, film.info["loop"]) == (20, 0)
        for i in range(20):
            film.seek(i)
            assert film.info["duration"] == 100
            frames.append(np.asarray(film.convert("L")).astype(int))
    for forth, back in ((1, 9), (4, 6), (11, 19), (14, 16), (0, 10)):  # 0 to +0.25, to -0.25, and back to 0
        assert (frames[forth] == frames[back]).all()
    assert len({frame.tobytes() for frame in frames}) == 11
    # the rows and columns that are mostly not white are those of the tiles; of the slider there is a line or two
    rows, columns = (np.nonzero((frames[0][:320] < 250).mean(axis=axis) > 0.5)[0] for axis in (1, 0))
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    tiles = perturbed(loaded, data.test, 3).unflatten(0, (4, 4))

    def small(frame):
        return np.asarray(Image.fromarray(frame.astype(np.uint8)).resize((67, 67), Image.Resampling.BOX, box)).astype(int)

    for frame, column in ((5, 10), (10, 5), (15, 0)):
        assert np.corrcoef(small(frames[frame]).flat, mosaic(tiles[:, :, column])[:, :, 0].flat)[0, 1] > 0.98
    change = mosaic(tiles[:, :, 10])[:, :, 0].astype(int) - mosaic(tiles[:, :, 0])[:, :, 0]
    assert np.corrcoef((small(frames[5]) - small(frames[15])).flat, change.flat)[0, 1] > 0.5  # of 18 shades


# routing


def test_the_figure_of_routing_says_what_the_diagnosis_says(loaded, data, drawn, tmp_path):
    [numbers] = routing(loaded, data.test, tmp_path)
    told, found = json.loads(numbers.read_text()), diagnose(loaded.network, data.test, 5)
    assert told["run_id"] == loaded.run_id
    assert told["routing_iterations"] == 3
    assert told["coupling_entropy_nats"] == pytest.approx(found.entropy.tolist())
    assert told["mean_logit_change"] == pytest.approx(found.change.tolist())
    assert told["dead_by_type"] == found.dead_primary.tolist()
    assert len(told["dead_by_type"]) == 4
    figure = drawn["routing"]
    entropy, change, histogram, types = figure.axes
    for panel, values, own in ((entropy, found.relative_entropy, 3), (change, found.change, 2)):
        whole, filled, hollow = panel.lines
        assert list(whole.get_ydata()) == pytest.approx(values.tolist())
        assert (len(filled.get_ydata()), len(hollow.get_ydata())) == (own, len(values) - own)
        assert hollow.get_markerfacecolor() == "white"
    assert sum(bar.get_width() for bar in histogram.patches) == found.primary.numel()
    assert types.lines[1].get_ydata() == pytest.approx(found.classes.numpy())


def test_dead_capsules_are_counted_in_the_figure(loaded, data, drawn, tmp_path):
    network = build(loaded.config, stream(0, "initialisation"))
    network.load_state_dict(loaded.network.state_dict())
    with torch.no_grad():
        for parameter in (network.primary.conv.weight, network.primary.conv.bias):
            parameter[8:16] = 0  # the second of four types
        network.capsules.weight.unflatten(2, (10, 16))[:, :, 7] = 0
    broken = Trained(loaded.run_id, loaded.config, network, loaded.labels, loaded.predictions)
    [numbers] = routing(broken, data.test, tmp_path)
    told = json.loads(numbers.read_text())
    assert told["dead_by_type"][1] == told["capsules_per_type"] == 16
    assert told["dead_classes"] == [7]
    words = texts(drawn["routing"])
    assert f"{sum(told['dead_by_type'])} of 64 primary capsules, 1 of 4 types as a whole, 1 of 10 classes" in words
    assert "not longer than 0.1 on any of 360 test images" in words


def test_the_capsules_of_hidden_layers_have_their_place_in_the_figure(made_up, drawn, tmp_path):
    """Two layers of equally many, one capsule of the upper without weights."""
    trained, split = made_up(30, 0, **SMALL, hidden_capsules=(5, 5))
    with torch.no_grad():
        trained.network.hidden[0].weight *= 50
        trained.network.hidden[1].weight *= 50
        trained.network.hidden[1].weight.unflatten(2, (5, 16))[:, :, 2] = 0
    [numbers] = routing(trained, split, tmp_path)
    told, found = json.loads(numbers.read_text()), diagnose(trained.network, split, 5)
    assert told["dead_hidden"] == found.dead_hidden == [0, 1]
    assert told["mean_length_of_layer"] == pytest.approx(found.mean_lengths)
    assert told["greatest_length_of_hidden"] == [pytest.approx(layer.tolist()) for layer in found.hidden]
    types = drawn["routing"].axes[3]
    _, lower, upper, classes, _ = types.lines
    for line, lengths in ((lower, found.hidden[0]), (upper, found.hidden[1]), (classes, found.classes)):
        assert line.get_ydata() == pytest.approx(lengths.numpy())
    places = [place for line in (lower, upper, classes) for place in line.get_xdata()]
    assert len(set(places)) == 20
    assert [label.get_text() for label in types.get_xticklabels()] == ["2 types", "5 + 5\nhidden", "10 classes"]
    assert "0 of 5 hidden, 1 of 5 hidden, " in texts(drawn["routing"]).replace("\n", " ")


def test_routing_is_followed_on_the_first_images_of_a_large_test_set(loaded, data, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(routing_figure, "MOST", 50)
    routing(loaded, data.test, tmp_path)
    assert "on any of the first 50 test images" in texts(drawn["routing"]).replace("\n", " ")
    assert json.loads((tmp_path / "routing.json").read_text())["images"] == 50


def test_without_routing_there_is_one_pass(made_up, drawn, tmp_path):
    for changes in ({"routing": "uniform"}, {}):
        [numbers] = routing(*made_up(20, 0, **SMALL, routing_iterations=1, **changes), tmp_path)
        told = json.loads(numbers.read_text())
        assert told["coupling_entropy_relative"] == pytest.approx([1])
        assert told["mean_logit_change"] == []
        assert "one pass" in texts(drawn["routing"])
        assert [tick for tick in drawn["routing"].axes[0].get_xticks() if 0.5 <= tick <= 1.5] == [1]
        assert "hollow" not in texts(drawn["routing"])


@pytest.mark.parametrize("name", ["random", "static"])
def test_of_a_coupling_that_all_images_share_there_is_the_entropy(made_up, drawn, tmp_path, name):
    [numbers] = routing(*made_up(20, 0, **SMALL, routing=name, routing_iterations=1), tmp_path)
    [share] = json.loads(numbers.read_text())["coupling_entropy_relative"]
    assert share < 0.9 if name == "random" else share == pytest.approx(1)
    words = texts(drawn["routing"])
    assert f"one pass: {name} coupling" in words
    assert "logits stay 0" not in words
    assert "hollow" not in words


def test_of_a_routing_that_is_not_followed_there_are_the_lengths_of_capsules(made_up, drawn, tmp_path):
    [numbers] = routing(*made_up(20, 0, **SMALL, routing="attention", routing_iterations=1), tmp_path)
    told = json.loads(numbers.read_text())
    assert told["coupling_entropy_relative"] == told["mean_logit_change"] == []
    assert len(told["greatest_length_of_class"]) == 10
    words = texts(drawn["routing"])
    assert words.count("attention routing is not followed") == 1
    assert len(drawn["routing"].axes) == 2, "no panel is empty"
    assert "one pass" not in words
    assert "hollow" not in words


@pytest.mark.parametrize(
    ("routed", "said"),
    [
        ({"routing": "attention(temperature=0.12345678)", "routing_iterations": 1}, "attention routing is not followed"),
        ({"routing": "em(scale=0.5)", "routing_iterations": 2}, "em routing has no logits"),
    ],
)
def test_what_is_said_of_a_routing_with_parameters_leaves_the_panels_their_room(made_up, drawn, tmp_path, routed, said):
    """A longer line than the panel would press both together, of which matplotlib warns."""
    routing(*made_up(20, 0, **SMALL, **routed), tmp_path)
    figure = drawn["routing"]
    assert said in texts(figure)
    assert routed["routing"] in texts(figure), "the note has the parameters"
    assert min(panel.get_window_extent().width for panel in figure.axes) > 0.6 * figure.dpi


def test_a_long_name_of_a_routing_is_broken():
    lines = routing_figure._why("exponentially_weighted_agreement").split("\n")
    assert "".join(lines).replace(" ", "") == "onepass:exponentially_weighted_agreementcoupling"
    assert max(map(len, lines)) <= routing_figure.LETTERS


def test_with_hidden_capsules_the_figure_of_routing_says_which_layers_it_is(made_up, drawn, tmp_path):
    told = "routing of the last hidden layer's capsules to the class capsules"
    for hidden in ((), (6, 5)):
        routing(*made_up(20, 0, **SMALL, hidden_capsules=hidden), tmp_path)
        assert (told in " ".join(texts(drawn["routing"]).split())) == bool(hidden)


def test_of_em_routing_there_is_the_entropy_of_its_passes(made_up, drawn, tmp_path):
    [numbers] = routing(*made_up(20, 0, **SMALL, routing="em", routing_iterations=2), tmp_path)
    told = json.loads(numbers.read_text())
    assert told["coupling_entropy_relative"] == pytest.approx([1, told["coupling_entropy_relative"][1]])
    assert told["mean_logit_change"] == []
    words = texts(drawn["routing"])
    assert words.count("em routing has no logits") == 1
    assert "not followed" not in words
    assert "hollow" not in words


# all of them


LOOKS = {
    "full size": (30, 9, {"dataset": "mnist", "conv_kernel": 9}),
    "four dimensions": (30, 2, {**SMALL, "class_dim": 4, "routing_iterations": 1}),
    "many types and dimensions": (30, 2, {**SMALL, "class_dim": 30, "primary_types": 64, "routing_iterations": 12}),
    "one image": (1, 1, SMALL),
    "all capsules decoded": (30, 9, {**SMALL, "mask": "none", "routing": "attention", "routing_iterations": 1}),
}


@pytest.mark.parametrize("look", LOOKS)
def test_texts_fit_and_can_be_read(made_up, drawn, tmp_path, look):
    count, mistakes, changes = LOOKS[look]
    trained, split = made_up(count, mistakes, **changes)
    for make in (reconstructions, perturbations, routing):
        make(trained, split, tmp_path)
    assert drawn.keys() == {"reconstructions", "perturbations", "routing"}
    for figure in drawn.values():
        assert figure.get_figwidth() == 3.4
        assert smallest(figure) >= 7
        with routing_figure.style():  # ticks are made anew when they are measured
            assert inside(figure)
            for panel in figure.axes:
                assert clashes(panel.xaxis) == clashes(panel.yaxis) == []


def test_a_run_without_a_decoder_has_the_figure_of_routing_alone(gallery, data, tmp_path):
    store, _ = choose("", "pictures", gallery)
    run = next(run for run in store.runs() if run.params["routing"] == "uniform")
    trained = Trained.load(*catalog.holding(run.run_id, gallery), tmp_path / "files")
    for make in (reconstructions, perturbations, perturbation_gif):
        with pytest.raises(InputError, match=f"run {run.run_id} was trained without reconstruction"):
            make(trained, data.test, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    names = [path.name for path in write(trained, data, tmp_path / "made")]
    assert names == ["routing.png", "routing.pdf", "routing.json"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(names)


def test_images_that_the_run_was_not_tested_on_are_refused(loaded, data, tmp_path):
    for split in (data.validation, Split(data.test.images, data.test.labels.flip(0))):
        for make in (reconstructions, perturbations, perturbation_gif, routing):
            with pytest.raises(InputError, match=r"was tested on 360 images of digits.*--data"):
                make(loaded, split, tmp_path)


def test_grey_and_coloured_tiles_stand_where_they_belong():
    grey = torch.rand(3, 2, 1, 28, 20)
    canvas = mosaic(grey)
    assert canvas.shape == (3 * 28 + 2, 2 * 20 + 1, 3)
    assert (canvas[28] == 255).all()
    assert (canvas[:, 20] == 255).all()
    assert canvas[58:86, 21:, 2] == pytest.approx(255 * grey[2, 1, 0].numpy(), abs=0.5001)
    colour = torch.rand(1, 1, 3, 5, 4)
    assert mosaic(colour) == pytest.approx(255 * colour[0, 0].movedim(0, 2).numpy(), abs=0.5001)
    pair = torch.rand(1, 1, 2, 5, 4)  # of two cameras
    assert (mosaic(pair) == mosaic(pair[:, :, [0, 1, 1]])).all()
    assert (mosaic(pair)[:, :, 0] != mosaic(pair)[:, :, 1]).any()
    many = torch.rand(2, 1, 5, 5, 4)
    assert (mosaic(many) == mosaic(many[:, :, :3])).all()


# which run


@pytest.fixture
def candidates(make_runs):
    """Two routings with a decoder and one without, with two seeds each: their validation errors are the test errors + 0.5."""
    axes = {"routing_iterations": [1, 3], "reconstruction_weight": [0.0, 5e-4]}
    return make_runs(axes, seeds=2, errors=[0.1, 0.1, 2.0, 9.0, 0.1, 0.1, 5.0, 4.0])


def test_the_best_run_is_the_best_seed_of_the_best_cell(candidates):
    assert best_run(candidates) == "run007"  # 2.0 is the lowest of all, in a cell whose mean is 5.5
    assert best_run(candidates.sample(frac=1, random_state=1)) == "run007"


def test_the_test_error_never_chooses(candidates):
    candidates["test_error"] = candidates["test_error"].to_numpy()[::-1]
    assert best_run(candidates) == "run007"
    candidates["test_error"] = float("nan")
    assert best_run(candidates) == "run007"


def test_runs_that_did_not_finish_or_have_no_decoder_are_not_the_best(candidates, fail):
    candidates.loc[6, "status"] = candidates.loc[7, "status"] = "running"
    assert best_run(candidates) == "run002"
    fail(candidates, [2, 3])
    assert best_run(candidates) is None


def test_without_validation_the_training_error_chooses(candidates):
    candidates["validation_error"] = float("nan")
    candidates["train_error"] = [0, 0, 7.0, 7.0, 0, 0, 9.0, 1.0]
    assert best_run(candidates) == "run007"
    candidates.loc[3, "validation_error"] = 99.0  # but validation is better than none
    assert best_run(candidates) == "run003"


def test_the_run_that_is_named_or_else_the_best_is_chosen(gallery, loaded):
    runs = [run for run in choose("", "pictures", gallery)[0].runs() if run.params["reconstruction_weight"] != "0.0"]
    assert len(runs) == 2
    assert loaded.run_id == min(runs, key=lambda run: (run.metrics["validation_error"], run.params["seed"])).run_id
    assert choose("", "", gallery)[1].run_id == loaded.run_id
    for run in runs:
        assert choose(run.run_id[:16], "pictures", gallery)[1] == run
    with pytest.raises(InputError, match=f"run {runs[0].run_id} is of experiment 'pictures', not 'other'"):
        choose(runs[0].run_id, "other", gallery)
    with pytest.raises(InputError, match="did you mean 'pictures'"):
        choose("", "picture", gallery)


def test_no_run_with_a_decoder_is_an_input_error(mlruns):
    store, _ = choose("", "pictures", mlruns)
    able = [run.run_id for run in store.runs() if run.params["routing"] == "dynamic"]
    for run_id in able:
        store.client.delete_run(run_id)
    try:
        with pytest.raises(InputError, match=r"'pictures' has no finished run with a decoder .reconstruction_weight above 0"):
            choose("", "pictures", mlruns)
    finally:
        for run_id in able:
            store.client.restore_run(run_id)


def test_files_that_are_missing_damaged_or_of_other_code_are_named(mlruns, tmp_path):
    store, run = choose("", "pictures", mlruns)
    folder = Path(urlsplit(store.client.get_run(run.run_id).info.artifact_uri).path)
    kept = {folder / name: (folder / name).read_bytes() for name in FILES}
    weights, answers = kept
    try:
        whole = load_file(weights)
        save_file({name: tensor for name, tensor in whole.items() if name != "capsules.weight"}, weights)
        other = rf"run {run.run_id}: its weights are damaged, or of another .*network \(.*capsules.weight.*; commit \w{{7}}"
        with pytest.raises(InputError, match=other):
            Trained.load(store, run, tmp_path)
        weights.write_bytes(kept[weights][:1000])
        with pytest.raises(InputError, match=f"run {run.run_id}: its weights are damaged"):
            Trained.load(store, run, tmp_path)
        weights.write_bytes(kept[weights])
        answers.write_bytes(kept[answers][:1000])
        with pytest.raises(InputError, match=f"predictions of run {run.run_id} are damaged"):
            Trained.load(store, run, tmp_path)
        answers.unlink()
        with pytest.raises(MissingError, match=rf"run {run.run_id} has no test_predictions.safetensors"):
            Trained.load(store, run, tmp_path)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


# the command


@pytest.mark.slow
def test_the_command_writes_files_logs_them_and_makes_the_same_bytes_again(mlruns, loaded, data, tmp_path):
    folders = ["--mlruns", str(mlruns), "--results", str(tmp_path / "results")]
    words = [sys.executable, "-m", "analysis", "figures", *folders]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "results" / "pictures" / "figures" / loaded.run_id[:8]
    names = {f"{name}.{kind}" for name in ("reconstructions", "perturbations", "routing") for kind in ("png", "pdf")}
    names |= {"perturbation.gif", "routing.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert {line for line in ran.stdout.splitlines() if line.startswith("/")} == {str(folder / name) for name in names}

    store, run = choose(loaded.run_id, "", mlruns)
    assert {item.path for item in store.client.list_artifacts(run.run_id, "figures")} == {f"figures/{name}" for name in names}
    assert run.status == "FINISHED"
    again = {path.name: path.read_bytes() for path in write(loaded, data, tmp_path / "again")}  # in another process
    for name in names:
        assert (folder / name).read_bytes() == again[name], name
        assert store.artifact(run.run_id, f"figures/{name}", tmp_path).read_bytes() == again[name]
    assert not any(b"CreationDate" in content for content in again.values())


def test_figures_that_did_not_reach_the_store_are_made_again(mlruns, loaded, tmp_path, monkeypatch):
    def gone(*_):
        raise OSError("gone away")

    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(Store, "attach", gone)
        with pytest.raises(InputError, match="failed: gone away; the same command goes on"):
            figures_command.make(loaded.run_id, mlruns, tmp_path, results)
    assert not any(results.rglob("*.png"))
    kept: list[str] = []
    monkeypatch.setattr(Store, "attach", lambda self, run, folder, name: kept.extend(path.name for path in folder.iterdir()))
    assert (
        {path.name for path in figures_command.make(loaded.run_id, mlruns, tmp_path, results)}
        == set(kept)
        > {"reconstructions.png"}
    )


def test_the_command_makes_what_can_be_made_and_says_what_can_not(mlruns, tmp_path, capsys):
    run = next(run for run in choose("", "pictures", mlruns)[0].runs() if run.params["routing"] == "uniform")
    assert main(Figures(run.run_id[:8], mlruns=mlruns, results=tmp_path / "results")) == 0
    said = capsys.readouterr()
    assert f"no reconstructions: run {run.run_id} was trained without" in said.err
    assert "routing.png" in said.out
    artifacts = choose(run.run_id, "", mlruns)[0].client.list_artifacts(run.run_id, "figures")
    assert {item.path for item in artifacts} == {f"figures/routing.{kind}" for kind in ("png", "pdf", "json")}


def test_nothing_is_drawn_of_pixels_that_the_run_never_saw(mlruns, loaded, data, tmp_path, monkeypatch, capsys):
    """Though they are as many, and their labels are the same."""
    assert loaded.digest == data.digest
    images, labels = loaded.config.facts.shape, data.test.labels.numpy()
    other = np.zeros((1437, *images[1:]), np.uint8)
    parts = ((other, np.arange(1437) % 10), (other[:360], labels))
    monkeypatch.setattr("capsnet.datasets.digits", lambda _: parts)
    whole.cache_clear()
    try:
        with pytest.raises(InputError, match=rf"run {loaded.run_id} is of digits of SHA-256 {data.digest[:16]}, and the files"):
            main(Figures(loaded.run_id[:8], mlruns=mlruns, results=tmp_path / "results"))
        monkeypatch.setattr(
            sys, "argv", ["analysis", "pictures", "--mlruns", str(mlruns), "--results", str(tmp_path / "results")]
        )
        assert analysis.__main__.main() == 0
    finally:
        whole.cache_clear()
    said = " ".join(capsys.readouterr().err.split())
    assert re.search("the pixels of mistaken images: the files of digits in [^ ]+ are not those of the runs", said)
    assert "the figures of the best run: run" in said


def test_what_fails_unexpectedly_is_missing_from_a_report_that_says_so(mlruns, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise KeyError("hue")

    monkeypatch.setattr("analysis.heat.of_errors", fails)
    monkeypatch.setattr("analysis.figures.write", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    results = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", ["analysis", "pictures", "--mlruns", str(mlruns), "--results", str(results)])
    assert analysis.__main__.main() == 1
    assert len(re.findall(r"error: KeyError: 'hue'; where it comes from stands in", capsys.readouterr().err)) == 2
    report = html.unescape((results / "pictures" / "report.html").read_text())
    assert "not drawn: heat_map: a fault of the program, KeyError: 'hue'" in report
    assert "not drawn: the figures of the best run: a fault of the program, KeyError: 'hue'" in report
    assert (results / "pictures" / "test_error_by_cell.png").exists()


def test_the_command_perturbs_the_image_that_is_named(mlruns, loaded, data, drawn, tmp_path):
    write(loaded, data, tmp_path, image=7)
    assert "test image 7 and its reconstruction" in texts(drawn["perturbations"])
    folders = {"mlruns": mlruns, "results": tmp_path / "results"}
    with pytest.raises(InputError, match="no test image 360 of digits: choose 0 to 359"):
        main(Figures(loaded.run_id[:8], image=360, **folders))
    bare = next(run for run in choose("", "pictures", mlruns)[0].runs() if run.params["routing"] == "uniform")
    with pytest.raises(InputError, match="was trained without reconstruction"):
        main(Figures(bare.run_id[:8], image=7, **folders))
    assert not (tmp_path / "results" / "pictures" / "figures" / bare.run_id[:8]).exists()


def test_the_command_refuses_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folders = {"mlruns": tmp_path / "none", "results": tmp_path / "results"}
    for words, said in (
        ({"run_id": "0000"}, "is empty"),
        ({}, "nothing has been launched yet"),
        ({"experiment": "x"}, "no experiment 'x'"),
    ):
        with pytest.raises(InputError, match=said):
            main(Figures(**words, **folders))
    assert list(tmp_path.iterdir()) == []


def test_results_that_can_not_be_written_are_an_input_error(mlruns, tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match=r"figures can't be written to .*--results"):
        main(Figures(mlruns=mlruns, results=tmp_path / "results"))


def test_help_fits_a_screen():
    words = [sys.executable, "-m", "analysis", "figures", "--help"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Example: python -m analysis figures 0123abcd" in said
    assert len(said.splitlines()) <= 24


@pytest.mark.slow  # a server with a database of its own
def test_figures_of_a_servers_runs_are_fetched_and_logged_there(mlflow_server, postgres, tmp_path, monkeypatch, capsys):
    server = mlflow_server(postgres)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    folder = tmp_path / "mlruns"
    folder.mkdir()
    assert not launched(folder, TINY, "tiny").failed
    store, best = choose("", "tiny", folder)
    assert main(Figures(best.run_id[:10], mlruns=folder, results=tmp_path / "results")) == 0
    logged = {item.path for item in store.client.list_artifacts(best.run_id, "figures")}
    assert {"figures/reconstructions.png", "figures/perturbation.gif", "figures/routing.pdf"} <= logged
    made = tmp_path / "results" / "tiny" / "figures" / best.run_id[:8]
    assert store.artifact(best.run_id, "figures/routing.png", tmp_path).read_bytes() == (made / "routing.png").read_bytes()
    server.kill()
    with pytest.raises(InputError, match=f"the tracking store {server.uri} has gone away"):
        log(store, best.run_id, [made / "routing.png"])


def test_a_network_without_decoder_and_routing_is_refused_and_one_with_a_decoder_is_drawn(tmp_path, drawn):
    """What is drawn of a run follows from its model."""
    labels = torch.arange(20) % 10
    split = Split(torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8), labels)
    base = {"dataset": "digits", "validation_size": 60}
    matched = RunConfig(**base, model="cnn_matched", conv_channels=4, conv_kernel=5, primary_kernel=5, decoder_hidden=(8,))
    plain = RunConfig(**base, model="cnn", loss="cross_entropy", reconstruction_weight=0.0)
    data = Data(split, split, split, "")
    run = Trained("0123456789", matched, build(matched, torch.Generator().manual_seed(0)), labels, labels)
    write(run, data, tmp_path)
    assert drawn.keys() == {"reconstructions", "perturbations"}
    assert run.title.startswith("run 01234567: digits, model cnn_matched, reconstruction weight 0.0005, test error")
    bare = Trained("0123456789", plain, build(plain, torch.Generator().manual_seed(0)), labels, labels)
    assert bare.title == "run 01234567: digits, model cnn, test error 0.00 %"
    with pytest.raises(
        InputError, match="nothing to picture: run 0123456789 is of model cnn, which has no decoder, and no routing"
    ):
        write(bare, data, tmp_path)
