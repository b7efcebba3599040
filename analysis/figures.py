"""What a trained network sees: the paper's figures 3 and 4 from the weights of a finished run, and the second as a film.

Each function takes a run and its test images, writes files that are the same to the byte on every build, and returns their
paths.
"""

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from analysis import pairs_figure
from analysis.corruptions_figure import corruptions
from analysis.pictures import ACROSS, examples_in_lines, mosaic, show, side
from analysis.routing_figure import routing
from analysis.style import COLUMN, LINE, note, save, style, wrapped
from analysis.trained import Trained
from analysis.wording import class_text, classes_text
from capsnet import test_sets
from capsnet.data import Data, Split
from capsnet.errors import InputError

FAILURES = 7  # shown at most; with those of ten classes that are recognised, they fill four lines
DELTAS = tuple(round(-0.25 + 0.05 * i, 2) for i in range(11))  # paper, figure 4
LABELLED = 6  # rows of figure 4 that a label beside them needs
FILM = (*range(5, 11), *range(9, -1, -1), *range(1, 5))  # of DELTAS: from 0 to the end, to the beginning, and back
FRAME = 100  # milliseconds
ORANGE = sns.color_palette("colorblind")[3]


def write(trained: Trained, data: Data, folder: Path, image: int | None = None) -> list[Path]:
    """All that can be made of the run: without a decoder, no reconstructions; without routing, no figure of that.

    Args:
        trained: the run.
        data: that it was trained and tested on.
        folder: to write to.
        image: number of the test image whose capsule is perturbed; None is the first that is recognised.

    Raises:
        InputError: its model has neither, or the data are others; or the image that is named isn't there, or can't be decoded.
    """
    trained.check_data(data)
    if image is not None:
        trained.check_decoder(data.test)
    pictures: list[Callable[[Trained, Split, Path], list[Path]]] = []
    if not trained.without_decoder:
        pictures += [reconstructions, partial(perturbations, image=image), partial(perturbation_gif, image=image)]
    pictures += [routing] if "routing" not in trained.config.network.unread else []
    pictures += [corruptions] if any(map(test_sets.alteration, trained.tested)) else []
    if not pictures:
        raise InputError(f"there is nothing to picture: {trained.without_decoder}, and no routing")
    return [path for make in pictures for path in make(trained, data.test, folder)]


def write_corruptions(trained: Trained, data: Data, folder: Path) -> list[Path]:
    """Of these figures the one of further test images alone.

    Raises:
        InputError: the data are not those of the run.
    """
    trained.check_data(data)
    return corruptions(trained, data.test, folder)


def reconstructions(trained: Trained, split: Split, folder: Path) -> list[Path]:
    """Figure 3: test images above their reconstructions, failures included (:func:`examples` says which).

    Of images with two labels it is figure 5 (:mod:`analysis.pairs_figure`).

    A column is headed (l, p, r): label, prediction, and the class whose capsule is reconstructed. A failure has two columns,
    one for its prediction and one for its label. A decoder that is fed all capsules (mask none) makes one image of each, and r
    is left out.

    Raises:
        InputError: the run has no decoder, or the images are not those that it was tested on.
    """
    if trained.config.facts.labels == 2:
        return pairs_figure.reconstructions(trained, split, folder)
    trained.check_decoder(split)
    labels, predictions = trained.labels.tolist(), trained.predictions.tolist()
    right, wrong = examples(labels, predictions)
    whole = trained.config.mask == "none"
    columns = [(i, labels[i]) for i in right]
    columns += [(i, r) for i in wrong for r in ([predictions[i]] if whole else [predictions[i], labels[i]])]

    named = [label for image, decoded in columns for label in (labels[image], predictions[image], decoded)]
    key = wrapped(classes_text(trained.config.dataset, named), COLUMN)
    heads = "(l, p): label, prediction; all capsules are decoded"
    heads = heads if whole else "(l, p, r): label, prediction, class whose capsule is decoded"
    with style():
        figure = examples_in_lines(
            columns,
            lambda line: _pair(trained, split, line),
            lambda column: f"({labels[column[0]]}, {predictions[column[0]]}" + (")" if whole else f", {column[1]})"),
            lambda column: ORANGE if column[0] in wrong else "black",
            tall=2 * side(split.images, ACROSS) + 0.25,
            foot=0.8 + LINE * len(key.splitlines()),
        )
        black = "black: of each class, its first image that is recognised"
        note(figure, heads, black, _failures(len(wrong), int(trained.wrong.sum()), len(split)), key, trained.title)
        return save(figure, folder / "reconstructions")


