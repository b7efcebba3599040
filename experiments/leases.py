"""Launches of an experiment with several folders, whose locks don't see each other; what they have in common is the store.

While it lives, a launch notes at its parent run which folder it has, and when. Whoever has another folder is refused as long as
that is news: two journals of one run would be trained side by side, and MLflow would hold it twice.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import uuid4

from capsnet.errors import InputError
from experiments.client import FAULTS, answering
from experiments.locks import Launchers
from experiments.record import LEASE
from experiments.tracking import Store

BEAT = 20.0  # seconds from one note to the next
NEWS = 90.0  # after which a launch that noted nothing more has died; clocks may differ by less


class Note(NamedTuple):
    """What a launch left at its parent run."""

    parent: str
    tag: str
    age: float  # seconds
    folder: str  # its identity
    where: str

    @property
    def is_news(self) -> bool:
        """Whether the launch lives, as far as one can know."""
        return abs(self.age) < NEWS


@contextmanager
def held(store: Store, parent: str, launchers: Launchers) -> Iterator[None]:
    """Note that the experiment is being launched with this folder, as long as the block takes.

    Raises:
        InputError: it is being launched with another one, or the store has gone away.
    """
    here, tag = f"{launchers.identity} {socket.gethostname()}:{launchers.mlruns}", LEASE + uuid4().hex
    ended, writing = threading.Event(), threading.Lock()

    def note() -> None:
        with writing:
            if not ended.is_set():
                store.tag(parent, {tag: f"{time.time():.0f} {here}"})

    def go_on() -> None:
        while not ended.wait(BEAT):
            with suppress(*FAULTS):  # a server that is away
                note()

    with answering(store.uri):
        note()
    try:
        with answering(store.uri):
            refuse(store, launchers)  # who began at the same moment sees this launch's note, or this one sees theirs
            for old in notes(store):
                if not old.is_news:
                    store.untag(old.parent, old.tag)
        threading.Thread(target=go_on, daemon=True).start()
        yield
    finally:
        ended.set()
        if writing.acquire(timeout=5.0):  # or else a note is on its way to a server that is away
            with suppress(*FAULTS):
                if store.answers():
                    store.untag(parent, tag)


def notes(store: Store) -> Iterator[Note]:
    """Those of all launches of the experiment that did not take them back."""
    for parent, tag, value in store.leases():
        when, folder, where = value.split(" ", 2)
        yield Note(parent, tag, time.time() - float(when), folder, where)


def elsewhere(store: Store, launchers: Launchers) -> list[Note]:
    """Those of launches with another folder that live."""
    return [note for note in notes(store) if note.is_news and note.folder != launchers.identity]


def refuse(store: Store, launchers: Launchers) -> None:
    """Raise an InputError if the experiment is being launched with another folder."""
    for note in elsewhere(store, launchers):
        raise InputError(
            f"experiment {store.name!r} is being launched with another folder, {note.where}; give both the same --mlruns, or "
            f"wait for its end (its last sign of life is {max(note.age, 0):.0f} s old; at {NEWS:.0f} s it counts as dead)"
        )
