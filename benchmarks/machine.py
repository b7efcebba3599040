"""What the numbers were measured on, and with."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

import torch

from capsnet.origin import cores, git_commit, processor


def describe(device: torch.device) -> dict[str, str | int | float]:
    """The machine, the versions, the commit and the hour."""
    found: dict[str, str | int | float] = {
        "device": name(device),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory()["MemTotal"],
        "load": os.getloadavg()[0],  # processes that wanted a core in the minute before: what else the machine did
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git_commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda or "", "device_memory_bytes": torch.cuda.mem_get_info(device)[1]}
    return found


def name(device: torch.device) -> str:
    """The graphics card, or the processor and the threads that torch uses of it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"


def slug(text: str) -> str:
    """A name as one of a file: ``Intel(R) Xeon(R) Processor, 2 threads`` is ``intel-xeon-processor-2-threads``."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")


def memory(of: str = "/proc/meminfo") -> dict[str, int]:
    """Bytes by name, as Linux lists them: of the machine, or with ``/proc/self/status`` of this process."""
    lines = Path(of).read_text().splitlines() if Path(of).exists() else []
    fields = (line.split() for line in lines if line.endswith(" kB"))
    found = {key.rstrip(":"): int(kilobytes) * 1024 for key, kilobytes, _ in fields}
    return {"MemTotal": 0, "MemAvailable": 0, **found}


def free(device: torch.device) -> int:
    """Bytes that new processes could still take."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory()["MemAvailable"]
