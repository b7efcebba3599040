"""Training: the numbers it yields, against the same numbers computed another way."""

import dataclasses
import gc
import math
import os
from pathlib import Path

import pytest
import torch

import capsnet.schedules
from capsnet import training
from capsnet.augmentation import AUGMENTATIONS, Augmentation
from capsnet.config import RunConfig
from capsnet.data import Split
from capsnet.diagnostics import diagnose
from capsnet.errors import InputError
from capsnet.models import Network
from capsnet.objectives import LOSSES
from capsnet.routing import uniform
from capsnet.state import TrainingState, stream
from capsnet.step import step_losses
from capsnet.training import DivergedError, Step, choose_device, errors_at, evaluate, train


@pytest.fixture
def run(cpu, data_of):
    """(config, train's arguments) -> a state trained to its end."""

    def finish(config, **arguments):
        state = TrainingState(config, cpu)
        list(train(state, data_of(config), **arguments))
        return state

    return finish


def weights(state):
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


def loss_by_hand(model, images, labels):
    """The paper's two losses, image by image: margin, reconstruction, and whether the answer is wrong."""
    rows = []
    for image, label in zip(images, labels.tolist(), strict=True):
        capsules = model.encode(image[None])[0].double()
        lengths = capsules.square().sum(dim=1).sqrt()
        margin = sum(
            max(0, 0.9 - lengths[k]) ** 2 if k == label else 0.5 * max(0, lengths[k] - 0.1) ** 2 for k in range(len(lengths))
        )
        made = model.reconstruct(model.encode(image[None]), torch.tensor([label]))[0]
        rows.append([float(margin), ((made - image) ** 2).double().sum().item(), float(lengths.argmax() != label)])
    return torch.tensor(rows).double().mean(dim=0).tolist()


def test_an_epochs_metrics_are_means_over_its_images(tiny, cpu, data_of):
    """In an epoch whose rate moves nothing they are those of its weights over all 100 images, of which 4 are in the last
    batch: an average of the batches' averages would differ. The decoder is told the true class."""
    schedule = "step(gamma=1e-15, every=16)"  # moves in the first four epochs of 4 steps
    config = tiny(epochs=5, lr_schedule=schedule, learning_rate=0.02, augmentation="none", reconstruction_weight=0.01)
    data, state = data_of(config), TrainingState(config, cpu)
    batches = []
    *_, metrics = train(state, data, log_interval=1, on_step=batches.append)
    with torch.no_grad():
        margin, reconstruction, wrong = loss_by_hand(state.model, data.training.batch(slice(None)), data.training.labels)
    assert metrics.train_margin_loss == pytest.approx(margin, rel=1e-5)
    assert metrics.train_reconstruction_loss == pytest.approx(reconstruction, rel=1e-5)
    assert metrics.train_loss == pytest.approx(margin + 0.01 * reconstruction, rel=1e-5)
    assert metrics.train_error == pytest.approx(100 * wrong)
    assert 0 < wrong < 1
    assert sum(step.loss for step in batches[-4:]) / 4 != pytest.approx(metrics.train_loss, rel=1e-3), "batches differ"


@pytest.mark.parametrize("weight", [6.4e-6, 5e-4, 1e-2])
def test_loss_parts_add_up(tiny, run, weight):
    for metrics in run(tiny(reconstruction_weight=weight)).history:
        expected = metrics.train_margin_loss + weight * metrics.train_reconstruction_loss
        assert metrics.train_loss == pytest.approx(expected, rel=1e-6)


def test_without_reconstruction_its_loss_is_absent_and_not_0(tiny, run):
    state = run(tiny(reconstruction_weight=0.0))
    assert state.model.decoder is None
    for metrics in state.history:
        assert metrics.train_reconstruction_loss is None
        assert metrics.train_loss == metrics.train_margin_loss


def test_one_config_gives_the_same_bits_twice_whatever_the_global_seed(tiny, run):
    torch.manual_seed(1)
    first = run(tiny())
    torch.manual_seed(2)
    second = run(tiny())
    assert torch.equal(weights(first), weights(second))
    assert [m.train_loss for m in first.history] == [m.train_loss for m in second.history]


