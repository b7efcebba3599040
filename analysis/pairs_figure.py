"""Figure 5 of the paper: two overlapping digits, and what the decoder makes of two capsules, each in a colour of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analysis.pictures import ACROSS, examples_in_lines, side
from analysis.style import COLOURS, note, save, style
from analysis.trained import Trained
from analysis.wording import classes_text
from capsnet.data import Split

RIGHT, ABSENT, WRONG = 10, 2, 6  # pairs that are shown at most: two lines, and two more
FIRST, SECOND = (1.0, 0.55, 0.0), (0.0, 0.45, 1.0)  # orange and blue, which everybody tells apart, and together are white
RED = COLOURS[3]


@dataclass(frozen=True)
class Column:
    """A test image, and the two classes whose capsules are reconstructed.

    Attributes:
        image: its number.
        classes: those reconstructed, R.
        mark: empty; P: they are the prediction, which is wrong; *: the second is neither label nor prediction.
        wrong: whether the pair was.
    """

    image: int
    classes: tuple[int, int]
    mark: str = ""
    wrong: bool = False

    def head(self, labels: tuple[int, int]) -> str:
        """As in the paper: ``R:(2, 7)`` above ``L:(2, 7)``, ``R:P:`` for a prediction, ``*R:`` for a digit not there."""
        start = {"": "R:", "P": "R:P:", "*": "*R:"}[self.mark]
        return f"{start}({self.classes[0]},{self.classes[1]})\nL:({labels[0]},{labels[1]})"


def reconstructions(trained: Trained, split: Split, folder: Path) -> list[Path]:
    """Test pairs above the reconstructions of two capsules, overlaid; :func:`columns` says which.

    Raises:
        InputError: the run has no decoder, or the images are not those that it was tested on.
    """
    trained.check_decoder(split)
    chosen = columns(trained, split)
    with style():
        figure = examples_in_lines(
            chosen,
            lambda line: _drawn(trained, split, line),
            lambda column: column.head(_pair(trained.labels[column.image])),
            lambda column: RED if column.wrong else "black",
            tall=2 * side(split.images, ACROSS) + 0.38,
            foot=1.5,
        )
        note(figure, *_notes(trained, chosen))
        return save(figure, folder / "reconstructions")


def columns(trained: Trained, split: Split) -> list[Column]:
    """Which pairs to show, and what of them.

    Of each class, the first pair that is recognised and has it as its first label, from its labels; the first ``ABSENT`` of
    these again, with the longest of the capsules that are neither label in place of the second label's; and the first
    ``WRONG`` pairs that are not recognised, each from its labels and from its prediction.
    """
    labels, wrong = trained.labels, trained.wrong
    right: dict[int, int] = {}
    for image in torch.nonzero(~wrong)[:, 0].tolist():
        right.setdefault(int(labels[image, 0]), image)
    shown = [right[first] for first in sorted(right)][:RIGHT]
    found = [Column(image, _pair(labels[image])) for image in shown]
    found += [Column(i, (int(labels[i, 0]), _longest_absent(trained, split, i)), "*") for i in shown[:ABSENT]]
    for image in torch.nonzero(wrong)[:WRONG, 0].tolist():
        found.append(Column(image, _pair(labels[image]), wrong=True))
        found.append(Column(image, _beside(labels[image], trained.predictions[image]), "P", wrong=True))
    return found


def overlaid(
    digits: Float[Tensor, "count 2 1 height width"],
) -> Float[Tensor, "count 3 height width"]:
    """Two grey pictures in [0, 1] as one in colours: the first orange, the second blue, their light added: together white."""
    colours = torch.tensor([FIRST, SECOND], dtype=digits.dtype)
    return torch.einsum("nkhw,kc->nchw", digits[:, :, 0], colours).clamp(0, 1)


def _drawn(trained: Trained, split: Split, line: Sequence[Column]) -> Float[Tensor, "2 columns 3 height width"]:
    """Images above the overlaid reconstructions."""
    inputs = split.batch(torch.tensor([column.image for column in line]))
    classes = torch.tensor([column.classes for column in line])
    with torch.inference_mode():
        capsules = trained.network.encode(inputs)
        digits = torch.stack([trained.network.reconstruct(capsules, classes[:, i]) for i in range(2)], dim=1)
    return torch.stack([inputs.expand(-1, 3, -1, -1), overlaid(digits)])


def _longest_absent(trained: Trained, split: Split, image: int) -> int:
    """The class with the longest capsule among those that are neither label nor prediction of an image."""
    with torch.inference_mode():
        scores = trained.network.scores(split.batch(slice(image, image + 1)))[0]
    there = torch.cat([trained.labels[image], trained.predictions[image]])
    return int(scores.index_fill(0, there, -1.0).argmax())


def _beside(labels: Int[Tensor, " 2"], answer: Int[Tensor, " 2"]) -> tuple[int, int]:
    """The two answers in the order of the labels that they hit, so that a digit keeps its colour."""
    first, second = _pair(answer)
    swapped = first == int(labels[1]) or second == int(labels[0])
    return (second, first) if swapped else (first, second)


def _pair(values: Int[Tensor, " 2"]) -> tuple[int, int]:
    first, second = values.tolist()
    return first, second


def _notes(trained: Trained, chosen: Sequence[Column]) -> list[str]:
    wrong: Bool[Tensor, " images"] = trained.wrong
    failures, images = int(wrong.sum()), len(wrong)
    shown = sum(column.mark == "P" for column in chosen)
    said = ["L: the labels; R: the classes whose capsules are decoded, each alone: the first in orange, the second in blue"]
    said.append("where both are bright, their light adds up to white")
    if failures < images:
        said.append("black: of each class, the first pair that is recognised and has it as first label")
    else:
        said.append(f"no pair of {images:,} is recognised")
    if any(column.mark == "*" for column in chosen):
        said.append("*: the second is neither label nor prediction, but the longest capsule of all others")
    if failures:
        which = f"the first {shown} of {failures:,} pairs" if shown < failures else f"every pair ({failures})"
        said.append(f"red: {which} of {images:,} that are not recognised, decoded from the labels and from the prediction (P)")
    else:
        said.append(f"all {images:,} pairs are recognised")
    named = [label for column in chosen for label in (*column.classes, *_pair(trained.labels[column.image]))]
    return [*said, classes_text(trained.config.dataset, named), trained.title]
