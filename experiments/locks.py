"""Who may launch: one launcher of an experiment at a time, or one of each of its shards."""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from filelock import FileLock

from capsnet.errors import InputError
from experiments import stores

T = TypeVar("T")

SECONDS = 2.0  # between two looks of who waits


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` launchers that share a grid."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """``2/8``; an empty text is all of the grid.

        Raises:
            InputError: not of this form, or out of range.
        """
        if not text:
            return cls()
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--shard must be i/n with i from 1 to n, such as 1/8 to 8/8, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def of(self, things: Sequence[T]) -> Sequence[T]:
        """Every n-th: the shards have no thing in common, and together all."""
        return things[self.index - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing to others."""
        return self.count == 1

    def excludes(self, other: "Shard") -> bool:
        """Whether the two may have a config in common."""
        return self.count != other.count or self.index == other.index


ALL = Shard()


class Launchers:
    """The locks of an experiment's launchers, in a folder that they share. The system takes a lock from whoever dies."""

    def __init__(self, folder: Path, name: str, key: str) -> None:
        self.folder, self.name, self.mlruns = stores.writable(folder / "locks" / key), name, folder.resolve()

    @cached_property
    def identity(self) -> str:
        """Of the folder, wherever it is mounted; a copy of it has another one."""
        file = self.folder / "identity"
        with FileLock(self.folder / "identity.lock"):
            file.touch()
            name, _, inode = file.read_text().partition(" ")
            if inode != str(file.stat().st_ino):
                name = uuid4().hex
                file.write_text(f"{name} {file.stat().st_ino}")
        return name

    @contextmanager
    def only(self, shard: Shard, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the shard's lock.

        Args:
            shard: what is to be launched.
            waiting: if given, wait for who is in the way, after telling of it once; else that is an error.

        Raises:
            InputError: somebody launches the same, or a part of it.
        """
        lock, told = FileLock(self._path(shard)), False
        while True:
            with self.mutex():
                holder = next((other for other in self.held() if shard.excludes(other)), None)
                if holder is None:
                    lock.acquire()
                    break
            what = f"experiment {self.name!r}" + ("" if holder.is_all else f", shard {holder},")
            if waiting is None:
                raise InputError(
                    f"another launch of {what} is going on (it holds {self._path(holder)}); wait for its end (--wait does), or "
                    "name another experiment (--experiment, or EXPERIMENT= of make)"
                )
            if not told:
                waiting(f"waiting for another launch of {what} to end (it holds {self._path(holder)})")
                told = True
            time.sleep(SECONDS)
        try:
            yield
        finally:
            lock.release()

    def held(self) -> Iterator[Shard]:
        """The shards that are being launched now."""
        for path in self.folder.glob("*-of-*.lock"):
            if is_locked(path):
                index, count = re.findall(r"\d+", path.stem)
                yield Shard(int(index), int(count))

    def mutex(self) -> FileLock:
        """Held for moments: to look at the locks and take one, or to look at the parent run and change it."""
        return FileLock(self.folder / "mutex.lock")

    def _path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.index}-of-{shard.count}.lock"


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock. Several may look at the same time; who takes the lock has to wait for a moment then."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
