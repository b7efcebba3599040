"""An interruption that a library swallows is heeded all the same."""

import os
import signal

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
