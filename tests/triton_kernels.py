"""Triton kernels in tests: interpreted on the CPU, compiled without a device, and replayed on a device.

The interpreter must be chosen before Triton is imported, so a file's tests on the CPU are run by one of its tests, in a process
of their own.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


def interpret(file: str, least: int) -> None:
    """Run a file's tests in the interpreter; at least so many must be there."""
    import triton

    if _release(triton.__version__) <= (3, 6) and _release(np.__version__) >= (2, 4):
        pytest.skip("the interpreter of Triton 3.6, which PyTorch 2.11 has, can't count with NumPy 2.4")
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-p", "no:cacheprovider", "-m", "not gpu and not slow", file]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= least, done.stdout


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


class Compiled(NamedTuple):
    """What a kernel needs of a multiprocessor."""

    registers: int  # of a thread
    stack: int  # bytes of it, for registers that were spilled
    shared: int  # bytes of a program
    ptx: str


def compiled(
    kernel: Any,
    types: Mapping[str, str | tuple[str, ...]],
    constants: Mapping[str, Any],
    options: Mapping[str, int],
    unaligned: tuple[str, ...] = (),
) -> Compiled:
    """Compile a kernel for sm_90, without a device.

    Args:
        kernel: what triton.jit made.
        types: of arguments, by name, a tuple's one by one; those that are neither here nor constants are integers.
        constants: by name.
        options: of the compiler.
        unaligned: integers that are no multiples of 16.
    """
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    names = [name for name, kind in signature.items() if kind != "constexpr" and "desc" not in kind and name not in unaligned]
    places = ((kernel.arg_names.index(name), signature[name]) for name in names)
    paths = [
        path for at, kind in places for path in ([(at,)] if isinstance(kind, str) else [(at, i) for i in range(len(kind))])
    ]
    aligned = {path: [["tt.divisibility", 16]] for path in paths}
    own = {name: value for name, value in constants.items() if name in kernel.arg_names}
    built = compile(ASTSource(kernel, signature, own, aligned), target=GPUTarget("cuda", 90, 32), options=dict(options))
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    cubin = Path(os.environ["TRITON_CACHE_DIR"]) / "cubin"
    cubin.write_bytes(built.asm["cubin"])
    usage = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    result = Compiled(int(found[1]), int(found[2]), built.metadata.shared, built.asm["ptx"])
    print(f"{kernel.__name__}: {result.registers} registers, {result.stack} bytes spilled, {result.shared} bytes shared")
    return result


def captured(work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of the work, and what it writes to."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph, result


class operations(TorchDispatchMode):
    """``with operations() as made``: the names of PyTorch's operations inside, in their order."""

    def __enter__(self) -> list[str]:  # type: ignore[override]
        self.made: list[str] = []
        super().__enter__()
        return self.made

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made.append(function.name().partition(".")[0])
        return function(*args, **(kwargs or {}))


def zeros_made(work: Callable[[], Any]) -> list[str]:
    """The operations of the work that write zeros."""
    with operations() as made:
        work()
    return [name for name in made if "zero" in name]


def microseconds(work: Callable[[], Any]) -> float:
    """Of the work on the device, replayed from a graph, so that the processor's time is left out."""
    from triton.testing import do_bench

    graph, _ = captured(work)
    return 1e3 * float(do_bench(graph.replay, warmup=50, rep=200, return_mode="median"))
