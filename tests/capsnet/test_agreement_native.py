"""Routing in C against explicit votes in float64, which test_routing.py holds to the paper's procedure 1."""

import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch
from jaxtyping import TypeCheckError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from capsnet import agreement, agreement_native, native
from capsnet.agreement import route
from capsnet.config import RunConfig
from capsnet.models import build
from capsnet.program import export
from capsnet.routing import dynamic


def forget():
    """As in another process."""
    native.load.cache_clear()
    native.version.cache_clear()


ERROR = 5e-6
"""|difference| / |reference|; measured: 1e-6 of gradients after four passes."""

PAPER = (128, 1152, 8, 10, 16)


@pytest.fixture(autouse=True)
def compiler():
    if not native.suits() or not native.compiler():
        pytest.skip("there is no C compiler, or none for this CPU")


def drawn(batch, count, input_dim, classes, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, count, input_dim), (count, input_dim, classes * dim), (classes, dim), (batch, classes, dim)
    inputs, weight, bias, gradient = (torch.randn(shape, generator=generator) for shape in shapes)
    return inputs, weight * (2 / (count * input_dim) ** 0.5), bias * 0.1, gradient


def answer(function, leaves, iterations, biased=True):
    """The capsules, and the gradients of inputs, weights and bias."""
    inputs, weight, bias, gradient = leaves
    classes = bias.shape[0]
    own = [leaf.detach().clone().requires_grad_() for leaf in ((inputs, weight, bias) if biased else (inputs, weight))]
    capsules = function(own[0], own[1], classes, iterations, own[2] if biased else None)
    return [capsules.detach(), *torch.autograd.grad(capsules, own, gradient)]


def truth(leaves, iterations, biased=True):
    def by_votes(inputs, weight, classes, iterations, bias):
        votes = torch.einsum("bie,ieo->bio", inputs, weight).unflatten(2, (classes, -1))
        return dynamic(votes, iterations, bias)

    return answer(by_votes, [leaf.double() for leaf in leaves], iterations, biased)


def errors(found, wanted):
    return [float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(found, wanted, strict=True)]


SIZES = [
    (1, 1, 1, 1, 1),
    (1, 3, 2, 2, 1),
    (5, 7, 3, 4, 6),
    (16, 16, 8, 2, 8),  # whole vectors, tiles and groups
    (17, 17, 9, 3, 9),  # each of them and one
    (15, 15, 7, 5, 7),
    (33, 200, 12, 10, 20),
    (100, 65, 5, 12, 3),
    (2, 300, 4, 3, 40),  # several chunks of one block
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_capsules_and_gradients_are_those_of_explicit_votes(sizes, iterations, biased):
    leaves = drawn(*sizes)
    found = answer(agreement_native.route, leaves, iterations, biased)
    assert max(errors(found, truth(leaves, iterations, biased))) < ERROR


@pytest.mark.parametrize("capability", native.UNITS)
def test_with_vectors_of_either_size(capability, monkeypatch):
    """A CPU of the longer vectors has the shorter ones, too."""
    if capability == "AVX512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this CPU has no AVX-512")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    forget()
    assert agreement_native._lane_count() == {"AVX512": 16, "AVX2": 8}[capability]
    assert max(agreement_native.deviations().values()) < ERROR
    monkeypatch.undo()
    forget()


def test_the_papers_network():
    leaves = drawn(*PAPER)
    found = answer(agreement_native.route, leaves, 3, False)
    assert max(errors(found, truth(leaves, 3, False))) < ERROR
    without = errors(answer(agreement._plain, leaves, 3, False), truth(leaves, 3, False))
    assert max(errors(found, truth(leaves, 3, False))) < 3 * max(without), "as near as PyTorch's operations come"


