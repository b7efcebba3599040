"""The Triton kernels against float64 votes: in Triton's interpreter, in the compiler without a device, and on a device.

The interpreter multiplies matrices in float32, of operands that the kernels have cut to what tensor cores read.
"""

import inspect

import pytest
import torch

from capsnet.agreement_launches import TUNING, Shape, alike
from capsnet.agreement_triton import deviations, route, route_votes, route_votes_gradients, self_check, supports
from capsnet.layers import ClassCaps
from capsnet.routing import dynamic
from tests.triton_kernels import GPU, INTERPRETED, captured, compiled, interpret, microseconds, zeros_made

pytest.importorskip("triton", reason="Triton is not installed")
EXACT = dict.fromkeys(("capsules", "inputs", "weight", "bias"), 5e-6)
NUMBERS = ("batch", "count", "columns", "capsule_count", "chunk", "chunks")  # no constants
ROUNDED = {"capsules": 1e-3, "inputs": 5e-3, "weight": 5e-3, "bias": 5e-3}  # a gradient in bfloat16 has 8 bits: 2e-3


def problem(device, sizes=(3, 11, 4, 3, 5), scale=1.0):
    """Inputs, weight and bias that want gradients."""
    batch, count, input_dim, classes, dim = sizes
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, count, input_dim), (count, input_dim, classes * dim), (classes, dim)
    inputs, weight, bias = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    return [tensor.requires_grad_() for tensor in (inputs * scale, weight, bias)]


def answers(inputs, weight, bias, classes, iterations):
    capsules = route(inputs, weight, classes, iterations, bias)
    return [capsules, *torch.autograd.grad(capsules.square().sum(), (inputs, weight, bias))]


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    interpret(__file__, 15)


@pytest.mark.parametrize(
    ("sizes", "iterations", "biased"),
    [
        ((2, 19, 8, 3, 16), 1, True),
        ((2, 19, 8, 3, 16), 2, False),
        ((2, 19, 8, 3, 16), 3, True),
        ((3, 9, 8, 2, 16), 4, True),
        ((1, 1, 1, 1, 1), 3, True),
        ((2, 70, 1, 2, 3), 2, True),  # more than a chunk of inputs of 1 number
        ((2, 3, 32, 2, 32), 3, True),
        ((2, 5, 17, 3, 20), 2, False),
        ((2, 3, 8, 17, 16), 2, True),  # as many columns as are supported
        ((17, 2, 9, 9, 17), 2, True),  # the same, and more than one of its tiles, which are half as high
        ((65, 2, 3, 2, 3), 2, True),  # more than a tile of examples
        ((2, 129, 17, 2, 3), 1, True),  # more chunks than are added up at a time
    ],
    ids=str,
)
def test_it_is_dynamic_routing_of_the_votes(device, sizes, iterations, biased):
    found = deviations(device, sizes, iterations, biased, torch.float32)
    assert len(found) == 3 + biased
    assert all(error < EXACT[name] for name, error in found.items()), found


@pytest.mark.parametrize("iterations", [1, 3])
def test_bfloat16_is_as_near_as_its_digits(device, iterations):
    found = deviations(device, (3, 19, 8, 3, 16), iterations, True, torch.bfloat16)
    assert all(error < ROUNDED[name] for name, error in found.items()), found
    assert found["inputs"] > 1e-6, "operands are not rounded to what tensor cores read"
    assert found["capsules"] < 5e-6, "votes of bfloat16 numbers are exact"


# columns, inputs, chunks that a program goes through one after the other
MANY = {"uniform_sums": {"programs": 2, "rows": 16, "step": 16}}
MANY |= {name: {"programs": 2} for name in ("weighted_sums", "pass_gradients")}
MANY |= {name: {"step": 2} for name in ("squash_sums", "unsquash_gradients")}
# tiles of examples, more than one
TILES = {name: {"rows": 16, "programs": 6} for name in ("weighted_sums", "pass_gradients")}
TILES |= {name: {"rows": 32, "inputs_at_once": 4} for name in ("input_gradients", "weight_gradients")}


