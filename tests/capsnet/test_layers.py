"""Squash, primary capsules, votes and decoder, each against a closed form or a loop."""

import itertools
import math

import pytest
import torch

from capsnet.layers import ClassCaps, Decoder, PrimaryCaps, squash
from capsnet.models import lengths
from capsnet.registry import SQUASHES, load
from capsnet.routing import dynamic

FORMULAS = {  # the length that a vector of length n has afterwards
    "paper": lambda n: n**2 / (1 + n**2),
    "efficient": lambda n: 1 - 1 / math.exp(n),
    "half": lambda n: n**2 / (0.5 + n**2),
}


@pytest.mark.parametrize("name", SQUASHES)
@pytest.mark.parametrize("length", [1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0, 500.0])
def test_each_squash_is_its_formula(generator, name, length):
    function = load(SQUASHES[name])
    direction = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(function(direction * length), direction * FORMULAS[name](length), rtol=1e-9, atol=0)
    single = function((direction * length).float())
    torch.testing.assert_close(single, (direction * FORMULAS[name](length)).float(), rtol=1e-5, atol=0)
    assert (single.norm(dim=1) < 1 + 1e-6).all()


@pytest.mark.parametrize("name", SQUASHES)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-20, 1e-10, 2e-5, 5e-5, 1.0, 1e10, 1e18])
def test_each_squash_is_finite_in_value_and_gradient(name, value):
    vectors = torch.full((2, 8), value, requires_grad=True)
    squashed = load(SQUASHES[name])(vectors)
    squashed.sum().backward()
    assert squashed.isfinite().all()
    assert vectors.grad.isfinite().all()
    slope = {"efficient": 1.0}.get(name, 0.0)
    if value < 1e-10:
        assert vectors.grad[0].tolist() == pytest.approx([slope] * 8, abs=1e-6)
    if value == 0:
        assert not squashed.any()


@pytest.mark.parametrize("name", SQUASHES)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_each_squash_has_the_gradient_of_its_formula(generator, name, scale):
    vectors = (scale * torch.randn(3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(load(SQUASHES[name]), (vectors,), eps=1e-6 * scale, atol=1e-6)


@pytest.mark.parametrize("length", [1e-3, 0.1, 0.5, 1.0, 2.0, 10.0, 1e3])
def test_squash_is_equation_1(generator, length):
    direction = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    direction /= direction.norm(dim=1, keepdim=True)
    squashed = squash(direction * length)
    torch.testing.assert_close(squashed, direction * (length**2 / (1 + length**2)))
    assert (squashed.norm(dim=1) < 1).all()
    torch.testing.assert_close(squash(-direction * length), -squashed)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *itertools.product([torch.float32, torch.float64], [0.0, 1e-30, 1e-20, 1e-10, 1e10, 1e18]),
        (torch.float64, 1e20),  # whose square is more than float32 holds
        (torch.float64, 1e150),
    ],
)
def test_squash_is_finite_in_value_and_gradient(dtype, value):
    vectors = torch.full((2, 8), value, dtype=dtype, requires_grad=True)
    squashed = squash(vectors)
    squashed.sum().backward()
    assert squashed.isfinite().all()
    assert vectors.grad.isfinite().all()
    length = squashed[0].detach().double().norm().item()
    assert length <= 1 + 1e-6
    assert length == pytest.approx(1 if value > 1 else 0, abs=1e-6)
    if value == 0:
        assert not squashed.any()
        assert not vectors.grad.any()


def test_squash_has_the_gradient_of_its_formula(generator):
    vectors = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, (vectors,))


def test_the_length_of_a_zero_capsule_has_a_finite_gradient():
    capsules = torch.zeros(2, 3, 4, requires_grad=True)
    lengths(capsules).sum().backward()
    assert not capsules.grad.any()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_primary_capsule_is_consecutive_channels_at_one_position(generator, stride):
    """Not a view, which would take one channel's neighbouring positions."""
    types, dim = 3, 4
    layer = PrimaryCaps(2, types, dim, kernel=3, stride=stride)
    features = torch.randn(2, 2, 7, 9, generator=generator)
    maps = layer.conv(features)
    _, _, rows, columns = maps.shape
    assert rows != columns
    capsules = layer(features)
    assert capsules.shape == (2, types * rows * columns, dim)
    for n in range(2):
        for t in range(types):
            for row in range(rows):
                for column in range(columns):
                    expected = squash(maps[n, t * dim : (t + 1) * dim, row, column])
                    actual = capsules[n, (t * rows + row) * columns + column]
                    torch.testing.assert_close(actual, expected)