def test_it_is_what_routes_float32_on_a_cpu_and_nothing_else(monkeypatch):
    leaves = drawn(5, 7, 3, 4, 6)
    assert agreement_native.trusted()
    asked = []
    native_route = agreement_native.route
    monkeypatch.setattr(agreement_native, "route", lambda *given: asked.append(given[3]) or native_route(*given))
    found = answer(route, leaves, 3)
    assert asked == [3]
    double = answer(route, [leaf.double() for leaf in leaves], 3)
    half = route(*(leaf.bfloat16() for leaf in leaves[:2]), 4, 3)
    empty = route(leaves[0][:0], leaves[1], 4, 3)
    assert asked == [3]
    assert max(errors(found, double)) < ERROR
    assert (double[0].dtype, half.dtype, empty.shape) == (torch.float64, torch.bfloat16, (0, 4, 6))


def test_tensors_without_numbers_and_counted_operations_are_left_to_pytorch(tiny, generator, monkeypatch):
    """A launch counts the arithmetic of its networks so, before any of them has routed."""
    monkeypatch.setattr(agreement_native, "route", lambda *_: pytest.fail("there is nothing at that address"))
    network, images = build(tiny(), generator), torch.rand(2, *tiny().shape)
    monkeypatch.setattr(agreement_native, "trusted", lambda: True)
    with FlopCounterMode(display=False) as counted:
        network.encode(images)
    inputs, weight, _, _ = drawn(5, 7, 3, 4, 6)
    with FakeTensorMode() as mode:
        fakes = mode.from_tensor(inputs), mode.from_tensor(weight)
        assert route(*fakes, 4, 3).shape == (5, 4, 6)
    assert route(*fakes, 4, 3).shape == (5, 4, 6)  # and beyond the mode that made them
    votes = 2 * network.capsules.weight.numel() * len(images)
    assert counted.get_total_flops() > votes


@pytest.mark.parametrize("iterations", [1, 3])
def test_any_number_of_threads_gives_the_same_bits(iterations):
    leaves, threads, found = drawn(40, 1000, 8, 10, 16), torch.get_num_threads(), []
    for number in (1, 2, 3, 7):
        torch.set_num_threads(number)
        found.append(answer(agreement_native.route, leaves, iterations))
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[0], other, strict=True))


def test_fewer_threads_than_were_asked_for_do_all_of_it():
    """A limit of OpenMP's is none of PyTorch's."""
    program = """
import torch
from capsnet import agreement_native
from tests.capsnet.test_agreement_native import PAPER, answer, drawn, errors, truth
torch.set_num_threads(4)
leaves = drawn(40, 500, 8, 10, 16)
assert max(errors(answer(agreement_native.route, leaves, 3), truth(leaves, 3))) < 5e-6
"""
    environment = os.environ | {"OMP_THREAD_LIMIT": "2", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_prediction_does_not_depend_on_its_batch_neighbours():
    inputs, weight, bias, _ = drawn(37, 90, 8, 10, 16)
    together = agreement_native.route(inputs, weight, 10, 3, bias)
    for n in (0, 15, 16, 36):
        torch.testing.assert_close(agreement_native.route(inputs[n : n + 1], weight, 10, 3, bias)[0], together[n])


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_a_number_stays_with_its_image(where):
    """A run that diverges has to be seen to."""
    leaves = drawn(20, 40, 4, 5, 6)
    leaves[where].view(-1)[3] = torch.nan
    capsules = agreement_native.route(*leaves[:2], 5, 3, leaves[2])
    bad = capsules.isnan().flatten(1)
    if where == 0:
        assert bad[0].all()
        assert not bad[1:].any()
    else:
        assert bad.all(dim=1).all() or bad.any(dim=1).all()


def test_large_votes_keep_capsules_and_gradients_finite():
    """Their logits differ by more than the exponential can tell."""
    inputs, weight, bias, gradient = drawn(20, 40, 4, 5, 6)
    leaves = inputs * 1e4, weight, bias, gradient
    found = answer(agreement_native.route, leaves, 4)
    assert all(one.isfinite().all() for one in found)
    assert errors(found[:1], truth(leaves, 4)[:1])[0] < 1e-3


@pytest.mark.parametrize("below", [0, 1e-3, 3, 12.5, 30, 80, 2000])
def test_a_class_whose_logit_is_below_the_others_gets_that_much_less(below):
    """One input, two classes: the second one's capsule tells its share, however small."""
    inputs, weight = torch.ones(1, 1, 1), torch.tensor([[[below, 0, 0, 1e-3]]])
    capsules = agreement_native.route(inputs, weight, 2, 2)
    wanted = dynamic(weight.view(1, 1, 2, 2).double(), 2)
    torch.testing.assert_close(capsules.double(), wanted, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e-2, 1, 1e2, 1e4, 1e8])
