"""One look for every figure, readable in one column of a paper, and files that are the same to the byte on every build."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator

COLUMN, PAGE = 3.4, 7.0  # inches: one column, and the width of a page
LETTER = 0.055  # inches: width of a letter at 7 pt, on the safe side


def wrapped(text: str, inches: float) -> str:
    """The text in lines that are so wide at 7 pt."""
    return textwrap.fill(text, max(10, int(inches / LETTER)), break_long_words=False, break_on_hyphens=False)


def note(figure: Figure, *parts: str) -> None:
    """Say below a figure what it shows, each part on a line of its own."""
    figure.supxlabel("\n".join(wrapped(part, figure.get_figwidth()) for part in parts), fontsize=7)


@contextmanager
def style() -> Iterator[None]:
    """Nothing below 7 pt at the size it is saved in, text in PDFs that can be selected; the caller's own style comes back."""
    chosen: dict[Any, Any] = {**sns.axes_style("whitegrid"), "font.sans-serif": ["DejaVu Sans"], "pdf.fonttype": 42}
    chosen |= {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}
    chosen |= {"legend.fontsize": 7, "legend.title_fontsize": 7, "legend.frameon": False}
    chosen |= {"lines.linewidth": 1.2, "axes.linewidth": 0.6, "grid.linewidth": 0.4}
    with mpl.rc_context(chosen):
        yield


def scale(panels: list[Axes]) -> None:
    """A logarithmic axis for values that span a factor of ten, linear around zero if they reach it."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for panel in panels for line in panel.lines]
    bands = [np.asarray(path.vertices)[:, 1] for panel in panels for band in panel.collections for path in band.get_paths()]
    values = np.concatenate([*lines, *bands])
    positive = values[values > 0]
    if not positive.size or positive.max() < 10 * positive.min():
        return
    wide = positive.max() > 100 * positive.min()
    subs = [1.0] if wide else [1.0, 2.0, 5.0]
    for panel in panels:
        if positive.size == values.size:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=subs))
        else:
            panel.set_yscale("symlog", linthresh=positive.min(), linscale=0.5)
            panel.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=positive.min(), subs=subs))
            panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png and stem.pdf, without the date; the folder is made if it isn't there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
    figure.savefig(paths[0], dpi=200, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
