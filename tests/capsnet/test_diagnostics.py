"""What routing is said to have done, against routing itself, a float64 NumPy transcription, and networks made to fail."""

import math

import numpy as np
import pytest
import torch

from capsnet import diagnostics
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.diagnostics import diagnose, passes
from capsnet.errors import InputError
from capsnet.layers import squash_efficient
from capsnet.metrics import SILENT
from capsnet.models import build, lengths
from capsnet.routing import dynamic, uniform
from capsnet.routings import ROUTINGS
from capsnet.state import stream


def looked_on(votes, iterations, bias, none=0):
    """Entropy per pass and mean |change of the logits| per update, one input and one class at a time.

    With ``none`` = 1 there is a further class, of logit 0 and without a capsule.
    """
    batch, inputs, classes, _ = votes.shape
    entropy, change = np.zeros(iterations), np.zeros(iterations)
    for n in range(batch):
        b = np.zeros((inputs, classes))
        for t in range(iterations):
            c = np.exp(b) / (np.exp(b).sum(axis=1, keepdims=True) + none)
            for i in range(inputs):
                parts = [*c[i], 1 - c[i].sum()] if none else c[i]
                entropy[t] -= sum(part * math.log(part) for part in parts) / (batch * inputs)
            for j in range(classes):
                s = sum(c[i, j] * votes[n, i, j] for i in range(inputs)) + bias[j]
                squared = float(s @ s)
                v = squared / (1 + squared) * s / np.sqrt(squared)
                for i in range(inputs):
                    step = votes[n, i, j] @ v
                    b[i, j] += step
                    change[t] += abs(step) / (batch * inputs * classes)
    return entropy, change[: iterations - 1]  # what the last pass adds is used by none


@pytest.fixture
def votes(generator):
    """[3, 7, 4, 5]: no two dimensions alike, and long enough that the agreement matters."""
    return torch.randn(3, 7, 4, 5, generator=generator, dtype=torch.float64)


@pytest.fixture
def bias(generator):
    return torch.randn(4, 5, generator=generator, dtype=torch.float64)


@pytest.fixture
def network(tiny):
    """(field=value, ...) -> the tiny network with its first weights."""

    def make(**changes):
        config: RunConfig = tiny(**changes)
        return build(config, stream(config.seed, "initialisation"))

    return make


@pytest.fixture
def test_images(tiny, data_of) -> Split:
    data: Data = data_of(tiny())
    return data.test


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("none", [False, True])
def test_the_passes_are_those_of_routing_and_of_procedure_1(votes, bias, iterations, with_bias, none):
    own = bias if with_bias else None
    found = passes(votes, iterations, own, none_of_the_above=none)
    for r in range(1, iterations + 1):
        assert torch.equal(found.capsules[r - 1], dynamic(votes, r, own, none_of_the_above=none))
    entropy, change = looked_on(votes.numpy(), iterations, bias.numpy() if with_bias else np.zeros((4, 5)), none)
    np.testing.assert_allclose(found.entropy.numpy(), entropy, rtol=1e-12)
    np.testing.assert_allclose(found.change.numpy(), change, rtol=1e-12)
    assert len(found.change) == iterations - 1


def test_uniform_coupling_is_one_pass_with_the_greatest_entropy(votes, bias):
    found = passes(votes, 1, bias)
    assert torch.equal(found.capsules[0], uniform(votes, 1, bias))
    assert found.entropy.tolist() == pytest.approx([math.log(4)])
    assert found.change.shape == (0,)