def test_another_seed_gives_another_run_in_each_of_its_streams(tiny, cpu):
    one, other = (TrainingState(tiny(seed=seed), cpu) for seed in (0, 1))
    assert not torch.equal(weights(one), weights(other))
    for name in ("shuffling", "augmentation"):
        assert not torch.equal(
            torch.randperm(100, generator=one.generators[name]), torch.randperm(100, generator=other.generators[name])
        )


CHANGES = [
    {"seed": 1},
    {"augmentation": "none"},
    {"augmentation": "shift(pixels=2)"},
    {"train_size": 101},
    {"conv_channels": 9},
    {"routing_iterations": 2},
    {"routing_iterations": 1},
    {"capsule_bias": True},
    {"hidden_capsules": (12,)},
    {"reconstruction_weight": 1e-2},
    {"batch_size": 31},
    {"learning_rate": 2e-3},
    {"lr_schedule": "constant"},
    {"decoder_hidden": (15,)},
    {"mask": "prediction"},
    {"mask": "none"},
    {"precision": "bf16"},
    {"adam_epsilon": 1e-3},
    {"weight_decay": 0.1},
    {"primary_coupling": True},
    {"votes_std": 0.3},
    {"gradient_clip": 0.01},
    {"validation_size": 59},
    {"model": "cnn_matched"},
    {"conv_kernel": 4},
    {"primary_types": 3},
    {"primary_dim": 3},
    {"primary_kernel": 4},
    {"primary_stride": 1},
    {"class_dim": 5},
    {"squash": "half"},
    {"routing": "em"},
    {"none_of_the_above": True},
    {"routing_gradient": "detached"},
    {"loss": "cross_entropy"},
]
ELSEWHERE = {  # fields that do not change the loss of an epoch of these digits -> what shows what they do
    "dataset": "tests/capsnet/test_datasets.py::test_a_network_learns_from_patches",
    "dropout": "tests/capsnet/test_baselines.py::test_steps_drop_units_and_another_share_gives_another_run",
    "epochs": "tests/capsnet/test_training.py::test_every_epoch_sees_every_image_once_in_another_order",
    "stop_at_error": "tests/experiments/test_stopping.py::test_a_run_ends_after_the_first_epoch_that_is_good_enough",
    "test_batch_size": "tests/capsnet/test_training.py::test_test_batch_size_changes_no_number",
    "test_routing_iterations": "tests/capsnet/test_training.py::test_a_trained_network_is_tested_at_another_r",
    "test_sets": "tests/experiments/test_stopping.py::test_further_test_sets_are_tested_once_and_logged_with_their_digests",
}


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_no_flag_is_read_and_ignored(tiny, run, changes):
    """Each of these changes the loss; routing's passes differ when the capsules have grown a little."""
    losses = [run(tiny(**{"epochs": 3, "learning_rate": 0.02, **c})).history[2].train_loss for c in ({}, changes)]
    assert losses[0] != losses[1]


def test_every_field_is_shown_to_do_something():
    assert {name for change in CHANGES for name in change} | ELSEWHERE.keys() == RunConfig.model_fields.keys()
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"\ndef {test}(" in (Path(__file__).parents[2] / file).read_text()


def test_test_batch_size_changes_no_number(tiny, run):
    first, second = (run(tiny(test_batch_size=size)) for size in (1000, 7))
    assert torch.equal(weights(first), weights(second))
    assert [m.validation_error for m in first.history] == [m.validation_error for m in second.history]


def test_every_epoch_sees_every_image_once_in_another_order(tiny, cpu, data_of):
    seen = []

    class Spy(Split):
        def batch(self, index):
            seen.append(index)
            return super().batch(index)

    config = tiny()
    data = data_of(config)
    data = dataclasses.replace(data, training=Spy(data.training.images, data.training.labels))
    list(train(TrainingState(config, cpu), data))
    assert [len(index) for index in seen] == [32, 32, 32, 4] * 2
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(100))
    assert not torch.equal(first, second)


