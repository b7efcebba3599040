"""Errors that nobody has thought of: one costs what was being drawn, and nothing that comes after it."""

from capsnet import interrupts, terminal
from capsnet.errors import InputError, headline, shortage

UNEXPECTED = "a fault of the program"


def unexpected(error: Exception) -> str:
    """Tell of an error that isn't the user's, so that what it doesn't concern is drawn all the same.

    Returns:
        Why something isn't there; it begins with UNEXPECTED.

    Raises:
        Exception: the error itself, if it is the user's, or the machine's or Ctrl-C, which what comes next would meet, too.
    """
    if isinstance(error, InputError | OSError) or shortage(error) or interrupts.came():
        raise error
    terminal.tell(error)
    return f"{UNEXPECTED}, {headline(error)}"
