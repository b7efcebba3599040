"""The parts of a step do the step's work: what they give is what the whole network gives."""

import pytest
import torch

from benchmarks import parts
from benchmarks.clock import Spread
from benchmarks.floors import work
from benchmarks.training import changed, pictures, precisions
from capsnet.data import Data
from capsnet.execution import Settled
from capsnet.state import TrainingState
from capsnet.step import Steps


@pytest.fixture
def ready(small, cpu):
    config = small()
    return TrainingState(config, cpu), pictures(config, config.batch_size, cpu)


def test_a_part_gives_the_gradients_of_its_weights_and_inputs(ready):
    state, batch = ready
    count, config = len(batch), state.config
    (weight, bias) = parts.conv1(state, batch)()
    assert (weight.shape, bias.shape) == (state.model.conv.weight.shape, state.model.conv.bias.shape)
    first, _, second, _ = parts.primary_capsules(state, batch)()
    assert (first.shape, second.shape) == (weight.shape, state.model.primary.conv.weight.shape)
    vectors, matrices = parts.class_capsules(state, batch, 3)()
    assert vectors.shape == (count, 3 * 4 * 4, config.primary_dim)
    assert matrices.shape == state.model.capsules.weight.shape
    capsules, *_ = parts.decoder(state, batch)()
    assert capsules.shape == (count, 10, config.class_dim)
    assert [tuple(g.shape) for g in parts.both_losses(state, batch)()] == [(count, 10, config.class_dim), (count, 1, 16, 16)]


def test_votes_are_one_pass_of_routing_and_the_network_keeps_its_own(ready):
    state, batch = ready
    three, one = (parts.class_capsules(state, batch, r)()[1] for r in (3, 1))
    assert not torch.allclose(one, three)
    assert state.model.capsules.iterations == 3


def test_the_optimizers_part_moves_the_weights(ready):
    state, batch = ready
    step = parts.optimizer(state, batch)
    before = state.model.conv.weight.detach().clone()
    step()
    assert not torch.equal(before, state.model.conv.weight)


def test_the_whole_is_a_step_of_a_run(small, cpu):
    """To the bit, two steps long."""
    config = small(epochs=1, validation_size=0)
    batch = pictures(config, 2 * config.batch_size, cpu)
    run, timed = TrainingState(config, cpu), TrainingState(config, cpu)
    steps = Steps(run, Data(batch, batch, batch, ""), Settled(compile=False, graph=False))
    steps.begin(parts._drawn(run, batch), [config.learning_rate] * 2)
    for number in range(2):
        steps.take(number)
        part = slice(number * config.batch_size, (number + 1) * config.batch_size)
        drawn = parts._drawn(timed, batch).at(part)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "_drawn", lambda *_: drawn)  # noqa: B023
            parts.whole(timed, batch)()
    assert all(torch.equal(one, other) for one, other in zip(run.moving(), timed.moving(), strict=True))


def test_a_batch_holds_every_image_once_in_another_order(ready):
    state, batch = ready
    made = parts.feeding(state, batch)()
    assert made.images.shape == (len(batch), 1, 16, 16)
    assert not torch.equal(made.labels, batch.labels)
    assert torch.equal(made.labels.sort().values, batch.labels.sort().values)


@pytest.mark.parametrize("precision", precisions(torch.device("cpu")))
def test_every_part_has_its_floor_at_every_precision(small, cpu, precision):
    found, step = parts.measure(changed(small(), precision=precision), cpu, 0, least=2)
    assert list(found) == list(work(small()))
    assert found.keys() > parts.BEYOND.keys() | set(parts.BEYOND.values())
    assert step.n == 2
    assert all(spread.n == 2 for spread in found.values())


@pytest.mark.parametrize("changes", [{"reconstruction_weight": 0.0}, {"routing_iterations": 1}])
def test_networks_without_decoder_or_routing_are_measured_too(small, cpu, changes):
    found, step = parts.measure(small(**changes), cpu, 0, least=1)
    assert step.low > 0
    if "reconstruction_weight" in changes:
        assert found["decoder"].high < 0.1 * step.low


def test_what_the_parts_do_not_explain():
    found = {"a": Spread((1.0, 2.0)), "b": Spread((2.0, 4.0))}
    assert parts.unexplained(found, Spread((4.0, 4.0))).samples == pytest.approx((0.25, -0.5))


def test_a_part_that_is_measured_with_another_is_what_is_beyond_it(small, cpu, monkeypatch):
    seconds = {"conv1": 1, "PrimaryCaps": 5, "votes": 2, "routing": 9, "decoder": 3, parts.WHOLE: 20}
    monkeypatch.setattr(parts, "passes", lambda config, device: {name: lambda s=s: s for name, s in seconds.items()})
    found, step = parts.measure(small(), cpu, 0, least=1)
    assert {name: spread.median for name, spread in found.items()} == {
        "conv1": 1,
        "PrimaryCaps": 4,
        "votes": 2,
        "routing": 7,
        "decoder": 3,
    }
    assert step.median == 20
