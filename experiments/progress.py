"""How a launch is shown: a live bar on a terminal, plain lines in a log file."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from capsnet.cli import console, escaped
from capsnet.state import EpochMetrics
from experiments.worker import Outcome, Report

LINE_SECONDS = 15.0  # a log file gets at most one line of a run's epochs in so many seconds


class Lines:
    """A line when a run ends, and now and then one of its epochs."""

    def __init__(self, planned: int, done: int) -> None:
        self.planned, self.done, self.print = planned, done, console.print

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, name: str, epochs: int) -> Report:
        """Returns what prints the run's epochs."""
        last = time.monotonic()

        def epoch(metrics: EpochMetrics) -> None:
            nonlocal last
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                self.print(f"        {escaped(name)}: epoch {metrics.epoch}/{epochs}  {_error(metrics)}")

        return epoch

    def end(self, name: str, outcome: Outcome) -> None:
        """Print how a run ended."""
        self.done += 1
        told = f"[red]{escaped(outcome.reason)}[/]" if outcome.failure else f"test error {outcome.test_error:.2f} %"
        self.print(f"{self.done:>4}/{self.planned} {escaped(name)}: {told} ({outcome.seconds:.1f} s)")


class Bars(Lines):
    """The same lines above a bar of the whole grid and a bar for each run that is training."""

    def __init__(self, planned: int, done: int) -> None:
        super().__init__(planned, done)
        columns = (
            TextColumn("{task.description}", table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis")),
            BarColumn(None, table_column=Column(ratio=1, min_width=8)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )
        self.progress = Progress(*columns, console=Console(highlight=False), expand=True)
        self.print = self.progress.console.print  # above the bars
        self.whole = self.progress.add_task("whole grid", total=planned, completed=done)
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, name: str, epochs: int) -> Report:
        """Adds a run's bar and returns what moves it."""
        bar = self.bars[name] = self.progress.add_task(escaped(name), total=epochs)
        shown = escaped(name)
        return lambda metrics: self.progress.update(bar, completed=metrics.epoch, description=f"{_error(metrics)}  {shown}")

    def end(self, name: str, outcome: Outcome) -> None:
        """Replace a run's bar by its line."""
        super().end(name, outcome)
        self.progress.remove_task(self.bars.pop(name))
        self.progress.update(self.whole, completed=self.done)


def display(planned: int, done: int) -> Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars(planned, done) if console.is_terminal else Lines(planned, done)


def _error(metrics: EpochMetrics) -> str:
    if metrics.validation_error is None:
        return f"training error {metrics.train_error:.2f} %"
    return f"validation error {metrics.validation_error:.2f} %"
