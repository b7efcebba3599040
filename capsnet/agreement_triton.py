"""The class capsules on a CUDA device: transformation and routing by agreement in a few kernels, votes never stored.

Votes are products û_ij = u_i W_ij, so that a logit, the sum of û · v_k over the passes k so far, is û · V with V = sum v_k:
a pass needs no logits of the pass before, only V, which is small. Forward, pass k + 1 (in the first all c = 1 / classes):

    b_ij = û_ij · V_j      c_i = softmax over j of b_i      s_j = sum_i c_ij û_ij + bias_j      v = squash(s)

Backward from g = dv, for the passes from the last to the second, with dV carried from pass to pass:

    ds = dsquash(g)      db_ij = c_ij (û_ij · ds_j - sum_j c_ij û_ij · ds_j)      dV_j += sum_i db_ij û_ij      g = dV

Then dû_ij is the sum of c_ij ds_j + db_ij V_j over these passes, and ds_j / classes of the first; du_i = W_ij dû_ij, dW_ij
the sum of u_i dû_ij over the batch, dbias the sum of all ds. A pass makes the votes anew, in registers: of an input, for some
examples and all classes at a time. Only the first, whose sums are one product of matrices, and the gradients of u and W, after
all passes, are other kernels.

Besides the gradients, that takes memory for each pass's c and db ([inputs, classes, batch]), for each chunk's share of a sum,
and for the inputs' leading bits and the rest of them: 0.4 of the votes, with the paper's sizes, float32 and r = 3.

Precision: sums, softmax and squash are float32. Products of matrices are on the tensor cores, which read 11 bits of a
number: if inputs and weight are both bfloat16, one product, exact for votes, of operands rounded to 11 bits for gradients;
otherwise two or three products, of 22 bits.

Cost, ESTIMATED and not measured: batch 128, 1152 inputs of 8, 10 classes of 16, on an H200 at 1.75 GHz. Instructions, counted
in what Triton 3.6 makes for sm_90, if each of the 528 schedulers issued one every cycle: first pass 3.5 us; another pass 14 to
16 us; the way back through it 12 us; gradients of u and of W 10 us each. What limits a pass is this, more than tensor cores
(8 us: tiles of 16 classes for 10, of 16 numbers for 8 and the rest of them) or the L2 cache (W read twice for each 32 examples,
47 MB, 9 us at 5 TB/s). A sum of chunks with squash: about 3 us each, latency. So r = 3: 45 us forward, 100 us with the way
back, were there no waiting; half as much again would be no surprise. 14 launches, which a CUDA graph makes cheap.
"""

import functools
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.kernels import OPTIONS, fault_of, run_on
from capsnet.routing import dynamic

LIMITS = {"input_dim": 32, "dim": 32, "columns": 512}  # the last: classes * dim, both padded
CHECKED = (368, 371)  # inputs: a few for each program, and fewer for the last
BOUNDS = {torch.float32: 5e-5, torch.bfloat16: 1e-2}
TUNING: dict[str, dict[str, int]] = {
    "uniform_sums": {"rows": 64, "width": 32, "step": 32, "programs": 528, "num_warps": 4, "num_stages": 3},
    "weighted_sums": {"rows": 32, "programs": 264, "num_warps": 8, "num_stages": 3, "maxnreg": 128},
    "pass_gradients": {"rows": 32, "programs": 264, "num_warps": 8, "num_stages": 3, "maxnreg": 128},
    "input_gradients": {"rows": 16, "inputs_at_once": 16, "num_warps": 4, "num_stages": 2},
    "weight_gradients": {"rows": 16, "inputs_at_once": 16, "num_warps": 4, "num_stages": 2},
    "squash_sums": {"step": 64, "num_warps": 2, "num_stages": 1},
    "unsquash_gradients": {"step": 64, "num_warps": 2, "num_stages": 1},
}
"""How each kernel cuts its work with the paper's sizes, and the options of the compiler; other sizes take as much or less.

``programs``: into about how many the inputs are cut. An H200 has 132 multiprocessors.
"""


def supports(inputs: Tensor, weight: Tensor, classes: int, iterations: int) -> bool:
    """Whether ``route`` takes these: device, precision, sizes. Whether its kernels can be trusted, ``self_check`` says."""
    batch, count, input_dim = inputs.shape
    if not (
        _runs_on(inputs.device)
        and weight.device == inputs.device
        and inputs.dtype in BOUNDS
        and weight.dtype in BOUNDS
        and min(batch, count, iterations) >= 1
        and input_dim <= LIMITS["input_dim"]
        and weight.shape[2] // classes <= LIMITS["dim"]
        and _columns(classes, weight.shape[2] // classes) <= LIMITS["columns"]
    ):
        return False
    largest = _Shape(inputs, weight, classes).largest_partials
    # they count in 32 bits
    return max(iterations * classes * batch * count, largest, 2 * inputs.numel(), weight.numel()) < 2**31


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # a compiler can't look into it
def _runs_on(device: torch.device) -> bool:
    return run_on(device)


def route(
    inputs: Float[Tensor, "batch inputs input_dim"],
    weight: Float[Tensor, "inputs input_dim classes_x_dim"],
    classes: int,
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
) -> Float[Tensor, "batch classes dim"]:
    """``dynamic`` routing of the votes ``inputs @ weight``, in float32 whatever the precision of the two."""
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (inputs, weight, bias))
    return route_votes(inputs, weight, bias, classes, iterations, keep)[0]


