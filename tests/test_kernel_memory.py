"""The watch over kernels' memory sees what it is there for."""

import contextlib
from typing import no_type_check

import pytest
import torch

from tests.kernel_memory import watched_kernels
from tests.triton_kernels import INTERPRETED, interpret

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = triton.language
in_it = pytest.mark.skipif(not INTERPRETED, reason="test_in_the_interpreter runs it")


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    interpret(__file__, 7)


@triton.jit
@no_type_check
def shifted(source, out, count, shift, block: tl.constexpr):
    """Each program copies its block, a number for each lane and ``shift`` away."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + at, tl.load(source + at + shift, mask=at < count, other=0.0), mask=at < count)


@triton.jit
@no_type_check
def meeting(out):
    """All programs write the same number."""
    tl.store(out, 1.0)


@triton.jit
@no_type_check
def crowded(out):
    """Two lanes write the same number."""
    tl.store(out + tl.arange(0, 4) // 2, tl.full((4,), 1.0, tl.float32))


@triton.jit
@no_type_check
def tiles(source, out):
    """Reads a tile of a descriptor that is partly outside, which is 0 there."""
    at = tl.arange(0, 4)[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out + at, source.load([1, 0]))


def refused(message):
    return pytest.raises(triton.runtime.errors.InterpreterError, match=message)


@in_it
@pytest.mark.parametrize(
    ("shift", "expected"), [(0, contextlib.nullcontext()), (1, refused("reads outside")), (-1, refused("reads outside"))]
)
def test_addresses_outside_of_the_tensors_are_refused(shift, expected):
    source, out = torch.zeros(3, 32)[1][:10], torch.zeros(10)  # a part of a larger one, whose other numbers are not its own
    with watched_kernels() as launches, expected:
        shifted[(2,)](source, out, 10, shift, block=8)
    assert launches == ["shifted"]


@in_it
def test_numbers_that_programs_read_and_write_in_no_order_are_refused():
    numbers = torch.zeros(17)
    with watched_kernels():
        shifted[(2,)](numbers, numbers, 16, 0, block=8)  # each in its place
        with refused("writes what another program reads"):
            shifted[(2,)](numbers, numbers, 16, 1, block=8)
        with refused("reads what the launch has written"):
            shifted[(2,)](numbers, numbers[1:], 16, 0, block=8)


@in_it
def test_a_number_that_is_written_twice_is_refused():
    with watched_kernels():
        meeting[(1,)](torch.zeros(1))
        with refused("writes what was written"):
            meeting[(2,)](torch.zeros(1))
        with refused("twice at once"):
            crowded[(1,)](torch.zeros(4))


@in_it
@pytest.mark.parametrize("hidden", [0, 1])
def test_tiles_that_descriptors_copy_are_watched(hidden):
    """The hardware reads what the descriptor says is there, whoever owns it."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    whole, out = torch.ones(3, 16), torch.zeros(4, 16)
    source = TensorDescriptor(whole[: 3 - hidden], [3, 16], [16, 1], [4, 16])
    with watched_kernels(), refused("reads outside") if hidden else contextlib.nullcontext():
        tiles[(1,)](source, out)
        assert out.sum(dim=1).tolist() == [16, 16, 0, 0]
