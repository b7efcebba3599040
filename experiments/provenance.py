"""Where a number comes from: the code, the packages and the machine it was made with."""

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

from capsnet.origin import git_commit, processor

__all__ = ["code", "git_commit", "hardware", "versions"]
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "mlflow")


@cache
def code() -> str:
    """A digest of the modules that can change a number, all of capsnet, which another commit may well leave as they are."""
    digest, folder = hashlib.sha256(), Path(__file__).parents[1] / "capsnet"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.c")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def versions() -> str:
    """Python and the packages that can change a number, with their versions."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def hardware() -> str:
    """The processor, its cores that torch uses, and the graphics cards."""
    import torch

    cards = [_card(i) for i in range(torch.cuda.device_count())]
    return ", ".join([f"{processor()} ({torch.get_num_threads()} threads)", *cards])


def _card(number: int) -> str:
    """Its name. A card without memory for this process may not tell it; the run fails, and says why, when it asks for some."""
    import torch

    try:
        return torch.cuda.get_device_name(number)
    except RuntimeError:
        return "a card that doesn't answer"