@functools.cache
def self_check(device: torch.device, sizes: tuple[int, int, int, int, int], precision: torch.dtype = torch.float32) -> str:
    """Why the kernels can't be trusted on this device, or "": they are compared with float64, once per process.

    Args:
        device: of the kernels.
        sizes: batch, inputs, input_dim, classes, dim, the first two as :func:`alike` has them.
        precision: of inputs and weight.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """

    def found() -> dict[str, float]:
        errors = deviations(device, sizes, 3, True, precision)
        return {f"in {precision}, batch {sizes[0]}, {name}": error for name, error in errors.items()}

    return fault_of(found, BOUNDS[precision])


def alike(batch: int, count: int) -> tuple[int, int]:
    """A batch and a number of inputs for which the same programs are compiled, to check these and not others.

    What is compiled depends on the height of a tile, which tensor cores may multiply by other instructions, and on whether
    sizes are multiples of 16, or 1, which is left out here. With the tallest tile there are a whole one and a part of another.
    """
    even, odd = {16: (16, 5), 32: (32, 21), 64: (112, 70)}[min(_power(batch, 16), 64)]
    return odd if batch % 16 else even, CHECKED[count % 16 > 0]


@torch.inference_mode(False)  # an evaluation may be the first to ask
def deviations(
    device: torch.device, sizes: tuple[int, int, int, int, int], iterations: int, biased: bool, precision: torch.dtype
) -> dict[str, float]:
    """What ``route`` gives for random inputs, against votes and ``dynamic`` in float64: |answer - truth| / |truth| of each.

    Args:
        sizes: batch, inputs, input_dim, classes, dim.
        iterations, biased: of the routing.
        precision: of inputs, weight and bias.
        device: of ``route``; the truth is found on the CPU.
    """
    batch, count, input_dim, classes, dim = sizes
    generator = torch.Generator().manual_seed(sum(sizes) + iterations)
    shapes = {"inputs": (batch, count, input_dim), "weight": (count, input_dim, classes * dim), "bias": (classes, dim)}
    values = {name: torch.randn(shape, generator=generator).to(precision) for name, shape in shapes.items()}
    values["weight"] *= 0.3
    if not biased:
        del values["bias"]
    gradient = torch.randn(batch, classes, dim, generator=generator)

    leaves = {name: value.to(device).requires_grad_() for name, value in values.items()}
    with torch.enable_grad():
        capsules = route(leaves["inputs"], leaves["weight"], classes, iterations, leaves.get("bias"))
        answers = [capsules, *torch.autograd.grad(capsules, list(leaves.values()), gradient.to(device))]
        exact = {name: value.double().requires_grad_() for name, value in values.items()}
        votes = torch.einsum("bie,iek->bik", exact["inputs"], exact["weight"]).unflatten(2, (classes, dim))
        truth = dynamic(votes, iterations, exact.get("bias"))
        truths = [truth, *torch.autograd.grad(truth, list(exact.values()), gradient.double())]
    return {
        name: float((answer.detach().cpu().double() - truth.detach()).norm() / truth.detach().norm())
        for name, answer, truth in zip(("capsules", *leaves), answers, truths, strict=True)
    }


class _Launch(NamedTuple):
    """Of a kernel: its programs, and the values and options it is compiled with."""

    grid: tuple[int, ...]
    values: dict[str, Any]
    options: dict[str, int]
    chunks: int = 1  # into which the inputs are cut