def test_entropy_falls_to_nothing_where_an_input_goes_to_one_class():
    votes = torch.zeros(2, 6, 3, 4)
    votes[:, :, 1] = 50.0  # all agree about class 1, and say nothing of the others
    entropy = passes(votes, 3).entropy
    assert entropy[0].item() == pytest.approx(math.log(3))
    assert entropy[1:].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_no_iterations_are_refused(votes):
    with pytest.raises(ValueError, match="1 iteration or more, not 0"):
        passes(votes, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"capsule_bias": True},
        {"routing": "uniform", "routing_iterations": 1},
        {"squash": "efficient", "none_of_the_above": True},
        {"routing_gradient": "detached"},
    ],
)
def test_a_diagnosis_is_the_mean_over_images_whatever_the_batches(network, test_images, changes, monkeypatch):
    made = network(**changes)
    found = diagnose(made, test_images)  # 360 images: the last batch of 100 is smaller
    with torch.inference_mode():
        inputs = made.primary(made.conv(test_images.batch(slice(None))).relu())
        given = {"none_of_the_above": True, "squash": squash_efficient} if "squash" in changes else {}
        whole = passes(made.capsules.votes(inputs), made.capsules.iterations, made.capsules.bias, **given)
        scores = made.scores(test_images.batch(slice(None)))
    torch.testing.assert_close(found.entropy, whole.entropy)
    torch.testing.assert_close(found.change, whole.change)
    torch.testing.assert_close(found.primary.flatten(), lengths(inputs).amax(dim=0))
    torch.testing.assert_close(found.classes, scores.amax(dim=0))
    assert found.mean_lengths == pytest.approx([lengths(inputs).mean().item(), scores.mean().item()], rel=1e-5)
    assert found.hidden == found.dead_hidden == []
    assert (found.images, found.iterations) == (360, made.capsules.iterations)
    assert found.outlets == (11 if "none_of_the_above" in changes else 10)
    torch.testing.assert_close(found.relative_entropy[0].item(), 1.0)
    monkeypatch.setattr(diagnostics, "BATCH", 7)
    torch.testing.assert_close(diagnose(made, test_images).entropy, found.entropy)


def test_with_hidden_layers_the_routing_to_the_classes_is_told_of_and_the_capsules_of_every_layer(network, test_images):
    made = network(hidden_capsules=(9, 7))
    with torch.no_grad():
        for layer in made.layers:
            layer.weight *= 100  # agreement has to matter
        made.primary.conv.weight[:4] = 0  # of the first type
        made.primary.conv.bias[:4] = 0
    found = diagnose(made, test_images)
    with torch.inference_mode():
        primary = made.primary_capsules(test_images.batch(slice(None)))
        middle = made.hidden[0](primary)
        hidden = made.hidden[1](middle)
        whole = passes(made.capsules.votes(hidden), 3)
        every = [lengths(capsules) for capsules in (primary, middle, hidden, whole.capsules[-1])]
    torch.testing.assert_close(found.entropy, whole.entropy)
    torch.testing.assert_close(found.change, whole.change)
    torch.testing.assert_close(found.primary.flatten(), lengths(primary).amax(dim=0))
    torch.testing.assert_close(found.classes, lengths(whole.capsules[-1]).amax(dim=0))
    for told, layer in zip(found.hidden, every[1:3], strict=True):
        torch.testing.assert_close(told, layer.amax(dim=0))
    assert found.mean_lengths == pytest.approx([layer.mean().item() for layer in every], rel=1e-5)
    assert found.dead_primary[0] == found.primary.shape[1]
    assert found.dead_hidden == [0, 0]
    with torch.no_grad():
        made.hidden[1].weight.unflatten(2, (7, 4))[:, :, 2:4] = 0
    assert diagnose(made, test_images).dead_hidden == [0, 2]
    assert (found.entropy[2] - found.entropy[0]).abs() > 0.01


def test_more_passes_than_the_network_makes_leave_its_capsules_alone(network, test_images):
    made = network()
    with torch.no_grad():
        made.capsules.weight *= 60  # agreement has to matter, or all passes would give the same capsules
    own, more = diagnose(made, test_images), diagnose(made, test_images, 6)
    assert len(more.entropy) == 6
    assert (more.entropy[5] - more.entropy[2]).abs() > 0.01
    torch.testing.assert_close(more.entropy[:3], own.entropy)
    torch.testing.assert_close(more.change[:2], own.change)
    torch.testing.assert_close(more.classes, own.classes)
    assert own.iterations == more.iterations == 3
    assert diagnose(made, test_images, 2).entropy.shape == (3,)


def test_relative_entropy_is_one_without_routing(network, test_images):
    found = diagnose(network(routing="uniform", routing_iterations=1), test_images)
    assert found.entropy.tolist() == pytest.approx([math.log(10)])
    assert found.relative_entropy.tolist() == pytest.approx([1], abs=1e-12)


def test_capsules_silenced_by_zero_weights_are_dead(network, test_images):
    made = network()
    with torch.no_grad():
        made.primary.conv.weight *= 10  # the first weights alone make short capsules
        made.capsules.weight *= 20
    alive = diagnose(made, test_images)
    assert alive.dead_primary.tolist() == [0, 0]
    with torch.no_grad():
        for parameter in (made.primary.conv.weight, made.primary.conv.bias):
            parameter[4:] = 0  # the second of two types of 4 numbers
        made.capsules.weight.unflatten(2, (10, 4))[:, :, 7] = 0
    found = diagnose(made, test_images)
    positions = found.primary.shape[1]
    assert found.dead_primary.tolist() == [0, positions]
    assert positions == len(made.capsules.weight) / 2
    assert alive.dead_classes == []
    assert found.dead_classes == [7]
    torch.testing.assert_close(found.primary[0], alive.primary[0])


