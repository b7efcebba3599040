"""Couplings other than by agreement, each against a float64 NumPy transcription, and what holds for every routing."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from capsnet.diagnostics import diagnose
from capsnet.em import EM, FLOOR, SMALL
from capsnet.errors import InputError
from capsnet.layers import RoutingModule, squash, squash_efficient
from capsnet.models import build, lengths
from capsnet.registry import SQUASHES, load
from capsnet.routing import Attention, OneSum, Random, Static, dynamic, uniform
from capsnet.routings import ROUTINGS, RoutingFacts
from capsnet.state import TrainingState
from capsnet.training import train
from capsnet.variants import require

ONE_SUM = {"random": Random, "static": Static, "attention": Attention}
EVERY = [{"routing": name, "routing_iterations": 2 if make().iterated else 1} for name, make in ROUTINGS.items()]
EVERY += [{"routing": "dynamic", "routing_gradient": "detached"}, {"routing": "dynamic", "none_of_the_above": True}]
EVERY += [{"routing": name, "squash": "efficient", "routing_iterations": 1} for name in ("dynamic", "em", "static")]
EVERY += [{"routing": "static", "routing_iterations": 1, "none_of_the_above": True}]


@pytest.fixture
def votes(generator):
    """[3, 7, 4, 5]: no two dimensions alike."""
    return torch.randn(3, 7, 4, 5, generator=generator, dtype=torch.float64)


@pytest.fixture
def bias(generator):
    return torch.randn(4, 5, generator=generator, dtype=torch.float64)


def made(kind, generator=None, **changes):
    """A routing of 7 inputs and 4 classes whose parameters are not 0."""
    generator = generator or torch.Generator().manual_seed(3)
    routing = kind(7, 4, **changes)
    routing.reset(generator)
    with torch.no_grad():
        for parameter in routing.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return routing.double()


def summed(coefficients, votes, bias):
    """Equations 1 and 2 of the paper with given coupling coefficients [batch, inputs, classes], one class at a time."""
    batch, inputs, classes, dim = votes.shape
    capsules = np.zeros((batch, classes, dim))
    for n, j in itertools.product(range(batch), range(classes)):
        s = sum(coefficients[n, i, j] * votes[n, i, j] for i in range(inputs)) + bias[j]
        capsules[n, j] = (s @ s) / (1 + s @ s) * s / np.sqrt(s @ s)
    return capsules


def softmax(logits, none=0):
    return np.exp(logits) / (np.exp(logits).sum() + none)


def attention(votes, priors, temperature=1.0):
    """Efficient-CapsNet, section 3, with its whole attention matrices: A = U U' / sqrt(d) of each class, C, and C + B."""
    batch, inputs, classes, dim = votes.shape
    coefficients = np.zeros((batch, inputs, classes))
    for n in range(batch):
        rows = np.zeros((inputs, classes))
        for j in range(classes):
            matrix = votes[n, :, j] @ votes[n, :, j].T / np.sqrt(dim)
            for i in range(inputs):
                rows[i, j] = sum(matrix[i, k] for k in range(inputs))
        for i in range(inputs):
            coefficients[n, i] = softmax(rows[i] / temperature) + priors[i]
    return coefficients


@pytest.mark.parametrize("with_bias", [False, True])
def test_random_coupling_is_a_weighted_sum_with_what_was_drawn(votes, bias, with_bias):
    routing = made(Random)
    drawn = routing.coupling.numpy()
    assert drawn.shape == (7, 4)
    np.testing.assert_allclose(drawn.sum(axis=1), np.ones(7), rtol=1e-6)
    expected = summed(np.tile(drawn, (3, 1, 1)), votes.numpy(), bias.numpy() if with_bias else np.zeros((4, 5)))
    np.testing.assert_allclose(routing(votes, 1, bias if with_bias else None).numpy(), expected, rtol=1e-12)


