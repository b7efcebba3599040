"""The findings as tables, for the terminal and as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from benchmarks import parts
from benchmarks.clock import Spread, ratios, total
from benchmarks.found import TEXTBOOK, Findings, Step
from capsnet.origin import shortened
from capsnet.terminal import escaped

EPOCH = 60_000  # images


@dataclass(frozen=True)
class Table:
    """Texts in rows, with what has to be known to read them; all columns but the first are numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def rich(self) -> RichTable:
        """In the look of the project's other tables."""
        made = RichTable(
            title=escaped(self.title),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        made.add_column(escaped(self.heads[0]), overflow="fold")
        for head in self.heads[1:]:
            made.add_column(escaped(head), justify="right", no_wrap=True)
        for row in self.rows:
            made.add_row(*map(escaped, row))
        return made

    def markdown(self) -> str:
        """A table of GitHub's Markdown, its columns aligned in the source, too."""
        widths = [max(3, *map(len, column)) for column in zip(self.heads, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

        rule = line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return "\n".join([f"**{self.title}**", "", line(self.heads), rule, *map(line, self.rows)]) + f"\n{notes}"


def all_of(found: Findings) -> list[Table]:
    """Every table, the comparison first."""
    return [
        rates(found),
        *(step(found, precision) for precision in found.precisions),
        *(sweep(found, axis) for axis in found.sweeps),
        processes(found),
        memory(found),
        peaks(found),
    ]


def heading(found: Findings) -> list[str]:
    """What was measured, where and when, in lines."""
    machine = found.machine
    gigabytes = f"{float(machine['memory_bytes']) / 1e9:.0f} GB"
    device = "" if machine["device"] == f"{machine['processor']}, {machine['threads']} threads" else f"{machine['device']}, "
    return [
        f"{device}{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {gigabytes}; "
        f"load {machine['load']:.1f} at the start",
        f"PyTorch {machine['torch']}, Python {machine['python']}, commit {shortened(str(machine['commit']))}, "
        f"{machine['date']}, {found.seconds:.0f} s",
        "median (lowest–highest) of n samples taken in turn; ratios are of the samples of one round",
    ]


def rates(found: Findings) -> Table:
    """Training, evaluation and the textbook version."""
    compared = found.ratios
    rows = [_rate_row("textbook fp32, training", found.rates[TEXTBOOK], "", "")]
    for precision in found.precisions:
        training, evaluation = f"training {precision}", f"evaluation {precision}"
        rows.append(_rate_row(training, found.rates[training], shown(compared[f"{training} / {TEXTBOOK}"]), ""))
        rows.append(_rate_row(evaluation, found.rates[evaluation], "", shown(compared[f"{evaluation} / {training}"])))
    return Table(
        f"Images per second, batch {found.config['batch_size']}, test batch {found.config['test_batch_size']} "
        f"(n={found.rates[TEXTBOOK].n})",
        ("", "images/s", "times the textbook", "times training", f"s per {EPOCH:,}"),
        tuple(rows),
        (
            "textbook: broadcast matmul votes, DataLoader (no workers: its default) with torchvision's transforms per image, "
            "fp32, eager; the same function, its gradients included",
            "training: epochs as a run has them, shuffling, augmentation and metrics included, validation not",
        ),
    )


def _rate_row(name: str, rate: Spread, textbook: str, training: str) -> tuple[str, ...]:
    return name, shown(rate), textbook, training, number(EPOCH / rate.median)


def step(found: Findings, precision: str) -> Table:
    """One training step by part, beside its floor."""
    measured: Step = found.steps[precision]
    batch = int(found.config["batch_size"])
    rows = []
    for part, spread in measured.parts.items():
        least = measured.floors[part]
        rows.append((*_step_row(part, spread, measured), *_floor(spread, least.seconds), least.bound if least.seconds else ""))
    floor_sum = sum(least.seconds for least in measured.floors.values())
    together = total(list(measured.parts.values()))
    rows.append((*_step_row("sum of the parts", together, measured), *_floor(together, floor_sum), ""))
    rows.append((*_step_row("step", measured.whole, measured), *_floor(measured.whole, floor_sum), ""))
    whole = found.rates[f"training {precision}"].map(lambda rate: batch / rate)
    rows.append((*_step_row("step of an epoch", whole, measured), *_floor(whole, floor_sum), ""))
    rest = parts.unexplained(measured.parts, measured.whole)
    return Table(
        f"A training step by part, {precision}, batch {batch}, in ms (n={measured.whole.n})",
        ("part", "ms", "share", "floor", "times the floor", "bound by"),
        tuple(rows),
        (
            "parts are forward and backward, each measured alone, but PrimaryCaps as what it costs beyond conv1, and routing "
            "beyond votes (r = 1)",
            f"the parts leave {rest.median:.0%} ({rest.low:.0%} to {rest.high:.0%}) of the step unexplained, which is not "
            "compiled; a step of an epoch is as the training loop has it",
            f"floor: the part's direct products at {number(found.peaks.flops_per_second[precision] / 1e9)} GFLOP/s, or its "
            f"inputs, outputs and weights at {number(found.peaks.bytes_per_second / 1e9)} GB/s, the longer of the two",
            "a convolution in the frequency domain needs fewer products and may go below its floor; so may what a cache holds",
        ),
    )


def _step_row(name: str, spread: Spread, measured: Step) -> tuple[str, ...]:
    return name, shown(spread, 1e3), f"{spread.median / measured.whole.median:.0%}"


def _floor(spread: Spread, least: float) -> tuple[str, str]:
    return (number(1e3 * least), number(spread.median / least)) if least else ("", "")


def sweep(found: Findings, axis: str) -> Table:
    """Training by one field of the config."""
    base = int(found.config[axis])
    return _by_value(
        f"Training by {axis.replace('_', ' ')}, {found.swept}",
        axis.replace("_", " "),
        found.sweeps[axis],
        f"time per image, times that of {base}",
        lambda rate: ratios(found.sweeps[axis][base], rate),
    )


def processes(found: Findings) -> Table:
    """Training side by side."""
    one = found.processes[1]
    made = _by_value(
        f"Processes that train side by side, {found.swept}, all together",
        "processes",
        found.processes,
        "times one process",
        lambda rate: ratios(rate, one),
    )
    notes = (
        verdict({count: ratios(rate, one) for count, rate in found.processes.items()}),
        *(f"not measured: {left}" for left in found.left_out),
    )
    return Table(made.title, made.heads, made.rows, notes)


def verdict(times_one: dict[int, Spread]) -> str:
    """Which number of processes gets the most done, by the ratios of the same rounds, if the rounds agree on that."""
    best = max(times_one, key=lambda count: times_one[count].median)
    if best > 1 and times_one[best].low <= 1:
        return f"undecided: in some rounds {best} at once got less done than one"
    return f"most images/s: {best} at once"


def _by_value(title: str, head: str, rates_by: dict[int, Spread], other: str, compared: Callable[[Spread], Spread]) -> Table:
    count = next(iter(rates_by.values())).n
    rows = [(str(value), shown(rate), shown(compared(rate))) for value, rate in rates_by.items()]
    return Table(f"{title} (n={count})", (head, "images/s", other), tuple(rows))


def memory(found: Findings) -> Table:
    """Peaks of fresh processes."""
    sizes = {"training": found.config["batch_size"], "evaluation": found.config["test_batch_size"]}
    rows = [
        (f"{what} {precision}", sizes[what], f"{found.memory[f'{what} {precision}'] / 1e6:,.0f}")
        for precision in found.precisions
        for what in sizes
    ]
    note = "weights, Adam's moments, activations and workspaces; beyond PyTorch itself and, with CUDA, beyond its context"
    return Table("Peak memory (n=1)", ("", "batch", "MB"), tuple(rows), (note,))


def peaks(found: Findings) -> Table:
    """The machine's, as measured."""
    precisions = list(found.peaks.products)
    rows = [
        (f"{name}: {shape}", *(shown(found.peaks.products[precision][name], 1e-9) for precision in precisions))
        for name, shape in found.peaks.shapes.items()
    ]
    copies = shown(found.peaks.bandwidth, 1e-9)
    return Table(
        "Peaks of the machine: products in GFLOP/s",
        ("product", *precisions),
        tuple(rows),
        (f"copy of an array that fits no cache: {copies} GB/s, read and written",),
    )


def shown(spread: Spread, factor: float = 1.0) -> str:
    """``1.23 (1.19–1.31)``: median, lowest and highest."""
    return f"{number(spread.median * factor)} ({number(spread.low * factor)}–{number(spread.high * factor)})"


def number(value: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 12,300."""
    if not value:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    rounded = round(value, digits)
    digits = 2 - floor(log10(abs(rounded)))  # 9.999 has become 10.0
    return f"{rounded:,.{max(digits, 0)}f}"
