"""How a run computes its steps: options that change its speed, and of its numbers no more than the rounding.

They are no fields of a config. What ``auto`` means is settled for the whole of a run by its config and its device, so that a
run that is resumed goes on in the way it began, unless it is told otherwise, or a compiler or a capture fails.
"""

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from capsnet.config import RunConfig
from capsnet.errors import InputError, unknown

if TYPE_CHECKING:  # a wrong flag is refused without loading torch
    import torch

CHOICES = ("auto", "on", "off")

# Estimated: what compiling takes and saves hasn't been measured on a GPU yet.
WORTH_COMPILING = 20_000
"""Optimizer steps: compiling takes half a minute or a minute and saves 0.3 ms a step; a cell's seeds share it in a process."""

WORTH_CAPTURING = 200
"""Optimizer steps: a capture takes as long as ten of them, and spares each of the others hundreds of launches."""


@dataclass(frozen=True)
class Execution:
    """``auto``, ``on`` or ``off`` for each; auto is on where it pays back within the run."""

    compile: str = "auto"  # steps by torch.compile
    graph: str = "auto"  # steps captured in a CUDA graph and replayed

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value not in CHOICES:
                raise InputError(unknown(name, value, CHOICES))

    def settle(self, config: RunConfig, device: "torch.device") -> "Settled":
        """What the options mean for a run.

        Raises:
            InputError: a graph is asked for where there is no CUDA device.
        """
        cuda = device.type == "cuda"
        if self.graph == "on" and not cuda:
            raise InputError("graph on captures CUDA graphs, and this is a CPU; choices here: auto, off")
        steps = config.total_steps
        return Settled(
            compile=_settled(self.compile, cuda and steps >= WORTH_COMPILING and cell_of(config) not in _failed["compile"]),
            graph=_settled(self.graph, cuda and steps >= WORTH_CAPTURING and cell_of(config) not in _failed["graph"]),
            insists=tuple(name for name, option in vars(self).items() if option == "on"),
        )


AUTO = Execution()


@dataclass(frozen=True)
class Settled:
    """What a run does."""

    compile: bool
    graph: bool
    insists: tuple[str, ...] = ()  # on compile, graph: where that fails, so does the run, which else does without

    def __str__(self) -> str:
        ways = ["compiled"] * self.compile + ["replayed from a CUDA graph"] * self.graph
        return " and ".join(ways) or "eager"


_failed: dict[str, set[RunConfig]] = {"compile": set(), "graph": set()}


def give_up(what: str, config: RunConfig) -> None:
    """In this process ``auto`` means ``off`` for such a config, whatever its seed, of ``compile`` or ``graph``: it failed."""
    _failed[what].add(cell_of(config))


def cell_of(config: RunConfig) -> RunConfig:
    """What configs that differ in the seed alone have in common: a compiled step serves them all."""
    return config.model_copy(update={"seed": 0})


def _settled(option: str, pays: bool) -> bool:
    return pays if option == "auto" else option == "on"


@cache
def keep_freed_memory() -> None:
    """Have the C library keep memory that is freed, for as long as the process lives.

    A step on the CPU frees some hundred megabytes and asks for them again; given back to the system in between, each page would
    be cleared anew on its first use. On 2 cores of a Xeon that took a third of the step.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl hasn't
    if mallopt:
        trim, threshold, mapped = -1, -3, -4  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
        mallopt(trim, 2**31 - 1)
        # glibc before 2.35 refuses so high a threshold; without any mappings of their own large blocks come from the heap, too
        _ = mallopt(threshold, 2**31 - 1) or mallopt(mapped, 0)
