"""What Triton kernels do with memory, watched in the interpreter: a mistake that a GPU answers with numbers of another tensor.

Of each launch it is asserted that

- every address that is read or written lies in a tensor that the kernel was given;
- no address is written twice, by one program or by two;
- no program reads what this launch has written, or writes what another one reads: their order is no one's to say.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

UNIT = 2  # bytes; no number in the kernels is smaller, and one is known by its first
NOBODY, MANY = -1, -2


class _Memory:
    """The tensors of one launch, and which program last read and wrote each number in them."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        spans = sorted((t.data_ptr(), t.data_ptr() + _extent(t) * t.element_size()) for t in tensors if t.numel())
        joined: list[list[int]] = []
        for start, end in spans:
            if joined and start < joined[-1][1]:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([start, end])
        self.starts, self.ends = (np.array([span[k] for span in joined], dtype=np.uint64) for k in (0, 1))
        sizes = ((self.ends - self.starts).astype(np.int64) + UNIT - 1) // UNIT
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])
        self.readers = np.full(self.offsets[-1], NOBODY, dtype=np.int64)
        self.writers = self.readers.copy()

    def places(self, addresses: Any, size: int, what: str) -> Any:
        """Where records of numbers of ``size`` bytes are."""
        span = np.searchsorted(self.starts, addresses, side="right") - 1
        inside = (span >= 0) & (addresses + np.uint64(size) <= self.ends[span])
        assert inside.all(), f"{what} outside of all tensors: {(~inside).sum()} of {inside.size} addresses"
        return self.offsets[span] + ((addresses - self.starts[span]) // np.uint64(UNIT)).astype(np.int64)

    def read(self, addresses: Any, size: int, program: int) -> None:
        at = self.places(addresses, size, "reads")
        assert (self.writers[at] == NOBODY).all(), "reads what the launch has written"
        others = (self.readers[at] != NOBODY) & (self.readers[at] != program)
        self.readers[at] = np.where(others, MANY, program)

    def write(self, addresses: Any, size: int, program: int) -> None:
        at = self.places(addresses, size, "writes")
        assert len(np.unique(at)) == at.size, "a program writes an address twice at once"
        assert (self.writers[at] == NOBODY).all(), "writes what was written"
        assert np.isin(self.readers[at], [NOBODY, program]).all(), "writes what another program reads"
        self.writers[at] = program


def _extent(tensor: torch.Tensor) -> int:
    """Numbers from its first to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among a kernel's arguments, in tuples and in descriptors, too."""
    for value in values:
        if isinstance(value, tuple):
            yield from _tensors(value)
        elif isinstance(own := getattr(value, "base", value), torch.Tensor):
            yield own


@contextmanager
def watched_kernels() -> Iterator[list[str]]:
    """All launches inside are watched; -> the names of the kernels that were."""
    from triton.runtime import interpreter

    library, launches, memory = interpreter._interpreter, [], None
    arguments: Callable[..., Any] = interpreter.GridExecutor._init_args_hst

    def given(executor: Any, values: Any, named: Any) -> Any:
        nonlocal memory
        result = arguments(executor, values, named)
        memory = _Memory(list(_tensors([*result[0], *result[1].values()])))
        launches.append(executor.fn.__name__)
        return result

    def program() -> int:
        x, y, z = interpreter.interpreter_builder.grid_idx
        return int((x << 42) + (y << 21) + z)

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        @staticmethod
        def load(pointers: Any, mask: Any, other: Any, kind: Any) -> Any:
            assert memory is not None
            memory.read(pointers[mask], np.dtype(kind).itemsize, program())
            return library.load(pointers, mask, other, kind)

        @staticmethod
        def store(pointers: Any, values: Any, mask: Any) -> Any:
            assert memory is not None
            memory.write(pointers[mask], values.dtype.itemsize, program())
            return library.store(pointers, values, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.GridExecutor, "_init_args_hst", given)
        patch.setattr(interpreter, "_interpreter", Watched())
        yield launches
