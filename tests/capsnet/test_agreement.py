"""Routing without votes, by PyTorch's operations, against explicit votes, held to procedure 1 by test_routing.py."""

import pytest
import torch

from capsnet import agreement
from capsnet.agreement import route
from capsnet.layers import ClassCaps
from capsnet.models import build
from capsnet.routing import dynamic, uniform

BATCH, INPUTS, SIZE, CLASSES, DIM = 5, 7, 3, 4, 6  # no two alike
ERRORS = {torch.float64: 1e-13, torch.float32: 2e-5}
"""|difference| / |reference|; measured: 4e-15, and 2e-6 of gradients after four passes."""


@pytest.fixture(autouse=True)
def not_in_c(monkeypatch):
    monkeypatch.setattr(agreement.agreement_native, "trusted", lambda: False)


@pytest.fixture
def leaves(generator):
    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(BATCH, INPUTS, SIZE), draw(INPUTS, SIZE, CLASSES * DIM), draw(CLASSES, DIM), draw(BATCH, CLASSES, DIM)


def by_votes(inputs, weight, iterations, bias):
    votes = torch.einsum("bie,ieo->bio", inputs, weight).unflatten(2, (CLASSES, DIM))
    return dynamic(votes, iterations, bias)


def answer(function, leaves, with_bias, dtype=torch.float64):
    """The capsules, and the gradients of inputs, weights and bias."""
    inputs, weight, bias, gradient = (leaf.to(dtype) for leaf in leaves)
    leaves = [leaf.requires_grad_() for leaf in ([inputs, weight, bias] if with_bias else [inputs, weight])]
    capsules = function(inputs, weight, bias if with_bias else None)
    return [capsules.detach(), *torch.autograd.grad(capsules, leaves, gradient)]


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
def test_capsules_and_gradients_are_those_of_explicit_votes(leaves, iterations, with_bias, dtype):
    wanted = answer(lambda u, w, b: by_votes(u, w, iterations, b), leaves, with_bias)
    found = answer(lambda u, w, b: route(u, w, CLASSES, iterations, b), leaves, with_bias, dtype)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - theirs).norm() < ERRORS[dtype] * theirs.norm()


