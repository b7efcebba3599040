"""Launches of an experiment with several folders, whose locks don't see each other; what they have in common is the store.

While it lives, a launch notes at its parent run which folder it has, and when. Whoever has another folder is refused as long as
that is news: two journals of one run would be trained side by side, and MLflow would hold it twice.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from capsnet.errors import InputError
from experiments import stores
from experiments.locks import Launchers
from experiments.tracking import FAULTS, LEASE, Store

BEAT = 20.0  # seconds from one note to the next
NEWS = 90.0  # after which a launch that noted nothing more has died


@contextmanager
def held(store: Store, parent: str, launchers: Launchers) -> Iterator[None]:
    """Note that the experiment is being launched with this folder, as long as the block takes.

    Raises:
        InputError: it is being launched with another one.
    """
    if _is_own(store, launchers):
        yield
        return
    here, name, ended = f"{socket.gethostname()}:{launchers.mlruns}", LEASE + launchers.identity, threading.Event()

    def note() -> None:
        store.tag(parent, {name: f"{time.time():.0f} {here}"})

    def go_on() -> None:
        while not ended.wait(BEAT):
            with suppress(*FAULTS):  # a server that is away; the runs' own signs of life are missing, too
                note()

    note()
    try:
        refuse(store, launchers)  # who began at the same moment sees this launch's note, or this one sees theirs
        threading.Thread(target=go_on, daemon=True).start()
        yield
    finally:
        ended.set()
        if store.answers():
            with suppress(*FAULTS):
                store.untag(parent, name)


def refuse(store: Store, launchers: Launchers) -> None:
    """Raise an InputError if the experiment is being launched with another folder."""
    if _is_own(store, launchers):
        return
    for name, noted in store.leases():
        when, _, where = noted.partition(" ")
        age = time.time() - float(when)
        if name != LEASE + launchers.identity and age < NEWS:
            raise InputError(
                f"experiment {store.name!r} is being launched with another folder, {where}; give both the same --mlruns, or "
                f"wait for its end (its last sign of life is {max(age, 0):.0f} s old; at {NEWS:.0f} s it counts as dead)"
            )


def _is_own(store: Store, launchers: Launchers) -> bool:
    """Whether the store lies in the folder, so that nobody comes to it with another one."""
    return stores.database(store.uri) == launchers.mlruns / "mlflow.db"
