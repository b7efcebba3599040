"""C sources of this package, compiled for this CPU at their first use.

What PyTorch's operations do in many rounds through memory, some lines of C do in one. Any C compiler of the machine will do:
what ``CC`` names, or else ``cc``, ``gcc`` or ``clang``. Its product lies where Python keeps its own, in ``__pycache__``, and is
made anew when the source or the CPU is another; where nothing can be written, each process makes its own.
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
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return named
    return next(([name] for name in COMPILERS if shutil.which(name)), [])


@functools.cache
def load(source: Path) -> ctypes.CDLL:
    """The library that a C source is compiled to.

    Raises:
        OSError: there is no such compiler, nowhere to write, or the library can't be loaded.
        RuntimeError: what the compiler says.
    """
    flags = (*FLAGS, *UNITS[torch.backends.cpu.get_cpu_capability()])
    digest = hashlib.sha256("\0".join([*compiler(), *flags, source.read_text()]).encode()).hexdigest()[:16]
    kept = Path(importlib.util.cache_from_source(str(source))).with_name(f"{source.stem}.{digest}.so")
    if not kept.exists():
        try:
            _compile(source, flags, kept)
        except OSError:  # the package lies where this user can't write
            with tempfile.TemporaryDirectory() as folder:  # a library that is loaded needs no file any more
                own = Path(folder) / kept.name
                _compile(source, flags, own)
                return ctypes.CDLL(str(own))
    return ctypes.CDLL(str(kept))


def _compile(source: Path, flags: tuple[str, ...], to: Path) -> None:
    with replaced(to) as temporary:
        command = [*compiler(), *flags, "-o", str(temporary), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
            raise RuntimeError(f"{shlex.join(command[:1])} ended with {done.returncode}: {told[0]}")
