"""Figures for a page that holds all it shows: the images themselves as text, with their captions."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

TYPES = {".png": "image/png", ".gif": "image/gif"}
ZOOM = 130 / 96  # a figure's inch on the screen: its letters of 7 pt are to be read without a magnifying glass

CAPTIONS = {
    "test_error_by_cell": "Test error of each cell: its runs, their mean and its intervals.",
    "test_error_by_axis": "Test error by the values of each axis: the runs, their mean and its interval over seeds.",
    "main_effects": "Main effect of each value of each axis, in points of test error.",
    "interactions": "Interactions: what both axes' main effects leave of a pair's mean, in points of test error.",
    "heat_map": "Mean test error by the values of two axes.",
    "error_by_corruption": "Test error by how much images are corrupted or attacked: means over seeds, and their intervals.",
    "error_by_epoch": "Error by epoch: means over seeds, and their range.",
    "loss_by_epoch": "Training losses by epoch: means over seeds, and their range.",
    "learning_rate_by_step": "The learning rate that each schedule gave.",
    "confusion": "Which class is taken for which.",
    "mistaken_images": "The test images that most runs get wrong, and their most frequent answers.",
    "reconstructions": "Test images above what the decoder makes of their class capsules.",
    "perturbations": "What the decoder draws when one dimension of a class capsule is changed.",
    "perturbation": "What the decoder draws while each dimension of a class capsule is changed.",
    "corruptions": "Test images as they are, corrupted or attacked as the network was tested, and what it takes them for.",
    "routing": "What routing does in a trained network, pass by pass.",
    "history": "The trials of the search in their order, and the best value so far.",
    "importances": "How much of the objective each parameter explains.",
    "parallel_coordinates": "The trials as lines through their parameters.",
    "slice": "The objective by each parameter.",
    "pareto_front": "The trials by their objectives, and those that none beats in all of them.",
}
"""Stem of a figure's file -> what it shows, in the order of a report."""


@dataclass(frozen=True)
class Illustration:
    """A figure, ready for a page.

    Attributes:
        caption: what it shows.
        alternative: the same in a few words, for who can't see it.
        source: the image as a ``data:`` address.
        still: the first image of a moving one, for who wants no motion; empty if nothing moves.
        width: on the screen, in CSS pixels, as is the height.
    """

    caption: str
    alternative: str
    source: str
    still: str
    width: int
    height: int


def illustrate(paths: Iterable[Path]) -> tuple[list[Illustration], list[str]]:
    """The images among the files, in the order of CAPTIONS and then by name, and which can't be read.

    Any other file, such as a PDF of the same figure, is left out.
    """
    found: list[Illustration] = []
    faults: list[str] = []
    for path in sorted({path for path in paths if path.suffix.lower() in TYPES}, key=_place):
        try:
            found.append(_illustration(path))
        except OSError as error:
            faults.append(f"the figure {path.name} can't be read: {error.strerror or 'it is no image'}")
    return found, faults


def _illustration(path: Path) -> Illustration:
    data = path.read_bytes()
    with Image.open(BytesIO(data)) as image:
        dpi = image.info.get("dpi", (96 * ZOOM,))[0]
        width, height = (round(size / dpi * 96 * ZOOM) for size in image.size)
        still = _address(_first(image), "image/png") if getattr(image, "is_animated", False) else ""
    stem, part = _stem(path)
    title = stem.replace("_", " ")
    caption = CAPTIONS.get(stem, f"{title.capitalize()}.")
    if part:
        caption += f" Page {part}." if part.isdecimal() else f" Objective: {part.replace('_', ' ')}."
    if path.parent.parent.name == "figures":  # of one run, whose id its folder has
        caption += f" Run {path.parent.name}."
    return Illustration(caption, f"Figure: {title}", _address(data, TYPES[path.suffix.lower()]), still, width, height)


def _stem(path: Path) -> tuple[str, str]:
    """The figure's name, and which page of it this is, or which of a search's objectives it shows, if there are several."""
    stem, _, part = path.stem.partition("-")
    return (stem, part) if stem in CAPTIONS else (path.stem, "")


def _place(path: Path) -> tuple[int, str, int, str]:
    """Where a figure stands: in the order of CAPTIONS, page by page, and after them by name."""
    stem, part = _stem(path)
    place = list(CAPTIONS).index(stem) if stem in CAPTIONS else len(CAPTIONS)
    return place, stem, int(part) if part.isdecimal() else 0, str(path)


def _first(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
