"""What the command lines of all three packages share: flags made from RunConfig, the terminal, and how a command ends."""

import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import field, make_dataclass
from io import StringIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console
from rich.markup import escape

from capsnet.config import FIELDS
from capsnet.errors import InputError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

SCRIPTS = ("capsnet", "capsnet-experiments", "capsnet-analysis")
"""The commands that an installed wheel has."""

COMPILE = "steps by torch.compile: auto, on or off; auto = on CUDA, for runs long enough to pay for it"
GRAPH = "steps as a CUDA graph: auto, on or off; auto = on CUDA, for runs long enough to pay for it"

COMMON = (
    "dataset",
    "augmentation",
    "model",
    "routing",
    "routing_iterations",
    "reconstruction_weight",
    "epochs",
    "batch_size",
    "test_batch_size",
    "learning_rate",
    "lr_schedule",
    "precision",
    "seed",
)
"""The fields whose flags stand in a help that fits a screen."""


def _flags(names: Iterable[str]) -> type:
    """A dataclass with a flag for each field, unchecked: make_config checks flags and YAML alike and says all wrong at once."""
    told = {name: FIELDS[name] for name in names}
    flags = [
        (name, Annotated[i.annotation, tyro.conf.arg(help=i.description)], field(default=i.default)) for name, i in told.items()
    ]
    made = make_dataclass("ConfigFlags", flags, frozen=True)
    made.__doc__ = "Every choice that can change a number. The defaults are the paper's network on MNIST."
    return made


ConfigFlags, CommonFlags = _flags(FIELDS), _flags(COMMON)


def parse(command: Any, prog: str, description: str, arguments: Sequence[str] | None = None, *, switches: bool = False) -> Any:
    """Read a command line with tyro; --help ends the process.

    Args:
        command: the dataclass, or a union of them for subcommands.
        prog: how the module is called; an installed command is called by its own name.
        description: what it does, with an example.
        arguments: sys.argv's if None.
        switches: a yes or no is given by naming the flag; else, like every field of a config, with its value.

    Raises:
        InputError: a flag is unknown, or its value is of another type.
    """
    style = tyro.conf.FlagCreatePairsOff if switches else tyro.conf.FlagConversionOff
    if (name := Path(sys.argv[0]).name) in SCRIPTS:
        _, _, subcommand = prog.removeprefix("python -m ").partition(" ")
        prog = f"{name} {subcommand}".rstrip()  # to which shells tie the completion that they are given
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(command, prog=prog, description=description, args=arguments, config=(style,))
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(_unboxed(said.getvalue(), prog)) from None


def _unboxed(box: str, prog: str) -> str:
    """What stands in a box of tyro's, which looks otherwise than all other errors, without its heading."""
    told = [line.strip("│").rstrip()[1:] for line in box.splitlines() if line.startswith("│") and line.strip("│─ ")]
    # a subcommand is called by all of the program's name, of which tyro takes the first word
    return "\n".join(told).replace(f"in {prog.split(maxsplit=1)[0]} ", f"in {prog} ") or box.strip()


def finish(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code: 2 and the message alone for a user's fault, 130 for Ctrl-C."""
    try:
        code = main()
    except InputError as error:
        errors.print(f"[bold red]error:[/] {escaped(error)}")
        code = 2
    except KeyboardInterrupt as error:
        errors.print(f"[bold]stopped:[/] {escaped(error) or 'by Ctrl-C'}")
        code = 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        sys.stderr.close()
        code = 141
    except Exception as error:
        with NamedTemporaryFile("w", prefix="capsnet-error-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        errors.print(
            f"[bold red]error:[/] {escaped(f'{type(error).__name__}: {error}')}; where it comes from stands in {file.name}"
        )
        code = 1
    sys.exit(code)


def note(lines: Iterable[str]) -> None:
    """Say what is no error."""
    for line in lines:
        errors.print(f"[yellow]note:[/] {escaped(line)}")


def escaped(error: object) -> str:
    """Text that rich prints as it is: what a user wrote is never markup."""
    return escape(str(error))
