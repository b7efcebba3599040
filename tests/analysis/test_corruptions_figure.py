"""The picture of corrupted test images: which are shown, and which answers stand in them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from analysis import corruptions_figure, figures
from analysis.corruptions_figure import corruptions
from analysis.trained import Trained
from capsnet.config import make_config
from capsnet.data import Data, read
from capsnet.errors import InputError
from capsnet.further import split
from capsnet.state import TrainingState
from capsnet.training import evaluate, train

NAMES = ("noisy_20", "rotated_45", "scaled_70")
SMALL = {"validation_size": 100, "conv_channels": 8, "conv_kernel": 5, "primary_types": 2, "primary_kernel": 5, "epochs": 2}


def trained_on(dataset: str, **more: object) -> tuple[Trained, Data]:
    values = {**SMALL, "dataset": dataset, "augmentation": "none", "learning_rate": 0.01, **more}
    config = make_config(values, "here")
    cpu = torch.device("cpu")
    data, state = read(config, Path("nowhere"), cpu), TrainingState(config, cpu)
    list(train(state, data))
    predictions = evaluate(state.model, data.test, 1000).predictions
    return Trained("0123abcd", config, state.model.eval(), data.test.labels, predictions, data.digest, NAMES), data


@pytest.fixture(scope="module")
def digits() -> tuple[Trained, Data]:
    return trained_on("digits")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    kept: list[Figure] = []
    monkeypatch.setattr(corruptions_figure, "save", lambda figure, stem: kept.append(figure) or [stem.with_suffix(".png")])
    return kept


def test_wrong_answers_stand_in_the_images_and_right_ones_do_not(digits, drawn, tmp_path):
    trained, data = digits
    corruptions(trained, data.test, tmp_path)
    [panel] = drawn[0].axes
    labels = data.test.labels
    chosen = [int((~trained.wrong & (labels == label)).nonzero()[0]) for label in range(10)]
    assert [text.get_text() for text in panel.get_xticklabels()] == [str(label) for label in range(10)]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["own", *NAMES]
    wanted = {}
    for row, name in enumerate(NAMES, start=1):
        answers = evaluate(trained.network, split(name, Path("nowhere"), data.test, trained.network)[0], 1000).predictions
        wanted |= {(row, i): str(int(answers[at])) for i, at in enumerate(chosen) if answers[at] != labels[at]}
    tile = 17  # pixels, with the line between
    assert len(wanted) > 3
    assert {
        (int(t.get_position()[1]) // tile, int(t.get_position()[0] + 1) // tile): t.get_text() for t in panel.texts
    } == wanted
    picture = panel.images[0].get_array()
    first = data.test.images[chosen[3], 0].numpy()
    assert (picture[:16, 3 * tile : 3 * tile + 16, 0] == first).all()


def test_two_digits_are_shown_with_both(drawn, tmp_path):
    trained, data = trained_on("multidigits", train_size=200, epochs=1)
    corruptions(trained, data.test, tmp_path)
    heads = [text.get_text() for text in drawn[0].axes[0].get_xticklabels()]
    assert heads == sorted(heads)
    assert len(heads) <= 10
    assert all(len(head.split()) == 2 for head in heads)


def test_it_is_one_of_a_runs_figures_if_the_run_was_tested_so(digits, tmp_path):
    trained, data = digits
    assert {"corruptions.png", "corruptions.pdf"} <= {path.name for path in figures.write(trained, data, tmp_path)}
    plain = replace(trained, tested=())
    assert not any(path.stem == "corruptions" for path in figures.write(plain, data, tmp_path / "plain"))
    assert corruptions(plain, data.test, tmp_path) == []
    nothing = replace(trained, predictions=(trained.labels + 1) % 10)
    assert corruptions(nothing, data.test, tmp_path) == []


def test_other_images_are_refused(digits, tmp_path):
    trained, data = digits
    with pytest.raises(InputError, match="was tested on"):
        corruptions(trained, replace(data.test, labels=data.test.labels.flip(0)), tmp_path)
