"""What the command lines of all packages share: flags made from RunConfig, and how words become their values."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import field, make_dataclass
from inspect import getdoc
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_type_hints

import tyro
from pydantic.fields import FieldInfo
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from capsnet.choices import CHOICES, VARIANTS
from capsnet.config import FIELDS, RunConfig
from capsnet.errors import InputError, unknown
from capsnet.terminal import called, is_installed

COMPILE = "steps by torch.compile: auto, on or off; auto = on CUDA, for runs long enough to pay for it"
GRAPH = "steps as a CUDA graph: auto, on or off; auto = on CUDA, for runs long enough to pay for it"

COMMON: Mapping[str, str] = {
    "dataset": "",
    "augmentation": "",
    "model": "",
    "routing": "",
    "routing_iterations": "r: weighted sums computed",
    "reconstruction_weight": "0 = no decoder",
    "epochs": "passes over the training images",
    "batch_size": "images per training step",
    "learning_rate": "Adam's, before the schedule",
    "lr_schedule": "",
    "precision": "fp32, bf16, or tf32 (CUDA only)",
    "seed": "of all that is drawn",
}
"""The fields whose flags stand in a help that fits a screen, with what it says of each: nothing = what there is to choose."""

METAVARS: Mapping[Any, str] = {str: "NAME", int: "N", float: "X"}
WIDEST = 24  # columns: if a single flag is wider, tyro puts most texts below their flags instead of beside them


def _flags(told: Mapping[str, Any]) -> type:
    """A dataclass with a flag for each field, unchecked: make_config checks flags and YAML alike and says all wrong at once.

    Args:
        told: field -> how tyro shows its flag.
    """
    types = get_type_hints(RunConfig)
    flags = [(name, Annotated[types[name], argument], field(default=FIELDS[name].default)) for name, argument in told.items()]
    made = make_dataclass("ConfigFlags", flags, frozen=True)
    made.__doc__ = "Every choice that can change a number. The defaults are the paper's network on MNIST."
    return made


def _shortly(name: str, text: str) -> Any:
    """How a help that fits a screen shows a field's flag."""
    metavar = METAVARS[FIELDS[name].annotation]
    return tyro.conf.arg(
        help=text or ", ".join(CHOICES.get(name) or VARIANTS[name]),
        metavar=metavar if len(f"--{name} {metavar}") <= WIDEST else "",
        help_behavior_hint=f"(default: {FIELDS[name].default})",
    )


def _wholly(told: FieldInfo) -> Any:
    """How a help of everything shows a field's flag; of an empty list tyro would show nothing."""
    return tyro.conf.arg(help=told.description, help_behavior_hint="(default: none)" if told.default == () else None)


ConfigFlags = _flags({name: _wholly(told) for name, told in FIELDS.items()})
CommonFlags = _flags({name: _shortly(name, text) for name, text in COMMON.items()})


READERS = ConstructorRegistry()
"""How flags with numbers and paths are read: tyro's own rules show a user the exceptions of Python."""


@READERS.primitive_rule
def _number(told: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A whole number, one that may be left out, several of them, or any number; None for all other types."""
    several = told.type_origin is tuple and get_args(told.type) == (int, ...)
    if not several and told.type not in (int, int | None, float):
        return None
    kind, name = (float, "number") if told.type is float else (int, "whole number")

    def read(words: Sequence[str]) -> Any:
        try:
            values = tuple(map(kind, words))
        except ValueError:
            must = f"be {name}s" if several else f"be a {name}"
            raise ValueError(f"must {must}, not {' '.join(words)!r}") from None
        return values if several else values[0]

    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar="[INT [INT ...]]" if several else kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple if several else kind),
        str_from_instance=lambda value: [*map(str, value)] if several else [str(value)],
    )


@READERS.primitive_rule
def _path(told: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A path that isn't empty, which Python would take for the current folder, and a user's shell for a variable not set."""
    if told.type not in (Path, Path | None):
        return None

    def read(words: Sequence[str]) -> Path:
        if not words[0]:
            raise ValueError("must be a path, not ''")
        return Path(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def parse(
    command: Any, prog: str, description: str | None, arguments: Sequence[str] | None = None, *, switches: bool = False
) -> Any:
    """Read a command line with tyro; --help ends the process.

    Args:
        command: the dataclass, or a union of them for subcommands.
        prog: how the module is called; an installed command is called by its own name.
        description: what it does, with an example; the dataclass's own text if None.
        arguments: sys.argv's if None.
        switches: a yes or no is given by naming the flag; else, like every field of a config, with its value.

    Raises:
        InputError: a flag is unknown, or its value is of another type.
    """
    words = sys.argv[1:] if arguments is None else arguments
    subcommands = {kind.__name__.lower(): kind for kind in get_args(command)}
    if chosen := subcommands.get(words[0] if words else ""):
        # by itself, since tyro would send who mistakes one of its flags to the help of all subcommands
        return parse(chosen, f"{prog} {words[0]}", None, words[1:], switches=switches)
    if subcommands and words and not words[0].startswith(("-h", "--help", "--tyro-")):
        # tyro would take the word for one flag among others
        fault = f"a command must come before {words[0]}; choices: {', '.join(subcommands)}"
        fault = fault if words[0].startswith("-") else unknown("command", words[0], subcommands)
        raise InputError(f"{fault}; {called(prog)} --help lists all")
    style = tyro.conf.FlagCreatePairsOff if switches else tyro.conf.FlagConversionOff
    if is_installed():
        prog, description = called(prog), called(description or getdoc(command) or "")
        told = {kind.__name__.lower(): (kind, called(getdoc(kind) or "")) for kind in subcommands.values()}
        ways = [Annotated[kind, tyro.conf.subcommand(name, description=text)] for name, (kind, text) in told.items()]
        command = Union[tuple(ways)] if ways else command  # noqa: UP007
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(command, prog=prog, description=description, args=words, config=(style,), registry=READERS)
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(_told(said.getvalue(), prog)) from None


def _told(box: str, prog: str) -> str:
    """What tyro says in a box with a section for each thing, in one line like all other errors."""
    drawn = "│" in box  # else the terminal has no such signs, and the heading is a section, too
    lines = [line.strip("│").rstrip() for line in box.splitlines() if not drawn or line.startswith("│")]
    sections: list[str] = re.split(r"\n\s*[─-]+(?:\n|$)", "\n".join(lines))
    first, *others = sections[0 if drawn else 1 :] or [box]
    told = re.sub(r"^Error parsing (\S+):", r"\1", _joined(first)).rstrip(" .").replace("1 values", "1 value")
    near = []
    for section in others:
        heading, *explained = section.splitlines()
        if heading.strip() == "Argument helptext:":  # the flag, and what it is
            told += f"; it is: {_joined(' '.join(explained[1:]))}"
        elif flags := re.findall(r"^ +(--\S+)", section, re.MULTILINE):
            near.append(" or ".join(dict.fromkeys(flags)))
    told += f"; did you mean {', '.join(near)}?" if near else ""
    return f"{told}; {prog} --help lists all"


def _joined(text: str) -> str:
    return " ".join(text.split())
