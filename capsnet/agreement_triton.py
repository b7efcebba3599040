"""The class capsules on a CUDA device: transformation and routing by agreement in a few kernels, votes never stored.

Votes are products û_ij = u_i W_ij, so that a logit, the sum of û · v_k over the passes k so far, is û · V with V = sum v_k:
a pass needs no logits of the pass before, only V, which is small. Forward, pass k + 1 (in the first all c = 1 / classes):

    b_ij = û_ij · V_j      c_i = softmax over j of b_i      s_j = sum_i c_ij û_ij + bias_j      v = squash(s)

Backward from g = dv, for the passes from the last to the second, with dV carried from pass to pass:

    ds = dsquash(g)      db_ij = c_ij (û_ij · ds_j - sum_j c_ij û_ij · ds_j)      dV_j += sum_i db_ij û_ij      g = dV

Then dû_ij is the sum of c_ij ds_j + db_ij V_j over these passes, and ds_j / classes of the first; du_i = W_ij dû_ij, dW_ij
the sum of u_i dû_ij over the batch, dbias the sum of all ds. Besides the gradients, that takes memory for each pass's c and
db ([classes, batch, inputs]), and for each chunk's share of a sum: 7/16 of the votes, with the paper's sizes and r = 3.

Precision: sums, softmax and squash are float32. Products of matrices are on the tensor cores, which read 11 bits of a
number: if inputs and weight are both bfloat16, one product, of operands rounded to 11 bits; otherwise three, of 22 bits.

Cost, ESTIMATED and not measured: batch 128, 1152 inputs of 8, 10 classes of 16, r = 3, forward and backward, on an H200.
13 products of 0.38 GFLOP (forward 1 for the first pass and 2 for another, backward 3 a pass, 1 for du, 1 for dW): 5 GFLOP;
in float32 three times that on the tensor cores, 15 GFLOP or 0.03 ms at 500 TFLOP/s. Instructions, counted in what the
compiler makes for sm_90: 0.05 ms if every cycle issued one (bfloat16: 0.04 ms). Device memory, each input read and each
gradient written once: 0.03 GB, 0.01 ms at 4.3 TB/s; what lies in the L2 cache between kernels: about 0.5 GB, 0.1 ms at
5 TB/s. So the floor of this design is near 0.1 ms. 13 launches: some 0.1 ms or more of the processor's time, which a CUDA
graph saves.
"""

import functools
import importlib.util
import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import dynamic

LIMITS = {"input_dim": 32, "classes": 128, "dim": 32}
CHECKED = (5, 70)  # batches: a part of the smallest tile; a whole one of the largest and a part of another
PRECISIONS = (torch.float32, torch.bfloat16)
OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}  # of the compiler


def supports(inputs: Tensor, weight: Tensor, classes: int, iterations: int) -> bool:
    """Whether ``route`` takes these: device, precision, sizes. Whether its kernels can be trusted, ``self_check`` says."""
    batch, count, input_dim = inputs.shape
    if not (
        _runs_on(inputs.device)
        and weight.device == inputs.device
        and inputs.dtype in PRECISIONS
        and weight.dtype in PRECISIONS
        and min(batch, count, iterations) >= 1
        and input_dim <= LIMITS["input_dim"]
        and classes <= LIMITS["classes"]
        and weight.shape[2] // classes <= LIMITS["dim"]
    ):
        return False
    partials = _Shape(inputs, weight, classes).chunks * batch * weight.shape[2]
    return max(iterations * classes * batch * count, partials, inputs.numel(), weight.numel()) < 2**31  # they count in 32 bits


def _runs_on(device: torch.device) -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1"
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


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
def self_check(device: torch.device, input_dim: int = 8, classes: int = 10, dim: int = 16) -> str:
    """Why the kernels can't be trusted on this device, or "": they are compared with float64, once per process.

    With a few images and with more than a tile of 64, which tensor cores multiply by other instructions.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """
    try:
        for precision, bound in ((torch.float32, 5e-5), (torch.bfloat16, 1e-2)):
            for batch in CHECKED:
                for name, error in deviations(device, (batch, 19, input_dim, classes, dim), 3, True, precision).items():
                    if not error <= bound:  # nor is it where the error is NaN
                        return f"in {precision}, batch {batch}, {name} deviates by {error:.1e}"
    except Exception as error:  # whatever a compiler or driver raises
        if "out of memory" in str(error):
            raise
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


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


