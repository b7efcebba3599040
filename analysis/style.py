"""One look for every figure: sizes, colours, texts that fit their place, and files that are the same to the byte."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, SymmetricalLogLocator
from numpy.typing import ArrayLike

from analysis.faults import unexpected
from analysis.fields import text_of
from capsnet.errors import InputError

COLUMN, PAGE, TALLEST = 3.4, 7.0, 9.2  # inches: one column, the width of a page, and its height less a caption
SMALL = 7  # points: the smallest text, and that of labels, notes and numbers in fields
LINE = 0.145  # inches: a line of such text

COLOURS = ("#0173b2", "#de8f05", "#029e73", "#cc3311", "#222222", "#56b4e9")  # told apart by every kind of colour vision
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1), (3, 1, 1, 1))
DIFFERENT = 24  # lines before a colour comes with the same dashes again
SEQUENTIAL: Colormap = LinearSegmentedColormap.from_list("more", ["white", COLOURS[5]])  # the darker, the more, in grey, too
DIVERGING: Colormap = mpl.colormaps["PuOr"]


class NothingToDrawError(InputError):
    """There is nothing that a figure could show; the message says why. It is empty where nobody can have expected one."""


@contextmanager
def style() -> Iterator[None]:
    """The look, for whatever is drawn and saved inside: nothing below 7 pt at the size it is saved in."""
    chosen: dict[Any, Any] = {**sns.axes_style("whitegrid"), "font.sans-serif": ["DejaVu Sans"]}
    chosen |= {"pdf.fonttype": 42}  # text in PDFs that can be selected
    chosen |= {"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL}
    chosen |= {"legend.fontsize": SMALL, "legend.title_fontsize": SMALL, "legend.frameon": False}
    chosen |= {"lines.linewidth": 1.2, "axes.linewidth": 0.6, "grid.linewidth": 0.4}
    with mpl.rc_context(chosen):
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.pdf``, without a date in them."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    figure.savefig(paths[0], dpi=200, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths


def write_all(figures: Mapping[str, Callable[[], Sequence[Figure]]], folder: Path) -> tuple[list[Path], list[str]]:
    """Make and save figures, several pages of one with numbers: ``name-1``, ``name-2``.

    What an earlier build left in their place is deleted, because it would contradict this one.

    Args:
        figures: (name of the files -> what draws the pages, or raises NothingToDrawError).
        folder: where the files go.

    Returns:
        The files, and which figures were left out and why: one that fails costs no other.
    """
    paths: list[Path] = []
    reasons: dict[str, list[str]] = {}  # why -> names
    for name, make in figures.items():
        made: list[Path] = []
        with style():
            try:
                pages = make()
                names = [name] if len(pages) == 1 else [f"{name}-{number}" for number in range(1, len(pages) + 1)]
                made = [path for page, stem in zip(pages, names, strict=True) for path in save(page, folder / stem)]
            except NothingToDrawError as reason:
                reasons.setdefault(str(reason), []).append(name)
            except Exception as error:
                reasons.setdefault(unexpected(error), []).append(name)
        for path in {*folder.glob(f"{name}.p[nd][gf]"), *folder.glob(f"{name}-[0-9]*.p[nd][gf]")} - set(made):
            path.unlink()
        paths += made
    return paths, [f"{', '.join(names)}: {reason}" for reason, names in reasons.items() if reason]


def legend_size(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of a legend below the panels of a figure so wide, and the height to leave for it, in inches."""
    columns = max(1, int(width / (0.6 + max(size_of(label)[0] for label in labels))))
    return columns, LINE * sum(label.count("\n") + 1 for label in labels) / min(columns, len(labels)) + 0.65


def by_dataset(parts: Mapping[str, Callable[[], Sequence[Figure]]]) -> list[Figure]:
    """The pages of every data set (name -> what draws them), which are told apart by its name above them.

    Raises:
        NothingToDrawError: there is nothing to draw of any of them.
    """
    if len(parts) == 1:
        [[*pages]] = (make() for make in parts.values())
        return pages
    found: list[Figure] = []
    reasons: dict[str, str] = {}
    for name, make in parts.items():
        try:
            pages = [*make()]
        except NothingToDrawError as reason:
            reasons[name] = str(reason)
            continue
        for page in pages:
            page.set_figheight(page.get_figheight() + 0.2)
            page.suptitle(name, fontsize=SMALL + 1, fontweight="bold")
        found += pages
    if not found:
        told = {name: why for name, why in reasons.items() if why}
        same = set(reasons.values())
        raise NothingToDrawError(same.pop() if len(same) == 1 else "; ".join(f"{name}: {why}" for name, why in told.items()))
    return found


@lru_cache(maxsize=4096)
def width_of(text: str) -> float:
    """Inches that one line of text takes at 7 pt."""
    font = FontProperties(family="DejaVu Sans", size=SMALL)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def wrapped(text: str, inches: float) -> str:
    """The text at 7 pt in lines no wider than that, unless a word is; its own line breaks stay."""
    lines: list[str] = []
    for part in text.split("\n"):
        line, *words = part.split(" ")
        for word in words:
            if width_of(f"{line} {word}") <= inches:
                line += f" {word}"
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return "\n".join(lines)


def note(figure: Figure, *parts: str) -> None:
    """Say below a figure what it shows, each part that isn't empty on a line of its own."""
    figure.supxlabel("\n".join(wrapped(part, figure.get_figwidth()) for part in parts if part), fontsize=SMALL)


def size_of(text: str) -> tuple[float, int]:
    """Inches that the widest line takes at 7 pt, and the number of lines."""
    lines = text.split("\n")
    return max(map(width_of, lines)), len(lines)


def ink_on(colour: Any) -> str:
    """Black or white, whichever has more contrast on the colour; it is at least 4.58 then (WCAG asks for 4.5)."""
    return "black" if luminance(colour) > 0.179 else "white"


def luminance(colour: Any) -> float:
    """Of a colour from 0, black, to 1, white, as WCAG 2 has it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def shown_channels(channels: int) -> list[int]:
    """Which of so many channels are red, green and blue.

    One is grey. Of two the second is both others, as stereo pairs are printed; of more than three the first three are shown.
    """
    return {1: [0], 2: [0, 1, 1]}.get(channels, [0, 1, 2])


def scale(panels: Sequence[Axes], values: ArrayLike, *, which: str = "y") -> None:
    """Make an axis logarithmic if the values span a factor of ten, and linear around zero if they reach it."""
    array = np.asarray(values, dtype=float)
    positive = array[array > 0]
    if not positive.size or positive.max() < 10 * positive.min():
        return
    subs = [1.0] if positive.max() > 100 * positive.min() else [1.0, 2.0, 5.0]
    for panel in panels:
        axis: Axis = getattr(panel, f"{which}axis")
        set_scale = getattr(panel, f"set_{which}scale")
        if positive.size == array.size:
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=subs))
        else:
            set_scale("symlog", linthresh=positive.min(), linscale=0.5)
            axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=positive.min(), subs=subs))
            getattr(panel, f"set_{which}lim")(0, None)
        axis.set_major_formatter(FuncFormatter(lambda x, _: text_of(float(f"{x:g}"))))
        axis.set_minor_formatter(NullFormatter())