def test_short_and_long_sums_are_squashed_and_have_their_gradients(size):
    inputs, weight, bias, gradient = drawn(20, 10, 4, 5, 6)
    leaves = inputs * size, weight, bias * 0, gradient
    for mine, theirs in zip(answer(agreement_native.route, leaves, 1), truth(leaves, 1), strict=True):
        assert float((mine - theirs).norm()) <= 1e-5 * float(theirs.norm())


def beside(tensor):
    """A copy that begins 4 bytes beyond where vectors may."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
    return room.copy_(tensor)


@pytest.mark.parametrize("moved", [beside, lambda tensor: tensor.transpose(0, 1).contiguous().transpose(0, 1)])
def test_what_is_kept_may_be_moved_meanwhile(moved):
    """As hooks do that keep activations elsewhere."""
    leaves = drawn(20, 40, 4, 5, 6)
    wanted = answer(agreement_native.route, leaves, 3)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, moved):
        found = answer(agreement_native.route, leaves, 3)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("iterations", [1, 3])
def test_gradients_of_inputs_that_are_0_are_0_or_finite(iterations):
    inputs, weight, _, gradient = drawn(5, 7, 3, 4, 6)
    found = answer(agreement_native.route, (torch.zeros_like(inputs), weight, torch.zeros(4, 6), gradient), iterations)
    assert not any(one.any() for one in found)


def test_inputs_may_lie_in_any_order_and_stay_as_they_are():
    inputs, weight, bias, gradient = drawn(6, 7, 3, 4, 5)
    turned = (
        inputs.transpose(0, 2).contiguous().transpose(0, 2),
        weight.transpose(0, 2).contiguous().transpose(0, 2),
        bias.t().contiguous().t(),
        gradient.transpose(0, 2).contiguous().transpose(0, 2),
    )
    assert not any(leaf.is_contiguous() for leaf in turned)
    before = [leaf.clone() for leaf in turned]
    found = answer(agreement_native.route, turned, 3)
    wanted = answer(agreement_native.route, (inputs, weight, bias, gradient), 3)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))
    assert all(torch.equal(leaf, was) for leaf, was in zip(turned, before, strict=True))


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_a_gradient_may_be_wanted_of_some_alone(wanted):
    leaves = drawn(6, 7, 3, 4, 5)
    whole = answer(agreement_native.route, leaves, 3)[1:]
    own = [leaf.clone().requires_grad_(of_it) for leaf, of_it in zip(leaves[:3], wanted, strict=True)]
    agreement_native.route(own[0], own[1], 4, 3, own[2]).backward(leaves[3])
    for leaf, of_it, gradient in zip(own, wanted, whole, strict=True):
        assert leaf.grad is None if not of_it else torch.equal(leaf.grad, gradient)


def test_votes_are_not_kept_for_the_gradient_and_nothing_is_without_one():
    kept = []
    sizes = 16, 32, 3, 4, 20
    inputs, weight, bias, _ = drawn(*sizes)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        agreement_native.route(inputs.requires_grad_(), weight, 4, 3, bias)
        assert kept
        assert max(tensor.numel() for tensor in kept) < 16 * 32 * 4 * 20
        kept.clear()
        with torch.no_grad():
            agreement_native.route(inputs, weight, 4, 3, bias)
        assert not kept


def test_without_a_gradient_there_is_no_room_for_couplings(monkeypatch):
    """An evaluation's batches are large."""
    inputs, weight, _, _ = drawn(16, 500, 8, 4, 20)
    made = []
    lanes = agreement_native._lanes
    monkeypatch.setattr(agreement_native, "_lanes", lambda *shape: made.append(shape) or lanes(*shape))
    agreement_native.route(inputs, weight, 4, 3)
    evaluated = made.copy()
    made.clear()
    agreement_native.route(inputs, weight.requires_grad_(), 4, 3)
    assert set(made) - set(evaluated) == {(2, 500, 4, -(-16 // agreement_native._lane_count()))}


def test_two_threads_of_python_do_not_meet():
    leaves = [drawn(33, 120, 8, 10, 16, seed) for seed in range(2)]
    wanted = [answer(agreement_native.route, one, 3) for one in leaves]
    found = {}

    def work(n):
        found[n] = [answer(agreement_native.route, leaves[n], 3) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(2):
        assert all(torch.equal(a, b) for again in found[n] for a, b in zip(again, wanted[n], strict=True))


def test_a_program_for_others_has_no_call_of_it(tiny, tmp_path, generator, monkeypatch):
    network = build(tiny(), generator)
    images = torch.rand(3, *tiny().shape, generator=generator)
    scores = network.scores(images)
    monkeypatch.setattr(agreement_native, "route", lambda *_: pytest.fail("it was written down"))
    export(network, tiny().shape, tmp_path / "network.pt2")
    program = torch.export.load(tmp_path / "network.pt2").module()
    torch.testing.assert_close(program(images), scores, rtol=1e-4, atol=1e-6)


@pytest.fixture
def undecided():
    agreement_native.trusted.cache_clear()
    yield
    agreement_native.trusted.cache_clear()


@pytest.mark.usefixtures("undecided")
def test_where_it_computes_something_else_pytorchs_operations_do_it_and_it_is_said_once(monkeypatch):
    leaves = drawn(5, 7, 3, 4, 6)
    wrong = agreement_native._Route.apply
    monkeypatch.setattr(agreement_native._Route, "apply", lambda *given: wrong(*given) * 1.001)
    with pytest.warns(UserWarning, match="the C kernels of routing are not used on cpu: capsules of .*deviates by 1.0e-03"):
        found = answer(route, leaves, 3)
    assert max(errors(found, truth(leaves, 3))) < ERROR
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer(route, leaves, 3)


@pytest.mark.usefixtures("undecided")
def test_where_the_compiler_fails_it_is_said(monkeypatch):
    monkeypatch.setenv("CC", "false")
    forget()
    with pytest.warns(UserWarning, match="the C kernels of routing are not used on cpu: RuntimeError: false ended with 1"):
        assert not agreement_native.trusted()
    forget()


@pytest.mark.usefixtures("undecided")
def test_where_no_compiler_is_nothing_is_warned_of(monkeypatch):
    monkeypatch.setattr(native, "compiler", list)
    assert not agreement_native.trusted()
    leaves = drawn(5, 7, 3, 4, 6)
    assert max(errors(answer(route, leaves, 3), truth(leaves, 3))) < 2e-5


def test_a_launch_says_that_there_is_no_compiler_where_it_would_be_of_use(tiny, monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    routed, attended = tiny(), tiny(routing="attention", routing_iterations=1)
    assert agreement_native.remarks([routed], cpu) == []
    monkeypatch.setattr(native, "compiler", list)
    (line,) = agreement_native.remarks([attended, routed], cpu)
    assert line.startswith("no C compiler was found (cc, gcc or clang)")
    assert agreement_native.remarks([routed], cuda) == agreement_native.remarks([attended], cpu) == []
    others = {"squash": "half"}, {"none_of_the_above": True}, {"routing_gradient": "detached"}, {"routing_iterations": 1}
    for changes in others:
        assert agreement_native.remarks([tiny(**changes)], cpu) == [], "whose votes are made"
    plain = RunConfig(model="cnn", loss="cross_entropy", reconstruction_weight=0.0)
    assert agreement_native.remarks([plain], cpu) == []
    monkeypatch.setattr(native, "suits", lambda: False)
    assert agreement_native.remarks([routed], cpu) == []


@pytest.mark.parametrize(
    ("inputs", "weight", "classes", "bias"),
    [
        ((4, 100, 8), (90, 8, 40), 4, None),  # more inputs than matrices, as of larger images
        ((4, 90, 8), (100, 8, 40), 4, None),
        ((4, 90, 7), (90, 8, 40), 4, None),
        ((4, 90, 8), (90, 8, 40), 3, None),
        ((4, 90, 8), (90, 8, 40), 0, None),
        ((90, 8), (90, 8, 40), 4, None),
        ((4, 90, 8), (90, 8, 40), 4, (10,)),
        ((4, 90, 8), (90, 8, 40), 4, (1, 10)),
        ((4, 90, 8), (90, 8, 40), 4, (10, 4)),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_or_left_to_pytorch(inputs, weight, classes, bias):
    given = torch.ones(inputs), torch.ones(weight), classes, 3
    vector = None if bias is None else torch.ones(bias)
    assert not agreement_native.supports(*given, vector)
    with pytest.raises((ValueError, TypeCheckError), match=r"sizes don't fit: inputs|Type-check error"):  # the latter in tests
        agreement_native.route(*given, vector)


def test_one_iteration_and_other_precisions_are_left_to_pytorch():
    inputs, weight, bias, _ = drawn(4, 9, 8, 4, 10)
    assert agreement_native.supports(inputs, weight, 4, 3, bias)
    assert not agreement_native.supports(inputs, weight, 4, 1, bias)
    assert not agreement_native.supports(inputs, weight, 4, 3, bias.double())
    assert not agreement_native.supports(inputs, weight.double(), 4, 3, bias)


def test_the_default_type_of_numbers_is_no_matter():
    leaves = drawn(20, 40, 4, 5, 6)
    wanted = answer(agreement_native.route, leaves, 3)
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            found, off = answer(agreement_native.route, leaves, 3), max(agreement_native.deviations().values())
        finally:
            torch.set_default_dtype(torch.float32)
        assert off < ERROR
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))


def test_negated_views_are_read_as_they_are():
    inputs, weight, _, _ = drawn(4, 9, 8, 4, 10)
    wanted = agreement_native.route(-inputs, weight, 4, 3)
    assert torch.equal(agreement_native.route(torch._neg_view(inputs), weight, 4, 3), wanted)


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_an_evaluation_may_be_the_first_to_ask_and_no_generator_moves(mode):
    before = torch.get_rng_state()
    with mode():
        assert agreement_native.trusted()
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_share_large_work_and_chunks_are_for_many(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    large = agreement_native._job(torch.Size((128, 1152, 8)), 160, 10, 3)
    small = agreement_native._job(torch.Size((5, 7, 3)), 24, 4, 3)
    assert (large.threads, small.threads, small.chunks) == (7, 1, 1)
    assert large.chunks * large.blocks >= 64
    assert large.count // large.chunks >= 64


def test_a_run_can_tell_what_routes_it(tiny, monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert agreement_native.told(tiny(), cpu) == f"in C, {native.version()}"
    assert agreement_native.told(tiny(), cuda) == agreement_native.told(tiny(routing_iterations=1), cpu) == ""
    monkeypatch.setattr(agreement_native, "trusted", lambda: False)
    assert agreement_native.told(tiny(), cpu) == "PyTorch's operations"


def test_no_iteration_is_refused():
    inputs, weight, _, _ = drawn(2, 3, 2, 2, 2)
    with pytest.raises(ValueError, match="1 iteration or more, not 0"):
        agreement_native.route(inputs, weight, 2, 0)
