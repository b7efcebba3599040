"""Routing against a float64 NumPy transcription of the paper's procedure 1, and against what others got wrong."""

import itertools
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch

from capsnet.layers import ClassCaps, squash, squash_efficient
from capsnet.routing import dynamic, routing_of, uniform


def procedure_1(votes, iterations, bias, none=0):
    """The paper's text line by line, one example, one input and one class at a time; ``none`` more classes of logit 0."""
    batch, inputs, classes, dim = votes.shape
    answer = np.zeros((batch, classes, dim))
    for n in range(batch):
        b = np.zeros((inputs, classes))
        for _ in range(iterations):
            c = np.zeros((inputs, classes))
            for i in range(inputs):
                c[i] = np.exp(b[i]) / (sum(np.exp(b[i, k]) for k in range(classes)) + none)
            v = np.zeros((classes, dim))
            for j in range(classes):
                s = sum(c[i, j] * votes[n, i, j] for i in range(inputs)) + bias[j]
                squared = float(s @ s)
                v[j] = squared / (1 + squared) * s / np.sqrt(squared)
            for i in range(inputs):
                for j in range(classes):
                    b[i, j] += votes[n, i, j] @ v[j]
        answer[n] = v
    return answer


@pytest.fixture
def votes(generator):
    """[3, 7, 4, 5]: no two dimensions alike, and long enough that the agreement matters."""
    return torch.randn(3, 7, 4, 5, generator=generator, dtype=torch.float64)


@pytest.fixture
def bias(generator):
    return torch.randn(4, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dynamic_is_procedure_1(votes, bias, iterations, with_bias):
    expected = procedure_1(votes.numpy(), iterations, bias.numpy() if with_bias else np.zeros((4, 5)))
    actual = dynamic(votes, iterations, bias if with_bias else None)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("with_bias", [False, True])
def test_none_of_the_above_takes_its_share_in_each_pass(votes, bias, iterations, with_bias):
    own = bias if with_bias else None
    expected = procedure_1(votes.numpy(), iterations, bias.numpy() if with_bias else np.zeros((4, 5)), none=1)
    actual = dynamic(votes, iterations, own, none_of_the_above=True)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-14)
    assert (actual - dynamic(votes, iterations, own)).abs().max() > 1e-2


def test_each_pass_changes_the_answer(votes):
    """So that the oracle above tells one r from the next."""
    answers = [dynamic(votes, r) for r in (1, 2, 3, 4)]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.pairwise(answers))


def test_one_iteration_is_uniform_coupling(votes, bias):
    for b in (None, bias):
        torch.testing.assert_close(dynamic(votes, 1, b), uniform(votes, 1, b), rtol=0, atol=0)
    torch.testing.assert_close(uniform(votes), squash(votes.mean(dim=1) * 7 / 4))


def test_uniform_refuses_iterations_that_would_do_nothing(votes):
    with pytest.raises(ValueError, match="one weighted sum, not 3"):
        uniform(votes, 3)


def test_no_iteration_is_no_routing(votes):
    with pytest.raises(ValueError, match="1 iteration or more, not 0"):
        dynamic(votes, 0)


def test_an_input_shares_itself_out_over_the_classes():
    """A single input that votes alike for two classes gives each half of itself in every pass.

    Softmax over the inputs would give it whole to both.
    """
    vote = torch.tensor([3.0, 4.0])
    capsules = dynamic(vote.expand(1, 1, 2, 2), 3)
    torch.testing.assert_close(capsules, squash(vote / 2).expand(1, 2, 2))


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_prediction_does_not_depend_on_its_batch_neighbours(votes, bias, iterations):
    together = dynamic(votes, iterations, bias)
    for n in range(len(votes)):
        torch.testing.assert_close(dynamic(votes[n : n + 1], iterations, bias)[0], together[n], rtol=1e-13, atol=1e-14)
    doubled = votes.clone()
    doubled[1:] *= 50
    torch.testing.assert_close(dynamic(doubled, iterations, bias)[0], together[0], rtol=1e-13, atol=1e-14)


