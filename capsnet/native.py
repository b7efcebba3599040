"""C sources of this package, compiled for this CPU at their first use.

What PyTorch's operations do in many rounds through memory, some lines of C do in one. Any C compiler of the machine will do:
what ``CC`` names, or else ``cc``, ``gcc`` or ``clang``. Its product lies where Python keeps its own, in ``__pycache__``, and is
made anew where source, compiler, its version or the CPU's units are others, or where it was damaged: its name has the digest of
all that. Where nothing can be written, each process makes its own.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from capsnet.files import replaced

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-Wno-psabi", "-fPIC", "-shared")
UNITS = {"AVX512": ("-mavx512f", "-mavx2", "-mfma"), "AVX2": ("-mavx2", "-mfma")}
"""What the compiler may use, by PyTorch's name for what a CPU has. On other ones, as of ARM, nobody has tried."""


def suits() -> bool:
    """Whether the sources are written for such a machine."""
    return sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() in UNITS


def compiler() -> list[str]:
    """The command of the machine's C compiler; none if there is none."""
    named = os.environ.get("CC", "").strip()
    if named:
        try:
            return shlex.split(named)
        except ValueError:  # a quotation without an end: no such command either
            return [named]
    return next(([name] for name in COMPILERS if shutil.which(name)), [])


@functools.cache
def version() -> str:
    """What the compiler calls itself, and the CPU's units that it may use.

    Raises:
        OSError: there is no such compiler.
    """
    said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    return f"{said.partition(chr(10))[0]} for {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def load(source: Path) -> ctypes.CDLL:
    """The library that a C source is compiled to.

    Raises:
        OSError: there is no such compiler, or the library can't be loaded.
        RuntimeError: what the compiler says.
    """
    flags = (*FLAGS, *UNITS[torch.backends.cpu.get_cpu_capability()])
    key = _digest("\0".join([*compiler(), version(), *flags, source.read_text()]).encode())
    folder = Path(importlib.util.cache_from_source(str(source))).parent
    for kept in folder.glob(f"{source.stem}.{key}.*.so"):
        if kept.name == _name(source, key, kept):  # else it is not whole, and to load it could end the process
            return ctypes.CDLL(str(kept))
    with tempfile.TemporaryDirectory() as temporary:  # a library that is loaded needs no file any more
        made = Path(temporary) / "made.so"
        _compile(source, flags, made)
        kept = folder / _name(source, key, made)
        try:
            with replaced(kept) as copy:
                shutil.copyfile(made, copy)
        except OSError:  # the package lies where this user can't write, or the disk is full
            return ctypes.CDLL(str(made))
        return ctypes.CDLL(str(kept))


def _name(source: Path, key: str, library: Path) -> str:
    return f"{source.stem}.{key}.{_digest(library.read_bytes())}.so"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _compile(source: Path, flags: tuple[str, ...], to: Path) -> None:
    command = [*compiler(), *flags, "-o", str(to), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not to.exists():
        lines = done.stderr.splitlines()
        told = [line for line in lines if "error" in line and "collect2" not in line] or lines or ["it made nothing"]
        raise RuntimeError(f"{shlex.join(command[:1])} ended with {done.returncode}: {told[0]}")
