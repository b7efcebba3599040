"""What a terminal is told: lines, notes, faults, and how a command ends."""

import atexit
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from capsnet import interrupts
from capsnet.errors import InputError, brief, shortage


class Terminal(Console):
    """A console whose reader may go away, as head does."""

    def on_broken_pipe(self) -> None:
        """End as programs do that SIGPIPE ends; rich would say 1, which here is a fault."""
        with suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(141)


console = Terminal(highlight=False, soft_wrap=True, emoji=False)
errors = Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)

SCRIPTS = {"capsnet": "capsnet", "experiments": "capsnet-experiments", "analysis": "capsnet-analysis"}
"""Module -> the command of an installed wheel that is the same."""

FAULT = "bold red"  # the style of what failed


def is_installed() -> bool:
    """Whether this process was started by a command that an installed wheel has."""
    return Path(sys.argv[0]).name in SCRIPTS.values()


def called(text: str) -> str:
    """A text in which each ``python -m experiments`` is what its reader would type: of an installed wheel, its command."""
    names = "|".join(SCRIPTS)
    return re.sub(rf"python -m ({names})\b", lambda found: SCRIPTS[found[1]], text) if is_installed() else text


def has_make() -> bool:
    """Whether ``make`` knows what a message could say: in a checkout, and not to whom uses the installed commands."""
    return not is_installed() and Path("Makefile").is_file()


def finish(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code: 2 and the message alone for a user's fault, 130 for Ctrl-C."""
    interrupts.install(sigterm=False)
    try:
        code = main()
    except InputError as error:
        warn("error", error, FAULT)
        code = 2
    except KeyboardInterrupt as error:
        warn("stopped", str(error) or "by Ctrl-C", "bold")
        code = 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        sys.stderr.close()
        code = 141
    except Exception as error:
        code = _fault(error)
    atexit.register(interrupts.ignore)  # before what libraries do at the exit: Ray would tell of Ctrl-C with a traceback
    sys.exit(code)


def _fault(error: Exception) -> int:
    """Tell of an error that isn't the user's; the exit code."""
    if short := shortage(error):
        warn("error", f"{short}: {brief(error)}", FAULT)
    if interrupts.came():  # while a library was being imported, which made something else of it
        warn("stopped", "by Ctrl-C", "bold")
        return 130
    if not short:
        tell(error)
    return 1


def tell(error: Exception) -> None:
    """Say what an error is that nobody has thought of, and the file in which its traceback stands."""
    with NamedTemporaryFile("w", prefix="capsnet-error-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    warn("error", f"{type(error).__name__}: {error}; where it comes from stands in {file.name}", FAULT)


def wide(columns: int = 100) -> Console:
    """Where a table is printed: with room for it, so many columns at least, where no terminal says how many there are."""
    return console if console.is_terminal else Console(width=max(console.width, columns), highlight=False, emoji=False)


def say(*lines: object) -> None:
    """Print lines as they are: what a user wrote is never markup."""
    for line in lines:
        console.print(str(line), markup=False)


def warn(what: str, why: object, style: str = "yellow") -> None:
    """Say on the error stream what is not as it should be."""
    errors.print(f"[{style}]{what}:[/] {escaped(why)}")


def note(lines: Iterable[str]) -> None:
    """Say what is no error."""
    for line in lines:
        warn("note", line)


def escaped(error: object) -> str:
    """Text that rich prints as it is: what a user wrote is never markup."""
    return escape(str(error))
