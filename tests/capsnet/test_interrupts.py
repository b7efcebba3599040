"""An interruption that a library swallows is heeded all the same."""

import os
import signal
import subprocess
import sys

import pytest

from capsnet import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_raises_at_once_and_again_where_a_launch_asks(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        interrupts.install()
        interrupts.check()
        swallowed = False
        try:
            os.kill(os.getpid(), number)
        except:  # noqa: E722 as in some libraries
            swallowed = True
        assert swallowed
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.install()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    finally:
        interrupts._came.clear()
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupts.install()
        os.kill(os.getpid(), signal.SIGINT)
        interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])


ENDING = """
import atexit, os, signal, time
from capsnet import terminal

def leaves():  # as a library does that waits for its processes at the exit
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    print("left", flush=True)

def main():
    atexit.register(leaves)
    raise KeyboardInterrupt

terminal.finish(main)
"""


def test_ctrl_c_once_more_while_a_command_ends_is_told_by_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "left\n", "stopped: by Ctrl-C\n")
