"""Dynamic routing without votes: the same numbers as :func:`capsnet.routing.dynamic`, from inputs and matrices alone.

A vote is u_i W_ij, and routing uses votes in two ways only. A weighted sum over the inputs is a product of the inputs, each
times its coupling coefficient, with the matrices of a class:

    s_j = sum_i c_ij u_i W_ij = (c_j u) W_j                          [batch, inputs * input_dim] @ [inputs * input_dim, dim]

and the agreement of a vote with a capsule is that of the input with the capsule taken back through the matrix:

    u_i W_ij . v_j = u_i . (v_j W_j^T)_i                             [batch, dim] @ [dim, inputs * input_dim]

So the votes of an image, 184,320 numbers in the paper's network, are never written down, and all that is kept for the gradient
are the coupling coefficients. The gradient is that of procedure 1 with all of its passes, in closed form: a vote's gradient is
a sum of outer products, one of the coupling coefficients with the gradient of each weighted sum, and one of the logits'
gradients with the capsule of each agreement.

Under Linux, on a CPU with AVX2 and with a C compiler, the code of :mod:`capsnet.agreement_native` does it in float32, and on
a GPU the Triton kernels of :mod:`capsnet.agreement_triton` do in a few launches, where they compile and compute what they
should. Elsewhere what is here does: on a CPU as many classes at a time as fit into a buffer that stays in the cache, on a GPU
all of them at once.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet import agreement_native, agreement_triton
from capsnet.layers import Routing, squash
from capsnet.products import add_products, products
from capsnet.routing import dynamic, uniform

CACHE = 2**22  # bytes of a buffer that is filled, used and filled again; the paper's network has 4.7 MB for one class


def route(
    inputs: Float[Tensor, "batch inputs input_dim"],
    weight: Float[Tensor, "inputs input_dim outputs"],
    classes: int,
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
) -> Float[Tensor, "batch classes dim"]:
    """Class capsules by routing by agreement (paper, equations 1 to 3 and procedure 1).

    Args:
        inputs: primary capsules.
        weight: each input's matrices of all classes side by side, ``outputs`` = classes * dim.
        classes: how many there are.
        iterations: r, the number of weighted sums; with 1 this is uniform coupling.
        bias: added to each weighted sum.

    Raises:
        ValueError: no iteration.
    """
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    fits = inputs.is_cuda and agreement_triton.supports(inputs, weight, classes, iterations)
    if fits and agreement_triton.trusted(inputs.device, *inputs.shape, classes, weight.shape[2] // classes, inputs.dtype):
        return agreement_triton.route(inputs, weight, classes, iterations, bias)
    here: Tensor = _without_triton(inputs, weight, classes, iterations, bias)
    return here


@torch.compiler.disable  # type: ignore[untyped-decorator]  # C is compiled, and loops over classes gain nothing by it
def _without_triton(inputs: Tensor, weight: Tensor, classes: int, iterations: int, bias: Tensor | None) -> Tensor:
    if agreement_native.supports(inputs, weight, classes, iterations, bias) and agreement_native.trusted():
        return agreement_native.route(inputs, weight, classes, iterations, bias)
    return _plain(inputs, weight, classes, iterations, bias)


def _plain(inputs: Tensor, weight: Tensor, classes: int, iterations: int, bias: Tensor | None) -> Tensor:
    """The same on any device."""
    batch, count, size = inputs.shape
    first = (inputs.flatten(1) @ weight.flatten(0, 1)).unflatten(1, (classes, -1)) / classes  # every coupling is 1 / classes
    offset = weight.new_zeros(()) if bias is None else bias
    if iterations == 1:
        return squash(first + offset)
    # rows of a class's matrix run over the components of the inputs, then over the inputs
    u = inputs.transpose(1, 2).reshape(batch, size * count)
    w = weight.unflatten(2, (classes, -1)).permute(2, 1, 0, 3).reshape(classes, size * count, -1)
    first, offset = first.transpose(0, 1).contiguous(), offset if bias is None else offset[:, None]
    capsules: Tensor = _Passes.apply(u, w, first, offset, iterations, count)
    return capsules.transpose(0, 1)


WITHOUT_VOTES: dict[Routing, Routing] = {dynamic: route, uniform: route}
"""Routings of votes, and the same function of inputs and matrices."""


class _Passes(torch.autograd.Function):
    """All passes after the first weighted sum; capsules are [classes, batch, dim], logits [classes, batch, inputs]."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, w: Tensor, first: Tensor, offset: Tensor, iterations: int, count: int) -> Tensor:
        product = _Classes(u, w, count)
        total = first + offset
        sums, coefficients = [total], []
        logits = u.new_zeros(len(w), len(u), count)
        for _ in range(iterations - 1):
            product.agreements(squash(total), logits)
            coupling = logits.softmax(dim=0)
            total = product.weighted_sums(coupling) + offset
            sums.append(total)
            coefficients.append(coupling)
        ctx.save_for_backward(u, w, *sums, *coefficients)
        ctx.iterations, ctx.count, ctx.offset_shape = iterations, count, offset.shape
        return squash(total)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        u, w, *rest = ctx.saved_tensors
        sums, coefficients = rest[: ctx.iterations], rest[ctx.iterations :]
        product = _Classes(u, w, ctx.count)
        of_u, of_w = torch.zeros_like(u), product.room_for_gradient()
        of_logits = torch.zeros_like(coefficients[0])
        of_offset = torch.zeros_like(sums[0])
        for total, coupling, earlier in zip(sums[:0:-1], coefficients[::-1], sums[-2::-1], strict=True):
            of_total = _squash_gradient(gradient, total).contiguous()  # of views oneDNN has no fast code
            of_offset += of_total
            of_coupling = product.add_outer(coupling, of_total, of_u, of_w, agreement=True)
            of_logits += coupling * (of_coupling - (coupling * of_coupling).sum(dim=0))  # through the softmax
            gradient = product.add_outer(of_logits, squash(earlier), of_u, of_w, agreement=False)
        of_first = _squash_gradient(gradient, sums[0])
        of_offset += of_first
        return of_u, of_w, of_first, of_offset.sum_to_size(ctx.offset_shape), None, None