def test_random_coupling_is_the_softmax_of_standard_normal_logits(generator):
    """The logarithms, less their mean over the classes, have a standard deviation of sqrt(1 - 1 / classes)."""
    routing = Random(20_000, 4)
    routing.reset(generator)
    logs = routing.coupling.double().log()
    centred = logs - logs.mean(dim=1, keepdim=True)
    assert centred.std().item() == pytest.approx((3 / 4) ** 0.5, rel=0.02)
    assert (centred**4).mean().item() == pytest.approx(3 * (3 / 4) ** 2, rel=0.05), "the fourth moment of a normal distribution"


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("none", [False, True])
def test_static_coupling_is_the_softmax_of_learned_logits(votes, bias, with_bias, none):
    routing = made(Static, none_of_the_above=none)
    logits = routing.logits.detach().numpy()
    coefficients = np.array([[softmax(row, none) for row in logits]] * 3)
    expected = summed(coefficients, votes.numpy(), bias.numpy() if with_bias else np.zeros((4, 5)))
    np.testing.assert_allclose(routing(votes, 1, bias if with_bias else None).detach().numpy(), expected, rtol=1e-12)


def test_static_coupling_starts_uniform(votes, bias):
    routing = Static(7, 4)
    routing.reset(torch.Generator())
    torch.testing.assert_close(routing.double()(votes, 1, bias).detach(), uniform(votes, 1, bias))


@pytest.mark.parametrize(("with_bias", "temperature"), [(False, 1.0), (True, 1.0), (True, 5.0)])
def test_attention_is_that_of_efficient_capsnet(votes, bias, with_bias, temperature):
    routing = made(Attention, temperature=temperature)
    coefficients = attention(votes.numpy(), routing.priors.detach().numpy(), temperature)
    expected = summed(coefficients, votes.numpy(), bias.numpy() if with_bias else np.zeros((4, 5)))
    np.testing.assert_allclose(routing(votes, 1, bias if with_bias else None).detach().numpy(), expected, rtol=1e-11)
    plain = Attention(7, 4)
    plain.reset(torch.Generator())
    assert not plain.priors.any(), "no prior at first"


def matrix_capsules(votes, activations, iterations, of_use, of_activation, scale=1.0):
    """Procedure 1 of Hinton, Sabour and Frosst 2018 line by line, one example and one class at a time, as adapted in EM."""
    batch, inputs, classes, dim = votes.shape
    capsules, entropy = np.zeros((batch, classes, dim)), np.zeros(iterations)
    for n in range(batch):
        r = np.full((inputs, classes), 1 / classes)
        for t in range(iterations):
            if t:  # the E-step
                p = np.zeros((inputs, classes))
                for i, j in itertools.product(range(inputs), range(classes)):
                    exponent = -sum((votes[n, i, j, h] - mean[j, h]) ** 2 / (2 * variance[j, h]) for h in range(dim))
                    p[i, j] = np.exp(exponent) / np.sqrt(np.prod([2 * np.pi * variance[j, h] for h in range(dim)]))
                r = np.array([active * p[i] / sum(active * p[i]) for i in range(inputs)])
            entropy[t] -= (r * np.log(r)).sum() / (batch * inputs)
            # the M-step
            weighted = np.array([r[i] * activations[n, i] for i in range(inputs)])
            amount = weighted.sum(axis=0) + SMALL
            mean, variance, total = np.zeros((classes, dim)), np.zeros((classes, dim)), np.zeros(classes)
            for j in range(classes):
                mean[j] = sum(weighted[i, j] * votes[n, i, j] for i in range(inputs)) / amount[j]
                variance[j] = sum(weighted[i, j] * (votes[n, i, j] - mean[j]) ** 2 for i in range(inputs)) / amount[j] + FLOOR
                total[j] = sum((of_use[j] + np.log(np.sqrt(variance[j, h]))) * amount[j] / amount.mean() for h in range(dim))
            active = 1 / (1 + np.exp(-(of_activation - (total - total.mean()) * scale / dim)))
        for j in range(classes):
            capsules[n, j] = active[j] * mean[j] / np.sqrt(mean[j] @ mean[j] + SMALL)
    return capsules, entropy


@pytest.fixture
def activations(generator):
    return torch.rand(3, 7, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("iterations", "scale"), [(1, 1.0), (2, 1.0), (3, 1.0), (3, 4.0)])