@pytest.mark.parametrize("values", [MANY, TILES], ids=["many", "tiles"])
def test_any_cut_of_the_work_gives_the_same(device, monkeypatch, values):
    for kernel, own in values.items():
        monkeypatch.setitem(TUNING, kernel, {**TUNING[kernel], **own})
    found = deviations(device, (18, 19, 8, 3, 16), 2, True, torch.float32)
    assert all(error < EXACT[name] for name, error in found.items()), found


def test_two_runs_agree_to_the_bit(device):
    leaves = problem(device)
    for first, second in zip(answers(*leaves, 3, 3), answers(*leaves, 3, 3), strict=True):
        assert torch.equal(first, second)


def test_zeros_have_finite_gradients(device):
    """No bias, so that every sum, and the length that squash's gradient divides by, is 0."""
    inputs, weight, _ = problem(device, scale=0.0)
    capsules = route(inputs, weight, 3, 3)
    assert not capsules.any()
    for gradient in torch.autograd.grad(capsules.sum(), (inputs, weight)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_large_votes_do_not_overflow(device):
    """Logits in the tens of thousands."""
    assert all(answer.isfinite().all() for answer in answers(*problem(device, scale=1e4), 3, 4))


def test_without_gradients_it_is_the_same_and_keeps_nothing(device):
    leaves = problem(device)
    kept = route(*leaves[:2], 3, 4, leaves[2])
    with torch.no_grad():
        assert torch.equal(route(*leaves[:2], 3, 4, leaves[2]), kept)
        assert all(rest.numel() == 0 for rest in route_votes(*leaves, 3, 4, False)[1:])


def test_tensors_may_lie_in_any_order(device):
    inputs, weight, bias = problem(device)
    turned = inputs.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not turned.is_contiguous()
    for first, second in zip(answers(inputs, weight, bias, 3, 2), answers(turned, weight, bias, 3, 2), strict=True):
        assert torch.equal(first, second)


def test_it_is_one_operation_to_the_compiler(device):
    """Without the wrapper that checks shapes in tests, which can't be traced."""
    leaves = problem(device, sizes=(2, 3, 4, 2, 3))
    plain = inspect.unwrap(route)
    compiled = torch.compile(lambda u, w, b: plain(u, w, 2, 2, b), fullgraph=True, backend="aot_eager")
    capsules = compiled(*leaves)
    gradients = torch.autograd.grad(capsules.square().sum(), leaves)
    for first, second in zip((capsules, *gradients), answers(*leaves, 2, 2), strict=True):
        assert torch.equal(first, second)
    for keep in (True, False):
        torch.library.opcheck(route_votes, (*leaves, 2, 2, keep), test_utils=("test_schema", "test_faketensor"))


def test_the_compiler_is_told_how_gradients_lie(device):
    """In rows, whatever the order of the inputs: a single type of primary capsules comes with its positions last."""
    inputs, weight, bias = (leaf.detach() for leaf in problem(device, sizes=(2, 3, 4, 2, 3)))
    turned = inputs.transpose(1, 2).contiguous().transpose(1, 2)
    capsules, *kept = route_votes(turned, weight, bias, 2, 2, True)
    torch.library.opcheck(route_votes_gradients, (capsules, turned, weight, *kept, 2), test_utils=("test_faketensor",))


def test_the_way_back_makes_no_zeros_for_what_only_it_reads(device):
    """As large as sums, couplings and parts of inputs."""
    inputs, weight, bias = problem(device)
    assert zeros_made(route(inputs, weight, 3, 3, bias).sum().backward) == []


def test_a_second_derivative_is_refused(device):
    inputs, weight, bias = problem(device)
    first = torch.autograd.grad(route(inputs, weight, 3, 2, bias).sum(), inputs, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="route_votes_gradients"):
        first.sum().backward()


def test_what_it_supports(device):
    inputs, weight, _ = problem(device)
    assert supports(inputs, weight, 3, 3)
    assert not supports(inputs.double(), weight.double(), 3, 3)
    assert not supports(inputs, weight, 3, 0)
    assert not supports(inputs[:0], weight, 3, 3)
    for sizes in ((1, 2, 33, 1, 1), (1, 2, 1, 33, 1), (1, 2, 1, 17, 17), (1, 2, 1, 2, 33)):
        wide, large, _ = problem(device, sizes)
        assert not supports(wide, large, sizes[3], 3)
    many = inputs[:1].expand(40_000_000, -1, -1)  # takes no memory, but the offsets of its couplings 31 bits and more
    assert not supports(many, weight, 3, 3)
    with pytest.raises(ValueError, match="not 0"):
        route(inputs, weight, 3, 0)


def test_the_check_of_a_device(device, monkeypatch):
    assert self_check(device, (5, 19, 4, 2, 5)) == ""
    with torch.inference_mode():  # as in an evaluation, which may be the first to ask
        assert self_check(device, (5, 19, 5, 3, 4)) == ""
    other = (6, 19, 4, 2, 5)
    for error, reason in ((1e-3, "in torch.float32, batch 6, weight deviates by 1.0e-03"), (float("nan"), "deviates by nan")):
        monkeypatch.setattr("capsnet.agreement_triton.deviations", lambda *_, error=error: {"weight": error})
        assert reason in self_check(device, other)
    monkeypatch.setattr("capsnet.agreement_triton.deviations", lambda *_: 1 / 0)
    assert self_check(device, other) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("count", [1152, 363])
@pytest.mark.parametrize("batch", [1, 5, 16, 17, 32, 33, 64, 96, 128, 1000])
def test_what_is_checked_is_what_trains(batch, count):
    """The same programs are compiled; they loop, and the last of them over less."""

    def compiled_by(sizes):
        shape = Shape(torch.empty(*sizes, 8, device="meta"), torch.empty(sizes[1], 8, 160, device="meta"), 10)
        launches = [shape.uniform(), *(shape.agreeing(kernel) for kernel in ("weighted_sums", "pass_gradients"))]
        launches += [shape.gradients(kernel, 2) for kernel in ("input_gradients", "weight_gradients")]
        launches += [shape.squashing("squash_sums", launch.chunks) for launch in launches[:2]]
        multiples = [size % 16 == 0 for size in sizes]
        constants = [{name: value for name, value in launch.values.items() if name not in NUMBERS} for launch in launches]
        return (constants, multiples), launches

    checked, launches = compiled_by(alike(batch, count))
    assert checked == compiled_by((batch, count))[0]
    for launch, total in zip(launches[:3], (alike(batch, count)[1] * 8, *[alike(batch, count)[1]] * 2), strict=True):
        assert launch.values["chunk"] > 1
        assert launch.values["chunk"] * (launch.chunks - 1) < total <= launch.values["chunk"] * launch.chunks
    assert alike(*alike(batch, count)) == alike(batch, count), "or else what is checked would be another again"


def test_the_check_has_a_whole_tile_and_a_part_of_another():
    for batch in (96, 1000):
        assert alike(batch, 1152)[0] > 64
        assert alike(batch, 1152)[0] % 64


@pytest.mark.parametrize("said", ["CUDA out of memory. Tried to allocate 2 MiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_check_that_found_no_memory_is_made_again(device, monkeypatch, said):
    def full(*_):
        raise RuntimeError(said)

    sizes = (5, 19, 4, 2, 5)
    with monkeypatch.context() as patch:
        patch.setattr("capsnet.agreement_triton.deviations", full)
        with pytest.raises(RuntimeError, match=said):
            self_check(device, sizes)
    assert self_check(device, sizes) == ""


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled there")
@pytest.mark.parametrize(
    "precision", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=["float32", "bfloat16"]
)
def test_a_compiler_takes_the_kernels(precision, tmp_path, monkeypatch, record_property):
    """For sm_90 and the paper's sizes, without a device: hardly a register spilled, shared memory for two programs or more."""
    from capsnet import agreement_gradient_kernels as gradients
    from capsnet import agreement_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    shape = Shape(torch.empty(128, 1152, 8, dtype=precision), torch.empty(1152, 8, 160, dtype=precision), 10)
    first, agreeing = shape.uniform(), shape.agreeing("weighted_sums")
    cases = [
        (kernels.uniform_sums, first, {}),
        (kernels.weighted_sums, agreeing, {}),
        (kernels.weighted_sums, agreeing, {"couplings": None}),
        (gradients.pass_gradients, shape.agreeing("pass_gradients"), {}),
        (gradients.input_gradients, shape.gradients("input_gradients", 2), {}),
        (gradients.weight_gradients, shape.gradients("weight_gradients", 2), {}),
        (kernels.squash_sums, shape.squashing("squash_sums", agreeing.chunks), {}),
        (gradients.unsquash_gradients, shape.squashing("unsquash_gradients", agreeing.chunks), {}),
    ]
    own = "*fp32" if precision == torch.float32 else "*bf16"
    for kernel, launch, more in cases:
        values = {**launch.values, **more}
        constants = {name: value for name, value in values.items() if name not in NUMBERS}
        split = {"inputs"} if launch.values.get("split") else set()  # which is read as its parts, in float32
        given = {"inputs", "weight"} - split | (
            {"gradients"} if kernel.__name__ in ("input_gradients", "weight_gradients") else set()
        )
        types = {name: own if name in given else "*fp32" for name in kernel.arg_names if name not in NUMBERS}
        unaligned = () if kernel is kernels.uniform_sums else ("chunk", "chunks", "capsule_count")
        found = compiled(kernel, types, constants, launch.options, unaligned)
        bound = 128 if "maxnreg" in launch.options else 0  # which buys a second program on a multiprocessor
        assert found.stack <= bound, kernel.__name__
        assert found.shared <= 100_000, kernel.__name__


@pytest.fixture
def paper():
    """The paper's class capsules on a device, and inputs."""
    torch.manual_seed(0)
    layer = ClassCaps(1152, 8, 10, 16, dynamic, 3, bias=True).cuda()
    layer.reset(torch.Generator("cuda").manual_seed(0))
    return layer, 0.2 * torch.randn(128, 1152, 8, device="cuda")


class TestDevice:
    pytestmark = GPU

    @pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
    def test_the_papers_sizes(self, precision):
        found = deviations(torch.device("cuda"), (128, 1152, 8, 10, 16), 3, True, precision)
        print(found)
        bounds = EXACT if precision == torch.float32 else ROUNDED
        assert all(error < 10 * bounds[name] for name, error in found.items()), found

    def test_a_graph_replays_it_on_other_inputs(self, paper):
        layer, inputs = paper
        leaves = [inputs.requires_grad_(), layer.weight, layer.bias]
        graph, found = captured(lambda: answers(*leaves, 10, 3))
        with torch.no_grad():
            inputs.mul_(-0.5).add_(0.1)
        graph.replay()
        for first, second in zip(found, answers(*leaves, 10, 3), strict=True):
            assert torch.equal(first, second)

    def test_it_is_faster_than_votes(self, paper):
        """By graphs, so that the processor's time is left out; several inputs in turn, as they might fit in the cache."""
        layer, inputs = paper
        gradient = torch.randn(128, 10, 16, device="cuda")
        times = {}
        for precision in (torch.float32, torch.bfloat16):
            own = [t.detach().to(precision).requires_grad_() for t in (inputs, layer.weight, layer.bias)]
            ways = {
                "kernels": lambda u, w, b: route(u, w, 10, 3, b),
                "votes": lambda u, w, b: dynamic(torch.bmm(u.transpose(0, 1), w).transpose(0, 1).unflatten(2, (10, 16)), 3, b),
            }
            for name, way in ways.items():

                def both(way=way, own=own):
                    capsules = way(*own)
                    return torch.autograd.grad(capsules, own, gradient.to(capsules.dtype))

                def forward(way=way, own=own):
                    with torch.no_grad():
                        return way(*own)

                for part, run in (("forward", forward), ("forward and backward", both)):
                    times[precision, name, part] = microseconds(run)
                    print(f"{precision} {name} {part}: {times[precision, name, part]:.0f} us")
        for precision in (torch.float32, torch.bfloat16):
            part = (precision, "kernels", "forward and backward"), (precision, "votes", "forward and backward")
            assert times[part[0]] < times[part[1]]
