"""Mistakes: every answer is counted once, and the images shown are those that most runs get wrong."""

from dataclasses import replace

import numpy as np
import pytest

from analysis import mistakes, pooled
from analysis.comparisons import Images
from analysis.style import NothingToDrawError, style
from tests.analysis.legibility import shown_axes, texts


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


@pytest.fixture
def comparisons(make_runs, judge):
    return judge(make_runs({"routing_iterations": [1, 3], "epochs": [1, 2]}), images=70)


def answered(comparisons, *answers, labels=(0, 1, 1, 2), lengths=None):
    """The comparisons, with the answers [runs, images] of the first cells' runs, and no others."""
    found = []
    for each in answers:
        array = np.array(each)
        votes = (array[:, :, None] == np.arange(3)).sum(axis=0)
        scores = np.full((len(labels), 3), 0.5) if lengths is None else np.array(lengths)
        found.append(Images(comparisons.cells[0].error, None, np.array(labels), votes, scores))
    return replace(comparisons, images=[*found, *[None] * (len(comparisons.cells) - len(found))])


# --- confusion


def test_every_answer_is_counted_once(comparisons):
    for images, cell in zip(comparisons.images, comparisons.cells, strict=True):
        table = mistakes.counts(images)
        assert table.sum() == cell.error.n * len(images.labels)
        assert table.sum(axis=1).tolist() == (cell.error.n * np.bincount(images.labels)).tolist()
        assert table.sum(axis=0).tolist() == images.votes.sum(axis=0).tolist()
        assert np.trace(table) == sum(images.votes[i, label] for i, label in enumerate(images.labels))


def test_the_matrix_shows_errors_in_percent_of_their_class_and_right_answers_in_grey(comparisons):
    made = answered(comparisons, [[0, 1, 2, 2], [0, 1, 1, 0]])
    assert mistakes.counts(made.images[0]).tolist() == [[2, 0, 0], [0, 3, 1], [1, 0, 1]]
    [figure] = mistakes.confusion(made)
    [panel] = figure.axes
    assert [text.get_text() for text in panel.texts] == ["100", "", "", "", "75.0", "25.0", "50.0", "", "50.0"]
    values = panel.collections[0].get_array()
    assert np.ma.getmaskarray(values).tolist() == np.eye(3, dtype=bool).tolist()
    assert values.filled(-1).tolist() == [[-1, 0, 0], [0, -1, 25], [50, 0, -1]]
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("true class", "answer")
    assert panel.collections[0].norm.vmax == 50  # not the right answers' 100


def test_the_matrix_is_the_references_or_says_whose_it_is(comparisons, make_runs, judge):
    [figure] = mistakes.confusion(comparisons)
    assert comparisons.reference is comparisons.cells[2]
    assert "r 3, epochs 1 (the reference)" in texts(figure)
    table = mistakes.counts(comparisons.images[2])
    off = ~np.eye(10, dtype=bool)
    shown = figure.axes[0].collections[0].get_array()
    assert shown.filled(-1)[off] == pytest.approx((100 * table / table.sum(axis=1, keepdims=True))[off])
    assert "in 3 runs with 7 images per class" in texts(figure)
    [figure] = mistakes.confusion(answered(comparisons, [[0, 1, 1, 2]]))
    assert "r 1, epochs 1 (the first cell with predictions)" in texts(figure)
    [figure] = mistakes.confusion(judge(make_runs({}), images=20))
    assert "the only cell" in texts(figure)


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0, ""), (0.0334, "0.03"), (0.3, "0.30"), (0.996, "1.0"), (9.96, "10.0"), (99.94, "99.9"), (99.97, "100"), (100, "100")],
)
def test_percentages_take_four_letters(percent, text):
    assert mistakes._percent(percent) == text
    assert len(text) <= 4


# --- images


def test_answers_of_cells_with_other_images_are_kept_apart(comparisons):
    labels = np.array([2, 1, 1, 2])
    made = answered(comparisons, [[0, 1, 1, 2]] * 2, [[1, 1, 1, 2]], [[2, 1, 1, 1]] * 9)
    made.images[2] = replace(made.images[2], labels=labels)
    group = pooled.seen(made)
    assert [cell is made.cells[i] for i, cell in enumerate(group.cells)] == [True, True]
    assert group.left_out == (1, 1)
    assert group.votes.tolist() == [[2, 1, 0], [0, 3, 0], [0, 3, 0], [0, 0, 3]]
    [figure] = mistakes.mistaken(made, None)
    assert "tested on other images, and are not counted: 1. Cells without predictions: 1." in texts(figure)


def test_lengths_are_means_over_runs_not_over_cells(comparisons):
    made = answered(comparisons, [[0, 1, 1, 2]] * 3, [[0, 1, 1, 2]])
    made.images[1] = replace(made.images[1], scores=np.full((4, 3), 0.9))
    assert pooled.seen(made).lengths == pytest.approx(np.full((4, 3), 0.6))  # (3 x 0.5 + 0.9) / 4