def test_logits_are_not_kept_between_calls(votes, generator):
    first = dynamic(votes, 3)
    dynamic(-2 * votes, 3)
    assert torch.equal(dynamic(votes, 3), first)

    layer = ClassCaps(7, 3, 4, 5, dynamic, 3, bias=True)
    layer.reset(generator)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    inputs = torch.randn(2, 7, 3, generator=generator)
    first = layer(inputs)
    layer(-2 * inputs)
    assert torch.equal(layer(inputs), first)
    assert before.keys() == {"weight", "bias"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_gradients_flow_through_all_passes(votes, bias):
    """Finite differences see every pass, so a pass that is detached fails."""
    small = votes[:1, :3].clone().requires_grad_()
    own = bias.clone().requires_grad_()
    for iterations, none in itertools.product((1, 2, 3), (False, True)):
        assert torch.autograd.gradcheck(lambda v, b, r=iterations, n=none: dynamic(v, r, b, none_of_the_above=n), (small, own))


@pytest.mark.parametrize("none", [False, True])
def test_detached_coupling_has_the_same_values_and_the_gradient_of_constant_coefficients(votes, bias, none):
    """The last weighted sum with the coefficients that it had, written down as numbers."""

    def transcribed(votes, bias):
        """Agreement by agreement, with coefficients that the gradient takes for constants."""
        logits = torch.zeros(votes.shape[:3], dtype=votes.dtype)
        for _ in range(3):
            powers = logits.exp()
            coupling = (powers / (powers.sum(dim=2, keepdim=True) + none)).detach()
            total = (coupling[..., None] * votes).sum(dim=1) + bias
            squared = total.square().sum(dim=2, keepdim=True)
            capsules = squared / (1 + squared) * total / squared.sqrt()
            logits = logits + (votes * capsules[:, None]).sum(dim=3).detach()
        return capsules

    def gradients(routing):
        leaves = votes.clone().requires_grad_(), bias.clone().requires_grad_()
        capsules = routing(*leaves)
        torch.testing.assert_close(capsules, dynamic(votes, 3, bias, none_of_the_above=none))
        return torch.autograd.grad(capsules[..., 0].sum(), leaves)

    wanted = gradients(transcribed)
    found = gradients(lambda v, b: dynamic(v, 3, b, none_of_the_above=none, detached=True))
    full = gradients(lambda v, b: dynamic(v, 3, b, none_of_the_above=none))
    for mine, theirs, others in zip(found, wanted, full, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)
        assert (mine - others).abs().max() > 1e-3


def test_without_a_bias_opposite_votes_give_opposite_capsules(votes, bias):
    """Peer 2021: routing without a bias can't tell x from -x; with one it can."""
    torch.testing.assert_close(dynamic(-votes, 3), -dynamic(votes, 3))
    assert (dynamic(-votes, 3, bias) + dynamic(votes, 3, bias)).abs().max() > 0.1


def test_large_votes_keep_the_capsules_finite(votes):
    """A softmax of logits in the hundreds must not overflow."""
    leaf = (votes.float() * 1e3).requires_grad_()
    capsules = dynamic(leaf, 4)
    capsules.sum().backward()
    assert capsules.isfinite().all()
    assert leaf.grad.isfinite().all()


def test_shapes_are_checked_in_tests():
    """The import hook of jaxtyping is on: a votes tensor without a batch is refused."""
    with pytest.raises(jaxtyping.TypeCheckError):
        dynamic(torch.zeros(7, 4, 5), 3)


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({}, {}),
        ({"none_of_the_above": True}, {"none_of_the_above": True}),
        ({"routing_gradient": "detached"}, {"detached": True}),
        ({"squash": "efficient"}, {"squash": squash_efficient}),
    ],
    ids=["nothing", "none of the above", "detached", "squash"],
)
def test_a_config_is_routed_as_its_fields_say(tiny, votes, fields, given):
    """In value and gradient, of which each field changes at least one."""

    def of(routing):
        leaf = (votes * 3).requires_grad_()
        capsules = routing(leaf, 3)
        (capsules * torch.arange(capsules.numel()).view_as(capsules)).sum().backward()
        return torch.cat([capsules.detach().flatten(), leaf.grad.flatten()])

    found = of(routing_of(tiny(**fields), *votes.shape[1:3]))
    assert torch.equal(found, of(partial(dynamic, **given)))
    assert torch.equal(found, of(dynamic)) is (not fields)
