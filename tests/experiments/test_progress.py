"""What is shown of a launch: the estimates by hand, the table as a terminal would show it, and lines fit for a log file."""

import fcntl
import gc
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from io import StringIO
from types import FunctionType, ModuleType

import pytest
from rich.console import Console

from capsnet.metrics import EpochMetrics
from capsnet.terminal import escaped
from experiments import eta, progress
from experiments.eta import Run, Runs
from experiments.progress import Display, LiveTable, display

LONG = "routing_iterations=3 reconstruction_weight=0.0005 lr_schedule=exponential(gamma=0.5,every=50) seed="


def epoch(number, at, seconds=9.0, train=12.5, validation=3.61):
    return EpochMetrics(number, round(at * 1000), 1.0, 1.0, None, train, validation, 1e-3, seconds, 100.0)


def run(history=(), epochs=10, begun=1000.0):
    made = Run("a", epochs, lambda: history, begun)
    made.read()
    return made


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def screen(written, width=80):
    """The lines that a terminal without a lower edge shows after what was written to it, wrapped as it wraps them."""
    lines, row, column = [[]], 0, 0
    for found in re.finditer(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", written, re.DOTALL):
        argument, command, character = found.groups()
        if command == "A":
            row -= int(argument)
            assert row >= 0
        elif command == "K":
            lines[row] = []
        elif command:
            assert command in "mlh"  # colours, and the cursor hidden and shown
        elif character == "\r":
            column = 0
        else:
            if character == "\n" or column == width:
                row, column = row + 1, 0
                lines += [[]] * (row == len(lines))
            if character != "\n":
                lines[row] = lines[row][:column] + [" "] * (column - len(lines[row])) + [character] + lines[row][column + 1 :]
                column += 1
    return ["".join(line).rstrip() for line in lines]


def terminal(width=80, height=25):
    return Console(file=StringIO(), force_terminal=True, width=width, height=height, highlight=False, soft_wrap=True)


def log():
    return Console(file=StringIO(), width=80, highlight=False, soft_wrap=True)


def shown(out):
    return screen(out.file.getvalue(), out.width)


def test_a_runs_eta_is_its_pace_times_the_epochs_left() -> None:
    assert run().left(1010) is None
    # twenty seconds of starting up are no part of the pace
    first = run([epoch(1, 1030)])
    assert first.left(1030) == 9 * 9.0
    third = run([epoch(1, 1030), epoch(2, 1040), epoch(3, 1050)])
    assert third.left(1050) == 7 * 10
    assert third.left(1054) == 7 * 10 - 4
    assert third.left(1075) == 6 * 10  # the fourth is late
    assert third.left(900) == 7 * 10  # the worker's clock is ahead
    assert run([epoch(n, 1000 + 10 * n) for n in range(1, 11)]).left(1103) == 0


def test_an_hour_of_sleep_is_no_part_of_the_pace() -> None:
    history = [epoch(n, 1000 + 10 * n + 3600 * (n > 3)) for n in range(1, 7)]
    assert run(history).left(4660) == 4 * 10


def test_the_pace_is_of_recent_epochs() -> None:
    quick, slow = [epoch(n, 1000 + n) for n in range(1, 51)], [epoch(50 + n, 1050 + 8 * n) for n in range(1, 11)]
    assert run(quick + slow, epochs=100).left(1130) == 40 * 8


def test_a_resumed_runs_eta_knows_nothing_of_the_gap_nor_of_the_old_pace() -> None:
    old = [epoch(n, 100 * n, seconds=90.0) for n in range(1, 5)]
    resumed = run(old)
    assert (resumed.epoch, resumed.left(1000), resumed.left(1030)) == (4, 6 * 90, 6 * 90 - 30)
    assert run([*old, epoch(5, 1025, seconds=20.0)]).left(1025) == 5 * 20
    again = run([*old, epoch(5, 1025, seconds=20.0), epoch(6, 1047, seconds=20.0)])
    assert again.left(1047) == 4 * 22
    assert again.share() == pytest.approx(0.6)
    # a journal whose last epochs are trained again, since the checkpoint was older
    assert run([*old, epoch(3, 1022, seconds=20.0)]).left(1022) == 7 * 20


def test_the_grids_eta_gives_the_runs_that_wait_to_the_slots_that_get_free() -> None:
    runs = Runs()
    assert runs.left(5, 1000) is None
    runs.begin("a", run([epoch(n, 1000 + 10 * n) for n in range(1, 6)]))  # of 100 s, 50 of them left at 1050
    runs.begin("b", run([epoch(n, 1030 + 10 * n) for n in range(1, 3)], begun=1030.0))  # of 100 s, 80 left
    assert runs.left(0, 1050) == 80
    assert runs.left(1, 1050) == 150  # in a's place
    assert runs.left(4, 1050) == 280  # a, then at 150 and 250; b, then at 180 and 280
    runs.begin("c", run(begun=1020.0))  # no epoch yet: the average, of which 30 s are over
    assert runs.left(3, 1050) == 180
    runs.end("c", 1050.0)  # after 30 s, so that a run is of (100 + 100 + 30) / 3 s
    assert runs.left(0, 1050) == 80
    assert runs.left(1, 1050) == 80  # in c's place, free at once
    assert runs.left(2, 1050) == pytest.approx(50 + 230 / 3)


def test_what_an_earlier_launch_trained_does_not_make_runs_look_short() -> None:
    old = [epoch(n, n - 86400) for n in range(1, 9)]
    runs = Runs()
    runs.begin("a", run([*old, epoch(9, 1010), epoch(10, 1020)]))
    assert runs.left(1, 1020) == pytest.approx(100)  # 20 s for a fifth of it
    runs.end("a", 1022.0)
    assert runs.left(1, 1022) == pytest.approx(110)
    nothing_left = run([epoch(n, n - 86400) for n in range(1, 11)])
    alone = Runs()
    alone.begin("b", nothing_left)
    alone.end("b", 1001.0)
    assert alone.left(1, 1001) is None


def test_the_table_shows_the_runs_in_the_order_in_which_they_began() -> None:
    clock, out = Clock(), terminal()
    journals = {name: [] for name in ("zeta seed=0", "alpha seed=1", "mid seed=0")}
    table = LiveTable(12, 2, out, clock)
    with table:
        for name, journal in journals.items():
            table.begin(name, 10, lambda journal=journal: journal)
        journals["zeta seed=0"] += [epoch(1, 1020), epoch(2, 1030)]
        journals["mid seed=0"] += [epoch(1, 1035, seconds=30, validation=None)]
        clock.now = 1035.0
        table.poll()
        assert shown(out) == [
            "run                                       epoch     val. error  elapsed      ETA",
            "zeta seed=0                                2/10         3.61 %  0:00:35  0:01:15",
            "alpha seed=1                               0/10              -  0:00:35        -",
            "mid seed=0                                 1/10  train 12.50 %  0:00:35  0:04:30",
            # (110 + 305) / 2 s a run; three end after 75, 172.5 and 270 s, the seven that wait after 282.5, 380, 477.5, 490,
            # 587.5, 685 and 697.5 s
            "2 of 12 runs ━━━━╸━━━━━━━━━━━━━━━━━━━━━━                        0:00:35  0:11:37",
        ]
        table.end("alpha seed=1", "test error [bold]3.10[/] % (35.0 s)")
        table.begin("next seed=0", 10, list)
        table.poll()
        assert [line.split()[0] for line in shown(out)] == ["3/12", "run", "zeta", "mid", "next", "3"]
        assert shown(out)[0] == "   3/12 alpha seed=1: test error 3.10 % (35.0 s)"
    assert shown(out)[-1] == ""  # where the shell goes on


def test_a_long_name_loses_its_middle_alone_and_a_long_table_its_end() -> None:
    clock, out = Clock(), terminal(height=10)
    with LiveTable(100, 0, out, clock) as table:
        for seed in range(7):
            table.begin(f"{LONG}{seed}", 10, lambda: [epoch(9, 1010, validation=None)])
        clock.now = 1020.0
        table.poll()
        lines = shown(out)
        assert len(lines) == 9  # the terminal's height without a line of what is printed above
        for seed, line in enumerate(lines[1:8]):
            assert re.fullmatch(rf"routing_iterations=.*….*seed={seed}   9/10  train 12.50 %  0:00:20  0:00:00", line)
            assert len(line) == 80
        for seed in range(7, 50):
            table.begin(f"{LONG}{seed}", 10, list)
        assert [line.split("seed=")[-1].split()[0] for line in shown(out)[1:7]] == list("012345")
        assert shown(out)[7] == "and 44 more"
        assert shown(out)[8].startswith("0 of 100 runs ━")
        assert len(shown(out)) == 9
    assert shown(out)[7] == "and 44 more"


def test_a_name_of_wide_characters_keeps_the_columns() -> None:
    out = terminal(width=60)
    with LiveTable(1, 0, out, Clock()) as table:
        table.begin("胶囊网络" * 20 + "seed=0", 10, list)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue()).splitlines()
    [line] = {line for line in plain if "seed=0" in line}
    assert sum(2 if "一" <= character <= "鿿" else 1 for character in line) == 60