def test_the_learning_rate_follows_the_schedule_from_the_first_step(tiny, cpu, data_of):
    config = tiny(lr_schedule="one_cycle(start=0.1, warmup=2)", epochs=3)
    state = TrainingState(config, cpu)
    step, rates, moves = state.optimizer.step, [], []

    def spy():
        before = weights(state)
        rates.append(state.optimizer.param_groups[0]["lr"])
        step()
        moves.append((weights(state) - before).abs().max().item())

    state.optimizer.step = spy
    history = list(train(state, data_of(config)))
    expected = [config.learning_rate * config.schedule(i, 12, ()) for i in range(12)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert moves[0] == pytest.approx(config.learning_rate * 0.1 / 3, rel=0.01), "Adam's first step is as long as the rate"
    assert [m.learning_rate for m in history] == pytest.approx([expected[3], expected[7], expected[11]])


def test_the_schedule_sees_the_validation_errors_of_finished_epochs_only(tiny, run, monkeypatch):
    calls = []

    def spy(*, warmup: int = 0):
        def schedule(step, total, errors):
            calls.append((step, total, list(errors)))
            return 1.0

        return schedule

    monkeypatch.setitem(capsnet.schedules.SCHEDULES, "spy", spy)
    state = run(tiny(lr_schedule="spy", epochs=3))
    errors = [m.validation_error for m in state.history]
    assert calls == [(i, 12, errors[: i // 4]) for i in range(12)]


def test_plateau_lowers_the_rate_of_a_run_that_learns_nothing(tiny, run):
    """The error stays the same: with patience 1 the rate falls after epochs 3 and 5."""
    state = run(tiny(lr_schedule="plateau(factor=0.5, patience=1)", learning_rate=1e-20, epochs=6))
    assert len({m.validation_error for m in state.history}) == 1
    assert [m.learning_rate / 1e-20 for m in state.history] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


def test_training_images_are_augmented_and_no_others(tiny, cpu, data_of, monkeypatch):
    """The images of a step are shifted; those of evaluation are as they are stored."""
    config = tiny(augmentation="shift(pixels=2)", epochs=1)
    data = data_of(config)
    state = TrainingState(config, cpu)
    seen, encode = [], state.model.encode
    monkeypatch.setattr(state.model, "encode", lambda images, noise=None: (seen.append(images), encode(images))[1])
    list(train(state, data))
    stored = {image.numpy().tobytes() for image in data.training.batch(slice(None))}
    moved = [image.numpy().tobytes() not in stored for images in seen[:4] for image in images]
    assert len(moved) == 100
    assert sum(moved) > 80, "24 of 25 shifts move an image"
    assert torch.equal(torch.cat(seen[4:]), data.validation.batch(slice(None)))


@pytest.mark.parametrize("validation", [0, 60])
def test_training_sees_patches_and_all_else_the_middle_one(tiny, cpu, data_of, monkeypatch, validation):
    """Diagnosis too, which looks at training images where there is no validation; reconstructed is what was seen."""
    config = tiny(augmentation="crop(size=12)", conv_kernel=3, epochs=1, validation_size=validation)
    data = data_of(config)
    state = TrainingState(config, cpu)
    seen, encode = [], state.model.encode
    monkeypatch.setattr(state.model, "encode", lambda images, *noise: (seen.append(images), encode(images, *noise))[1])
    looked_at, diagnose = [], training.diagnose
    monkeypatch.setattr(training, "diagnose", lambda model, split: (looked_at.append(split), diagnose(model, split))[1])
    [metrics] = train(state, data)
    whole = {image[:, i : i + 12, j : j + 12].numpy().tobytes(): (i, j) for image in data.training.batch(slice(None))
             for i in range(5) for j in range(5)}  # fmt: skip
    places = [whole[image.numpy().tobytes()] for images in seen[:4] for image in images]
    assert len(places) == 100
    assert len(set(places)) > 15, "of 25 places"
    assert metrics.train_reconstruction_loss > 0
    [split] = looked_at
    middle = data.validation.images if validation else data.training.images[:, :, 2:14, 2:14]
    assert torch.equal(split.images, middle[:100])
    assert evaluate(state.model, data.test, 100).scores.shape == (360, 10)


@pytest.mark.parametrize("mask", ["label", "prediction", "none"])
def test_the_decoder_is_fed_what_the_mask_leaves(tiny, cpu, data_of, mask):
    """In training; what the classes are is told to the one that reconstructs at test, and no matter if all are decoded."""
    config = tiny(mask=mask)
    data, model = data_of(config), TrainingState(config, cpu).model
    images, labels = data.training.batch(slice(0, 20)), data.training.labels[:20]
    with torch.no_grad():  # so that one capsule's image is another than the next one's
        model.capsules.weight *= 200
        for weight in model.decoder.parameters():
            weight.mul_(8)
    capsules = model.encode(images)
    longest = capsules.norm(dim=2).argmax(dim=1)
    assert (longest != labels).sum() > 5
    kept = {"label": torch.eye(10)[labels], "prediction": torch.eye(10)[longest], "none": torch.ones(20, 10)}
    images_of = {
        name: model.decoder.layers((capsules * k[:, :, None]).flatten(1)).view(images.shape) for name, k in kept.items()
    }
    expected = {name: (made - images).square().sum().item() for name, made in images_of.items()}
    assert min(abs(expected[mask] / other - 1) for name, other in expected.items() if name != mask) > 1e-3
    made = images_of[mask]
    _, sums = step_losses(model, 1.0, images, labels)
    assert sums[2].item() == pytest.approx(expected[mask], rel=1e-5)
    told = model.reconstruct(capsules, longest)
    other = model.reconstruct(capsules, (longest + 1) % 10)
    assert torch.equal(told, other) is (mask == "none")
    if mask != "label":
        torch.testing.assert_close(told, made)


def test_the_reconstruction_is_compared_with_the_shifted_image(tiny, cpu, data_of, monkeypatch):
    config = tiny(augmentation="shift(pixels=2)", epochs=1)
    state = TrainingState(config, cpu)
    inputs, targets = [], []
    encode, reconstruction = state.model.encode, capsnet.losses.reconstruction
    monkeypatch.setattr(state.model, "encode", lambda images, noise=None: (inputs.append(images), encode(images))[1])
    monkeypatch.setattr(
        capsnet.losses, "reconstruction", lambda images, made: (targets.append(images), reconstruction(images, made))[1]
    )
    list(train(state, data_of(config)))
    assert len(targets) == 4
    assert all(torch.equal(a, b) for a, b in zip(inputs, targets, strict=False))


def test_the_validation_error_is_that_of_the_weights_after_the_epoch(tiny, cpu, data_of):
    config = tiny()
    data, state = data_of(config), TrainingState(config, cpu)
    for metrics in train(state, data):
        scores = state.model.scores(data.validation.images.float() / 255)
        wrong = (scores.argmax(dim=1) != data.validation.labels).sum().item()
        assert metrics.validation_error == pytest.approx(100 * wrong / 60)


@pytest.mark.parametrize("fields", [{"routing": "dynamic"}, {"routing": "em"}, {"hidden_capsules": (12, 11)}], ids=str)
def test_a_trained_network_is_tested_at_another_r(tiny, cpu, data_of, fields):
    """As a network of that r with its weights; and it has its own r again, in all of its layers."""
    config = tiny(**fields, routing_iterations=2)
    data, state = data_of(config), TrainingState(config, cpu)
    with torch.no_grad():
        for layer in state.model.layers:
            layer.weight *= 30  # the passes have to differ
    found = errors_at(state.model, data.test, 50, (1, 5))
    assert list(found) == [1, 5]
    for r, error in found.items():
        other = TrainingState(tiny(**fields, routing_iterations=r), cpu).model
        other.load_state_dict(state.model.state_dict())
        assert error == evaluate(other, data.test, 50).error
    assert found[1] != found[5]
    assert {layer.iterations for layer in state.model.layers} == {2}


def test_train_does_not_touch_the_test_set(tiny, cpu, data_of):
    """Not even its length: it is an empty shell here."""
    config = tiny()
    state = TrainingState(config, cpu)
    data = dataclasses.replace(data_of(config), test=object.__new__(Split))
    with pytest.raises(AttributeError):
        len(data.test)
    assert len(list(train(state, data))) == 2


def test_without_validation_images_there_is_no_validation_error(tiny, run):
    assert [m.validation_error for m in run(tiny(validation_size=0)).history] == [None, None]


def test_metrics_are_yielded_as_epochs_end_and_kept_as_history(tiny, cpu, data_of):
    config = tiny(epochs=3)
    state = TrainingState(config, cpu)
    lengths = []
    for metrics in train(state, data_of(config)):
        assert state.history[-1] is metrics
        lengths.append((metrics.epoch, len(state.history), state.finished))
        assert metrics.images_per_second == pytest.approx(100 / metrics.seconds)
    assert lengths == [(1, 1, False), (2, 2, False), (3, 3, True)]
    assert sorted(m.time for m in state.history) == [m.time for m in state.history]
    assert 1_600_000_000_000 < state.history[0].time < 10_000_000_000_000, "milliseconds"


def test_reports_between_epochs(tiny, run):
    steps = []
    quiet, told = run(tiny()), run(tiny(), log_interval=2, on_step=steps.append)
    assert [(s.epoch, s.step, s.steps) for s in steps] == [(1, 2, 4), (1, 4, 4), (2, 2, 4), (2, 4, 4)]
    assert torch.equal(weights(quiet), weights(told)), "looking changes nothing"
    never = []
    run(tiny(), log_interval=0, on_step=never.append)
    assert never == []
    each = []
    state = run(tiny(epochs=1), log_interval=1, on_step=each.append)
    sizes = [32, 32, 32, 4]
    mean = sum(s.loss * n for s, n in zip(each, sizes, strict=True)) / 100
    assert state.history[0].train_loss == pytest.approx(mean, rel=1e-6)
    assert isinstance(each[0], Step)


def test_a_loss_that_is_no_number_ends_the_run(tiny, cpu, data_of):
    state = TrainingState(tiny(learning_rate=1e30, lr_schedule="constant"), cpu)
    with pytest.raises(DivergedError, match="the training loss of epoch 1 is nan"):
        list(train(state, data_of(state.config)))
    assert state.history == [], "no row of NaN"
    assert not isinstance(DivergedError(), InputError | ValueError), "not a wrong input: recorded as failed"


@pytest.mark.parametrize("validation_size", [60, 0])
def test_a_last_step_that_went_astray_is_found_out(tiny, cpu, data_of, validation_size):
    # one step in all: its loss is that of the first weights, and no later loss sees what it did to them
    config = tiny(learning_rate=1e30, lr_schedule="constant", train_size=32, epochs=1, validation_size=validation_size)
    state, data = TrainingState(config, cpu), data_of(config)

    def whole_run():
        return list(train(state, data)), evaluate(state.model, data.test, 100)

    with pytest.raises(DivergedError, match="scores are not finite"):
        whole_run()


@pytest.mark.parametrize("drawn_where", ["draw", "apply"])
def test_random_numbers_that_no_checkpoint_holds_are_refused(tiny, cpu, data_of, monkeypatch, drawn_where):
    def noise() -> Augmentation:
        def draw(count, generator):
            return torch.randint(2**31, (count, 1), generator=generator)

        def apply(images, drawn):
            return images + (torch.randn_like(images) if drawn_where == "apply" else drawn[:, :, None, None] / 2**40)

        return Augmentation(draw, apply)

    name = f"noise_in_{drawn_where}"  # texts are parsed once
    monkeypatch.setitem(AUGMENTATIONS, name, noise)
    state = TrainingState(tiny(augmentation=name, epochs=1), cpu)
    if drawn_where == "draw":
        assert len(list(train(state, data_of(state.config)))) == 1
        return
    with pytest.raises(InputError, match=r"drew random numbers from PyTorch's own generator.* in its draw"):
        list(train(state, data_of(state.config)))
    assert state.history == []


@pytest.mark.parametrize("changes", [{"routing_iterations": 3}, {"routing_iterations": 1, "routing": "uniform"}], ids=str)
def test_the_network_learns(tiny, cpu, data_of, changes):
    """600 digits, 5 epochs, a second: a guess is wrong in 90 % of the cases."""
    sizes = {"conv_channels": 16, "primary_types": 4, "primary_dim": 8, "class_dim": 8, "decoder_hidden": (64,)}
    config = tiny(train_size=600, validation_size=200, epochs=5, learning_rate=0.01, **sizes, **changes)
    data, state = data_of(config), TrainingState(config, cpu)
    first, *_, last = train(state, data)
    assert last.train_loss < first.train_loss / 3
    assert evaluate(state.model, data.test, 1000).error < 12
    assert last.validation_error < 12
    with torch.no_grad():
        made = state.model.reconstruct(state.model.encode(data.test.batch(slice(0, 100))), data.test.labels[:100])
    blank = data.test.batch(slice(0, 100))
    assert (made - blank).square().mean() < 0.8 * (blank.mean(dim=0) - blank).square().mean(), "better than the mean image"


@pytest.fixture
def learned(tiny, run):
    return run(tiny(epochs=3))


def test_evaluation_does_not_depend_on_the_batch_size(learned, data_of):
    test = data_of(learned.config).test
    test = Split(test.images[:100], test.labels[:100])
    whole = evaluate(learned.model, test, 100)
    for size in (1, 7, 1000):
        parts = evaluate(learned.model, test, size)
        torch.testing.assert_close(parts.scores, whole.scores, rtol=1e-4, atol=1e-6)
        assert torch.equal(parts.predictions, whole.predictions)
        assert parts.error == whole.error


def test_evaluation_gives_error_predictions_and_scores_of_each_image(learned, data_of):
    test = data_of(learned.config).test
    result = evaluate(learned.model, test, 100)
    assert result.scores.shape == (360, 10)
    assert torch.equal(result.predictions, result.scores.argmax(dim=1))
    wrong = sum(int(p) != int(y) for p, y in zip(result.predictions, test.labels, strict=True))
    assert 0 < wrong < 360
    assert result.error == pytest.approx(100 * wrong / 360)
    assert not result.scores.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(result.scores, learned.model.scores(test.batch(slice(None))))


def test_evaluation_keeps_nothing_of_a_batch_but_its_place_in_one_tensor(learned, data_of, monkeypatch):
    there = []
    own = learned.model.scores

    def counted(images):
        there.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
        return own(images)

    monkeypatch.setattr(learned.model, "scores", counted)
    evaluate(learned.model, data_of(learned.config).test, 20)
    assert len(there) == 18
    assert len(set(there[1:])) == 1, "what stays of each batch takes the room of the next one's activations"


def test_evaluation_leaves_no_trace(learned, data_of):
    before = {name: tensor.clone() for name, tensor in learned._tensors().items()}
    evaluate(learned.model, data_of(learned.config).test, 100)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learned._tensors().items())


def test_the_process_is_left_as_it_was(tiny, run):
    def now():
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    for setting in ((False, False), (True, False), (True, True)):
        torch.use_deterministic_algorithms(setting[0], warn_only=setting[1])
        try:
            run(tiny(epochs=1))
            assert now() == setting
            with pytest.raises(DivergedError):
                run(tiny(learning_rate=1e30))
            assert now() == setting
        finally:
            torch.use_deterministic_algorithms(False)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_training_runs_with_deterministic_algorithms(tiny, cpu, data_of):
    state = TrainingState(tiny(epochs=1), cpu)
    settings = []
    run = train(
        state,
        data_of(state.config),
        log_interval=1,
        on_step=lambda _: settings.append(torch.are_deterministic_algorithms_enabled()),
    )
    settings.extend(torch.are_deterministic_algorithms_enabled() for _ in run)
    assert settings == [True] * 4 + [False], "and not between epochs, where the caller's code runs"


def test_a_test_runs_with_deterministic_algorithms(tiny, cpu, data_of, monkeypatch):
    """Outside of training, too, where the last evaluation is made."""
    model, scores, settings = TrainingState(tiny(), cpu).model, Network.scores, []

    def watched(self, images):
        settings.append(torch.are_deterministic_algorithms_enabled())
        return scores(self, images)

    monkeypatch.setattr(Network, "scores", watched)
    evaluate(model, data_of(tiny()).test, 500)
    assert settings
    assert all(settings)
    assert not torch.are_deterministic_algorithms_enabled()


def test_choose_device():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cpu:0", "cuda:", "cuda:x", "CPU", "meta", "cuda 0"])
def test_an_unknown_device_is_refused_with_the_choices(name):
    with pytest.raises(InputError, match=r"unknown device .*; choices: auto, cpu, cuda, cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("number", [99, 127, 128, 255, 256, 999, 10**20])
def test_a_device_that_is_not_there_is_refused(number):
    with pytest.raises(InputError, match=f"no device 'cuda:{number}': torch sees . CUDA devices"):
        choose_device(f"cuda:{number}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(InputError, match="no device 'cuda': torch sees 0 CUDA devices; choices: auto, cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    "changes", [{}, {"adam_epsilon": 1e-2}, {"weight_decay": 0.3}, {"gradient_clip": 1e-3}, {"gradient_clip": 1e3}], ids=str
)
def test_a_step_is_adams_in_float64(tiny, data_of, cpu, changes):
    """Kingma and Ba 2015, algorithm 1, at its first step; weight decay is added to the gradient after that was clipped."""
    config = tiny(train_size=32, epochs=1, augmentation="none", lr_schedule="constant", **changes)
    state = TrainingState(config, cpu)
    data = data_of(config)
    order = torch.randperm(32, generator=stream(0, "shuffling"))
    loss, _ = step_losses(state.model, config.reconstruction_weight, data.training.batch(order), data.training.labels[order])
    gradients = [g.double() for g in torch.autograd.grad(loss, list(state.model.parameters()))]
    before = [p.detach().double() for p in state.model.parameters()]
    norm = torch.cat([g.flatten() for g in gradients]).norm().item()
    (metrics,) = train(state, data)
    assert metrics.gradient_norm == pytest.approx(norm, rel=1e-5)
    scale = min(1.0, config.gradient_clip / norm) if config.gradient_clip else 1.0
    for was, gradient, parameter in zip(before, gradients, state.model.parameters(), strict=True):
        whole = gradient * scale + config.weight_decay * was
        first, second = 0.1 * whole / (1 - 0.9), 0.001 * whole**2 / (1 - 0.999)
        wanted = was - config.learning_rate * first / (second.sqrt() + config.adam_epsilon)
        moved = whole.abs() > 1e-4 * whole.abs().max()  # where rounding does not decide which way a weight moves
        torch.testing.assert_close(parameter.detach().double()[moved], wanted[moved], rtol=1e-4, atol=1e-6)


def test_the_norm_of_the_gradient_is_its_mean_over_the_steps(tiny, data_of, cpu, monkeypatch):
    state = TrainingState(tiny(epochs=1), cpu)
    norms = []
    plain = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda g: norms.append(plain(g)) or norms[-1])
    (metrics,) = train(state, data_of(state.config))
    assert len(norms) == 4
    assert metrics.gradient_norm == pytest.approx(sum(map(float, norms)) / 4)


def test_lengths_are_those_of_the_validation_images_after_the_epoch(tiny, data_of, cpu):
    state = TrainingState(tiny(epochs=2, learning_rate=0.02), cpu)
    data = data_of(state.config)
    for metrics in train(state, data):
        right, wrong = [], []
        for image, label in zip(data.validation.batch(slice(None)), data.validation.labels.tolist(), strict=True):
            found = state.model.scores(image[None])[0].tolist()
            right.append(found.pop(label))
            wrong.append(max(found))
        assert metrics.right_length == pytest.approx(sum(right) / len(right), rel=1e-4)
        assert metrics.wrong_length == pytest.approx(sum(wrong) / len(wrong), rel=1e-4)


def test_what_routing_did_is_looked_at_after_each_epoch(tiny, data_of, cpu):
    """On 100 images, or as many as there are."""
    state = TrainingState(tiny(epochs=2, learning_rate=0.02), cpu)
    data = data_of(state.config)
    for metrics in train(state, data):
        found = diagnose(state.model, Split(data.validation.images[:100], data.validation.labels[:100]))
        assert metrics.coupling_entropy == pytest.approx(found.entropy[-1].item())
        assert metrics.logit_changes == pytest.approx(found.change.tolist())
        assert len(metrics.logit_changes) == 2
        assert metrics.dead_primary_capsules == int(found.dead_primary.sum())
    assert 0 < metrics.coupling_entropy < math.log(10)


def test_how_long_hidden_capsules_are_is_told_after_each_epoch(tiny, data_of, cpu):
    state = TrainingState(tiny(epochs=2, learning_rate=0.02, hidden_capsules=(9, 7)), cpu)
    data = data_of(state.config)
    for metrics in train(state, data):
        found = diagnose(state.model, Split(data.validation.images[:100], data.validation.labels[:100]))
        assert metrics.hidden_lengths == tuple(found.mean_lengths[1:3])
    plain = TrainingState(tiny(epochs=1), cpu)
    (metrics,) = train(plain, data_of(plain.config))
    assert metrics.hidden_lengths is None


def test_em_routing_has_an_entropy_after_each_epoch(tiny, data_of, cpu):
    """Of the assignments of the last pass; it has no logits, and nothing is kept of them in training."""
    state = TrainingState(tiny(routing="em", routing_iterations=2, epochs=1), cpu)
    data = data_of(state.config)
    (metrics,) = train(state, data)
    found = diagnose(state.model, Split(data.validation.images[:100], data.validation.labels[:100]))
    assert metrics.coupling_entropy == pytest.approx(found.entropy[1].item())
    assert metrics.logit_changes == ()
    assert 0 < metrics.coupling_entropy < math.log(10)


def test_without_validation_images_capsules_are_looked_at_on_training_images(tiny, data_of, cpu):
    state = TrainingState(tiny(epochs=1, validation_size=0), cpu)
    data = data_of(state.config)
    (metrics,) = train(state, data)
    found = diagnose(state.model, Split(data.training.images[:100], data.training.labels[:100]))
    assert metrics.coupling_entropy == pytest.approx(found.entropy[-1].item())
    labels = data.training.labels[:100]
    scores = evaluate(state.model, Split(data.training.images[:100], labels), 100).scores
    own = torch.nn.functional.one_hot(labels, 10).bool()
    assert metrics.right_length == pytest.approx(scores[own].mean().item())
    assert metrics.wrong_length == pytest.approx(scores.masked_fill(own, 0).amax(dim=1).mean().item())


def test_of_a_routing_whose_passes_are_unknown_dead_capsules_are_counted(tiny, data_of, cpu):
    state = TrainingState(tiny(epochs=1), cpu)
    state.model.capsules.direct = None
    state.model.capsules.routing = lambda votes, iterations, bias: uniform(votes, 1, bias)
    (metrics,) = train(state, data_of(state.config))
    assert metrics.coupling_entropy is metrics.logit_changes is None
    assert metrics.dead_primary_capsules is not None


@pytest.mark.parametrize("loss", ["cross_entropy(scale=10)", "sigmoid_cross_entropy(scale=10, threshold=0.5)", "spread"])
def test_every_loss_learns_and_is_called_what_it_is(tiny, data_of, cpu, loss):
    config = tiny(loss=loss, epochs=15, train_size=300, learning_rate=5e-3, reconstruction_weight=1e-3)
    history = list(train(TrainingState(config, cpu), data_of(config)))
    assert history[-1].train_error < 0.7 * history[0].train_error
    for metrics in history:
        assert metrics.train_margin_loss is None
        assert metrics.train_loss == pytest.approx(metrics.train_class_loss + 1e-3 * metrics.train_reconstruction_loss)


def test_the_margin_loss_with_other_constants_is_a_margin_loss(tiny, data_of, cpu):
    usual, other = (next(train(TrainingState(c, cpu), data_of(c))) for c in (tiny(), tiny(loss="margin(m_plus=0.5)")))
    assert usual.train_class_loss is other.train_class_loss is None
    assert other.train_margin_loss < usual.train_margin_loss


def test_a_loss_is_not_the_margin_loss_because_its_name_begins_so(tiny, data_of, monkeypatch):
    monkeypatch.setitem(LOSSES, "margin_of_my_own", LOSSES["margin"])
    for loss, named in (("margin", True), ("margin(m_plus=0.8)", True), ("margin_of_my_own", False)):
        config = tiny(epochs=1, loss=loss)
        [metrics] = train(TrainingState(config, torch.device("cpu")), data_of(config))
        assert (metrics.train_margin_loss is not None, metrics.train_class_loss is None) == (named, named)
