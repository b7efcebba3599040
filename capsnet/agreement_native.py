"""The class capsules on a CPU: transformation and routing by agreement in C, votes never stored (agreement.c says how).

What is kept for the way back are the inputs, side by side for as many images as a vector of the CPU has numbers, the weighted
sums, and each pass's coupling coefficients. On 2 cores of an AMD EPYC the paper's capsules take a third of the time that
PyTorch's operations take in :mod:`capsnet.agreement` (docs/speed.md).
"""

import ctypes
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from capsnet import agreement_check, native
from capsnet.config import RunConfig
from capsnet.kernels import accepted, fault_of
from capsnet.routing import dynamic, routing_of

SOURCE = Path(__file__).with_name("agreement.c")
BOUND = 5e-5
"""|answer - truth| / |truth| of what is trusted; measured: 1e-6."""

THREADED = 2**20  # multiplications of a pass: for fewer, a second thread saved a tenth of 0.2 ms
ALIGNMENT = 64  # bytes: of the longest vectors; PyTorch's own arrays have it
SHARES = 64  # of the work of a pass, for threads to take
LEAST = 64  # inputs to a share: a sum of fewer is not worth having a place of its own
CHECKED = ((35, 130, 8, 10, 16), (5, 7, 3, 4, 6), (17, 70, 13, 3, 9))
"""Sizes that are compared with float64: batch, inputs, input_dim, classes, dim. None fills its last vectors or groups."""

_SIZES = ("batch", "count", "input_dim", "classes", "dim", "iterations", "blocks", "chunks", "threads")
_ARRAYS = ("inputs", "weight", "bias", "capsules", "arranged", "partials", "sums", "totals", "couplings", "scratch")
_BACK = ("gradient", "inputs_gradient", "weight_gradient", "sums_gradients", "logits_gradients", "carried")


class _Job(ctypes.Structure):
    """``routing`` of agreement.c."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES] + [(name, ctypes.c_void_p) for name in (*_ARRAYS, *_BACK)]

    def point(self, **arrays: Tensor | None) -> None:
        """Tell where arrays lie; they have to live as long."""
        for name, array in arrays.items():
            setattr(self, name, None if array is None else array.data_ptr())


def supports(inputs: Tensor, weight: Tensor, classes: int, iterations: int, bias: Tensor | None) -> bool:
    """Whether ``route`` takes these: numbers in float32 on a CPU, of sizes that fit, while nobody counts or notes operations.

    One iteration is a product of matrices, at which PyTorch is as fast.
    """
    given = [tensor for tensor in (inputs, weight, bias) if tensor is not None]
    if iterations == 1 or is_in_torch_dispatch_mode() or any(type(tensor) not in (Tensor, nn.Parameter) for tensor in given):
        return False
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.numel() for tensor in given)
    return plain and _fit(inputs, weight, classes, bias)


def _fit(inputs: Tensor, weight: Tensor, classes: int, bias: Tensor | None) -> bool:
    """Whether C finds what it looks for where it does."""
    if inputs.ndim != 3 or weight.ndim != 3 or weight.shape[:2] != inputs.shape[1:] or classes < 1 or weight.shape[2] % classes:
        return False
    return bias is None or bias.shape == (classes, weight.shape[2] // classes)


@functools.cache
def trusted() -> bool:
    """Whether the compiled code gives what it should on this machine. If it doesn't, why not is told, once."""
    if not native.suits() or not native.compiler():
        return False
    return accepted(fault_of(deviations, BOUND), "the C kernels of routing", torch.device("cpu"))


def remarks(configs: Iterable[RunConfig], device: torch.device) -> list[str]:
    """A line where a compiler would do, and there is none."""
    if device.type != "cpu" or not native.suits() or native.compiler() or not any(map(_routed, configs)):
        return []
    return ["no C compiler was found (cc, gcc or clang): with one, votes and routing take a third of the time (docs/speed.md)"]


def told(config: RunConfig, device: torch.device) -> str:
    """How a config's votes are routed on a device, if there is a choice: rounding differs."""
    if device.type != "cpu" or not _routed(config):
        return ""
    return f"in C, {native.version()}" if trusted() else "PyTorch's operations"


def _routed(config: RunConfig) -> bool:
    """Whether its network can be routed here: capsules by agreement, as in the paper."""
    if "routing" in config.network.unread or config.routing_iterations == 1:
        return False
    return routing_of(config, 1, 1) is dynamic  # with nothing of it changed


def deviations() -> dict[str, float]:
    """How far ``route`` is off for each of the sizes."""
    return {
        f"{name} of {sizes}, r={iterations}": error
        for sizes in CHECKED
        for iterations in (2, 3)
        for name, error in agreement_check.deviations(route, sizes, iterations).items()
    }


