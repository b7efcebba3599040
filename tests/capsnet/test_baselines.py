"""The plain networks beside the capsules: sizes to the parameter, dropout that is the run's own, and what they refuse."""

import numpy as np
import pytest
import torch
from torch import nn

from capsnet import baselines, graphs, step
from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.data import Split
from capsnet.diagnostics import diagnose
from capsnet.errors import InputError
from capsnet.layers import dropped, kept
from capsnet.models import build, make
from capsnet.registry import MODELS
from capsnet.state import TrainingState
from capsnet.step import step_losses
from capsnet.training import evaluate, train

PLAIN = {"loss": "cross_entropy", "reconstruction_weight": 0.0}
DROPPING = {"model": "cnn", "dropout": 0.5, **PLAIN}


@pytest.fixture
def small(monkeypatch):
    """A network that is made as the paper's are, and trains in a moment."""

    class Small(baselines.Baseline):
        def __init__(self, config):
            _, height, width = config.facts.shape
            layers = nn.Sequential(nn.Conv2d(1, 6, 5, stride=4, padding=2), nn.ReLU())
            super().__init__(config, layers, 6 * (height // 4) * (width // 4), (40, 32))

    monkeypatch.setattr(baselines, "Cnn", Small)


@pytest.fixture
def config():
    """(changes) -> a config of the small network, of four steps an epoch, the last of them of 4 images."""
    base = {"dataset": "digits", "train_size": 100, "validation_size": 60, "augmentation": "shift(pixels=1)", "batch_size": 32}
    return lambda **changes: RunConfig(**{**base, "epochs": 4, "learning_rate": 5e-3, **DROPPING, **changes})


def parameters(config):
    with torch.device("meta"):
        return sum(p.numel() for p in make(config).parameters())


def test_the_papers_baseline_to_the_parameter():
    assert parameters(RunConfig(model="cnn", **PLAIN)) == 35_445_522


def test_the_papers_multimnist_baseline_to_the_parameter():
    config = RunConfig(model="cnn", dataset="multimnist", **{**PLAIN, "loss": "sigmoid_cross_entropy"})
    assert parameters(config) == 24_563_978


def test_the_papers_baseline_keeps_height_and_width(generator):
    """Five layers with ReLU between them and none behind the last; no pooling."""
    model = build(RunConfig(dataset="digits", validation_size=60, model="cnn", **PLAIN), generator)
    images = torch.rand(2, 1, 16, 16, generator=generator)
    found = images
    for layer in (model.convolutions[0], model.convolutions[2], model.convolutions[4]):
        found = nn.functional.conv2d(found, layer.weight, layer.bias, padding=2).clamp(min=0)
        assert found.shape[2:] == (16, 16)
    for layer in (model.hidden[0], model.hidden[2]):
        found = (found.flatten(1) @ layer.weight.T + layer.bias).clamp(min=0)
    found = found @ model.logits.weight.T + model.logits.bias
    torch.testing.assert_close(model.scores(images), found, rtol=1e-4, atol=1e-5)
    assert (found < 0).any()


@pytest.mark.parametrize("shape", [(36, 36), (7, 9)])
def test_pooling_is_the_maximum_of_four_pixels(generator, shape):
    maps = torch.randn(2, 3, *shape, generator=generator)
    assert torch.equal(baselines.Halve()(maps), nn.functional.max_pool2d(maps, 2))


def test_weights_start_as_pytorch_starts_them_and_from_the_passed_generator(config, small):
    torch.manual_seed(1)
    first, again, other = (build(config(), torch.Generator().manual_seed(s)).state_dict() for s in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in first)
    for name, weight in first.items():
        if name.endswith("weight"):
            assert 0.8 < weight.abs().max() * weight[0].numel() ** 0.5 <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "cnn", "loss": "cross_entropy"},
            "reconstruction_weight means nothing to model cnn: it must be 0.0, not 0.0005",
        ),
        ({**DROPPING, "routing_iterations": 1}, "routing_iterations means nothing to model cnn: it must be 3, not 1"),
        ({**DROPPING, "decoder_hidden": [3]}, "decoder_hidden means nothing to model cnn: it must be [512, 1024], not [3]"),
        ({**DROPPING, "capsule_bias": True}, "capsule_bias means nothing to model cnn: it must be false, not true"),
        (
            {"model": "cnn", "loss": "cross_entropy", "routing_iterations": 1, "capsule_bias": True},
            "capsule_bias means nothing to model cnn: it must be false, not true; nor does routing_iterations: it must be 3, "
            "not 1; nor does reconstruction_weight: it must be 0.0, not 0.0005 (in grids/x.yaml)",
        ),
        (
            {**DROPPING, "loss": "margin"},
            "the scores of model cnn have no bounds; choices: cross_entropy, sigmoid_cross_entropy",
        ),
        ({**DROPPING, "loss": "spread"}, "loss spread is of lengths in [0, 1)"),
        ({"dropout": 0.5}, "dropout means nothing to model capsnet: it must be 0.0, not 0.5"),
        ({**DROPPING, "dropout": 1.0}, "dropout must be less than 1"),
    ],
)
def test_what_a_model_does_not_read_is_refused(values, message):
    with pytest.raises(InputError) as caught:
        make_config(values, "grids/x.yaml")
    assert message in str(caught.value)


