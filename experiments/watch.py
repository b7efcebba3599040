"""A trial as its run's worker sees it: it is told of epochs, and says when to stop. Optuna takes a second: import this late."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from experiments import stores
from experiments.samplers import Recipe

optuna.logging.set_verbosity(optuna.logging.ERROR)  # not a line for each trial: the launch has its own

FAULTS = (optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)  # of a storage that is away, or full


@dataclass(frozen=True)
class Watch:
    """How a worker finds the trial that its run belongs to."""

    url: str
    study: str
    trial_id: int
    pruner: Recipe
    epochs: int  # the most that a trial can have

    def open(self) -> "Watched | None":
        """The trial; None if its storage is away, which is no reason not to train."""
        storage: RDBStorage | None = None
        try:
            pruner = made_pruner(self.pruner, self.epochs)
            storage = connected(self.url)
            study = optuna.load_study(study_name=self.study, storage=storage, pruner=pruner)
            return Watched(optuna.trial.Trial(study, self.trial_id), storage)
        except (*FAULTS, optuna.exceptions.OptunaError, KeyError):
            if storage:
                leave(storage)
            return None


class Watched:
    """A trial as its worker sees it."""

    def __init__(self, trial: optuna.trial.Trial, storage: RDBStorage) -> None:
        self.trial, self.storage = trial, storage

    def close(self) -> None:
        """Leave the database."""
        leave(self.storage)

    def prunes(self, errors: Sequence[float | None]) -> bool:
        """Report the objective after each epoch from the first, those that were reported before once, and ask the pruner.

        A storage that is away prunes nothing, and is told the rest at a later epoch.
        """
        try:
            for epoch in range(len(self.trial.storage.get_trial(self.trial._trial_id).intermediate_values), len(errors)):
                if (error := errors[epoch]) is not None:
                    self.trial.report(error, epoch + 1)
            return self.trial.should_prune()
        except (*FAULTS, optuna.exceptions.OptunaError):
            return False


def connected(url: str, *, create: bool = False) -> RDBStorage:
    """The database of studies; to ``create`` it makes its tables, too."""
    waits = {"timeout": 60} if stores.database(url) else {"connect_timeout": 10} if url.startswith("postgresql") else {}
    file = stores.database(url)
    if file and create:
        file.parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(url, engine_kwargs={"connect_args": waits}, skip_table_creation=not create)


def leave(storage: RDBStorage) -> None:
    """Close all connections to a database."""
    storage.remove_session()
    storage.engine.dispose()


def made_pruner(recipe: Recipe, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner, for trials that have at most so many epochs."""
    arguments = dict(recipe.arguments)
    if recipe.name == "HyperbandPruner":
        arguments["max_resource"] = epochs
    if recipe.name == "MedianPruner":  # it counts steps from 0, and here they are epochs from 1
        arguments["n_warmup_steps"] += 1
    made: optuna.pruners.BasePruner = getattr(optuna.pruners, recipe.name)(**arguments)
    return made