def examples(labels: Sequence[int], predictions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Which images to show: of each class the first that is recognised, and ``FAILURES`` of those that are not.

    These are evenly spread from the first to the last: of a test set that is ordered by class the first would be of one.
    """
    right: dict[int, int] = {}
    wrong = []
    for i, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        if label == prediction:
            right.setdefault(label, i)
        else:
            wrong.append(i)
    if len(wrong) > FAILURES:
        wrong = [wrong[round(i * (len(wrong) - 1) / (FAILURES - 1))] for i in range(FAILURES)]
    return [right[label] for label in sorted(right)], wrong


def perturbations(trained: Trained, split: Split, folder: Path, image: int | None = None) -> list[Path]:
    """Figure 4: what is reconstructed of one image when one number of its longest capsule is changed; a row per dimension.

    Of two digits it is the longer capsule of the two that were answered, and the other digit is not drawn.

    Args:
        trained: the run.
        split: its test images.
        folder: to write to.
        image: number of the test image; None is the first that is recognised.

    Raises:
        InputError: the run has no decoder, the images are not those that it was tested on, or there is no such image.
    """
    image = _image(trained, split, image)
    rows, capsule = perturbed(trained, split, image), longest(trained, split, image)
    with style():
        figure = Figure(figsize=(COLUMN, side(split.images, len(DELTAS)) * (len(rows) + 1) + 1.05), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[1, len(rows)])
        pair = _pair(trained, split, [(image, capsule)]).movedim(0, 1)
        blank = pair.new_ones(1, len(DELTAS) - 2, *pair.shape[2:])
        show(above, torch.cat([pair, blank], dim=1))
        _text(above, _of_image(trained, image, capsule), 2)
        show(below, rows, [_signed(delta) for delta in DELTAS], range(1, len(rows) + 1), rotation=90)
        if len(rows) < LABELLED:
            below.set_title(f"added to one dimension, a row, of the capsule of class {_called(trained, capsule)}")
        else:
            below.set_ylabel(f"dimension of the capsule of class {_called(trained, capsule)}")
            below.set_title("added to one dimension")
        beside = ["all other capsules are decoded, too, as they are"] if trained.config.mask == "none" else []
        note(figure, *beside, trained.title)
        return save(figure, folder / "perturbations")


def perturbation_gif(trained: Trained, split: Split, folder: Path, image: int | None = None) -> list[Path]:
    """Figure 4 as a film: a tile per dimension, to which each frame adds a number, forth and back.

    Arguments and errors are those of :func:`perturbations`.
    """
    image = _image(trained, split, image)
    rows = perturbed(trained, split, image)
    dims, across = len(rows), int(np.ceil(np.sqrt(len(rows))))
    blank = rows.new_ones(-dims % across, *rows.shape[1:])
    tiles = torch.cat([rows, blank]).unflatten(0, (-1, across))  # [down, across, deltas, channels, height, width]
    with style():
        figure = Figure(figsize=(COLUMN, side(split.images, across) * len(tiles) + 0.85), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[20, 1])
        starts = range(1, dims + 1, across)
        show(above, tiles[:, :, 0], sides=[f"{start}–{min(start + across - 1, dims)}" for start in starts])
        above.set_ylabel("dimensions")
        above.set_title(f"test image {image}, capsule of class {_called(trained, longest(trained, split, image))}")
        [slider] = below.plot([0], [0], "D", color="black", clip_on=False)
        below.set(xlim=(DELTAS[0], DELTAS[-1]), xticks=[DELTAS[0], 0, DELTAS[-1]], yticks=[], xlabel="added")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # nothing is to move from frame to frame
        frames = []
        for i in FILM:
            above.images[0].set_data(mosaic(tiles[:, :, i]))
            slider.set_xdata([DELTAS[i]])
            below.set_xlabel(f"added to each dimension alone: {_signed(DELTAS[i])}")
            drawn = BytesIO()
            figure.savefig(drawn, format="png", dpi=100)
            frames.append(Image.open(drawn).convert("L").point(lambda grey: round(grey / 15) * 15))
    path = folder / "perturbation.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME, loop=0)
    return [path]


def perturbed(trained: Trained, split: Split, image: int) -> Float[Tensor, "dims deltas channels height width"]:
    """What is reconstructed of one image's longest capsule, with each of ``DELTAS`` added to each of its numbers alone."""
    label = longest(trained, split, image)
    with torch.inference_mode():
        capsules = trained.network.encode(split.batch(slice(image, image + 1)))
        dims = capsules.shape[2]
        changed = capsules.repeat(dims * len(DELTAS), 1, 1)
        changed[:, label] += (torch.eye(dims)[:, None] * torch.tensor(DELTAS)[:, None]).flatten(0, 1)
        pictures = trained.network.reconstruct(changed, torch.full((len(changed),), label))
    return pictures.unflatten(0, (dims, len(DELTAS)))


def longest(trained: Trained, split: Split, image: int) -> int:
    """The class of an image's longest capsule among those that the run answered."""
    answers = trained.predictions[image].reshape(-1)
    if len(answers) == 1:
        return int(answers)
    with torch.inference_mode():
        scores = trained.network.scores(split.batch(slice(image, image + 1)))[0]
    return int(answers[scores[answers].argmax()])


def _of_image(trained: Trained, image: int, capsule: int) -> str:
    told = (trained.labels[image], trained.predictions[image])
    label, prediction = (" and ".join(map(partial(_called, trained), classes.reshape(-1).tolist())) for classes in told)
    if trained.labels.ndim == 1:
        return f"test image {image} and its reconstruction:\nlabel {label}, prediction {prediction}"
    return (
        f"test image {image} and its capsule of {_called(trained, capsule)}, decoded:\nlabels {label}, prediction {prediction}"
    )


def _called(trained: Trained, label: int) -> str:
    return class_text(trained.config.dataset, label)


def _pair(
    trained: Trained, split: Split, columns: Sequence[tuple[int, int]]
) -> Float[Tensor, "2 columns channels height width"]:
    """Images above their reconstructions, of (number of the image, class whose capsule is reconstructed)."""
    index, classes = torch.tensor(columns).T
    inputs = split.batch(index)
    with torch.inference_mode():
        return torch.stack([inputs, trained.network.reconstruct(trained.network.encode(inputs), classes)])


def _failures(shown: int, failures: int, images: int) -> str:
    if not failures:
        return f"no failure in {images:,} test images"
    if shown == failures:
        return f"orange: every failure ({failures}) in {images:,} test images"
    return f"orange: {shown} of {failures:,} failures in {images:,} test images, evenly spread"


def _image(trained: Trained, split: Split, image: int | None) -> int:
    """The number of the image to show, found to be there."""
    trained.check_decoder(split)
    if image is None:
        return int((~trained.wrong).byte().argmax())  # 0 if none is recognised
    if not 0 <= image < len(split):
        raise InputError(f"there is no test image {image} of {trained.config.dataset}: choose 0 to {len(split) - 1}")
    return image


def _signed(delta: float) -> str:
    return f"{delta:+.2f}".replace("-", "−") if delta else "0"


def _text(panel: Axes, text: str, tiles: int) -> None:
    """Write beside so many tiles of a panel that is as wide as those of ``DELTAS``."""
    panel.annotate(text, ((tiles + 0.2) / len(DELTAS), 0.5), xycoords="axes fraction", fontsize=7, va="center")
