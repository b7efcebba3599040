"""Pairs of overlapping digits: how they are made, what counts as right, and what two labels change in a step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from capsnet import losses, multimnist
from capsnet.answers import answered, wrong
from capsnet.augmentation import shift
from capsnet.config import RunConfig, make_config
from capsnet.data import Split
from capsnet.datasets import stratified_order
from capsnet.draws import composed, draw
from capsnet.errors import InputError
from capsnet.state import TrainingState
from capsnet.step import step_losses
from capsnet.training import train
from capsnet.verified import whole

NOWHERE = Path("/nowhere")
CPU = torch.device("cpu")
PAIRS = {"dataset": "multidigits", "augmentation": "shift(pixels=4)", "train_size": 96, "validation_size": 60}


@pytest.fixture
def pairs(tiny, data_of):
    """A tiny config on pairs, and its data."""
    config = tiny(**PAIRS)
    return config, data_of(config)


def moved(image, down, right):
    """One image moved by a loop over its pixels: an oracle."""
    height, width = image.shape
    made = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                made[row, column] = image[row - down, column - right]
    return made


def singles(part):
    """The digits of the training or the test set, each in the middle of its canvas."""
    images, labels = whole("digits", NOWHERE)[part]
    return np.pad(images, ((0, 0), (4, 4), (4, 4))), labels


def test_a_test_pair_is_two_moved_digits_added_and_clipped():
    digits, labels = singles(1)
    _, (images, pair_labels) = multimnist.of_digits(NOWHERE)
    first, second, by = multimnist.recipe(labels, "test", 10)
    limits = []
    assert images.dtype == np.uint8
    assert images.shape == (3600, 24, 24)
    for i in range(0, 3600, 97):
        one, other = moved(digits[first[i]], *by[i, 0]), moved(digits[second[i]], *by[i, 1])
        assert np.array_equal(images[i], np.minimum(one.astype(int) + other, 255))
        limits.append(((images[i] == 255).sum(), ((one == 255) | (other == 255)).sum()))
        assert pair_labels[i].tolist() == [labels[first[i]], labels[second[i]]]
    assert any(together > alone for together, alone in limits), "somewhere two strokes together reach the limit"


def test_test_pairs_are_of_different_classes_and_ten_of_each_digit():
    _, labels = singles(1)
    first, second, by = multimnist.recipe(labels, "test", 10)
    assert (labels[first] != labels[second]).all()
    assert np.bincount(first).tolist() == [10] * 360
    assert sorted(np.unique(by)) == list(range(-4, 5)), "by up to 4 pixels, both included, and no further"
    assert all(len(np.unique(by[:, i, j])) == 9 for i in range(2) for j in range(2))


def test_fixed_pairs_are_the_same_every_time_and_others_for_validation():
    labels = np.arange(50) % 10
    again = [multimnist.recipe(labels, "test") for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*again, strict=True))
    # what torch's generator gives: other numbers would be another test set, or other validation images
    assert again[0][1][:8].tolist() == [13, 2, 41, 34, 21, 22, 41, 3]
    assert multimnist.recipe(labels, "validation")[1][:8].tolist() == [8, 45, 13, 34, 19, 20, 48, 48]


def test_a_partner_is_drawn_evenly_from_the_digits_of_other_classes():
    labels = torch.tensor([0, 1, 2, 2, 1, 2])
    draws = 30_000
    for i, own in enumerate(labels.tolist()):
        found = multimnist.partners(labels, torch.full((draws,), i), torch.Generator().manual_seed(i))
        counts = found.bincount(minlength=len(labels))
        assert not counts[labels == own].any()
        expected = draws / (labels != own).sum().item()
        deviation = (counts[labels != own] - expected) / expected**0.5
        assert deviation.abs().max() < 4.5


def test_pairs_of_one_class_are_refused():
    with pytest.raises(ValueError, match="two classes"):
        multimnist.partners(torch.zeros(4, dtype=torch.int64), torch.arange(4), torch.Generator())


def test_training_lays_each_digit_once_over_another_anew_in_each_epoch(pairs, tiny):
    config, data = pairs
    assert data.training.labels.ndim == 1
    generators = TrainingState(config, CPU).generators
    epochs = [draw(data.training, 2, config.augment, False, generators) for _ in range(2)]
    for draws in epochs:
        assert draws.order[:, 0].sort().values.tolist() == list(range(96))
        first, second = data.training.labels[draws.order].unbind(dim=1)
        assert (first != second).all()
    order = [draws.order[draws.order[:, 0].argsort(), 1] for draws in epochs]
    assert (order[0] != order[1]).float().mean() > 0.9, "the partners of the second epoch are others"
    again = TrainingState(config, CPU).generators
    other = again | {"pairing": TrainingState(tiny(**PAIRS, seed=1), CPU).generators["pairing"]}
    found = draw(data.training, 2, config.augment, False, other).order
    assert torch.equal(found[:, 0], epochs[0].order[:, 0])
    assert not torch.equal(found[:, 1], epochs[0].order[:, 1]), "partners are the seed's own"


def test_a_training_batch_is_what_the_draws_say(pairs):
    config, data = pairs
    draws = draw(data.training, 2, config.augment, False, TrainingState(config, CPU).generators).at(slice(0, 20))
    batch = composed(data.training, draws, config.augment)
    digits = data.training.images[:, 0].numpy()
    assert set(np.unique(draws.drawn)) == set(range(-4, 5))
    for i, (which, by) in enumerate(zip(draws.order.tolist(), draws.drawn.tolist(), strict=True)):
        parts = [moved(digits[w], *b) for w, b in zip(which, by, strict=True)]
        assert torch.equal((batch.digits[i, :, 0] * 255).round().byte(), torch.from_numpy(np.stack(parts)))
        expected = np.minimum(parts[0].astype(int) + parts[1], 255)
        assert np.abs(batch.images[i, 0].numpy() * 255 - expected).max() < 1e-3
        assert batch.labels[i].tolist() == data.training.labels[which].tolist()


def test_an_answer_is_right_if_both_digits_are_found_in_any_order():
    scores = torch.tensor([[0.1, 0.9, 0.8, 0.0], [0.1, 0.9, 0.8, 0.0], [0.1, 0.9, 0.8, 0.0], [0.5, 0.5, 0.5, 0.5]])
    answers = answered(scores, 2)
    assert answers.tolist() == [[1, 2], [1, 2], [1, 2], [0, 1]], "the two largest, of equal ones the first"
    labels = torch.tensor([[2, 1], [1, 2], [1, 3], [1, 0]])
    assert wrong(answers, labels).tolist() == [False, False, True, False], "one of two is wrong: no half credit"


def test_answers_are_the_two_largest_scores():
    scores = torch.rand(500, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(answered(scores, 2), scores.topk(2).indices.sort(dim=1).values)
    assert torch.equal(answered(scores), scores.argmax(dim=1))


def test_the_margin_loss_of_two_labels_has_two_present_classes():
    random = np.random.default_rng(0)
    lengths, labels = random.random((7, 10)), np.stack([random.permutation(10)[:2] for _ in range(7)])
    expected = 0.0
    for length, present in zip(lengths, labels, strict=True):
        for k in range(10):
            t = k in present
            expected += t * max(0, 0.9 - length[k]) ** 2 + 0.5 * (1 - t) * max(0, length[k] - 0.1) ** 2
    found = losses.margin(torch.tensor(lengths), torch.tensor(labels))
    assert found.item() == pytest.approx(expected / 7, rel=1e-12)


def test_the_decoder_runs_once_per_digit_against_that_digits_own_image(pairs):
    config, data = pairs
    state = TrainingState(config, CPU)
    draws = draw(data.training, 2, config.augment, False, state.generators).at(slice(0, 16))
    batch = composed(data.training, draws, config.augment)
    model = state.model
    with torch.no_grad():  # so that the two capsules make different images
        model.capsules.weight *= 200
        for weight in model.decoder.parameters():
            weight.mul_(16)
    _, sums = step_losses(model, 1.0, batch.images, batch.labels, config.objective, digits=batch.digits)
    capsules = model.encode(batch.images)
    expected = crossed = 0.0
    for i in range(16):
        for j in range(2):
            made = model.reconstruct(capsules[i : i + 1], batch.labels[i : i + 1, j])
            expected += (made[0] - batch.digits[i, j]).square().sum().item()
            crossed += (made[0] - batch.digits[i, 1 - j]).square().sum().item()
    assert abs(crossed / expected - 1) > 1e-3, "it matters which capsule is decoded against which digit"
    assert sums[2].item() == pytest.approx(expected, rel=1e-5)
    assert sums[0].item() == pytest.approx(sums[1].item() + expected, rel=1e-5)
    found = model.scores(batch.images).topk(2).indices.tolist()
    assert sums[3].item() == sum(set(a) != set(b) for a, b in zip(found, batch.labels.tolist(), strict=True))


def test_a_network_learns_to_see_two_digits(tiny, data_of):
    """One in 45 is right by chance."""
    config = tiny(**PAIRS | {"train_size": 1000}, conv_channels=32, primary_types=4, epochs=8, batch_size=25)
    history = list(train(TrainingState(config, CPU), data_of(config)))
    assert history[0].train_error > 95
    assert history[-1].train_error < 90
    assert history[-1].right_length > history[0].right_length


def test_a_resumed_run_draws_the_same_partners(tiny, data_of, tmp_path):
    config = tiny(**PAIRS, epochs=3)
    data = data_of(config)
    straight = TrainingState(config, CPU)
    list(train(straight, data))
    first = TrainingState(config, CPU)
    next(train(first, data))
    first.save(tmp_path / "a.safetensors")
    second = TrainingState.load(tmp_path / "a.safetensors", CPU)
    list(train(second, data))
    for (name, expected), found in zip(straight.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name


def test_a_run_without_validation_is_looked_at_with_pairs(tiny, data_of):
    config = tiny(**PAIRS | {"validation_size": 0})
    data = data_of(config)
    sample = data.sample(20)
    assert sample.labels.shape == (20, 2)
    assert sample.images.shape == (20, 1, 24, 24)
    assert sample.images.float().mean() > 1.5 * data.training.images[:20].float().mean()
    metrics = next(train(TrainingState(config, CPU), data))
    assert metrics.coupling_entropy is not None


def test_validation_pairs_are_of_held_out_digits(pairs, tiny, data_of):
    _, data = pairs
    assert data.validation.labels.shape == (60, 2)
    alone = data_of(tiny(train_size=96))
    assert torch.equal(data.validation.labels[:, 0], alone.validation.labels)
    digits = np.pad(alone.validation.images[:, 0].numpy(), ((0, 0), (4, 4), (4, 4)))
    images, _ = multimnist.fixed_pairs(digits, alone.validation.labels.numpy(), "validation")
    assert torch.equal(data.validation.images[:, 0], torch.from_numpy(images))


def test_multimnist_has_the_digits_of_mnist(monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (60, 28, 28), dtype=np.uint8), np.arange(60) % 10
    monkeypatch.setattr("capsnet.multimnist.whole", lambda name, folder: ((images, labels), (images[:20], labels[:20]), name))
    (training, training_labels), (test, test_labels) = multimnist.of_mnist(tmp_path)
    assert training.shape == (60, 36, 36)
    assert np.array_equal(training[:, 4:32, 4:32], images)
    assert not training[:, :4].any()
    assert np.array_equal(training_labels, labels)
    assert test.shape == (200, 36, 36)
    assert test_labels.shape == (200, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss": "cross_entropy"}, "loss cross_entropy knows one right class, and the images of multimnist have two"),
        ({"loss": "spread"}, "choices: margin, sigmoid_cross_entropy"),
        ({"mask": "prediction"}, "mask prediction doesn't say which of the two digits"),
        ({"mask": "none"}, "it must be label"),
        (
            {"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0.0},
            "choices: sigmoid_cross_entropy (in",  # a margin would be refused in its turn: of logits
        ),
        ({"model": "cnn", "reconstruction_weight": 0.0}, "choices: sigmoid_cross_entropy (in"),
        ({"validation_size": 1}, "validation_size 1 holds out a single digit, and an image of multimnist has two"),
        ({"train_size": 1, "validation_size": 0}, "train_size 1 is a single digit, and an image of multimnist has two"),
        ({"train_size": 1}, "it must be 0, or 2 or more"),
        ({"validation_size": 59_999}, "validation_size 59999 leaves a single digit to train on"),
        ({"validation_size": 59_999}, "it must be at most 59998"),
    ],
)
def test_what_two_labels_do_not_go_with_is_refused(values, said):
    with pytest.raises(InputError, match=r"g\.yaml") as refused:
        make_config({"dataset": "multimnist", **values}, "g.yaml")
    assert said in str(refused.value)


@pytest.mark.parametrize("sizes", [{"train_size": 2, "validation_size": 0}, {"train_size": 2, "validation_size": 2}])
def test_two_digits_are_enough_for_a_pair(tiny, cpu, data_of, sizes):
    config = tiny(**{**PAIRS, **sizes, "batch_size": 2, "epochs": 1})
    assert len(list(train(TrainingState(config, cpu), data_of(config)))) == 1


def test_two_digits_that_follow_each_other_are_of_two_classes():
    """So that no part of a data set can be of one class, wherever it begins."""
    mnist = np.repeat(np.arange(10), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    for labels in (mnist, whole("digits", NOWHERE)[0][1]):
        ordered = labels[stratified_order(labels)]
        assert (ordered[1:] != ordered[:-1]).all()


def test_the_papers_network_on_multimnist_has_its_parameters():
    """11.36 million on 36 x 36, with the bias of the authors' code (paper, section 6)."""
    config = RunConfig(dataset="multimnist", capsule_bias=True)
    assert sum(p.numel() for p in TrainingState(config, CPU).model.parameters()) == 11_361_968


def test_the_shift_of_each_digit_is_its_own():
    images = torch.zeros(1, 1, 24, 24, dtype=torch.uint8)
    images[0, 0, 12, 12] = 255
    split = Split(images.repeat(2, 1, 1, 1), torch.tensor([0, 1]))
    generators = {
        name: torch.Generator().manual_seed(i) for i, name in enumerate(("shuffling", "augmentation", "pairing", "dropout"))
    }
    places = set()
    for _ in range(1000):
        batch = composed(split, draw(split, 2, shift(pixels=4), False, generators), shift(pixels=4))
        places |= {tuple(torch.nonzero(batch.digits[0, j, 0])[0].tolist()) for j in range(2)}
    assert places == {(row, column) for row in range(8, 17) for column in range(8, 17)}
