"""Where a number comes from: the code, the packages and the machine it was made with."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

WHEEL = "capsnet-ablations"
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "mlflow")


@cache  # of the code that this process runs, whatever is edited meanwhile
def git_commit() -> str:
    """The commit of this code, with ``-dirty-`` and a digest if it was changed since, or has modules that git doesn't know.

    ``release-0.1.0`` of what was installed as a wheel, which may lie in somebody else's repository; else ``unknown``.
    """
    here = Path(__file__).parent

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit, changes = os.fsdecode(git("rev-parse", "HEAD")), git("diff", "HEAD", "--no-ext-diff")
        root = Path(os.fsdecode(git("rev-parse", "--show-toplevel")))
        names = git("ls-files", "--others", "--exclude-standard", "-z", "--full-name", ":/capsnet/*.py", ":/experiments/*.py")
        for name in filter(None, names.split(b"\0")):
            changes += name + b"\0" + (root / os.fsdecode(name)).read_bytes()
        return commit + (f"-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return _release()


@cache
def code() -> str:
    """A digest of the modules that can change a number, all of capsnet, which another commit may well leave as they are."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "capsnet").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _release() -> str:
    try:
        found = distribution(WHEEL)
    except PackageNotFoundError:
        return "unknown"
    here = Path(__file__).resolve()
    return (
        f"release-{found.version}" if here == Path(str(found.locate_file("experiments/provenance.py"))).resolve() else "unknown"
    )


@cache
def versions() -> str:
    """Python and the packages that can change a number, with their versions."""
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)])


def hardware() -> str:
    """The processor, its cores that torch uses, and the graphics cards."""
    import torch

    cards = [_card(i) for i in range(torch.cuda.device_count())]
    return ", ".join([f"{_processor()} ({torch.get_num_threads()} threads)", *cards])


def _card(number: int) -> str:
    """Its name. A card without memory for this process may not tell it; the run fails, and says why, when it asks for some."""
    import torch

    try:
        return torch.cuda.get_device_name(number)
    except RuntimeError:
        return "a card that doesn't answer"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