@pytest.mark.parametrize("made", [LiveTable, Display])
def test_names_are_never_markup_and_what_is_told_of_them_is(made: type[Display]) -> None:
    out = terminal() if made is LiveTable else log()
    names = ["[red]x[/] :warning: seed=0", "a\\[bold]b[", "[/nothing]", "x\x1b[2Jy\rz"]
    with made(9, 0, out, Clock()) as it:
        for name in names:
            it.begin(name, 10, list)
        if made is LiveTable:
            assert [line.split("  ")[0] for line in shown(out)[1:5]] == [*names[:3], "xy z"]
        it.end(names[0], f"[red]{escaped('KeyError: [3] :x: [/b]')}[/] (1.0 s)")
        it.end(names[1], "[/red] isn't closed")
        it.again(names[2], escaped("\x1b[36mray::run()\x1b[39m\nOSError: lost\n"))
        it.say("[bold]so[/] much")
        assert shown(out)[:4] == [
            "   1/9 [red]x[/] :warning: seed=0: KeyError: [3] :x: [/b] (1.0 s)",
            "   2/9 a\\[bold]b[: [/red] isn't closed",
            "        [/nothing]: to be tried again: ray::run() OSError: lost",
            "so much",
        ]
        assert it.done == 2


def test_lines_stay_above_the_table_in_the_order_in_which_they_were_told() -> None:
    out = terminal()
    with LiveTable(50, 0, out, Clock()) as table:
        for number in range(50):
            table.begin(f"{LONG}{number}", 10, list)
            if number >= 3:
                table.end(f"{LONG}{number - 3}", f"test error {number}.00 %")
            table.poll()
        for number in range(47, 50):
            table.end(f"{LONG}{number}", f"test error {number + 3}.00 %")
    text = "".join(line.ljust(80) if len(line) > 72 else line + "\n" for line in shown(out))  # unwrapped, as a copy of it is
    lines = text.splitlines()
    assert lines[:50] == [f"{n + 1:>4}/50 {LONG}{n}: test error {n + 3}.00 %" for n in range(50)]
    assert lines[50].startswith("50 of 50 runs ━")
    assert lines[50].endswith("0:00:00  0:00:00")
    assert len(lines) == 51


