"""Files that are whole or not there, and folders that can be written to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from capsnet.errors import InputError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file to write, which then takes the place of ``path`` at once, synced: after a power cut either is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        synced(temporary)
        temporary.replace(path)
        synced(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writable(folder: Path, flag: str) -> Path:
    """The folder, made if it isn't there.

    Args:
        folder: that a command is about to write to.
        flag: of the command, which names it.

    Raises:
        InputError: nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"nothing can be written to {folder.resolve()}: {error.strerror}; {flag} names another folder"
        ) from None
    return folder
