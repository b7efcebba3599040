"""A made-up experiment with all that a report may meet, and a tracking store of it that is none."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from analysis.runs import Runs
from experiments.sources import parse_grid
from tests.analysis.conftest import QUICK, QUICK_BASE, row

YAML = """\
description: |
  Does routing pay?

  It should.
base: {epochs: 8}
axes:
  routing_iterations: [1, 3]
seeds: 3
"""


@dataclass
class Shelf:
    """What a report asks of a store; an ``away`` one is counted when it is asked, and raises."""

    uri: str = "sqlite:////somewhere/mlflow.db"
    experiment_id: str = "7"
    texts: dict[str, str] = field(default_factory=lambda: {"quick": YAML})
    metrics: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict)
    data: tuple[str, str] = ("digits", "9f74" * 16)
    away: bool = False
    asked: int = 0
    kept: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def shown(self) -> str:
        from experiments import stores

        return stores.shown(self.uri)

    def answers(self) -> bool:
        return not self.away

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise ConnectionError(f"no answer from {self.uri}")

    def parents(self) -> Iterator[tuple[str, str]]:
        self._ask()
        yield from ((f"parent-{name}", name) for name in self.texts)

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        self._ask()
        return self.metrics.get((run_id, name), [])

    def attach(self, run_id: str, folder: Path, name: str) -> None:
        self._ask()
        self.kept += [(run_id, f"{name}/{file.name}", file.read_bytes()) for file in sorted(folder.iterdir())]


def quick() -> pd.DataFrame:
    """The runs of the fixture of that name, but for tests that share one report."""
    errors = np.random.default_rng(0).integers(5, 22, 36) * 100 / 360
    products = enumerate(itertools.product(*QUICK.values(), range(3)))
    rows = [
        row("quick", n, {**QUICK_BASE, **dict(zip([*QUICK, "seed"], v, strict=True))}, round(errors[n], 4)) for n, v in products
    ]
    return pd.DataFrame(rows)


def made(
    runs: pd.DataFrame,
    store: Shelf | None = None,
    strangers: dict[str, str] | None = None,
    repeated: int = 0,
) -> Runs:
    """Runs as they are read from a store."""
    runs = runs.assign(hardware="2 cores", versions="torch 2.15", parameters=7.0) if "hardware" not in runs else runs
    shelves: Any = {name: store or Shelf() for name in sorted(runs["experiment"].unique())}
    grids = {
        name: [parse_grid(*pair, "") for pair in ((t, g) for g, t in shelf.texts.items())] for name, shelf in shelves.items()
    }
    began = runs[runs["run_id"].notna()]
    data = {run: [shelves[name].data] for run, name in zip(began["run_id"], began["experiment"], strict=True)}
    return Runs(shelves, runs, strangers or {}, repeated, grids, data)


def failed(runs: pd.DataFrame, place: int, outcome: str, reason: str | None = None) -> None:
    """Let a run have no result: ``killed``, ``planned``, or else that failure."""
    status = outcome if outcome in ("killed", "planned", "running") else "failed"
    for column in ("failure", "reason", "run_id", "git_commit"):
        runs[column] = runs[column].astype(object)
    runs.loc[place, ["test_error", "validation_error", "seconds"]] = math.nan
    runs.loc[place, "status"] = status
    runs.loc[place, ["failure", "reason"]] = [outcome if status == "failed" else None, reason]
    if status == "planned":
        runs.loc[place, ["run_id", "git_commit"]] = None
        runs.loc[place, "ended"] = pd.NaT


def drawn(folder: Path) -> list[Path]:
    """A figure, a moving one, a PDF, and a file that only says that it is a figure."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "test_error_by_axis.png", dpi=(200, 200))
    frames = [Image.new("RGB", (40, 40), "white") for _ in range(3)]
    for number, frame in enumerate(frames):
        ImageDraw.Draw(frame).rectangle([10 * number, 10, 10 * number + 8, 30], fill="black")
    frames[0].save(folder / "perturbation.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    (folder / "test_error_by_axis.pdf").write_bytes(b"%PDF")
    (folder / "torn.png").write_bytes(b"\x89PNG")
    return sorted(folder.iterdir())
