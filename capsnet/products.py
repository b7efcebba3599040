"""Matrix products on a CPU, each by the library that is faster at it. None of them has a gradient.

PyTorch has two libraries on x86, and gives products of float32 to MKL, others to oneDNN. For the large ones of the paper's
network, which are long and narrow (148 rows of 25 numbers by 25 of 262,144; 16 of 128 by 128 of 9,216), oneDNN takes a third to
four fifths of MKL's time in float32, too. The operator that reaches it is the one that torch.compile calls for a linear layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LARGE = 2**24  # multiplications: of fewer than that, MKL's are as fast


def product(
    left: Float[Tensor, "m k"], right: Float[Tensor, "k n"], bias: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "m n"]:
    """``left @ right``, plus ``bias``."""
    if _by_onednn(left, right):  # which could take the ReLU as well, but would make 0 of what is not a number
        made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.t(), bias, "none", [], "")
        return made
    return left @ right if bias is None else torch.addmm(bias, left, right)


def products(
    left: Float[Tensor, "n m k"], right: Float[Tensor, "n k p"], room: Float[Tensor, "n m p"] | None = None
) -> Float[Tensor, "n m p"]:
    """The product of each pair, in ``room`` unless it is faster made elsewhere."""
    if len(left) == 1 and _by_onednn(left[0], right[0]):
        return product(left[0], right[0])[None]
    return torch.bmm(left, right, out=room)


def add_products(to: Float[Tensor, "n m p"], left: Float[Tensor, "n m k"], right: Float[Tensor, "n k p"]) -> None:
    """Add the product of each pair to what is there."""
    if len(left) == 1 and _by_onednn(left[0], right[0]):
        to += product(left[0], right[0])
    else:
        to.baddbmm_(left, right)


def _by_onednn(left: Float[Tensor, "m k"], right: Float[Tensor, "k n"]) -> bool:
    """Whether oneDNN can be told to make it, instead of MKL, and is faster."""
    if left.numel() * right.shape[1] < LARGE or left.device.type != "cpu" or left.dtype != torch.float32:
        return False
    return _dense(left) and _dense(right) and _has_onednn()


def _dense(matrix: Float[Tensor, "m n"]) -> bool:
    """Whether rows or columns follow each other without a gap: with gaps, oneDNN takes a thousand times as long."""
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def _has_onednn() -> bool:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.backends.mkldnn.enabled and torch.backends.mkl.is_available())
