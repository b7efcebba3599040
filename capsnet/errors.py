"""What a user did wrong, in words that are enough to mend it."""

import difflib
import errno
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

NO_MEMORY = ("out of memory", "can't allocate memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")
"""As CUDA and the allocators say it, as torch does of a CPU, and as cuBLAS, cuDNN and cuFFT do of their workspaces."""


NO_DEVICE = ("CUDA error", "Triton Error [CUDA]")
"""As PyTorch and Triton say it of a CUDA device, which a process can often use no more after that."""


class InputError(ValueError):
    """A wrong input of the user's: reported without a traceback and with exit code 2, before any work starts."""


def brief(error: object, length: int = 300) -> str:
    """What an error says, in one line of at most so many characters."""
    said = " ".join(str(error).split())
    return said if len(said) <= length else said[: length - 1] + "…"


def headline(error: BaseException) -> str:
    """``TypeError: no such thing``: what kind of error it is, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def unknown(what: str, name: object, choices: Iterable[str], place: str = "") -> str:
    """The message for a name that is not among the choices: the nearest one if there is one, and always the choices.

    >>> unknown("key", "rooting", ["routing", "seed"], "grids/paper.yaml")
    "unknown key 'rooting' in grids/paper.yaml; did you mean 'routing'? (choices: routing, seed)"
    """
    choices = list(choices)
    near = difflib.get_close_matches(str(name), choices, n=1)
    where = f" in {place}" if place else ""
    hint = f"did you mean {near[0]!r}? (choices: {', '.join(choices)})" if near else f"choices: {', '.join(choices) or 'none'}"
    return f"unknown {what} {name!r}{where}; {hint}"


def shortage(error: BaseException) -> str:
    """``out of memory`` or ``disk full`` if it was the machine that had not enough of it, else nothing."""
    said = str(error)
    if isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY):
        return "out of memory"
    if (isinstance(error, OSError) and error.errno in FULL) or any(f"(os error {number})" in said for number in FULL):
        return "disk full"  # the latter is how safetensors, which is written in Rust, says so
    return ""


def of_device(said: str) -> bool:
    """Whether it was a CUDA device that failed."""
    return any(words in said for words in NO_DEVICE)


def is_text(words: str) -> bool:
    """Whether a database can hold it: YAML can name halves of pairs of surrogates, and a shell hand on any byte."""
    return not any("\ud800" <= letter <= "\udfff" for letter in words)
