"""Whole networks: sizes to the parameter, first weights, and independence of the batch."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from capsnet.config import RunConfig
from capsnet.models import CapsuleNetwork, build, lengths
from capsnet.registry import DATASETS
from tests.capsnet.test_routing import procedure_1


def count(config):
    with torch.device("meta"):
        from capsnet.models import CapsuleNetwork

        return sum(p.numel() for p in CapsuleNetwork(config).parameters())


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 8_215_568),
        ({"capsule_bias": True}, 8_215_728),
        ({"reconstruction_weight": 0.0}, 6_804_224),
        ({"reconstruction_weight": 0.0, "capsule_bias": True}, 6_804_384),
        ({"routing_iterations": 1}, 8_215_568),
        ({"routing_iterations": 1, "routing": "uniform"}, 8_215_568),
        ({"routing_iterations": 1, "routing": "random"}, 8_215_568),  # what was drawn is no parameter
        ({"routing_iterations": 1, "routing": "static"}, 8_215_568 + 1152 * 10),
        ({"routing_iterations": 1, "routing": "attention"}, 8_215_568 + 1152 * 10),
        ({"routing": "em"}, 8_215_568 + 2 * 10),
        # 8x16 for each pair of primary and hidden, 16x16 for each of hidden and class, instead of 8x16 for 1152 x 10 pairs
        ({"hidden_capsules": (24,)}, 8_215_568 + 1152 * 24 * 8 * 16 + 24 * 10 * 16 * 16 - 1152 * 10 * 8 * 16),
        (
            {"hidden_capsules": (24, 6), "capsule_bias": True},
            8_215_728 + (1152 * (24 - 10) * 8 + (24 * 6 + 6 * 10) * 16 + 30) * 16,
        ),
    ],
)
def test_the_papers_network_to_the_parameter(changes, parameters):
    assert count(RunConfig(**changes)) == parameters


def test_the_papers_multimnist_network_to_the_parameter(monkeypatch):
    """Sizes come from the data set's image shape: 36x36 makes 3200 primary capsules and a larger decoder."""
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(DATASETS["mnist"], shape=(1, 36, 36)))
    assert count(RunConfig(capsule_bias=True)) == 11_361_968


def test_networks_for_natural_images_to_the_parameter():
    """Counted by hand: first convolution, primary capsules, 8x16 or 6x8 for each pair of capsules, decoder."""
    cifar10 = 3 * 81 * 256 + 256 + 256 * 81 * 512 + 512 + 64 * 4 * 4 * 10 * 8 * 16
    values = {"augmentation": "crop(size=24)", "primary_types": 64, "none_of_the_above": True}
    assert count(RunConfig(dataset="cifar10", reconstruction_weight=0.0, **values)) == cifar10 == 11_990_528
    decoder = 160 * 512 + 512 + 512 * 1024 + 1024 + 1024 * 3 * 24 * 24 + 3 * 24 * 24  # of a patch, not of the image
    assert count(RunConfig(dataset="cifar10", **values)) == cifar10 + decoder
    svhn = 3 * 81 * 64 + 64 + 64 * 81 * 96 + 96 + 16 * 8 * 8 * 10 * 6 * 8
    values = {"conv_channels": 64, "primary_types": 16, "primary_dim": 6, "class_dim": 8, "reconstruction_weight": 0.0}
    assert count(RunConfig(dataset="svhn", **values)) == svhn == 1_004_896
    smallnorb = 2 * 81 * 256 + 256 + 256 * 81 * 256 + 256 + 32 * 8 * 8 * 5 * 8 * 16
    smallnorb += 80 * 512 + 512 + 512 * 1024 + 1024 + 1024 * 2 * 32 * 32 + 2 * 32 * 32
    assert count(RunConfig(dataset="smallnorb", augmentation="crop(size=32)")) == smallnorb == 9_327_104


def test_the_papers_network_has_1152_primary_capsules(generator):
    config = RunConfig(conv_channels=4, reconstruction_weight=0.0)
    model = build(config, generator)
    features = model.conv(torch.zeros(1, 1, 28, 28))
    assert features.shape[2:] == (20, 20)
    assert model.primary(features).shape == (1, 1152, 8)
    assert model.encode(torch.zeros(1, 1, 28, 28)).shape == (1, 10, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"reconstruction_weight": 0.0},
        {"reconstruction_weight": 1e-2},
        {"routing_iterations": 1},
        {"routing_iterations": 1, "routing": "uniform"},
        {"routing_iterations": 1, "routing": "random"},
        {"routing_iterations": 1, "routing": "static"},
        {"routing_iterations": 1, "routing": "attention"},
        {"routing": "em"},
        {"capsule_bias": True},
        {"lr_schedule": "constant", "augmentation": "none"},
    ],
)
def test_cells_of_one_seed_start_from_the_same_shared_weights(tiny, changes):
    first = build(tiny(), torch.Generator().manual_seed(5)).state_dict()
    second = build(tiny(**changes), torch.Generator().manual_seed(5)).state_dict()
    shared = first.keys() & second.keys()
    assert {"conv.weight", "primary.conv.weight", "capsules.weight"} <= shared
    assert all(torch.equal(first[name], second[name]) for name in shared)