def test_a_primary_capsule_sees_one_receptive_field(generator):
    """A change of one pixel reaches only the capsules whose 3x3 field holds it, of every type, and has no ReLU before it."""
    layer = PrimaryCaps(1, 3, 4, kernel=3, stride=1)
    image = torch.randn(1, 1, 6, 6, generator=generator)
    changed = image.clone()
    changed[0, 0, 0, 0] += 1
    moved = (layer(image) != layer(changed)).any(dim=2).view(3, 4, 4)
    assert moved[:, 0, 0].all()
    assert moved.sum() == 3
    assert (layer(image) < 0).any()


def test_votes_are_a_matrix_product_per_input_and_class(generator):
    inputs, input_dim, classes, dim = 5, 3, 4, 2
    layer = ClassCaps(inputs, input_dim, classes, dim, dynamic, 1, bias=False)
    layer.reset(generator)
    u = torch.randn(6, inputs, input_dim, generator=generator)
    votes = layer.votes(u)
    for n in range(6):
        for i in range(inputs):
            for j in range(classes):
                matrix = layer.weight[i][:, j * dim : (j + 1) * dim]
                torch.testing.assert_close(votes[n, i, j], u[n, i] @ matrix)


def test_class_capsules_route_with_their_iterations_and_bias(generator):
    for bias in (False, True):
        layer = ClassCaps(5, 3, 4, 2, dynamic, 3, bias=bias)
        layer.reset(generator)
        u = torch.randn(2, 5, 3, generator=generator)
        own = torch.full((4, 2), 0.1) if bias else None
        torch.testing.assert_close(layer(u), dynamic(layer.votes(u), 3, own))


def test_votes_start_from_a_normal_distribution_with_deviation_a_tenth(generator):
    layer = ClassCaps(100, 8, 10, 16, dynamic, 1, bias=True)
    before = torch.get_rng_state()
    layer.reset(generator)
    assert layer.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0, abs=0.002)
    assert (layer.bias == 0.1).all()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@pytest.fixture
def decoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)  # with other weights a layer of 6 units may be dead
        return Decoder(classes=4, dim=3, hidden=(8, 6), shape=(2, 3, 5))


def test_the_decoder_sees_only_the_class_it_is_told(decoder, generator):
    capsules = torch.randn(4, 4, 3, generator=generator)
    which = torch.eye(4)  # image n is told class n
    others = capsules.clone()
    for n in range(4):
        others[n, torch.arange(4) != n] = 1e3
    image = decoder(capsules, which)
    assert torch.equal(decoder(others, which), image)
    others[torch.arange(4), torch.arange(4)] += 0.5
    assert (decoder(others, which) != image).flatten(1).any(dim=1).all(), "its own class has an influence"


def test_the_decoder_keeps_each_class_in_its_own_place(decoder):
    """The same numbers in another class's capsule are another image: they are masked, not picked out."""
    capsules = torch.ones(2, 4, 3)
    image = decoder(capsules, torch.eye(4)[[0, 1]])
    assert (image[0] - image[1]).abs().max() > 1e-4


def test_the_decoder_makes_images_in_0_to_1(decoder, generator):
    image = decoder(1e4 * torch.randn(64, 4, 3, generator=generator), torch.eye(4).repeat(16, 1))
    assert image.shape == (64, 2, 3, 5)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.min() < 0.01
    assert image.max() > 0.99


def test_the_decoder_may_have_any_number_of_hidden_layers():
    sizes = {hidden: sum(p.numel() for p in Decoder(2, 3, hidden, (1, 2, 2)).parameters()) for hidden in [(), (5,), (5, 7)]}
    assert sizes == {(): 6 * 4 + 4, (5,): 6 * 5 + 5 + 5 * 4 + 4, (5, 7): 6 * 5 + 5 + 5 * 7 + 7 + 7 * 4 + 4}
