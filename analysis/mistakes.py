"""What is answered wrongly: a confusion matrix, and the test images that most runs get wrong."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy import ndarray

from analysis import heat
from analysis.cells import dataset_of
from analysis.comparisons import Comparisons, Images
from analysis.pooled import NO_PREDICTIONS, Seen, answers_to, classes_beside, most_mistaken, seen
from analysis.style import (
    COLOURS,
    LINE,
    PAGE,
    SEQUENTIAL,
    SMALL,
    NothingToDrawError,
    by_dataset,
    shown_channels,
    wrapped,
    write_all,
)
from analysis.wording import class_text, classes_text, setting_text

ACROSS, DOWN = 5, 3  # test images on a page


def write(comparisons: Comparisons, images: Mapping[str, ndarray], folder: Path) -> tuple[list[Path], list[str]]:
    """Write the confusion matrix and the images that are most often mistaken, as PNG and PDF.

    Args:
        comparisons: with what was answered.
        images: data set -> pixels [n, channels, height, width] of its test images, as bytes or in [0, 1]; one that is not
            there is shown without pixels.
        folder: where the files go.

    Returns:
        The files, and of the figures that are left out which and why.
    """
    return write_all(figures(comparisons, images), folder)


def figures(comparisons: Comparisons, images: Mapping[str, ndarray]) -> dict[str, Callable[[], list[Figure]]]:
    """Both figures by the name of their files; what makes one raises NothingToDrawError where there are no data."""
    parts = comparisons.by_dataset
    return {
        "confusion": lambda: by_dataset({name: partial(confusion, part) for name, part in parts.items()}),
        "mistaken_images": lambda: by_dataset(
            {name: partial(mistaken, part, images.get(name)) for name, part in parts.items()}
        ),
    }


def counts(images: Images) -> Float[ndarray, "classes classes"]:
    """Answers by true class (rows) and class answered (columns), summed over a cell's runs.

    Of images with two labels: digits that were found (diagonal), or missed and which other one was named in their place.
    """
    if images.pairs:
        return images.pairs.taken_for
    table = np.zeros((images.votes.shape[1],) * 2, dtype=np.int64)
    np.add.at(table, images.labels, images.votes)
    return table


def confusion(comparisons: Comparisons) -> list[Figure]:
    """The confusion matrix of the reference cell, or of the first cell with predictions if it has none.

    Raises:
        NothingToDrawError: no cell has predictions, or there are too many classes.
    """
    found = [(c, images) for c, images in zip(comparisons.cells, comparisons.images, strict=True) if images is not None]
    if not found:
        raise NothingToDrawError(NO_PREDICTIONS)
    cell, images = next((pair for pair in found if pair[0] is comparisons.reference), found[0])
    table = counts(images)
    totals = table.sum(axis=1, keepdims=True)
    percent = 100 * table / np.where(totals, totals, 1)
    right = np.eye(len(table), dtype=bool)
    texts = [[_percent(p) for p in line] for line in percent]
    numbers = range(len(table))
    which = "the reference" if cell is comparisons.reference else "the first cell with predictions"
    title = setting_text(cell.setting) + (f" ({which})" if len(comparisons.cells) > 1 else "")
    values = np.where(right, np.nan, percent)
    runs, each = images.runs, np.bincount(images.labels.flatten())
    note = f"% of the answers to the images of a class, in {runs} run{'s' * (runs > 1)} with "
    span = f"{each.min()} to {each.max()}" if each.min() < each.max() else f"{each.max()}"
    note += f"{span} images per class; empty: none; grey: right answers"
    axes = ("true class", "answer")
    if images.pairs:
        note += (
            ". An image is of two classes, and of both rows: grey where the class is among the two that are answered, else in "
            "the column of what was answered in its place; if both are missed, half in each of two columns"
        )
        axes = ("class in the image", "found, or answered in its place")
    names = [class_text(dataset_of(cell), label) for label in numbers]
    field = heat.Field(title, axes, names, list(map(str, numbers)), values.tolist(), texts, pad=0.035)
    largest = float(np.nanmax(values, initial=0))
    return heat.draw([field], SEQUENTIAL, Normalize(0, largest or 1), note)


def mistaken(comparisons: Comparisons, images: ndarray | None) -> list[Figure]:
    """The test images that most runs get wrong, with the two most frequent answers to each.

    Raises:
        NothingToDrawError: no cell has predictions, or no run is ever wrong.
        ValueError: the images are not as many as the runs were tested on.
    """
    group = seen(comparisons)
    if images is not None and len(images) != len(group.labels):
        raise ValueError(f"the runs were tested on {len(group.labels)} images, not on {len(images)}")
    chosen = most_mistaken(group, ACROSS * DOWN)
    if not len(chosen):
        raise NothingToDrawError("no run gets any test image wrong")
    down = -(-len(chosen) // ACROSS)
    beside = {label for image in chosen for label in classes_beside(group, image)}
    said = [_note(group, len(chosen)), classes_text(dataset_of(group.cells[0]), beside)]
    note = "\n".join(wrapped(part, PAGE - 0.2) for part in said if part)
    below = group.labels[0].size  # lines; beside those of the answers
    figure = Figure(figsize=(PAGE, (1.8 + LINE * below) * down + LINE * note.count("\n") + 0.3), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False)
    for panel in panels.flat[len(chosen) :]:
        panel.set_axis_off()
    for panel, image in zip(panels.flat, chosen, strict=False):
        if images is None:
            _bars(panel, group, image)
        else:
            _pixels(panel, images[image])
        panel.set_title(f"image {image}", fontsize=SMALL)
        panel.set_xlabel("\n".join(answers_to(group, image)), fontsize=SMALL)
    figure.supxlabel(note, fontsize=SMALL)
    return [figure]


def _note(group: Seen, count: int) -> str:
    runs, cells = group.runs, len(group.cells)
    true = "the true class" if group.labels.ndim == 1 else "the true classes"
    who = f"most of {runs} runs ({cells} cell{'s' * (cells > 1)}) get" if runs > 1 else "the only run gets"
    text = (
        f"Test images that {who} wrong: of {len(group.labels):,}, {int((group.wrong > 0).sum()):,} are mistaken at all, these "
    )
    text += f"{count} by the most runs and, of equally many, with the shortest capsule of {true}. Below: {true} "
    text += "and the two most frequent other answers, " if group.labels.ndim > 1 else "and the two most frequent answers, "
    text += "their share of the runs, and the mean "
    if group.measure == "length":
        text += "length of their capsules over all runs, which is in [0, 1] but no probability: lengths don't sum to 1."
    else:
        text = text.replace("shortest capsule", "smallest logit") + "logit over all runs."
    others, unread = group.left_out
    text += f" Cells that were tested on other images, and are not counted: {others}." if others else ""
    return text + (f" Cells without predictions: {unread}." if unread else "")


def _pixels(panel: Axes, image: ndarray) -> None:
    """An image [channels, height, width], bytes or in [0, 1]."""
    shown = image[0] if len(image) == 1 else image[shown_channels(len(image))].transpose(1, 2, 0)
    panel.imshow(shown, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1, interpolation="nearest")
    panel.grid(visible=False)
    panel.set_xticks([])
    panel.set_yticks([])


def _bars(panel: Axes, group: Seen, image: int) -> None:
    """Mean lengths of all class capsules, in place of the pixels; a true class's is filled."""
    lengths = group.lengths[image]
    bars = panel.bar(np.arange(len(lengths)), lengths, color="white", edgecolor=COLOURS[0], lw=0.8)
    for label in group.labels[image].reshape(-1):
        bars[int(label)].set_facecolor(COLOURS[0])
    if group.measure == "length":
        panel.set_ylim(0, 1)
        panel.set_yticks([0, 0.5, 1], [])
    panel.set_xticks(np.arange(0, len(lengths), max(1, len(lengths) // 10)))
    panel.tick_params(length=0, pad=1)


def _percent(percent: float) -> str:
    """Four characters at most; nothing for nothing."""
    if not percent:
        return ""
    return f"{percent:.2f}" if percent < 0.995 else f"{percent:.1f}" if percent < 99.95 else "100"