class _Shape:
    """The sizes of a problem, and how its work is cut.

    They decide the order of the sums, and with it the last bit; so they depend on nothing but sizes and precision.
    """

    def __init__(self, inputs: Tensor, weight: Tensor, classes: int) -> None:
        self.batch, self.count, self.input_dim = inputs.shape
        self.classes, self.dim = classes, weight.shape[2] // classes
        self.dim_p = _power(self.dim, 16)
        self.exact = torch.float32 in (inputs.dtype, weight.dtype)
        self.split = self.exact and self.input_dim <= 8
        self.sizes = {"classes": classes, "dim": self.dim, "input_dim": self.input_dim, "exact": self.exact}

    def uniform(self) -> _Launch:
        """The first pass."""
        tuned = {**OPTIONS, **TUNING["uniform_sums"]}
        width, step, programs = tuned.pop("width"), tuned.pop("step"), tuned.pop("programs")
        rows = min(tuned.pop("rows"), _power(self.batch, 16))
        columns, outputs = self.count * self.input_dim, self.classes * self.dim
        tiles = -(-self.batch // rows), -(-outputs // width)
        chunk = -(-columns // (step * max(1, programs // (tiles[0] * tiles[1])))) * step
        chunks = -(-columns // chunk)
        values = {"input_dim": self.input_dim, "classes": self.classes, "outputs": outputs, "exact": self.exact}
        return _Launch((*tiles, chunks), {"chunk": chunk, **values, "rows": rows, "width": width, "step": step}, tuned, chunks)

    def agreeing(self, kernel: str) -> _Launch:
        """A pass after the first, or the way back through it."""
        tuned = {**OPTIONS, **TUNING[kernel]}
        rows, programs = min(tuned.pop("rows"), _power(self.batch, 16)), tuned.pop("programs")
        if _columns(self.classes, self.dim) > 256 and rows > 16:
            rows = rows // 2  # twice as wide a tile, half as high, has as many numbers
        tiles = -(-self.batch // rows)
        chunk = -(-self.count // max(1, programs // tiles))
        chunks = -(-self.count // chunk)
        depth = _power(self.input_dim, 16)  # 8 numbers and the rest of each are 16, too
        own = {"classes_p": _power(self.classes, 2), "dim_p": self.dim_p, "depth": depth, "rows": rows, "split": self.split}
        return _Launch((tiles, chunks), {"chunk": chunk, **self.sizes, **own}, tuned, chunks)

    def gradients(self, kernel: str, passes: int) -> _Launch:
        """Of inputs or weight."""
        tuned = {**OPTIONS, **TUNING[kernel]}
        input_dim_p = _power(self.input_dim, 8)
        at_once = min(tuned.pop("inputs_at_once"), 256 // max(input_dim_p, self.dim_p))
        rows = min(tuned.pop("rows"), _power(self.batch, 16))
        other = -(-self.batch // rows) if kernel == "input_gradients" else self.classes
        groups = -(-self.count // at_once)
        own = {"dim_p": self.dim_p, "input_dim_p": input_dim_p, "rows": rows, "inputs_at_once": at_once, "passes": passes}
        return _Launch((other, groups) if kernel == "input_gradients" else (groups, other), {**self.sizes, **own}, tuned)

    def squashing(self, kernel: str, chunks: int) -> _Launch:
        """``squash_sums`` or its gradient."""
        tuned = {**OPTIONS, **TUNING[kernel]}
        many = tuned.pop("step")
        values = {"chunks": chunks, "dim": self.dim, "dim_p": self.dim_p, "step": many if chunks > 1 else 1}
        if kernel == "squash_sums":
            values["classes"] = self.classes
        capsules = self.batch * self.classes
        return _Launch((capsules,), {"capsule_count": capsules, **values}, tuned)

    @property
    def largest_partials(self) -> int:
        launches = self.uniform(), self.agreeing("weighted_sums"), self.agreeing("pass_gradients")
        return max(launch.chunks for launch in launches) * self.batch * self.classes * self.dim

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=like.device)

    def vectors(self, like: Tensor, *shape: int) -> Tensor:
        return self.empty(like, *shape, self.batch, self.classes, self.dim)

    def pairs(self, like: Tensor, *shape: int) -> Tensor:
        return self.empty(like, *shape, self.count, self.classes, self.batch)


def _power(size: int, least: int = 1) -> int:
    return max(least, 1 << (size - 1).bit_length())


def _columns(classes: int, dim: int) -> int:
    """Of a tile of votes."""
    return _power(classes, 2) * _power(dim, 16)


def _run(kernel: Any, launch: _Launch, *arguments: Tensor | None, **sizes: int) -> None:
    kernel[launch.grid](*arguments, **sizes, **launch.values, **launch.options)


@torch.library.custom_op("capsnet::route_votes", mutates_args=())
def route_votes(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, classes: int, iterations: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The capsules; and what the way back needs if it is to ``keep``: sums, totals, couplings, by pass, and parts of inputs."""
    from capsnet import agreement_kernels as kernels

    shape = _Shape(inputs, weight, classes)
    inputs, weight, bias = inputs.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    passes, sizes = iterations - 1, {"batch": shape.batch, "count": shape.count}
    capsules, sums, totals = shape.vectors(inputs), shape.vectors(inputs, iterations), shape.vectors(inputs, passes)
    couplings = shape.pairs(inputs, passes) if keep else None
    parts = shape.empty(inputs, shape.batch, shape.count, 2, shape.input_dim) if passes and shape.split else None
    first, other = shape.uniform(), shape.agreeing("weighted_sums")
    with torch.cuda.device_of(inputs):
        for k in range(iterations):
            launch = other if k else first
            partials = shape.vectors(inputs, launch.chunks)
            if k:
                kept = None if couplings is None else couplings[k - 1]
                own = inputs if parts is None else parts
                _run(kernels.weighted_sums, launch, own, weight, totals[k - 1], kept, partials, **sizes)
            else:
                columns = shape.count * shape.input_dim
                _run(kernels.uniform_sums, launch, inputs, weight, partials, parts, batch=shape.batch, columns=columns)
            before, after = totals[k - 1] if k else None, totals[k] if k < passes else None
            squashing = shape.squashing("squash_sums", launch.chunks)
            _run(kernels.squash_sums, squashing, partials, bias, before, sums[k], capsules, after)
    nothing = capsules.new_empty(0)
    if couplings is None:
        return capsules, nothing, nothing.clone(), nothing.clone(), nothing.clone()
    return capsules, sums, totals, couplings, nothing if parts is None else parts


@route_votes.register_fake
def _(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    classes: int,
    iterations: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, count, input_dim = inputs.shape
    one = batch, classes, weight.shape[2] // classes
    capsules, passes = inputs.new_empty(one, dtype=torch.float32), iterations - 1
    if not keep:
        return capsules, capsules.new_empty(0), capsules.new_empty(0), capsules.new_empty(0), capsules.new_empty(0)
    split = passes > 0 and torch.float32 in (inputs.dtype, weight.dtype) and input_dim <= 8
    parts = capsules.new_empty((batch, count, 2, input_dim) if split else 0)
    couplings = capsules.new_empty(passes, count, classes, batch)
    return capsules, capsules.new_empty(iterations, *one), capsules.new_empty(passes, *one), couplings, parts


@torch.library.custom_op("capsnet::route_votes_gradients", mutates_args=())
def route_votes_gradients(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    sums: Tensor,
    totals: Tensor,
    couplings: Tensor,
    parts: Tensor,
    classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of inputs and weight, and those of all weighted sums, whose sum is that of the bias."""
    from capsnet import agreement_kernels as kernels

    shape = _Shape(inputs, weight, classes)
    gradient, inputs, weight = gradient.float().contiguous(), inputs.contiguous(), weight.contiguous()
    passes, sizes = len(sums) - 1, {"batch": shape.batch, "count": shape.count}
    results, carried, changes = torch.empty_like(sums), torch.empty_like(totals), torch.empty_like(couplings)
    inputs_gradient, weight_gradient = torch.empty_like(inputs), torch.empty_like(weight)
    back = shape.agreeing("pass_gradients")
    of_inputs, of_weight = (shape.gradients(name, passes) for name in ("input_gradients", "weight_gradients"))

    def unsquash(partials: Tensor, before: Tensor | None, k: int, after: Tensor | None, chunks: int) -> None:
        launch = shape.squashing("unsquash_gradients", chunks)
        _run(kernels.unsquash_gradients, launch, partials, before, sums[k], after, results[k])

    with torch.cuda.device_of(inputs):
        unsquash(gradient, None, passes, None, 1)
        for k in reversed(range(passes)):
            partials, own = shape.vectors(inputs, back.chunks), parts if shape.split else inputs
            _run(kernels.pass_gradients, back, own, weight, results[k + 1], couplings[k], changes[k], partials, **sizes)
            unsquash(partials, carried[k + 1] if k < passes - 1 else None, k, carried[k], back.chunks)
        given = results, totals, couplings, changes
        _run(kernels.input_gradients, of_inputs, weight, *given, inputs_gradient, **sizes)
        _run(kernels.weight_gradients, of_weight, inputs, *given, weight_gradient, **sizes)
    return inputs_gradient, weight_gradient, results


@route_votes_gradients.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    inputs: Tensor,
    weight: Tensor,
    sums: Tensor,
    totals: Tensor,  # noqa: ARG001
    couplings: Tensor,  # noqa: ARG001
    parts: Tensor,  # noqa: ARG001
    classes: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    # in rows, as the kernels write them, wherever the inputs' own numbers lie
    return inputs.new_empty(inputs.shape), weight.new_empty(weight.shape), torch.empty_like(sums)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, weight, bias, ctx.classes, _, _ = inputs
    ctx.bias_precision = None if bias is None else bias.dtype
    ctx.set_materialize_grads(False)  # of what is kept for the way back there are none: zeros as large as all of it
    ctx.save_for_backward(u, weight, *output[1:])


def _back(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, weight, results = route_votes_gradients(gradient, *ctx.saved_tensors, ctx.classes)
    bias = None if ctx.bias_precision is None else results.sum(dim=(0, 1)).to(ctx.bias_precision)
    return inputs, weight, bias, None, None, None


route_votes.register_autograd(_back, setup_context=_remember)
