"""A thread that keeps MLflow up to date with a run's journal, so that training never waits for a tracking server."""

import threading

from capsnet.errors import brief
from experiments import stores
from experiments.client import FAULTS
from experiments.journal import Journal
from experiments.runlog import RunLog
from experiments.tracking import Store

SECONDS = 3.0  # from one batch of metrics to the next
PATIENCE = 30.0  # seconds that the end of a run waits for a server that is slow; one that is away isn't waited for


class Recorder:
    """Pushes a journal while a run trains, again and again; what a store that is away misses is pushed later."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self.log = RunLog(store, journal, monitored=True)
        self.fault = ""  # of the last push
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._push_often, name="recorder", daemon=True)
        self._thread.start()

    def close(self, patience: float | None = None) -> str:
        """Push the rest; an empty string if MLflow has it all, or why it hasn't.

        Args:
            patience: seconds to wait for a server that doesn't answer.
        """
        self._closing.set()
        self._thread.join(PATIENCE if patience is None else patience)
        return "the tracking store doesn't answer" if self._thread.is_alive() else self.fault

    def _push_often(self) -> None:
        while True:
            last = self._closing.is_set()  # before the push: what was written until now is in it
            self._push()
            if last:
                return self.log.stop()
            self._closing.wait(SECONDS)

    def _push(self) -> None:
        try:
            self.log.push()
            self.fault = ""
        except FAULTS as error:
            self.fault = stores.shown(brief(error, 120))
        except Exception as error:  # a fault of ours is told of too, and no reason to lose a run
            self.fault = f"{type(error).__name__}: {error}"
