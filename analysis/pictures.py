"""Pictures side by side in one panel, with words above and beside them. 0 is black, 1 is white, as in the data set."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from analysis.style import COLUMN, shown_channels

ACROSS = 6  # columns of a line of examples: three numbers in 7 pt are as wide as a sixth of a column
Example = TypeVar("Example")


def mosaic(tiles: Float[Tensor, "rows columns channels height width"]) -> UInt8[np.ndarray, "down across 3"]:
    """One picture of all tiles, with white lines between them; each pixel is there once.

    :func:`analysis.style.shown_channels` says which channels those of many are.
    """
    rows, columns, channels, height, width = tiles.shape
    tiles = tiles[:, :, shown_channels(channels)]
    gap = _gap(width)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    pixels = (tiles.clamp(0, 1) * 255).round().byte().movedim(2, 4).numpy()
    for i in range(rows):
        for j in range(columns):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = pixels[i, j]  # grey fills all three colours
    return canvas


def show(
    panel: Axes,
    tiles: Float[Tensor, "rows columns channels height width"],
    heads: Sequence[object] = (),
    sides: Sequence[object] = (),
    rotation: float = 0,
) -> None:
    """Draw tiles in [0, 1] with ``heads``, turned by so many degrees, above the columns and ``sides`` beside the rows."""
    panel.imshow(mosaic(tiles), interpolation="none")  # so that a PDF keeps the pixels
    height, width = tiles.shape[3:]
    gap = _gap(width)
    panel.set_xticks([(width - 1) / 2 + i * (width + gap) for i in range(len(heads))], list(map(str, heads)), rotation=rotation)
    panel.set_yticks([(height - 1) / 2 + i * (height + gap) for i in range(len(sides))], list(map(str, sides)))
    panel.tick_params(length=0, pad=2, labeltop=True, labelbottom=False)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)


def examples_in_lines(
    examples: Sequence[Example],
    drawn: Callable[[Sequence[Example]], Float[Tensor, "2 columns channels height width"]],
    head: Callable[[Example], str],
    colour: Callable[[Example], object],
    tall: float,
    foot: float,
) -> Figure:
    """A figure of examples, ``ACROSS`` in a line: each an input above an output, below a head in its colour.

    Args:
        examples: what is shown.
        drawn: the inputs and outputs of some of them.
        head: an example's, above its pictures.
        colour: of the head.
        tall: inches of a line.
        foot: inches for notes below.
    """
    lines = [examples[start : start + ACROSS] for start in range(0, len(examples), ACROSS)]
    figure = Figure(figsize=(COLUMN, tall * len(lines) + foot), layout="constrained")
    for panel, line in zip(np.atleast_1d(figure.subplots(len(lines), 1)), lines, strict=True):
        pair = drawn(line)
        blank = pair.new_ones(2, ACROSS - len(line), *pair.shape[2:])
        show(panel, torch.cat([pair, blank], dim=1), [head(example) for example in line], ["input", "output"])
        panel.set_yticklabels(["input", "output"], rotation=90, va="center")
        for text, example in zip(panel.get_xticklabels(), line, strict=True):
            text.set_color(colour(example))
    return figure


def side(images: UInt8[Tensor, "count channels height width"], across: int) -> float:
    """Inches that a tile is high if so many stand side by side in a column, beside the names of the rows."""
    height, width = images.shape[2:]
    return (COLUMN - 0.35) / across * height / width


def _gap(width: int) -> int:
    return max(1, width // 14)