def test_what_capsules_need_of_an_image_is_no_limit_for_plain_convolutions():
    with pytest.raises(InputError, match="too large"):
        make_config({"dataset": "digits", "validation_size": 60}, "x")
    assert make_config({"dataset": "digits", "validation_size": 60, **DROPPING}, "x").model == "cnn"


def test_which_units_stay_is_the_hash_in_numpy(generator):
    noise = torch.randint(2**32, (50, 2), generator=generator)

    def mixed(x):
        for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        return x ^ (x >> np.uint32(15))

    first, second = noise.numpy().astype(np.uint32).T[:, :, None]
    expected = mixed(mixed(np.arange(1, 193, dtype=np.uint32) ^ first) ^ second) >= np.uint32(0.3 * 2**32)
    assert np.array_equal(kept(noise, 192, 0.3).numpy(), expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_units_are_dropped_by_chance(generator, share):
    """Of each unit, of each image, and of each pair of units or of images, as often as independent coins of this share."""
    images, units = 4000, 192
    stay = kept(torch.randint(2**32, (images, 2), generator=generator), units, share).double()
    variance = share * (1 - share)
    assert stay.mean().item() == pytest.approx(1 - share, abs=5 * (variance / stay.numel()) ** 0.5)
    assert stay.mean(dim=0).var().item() == pytest.approx(variance / images, rel=0.5)
    assert stay.mean(dim=1).var().item() == pytest.approx(variance / units, rel=0.15)
    for one, count in ((stay, images), (stay.T, units)):
        together = torch.corrcoef(one[:, :300].T)
        off = together[~torch.eye(len(together), dtype=torch.bool)]
        assert off.std().item() == pytest.approx(count**-0.5, rel=0.15)
        assert off.abs().max() < 6.5 * count**-0.5


def test_numbers_that_differ_in_a_bit_drop_other_units(generator):
    noise = torch.randint(2**32, (500, 2), generator=generator)
    for column in (0, 1):
        for bit in (0, 13, 31):
            other = noise.clone()
            other[:, column] ^= 1 << bit
            agree = (kept(noise, 192, 0.5) == kept(other, 192, 0.5)).double().mean().item()
            assert agree == pytest.approx(0.5, abs=0.01)


def test_what_stays_is_larger_so_that_the_mean_does(generator):
    features = torch.rand(3000, 64, generator=generator)
    noise = torch.randint(2**32, (3000, 2), generator=generator)
    found, stay = dropped(features, noise, 0.25), kept(noise, 64, 0.25)
    assert (found[~stay] == 0).all()
    torch.testing.assert_close(found[stay], features[stay] / 0.75)
    assert found.mean().item() == pytest.approx(features.mean().item(), rel=0.01)
    assert torch.equal(dropped(features, noise, 0.0), features)


def test_dropout_is_of_the_last_hidden_layer_and_of_training_alone(config, small, generator):
    model = build(config(), generator)
    images, noise = torch.rand(8, 1, 16, 16, generator=generator), torch.randint(2**32, (8, 2), generator=generator)
    hidden = model.hidden(model.convolutions(images).flatten(1))
    by_hand = model.logits(hidden * kept(noise, 32, 0.5) * 2)
    torch.testing.assert_close(model.read(model.encode(images, noise)), by_hand)
    plain = model.logits(hidden)
    torch.testing.assert_close(model.scores(images), plain)
    assert not torch.allclose(by_hand, plain)
    split = Split((images * 255).byte(), torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(evaluate(model, split, 3).scores, model.scores(split.batch(slice(None))).detach())


def test_steps_drop_units_and_another_share_gives_another_run(config, small, cpu, data_of):
    found = {}
    for share in (0.0, 0.5, 0.6):
        given = config(dropout=share, epochs=1)
        state = TrainingState(given, cpu)
        found[share] = next(train(state, data_of(given))).train_loss
        before = state.generators["dropout"].get_state()
        assert torch.equal(before, TrainingState(given, cpu).generators["dropout"].get_state()) == (share == 0)
    assert len(set(found.values())) == 3


def test_an_epochs_and_an_images_units_are_its_own(config, small, cpu, data_of, monkeypatch):
    seen = []
    monkeypatch.setattr(baselines, "dropped", lambda f, noise, share: seen.append(noise) or dropped(f, noise, share))
    list(train(TrainingState(config(epochs=2), cpu), data_of(config(epochs=2))))
    noise = torch.cat(seen)
    assert noise.shape == (200, 2)
    assert len(noise.unique(dim=0)) == 200


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(config, small, cpu, data_of, tmp_path, stop):
    whole = TrainingState(config(), cpu)
    list(train(whole, data_of(config())))
    broken = TrainingState(config(), cpu)
    run = train(broken, data_of(config()))
    for _ in range(stop):
        next(run)
    broken.save(tmp_path / "a")
    torch.manual_seed(99)
    resumed = TrainingState.load(tmp_path / "a", cpu)
    list(train(resumed, data_of(config())))
    assert all(torch.equal(a, b) for a, b in zip(resumed.moving(), whole.moving(), strict=True))
    assert [m.train_loss for m in resumed.history] == [m.train_loss for m in whole.history]


def test_the_global_generator_is_left_as_it_was(config, small, cpu, data_of):
    state, data = TrainingState(config(), cpu), data_of(config())
    before = torch.get_rng_state()
    list(train(state, data))
    assert torch.equal(torch.get_rng_state(), before)


def test_replayed_steps_drop_what_steps_do(config, small, cpu, data_of, monkeypatch):
    """As a CUDA graph would replay them, but for the capture: each has its own images' noise, and the warm-up uses none up."""

    def result():
        state = TrainingState(config(), cpu)
        history = list(train(state, data_of(config())))
        return torch.cat([tensor.flatten() for tensor in state.moving()]), [m.train_loss for m in history]

    wanted = result()
    monkeypatch.setattr(graphs, "aside", lambda work: work())
    monkeypatch.setattr(graphs, "recorded", lambda work, pool, stream: work)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(graphs, "_stream", lambda _: None)
    monkeypatch.setattr("capsnet.training.Execution.settle", lambda *_: step.Settled(compile=False, graph=True))
    found = result()
    assert torch.equal(found[0], wanted[0])
    assert found[1] == wanted[1]


@pytest.mark.parametrize("batch_size", [25, 100])
def test_what_is_dropped_of_an_image_does_not_depend_on_its_batch(config, small, cpu, data_of, batch_size, monkeypatch):
    seen = []
    monkeypatch.setattr(baselines, "dropped", lambda f, noise, share: seen.append(noise) or dropped(f, noise, share))
    for given in (config(epochs=1), config(epochs=1, batch_size=batch_size)):
        seen.append([])
        list(train(TrainingState(given, cpu), data_of(given)))
    at = seen.index([], 1)
    assert torch.equal(torch.cat(seen[1:at]), torch.cat(seen[at + 1 :]))


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 5e-6), ("bf16", 4e-2)])
def test_a_step_is_as_close_to_float64_as_the_precision_lets_it(config, small, precision, limit):
    def step(precision, dtype):
        model = build(config(precision=precision), torch.Generator().manual_seed(3)).to(dtype)
        random = torch.Generator().manual_seed(4)
        images, labels = torch.rand(16, 1, 16, 16, generator=random).to(dtype), torch.randint(0, 10, (16,), generator=random)
        noise = torch.randint(2**32, (16, 2), generator=random)
        loss, _ = step_losses(model, 0.0, images, labels, config().objective, 0.0, noise)
        loss.backward()
        return [model.scores(images).detach(), loss.detach()[None], torch.cat([p.grad.flatten() for p in model.parameters()])]

    off = []
    for mine, theirs in zip(step(precision, torch.float32), step("fp32", torch.float64), strict=True):
        assert mine.dtype == torch.float32
        off.append(((mine.double() - theirs).norm() / theirs.norm()).item())
    assert max(off) < limit
    assert (off[2] > 1e-4) == (precision == "bf16")


