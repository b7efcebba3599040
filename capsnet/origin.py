"""Which code this is, and which processor runs it: what a measured number names; and of how many cores."""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

WHEEL = "capsnet-ablations"


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
        sources = ":/capsnet/*.py", ":/capsnet/*.c", ":/experiments/*.py"
        names = git("ls-files", "--others", "--exclude-standard", "-z", "--full-name", *sources)
        for name in filter(None, names.split(b"\0")):
            changes += name + b"\0" + (root / os.fsdecode(name)).read_bytes()
        return commit + (f"-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return _release()


def _release() -> str:
    try:
        found = distribution(WHEEL)
    except PackageNotFoundError:
        return "unknown"
    here = Path(__file__).resolve()
    return f"release-{found.version}" if here == Path(str(found.locate_file("capsnet/origin.py"))).resolve() else "unknown"


def shortened(commit: str) -> str:
    """``b39c092`` of a whole hash, and whatever marks it as dirty."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]*", r"\1", commit)


def cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
