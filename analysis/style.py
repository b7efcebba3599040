"""One look for every figure, readable in one column of a paper, and files that are the same to the byte on every build."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

COLUMN, PAGE = 3.4, 7.0  # inches: one column, and the width of a page
LETTER = 0.055  # inches: width of a letter at 7 pt, on the safe side


def wrapped(text: str, inches: float) -> str:
    """The text in lines that are so wide at 7 pt."""
    return textwrap.fill(text, max(10, int(inches / LETTER)), break_long_words=False, break_on_hyphens=False)


@contextmanager
def style() -> Iterator[None]:
    """Nothing below 7 pt at the size it is saved in, text in PDFs that can be selected; the caller's own style comes back."""
    chosen: dict[Any, Any] = {**sns.axes_style("whitegrid"), "font.sans-serif": ["DejaVu Sans"], "pdf.fonttype": 42}
    chosen |= {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}
    chosen |= {"legend.fontsize": 7, "legend.title_fontsize": 7, "legend.frameon": False}
    chosen |= {"lines.linewidth": 1.2, "axes.linewidth": 0.6, "grid.linewidth": 0.4}
    with mpl.rc_context(chosen):
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png and stem.pdf, without the date; the folder is made if it isn't there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(".png"), stem.with_suffix(".pdf")]
    figure.savefig(paths[0], dpi=200, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
