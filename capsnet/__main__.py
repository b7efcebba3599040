"""``python -m capsnet``: train one network, with no tracking."""

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from capsnet import cli, terminal
from capsnet.config import FIELDS, RunConfig, make_config
from capsnet.errors import InputError
from capsnet.execution import Execution
from capsnet.files import writable
from capsnet.metrics import EpochMetrics
from capsnet.registry import TEST_SETS
from capsnet.remarks import remarks
from capsnet.test_sets import origin

if TYPE_CHECKING:  # torch is loaded when the flags have been found good
    import torch

    from capsnet.data import Data
    from capsnet.state import TrainingState
    from capsnet.training import Step

DESCRIPTION = """Train one capsule network, and test it after its last epoch. Nothing is tracked.

Example: python -m capsnet --epochs 5 --routing-iterations 3 --checkpoints out"""
MORE = f"""

Of {len(FIELDS)} choices, here are the most used; --help-all explains them all."""


@dataclass(frozen=True)
class Command:
    """The flags of ``python -m capsnet``."""

    config: tyro.conf.OmitArgPrefixes[cli.ConfigFlags] = field(default_factory=cli.ConfigFlags)  # type: ignore[valid-type]
    """Every choice that can change a number. The defaults are the paper's network on MNIST."""
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    device: Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")] = "auto"
    compile: Annotated[str, tyro.conf.arg(help=cli.COMPILE)] = "auto"
    graph: Annotated[str, tyro.conf.arg(help=cli.GRAPH)] = "auto"
    log_interval: Annotated[int, tyro.conf.arg(help="steps between two reports; 0 = epochs only")] = 100
    checkpoints: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help="one per epoch; goes on from the last one there", help_behavior_hint=""),
    ] = None


@dataclass(frozen=True)
class Brief(Command):
    """The flags that --help shows."""

    config: tyro.conf.OmitArgPrefixes[cli.CommonFlags] = field(default_factory=cli.CommonFlags)  # type: ignore[valid-type]
    """What can change a number. The defaults are the paper's network on MNIST."""
    compile: tyro.conf.Suppress[str] = "auto"
    graph: tyro.conf.Suppress[str] = "auto"


def main() -> int:
    """Parse, train, report."""
    words, prog = ["--help" if word == "--help-all" else word for word in sys.argv[1:]], "python -m capsnet"
    if {"-h", "--help"} & {*sys.argv[1:]}:
        cli.parse(Brief, prog, DESCRIPTION + MORE, ["--help"])
    command: Command = cli.parse(Command, prog, DESCRIPTION, words)
    if command.log_interval < 0:
        raise InputError(f"--log-interval must be 0 or more, not {command.log_interval}")
    config = make_config(asdict(command.config), "the flags")
    execution = Execution(command.compile, command.graph)

    import torch

    from capsnet import agreement_native, further, precision
    from capsnet.data import default_folder, read
    from capsnet.training import DivergedError, choose_device

    device = choose_device(command.device)
    precision.require(config, device)
    settled = execution.settle(config, device)
    if command.checkpoints:
        writable(command.checkpoints, "--checkpoints")
    state = _state(config, command, device)
    folder = command.data or default_folder()
    for name in [name for name in config.test_sets if name in TEST_SETS]:  # what can't be had is found out before any training
        further.read_test_set(name, folder, torch.device("cpu"))
    data = read(config, folder, device)
    parameters = sum(p.numel() for p in state.model.parameters())
    terminal.say(
        f"{config.dataset}: {len(data.training)} training, {len(data.validation)} validation, {len(data.test)} test images; "
        f"{parameters:,} parameters; on {device}, steps {settled}"
    )
    terminal.note([*remarks([config]), *precision.remarks([config], device), *agreement_native.remarks([config], device)])
    try:
        _train(command, state, data, execution)
        terminal.console.print(*_tested(state, data, folder), sep="\n")
    except DivergedError as error:
        terminal.warn("diverged", error, terminal.FAULT)
        return 1
    if told := stopping(config, state.history):
        terminal.console.print(told)
    return 0


def _train(command: Command, state: "TrainingState", data: "Data", execution: Execution) -> None:
    """Train to the end, with a line or a bar, and a checkpoint per epoch if they are wanted."""
    from capsnet.training import train

    shown = Display(state.config, len(state.history)) if terminal.console.is_terminal else nullcontext(_Lines())
    with shown as display:
        for metrics in train(state, data, execution=execution, log_interval=command.log_interval, on_step=display.step):
            display.epoch(metrics)
            if command.checkpoints:
                state.save(_checkpoint(command.checkpoints, metrics.epoch))


