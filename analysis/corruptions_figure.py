"""What a network was tested on beside its test images: some of them as each alteration has them, and what it answers."""

from pathlib import Path

import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from analysis.pictures import show
from analysis.style import COLOURS, COLUMN, LINE, SMALL, note, save, size_of, style, wrapped
from analysis.trained import Trained
from analysis.wording import classes_text
from capsnet import test_sets
from capsnet.answers import wrong
from capsnet.data import Split
from capsnet.further import altered
from capsnet.training import evaluate

ACROSS = 10  # images
FEWEST = 5  # fewer are no larger
SAID = "above: the class; orange: what the network takes an image for, where it is wrong"


def corruptions(trained: Trained, split: Split, folder: Path) -> list[Path]:
    """The first recognised test image of each class, as it is and in each alteration that the run was tested on, by row.

    No file if the run was tested on none, or recognises no image.

    Raises:
        InputError: the images are not those that it was tested on.
    """
    trained.check(split)
    names = [name for name in trained.tested if test_sets.alteration(name)]
    chosen = _chosen(trained)
    if not names or not chosen:
        return []
    first = Split(split.images[: max(chosen) + 1], split.labels[: max(chosen) + 1])
    # what is random depends on an image's place
    versions = [first.images, *(altered(name, first, trained.network) for name in names)]
    rows = [Split(images[chosen], split.labels[chosen]) for images in versions]
    answers = [evaluate(trained.network, row, len(row)).predictions for row in rows]
    with style():
        said = [SAID, classes_text(trained.config.dataset, split.labels[chosen].flatten().tolist()), trained.title]
        lines = sum(len(wrapped(text, COLUMN).splitlines()) for text in said if text)
        height, width = split.images.shape[2:]
        across = COLUMN - 0.15 - max(size_of(name)[0] for name in ("own", *names))
        tall = across / max(len(chosen), FEWEST) * height / width * len(rows)
        figure = Figure(figsize=(COLUMN, tall + 0.3 + LINE * lines), layout="constrained")
        panel = figure.subplots()
        show(panel, torch.stack([row.batch(slice(None)) for row in rows]), _texts(rows[0].labels), ["own", *names])
        for y, row, answer in zip(panel.get_yticks(), rows, answers, strict=True):
            for x, text, is_wrong in zip(panel.get_xticks(), _texts(answer), wrong(answer, row.labels).tolist(), strict=True):
                if is_wrong:  # in the corner of the image
                    place = x - width / 2, y + height / 2
                    wrote = panel.text(*place, text, color=COLOURS[1], fontsize=SMALL, fontweight="bold", va="bottom")
                    wrote.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
        note(figure, *said)
        return save(figure, folder / "corruptions")


def _chosen(trained: Trained) -> list[int]:
    """Of each class the first image that is recognised; of images of two classes, the first ones that are."""
    right = torch.nonzero(~trained.wrong).flatten().tolist()
    first = {str(trained.labels[i].tolist()): i for i in reversed(right)}
    return sorted(first.values(), key=lambda i: str(trained.labels[i].tolist()))[:ACROSS]


def _texts(labels: Int[Tensor, "images *labels"]) -> list[str]:
    return [" ".join(map(str, each)) for each in labels.reshape(len(labels), -1).tolist()]
