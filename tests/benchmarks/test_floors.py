"""Counts of work: equal to torch's own counter, to the parameters of the network, and to arithmetic by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.clock import Spread
from benchmarks.floors import Floor, Work, floor, floors, inputs, parameters, work
from benchmarks.peaks import Peaks
from benchmarks.textbook import Textbook
from benchmarks.training import pictures
from capsnet.config import RunConfig
from capsnet.models import build
from capsnet.routing import dynamic

BATCH = 4


def counted(forward, *arguments):
    """FLOPs of forward and backward, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        forward(*arguments).sum().backward()
    return counter.get_total_flops()


@pytest.fixture(params=["small", "paper"])
def config(request, small, paper):
    return {"small": small(routing_iterations=4), "paper": paper}[request.param]


def test_flops_are_what_torch_counts(config, cpu):
    """Of the plain network; torch counts routing's products where they are matrix products."""
    textbook, found = Textbook(config), work(config)
    images = pictures(config, BATCH, cpu).batch(slice(None))
    features = textbook.conv(images).detach().requires_grad_()
    vectors = textbook.primary(features).detach().requires_grad_()
    capsules = torch.rand(BATCH, 10, config.class_dim, requires_grad=True)
    weight = textbook.digits.weight
    votes = torch.rand(BATCH, inputs(config), 10, config.class_dim, requires_grad=True)
    assert counted(textbook.conv, images) == BATCH * found["conv1"].flops
    assert counted(textbook.primary, features) == BATCH * found["PrimaryCaps"].flops
    assert counted(lambda u: torch.matmul(weight, u[:, :, None, :, None]), vectors) == BATCH * found["votes"].flops
    assert counted(lambda v: dynamic(v, config.routing_iterations), votes) == BATCH * found["routing"].flops
    assert counted(lambda v: textbook.decoder(v.flatten(1)), capsules) == BATCH * found["decoder"].flops


def test_the_papers_network_takes_as_much_as_is_said(paper):
    found = {part: done.flops for part, done in work(paper).items()}
    assert sum(found.values()) == pytest.approx(1.2e9, rel=0.01)
    assert found["PrimaryCaps"] / sum(found.values()) == pytest.approx(0.95, abs=0.01)


def test_parameters_are_those_of_the_network(config, cpu):
    model = build(config, torch.Generator())
    assert sum(parameters(config).values()) == sum(p.numel() for p in model.parameters())
    bias = type(config)(**{**config.model_dump(), "capsule_bias": True})
    assert sum(parameters(bias).values()) == sum(p.numel() for p in build(bias, torch.Generator()).parameters())


def test_bytes_by_hand(paper):
    """conv1 reads 28 x 28 pixels twice, writes 256 x 20 x 20 features and reads them twice, reads weights, writes gradients."""
    found = work(paper)
    assert found["conv1"] == Work(4 * 20 * 20 * 256 * 81, 4 * (2 * 784 + 3 * 102_400), 2 * 4 * (81 + 1) * 256)
    assert found["optimizer"].step_bytes == 7 * 4 * 8_215_568
    assert found["data"].image_bytes == 784 * 5
    half = work(paper, "bf16")
    assert half["PrimaryCaps"].image_bytes * 2 == found["PrimaryCaps"].image_bytes
    assert half["optimizer"] == found["optimizer"]  # Adam's moments stay fp32


def test_a_network_without_decoder_has_no_work_for_it(small):
    found = work(small(reconstruction_weight=0.0))
    assert found["decoder"] == Work(0)
    assert found["losses"].image_bytes < work(small())["losses"].image_bytes
    assert parameters(small(reconstruction_weight=0.0))["decoder"] == 0


def test_routing_with_one_pass_costs_nothing_beyond_its_votes(small):
    assert work(small(routing_iterations=1))["routing"] == Work(0)


def test_a_floor_is_the_longer_of_arithmetic_and_traffic():
    assert floor(Work(100, 10, 50), 4, 100, 10) == Floor(9.0, "traffic")  # 90 bytes at 10 per second
    assert floor(Work(100, 10, 50), 4, 10, 10) == Floor(40.0, "arithmetic")


def test_a_peak_is_the_best_of_two_measurements():
    first, second = (
        Peaks({"fp32": {"square": Spread((a, b))}}, Spread((b,)), {"square": "[2, 2] [2, 2]"}) for a, b in [(5, 7), (9, 6)]
    )
    both = first.with_those_of(second)
    assert both.flops_per_second == {"fp32": 9}
    assert both.bytes_per_second == 7
    assert both.products["fp32"]["square"].n == 4


def test_each_precision_has_its_peak(small):
    peaks = {"fp32": 1e9, "bf16": 1e10}
    slow, fast = (floors(small(), precision, peaks, 1e15) for precision in peaks)
    assert slow["PrimaryCaps"].seconds == pytest.approx(10 * fast["PrimaryCaps"].seconds)
    assert slow["PrimaryCaps"].seconds == 32 * work(small())["PrimaryCaps"].flops / 1e9
    assert list(slow) == ["conv1", "PrimaryCaps", "votes", "routing", "decoder", "losses", "optimizer", "data"]


def test_what_is_float32_at_every_precision_has_the_floor_of_float32():
    rates = {"fp32": 1e11, "bf16": 1e13}
    exact, rounded = (floors(RunConfig(), precision, rates, 1e10) for precision in ("fp32", "bf16"))
    assert {part for part in exact if exact[part] == rounded[part]} == {"votes", "routing", "losses", "optimizer", "data"}
    assert rounded["PrimaryCaps"].seconds < exact["PrimaryCaps"].seconds