def route(
    inputs: Float[Tensor, "batch inputs input_dim"],
    weight: Float[Tensor, "inputs input_dim classes_x_dim"],
    classes: int,
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
) -> Float[Tensor, "batch classes dim"]:
    """``dynamic`` routing of the votes ``inputs @ weight``, of tensors that ``supports`` takes."""
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    if not _fit(inputs, weight, classes, bias):
        sizes = f"inputs {tuple(inputs.shape)}, weight {tuple(weight.shape)}, {classes} classes"
        raise ValueError(f"sizes don't fit: {sizes}" + ("" if bias is None else f", bias {tuple(bias.shape)}"))
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (inputs, weight, bias))
    capsules: Tensor = _Route.apply(inputs, weight, bias, classes, iterations, keep)
    return capsules


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, classes: int, iterations: int, keep: bool
    ) -> Tensor:
        u, w, b = (None if tensor is None else _in_rows(tensor) for tensor in (inputs, weight, bias))
        job = _job(inputs.shape, weight.shape[2], classes, iterations)
        arranged = _lanes(job.count, job.blocks, job.input_dim)
        sums, totals = (_lanes(iterations, job.blocks, classes, job.dim) for _ in range(2))
        couplings = _lanes(iterations - 1, job.count, classes, job.blocks) if keep else None
        capsules = inputs.new_empty(job.batch, classes, job.dim)
        job.point(inputs=u, weight=w, bias=b, capsules=capsules)
        job.point(arranged=arranged, sums=sums, totals=totals, couplings=couplings)
        _run("route", job)
        if keep:
            ctx.sizes, ctx.biased = (inputs.shape, classes, iterations), bias is not None
            ctx.save_for_backward(weight, arranged, sums, totals, couplings)
        return capsules

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        arranged, sums, totals, couplings = map(_in_place, kept)
        shape, classes, iterations = ctx.sizes
        w, of_capsules = _in_rows(weight), _in_rows(gradient)
        job = _job(shape, w.shape[2], classes, iterations)
        of_inputs, of_weight, of_sums = w.new_empty(shape), torch.empty_like(w), torch.empty_like(sums)
        of_logits, carried = torch.empty_like(couplings), torch.empty_like(sums[0])
        job.point(weight=w, arranged=arranged, sums=sums, totals=totals, couplings=couplings, gradient=of_capsules)
        job.point(inputs_gradient=of_inputs, weight_gradient=of_weight)
        job.point(sums_gradients=of_sums, logits_gradients=of_logits, carried=carried)
        _run("route_back", job)
        return of_inputs, of_weight, of_sums.sum(dim=(0, 1, 4)) if ctx.biased else None, None, None, None


def _job(shape: torch.Size, outputs: int, classes: int, iterations: int) -> _Job:
    """The sizes of a routing, and how its work is divided: into shares by sizes alone, which threads then take."""
    batch, count, input_dim = shape
    blocks = -(-batch // _lane_count())
    chunks = max(1, min(-(-SHARES // blocks), count // LEAST))
    threads = torch.get_num_threads() if batch * count * input_dim * outputs >= THREADED else 1
    return _Job(batch, count, input_dim, classes, outputs // classes, iterations, blocks, chunks, threads)


def _run(stage: str, job: _Job) -> None:
    """Do it, in room that is needed no longer."""
    code = _code()
    partials = _lanes(job.chunks, job.blocks, job.classes, job.dim)
    scratch = _lanes(job.threads, code.scratch_size(ctypes.byref(job)))
    job.point(partials=partials, scratch=scratch)
    getattr(code, stage)(ctypes.byref(job))


def _lanes(*shape: int) -> Float[Tensor, "*shape lanes"]:
    """Room for vectors of the CPU."""
    return torch.empty(*shape, _lane_count(), dtype=torch.float32, device="cpu")


def _in_rows(tensor: Tensor) -> Tensor:
    return tensor.contiguous().resolve_neg()


def _in_place(array: Tensor) -> Tensor:
    """As vectors have to lie; what hooks of autograd have taken elsewhere meanwhile, and brought back, may lie otherwise."""
    as_made = array.is_contiguous() and array.data_ptr() % ALIGNMENT == 0
    return array if as_made else array.clone(memory_format=torch.contiguous_format)


def _lane_count() -> int:
    """Numbers of a vector."""
    return ctypes.c_int64.in_dll(_code(), "lane_count").value


def _code() -> ctypes.CDLL:
    code = native.load(SOURCE)
    code.scratch_size.restype = ctypes.c_int64
    return code
