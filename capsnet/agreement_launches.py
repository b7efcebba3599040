"""How the kernels of capsnet.agreement_triton are cut into programs: by nothing but sizes and precision.

The cut decides the order of the sums, and with it the last bit.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from capsnet.kernels import OPTIONS

LIMITS = {"input_dim": 32, "dim": 32, "columns": 512}  # the last: classes * dim, both padded
CHECKED = (368, 371)  # inputs: a few for each program, and fewer for the last
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


class Launch(NamedTuple):
    """Of a kernel: its programs, and the values and options it is compiled with."""

    grid: tuple[int, ...]
    values: dict[str, Any]
    options: dict[str, int]
    chunks: int = 1  # into which the inputs are cut


class Shape:
    """The sizes of a problem, and how its work is cut."""

    def __init__(self, inputs: Tensor, weight: Tensor, classes: int) -> None:
        self.batch, self.count, self.input_dim = inputs.shape
        self.classes, self.dim = classes, weight.shape[2] // classes
        self.dim_p = _power(self.dim, 16)
        self.exact = torch.float32 in (inputs.dtype, weight.dtype)
        self.split = self.exact and self.input_dim <= 8
        self.sizes = {"classes": classes, "dim": self.dim, "input_dim": self.input_dim, "exact": self.exact}

    def uniform(self) -> Launch:
        """The first pass."""
        tuned = {**OPTIONS, **TUNING["uniform_sums"]}
        width, step, programs = tuned.pop("width"), tuned.pop("step"), tuned.pop("programs")
        rows = min(tuned.pop("rows"), _power(self.batch, 16))
        columns, outputs = self.count * self.input_dim, self.classes * self.dim
        tiles = -(-self.batch // rows), -(-outputs // width)
        chunk = -(-columns // (step * max(1, programs // (tiles[0] * tiles[1])))) * step
        chunks = -(-columns // chunk)
        values = {"input_dim": self.input_dim, "classes": self.classes, "outputs": outputs, "exact": self.exact}
        return Launch((*tiles, chunks), {"chunk": chunk, **values, "rows": rows, "width": width, "step": step}, tuned, chunks)

    def agreeing(self, kernel: str) -> Launch:
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
        return Launch((tiles, chunks), {"chunk": chunk, **self.sizes, **own}, tuned, chunks)

    def gradients(self, kernel: str, passes: int) -> Launch:
        """Of inputs or weight."""
        tuned = {**OPTIONS, **TUNING[kernel]}
        input_dim_p = _power(self.input_dim, 8)
        at_once = min(tuned.pop("inputs_at_once"), 256 // max(input_dim_p, self.dim_p))
        rows = min(tuned.pop("rows"), _power(self.batch, 16))
        other = -(-self.batch // rows) if kernel == "input_gradients" else self.classes
        groups = -(-self.count // at_once)
        own = {"dim_p": self.dim_p, "input_dim_p": input_dim_p, "rows": rows, "inputs_at_once": at_once, "passes": passes}
        return Launch((other, groups) if kernel == "input_gradients" else (groups, other), {**self.sizes, **own}, tuned)

    def squashing(self, kernel: str, chunks: int) -> Launch:
        """``squash_sums`` or its gradient."""
        tuned = {**OPTIONS, **TUNING[kernel]}
        many = tuned.pop("step")
        values = {"chunks": chunks, "dim": self.dim, "dim_p": self.dim_p, "step": many if chunks > 1 else 1}
        if kernel == "squash_sums":
            values["classes"] = self.classes
        capsules = self.batch * self.classes
        return Launch((capsules,), {"capsule_count": capsules, **values}, tuned)

    def supported(self, iterations: int) -> bool:
        """Whether the kernels take them; they count in 32 bits."""
        if min(self.batch, self.count, iterations) < 1 or self.input_dim > LIMITS["input_dim"] or self.dim > LIMITS["dim"]:
            return False
        if _columns(self.classes, self.dim) > LIMITS["columns"]:
            return False
        launches = self.uniform(), self.agreeing("weighted_sums"), self.agreeing("pass_gradients")
        shares = max(launch.chunks for launch in launches) * self.batch * self.classes * self.dim
        pairs, of_inputs = self.classes * self.batch * self.count, self.batch * self.count * self.input_dim
        of_weight = self.count * self.input_dim * self.classes * self.dim
        return max(iterations * pairs, shares, 2 * of_inputs, of_weight) < 2**31

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """Room for numbers in float32 on the device of another tensor."""
        return torch.empty(shape, dtype=torch.float32, device=like.device)

    def vectors(self, like: Tensor, *shape: int) -> Tensor:
        """Room for [*shape, batch, classes, dim]."""
        return self.empty(like, *shape, self.batch, self.classes, self.dim)

    def pairs(self, like: Tensor, *shape: int) -> Tensor:
        """Room for [*shape, inputs, classes, batch]."""
        return self.empty(like, *shape, self.count, self.classes, self.batch)


def alike(batch: int, count: int) -> tuple[int, int]:
    """A batch and a number of inputs for which the same programs are compiled, to check these and not others.

    What is compiled depends on the height of a tile, which tensor cores may multiply by other instructions, and on whether
    sizes are multiples of 16, or 1, which is left out here. With the tallest tile there are a whole one and a part of another.
    """
    even, odd = {16: (16, 5), 32: (32, 21), 64: (112, 70)}[min(_power(batch, 16), 64)]
    return odd if batch % 16 else even, CHECKED[count % 16 > 0]


def _power(size: int, least: int = 1) -> int:
    return max(least, 1 << (size - 1).bit_length())


def _columns(classes: int, dim: int) -> int:
    """Of a tile of votes."""
    return _power(classes, 2) * _power(dim, 16)