def test_a_plain_network_learns(config, small, cpu, data_of):
    given = config(epochs=15, train_size=300, dropout=0.2)
    history = list(train(TrainingState(given, cpu), data_of(given)))
    assert history[-1].validation_error < 25 < history[0].validation_error
    assert history[-1].train_margin_loss is history[-1].train_reconstruction_loss is None
    assert history[-1].train_loss == history[-1].train_class_loss


def test_there_is_no_routing_to_follow_and_nothing_to_decode(config, small, generator, data_of):
    model = build(config(), generator)
    with pytest.raises(InputError, match="no routing"):
        diagnose(model, data_of(config()).test)
    with pytest.raises(ValueError, match="no decoder"):
        model.reconstruct(model.encode(torch.zeros(1, 1, 16, 16)), torch.zeros(1, dtype=torch.int64))


MATCHED = {"model": "cnn_matched"}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 8_215_568),
        ({"capsule_bias": True}, 8_215_728),
        ({"reconstruction_weight": 0.0}, 6_804_224),
        ({"primary_types": 5, "class_dim": 7, "conv_kernel": 7}, None),
    ],
)
def test_the_matched_network_has_the_capsule_networks_number_of_parameters(changes, count):
    matched = parameters(RunConfig(**MATCHED, **changes))
    assert matched == parameters(RunConfig(**changes))
    assert matched == (count or matched)


