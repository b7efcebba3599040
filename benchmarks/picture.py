"""The findings as one picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.clock import Spread
from benchmarks.found import TEXTBOOK, Findings
from benchmarks.tables import heading, number

COLOURS = ("#0173b2", "#de8f05", "#029e73")  # told apart by every kind of colour vision
GREY = "#777777"
WIDTH, HEIGHT = 10.0, 7.6  # inches


def draw(found: Findings, path: Path) -> None:
    """Write the picture as PNG."""
    with _style():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        panels = figure.subplots(2, 3, width_ratios=(1.35, 1, 1))
        _steps(panels[0, 0], found)
        _rates(panels[0, 1], found)
        _line(panels[0, 2], found.sweeps["batch_size"], f"By batch size, {found.swept}", "images per step")
        _line(panels[1, 0], found.sweeps["routing_iterations"], f"By routing iterations, {found.swept}", "r")
        types = found.sweeps["primary_types"]
        _line(panels[1, 1], types, f"By primary capsules, {found.swept}", "types of primary capsules")
        _line(panels[1, 2], found.processes, f"Side by side, {found.swept}", "processes", "images/s, all together")
        figure.supxlabel("\n".join(heading(found)), fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, metadata={"Software": None})


@contextmanager
def _style() -> Iterator[None]:
    chosen: dict[Any, Any] = {**sns.axes_style("whitegrid"), "font.sans-serif": ["DejaVu Sans"]}
    chosen |= {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 9, "xtick.labelsize": 7, "ytick.labelsize": 7}
    chosen |= {"legend.fontsize": 7, "legend.frameon": True, "axes.titlelocation": "left", "axes.linewidth": 0.6}
    with mpl.rc_context(chosen | {"grid.linewidth": 0.4}):
        yield


def _steps(axes: Axes, found: Findings) -> None:
    """Bars of the parts, a tick where the floor is; the range of the samples as a line."""
    height = 0.8 / len(found.precisions)
    names = [*next(iter(found.steps.values())).parts, "step"]
    for i, (precision, colour) in enumerate(zip(found.precisions, COLOURS, strict=False)):
        measured = found.steps[precision]
        spreads = [*measured.parts.values(), measured.whole]
        least = [floor.seconds for floor in measured.floors.values()]
        at = np.arange(len(names)) + (i - (len(found.precisions) - 1) / 2) * height
        milliseconds = [max(0.0, 1e3 * spread.median) for spread in spreads]
        axes.barh(at, milliseconds, height * 0.9, color=colour, alpha=0.8, label=precision)
        axes.hlines(at, [1e3 * s.low for s in spreads], [1e3 * s.high for s in spreads], color="black", linewidth=0.7)
        axes.vlines(
            [1e3 * floor for floor in [*least, sum(least)]], at - height / 2, at + height / 2, color="black", linewidth=2
        )
    axes.vlines([], [], [], color="black", linewidth=2, label="floor")
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.grid(visible=False, axis="y")
    axes.set(title="A training step by part", xlabel=f"ms, batch {found.config['batch_size']}, logarithmic")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderpad=0, columnspacing=1, handlelength=1.5, frameon=False
    )


def _rates(axes: Axes, found: Findings) -> None:
    """Bars of images per second, with what they are of the textbook version."""
    names = list(found.rates)
    for at, name in enumerate(names):
        rate, precision = found.rates[name], name.rpartition(" ")[2]
        colour = GREY if name == TEXTBOOK else COLOURS[found.precisions.index(precision)]
        axes.barh(at, rate.median, 0.75, color=colour, alpha=0.8 if name.startswith("training") else 0.5)
        axes.hlines(at, rate.low, rate.high, color="black", linewidth=0.7)
        times = found.ratios.get(f"{name} / {TEXTBOOK}")
        text = f"{number(rate.median)}{f'  ({number(times.median)}×)' if times else ''}"
        axes.annotate(text, (rate.high, at), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), ["textbook\nfp32" if n == TEXTBOOK else n.replace(" ", "\n") for n in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.45 * max(rate.high for rate in found.rates.values()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.locator_params(axis="x", nbins=4)
    axes.set(title="Against the textbook version", xlabel="images/s (× of the textbook version)")


def _line(axes: Axes, rates: dict[int, Spread], title: str, xlabel: str, ylabel: str = "images/s, training") -> None:
    """Medians with their range, from 0, by a value whose steps are drawn equally wide."""
    at, spreads = range(len(rates)), list(rates.values())
    medians = [spread.median for spread in spreads]
    errors = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    axes.errorbar(at, medians, errors, color=COLOURS[0], marker="o", markersize=4, linewidth=1.2, capsize=3)
    for x, spread in zip(at, spreads, strict=True):
        label = number(spread.median)
        axes.annotate(label, (x, spread.high), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    axes.xaxis.set_major_locator(FixedLocator(list(at)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:,}" for value in rates])
    axes.set_xlim(-0.4, len(rates) - 0.6)
    axes.set_ylim(0, 1.15 * max(spread.high for spread in spreads))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
