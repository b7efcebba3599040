"""What is known about an experiment's runs, in MLflow, which takes 4 s to import: late, therefore, and by few files.

One experiment holds one parent run per grid, kept across launches, and one child run per config. A child has every RunConfig
field as a parameter, a metric row per epoch, the final test error, and its weights and test predictions as artifacts.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from capsnet.errors import InputError, brief, is_text
from experiments import stores
from experiments.client import FAULTS, connected, log, made, search, tracked
from experiments.record import FAILURE, GRID, KIND, LAUNCHED, LEASE, REASON, SUPERSEDED, TrackedRun

NAME_LENGTH = 200  # of an experiment, which names a folder of results, too
ANALYSES = ("figures", "compare")  # commands of python -m analysis, which takes any other word for an experiment
OTHER = "--experiment names another, or EXPERIMENT= of make"
PARAM_LENGTH = 6000  # characters, of which MLflow would cut off the rest
NOTE = "mlflow.note.content"  # Markdown, which the pages show as a description
NOTE_LENGTH = 19_000  # characters of it; an experiment's tag has 20,000
RUN_NOTE_LENGTH = 7_900  # and a run's 8,000; the whole of a grid's description stands in its grid.yaml
CONTEXT = "mlflow.data.context"  # what a run uses a data set for, as MLflow shows it
FIGURES = "figures"  # the folder of a search's artifacts that holds them


class MissingError(InputError):
    """A file of a run is not there: it was never logged, or somebody deleted it."""


class Store:
    """The runs of one experiment."""

    def __init__(self, uri: str, name: str, experiment_id: str, made: int | None) -> None:
        self.uri, self.name, self.experiment_id = uri, name, experiment_id
        self.made = made or 0  # in milliseconds
        self.key = f"{experiment_id}-{made}"  # tells it from experiments of other stores, whatever their addresses

    @property
    def shown(self) -> str:
        """The store's address, without a password."""
        return stores.shown(self.uri)

    def answers(self, seconds: float = 3.0) -> bool:
        """Whether the store is there."""
        try:
            stores.answers(self.uri, seconds)
        except OSError:
            return False
        return True

    def __getstate__(self) -> dict[str, object]:
        """What goes to a worker: the client stays here."""
        return {name: value for name, value in vars(self).items() if name != "client"}

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, made when it is first needed: a server that is away is no reason not to train."""
        return made(self.uri)

    @classmethod
    def open(cls, name: str, folder: Path, *, create: bool) -> "Store | None":
        """The experiment of that name; if it isn't there, a new one or None.

        Raises:
            InputError: the tracking store can't be reached, the experiment has been deleted, or no new one can have that name.
        """
        if not is_text(name):
            raise InputError(f"the experiment's name is no text: {name!r}")
        if len(name) > NAME_LENGTH:
            raise InputError(f"the experiment's name has {len(name)} characters; {NAME_LENGTH} are the most: {name[:40]}...")
        uri = stores.uri(folder)
        if create and name in ANALYSES:
            raise InputError(f"an experiment can't be called {name!r}, which is a command of python -m analysis; {OTHER}")
        if create and name == Experiment.DEFAULT_EXPERIMENT_NAME and not stores.is_server(uri):
            raise InputError(f"an experiment can't be called {name!r}: MLflow's own has its artifacts elsewhere; {OTHER}")
        if not create and not stores.exists(uri):
            return None
        # MLflow guards neither the making of its tables nor that of an experiment against others who do the same
        with stores.alone(folder) if create else nullcontext():
            client = connected(uri)
            try:
                found = client.get_experiment_by_name(name)
                if found is None and create:
                    # a server keeps artifacts where it was told to; who writes to a database has them beside it
                    beside = None if stores.is_server(uri) else (stores.home(uri, folder) / "artifacts").as_uri()
                    found = client.get_experiment(client.create_experiment(name, beside))
            except MlflowException as error:
                raise InputError(
                    f"the tracking store {stores.shown(uri)} refuses experiment {name!r}: {error.message}"
                ) from None
        if found is None:
            return None
        if found.lifecycle_stage == "deleted":
            restore = stores.command(uri, f"experiments restore --experiment-id {found.experiment_id}")
            raise InputError(f"experiment {name!r} has been deleted in MLflow; restore it ({restore}) or choose another name")
        return cls(uri, name, found.experiment_id, found.creation_time)

    def runs(self) -> Iterator[TrackedRun]:
        """Every child run of the experiment, oldest first; runs that something else logged are left out."""
        yield from map(tracked, search(self.client, [self.experiment_id], f"tags.{KIND} = 'run'"))

    def sort_out(self) -> tuple[list[TrackedRun], dict[str, str]]:
        """The child runs, oldest first, and (run id -> what it is) of runs that something else logged here."""
        found, others = [], {}
        for run in search(self.client, [self.experiment_id], ""):
            if (made := run.data.tags.get(KIND)) == "run":
                found.append(tracked(run))
            elif made not in ("grid", "search"):
                others[run.info.run_id] = f"{run.info.run_name!r} was logged by something else"
        return found, others

    def parents(self, *, running: bool = False) -> Iterator[tuple[str, str]]:
        """The (run id, name) of each grid's parent run; if ``running``, of those that have no end."""
        unended = " and attributes.status = 'RUNNING'" * running
        for run in search(self.client, [self.experiment_id], f"tags.{KIND} = 'grid'{unended}"):
            yield run.info.run_id, run.data.tags[GRID]

    def grid(self, run_id: str) -> str:
        """The YAML of a grid, as it stood at its last launch.

        Raises:
            MissingError: its parent run has none: the first launch died before it was kept, or somebody deleted it.
        """
        with TemporaryDirectory() as folder:
            return self.artifact(run_id, "grid.yaml", Path(folder)).read_text(encoding="utf-8", errors="replace")

    def leases(self) -> list[tuple[str, str, str]]:
        """The notes of launches at parent runs: (run id, tag, what it says)."""
        parents = search(self.client, [self.experiment_id], f"tags.{KIND} != 'run'")
        tags = [(run.info.run_id, *tag) for run in parents for tag in run.data.tags.items()]
        return [found for found in tags if found[1].startswith(LEASE)]

    def open_searches(self) -> Iterator[str]:
        """The run id of each search whose run has no end."""
        for run in search(self.client, [self.experiment_id], f"tags.{KIND} = 'search' and attributes.status = 'RUNNING'"):
            yield run.info.run_id

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """The (epoch, value) rows of one metric of a run."""
        return [(m.step, m.value) for m in self.client.get_metric_history(run_id, name)]

    def parent(self, grid: str, text: str, description: str, kind: str = "grid") -> str:
        """The run id of a grid's or search's parent run, made at its first launch and opened again at each later one.

        The first also describes the experiment, until the analysis does, with what came out.
        """
        parents = search(self.client, [self.experiment_id], f"tags.{KIND} = '{kind}'")
        found = next((run for run in parents if run.data.tags[GRID] == grid), None)
        described = description[:RUN_NOTE_LENGTH]
        tags = {KIND: kind, GRID: grid, NOTE: described}
        run = found or self.client.create_run(self.experiment_id, tags=tags, run_name=grid)
        run_id: str = run.info.run_id
        self.client.update_run(run_id, status="RUNNING")
        stamp = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        log(self.client, run_id, tags={LAUNCHED: stamp, NOTE: described})
        self.client.log_text(run_id, text, f"{kind}.yaml")
        if description and NOTE not in self.client.get_experiment(self.experiment_id).tags:
            self.describe({NOTE: f"{grid}: {description}"[:NOTE_LENGTH]})
        return run_id

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        log(self.client, run_id, tags=tags)

    def untag(self, run_id: str, name: str) -> None:
        """Take a tag off a run."""
        self.client.delete_tag(run_id, name)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Add tags to the experiment, which its pages are made of: a description in Markdown, saved views."""
        for name, value in tags.items():
            self.client.set_experiment_tag(self.experiment_id, name, value)

    def artifact(self, run_id: str, name: str, folder: Path) -> Path:
        """A file of a run, copied or fetched into ``folder``: without one, MLflow would leave a copy in /tmp for ever.

        Raises:
            MissingError: the run has no such file, or none any more.
        """
        place = folder / run_id
        try:
            place.mkdir(parents=True, exist_ok=True)
            return Path(self.client.download_artifacts(run_id, name, str(place)))
        except FAULTS as error:
            raise MissingError(f"run {run_id} has no {name}: {stores.shown(brief(error))}") from None

    def search_figures(self, folder: Path) -> list[Path]:
        """Copy the figures of the experiment's searches, if it has any, to ``search_<figure>.png`` and ``.pdf``.

        Of several searches, each figure's name begins with that of its search.

        Raises:
            MissingError: the store lists figures that it can't give.
        """
        searches = list(search(self.client, [self.experiment_id], f"tags.{KIND} = 'search'"))
        copies = []
        for run in sorted(searches, key=lambda run: run.data.tags[GRID]):
            start = f"search_{run.data.tags[GRID]}_" if len(searches) > 1 else "search_"
            for name in sorted(item.path for item in self.client.list_artifacts(run.info.run_id, FIGURES)):
                copies.append(folder / re.sub(r"[^\w.+=-]", "_", start + Path(name).name))
                folder.mkdir(parents=True, exist_ok=True)
                with TemporaryDirectory() as fetched:
                    shutil.copyfile(self.artifact(run.info.run_id, name, Path(fetched)), copies[-1])
        return copies

    def attach(self, run_id: str, folder: Path, name: str) -> None:
        """Keep all files of a folder as artifacts of a run, in a folder of that name."""
        self.client.log_artifacts(run_id, str(folder), name)

    def end(self, run_id: str, status: str) -> None:
        """Give a grid's run its end: FINISHED, FAILED or KILLED; a store that is away learns it at the next launch."""
        with suppress(*FAULTS):
            self.client.set_terminated(run_id, status)

    def lose(self, run: TrackedRun) -> None:
        """End a run whose journal is gone, so that it can't go on: its epochs stay, and another run takes its place."""
        tags = {FAILURE: "checkpoint lost", REASON: "its journal and checkpoints are not there any more"}
        log(self.client, run.run_id, tags=tags)
        self.client.set_terminated(run.run_id, "FAILED")

    def supersede(self, run_id: str) -> None:
        """Mark a run as one that doesn't speak for its config any more."""
        log(self.client, run_id, tags={SUPERSEDED: "true"})
