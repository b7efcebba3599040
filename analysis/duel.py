"""``python -m analysis compare``: two finished runs on the same test images, by McNemar's test."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import tyro

from capsnet import terminal
from capsnet.errors import InputError

if TYPE_CHECKING:  # it takes seconds
    from numpy import ndarray

PROG = "python -m analysis compare"
DESCRIPTION = """Compare two finished runs, image by image, by McNemar's exact test of their stored test predictions.

It asks whether these two networks differ, not whether two settings do: for that, compare cells over seeds.

Example: python -m analysis compare 0123abcd 4567cdef"""


@dataclass(frozen=True)
class Compare:
    """The flags of ``python -m analysis compare``."""

    first: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_ID", help="of a finished run, or its first characters")
    ]
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OTHER_ID", help="of the run to compare it with")]
    mlruns: Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")] = Path("mlruns")


def main(command: Compare) -> int:
    """Print how many images each run alone gets wrong, and what chance would make of it."""
    from analysis.image_statistics import mcnemar
    from analysis.predictions import wrong as wrong_of
    from analysis.wording import p_text

    (name, tested, first), (other, elsewhere, second) = (
        _answers(run_id, command.mlruns) for run_id in (command.first, command.second)
    )
    labels, unlike = first["labels"], [pair for pair in zip(tested, elsewhere, strict=True) if all(pair) and len(set(pair)) > 1]
    if unlike or labels.shape != second["labels"].shape or (labels != second["labels"]).any():
        on = f" ({unlike[0][0]} and {unlike[0][1]})" if unlike else ""
        raise InputError(f"runs {name} and {other} were tested on different images{on}, so they can't be compared by image")
    wrong = [wrong_of(answers["predictions"], labels) for answers in (first, second)]
    made = mcnemar(*wrong)
    for run_id, errors in zip((name, other), wrong, strict=True):
        terminal.say(f"run {run_id}: {errors.sum()} of {len(labels)} test images wrong ({100 * errors.mean():.2f} %)")
    terminal.say(
        f"wrong in the first alone: {made.only_first}; in the second alone: {made.only_second}; "
        f"in both: {int((wrong[0] & wrong[1]).sum())}"
    )
    p = p_text(made.p)
    terminal.say(f"McNemar's exact test: p {p.replace('<', '< ') if '<' in p else f'= {p}'}")
    return 0


def _answers(run_id: str, folder: Path) -> "tuple[str, tuple[str, str], Mapping[str, ndarray]]":
    """A run's id; the name of its data set, and what is known of its SHA-256; its labels and predictions.

    Labels alone don't tell images apart: those of mnist_40 are mnist's.

    Raises:
        InputError: there is no such finished run, or its predictions are gone.
    """
    from analysis.predictions import load
    from experiments import catalog

    store, run = catalog.holding(run_id, folder)
    digest = run.data[0][1] if run.data else ""
    with TemporaryDirectory() as fetched:
        answers = load(store, run.run_id, Path(fetched))
    return run.run_id, (run.params["dataset"], digest and f"SHA-256 {digest}"), answers
