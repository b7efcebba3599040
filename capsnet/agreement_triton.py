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
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet import agreement_check
from capsnet.agreement_launches import Launch, Shape, alike
from capsnet.kernels import accepted, fault_of, run_on

BOUNDS = {torch.float32: 5e-5, torch.bfloat16: 1e-2}


def supports(inputs: Tensor, weight: Tensor, classes: int, iterations: int) -> bool:
    """Whether ``route`` takes these: device, precision, sizes. Whether its kernels can be trusted, ``trusted`` says."""
    placed = _runs_on(inputs.device) and weight.device == inputs.device
    precise = inputs.dtype in BOUNDS and weight.dtype in BOUNDS
    return placed and precise and Shape(inputs, weight, classes).supported(iterations)


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


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # the compiler asks once, and goes on in one graph
def trusted(
    device: torch.device, batch: int, count: int, input_dim: int, classes: int, dim: int, precision: torch.dtype
) -> bool:
    """Whether the kernels give what they should on a device, for such sizes; if not, why not is told once."""
    return _checked(device, (*alike(batch, count), input_dim, classes, dim), precision)


@functools.cache
def _checked(device: torch.device, sizes: tuple[int, int, int, int, int], precision: torch.dtype) -> bool:
    return accepted(self_check(device, sizes, precision), "the kernels of routing", device)


def self_check(device: torch.device, sizes: tuple[int, int, int, int, int], precision: torch.dtype = torch.float32) -> str:
    """Why the kernels can't be trusted on this device, or "": they are compared with float64.

    Args:
        device: of the kernels.
        sizes: batch, inputs, input_dim, classes, dim, the first two as :func:`agreement_launches.alike` has them.
        precision: of inputs and weight.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """

    def found() -> dict[str, float]:
        errors = deviations(device, sizes, 3, True, precision)
        return {f"in {precision}, batch {sizes[0]}, {name}": error for name, error in errors.items()}

    return fault_of(found, BOUNDS[precision])


def deviations(
    device: torch.device, sizes: tuple[int, int, int, int, int], iterations: int, biased: bool, precision: torch.dtype
) -> dict[str, float]:
    """How far ``route`` is off, as :func:`capsnet.agreement_check.deviations` has it."""
    return agreement_check.deviations(route, sizes, iterations, biased, precision, device)


def _run(kernel: Any, launch: Launch, *arguments: Tensor | None, **sizes: int) -> None:
    kernel[launch.grid](*arguments, **sizes, **launch.values, **launch.options)


@torch.library.custom_op("capsnet::route_votes", mutates_args=())
def route_votes(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, classes: int, iterations: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The capsules; and what the way back needs if it is to ``keep``: sums, totals, couplings, by pass, and parts of inputs."""
    from capsnet import agreement_kernels as kernels

    shape = Shape(inputs, weight, classes)
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
    from capsnet import agreement_gradient_kernels as kernels

    shape = Shape(inputs, weight, classes)
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
