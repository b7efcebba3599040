"""``python -m benchmarks``: measure, print tables, and write them with a picture and all samples.

The samples are written after each section, so that a run that is cut off leaves what it has measured.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from capsnet import cli, terminal
from capsnet.config import RunConfig, make_config
from capsnet.errors import InputError
from capsnet.files import replaced, writable

if TYPE_CHECKING:  # torch is loaded when the flags have been found good
    from benchmarks.found import Findings
    from benchmarks.measure import Scale

DESCRIPTION = """Measure how fast the paper's network trains here: against a textbook version, part by part against the floor
that this machine's peaks allow, by size, and side by side.

Example: python -m benchmarks --device cpu --precisions fp32"""
COLUMNS = 120  # that its tables need


@dataclass(frozen=True)
class Command:
    """The flags of ``python -m benchmarks``."""

    device: Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")] = "auto"
    precisions: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="NAME ...",
            help="fp32, bf16, tf32 (CUDA); sweeps are of the first on a CPU, else of bf16 if it is among them",
            help_behavior_hint="(default: all)",
        ),
    ] = ()
    seconds: Annotated[float, tyro.conf.arg(help="for all of it, about; nothing is measured less than three times")] = 200.0
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder for <device>.json, .md and .png")] = Path("results/bench")


def main(base: RunConfig | None = None, scale: "Scale | None" = None) -> int:
    """Parse, measure, report; the network is the paper's and the scale the device's unless others are given."""
    command: Command = cli.parse(Command, "python -m benchmarks", DESCRIPTION)
    if not 0 < command.seconds < float("inf"):
        raise InputError(f"--seconds must be above 0, not {command.seconds:g}")
    writable(command.out, "--out")

    from benchmarks import machine
    from benchmarks.measure import SCALES, measure
    from benchmarks.training import chosen
    from capsnet.training import choose_device

    device = choose_device(command.device)
    precisions = chosen(command.precisions, device)
    stem = command.out / machine.slug(machine.name(device))
    found = measure(
        base or make_config({}, "the defaults"),
        device,
        precisions,
        command.seconds,
        scale or SCALES[device.type],
        lambda what: terminal.errors.print(f"measuring {what}"),
        lambda found: write(found, stem.with_name(f"{stem.name}.json")),
    )
    terminal.say(*(f"wrote {path}" for path in report(found, stem)))
    return 0


def write(found: "Findings", path: Path) -> None:
    """Every sample as JSON, in the place of what was there."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=1) + "\n")


def report(found: "Findings", stem: Path) -> list[Path]:
    """Print the tables, and write ``stem.json``, ``stem.md`` and ``stem.png``."""
    from benchmarks import picture, tables

    terminal.say(*tables.heading(found))
    made = tables.all_of(found)
    for table in made:
        terminal.say("")
        terminal.wide(COLUMNS).print(table.rich())
        terminal.say(*table.notes)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "md", "png")]
    write(found, paths[0])
    with replaced(paths[1]) as temporary:
        beginning = "".join(f"{line}.\n" for line in tables.heading(found))
        picture_line = f"![The same as a picture]({paths[2].name})\n"
        temporary.write_text("\n".join([beginning, picture_line, *(table.markdown() for table in made)]))
    picture.draw(found, paths[2])
    return paths


if __name__ == "__main__":
    terminal.finish(main)