def test_em_is_the_procedure_of_matrix_capsules(votes, activations, iterations, scale):
    routing = made(EM, scale=scale)
    learned = [parameter.detach().numpy() for parameter in (routing.of_use, routing.of_activation)]
    expected, entropy = matrix_capsules(votes.numpy(), activations.numpy(), iterations, *learned, scale)
    actual = routing(votes, iterations, None, activations).detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)
    _, assigned = routing.followed(votes, iterations, None, activations)
    found = [torch.special.entr(each.detach()).sum(dim=1).mean().item() for each in assigned]
    np.testing.assert_allclose(found, entropy, rtol=1e-9)
    if iterations > 1:
        before = routing(votes, iterations - 1, None, activations).detach().numpy()
        assert np.abs(actual - before).max() > 1e-2, "each pass changes the answer"


def test_em_gives_capsules_whose_lengths_are_activations(votes, activations):
    """The more alike the votes for a class, the more active it is; nothing else tells these classes apart."""
    votes = votes.clone()
    votes[:, :, 2] = votes[:, :1, 2] + votes[:, :, 2] / 100
    routing = EM(7, 4).double()
    routing.reset(torch.Generator())
    for iterations in (1, 3):
        found = lengths(routing(votes, iterations, None, activations))
        assert (found.argmax(dim=1) == 2).all()
        assert ((found >= 0) & (found <= 1)).all()


def test_em_gradients_pass_finite_differences(votes, activations):
    routing = made(EM)
    leaves = votes[:1, :4].clone().requires_grad_(), activations[:1, :4].clone().requires_grad_()
    for iterations in (1, 3):
        assert torch.autograd.gradcheck(lambda v, a, r=iterations: routing(v, r, None, a), leaves)


def test_em_does_not_look_at_other_examples(votes, activations):
    routing = made(EM)
    together = routing(votes, 3, None, activations)
    for n in range(len(votes)):
        alone = routing(votes[n : n + 1], 3, None, activations[n : n + 1])[0]
        torch.testing.assert_close(alone, together[n], rtol=1e-11, atol=1e-13)


def test_em_is_given_the_lengths_of_the_primary_capsules(tiny, generator):
    model = build(tiny(routing="em", routing_iterations=2), generator)
    inputs = model.primary_capsules(torch.rand(3, 1, 16, 16, generator=generator))
    expected = model.capsules.routing(model.capsules.votes(inputs), 2, None, lengths(inputs))
    torch.testing.assert_close(model.capsules(inputs), expected)


def test_em_refuses_to_make_no_pass(votes, activations):
    with pytest.raises(ValueError, match="1 iteration or more, not 0"):
        made(EM)(votes, 0, None, activations)


def test_parameters_reach_the_routing(tiny, generator):
    for text, canonical, name, value in (
        ("attention( temperature = 4 )", "attention(temperature=4)", "temperature", 4),
        ("attention(temperature=1)", "attention", "temperature", 1.0),
        ("em(scale=0.5)", "em(scale=0.5)", "scale", 0.5),
    ):
        config = tiny(routing=text, routing_iterations=2 if text.startswith("em") else 1)
        assert config.routing == canonical
        assert getattr(build(config, generator).capsules.routing, name) == value


class Tempered(RoutingModule):
    """As a user may add one: procedure 1 with logits divided by a temperature, of any number of passes."""

    def __init__(self, inputs, classes, squash=squash, temperature=1.0):
        super().__init__()
        self.squash, self.temperature = squash, temperature

    def forward(self, votes, iterations, bias=None):
        return self.followed(votes, iterations, bias)[0]

    def followed(self, votes, iterations, bias=None):
        logits, coupled = votes.new_zeros(votes.shape[:3]), []
        for i in range(iterations):
            coupled.append((logits / self.temperature).softmax(dim=2).transpose(1, 2))
            total = (coupled[-1].transpose(1, 2)[..., None] * votes).sum(dim=1)
            capsules = self.squash(total if bias is None else total + bias)
            if i < iterations - 1:
                logits = logits + (votes * capsules[:, None]).sum(dim=3)
        return capsules, coupled


