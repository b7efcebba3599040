"""The flags of python -m experiments, command by command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from capsnet import cli, test_sets

GRIDS = "a shipped grid (quick, mnist-small, paper, ...) or a .yaml file"
UNNAMED = "(default: {} on a CUDA device, quick without one)"
GridName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GRID", help=GRIDS)]
Experiment = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME", help="MLflow experiment", help_behavior_hint="(default: the grid's name; of a search, NAME-search)"
    ),
]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR", help="folder of the tracking database and artifacts")]


@dataclass(frozen=True)
class Plan:
    """List the cells of a grid, what is known of their runs, and what the rest will cost; starts nothing.

    Example: python -m experiments plan paper
    """

    grid: GridName
    experiment: Experiment = ""
    workers: Annotated[int, tyro.conf.arg(help="runs at once, for the predicted time; 0 = one after the other")] = 0
    mlruns: Folder = Path("mlruns")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What every launch is told of the machine and of MLflow."""

    experiment: Experiment = ""
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    device: Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")] = "auto"
    workers: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N", help="runs at once; 0 = in this process, run after run", help_behavior_hint="(default: what suits)"
        ),
    ] = None
    gpus_per_run: Annotated[float, tyro.conf.arg(help="share of a GPU for each run; 0.25 packs four on one")] = 1.0
    compile: Annotated[str, tyro.conf.arg(help=cli.COMPILE)] = "auto"
    graph: Annotated[str, tyro.conf.arg(help=cli.GRAPH)] = "auto"
    address: Annotated[
        str, tyro.conf.arg(metavar="HOST:PORT", help="a Ray cluster", help_behavior_hint="(default: this machine)")
    ] = ""
    wait: Annotated[bool, tyro.conf.arg(help="wait for another launch of the same to end, instead of refusing")] = False
    checkpoint_every: Annotated[
        float, tyro.conf.arg(help="seconds from one checkpoint of a run to the next, at the end of an epoch; 0 = every epoch")
    ] = 60.0
    mlruns: Folder = Path("mlruns")


@dataclass(frozen=True)
class Run(Launch):
    """Train every config of a grid that is not finished yet.

    Example: python -m experiments run quick
    """

    grid: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="GRID", help=GRIDS, help_behavior_hint=UNNAMED.format("paper"))
    ] = ""
    shard: Annotated[
        str, tyro.conf.arg(metavar="I/N", help="the I-th part of N, for job arrays", help_behavior_hint="(default: all)")
    ] = ""
    retry_failed: Annotated[bool, tyro.conf.arg(help="train configs that diverged again")] = False
    fresh: Annotated[bool, tyro.conf.arg(help="train what other code trained again")] = False


@dataclass(frozen=True)
class Search(Launch):
    """Find good settings with Optuna, and confirm the best on fresh seeds.

    Example: python -m experiments search quick
    """

    search: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="SEARCH",
            help="a shipped search (quick, mnist) or a .yaml file",
            help_behavior_hint=UNNAMED.format("mnist"),
        ),
    ] = ""
    storage: Annotated[
        str,
        tyro.conf.arg(
            metavar="URL",
            help="database of studies, such as postgresql://USER@HOST/optuna with the password in ~/.pgpass",
            help_behavior_hint="(default: OPTUNA_STORAGE, or optuna.db in the folder of --mlruns)",
        ),
    ] = ""


@dataclass(frozen=True)
class Sync:
    """Tell MLflow what it missed while it was away; starts nothing.

    Example: python -m experiments sync
    """

    mlruns: Folder = Path("mlruns")


@dataclass(frozen=True)
class Test:
    """Test the finished networks of an experiment on further test sets; trains nothing.

    Example: python -m experiments test quick --test-sets rotated_30 noisy_20
    """

    experiment: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help="MLflow experiment")]
    test_sets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME", help=test_sets.listed())]
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="folder of the data sets", help_behavior_hint="(CAPSNET_DATA, or data)")
    ] = None
    device: Annotated[str, tyro.conf.arg(help="auto, cpu, cuda or cuda:N")] = "auto"
    mlruns: Folder = Path("mlruns")