def test_dead_is_who_is_silent_on_every_image(network, test_images):
    """The threshold lies at |s| = 1/3, and one image on which a capsule speaks is enough to live."""
    made = network()
    with torch.no_grad():
        made.primary.conv.weight.zero_()
        made.primary.conv.bias.zero_()
        made.primary.conv.bias[[0, 4]] = torch.tensor([0.99, 1.01]) / 3
    positions = len(made.capsules.weight) // 2
    assert pytest.approx((1 / 3) ** 2 / (1 + (1 / 3) ** 2)) == SILENT
    assert diagnose(made, test_images).dead_primary.tolist() == [positions, 0]
    loud = test_images.images.clone()
    loud[:-1] = 0  # all but the last image are black
    made = network()
    with torch.no_grad():
        for bias in (made.conv.bias, made.primary.conv.bias):
            bias.zero_()
        made.primary.conv.weight *= 1e3
    assert diagnose(made, Split(loud[:-1], test_images.labels[:-1])).dead_primary.tolist() == [positions, positions]
    assert diagnose(made, Split(loud, test_images.labels)).dead_primary.tolist() == [0, 0]


def test_no_images_are_refused(network, test_images):
    with pytest.raises(InputError, match="no images"):
        diagnose(network(), Split(test_images.images[:0], test_images.labels[:0]))


@pytest.mark.parametrize("name", [name for name in ROUTINGS if name not in ("dynamic", "uniform")])
def test_of_other_routings_no_more_than_their_own_passes_is_looked_at(network, test_images, name):
    made = network(routing=name, routing_iterations=2 if ROUTINGS[name]().iterated else 1)
    found = diagnose(made, test_images, 5)
    followed = {"random": (1,), "static": (1,), "em": (2,)}.get(name, (0,))
    assert found.entropy.shape == found.relative_entropy.shape == followed
    assert found.change.shape == (0,)
    with torch.inference_mode():
        inputs = made.primary_capsules(test_images.batch(slice(None)))
        torch.testing.assert_close(found.primary.flatten(), lengths(inputs).amax(dim=0))
        torch.testing.assert_close(found.classes, lengths(made.capsules(inputs)).amax(dim=0), rtol=1e-4, atol=1e-6)


def test_ems_assignments_have_an_entropy_per_pass(network, test_images, monkeypatch):
    """The mean over images, whatever the batches: at first an input's is the greatest there can be."""
    made = network(routing="em", routing_iterations=3)
    with torch.no_grad():
        made.capsules.weight *= 20  # votes have to differ, or all classes would explain them alike
    found = diagnose(made, test_images)
    with torch.inference_mode():
        inputs = made.primary_capsules(test_images.batch(slice(None)))
        _, assigned = made.capsules.routing.followed(made.capsules.votes(inputs), 3, None, lengths(inputs))
    expected = [-(each * each.log()).sum(dim=1).mean().item() for each in (a.double().clamp(min=1e-300) for a in assigned)]
    assert found.entropy.tolist() == pytest.approx(expected, rel=1e-5)
    assert found.relative_entropy[0] == pytest.approx(1)
    assert found.entropy[0] - found.entropy[2] > 0.01
    assert found.change.shape == (0,)
    monkeypatch.setattr(diagnostics, "BATCH", 7)
    torch.testing.assert_close(diagnose(made, test_images).entropy, found.entropy)


@pytest.mark.parametrize("none", [False, True])
def test_a_coupling_that_all_images_share_has_an_entropy(network, test_images, none):
    """That of what each input gives to the classes, and to none of them, against NumPy."""
    made = network(routing="static", routing_iterations=1, none_of_the_above=none)
    logits = made.capsules.routing.logits
    with torch.no_grad():
        logits.copy_(torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)))
    shared = np.exp(np.pad(logits.detach().double().numpy(), ((0, 0), (0, int(none)))))
    shared /= shared.sum(axis=1, keepdims=True)
    expected = -(shared * np.log(shared)).sum(axis=1).mean()
    found = diagnose(made, test_images)
    assert found.entropy.tolist() == pytest.approx([expected], rel=1e-6)
    assert found.relative_entropy.tolist() == pytest.approx([expected / math.log(10 + none)], rel=1e-6)