@pytest.mark.parametrize("by_frequency", [True, False])
def test_the_matched_network_is_convolutions_and_a_fully_connected_layer(tiny, generator, monkeypatch, by_frequency):
    monkeypatch.setattr("capsnet.fourier.pays", lambda *_: by_frequency)
    model = build(tiny(**MATCHED, capsule_bias=True), generator)
    images = torch.rand(6, 1, 16, 16, generator=generator)
    features = model.primary.conv(model.conv(images).clamp(min=0)).clamp(min=0).flatten(1)
    vectors = (features @ model.vectors.weight.T + 0.1).view(6, 10, 4)
    size = vectors.norm(dim=2, keepdim=True)
    by_hand = vectors / size * size**2 / (1 + size**2)
    torch.testing.assert_close(model.encode(images), by_hand, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.scores(images), by_hand.norm(dim=2), rtol=1e-4, atol=1e-6)
    assert (model.scores(images) < 1).all()
    assert model.reconstruct(by_hand, torch.arange(6)).shape == images.shape


def test_the_matched_network_shares_its_first_weights_with_the_capsule_network(tiny):
    first, second = (build(config, torch.Generator().manual_seed(5)).state_dict() for config in (tiny(), tiny(**MATCHED)))
    assert all(torch.equal(first[f"{name}.weight"], second[f"{name}.weight"]) for name in ("conv", "primary.conv"))


@pytest.mark.parametrize("loss", ["margin", "cross_entropy(scale=10)", "spread"])
def test_the_matched_network_learns_and_reconstructs(tiny, cpu, data_of, loss):
    config = tiny(**MATCHED, epochs=15, train_size=300, loss=loss, reconstruction_weight=1e-3, learning_rate=5e-3)
    state = TrainingState(config, cpu)
    history = list(train(state, data_of(config)))
    assert history[-1].validation_error < 0.6 * history[0].validation_error
    assert history[-1].train_reconstruction_loss < history[0].train_reconstruction_loss
    with pytest.raises(InputError, match="no routing"):
        diagnose(state.model, data_of(config).test)


@pytest.mark.parametrize(
    "values",
    [{"routing": "uniform", "routing_iterations": 1}, {"routing_iterations": 1}, {"dropout": 0.1}, {"hidden_capsules": [8]}],
)
def test_the_matched_network_has_no_routing_no_hidden_capsules_and_no_dropout(values):
    with pytest.raises(InputError, match="means nothing to model cnn_matched: it must be"):
        make_config({**MATCHED, **values}, "x")


def test_every_field_of_a_network_is_one_that_each_model_reads_or_refuses():
    """A field that is added later has to be put among them."""
    read_by_all = {"dataset", "train_size", "validation_size", "augmentation", "model", "loss", "epochs", "batch_size", "seed"}
    read_by_all |= {
        "test_batch_size",
        "learning_rate",
        "lr_schedule",
        "precision",
        "adam_epsilon",
        "weight_decay",
        "gradient_clip",
        "test_sets",
        "stop_at_error",
    }
    assert {name for facts in MODELS.values() for name in facts.unread} == FIELDS.keys() - read_by_all