class _Classes:
    """Products of the inputs with the matrices of the classes, some classes at a time, with one buffer for all of them."""

    def __init__(self, u: Float[Tensor, "batch components"], w: Float[Tensor, "classes components dim"], count: int) -> None:
        self.u, self.w = u[:, None].unflatten(2, (-1, count)).transpose(0, 1), w  # u: [1, batch, input_dim, inputs]
        self.flat, self.count = u, count
        step = len(w) if u.is_cuda else max(1, min(len(w), CACHE // max(1, u.numel() * u.element_size())))
        self.chunks = [slice(start, min(start + step, len(w))) for start in range(0, len(w), step)]
        self.buffer = u.new_empty(step, *u.shape)

    def agreements(self, capsules: Float[Tensor, "classes batch dim"], logits: Float[Tensor, "classes batch inputs"]) -> None:
        """Add the scalar product of each vote with its capsule to the logits."""
        for chunk in self.chunks:
            logits[chunk] += self._back(capsules[chunk], chunk).mul_(self.u).sum(dim=2)

    def weighted_sums(self, coefficients: Float[Tensor, "classes batch inputs"]) -> Float[Tensor, "classes batch dim"]:
        """The votes times the coefficients, summed over the inputs."""
        return torch.cat([products(self._scaled(coefficients[chunk]), self.w[chunk]) for chunk in self.chunks])

    def add_outer(
        self,
        coefficients: Float[Tensor, "classes batch inputs"],
        vectors: Float[Tensor, "classes batch dim"],
        of_u: Float[Tensor, "batch components"],
        of_w: Float[Tensor, "classes components dim"],
        *,
        agreement: bool,
    ) -> Tensor:
        """Add to the gradients what the votes' gradient, coefficients times vectors, makes of them.

        Returns:
            The agreement of the votes with the vectors, or else their sum weighted by the coefficients.
        """
        found = torch.empty_like(coefficients if agreement else vectors)
        of_u = of_u.unflatten(1, (-1, self.count))  # [batch, input_dim, inputs]
        for chunk in self.chunks:
            back = self._back(vectors[chunk], chunk)
            for one, scale in zip(back, coefficients[chunk], strict=True):
                of_u.addcmul_(one, scale[:, None])
            if agreement:
                torch.sum(back.mul_(self.u), dim=2, out=found[chunk])
            scaled = self._scaled(coefficients[chunk])
            add_products(of_w[chunk].transpose(1, 2), vectors[chunk].transpose(1, 2), scaled)
            if not agreement:
                found[chunk] = products(scaled, self.w[chunk])
        return found

    def room_for_gradient(self) -> Float[Tensor, "classes components dim"]:
        """Zeros for that of the matrices; large ones are added to faster in their columns' order."""
        large = len(self.chunks) > 1
        return self.w.new_zeros(self.w.transpose(1, 2).shape).transpose(1, 2) if large else torch.zeros_like(self.w)

    def _back(self, vectors: Float[Tensor, "chunk batch dim"], chunk: slice) -> Float[Tensor, "chunk batch input_dim inputs"]:
        """The vectors taken back through the matrices, to be used before the buffer is."""
        return products(vectors, self.w[chunk].transpose(1, 2), self.buffer[: len(vectors)]).unflatten(2, (-1, self.count))

    def _scaled(self, coefficients: Float[Tensor, "chunk batch inputs"]) -> Float[Tensor, "chunk batch components"]:
        """The inputs times the coefficients, in the buffer."""
        buffer = self.buffer[: len(coefficients)]
        torch.mul(self.u, coefficients[:, :, None], out=buffer.unflatten(2, (-1, self.count)))
        return buffer


def _squash_gradient(gradient: Float[Tensor, "*rest dim"], vectors: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest dim"]:
    """The gradient of squash(vectors): with n = |s|, that of f(n) s, f(n) = n / (1 + n^2); at 0 it is 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    squared = 1 + length**2
    slope = torch.where(length > 0, (1 - length**2) / squared / (squared * length), 0)  # f'(n) / n
    along = (gradient * vectors).sum(dim=-1, keepdim=True)
    return gradient * (length / squared) + vectors * (along * slope)