def test_a_log_file_gets_a_line_of_a_runs_epochs_every_fifteen_seconds_at_most() -> None:
    clock, out, journal = Clock(), log(), []
    lines = Display(20, 3, out, clock)  # no thread: it is polled here, every quarter of a second
    name = f"{LONG}0"
    lines.begin(name, 100, lambda: journal)
    lines.begin("still starting", 100, list)
    told = []
    while clock.now < 1100:
        clock.now += 0.25
        if clock.now % 2 == 0 and clock.now <= 1050:
            journal.append(epoch(len(journal) + 1, clock.now, validation=None if clock.now < 1020 else 3.61))
        before = len(out.file.getvalue())
        lines.poll()
        told += [(clock.now, line) for line in out.file.getvalue()[before:].splitlines()]
    lines.end(name, "test error 3.10 % (100.0 s)")
    assert [at for at, _ in told] == [1015, 1030, 1045, 1060]  # and none after: there was nothing new
    assert told[0][1] == f"        {name}: epoch 7/100  training error 12.50 %  ETA 0:03:05"
    assert told[1][1] == f"        {name}: epoch 15/100  validation error 3.61 %  ETA 0:02:50"
    text = out.file.getvalue()
    assert text.endswith(f"\n   4/20 {name}: test error 3.10 % (100.0 s)\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


@pytest.mark.parametrize("made", [LiveTable, Display])
def test_a_journal_that_cannot_be_read_kills_nothing(made: type[Display]) -> None:
    clock, out = Clock(), terminal() if made is LiveTable else log()
    answers = [FileNotFoundError("not yet"), [epoch(1, 1010), epoch(2, 1020)], OSError("stale handle"), ["torn"], None]

    def broken():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with made(5, 0, out, clock) as it:
        it.begin("a", 10, broken)
        it.begin("b", 10, lambda: [epoch(1, 1010), epoch(2, 1e30), epoch(3, 1010, seconds=float("nan"), train=float("nan"))])
        it.begin("c", 10, lambda: [epoch(1, 1010, seconds=float("nan"), validation=float("nan"))])
        clock.now = 1020.0
        while answers:
            it.poll()
            clock.now += 4
        it.end("a", "diverged")
        it.end("b", "diverged")
    text = "\n".join(shown(out))
    if made is Display:
        assert "a: epoch 2/10  validation error 3.61 %  ETA 0:01:16" in text
    assert "   1/5 a: diverged" in text
    assert "   2/5 b: diverged" in text


@pytest.mark.parametrize("made", [LiveTable, Display])
def test_a_thread_shows_what_the_journals_hold_and_is_gone_at_the_end(
    made: type[Display], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    out, journal = terminal() if made is LiveTable else log(), []
    before = set(threading.enumerate())
    with made(1, 0, out) as it:
        it.begin("a", 10, lambda: journal)
        journal.append(epoch(7, time.time()))
        until = time.monotonic() + 10
        while " 7/10" not in out.file.getvalue():  # nobody calls the display
            assert time.monotonic() < until
            time.sleep(0.01)
        assert [thread.daemon for thread in set(threading.enumerate()) - before] == [True]
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("made", [LiveTable, Display])
def test_a_journal_that_hangs_holds_up_neither_the_launch_nor_its_end(
    made: type[Display], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    out, hanging, released = terminal() if made is LiveTable else log(), threading.Event(), threading.Event()

    def hangs():
        hanging.set()
        assert released.wait(30)
        return [epoch(1, time.time())]

    with made(2, 0, out) as it:
        it.begin("a", 10, hangs)
        assert hanging.wait(10)
        began = time.monotonic()
        it.begin("b", 10, list)
        it.end("b", "test error 1.00 %")
    assert time.monotonic() - began < 5  # not the 30 for which it hangs
    written = out.file.getvalue()
    assert "1/2 b: test error 1.00 %" in written
    released.set()
    it.thread.join(10)
    assert not it.thread.is_alive()
    assert out.file.getvalue() == written


@pytest.mark.parametrize("made", [LiveTable, Display])
def test_threads_may_tell_it_things_at_once(made: type[Display], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.0005)
    out = terminal() if made is LiveTable else log()

    def tell(it, letter):
        for number in range(30):
            it.begin(f"{letter}{number}", 10, lambda: [epoch(1, time.time())])
            it.say(f"said {letter}{number}")
            it.end(f"{letter}{number}", "over") if number % 3 else it.again(f"{letter}{number}", "lost")

    with made(80, 0, out) as it:
        threads = [threading.Thread(target=tell, args=(it, letter), daemon=True) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "deadlock"
    lines = shown(out)
    assert it.done == 80
    assert [line.split("/")[0].strip() for line in lines if line.endswith("over")] == [str(n) for n in range(1, 81)]
    assert sum(bool(re.fullmatch(r" {8}[abcd]\d+: to be tried again: lost", line)) for line in lines) == 40
    assert sum(bool(re.fullmatch(r"said [abcd]\d+", line)) for line in lines) == 120
    assert len(lines) == 80 + 40 + 120 + (made is LiveTable) + 1


def held(display):
    """How many objects a display holds, and its modules with it; rich's caches, which are bounded, are not its own."""
    seen, waiting = set(), [display, vars(progress), vars(eta)]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, (type, ModuleType, FunctionType)):
            seen.add(id(thing))
            waiting += gc.get_referents(thing)
    return len(seen)


@pytest.mark.parametrize(("made", "many"), [(LiveTable, 500), (Display, 5000)])
def test_its_memory_does_not_grow_with_the_runs_that_ended(made: type[Display], many: int) -> None:
    with open(os.devnull, "w") as nowhere:
        out = Console(file=nowhere, force_terminal=made is LiveTable, width=80)
        with made(many, 0, out, Clock()) as it:
            for number in range(many):
                it.begin(f"{LONG}{number}", 100, lambda: [epoch(n, 1000 + n) for n in range(1, 101)])
                if number % 100 == 0:
                    it.poll()
                it.end(f"{LONG}{number}", "test error 3.10 %")
                it.begin(f"{LONG}{number}", 100, list)
                it.again(f"{LONG}{number}", "lost")
                if number == 10:
                    early = held(it)
            assert it.done == many
            assert held(it) - early < 20


def test_a_terminal_gets_the_table_and_a_file_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader), open(follower, "w") as tty, open(os.devnull, "w") as file:
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        for output, kind in ((tty, LiveTable), (file, Display)):
            monkeypatch.setattr(progress, "console", Console(file=output))
            assert type(display(3, 1)) is kind
        monkeypatch.setenv("FORCE_COLOR", "1")  # as continuous integration does
        monkeypatch.setattr(progress, "console", Console(file=file))
        assert type(display(3, 1)) is Display
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(progress, "console", Console(file=tty))
        assert type(display(3, 1)) is Display


CHILD = """
import sys, time
from types import SimpleNamespace
from capsnet.terminal import console
from experiments import progress
from experiments.progress import display
assert "torch" not in sys.modules, "the display needs no torch"
progress.POLL_SECONDS = 0.05
journal = []
with display(3, 1) as shown:
    shown.begin("a seed=0", 10, list)
    print("printed")
    console.print("by rich")
    print("warned", file=sys.stderr)
    shown.begin("b seed=0", 10, lambda: journal)
    shown.end("a seed=0", "test error [red]3.10[/] %")
    journal.append(SimpleNamespace(epoch=4, time=0, seconds=9.0, train_error=7.0, validation_error=3.61))
    time.sleep(0.5)
    shown.end("b seed=0", "test error 3.20 %")
print("afterwards")
"""


def test_on_a_real_terminal_the_table_stays_below_whatever_is_printed() -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    words = [sys.executable, "-W", "error", "-c", CHILD]
    with subprocess.Popen(words, stdout=follower, stderr=follower, env=environment | {"TERM": "xterm"}) as child:
        os.close(follower)
        written = b""
        while True:
            try:
                written += os.read(leader, 65536)
            except OSError:  # Linux says so that the other end is closed
                break
    os.close(leader)
    text = written.decode()
    lines = screen(text.replace("\r\n", "\n"))
    assert child.returncode == 0, lines
    assert lines[:5] == [
        "printed",
        "by rich",
        "warned",
        "   2/3 a seed=0: test error 3.10 %",
        "   3/3 b seed=0: test error 3.20 %",
    ]
    assert re.fullmatch(r"3 of 3 runs ━+ +0:00:0\d  0:00:00", lines[5])
    assert lines[6:] == ["afterwards", ""]
    assert re.search(r"b seed=0 +4/10 +3.61 % +0:00:00 +0:00:5[34]", text)  # though its main thread sleeps
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