def test_the_first_weights_of_the_votes_have_the_deviation_that_is_asked_for(tiny):
    """Of every layer that routes; the same draws, and all other weights as they were."""
    plain, wide = (
        build(tiny(hidden_capsules=(30,), **more), torch.Generator().manual_seed(5)) for more in ({}, {"votes_std": 0.4})
    )
    for layer, other in zip(plain.layers, wide.layers, strict=True):
        torch.testing.assert_close(other.weight, 4 * layer.weight)
        assert layer.weight.std().item() == pytest.approx(0.1, rel=0.05)
    votes = {"hidden.0.weight", "capsules.weight"}
    second = wide.state_dict()
    assert all(torch.equal(weights, second[name]) for name, weights in plain.state_dict().items() if name not in votes)


COUPLED = {"primary_coupling": True, "primary_types": 5}


def test_coupled_primary_capsules_begin_as_the_same_function(tiny, images):
    plain, coupled = (
        build(tiny(**{**COUPLED, **more}), torch.Generator().manual_seed(5)) for more in ({"primary_coupling": False}, {})
    )
    weights = plain.state_dict()
    for name, values in coupled.state_dict().items():
        torch.testing.assert_close(values, weights[name] * (5 if name == "primary.conv.weight" else 1), rtol=0, atol=0)
    torch.testing.assert_close(coupled.encode(images), plain.encode(images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by_frequency", [True, False])
@pytest.mark.parametrize("model", ["capsnet", "cnn_matched"])
def test_coupled_primary_capsules_are_divided_before_their_bias_as_in_the_authors_code(
    tiny, images, monkeypatch, by_frequency, model
):
    """Values and gradients by hand in float64: squash(convolution / types + bias)."""
    monkeypatch.setattr("capsnet.fourier.pays", lambda *_: by_frequency)
    network = build(tiny(**COUPLED, model=model), torch.Generator().manual_seed(5)).double()
    pictures = images.double()
    assert network.takes_spectra(pictures) == by_frequency
    conv, own = network.conv, network.primary.conv
    weight, bias = (p.detach().clone().requires_grad_() for p in (own.weight, own.bias))
    by_hand = functional.conv2d(conv(pictures).relu(), weight, stride=own.stride) / 5 + bias[:, None, None]
    found = network.maps(pictures)
    torch.testing.assert_close(found, by_hand)
    direction = torch.rand(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, [own.weight, own.bias], direction)
    for one, other in zip(gradients, torch.autograd.grad(by_hand, [weight, bias], direction), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(network.primary(conv(pictures).relu()), network.primary.capsules(by_hand))


def test_adam_moves_coupled_primary_capsules_less_by_their_types(tiny, images):
    def moved(coupling):
        network = build(tiny(**{**COUPLED, "primary_coupling": coupling}), torch.Generator().manual_seed(5)).double()
        before = network.maps(images.double())
        before.square().sum().backward()
        torch.optim.Adam([network.primary.conv.weight]).step()
        return network.maps(images.double()) - before

    torch.testing.assert_close(5 * moved(True), moved(False))


def test_hidden_capsules_are_routed_as_class_capsules_are(tiny):
    """Layer by layer, each by procedure 1 in float64; the class capsules see the last hidden layer alone."""
    config = tiny(hidden_capsules=(5, 4), capsule_bias=True, class_dim=6)
    model = build(config, torch.Generator().manual_seed(1)).double()
    images = torch.rand(3, *config.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        capsules = model.primary_capsules(images)
        for layer, weight in zip(model.layers, ("hidden.0.weight", "hidden.1.weight", "capsules.weight"), strict=True):
            state = model.state_dict()
            votes = torch.einsum("bid,idj->bij", capsules, state[weight]).unflatten(2, (-1, 6)).numpy()
            capsules = torch.from_numpy(procedure_1(votes, 3, state[weight.replace("weight", "bias")].numpy()))
            assert layer.iterations == 3
        assert [len(layer.weight) for layer in model.layers] == [*model.primary_capsules(images).shape[1:2], 5, 4]
        torch.testing.assert_close(model.encode(images), capsules)


def test_another_generator_gives_other_weights(tiny):
    first, second = (build(tiny(), torch.Generator().manual_seed(s)).state_dict() for s in (5, 6))
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_weights_come_from_the_passed_generator_alone(tiny):
    torch.manual_seed(1)
    first = build(tiny(), torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    second = build(tiny(), torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_convolutions_and_decoder_start_as_pytorch_starts_them(generator):
    """Uniform within 1 / sqrt(fan in), weights and biases alike."""
    model = build(RunConfig(), generator)
    for module in [model.conv, model.primary.conv, *model.decoder.layers[::2]]:
        bound = module.weight[0].numel() ** -0.5
        assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert 0.8 * bound < module.bias.abs().max() <= bound
    assert model.capsules.weight.std().item() == pytest.approx(0.1, rel=0.01)


@pytest.fixture
def model(tiny, generator):
    return build(tiny(), generator)


@pytest.fixture
def images(generator):
    return torch.rand(6, 1, 16, 16, generator=generator)


def test_scores_are_the_lengths_of_the_capsules(model, images):
    capsules = model.encode(images)
    expected = capsules.square().sum(dim=2).sqrt()
    torch.testing.assert_close(model.scores(images), expected)
    torch.testing.assert_close(lengths(capsules), expected)
    assert (expected < 1).all()
    assert (expected.sum(dim=1) - 1).abs().min() > 1e-4, "an extra softmax over the lengths would make them sum to 1"


def test_the_first_convolution_has_a_relu_and_the_second_has_none(model, images):
    by_hand = model.primary(torch.clamp(model.conv(images), min=0))
    torch.testing.assert_close(model.capsules(by_hand), model.encode(images))
    assert (by_hand < 0).any()


def test_an_answer_does_not_depend_on_its_batch_neighbours(model, images):
    together = model.encode(images)
    alone = torch.cat([model.encode(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)
    neighbours = images.clone()
    neighbours[1:] = 1 - neighbours[1:]
    torch.testing.assert_close(model.encode(neighbours)[0], together[0], rtol=1e-4, atol=1e-6)


def test_each_input_capsule_and_class_has_its_own_matrix(model):
    assert model.capsules.weight.shape == (2 * 4 * 4, 4, 10 * 4)


def test_reconstruct_decodes_the_named_class_alone(model, images):
    capsules = model.encode(images)
    classes = torch.tensor([3, 1, 4, 1, 5, 9])
    expected = []
    for capsule, label in zip(capsules, classes, strict=True):
        masked = torch.zeros_like(capsule)
        masked[label] = capsule[label]
        expected.append(model.decoder.layers(masked.flatten()).view(1, 16, 16))
    torch.testing.assert_close(model.reconstruct(capsules, classes), torch.stack(expected))


def test_a_network_without_a_decoder_says_so(tiny, generator, images):
    model = build(tiny(reconstruction_weight=0.0), generator)
    assert model.decoder is None
    with pytest.raises(ValueError, match="reconstruction_weight 0"):
        model.reconstruct(model.encode(images), torch.zeros(6, dtype=torch.int64))


def test_gradients_reach_every_weight(model, images):
    capsules = model.encode(images)
    (lengths(capsules).sum() + model.reconstruct(capsules, torch.arange(6)).sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_are_finite_on_blank_images(model, value):
    capsules = model.encode(torch.full((2, 1, 16, 16), value))
    lengths(capsules).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


LARGE = {"dataset": "mnist", "conv_channels": 128, "batch_size": 128}  # large enough for spectra


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"precision": "bf16"}, True),
        ({"batch_size": 2}, False),  # transforms of the weights for two images
        ({"conv_channels": 8, "primary_types": 2}, False),
        ({"primary_kernel": 3}, False),
        ({"train_size": 2}, False),
    ],
    ids=str,
)
def test_spectra_are_taken_where_they_pay(tiny, changes, wanted):
    """By what the run's own steps are; whoever asks later, for however few images, gets an answer of the same kind."""
    model = CapsuleNetwork(tiny(**{**LARGE, "primary_types": 32, "primary_dim": 8, "primary_kernel": 9, **changes}))
    one = torch.zeros(1, 1, 28, 28)
    assert model.takes_spectra(one) == wanted
    assert not model.takes_spectra(one.clone().requires_grad_()), "no gradient would reach the images"


class OnCuda(torch.Tensor):
    """A tensor that says that it is on a CUDA device."""

    is_cuda = True


def test_on_cuda_spectra_are_for_float32_alone(tiny):
    """Rounded products of plain convolutions have units of their own."""
    sizes = {**LARGE, "primary_types": 32, "primary_dim": 8, "primary_kernel": 9}
    images = torch.zeros(1, 1, 28, 28).as_subclass(OnCuda)
    found = {p: CapsuleNetwork(tiny(**sizes, precision=p)).takes_spectra(images) for p in ("fp32", "tf32", "bf16")}
    assert found == {"fp32": True, "tf32": False, "bf16": False}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_takes_spectra_rounds_as_its_precision_says_and_is_exported_without(tiny, precision, generator):
    config = tiny(**{**LARGE, "conv_channels": 32, "primary_types": 16, "primary_dim": 8, "primary_kernel": 9})
    config = config.model_copy(update={"precision": precision})
    model = build(config, torch.Generator().manual_seed(5))
    assert model.spectral
    images = torch.rand(4, 1, 28, 28, generator=generator)
    model.spectral = False
    model.precision = "fp32"
    wanted = model.primary_capsules(images)
    model.spectral, model.precision = True, precision
    off = ((model.primary_capsules(images) - wanted).norm() / wanted.norm()).item()
    assert off < 5e-6 if precision == "fp32" else 5e-4 < off < 3e-2
    exported = torch.export.export(Scores(model), (images,)).module()
    torch.testing.assert_close(exported(images), Scores(model)(images), rtol=1e-4 if precision == "fp32" else 0.05, atol=1e-3)
    assert "bfloat16" not in str(torch.export.export(Scores(model), (images,)).graph), "a program computes in float32"


class Scores(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.scores(images)