def test_other_data_sets_with_equal_labels_are_other_images(make_runs, judge):
    comparisons = judge(make_runs({"dataset": ["mnist", "fashion_mnist"]}), images=30)
    group = pooled.seen(comparisons)
    assert len(group.cells) == 1
    assert {name: config.dataset for name, (config, _) in pooled.tested(comparisons).items()} == {
        "fashion_mnist": "fashion_mnist",
        "mnist": "mnist",
    }


def test_the_images_shown_are_those_that_most_runs_get_wrong(comparisons):
    group = pooled.seen(comparisons)
    wrong = [sum(images.votes[i].sum() - images.votes[i, images.labels[i]] for images in comparisons.images) for i in range(70)]
    assert group.wrong.tolist() == wrong
    chosen = pooled.most_mistaken(group, 15).tolist()
    assert len(chosen) == mistakes.ACROSS * mistakes.DOWN
    assert [wrong[i] for i in chosen] == sorted(wrong, reverse=True)[: len(chosen)]
    true = [group.lengths[i, group.labels[i]] for i in range(70)]
    assert chosen == sorted(range(70), key=lambda i: (-wrong[i], true[i]))[: len(chosen)]
    pixels = np.random.default_rng(0).integers(0, 256, (70, 1, 6, 6), dtype=np.uint8)
    [figure] = mistakes.mistaken(comparisons, pixels)
    assert [panel.get_title() for panel in shown_axes(figure)] == [f"image {i}" for i in chosen]
    shown = [panel.images[0].get_array() for panel in shown_axes(figure)]
    assert all((array == pixels[i, 0]).all() for array, i in zip(shown, chosen, strict=True))


def test_an_image_that_nobody_gets_wrong_is_not_shown(comparisons):
    [figure] = mistakes.mistaken(answered(comparisons, [[0, 1, 2, 2], [1, 1, 2, 2]]), None)
    assert [panel.get_title() for panel in shown_axes(figure)] == ["image 2", "image 0"]
    with pytest.raises(NothingToDrawError, match="no run gets any"):
        mistakes.mistaken(answered(comparisons, [[0, 1, 1, 2]] * 3), None)


@pytest.mark.parametrize(
    ("answers", "lines"),
    [
        ([2, 2, 2, 1], ["true 0: 0%, length 0.30", "2: 75%, length 0.10", "1: 25%, length 0.20"]),
        ([2, 0, 2, 1], ["true 0: 25%, length 0.30", "2: 50%, length 0.10"]),  # of equally many, the longer
        ([2, 2, 1, 1], ["true 0: 0%, length 0.30", "1: 50%, length 0.20", "2: 50%, length 0.10"]),
        ([1, 1, 1, 1], ["true 0: 0%, length 0.30", "1: 100%, length 0.20"]),
    ],
)
def test_the_two_most_frequent_answers_stand_below(comparisons, answers, lines):
    made = answered(comparisons, [[answer] for answer in answers], labels=[0], lengths=[[0.3, 0.2, 0.1]])
    assert [line for line in pooled.answers_to(pooled.seen(made), 0) if line] == lines


def test_classes_with_names_are_named_in_both_figures(make_runs, judge):
    made = answered(judge(make_runs({"dataset": ["smallnorb"]}), images=4), [[0, 1, 1, 2], [0, 1, 1, 1]])
    [figure] = mistakes.mistaken(made, None)
    assert "classes: 1\xa0(human), 2\xa0(plane)" in texts(figure)
    [figure] = mistakes.confusion(made)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["0 (animal)", "1 (human)", "2 (plane)"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]


def test_colour_and_float_images_are_shown_too(comparisons):
    made = answered(comparisons, [[1, 1, 1, 2]])
    shapes = [((4, 3, 5, 5), np.uint8), ((4, 3, 5, 5), np.float32), ((4, 1, 5, 5), np.float32), ((4, 2, 5, 5), np.uint8)]
    shapes += [((4, 4, 5, 5), np.uint8), ((4, 5, 5, 5), np.uint8)]  # of which the first three are shown
    for pixels in (np.ones(*shape) for shape in shapes):
        [figure] = mistakes.mistaken(made, pixels)
        [image] = shown_axes(figure)[0].images
        assert image.get_array().shape == ((5, 5) if pixels.shape[1] == 1 else (5, 5, 3))
        assert image.get_clim()[1] == (255 if pixels.dtype == np.uint8 else 1)


def test_images_of_another_data_set_are_refused(comparisons):
    with pytest.raises(ValueError, match="tested on 70 images, not on 71"):
        mistakes.mistaken(comparisons, np.zeros((71, 1, 5, 5), np.uint8))


def test_without_predictions_nothing_is_written(comparisons, tmp_path):
    nothing = replace(comparisons, images=[None] * 4)
    paths, skipped = mistakes.write(nothing, {}, tmp_path / "new")
    assert (paths, skipped) == ([], ["confusion, mistaken_images: no run's predictions can be read"])
    assert pooled.tested(nothing) == {}
