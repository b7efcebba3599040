"""A finished run with what it left behind: its network and its answers on the test set. And which run is the best."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from analysis.fields import text_of
from analysis.runs import read_runs
from capsnet.answers import wrong
from capsnet.config import FIELDS, RunConfig
from capsnet.data import Data, Split
from capsnet.errors import InputError
from capsnet.models import Network, restored
from capsnet.program import export
from experiments.journal import FILES
from experiments.record import COMMIT, further_sets

if TYPE_CHECKING:  # both take seconds
    import pandas as pd

    from experiments.record import TrackedRun
    from experiments.tracking import Store


@dataclass(frozen=True)
class Trained:
    """A finished run, on the CPU.

    Attributes:
        run_id: in MLflow.
        config: of the run.
        network: with the weights that the run ended with.
        labels: of the test images, in the order of the test set; of two labels both, the first digit's first.
        predictions: what the run answered when it was tested: the class of the longest capsule, or of the two longest.
        digest: SHA-256 of the data set that it was trained and tested on; empty if that is not known.
        tested: further test sets that it was tested on, whenever that was.
    """

    run_id: str
    config: RunConfig
    network: Network
    labels: Int[Tensor, "images *labels"]
    predictions: Int[Tensor, "images *labels"]
    digest: str = ""
    tested: tuple[str, ...] = ()

    @classmethod
    def load(cls, store: "Store", run: "TrackedRun", folder: Path) -> "Trained":
        """Read the run's files, which are copied or fetched into ``folder``.

        Raises:
            MissingError: the run has no such files, or none any more.
            InputError: they are damaged, or of another version of the network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config = run.config
        except InputError as error:
            raise InputError(f"run {run.run_id} is of another version of this program: {error}") from None
        weights, answers = (store.artifact(run.run_id, name, folder) for name in FILES)
        try:
            network, told = restored(config, weights), load_file(answers)
        except SafetensorError as error:
            raise InputError(f"the predictions of run {run.run_id} are damaged: {error}") from None
        except InputError as error:
            raise InputError(f"run {run.run_id}: {error}; commit {run.tags.get(COMMIT, 'unknown')} trained it") from None
        digest = run.data[0][1] if run.data else ""
        return cls(run.run_id, config, network.eval(), told["labels"], told["predictions"], digest, tested(run))

    def check_data(self, data: Data) -> None:
        """Raise an InputError if it is another edition of the data set than the run's: its pixels are not what the run saw."""
        if self.digest not in ("", data.digest):
            raise InputError(
                f"run {self.run_id} is of {self.config.dataset} of SHA-256 {self.digest[:16]}, and the files there now "
                f"have {data.digest[:16]}; --data names the folder of those it was trained with"
            )

    def check(self, split: Split) -> None:
        """Raise an InputError if the images are not those that the run was tested on, as far as labels tell."""
        if not torch.equal(self.labels, split.labels):
            raise InputError(
                f"run {self.run_id} was tested on {len(self.labels)} images of {self.config.dataset}, and these {len(split)} "
                "have other labels; --data names the folder of those it was trained with"
            )

    def check_decoder(self, split: Split) -> None:
        """Raise an InputError if there is no decoder, too."""
        self.check(split)
        if why := self.without_decoder:
            raise InputError(f"{why}; its routing can be shown, and a run with reconstruction_weight above 0 in full")

    def export(self, path: Path) -> None:
        """Write the network as a program that needs none of this code; :func:`capsnet.program.export` says how it is called."""
        export(self.network, self.config.shape, path)

    @property
    def wrong(self) -> Bool[Tensor, " images"]:
        """Which test images it got wrong; of two labels, where it didn't find both."""
        return wrong(self.predictions, self.labels)

    @property
    def title(self) -> str:
        """What a caption needs to say of the run: ``run 0123abcd: mnist, routing dynamic, r = 3, ...``."""
        config = self.config
        error = 100 * self.wrong.sum().item() / len(self.wrong)
        unread, parts = config.network.unread, [config.dataset]
        routed = f"{config.routing} routing, r = {config.routing_iterations}"
        parts.append(f"model {config.model}" if "routing" in unread else routed)
        if "reconstruction_weight" not in unread:
            parts.append(f"reconstruction weight {text_of(config.reconstruction_weight)}")
        return f"run {self.run_id[:8]}: {', '.join(parts)}, test error {error:.2f} %"

    @property
    def without_decoder(self) -> str:
        """Why there is nothing to reconstruct with; empty if there is a decoder."""
        if self.network.decoder is not None:
            return ""
        if "reconstruction_weight" in self.config.network.unread:
            return f"run {self.run_id} is of model {self.config.model}, which has no decoder"
        return f"run {self.run_id} was trained without reconstruction (reconstruction_weight 0), so it has no decoder"


def tested(run: "TrackedRun") -> tuple[str, ...]:
    """The further test sets that a run was tested on, whenever that was."""
    return tuple(further_sets(run.metrics))


def choose(run_id: str, experiment: str, folder: Path) -> "tuple[Store, TrackedRun]":
    """The first of :func:`choose_all`."""
    return choose_all(run_id, experiment, folder)[0]


def choose_all(run_id: str, experiment: str, folder: Path) -> "list[tuple[Store, TrackedRun]]":
    """The run of that id (or of its beginning), or else the best run of an experiment on each of its data sets.

    Args:
        run_id: empty for the best run.
        experiment: empty for the one that was launched last.
        folder: of the tracking database.

    Raises:
        InputError: there is no such run or experiment, or it has nothing to show; or both are named, and they don't agree.
    """
    from experiments import catalog

    if run_id:
        store, run = catalog.holding(run_id, folder)
        if experiment not in ("", store.name):
            raise InputError(f"run {run.run_id} is of experiment {store.name!r}, not {experiment!r}")
        return [(store, run)]
    found = read_runs(experiment, folder)
    best = best_runs(found.runs)
    if not best:
        raise InputError(
            f"experiment {found.experiment!r} has no finished run with a decoder (reconstruction_weight above 0), so none is "
            "the best; of a run without one, named by its id, there is a figure of its routing"
        )
    return [catalog.holding(each, folder) for each in best.values()]


def best_runs(runs: "pd.DataFrame") -> dict[str, str]:
    """Data set -> the id of its :func:`best_run`, where there is one: errors on two data sets have no order."""
    found = {str(name): best_run(part) for name, part in runs.groupby("dataset", sort=False)}
    return {name: run_id for name, run_id in found.items() if run_id}


def best_run(runs: "pd.DataFrame") -> str | None:
    """The id of the best finished run with a decoder, or None: of the best cell by its mean error, the best seed.

    The error is that of validation. Where no such run has validation images, it is the training error of the last epoch,
    which flatters who overfits but has not seen the test set either. The test error never chooses.

    Args:
        runs: a row per config, as :func:`analysis.runs.read_runs` makes them.
    """
    able = runs[(runs["status"] == "finished") & (runs["reconstruction_weight"] > 0)]
    for error in ("validation_error", "train_error"):
        known = able[able[error].notna()]
        if not known.empty:
            cell = [field for field in FIELDS if field != "seed"]
            mean = known.groupby(cell, dropna=False)[error].transform("mean")
            best = known.assign(mean=mean).sort_values(["mean", *cell, error, "seed"], kind="stable").iloc[0]
            return str(best["run_id"])
    return None
