"""What the command lines of all three packages share: flags made from RunConfig, the terminal, and how a command ends."""

import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, make_dataclass
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

# one flag for every field, unchecked: make_config checks flags and YAML alike and says everything wrong at once
ConfigFlags = make_dataclass(
    "ConfigFlags",
    [
        (name, Annotated[info.annotation, tyro.conf.arg(help=info.description)], field(default=info.default))
        for name, info in FIELDS.items()
    ],
    frozen=True,
)
ConfigFlags.__doc__ = "Every choice that can change a number. The defaults are the paper's network on MNIST."


def parse(command: Any, prog: str, description: str, arguments: Sequence[str] | None = None, *, switches: bool = False) -> Any:
    """Read a command line with tyro; --help and a wrong flag end the process (exit codes 0 and 2).

    Args:
        command: the dataclass, or a union of them for subcommands.
        prog: how the module is called; an installed command is called by its own name.
        description: what it does, with an example.
        arguments: sys.argv's if None.
        switches: a yes or no is given by naming the flag; else, like every field of a config, with its value.
    """
    style = tyro.conf.FlagCreatePairsOff if switches else tyro.conf.FlagConversionOff
    if (name := Path(sys.argv[0]).name) in SCRIPTS:
        _, _, subcommand = prog.removeprefix("python -m ").partition(" ")
        prog = f"{name} {subcommand}".rstrip()  # to which shells tie the completion that they are given
    return tyro.cli(command, prog=prog, description=description, args=arguments, config=(style,))


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