@pytest.mark.parametrize(("together", "chunks"), [(0, 4), (1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_as_many_classes_at_once_as_fit_into_the_cache_give_the_same(leaves, together, chunks, monkeypatch):
    """Three of four leave one over; on a GPU all classes are worked on at once."""
    size = BATCH * INPUTS * SIZE * 8  # bytes of one class
    wanted = answer(lambda u, w, b: by_votes(u, w, 3, b), leaves, True)
    monkeypatch.setattr(agreement, "CACHE", together * size)
    assert (
        len(agreement._Classes(leaves[0].flatten(1), leaves[1].new_zeros(CLASSES, INPUTS * SIZE, 1), INPUTS).chunks) == chunks
    )
    found = answer(lambda u, w, b: route(u, w, CLASSES, 3, b), leaves, True)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


def test_gradients_pass_finite_differences(leaves):
    inputs, weight, bias, _ = (leaf.clone().requires_grad_() for leaf in leaves)
    small = inputs[:2, :3].detach().requires_grad_(), weight[:3].detach().requires_grad_(), bias
    assert torch.autograd.gradcheck(lambda u, w, b: route(u, w, CLASSES, 3, b), small)


@pytest.mark.parametrize("iterations", [1, 3])
def test_gradients_of_inputs_that_are_0_are_finite(leaves, iterations):
    inputs, weight, _, gradient = leaves
    inputs = torch.zeros_like(inputs).requires_grad_()
    route(inputs, weight, CLASSES, iterations).backward(gradient)
    assert inputs.grad.isfinite().all()


def test_large_votes_keep_capsules_and_gradients_finite(leaves):
    inputs, weight, _, gradient = (leaf.float() for leaf in leaves)
    inputs = (inputs * 1e3).requires_grad_()
    capsules = route(inputs, weight, CLASSES, 4)
    capsules.backward(gradient)
    assert capsules.isfinite().all()
    assert inputs.grad.isfinite().all()


def test_a_prediction_does_not_depend_on_its_batch_neighbours(leaves):
    inputs, weight, bias, _ = leaves
    together = route(inputs, weight, CLASSES, 3, bias)
    for n in range(BATCH):
        torch.testing.assert_close(route(inputs[n : n + 1], weight, CLASSES, 3, bias)[0], together[n], rtol=1e-12, atol=1e-13)


def test_the_inputs_stay_as_they_are(leaves):
    before = [leaf.clone() for leaf in leaves]
    answer(lambda u, w, b: route(u, w, CLASSES, 3, b), leaves, True)
    assert all(torch.equal(leaf, was) for leaf, was in zip(leaves, before, strict=True))


def test_no_iteration_is_refused(leaves):
    with pytest.raises(ValueError, match="1 iteration or more, not 0"):
        route(leaves[0], leaves[1], CLASSES, 0)


def test_votes_are_not_kept_for_the_gradient(leaves):
    """What is kept of an image are its inputs, a coefficient for each input, class and pass, and the weighted sums."""
    kept = []
    inputs, weight, _, _ = (leaf.clone().requires_grad_() for leaf in leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        route(inputs, weight, CLASSES, 3)
    votes = BATCH * INPUTS * CLASSES * DIM
    assert kept
    assert max(tensor.numel() for tensor in kept) < votes


@pytest.mark.parametrize(
    "changes", [{}, {"capsule_bias": True}, {"routing_iterations": 1}, {"routing": "uniform", "routing_iterations": 1}], ids=str
)
def test_networks_take_the_direct_way_and_it_is_the_votes(tiny, generator, changes, monkeypatch):
    model = build(tiny(**changes), generator)
    inputs = torch.randn(4, model.capsules.weight.shape[0], model.capsules.weight.shape[1], generator=generator)
    monkeypatch.setattr(ClassCaps, "votes", lambda *_: pytest.fail("votes were made"))
    direct = model.capsules(inputs)
    monkeypatch.undo()
    model.capsules.direct = None
    torch.testing.assert_close(direct, model.capsules(inputs), rtol=1e-4, atol=1e-6)
    assert model.capsules.routing in (dynamic, uniform)


@pytest.mark.parametrize(
    "changes", [{"squash": "efficient"}, {"none_of_the_above": True}, {"routing_gradient": "detached"}], ids=str
)
def test_what_it_does_not_compute_is_left_to_the_votes(tiny, generator, changes):
    assert build(tiny(**changes), generator).capsules.direct is None


class OnCuda(torch.Tensor):
    """A tensor that says that it is on a CUDA device."""

    is_cuda = True


@pytest.mark.parametrize("fault", ["", "capsules deviates by 1.0e+00"])
def test_kernels_are_used_where_they_can_be_trusted_and_else_it_is_said_why_not(leaves, fault, monkeypatch):
    inputs, weight, bias, _ = leaves
    called = []
    monkeypatch.setattr(agreement.agreement_triton, "supports", lambda *_: True)
    monkeypatch.setattr(agreement.agreement_triton, "self_check", lambda *_: fault)
    monkeypatch.setattr(agreement.agreement_triton, "route", lambda u, w, *rest: called.append(rest) or by_votes(u, w, 3, bias))
    agreement.agreement_triton._checked.cache_clear()
    on_card = inputs.as_subclass(OnCuda)
    if fault:
        with pytest.warns(UserWarning, match="the kernels of routing are not used on cpu: capsules deviates"):
            found = route(on_card, weight, CLASSES, 3, bias)
        route(on_card, weight, CLASSES, 3, bias)  # and it is said once
        assert not called
    else:
        found = route(on_card, weight, CLASSES, 3, bias)
        assert called == [(CLASSES, 3, bias)]
    torch.testing.assert_close(found.as_subclass(torch.Tensor), by_votes(inputs, weight, 3, bias), rtol=1e-12, atol=1e-13)
    agreement.agreement_triton._checked.cache_clear()


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("iterations", [2, 3, 4])
def test_products_that_onednn_makes_change_nothing(leaves, iterations, with_bias, asked, monkeypatch):
    """As those of the paper's network are, one class at a time."""
    wanted = answer(lambda u, w, b: by_votes(u, w, iterations, b), leaves, with_bias)
    monkeypatch.setattr(agreement, "CACHE", 0)
    monkeypatch.setattr("capsnet.products.LARGE", 0)
    found = answer(lambda u, w, b: route(u, w, CLASSES, iterations, b), leaves, with_bias, torch.float32)
    assert len(asked) == (iterations - 1) * CLASSES * 7  # two of a pass, five of its way back
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine.double() - theirs).norm() < ERRORS[torch.float32] * theirs.norm()