def _tested(state: "TrainingState", data: "Data", folder: Path) -> list[str]:
    """The test errors, a line for each: of the data set, with other r, on further test sets."""
    from capsnet import further
    from capsnet.training import errors_at, evaluate

    config, size = state.config, state.config.test_batch_size
    error = evaluate(state.model, data.test, size).error
    wrong = round(error * len(data.test) / 100)
    lines = [f"test error [bold]{error:.2f} %[/] ({wrong} of {len(data.test)} images)"]
    for r, percent in errors_at(state.model, data.test, size, config.test_routing_iterations).items():
        lines.append(f"test error at r = {r}, instead of {config.routing_iterations}: [bold]{percent:.2f} %[/]")
    for name in config.test_sets:  # one after the other: the largest has half a gigabyte
        images, _ = further.split(name, folder, data.test, state.model)
        lines.append(f"test error on {name} ({origin(name)}): [bold]{evaluate(state.model, images, size).error:.2f} %[/]")
    return lines


def stopping(config: RunConfig, history: Sequence[EpochMetrics]) -> str:
    """How the run came to its end, if it was to stop at a validation error."""
    if not config.stop_at_error:
        return ""
    if config.stops_at(history[-1].validation_error):
        return f"stopped after epoch {len(history)}: the validation error is at most {config.stop_at_error:g} %"
    return f"[bold]the validation error never fell to {config.stop_at_error:g} %[/] within {config.epochs} epochs"


def describe(metrics: EpochMetrics) -> str:
    """An epoch in one line."""
    validation = "" if metrics.validation_error is None else f"  validation error {metrics.validation_error:.2f} %"
    return (
        f"epoch {metrics.epoch}  loss {metrics.train_loss:.4f}  training error {metrics.train_error:.2f} %{validation}"
        f"  {metrics.seconds:.1f} s  {metrics.images_per_second:.0f} images/s"
    )


class _Lines:
    """Progress for a log file: a line per report."""

    def step(self, step: "Step") -> None:
        terminal.say(f"epoch {step.epoch}  step {step.step}/{step.steps}  loss {step.loss:.4f}")

    def epoch(self, metrics: EpochMetrics) -> None:
        terminal.say(describe(metrics))


class Display(Progress):
    """Progress for a terminal: a bar over all steps with loss, error and the time that is left; a line per epoch above it."""

    def __init__(self, config: RunConfig, done: int) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn()
        super().__init__(*columns, console=terminal.console)
        self.per_epoch = config.steps_per_epoch
        self.bar = self.add_task("training", total=config.total_steps, completed=done * self.per_epoch)
        self.error = ""

    def step(self, step: "Step") -> None:
        """Move the bar within an epoch."""
        done = (step.epoch - 1) * self.per_epoch + step.step
        self.update(self.bar, completed=done, description=f"epoch {step.epoch}  loss {step.loss:.4f}{self.error}")

    def epoch(self, metrics: EpochMetrics) -> None:
        """Add a finished epoch's line."""
        if metrics.validation_error is not None:
            self.error = f"  error {metrics.validation_error:.2f} %"
        self.console.print(describe(metrics))
        self.update(
            self.bar,
            completed=metrics.epoch * self.per_epoch,
            description=f"epoch {metrics.epoch}  loss {metrics.train_loss:.4f}{self.error}",
        )


def _checkpoint(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}.safetensors"


def _state(config: RunConfig, command: Command, device: "torch.device") -> "TrainingState":
    """A new state, or that of the last checkpoint which is whole, if there are any of the same config."""
    from capsnet.state import TrainingState

    files = command.checkpoints.iterdir() if command.checkpoints else []
    found = {int(name[1]): path for path in files if (name := re.fullmatch(r"epoch-(\d+)\.safetensors", path.name))}
    if not found:
        return TrainingState(config, device)
    last, state = _last_whole([found[epoch] for epoch in sorted(found, reverse=True)], device)
    before, now = state.config.to_params(), config.to_params()
    differ = [name for name in now if getattr(state.config, name) != getattr(config, name)]
    if differ:
        told = "; ".join(f"{name} ({before[name]} there, {now[name]} here)" for name in differ)
        raise InputError(
            f"{last} is of another config: {told}. Give the same flags to go on from it, or another folder to start anew"
        )
    terminal.say(f"going on after epoch {len(state.history)} of {last}")
    return state


def _last_whole(paths: Sequence[Path], device: "torch.device") -> "tuple[Path, TrainingState]":
    """The first checkpoint that is whole; those before it are told of."""
    from capsnet.state import DamagedError, TrainingState

    for path in paths:
        try:
            return path, TrainingState.load(path, device)
        except DamagedError as fault:
            terminal.warn("damaged", fault)
    raise InputError(f"no checkpoint in {paths[0].parent} is whole; delete them, or name another folder, to start anew")


def script() -> NoReturn:
    """The command that an installed wheel has."""
    terminal.finish(main)


if __name__ == "__main__":
    script()
