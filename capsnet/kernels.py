"""What Triton kernels and C have in common here: where they run, and that each is checked before it is trusted.

A driver, a compiler or a card may be one that nobody tried them on. So before its first use in a process a kernel computes
something whose result is known in float64; if it can't, or is off, a warning says why and the plain way is taken.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from capsnet.errors import headline, shortage

OPTIONS = {"enable_fp_fusion": True}  # of the compiler: said, because its default is going to change


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU instead of compiling them, as tests have it do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def run_on(device: torch.device, capability: tuple[int, int] = (8, 0)) -> bool:
    """Whether kernels run on a device: on CUDA devices of this compute capability on, and in the interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    if device.type == "cpu":
        return interpreted()
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= capability


def fault_of(deviations: Callable[[], Mapping[str, float]], bound: float) -> str:
    """Why kernels can't be trusted, or "".

    Args:
        deviations: computes with them, and tells how far each result is off.
        bound: what is near enough.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """
    try:
        for name, error in deviations().items():
            if not error <= bound:  # nor is it where the error is NaN
                return f"{name} deviates by {error:.1e}"
    except Exception as error:  # whatever a compiler or driver raises
        if shortage(error) == "out of memory":
            raise
        return headline(error)
    return ""


def relative_errors(names: Iterable[str], answers: Iterable[Tensor], truths: Iterable[Tensor]) -> dict[str, float]:
    """|answer - truth| / |truth| of each, with the precision of the truth."""
    return {
        name: float((answer.detach().to(truth) - truth.detach()).norm() / truth.detach().norm())
        for name, answer, truth in zip(names, answers, truths, strict=True)
    }


_refused: dict[str, set[str]] = {}  # kind of device -> what is not used there


def refused(device: torch.device) -> list[str]:
    """The kernels of which this process found, so far, that they can't be trusted on such a device."""
    return sorted(_refused.get(device.type, ()))


def accepted(fault: str, what: str, device: torch.device) -> bool:
    """Whether there is no fault; if there is one, what is not used on the device, and why, is told."""
    if fault:
        _refused.setdefault(device.type, set()).add(what)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device
        warnings.warn(f"{what} are not used on {name}: {fault}", stacklevel=3)
    return not fault
