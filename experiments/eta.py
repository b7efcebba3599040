"""When the runs of a launch will end, as far as their journals tell. All times are seconds, those of day since 1970."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import pairwise
from statistics import median

from capsnet.metrics import EpochMetrics

RECENT = 10  # the pace is a median of so many epochs: runs slow each other down, and laptops sleep

Latest = Callable[[], Sequence[EpochMetrics]]  # what a run's journal holds now; may be empty


@dataclass
class Run:
    """A run that was submitted and hasn't ended."""

    name: str
    epochs: int
    latest: Latest
    begun: float
    epoch: int = 0
    before: int = 0  # epochs that were trained before it was begun
    kind: str = ""  # of error: validation if there is one, else training
    error: str = "-"
    pace: float | None = None  # from one epoch's end to the next
    since: float = 0.0  # when the epoch that is training now began
    told: float = 0.0  # when a line was last printed of it, and of which epoch
    told_epoch: int = 0

    def read(self) -> None:
        """Learn what the journal holds now.

        The pace is the time between epochs that ended since the run was begun: before, there may be another machine and a gap
        of days. Until two have ended it is the training time alone, of the first or of those before.
        """
        if not (history := self.latest()):
            return
        last, fresh = history[-1], [metrics for metrics in history if metrics.time / 1000 >= self.begun]
        recent = (fresh or history)[-RECENT - 1 :]
        times = [(b.time - a.time) / 1000 for a, b in pairwise(recent)] if len(fresh) > 1 else [m.seconds for m in recent]
        error = last.train_error if last.validation_error is None else last.validation_error
        self.kind, self.error = "training" if last.validation_error is None else "validation", f"{error:.2f} %"
        self.epoch, self.before = last.epoch, fresh[0].epoch - 1 if fresh else last.epoch
        self.pace, self.since = median(times), max(last.time / 1000, self.begun)

    def share(self) -> float:
        """How much of the run this launch trains: less than 1 if it goes on from an earlier one."""
        return 1 - self.before / self.epochs

    def left(self, now: float) -> float | None:
        """Seconds to the end of its last epoch, at most if it may stop before; None before there is a pace."""
        if self.pace is None:
            return None
        within = min(max(now - self.since, 0), self.pace)  # an epoch that is late may end at any moment
        return max(self.pace * (self.epochs - self.epoch) - within, 0)


class Runs(dict[str, Run]):
    """The runs that are going on, by name, and of those that ended no more than two sums."""

    most = 0  # runs at once, so far
    ended_seconds = 0.0
    ended_shares = 0.0

    def begin(self, name: str, run: Run) -> None:
        """Add a run."""
        self[name] = run
        self.most = max(self.most, len(self))

    def end(self, name: str, now: float) -> None:
        """Remove a run that ended, however it did."""
        if run := self.pop(name, None):
            self.ended_seconds += now - run.begun
            self.ended_shares += run.share()

    def left(self, waiting: int, now: float) -> float | None:
        """Seconds to the end of all, those too that aren't begun yet; None before there is a pace or a run has ended.

        The runs that wait are as long as the others on average, and each begins where one ends first.
        """
        runs = [(run.share(), now - run.begun, run.left(now)) for run in self.values()]
        known = [(share, elapsed + left) for share, elapsed, left in runs if left is not None]
        shares = self.ended_shares + sum(share for share, _ in known)
        if not shares:
            return None
        length = (self.ended_seconds + sum(seconds for _, seconds in known)) / shares
        ends = [max(length - elapsed, 0) if left is None else left for _, elapsed, left in runs]
        ends += [0.0] * (self.most - len(ends))  # where a run has just ended
        heapify(ends)
        for _ in range(waiting):
            heapreplace(ends, ends[0] + length)
        return max(ends)