@pytest.fixture
def tempered(monkeypatch):
    def facts(*, temperature: float = 1.0) -> RoutingFacts:
        require(temperature > 0, "temperature", "above 0", temperature)
        return RoutingFacts(f"{__name__}:Tempered", {"temperature": temperature}, iterated=True)

    monkeypatch.setitem(ROUTINGS, "tempered", facts)


@pytest.mark.usefixtures("tempered")
def test_a_routing_of_ones_own_has_parameters_an_r_and_is_followed(tiny, cpu, data_of, generator):
    config = tiny(routing="tempered(temperature=0.5)", routing_iterations=3, epochs=1, test_routing_iterations=(1,))
    model = build(config, generator)
    with torch.no_grad():
        model.capsules.weight *= 20  # votes have to differ, or no temperature shows
    inputs = model.primary_capsules(torch.rand(3, 1, 16, 16, generator=generator))
    assert torch.equal(model.capsules(inputs), Tempered(0, 0, temperature=0.5)(model.capsules.votes(inputs), 3))
    plain = dynamic(model.capsules.votes(inputs), 3)
    torch.testing.assert_close(Tempered(0, 0)(model.capsules.votes(inputs), 3), plain)
    assert not torch.allclose(model.capsules(inputs), plain, rtol=1e-3)
    state = TrainingState(config, cpu)
    [metrics] = train(state, data_of(config))
    found = diagnose(state.model, data_of(config).sample(50))
    assert found.entropy.shape == (3,)
    assert found.entropy[0] == pytest.approx(math.log(10))
    assert 0 < metrics.coupling_entropy < math.log(10) + 1e-4


@pytest.mark.usefixtures("tempered")
def test_what_a_routing_of_ones_own_does_not_take_is_refused(tiny):
    tiny(routing="tempered", routing_iterations=2, capsule_bias=True, squash="half")
    for changes, said in (
        ({"none_of_the_above": True}, "with routing tempered it must be false"),
        ({"routing_gradient": "detached"}, "it needs routing dynamic"),
        ({"routing": "tempered(temperature=0)"}, "temperature must be above 0, not 0"),
        ({"routing": "tempered(sharpness=1)"}, "unknown parameter 'sharpness'"),
    ):
        with pytest.raises((ValueError, InputError), match=re.escape(said)):
            tiny(**{"routing": "tempered", "routing_iterations": 2, **changes})


@pytest.mark.parametrize("held", ["a parameter", "a buffer", "nothing"])
def test_a_routing_of_ones_own_that_gives_no_first_values_has_none_to_give(generator, held):
    """Else it would begin with whatever stood in memory."""
    routing = Tempered(7, 4)
    if held == "a parameter":
        routing.logits = torch.nn.Parameter(torch.empty(7, 4))
    if held == "a buffer":
        routing.register_buffer("logits", torch.empty(7, 4))
    if held == "nothing":
        routing.reset(generator)
        return
    with pytest.raises(NotImplementedError, match="Tempered has parameters or buffers, and gives them no first values"):
        routing.reset(generator)


@pytest.mark.parametrize("kind", ONE_SUM.values())
def test_one_weighted_sum_is_all(votes, kind):
    with pytest.raises(ValueError, match="one weighted sum, not 3"):
        made(kind)(votes, 3)


@pytest.mark.parametrize("name", [name for name in ROUTINGS if name != "em"])
@pytest.mark.parametrize("squashed", ["efficient", "half"])
def test_another_squash_is_that_of_primary_and_class_capsules(tiny, generator, name, squashed):
    """Of one weighted sum: the capsules by hand, from the maps of the second convolution."""
    model = build(tiny(routing=name, routing_iterations=1, squash=squashed, capsule_bias=True), generator)
    images = torch.rand(3, 1, 16, 16, generator=generator)
    function = load(SQUASHES[squashed])
    maps = model.primary.conv(model.conv(images).relu())
    inputs = function(maps.unflatten(1, (2, 4)).permute(0, 1, 3, 4, 2).flatten(1, 3))
    torch.testing.assert_close(model.primary_capsules(images), inputs)
    votes, routing = model.capsules.votes(inputs), model.capsules.routing
    coefficients = routing.coefficients(votes) if isinstance(routing, OneSum) else torch.full((1, 1, 1), 0.1)
    total = (coefficients[..., None] * votes).sum(dim=1) + model.capsules.bias
    torch.testing.assert_close(model.encode(images), function(total))


