"""``python -m analysis figures``: pictures of what one network learned, on disk and in its run in MLflow."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.places import folder_name
from capsnet import terminal, test_sets
from capsnet.errors import InputError

if TYPE_CHECKING:  # it takes seconds
    from analysis.trained import Trained
    from capsnet.data import Data
    from experiments.record import TrackedRun
    from experiments.tracking import Store

PROG = "python -m analysis figures"
DESCRIPTION = """Make the figures of one trained network, and log them to its run in MLflow.

Reconstructions (the paper's figure 3; of two digits figure 5), perturbations (figure 4, and as a GIF), what routing does, dead
capsules, and corrupted or attacked images that it was tested on. A network without a decoder has only the last three.

Example: python -m analysis figures 0123abcd"""
SHORT = 8  # characters of a run's id that name its folder
ARTIFACTS = "figures"  # the folder of the run's artifacts in MLflow


@dataclass(frozen=True)
class Figures:
    """Make the figures of one trained network.

    Example: python -m analysis figures 0123abcd
    """

    run_id: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="RUN_ID",
            help="of a finished run, or its first characters",
            help_behavior_hint="(default: of each data set the run of the lowest validation error that has a decoder)",
        ),
    ] = ""
    experiment: Annotated[
        str,
        tyro.conf.arg(metavar="NAME", help="whose best run is taken", help_behavior_hint="(default: the one launched last)"),
    ] = ""
    image: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="NUMBER",
            help="test image whose capsule figure 4 perturbs",
            help_behavior_hint="(default: the first that is recognised)",
        ),
    ] = None
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    mlruns: Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")] = Path("mlruns")
    results: Annotated[Path, tyro.conf.arg(metavar="DIR", help="figures go to its subfolder EXPERIMENT/figures/RUN_ID")] = Path(
        "results"
    )


def main(command: Figures) -> int:
    """Make the figures of the run, log them to it, and say where they are."""
    from analysis import figures
    from analysis.trained import choose_all
    from capsnet.data import default_folder

    for store, run in choose_all(command.run_id, command.experiment, command.mlruns):
        folder = command.results / folder_name(store.name)
        try:
            paths = _drawn(store, run, command.data or default_folder(), folder, partial(figures.write, image=command.image))
        except OSError as error:
            raise InputError(f"the figures can't be written to {folder}: {error}; --results names another folder") from None
        for path in paths:
            terminal.say(path)
        terminal.say(f"In MLflow they are artifacts of run {run.run_id}, in the folder {ARTIFACTS}.")
    return 0


def make(run_id: str, mlruns: Path, data: Path, results: Path) -> list[Path]:
    """The figures of a finished run as part of an experiment's results; those that are there already are left as they are.

    That of altered images is drawn anew: the run may have been tested on more since.

    Args:
        run_id: of a finished run.
        mlruns: folder of the tracking database.
        data: folder of the data sets.
        results: folder of the experiment's results.

    Raises:
        InputError: the run's files or its data set are gone.
    """
    from analysis import figures
    from analysis.trained import tested
    from experiments import catalog

    store, run = catalog.holding(run_id, mlruns)
    there = sorted(_place(results, run_id).glob("[!.]*"))
    if not there:
        return _drawn(store, run, data, results, figures.write)
    if not any(map(test_sets.alteration, tested(run))):
        return there
    return sorted({*there, *_drawn(store, run, data, results, figures.write_corruptions)})


def _place(results: Path, run_id: str) -> Path:
    return results / "figures" / run_id[:SHORT]


def _drawn(
    store: "Store", run: "TrackedRun", data: Path, results: Path, write: "Callable[[Trained, Data, Path], list[Path]]"
) -> list[Path]:
    """What is written of the run, drawn and logged: all or nothing, so that figures that are there are whole."""
    import torch

    from analysis.trained import Trained
    from capsnet.data import read

    with TemporaryDirectory() as fetched:
        trained = Trained.load(store, run, Path(fetched))
    found = read(trained.config, data, torch.device("cpu"))
    terminal.say(trained.title)
    folder = _place(results, run.run_id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".") as drawn:
        with terminal.console.status(
            "drawing; to follow routing on all test images takes a CPU minutes for the full-size network"
        ):
            paths = write(trained, found, Path(drawn))
        log(store, run.run_id, paths)  # first, or what is here already would be taken for what MLflow has, too
        folder.mkdir(exist_ok=True)
        paths = [path.replace(folder / path.name) for path in paths]
    if trained.without_decoder:
        terminal.warn("no reconstructions", trained.without_decoder)
    return paths


def log(store: "Store", run_id: str, paths: Sequence[Path]) -> None:
    """Keep the files as artifacts of the run, where MLflow's user interface shows them; those of the same name are replaced.

    Raises:
        InputError: the tracking store has gone away.
    """
    from experiments.client import answering

    with answering(store.uri), TemporaryDirectory() as folder:
        for path in paths:
            shutil.copy(path, folder)
        store.attach(run_id, Path(folder), ARTIFACTS)