class _Shape:
    """The sizes of a problem, and how its work is cut.

    They decide the order of the sums, and with it the last bit; so they depend on nothing but sizes and precision.
    """

    def __init__(self, inputs: Tensor, weight: Tensor, classes: int) -> None:
        self.batch, self.count, self.input_dim = inputs.shape
        self.classes, self.dim = classes, weight.shape[2] // classes
        input_dim_p = _power(self.input_dim)
        rows, chunk = min(64, _power(self.batch, 16)), 64 // input_dim_p  # a tile of u: at most 64 x 64
        self.chunks = -(-self.count // chunk)
        self.capsules = {"dim": self.dim, "dim_p": _power(self.dim, 16)}
        self.tiles = {
            "batch": self.batch,
            "count": self.count,
            "classes": classes,
            "input_dim": self.input_dim,
            "input_dim_p": input_dim_p,
            "rows": rows,
            "chunk": chunk,
            "exact": torch.float32 in (inputs.dtype, weight.dtype),
            **self.capsules,
        }
        self.grid = (-(-self.batch // rows), self.chunks)
        input_dim_p = max(8, input_dim_p)
        own = {"input_dim_p": input_dim_p, "rows": 16, "chunk": 128 // input_dim_p, "tiles": -(-self.batch // 16)}
        self.weight_tiles = {**self.tiles, **own}
        self.weight_grid = (-(-self.count // self.weight_tiles["chunk"]), classes)

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=like.device)

    def vectors(self, like: Tensor, *shape: int) -> Tensor:
        return self.empty(like, *shape, self.batch, self.classes, self.dim)

    def pairs(self, like: Tensor, *shape: int) -> Tensor:
        return self.empty(like, *shape, self.batch, self.count)

    def summing(self, chunks: int) -> dict[str, Any]:
        return {"chunks": chunks, "capsule_count": self.batch * self.classes, "step": min(64, _power(chunks))}


def _power(size: int, least: int = 1) -> int:
    return max(least, 1 << (size - 1).bit_length())


@torch.library.custom_op("capsnet::route_votes", mutates_args=())
def route_votes(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, classes: int, iterations: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The capsules; and what the way back needs if it is to ``keep``: sums, totals, couplings, by pass."""
    from capsnet import agreement_kernels as kernels

    shape = _Shape(inputs, weight, classes)
    inputs, weight, bias = inputs.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    passes = iterations - 1
    capsules, partials = shape.vectors(inputs), shape.vectors(inputs, shape.chunks)
    sums, totals = shape.vectors(inputs, iterations), shape.vectors(inputs, passes)
    logits, couplings = shape.pairs(inputs, classes), shape.pairs(inputs, passes if keep else min(passes, 1), classes)
    with torch.cuda.device_of(inputs):
        for k in range(iterations):
            agreeing = (totals[k - 1], logits, couplings[k - 1 if keep else 0]) if k else (None, None, None)
            kernels.weighted_sums[shape.grid](inputs, weight, *agreeing, partials, **shape.tiles, **OPTIONS)
            kernels.squash_sums[(shape.batch * classes,)](
                partials,
                bias,
                totals[k - 1] if k else None,
                sums[k],
                capsules,
                totals[k] if k < passes else None,
                classes=classes,
                **shape.capsules,
                **shape.summing(shape.chunks),
                **OPTIONS,
            )
    if not keep:
        sums, totals, couplings = inputs.new_empty(0), inputs.new_empty(0), inputs.new_empty(0)
    return capsules, sums, totals, couplings


@route_votes.register_fake
def _(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    classes: int,
    iterations: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, count, _ = inputs.shape
    one = batch, classes, weight.shape[2] // classes
    capsules, passes = inputs.new_empty(one, dtype=torch.float32), iterations - 1
    if not keep:
        return capsules, inputs.new_empty(0), inputs.new_empty(0), inputs.new_empty(0)
    couplings = capsules.new_empty(passes, classes, batch, count)
    return capsules, capsules.new_empty(iterations, *one), capsules.new_empty(passes, *one), couplings


@torch.library.custom_op("capsnet::route_votes_gradients", mutates_args=())
def route_votes_gradients(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    sums: Tensor,
    totals: Tensor,
    couplings: Tensor,
    classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of inputs, weight and bias."""
    from capsnet import agreement_kernels as kernels

    shape = _Shape(inputs, weight, classes)
    gradient, inputs, weight = gradient.float().contiguous(), inputs.contiguous(), weight.contiguous()
    passes = len(sums) - 1
    results, partials = torch.empty_like(sums), shape.vectors(inputs, shape.chunks)
    carried, agreements, changes = torch.empty_like(totals), shape.pairs(inputs, classes), torch.empty_like(couplings)
    shares = shape.empty(inputs, *inputs.shape) if passes else None
    inputs_gradient, weight_gradient = torch.empty_like(inputs), torch.empty_like(weight)

    def unsquash(partials: Tensor, before: Tensor | None, k: int, after: Tensor | None, chunks: int) -> None:
        kernels.unsquash_gradients[(shape.batch * classes,)](
            partials, before, sums[k], after, results[k], **shape.capsules, **shape.summing(chunks), **OPTIONS
        )

    with torch.cuda.device_of(inputs):
        unsquash(gradient, None, passes, None, 1)
        for k in reversed(range(passes)):
            last = k == passes - 1
            kernels.pass_gradients[shape.grid](
                inputs,
                weight,
                totals[k],
                results[k + 1],
                couplings[k],
                agreements,
                changes[k],
                shares,
                partials,
                **shape.tiles,
                last=last,
                **OPTIONS,
            )
            unsquash(partials, None if last else carried[k + 1], k, carried[k], shape.chunks)
        kernels.input_gradients[shape.grid](weight, results[0], shares, inputs_gradient, **shape.tiles, **OPTIONS)
        kernels.weight_gradients[shape.weight_grid](
            inputs, results, totals, couplings, changes, weight_gradient, **shape.weight_tiles, passes=passes, **OPTIONS
        )
    return inputs_gradient, weight_gradient, results.sum(dim=(0, 1))


@route_votes_gradients.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    inputs: Tensor,
    weight: Tensor,
    sums: Tensor,
    totals: Tensor,  # noqa: ARG001
    couplings: Tensor,  # noqa: ARG001
    classes: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(inputs), torch.empty_like(weight), sums.new_empty(sums.shape[2:])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, weight, bias, ctx.classes, _, _ = inputs
    ctx.bias_precision = None if bias is None else bias.dtype
    ctx.save_for_backward(u, weight, *output[1:])


def _back(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, weight, bias = route_votes_gradients(gradient, *ctx.saved_tensors, ctx.classes)
    return inputs, weight, None if ctx.bias_precision is None else bias.to(ctx.bias_precision), None, None, None


route_votes.register_autograd(_back, setup_context=_remember)
