"""``python -m benchmarks.kernels``: each kernel of ours in turn with what a library does instead, and a step's kernels by time.

On a CUDA device: work is replayed from CUDA graphs, as training does it. The network is the paper's, in bfloat16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from capsnet import cli, terminal
from capsnet.config import RunConfig, make_config
from capsnet.errors import InputError

if TYPE_CHECKING:
    import torch

    from benchmarks.clock import Spread
    from benchmarks.tables import Table

DESCRIPTION = """Measure each kernel of this project in turn with what PyTorch and cuDNN do instead, on a CUDA device.

Example: python -m benchmarks.kernels --seconds 20"""
STEPS = 400  # of training that are profiled, at least: some images of an epoch are enough
SHOWN = 25  # kernels of a step, the longest


@dataclass(frozen=True)
class Command:
    """The flags of ``python -m benchmarks.kernels``."""

    device: Annotated[str, tyro.conf.arg(help="auto, cuda or cuda:N")] = "auto"
    seconds: Annotated[float, tyro.conf.arg(help="for all comparisons, about; each is measured three times at least")] = 30.0


@dataclass(frozen=True)
class Contest:
    """The same work, done in two ways."""

    ours: Callable[[], object]
    theirs: Callable[[], object]
    library: str


def main(base: RunConfig | None = None) -> int:
    """Parse, measure, print; the network is the paper's unless another is given."""
    command: Command = cli.parse(Command, "python -m benchmarks.kernels", DESCRIPTION)
    if not 0 < command.seconds < float("inf"):
        raise InputError(f"--seconds must be above 0, not {command.seconds:g}")

    from benchmarks import machine
    from capsnet.training import choose_device, computing

    device = choose_device(command.device)
    if device.type != "cuda":
        raise InputError("the kernels are for CUDA devices, and this is a CPU; python -m benchmarks measures it")
    config = base or make_config({"precision": "bf16"}, "the defaults")
    here = machine.describe(device)
    terminal.say(f"{here['device']}, PyTorch {here['torch']}, commit {here['commit']}, {here['date']}")
    with computing(config.precision, device):
        table = compared(measured(contests(config, device), device, command.seconds), config.batch_size)
    terminal.console.print(table.rich())
    for compiled in (False, True):
        terminal.console.print(profiled(config, device, compiled).rich())
    return 0


def contests(config: RunConfig, device: "torch.device") -> dict[str, Contest]:
    """What there is to compare, by name: convolutions, routing and optimizer of a network in bfloat16."""
    import torch

    from benchmarks import parts
    from benchmarks.training import pictures
    from capsnet import adam_triton, agreement_triton, convolution_triton
    from capsnet.models import CapsuleNetwork
    from capsnet.precision import full, rounded
    from capsnet.routing import dynamic
    from capsnet.state import TrainingState
    from capsnet.step import updated

    state, batch = TrainingState(config, device), pictures(config, config.batch_size, device)
    model, images = state.model, batch.batch(slice(None))
    assert isinstance(model, CapsuleNetwork)
    parameters = [*model.conv.parameters(), *model.primary.conv.parameters()]

    def convolved() -> torch.Tensor:
        return convolution_triton.primary_maps(images, model.conv, model.primary.conv)

    def by_cudnn() -> torch.Tensor:
        with rounded("bf16", device):
            return full(model.primary.conv(model.conv(images).relu()))

    layer, classes = model.capsules, config.facts.classes
    vectors = model.primary_capsules(images).detach().requires_grad_()

    def routed(iterations: int) -> Callable[[], torch.Tensor]:
        return lambda: agreement_triton.route(vectors, layer.weight, classes, iterations, layer.bias)

    def by_votes(iterations: int) -> Callable[[], torch.Tensor]:
        return lambda: dynamic(layer.votes(vectors), iterations, layer.bias)

    found = {
        "convolutions, forward": Contest(_forward(convolved), _forward(by_cudnn), "cuDNN"),
        "convolutions, both ways": Contest(_both_ways(convolved, parameters), _both_ways(by_cudnn, parameters), "cuDNN"),
    }
    for r in sorted({1, config.routing_iterations}):
        leaves = [vectors, *layer.parameters()]
        found[f"routing, r = {r}, forward"] = Contest(_forward(routed(r)), _forward(by_votes(r)), "votes in memory")
        found[f"routing, r = {r}, both ways"] = Contest(
            _both_ways(routed(r), leaves), _both_ways(by_votes(r), leaves), "votes in memory"
        )
    parts.whole(state, batch)()  # after which there are gradients and moments
    adam = Contest(lambda: adam_triton.update(state.optimizer), lambda: updated(state), "PyTorch's fused")
    return {**found, "Adam and the norm": adam}


def _forward(work: "Callable[[], torch.Tensor]") -> Callable[[], object]:
    import torch

    def run() -> object:
        with torch.no_grad():
            return work()

    return run


def _both_ways(work: "Callable[[], torch.Tensor]", wanted: "Sequence[torch.Tensor]") -> Callable[[], object]:
    import torch

    output = work()
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
    return lambda: torch.autograd.grad(work(), wanted, gradient)


def measured(pairs: dict[str, Contest], device: "torch.device", seconds: float) -> "dict[str, tuple[Spread, Spread, str]]":
    """Seconds of ours and of theirs, taken in turn, and what theirs is."""
    from benchmarks.clock import alternate, timed

    found = {}
    for name, pair in pairs.items():
        passes = {which: timed(work, device, captured=True) for which, work in (("ours", pair.ours), ("theirs", pair.theirs))}
        taken = alternate(passes, seconds / len(pairs))
        found[name] = taken["ours"], taken["theirs"], pair.library
    return found


def compared(found: "dict[str, tuple[Spread, Spread, str]]", batch: int) -> "Table":
    """The comparison as a table."""
    from benchmarks.clock import ratios
    from benchmarks.tables import Table, shown

    rows = tuple(
        (name, shown(ours, 1e6), shown(theirs, 1e6), shown(ratios(theirs, ours)), library)
        for name, (ours, theirs, library) in found.items()
    )
    least = min(ours.n for ours, _, _ in found.values())
    heads = ("work", "ours, us", "theirs, us", "times as fast", "theirs is")
    return Table(f"Kernels, batch {batch} (n={least} or more)", heads, rows)


def profiled(config: RunConfig, device: "torch.device", compiled: bool) -> "Table":
    """The kernels of a training step as a run takes it, by the time of each in an epoch."""
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.tables import Table, number
    from benchmarks.training import epoch_of, execution, ours

    endless = epoch_of(config, STEPS * config.batch_size)
    epoch = ours(endless, device, compiled=compiled)
    epoch()
    seconds = [epoch() for _ in range(3)]
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        epoch()
    steps = endless.training_images // config.batch_size
    kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    total = sum(kernel.self_device_time_total for kernel in kernels) / steps
    rows = [
        (kernel.key[:70], number(kernel.self_device_time_total / steps), number(kernel.count / steps)) for kernel in kernels
    ]
    whole = ("all", number(total), number(sum(kernel.count for kernel in kernels) / steps))
    best = 1e6 * min(seconds) / steps
    how = execution(compiled).settle(endless, device)  # asked afterwards: a compiler that failed has changed it
    title = (
        f"Kernels of a step, {config.precision}, {how}; a step of an epoch takes {number(best)} us (least of {len(seconds)})"
    )
    return Table(title, ("kernel", "us a step", "calls a step"), (*rows[:SHOWN], whole))


if __name__ == "__main__":
    terminal.finish(main)