@pytest.mark.parametrize("iterations", [2, 3])
def test_every_pass_takes_the_squash(votes, iterations):
    capsules, logits = None, torch.zeros(3, 7, 4, dtype=torch.float64)
    for _ in range(iterations):
        capsules = squash_efficient((logits.softmax(dim=2)[..., None] * votes).sum(dim=1))
        logits = logits + (votes * capsules[:, None]).sum(dim=3)
    torch.testing.assert_close(dynamic(votes, iterations, squash=squash_efficient), capsules)


@pytest.mark.parametrize("kind", [Static, Attention])
def test_gradients_pass_finite_differences(votes, kind):
    routing = made(kind)
    (parameter,) = routing.parameters()

    def capsules(votes, values):
        return torch.func.functional_call(routing, {name: values for name, _ in routing.named_parameters()}, (votes,))

    leaves = votes[:1].clone().requires_grad_(), parameter.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(capsules, leaves)


@pytest.mark.parametrize("kind", ONE_SUM.values())
def test_a_prediction_does_not_depend_on_its_batch_neighbours(votes, bias, kind):
    routing = made(kind)
    together = routing(votes, 1, bias)
    for n in range(len(votes)):
        torch.testing.assert_close(routing(votes[n : n + 1], 1, bias)[0], together[n], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("changes", EVERY, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_and_gradients_are_finite_where_there_is_nothing_to_see(tiny, generator, changes, value):
    """Blank images, and primary capsules that are 0 whatever the image, so that every vote is 0."""
    model = build(tiny(**changes), generator)
    with torch.no_grad():
        model.primary.conv.weight.zero_()
        model.primary.conv.bias.zero_()
    for network in (model, build(tiny(**changes), generator)):
        capsules = network.encode(torch.full((2, 1, 16, 16), value))
        lengths(capsules).sum().backward()
        assert capsules.isfinite().all()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_gradients_reach_every_weight(tiny, generator, changes):
    model = build(tiny(**changes), generator)
    capsules = model.encode(torch.rand(6, 1, 16, 16, generator=generator))
    (capsules.sum() + model.reconstruct(capsules, torch.arange(6)).sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_random_coupling_is_the_same_with_a_decoder_and_without(tiny):
    """Paired runs differ in nothing else; another seed draws other coefficients."""
    first, second, other = (
        build(tiny(routing="random", routing_iterations=1, reconstruction_weight=weight), torch.Generator().manual_seed(seed))
        for weight, seed in ((0.0, 5), (5e-4, 5), (0.0, 6))
    )
    assert torch.equal(first.capsules.routing.coupling, second.capsules.routing.coupling)
    assert not torch.equal(first.capsules.routing.coupling, other.capsules.routing.coupling)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", EVERY[2:], ids=str)
def test_a_run_that_goes_on_equals_one_that_was_never_interrupted(tiny, data_of, tmp_path, cpu, changes, precision):
    config = tiny(precision=precision, **changes)
    whole = TrainingState(config, cpu)
    fixed = {name: tensor.clone() for name, tensor in whole.model.named_buffers()}
    losses = [metrics.train_loss for metrics in train(whole, data_of(config))]
    assert losses[1] < losses[0]
    for name, tensor in whole.model.named_buffers():
        assert torch.equal(tensor, fixed[name]), "what was drawn once stays"
    broken = TrainingState(config, cpu)
    next(train(broken, data_of(config)))
    broken.save(tmp_path / "state")
    resumed = TrainingState.load(tmp_path / "state", cpu)
    list(train(resumed, data_of(config)))
    mine, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("changes", EVERY, ids=str)
def test_an_exported_network_gives_the_same_scores(tiny, generator, changes):
    model = build(tiny(**changes), generator).eval()
    images = torch.rand(5, 1, 16, 16, generator=generator)
    model.forward = model.scores
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(images[:3]), model.scores(images[:3]), rtol=1e-5, atol=1e-6)
