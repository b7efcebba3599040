"""Ctrl-C and SIGTERM. Each raises KeyboardInterrupt at once, and again where a launch asks, because libraries swallow it.

An interruption that comes while a library is being imported, or a callback of its own runs, may end in its ``except:``.
"""

import signal
from types import FrameType

_came: list[int] = []


def install(*, sigterm: bool = True) -> None:
    """Take Ctrl-C, unless this process was started to ignore it, and SIGTERM, by which job schedulers end a job.

    May be done again; an interruption that came before is still heeded.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _raise)
    if sigterm:
        signal.signal(signal.SIGTERM, _raise)


def ignore() -> None:
    """Take no notice of Ctrl-C any more: the process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def came() -> bool:
    """Whether there was an interruption, be it that a library made another error of it."""
    return bool(_came)


def check() -> None:
    """Raise KeyboardInterrupt if an interruption came and nobody heeded it."""
    if _came:
        raise KeyboardInterrupt


def _raise(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt
