"""How a launch is shown: a live table on a terminal, plain lines in a log file.

Runs may be processes of their own and can't call the display, so a thread of it reads their journals once a second.
"""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.errors import MarkupError
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from capsnet.terminal import FAULT, console, warn
from experiments.eta import Latest, Run, Runs

__all__ = ["Display", "Latest", "LiveTable", "display", "tell_failed", "tell_untold"]

POLL_SECONDS = 1.0
LINE_SECONDS = 15.0  # a log file gets at most one line of a run's epochs in so many seconds
COLOURS = re.compile(r"\x1b\\?\[[0-9;?]*[@-~]")  # another process may have coloured its error; the \ is of escaped
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Display:
    """A line when a run ends, and now and then one of its epochs. Names are plain text, all else that is told rich markup."""

    def __init__(self, planned: int, done: int, out: Console = console, clock: Callable[[], float] = time.time) -> None:
        self.planned, self.done, self.out, self.clock, self.begun = planned, done, out, clock, clock()
        self.runs = Runs()
        self.lock = threading.RLock()  # taken before any lock of rich's, never after
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._poll_on, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=0.2)  # a journal on a network drive may keep it longer, but it shows nothing any more

    def begin(self, name: str, epochs: int, latest: Latest) -> None:
        """Show a run that was submitted; it may wait, and its journal be empty."""
        with self.lock:
            self.runs.begin(name, Run(_plain(name), epochs, latest, begun=self.clock(), told=self.clock()))
            self._show()

    def end(self, name: str, told: str) -> None:
        """Print how a run ended, and count it."""
        with self.lock:
            self.done += 1
            self.runs.end(name, self.clock())
            self._print(f"{self.done:>4}{f'/{self.planned}' if self.planned else ''} {name}: ", told)

    def again(self, name: str, why: str) -> None:
        """Print why a run is to be tried again; it isn't counted."""
        with self.lock:
            self.runs.pop(name, None)
            self._print(f"        {name}: to be tried again: ", why)

    def say(self, line: str) -> None:
        """Print any other line."""
        with self.lock:
            self._print("", line)

    def poll(self) -> None:
        """Read the journals and show what is new. A journal that can't be read stays as it was."""
        with self.lock:
            runs = list(self.runs.values())
        for run in runs:  # not under the lock: a slow drive mustn't keep the launch waiting
            with suppress(Exception):
                run.read()
        with self.lock:
            if not self.stop.is_set():
                self._show()

    def _poll_on(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            with suppress(Exception):  # a launch outlives its terminal
                self.poll()

    def _show(self) -> None:
        now = self.clock()
        for run in self.runs.values():
            if run.epoch > run.told_epoch and now - run.told >= LINE_SECONDS:
                run.told, run.told_epoch = now, run.epoch
                epoch = f"epoch {run.epoch}/{run.epochs}  {run.kind} error {run.error}  ETA {_hms(run.left(now))}"
                self._print(f"        {run.name}: {epoch}")

    def _print(self, text: str, markup: str = "") -> None:
        try:
            told = Text.from_markup(_plain(markup), emoji=False)
        except MarkupError:  # a bracket that wasn't escaped mustn't end a launch
            told = Text(_plain(markup))
        self.out.print(Text(_plain(text)) + told, soft_wrap=True)


class LiveTable(Display):
    """The same lines above a table of the runs that are going on, and a bar of the whole grid."""

    live: Live | None = None

    def __enter__(self) -> Self:
        # errors that are sent to a file stay there; the thread that reads the journals refreshes the table, too
        self.live = Live(self, console=self.out, auto_refresh=False, redirect_stderr=sys.stderr.isatty())
        self.live.start(refresh=True)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with self.lock:
            if self.live:
                self.live.stop()
        super().__exit__()

    def _show(self) -> None:
        if self.live:
            self.live.refresh()

    def __rich__(self) -> Table:
        """The table of this moment. Rich asks for it whenever it prints, also a line above it."""
        with self.lock:
            now, runs = self.clock(), list(self.runs.values())
            table = Table.grid(expand=True, padding=(0, 2, 0, 0))
            table.show_header, table.header_style = bool(runs), "dim"
            table.add_column("run", ratio=1, no_wrap=True)
            for title, width in (("epoch", 5), ("val. error", 10), ("elapsed", 7), ("ETA", 7)):
                table.add_column(title, justify="right", no_wrap=True, min_width=width)
            room = self.out.height - 3  # without the titles, the bar and a line above
            shown = runs if len(runs) <= room else runs[: max(room - 1, 0)]
            for run in shown:
                error = f"train {run.error}" if run.kind == "training" else run.error
                table.add_row(Name(run.name), f"{run.epoch}/{run.epochs}", error, _hms(now - run.begun), _hms(run.left(now)))
            if len(runs) > len(shown):
                table.add_row(f"[dim]and {len(runs) - len(shown)} more[/]")
            bar = Table.grid(Column(no_wrap=True), Column(ratio=1), expand=True, padding=(0, 1, 0, 0))
            whole = self.planned or None  # None: a search that is limited by its time alone
            done = ProgressBar(whole, self.done, pulse=not whole, complete_style="green", finished_style="green")
            bar.add_row(f"{self.done} of {self.planned} runs" if whole else f"{self.done} runs", done)
            left = self.runs.left(max(self.planned - self.done - len(runs), 0), now) if whole else None
            table.add_row(bar, "", "", _hms(now - self.begun), _hms(left))
        return table


@dataclass(frozen=True)
class Name:
    """A name on one line. Where it is too long its middle goes: the seed, which tells runs of a cell apart, is at its end."""

    name: str

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        name, right = self.name, (options.max_width - 1) // 2
        if cell_len(name) > options.max_width:
            name = set_cell_size(name, options.max_width - 1 - right) + "…" + set_cell_size(name[::-1], right)[::-1]
        yield Text(name, no_wrap=True)


def display(planned: int, done: int) -> Display:
    """The table on a terminal; lines elsewhere, also where colours are forced upon a file."""
    return (LiveTable if console.is_interactive and console.file.isatty() else Display)(planned, done)


def tell_failed(lines: Iterable[str]) -> None:
    """Name every failure on the error stream."""
    for line in lines:
        warn("failed", line, FAULT)


def tell_untold(lines: Iterable[str]) -> None:
    """Name every run that MLflow doesn't know the latest of."""
    for line in lines:
        warn("MLflow doesn't know yet", line)


def _plain(text: str) -> str:
    return CONTROL.sub(" ", COLOURS.sub("", text))


def _hms(seconds: float | None) -> str:
    """0:01:05 or 1d 2:03:04; what a broken clock would make of it is not told."""
    if seconds is None or not seconds < 1e9:
        return "-"
    return re.sub(" days?, ", "d ", str(timedelta(seconds=int(max(seconds, 0)))))
