"""A study: what Optuna knows of a search. Launches ask for trials and tell how they ended; workers have a Watch (watch.py).

Optuna takes a second: import this late.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from capsnet.errors import InputError, brief
from capsnet.variants import Variant
from experiments import stores
from experiments.samplers import Recipe
from experiments.search import PRUNED_BY, Search
from experiments.space import Range, Values
from experiments.watch import FAULTS, Watch, connected, leave

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
SECONDS, DEFINITION, LAUNCHES, REASON, OWNER = "seconds", "definition", "launches", "reason", "experiment"  # user attributes


@dataclass(frozen=True)
class Trial:
    """A trial that runs, or has ended."""

    number: int
    id: int
    values: dict[str, Any]  # of the search's fields


class Study:
    """The trials of a search, in a database."""

    def __init__(self, search: Search, url: str, study: optuna.Study, storage: RDBStorage) -> None:
        self.search, self.url, self.study, self.storage = search, url, study, storage

    def close(self) -> None:
        """Leave the database."""
        leave(self.storage)

    @classmethod
    def open(cls, search: Search, url: str, name: str, folder: Path, owner: str) -> "Study":
        """The study of that name, or a new one.

        Args:
            search: what it searches.
            url: of the database.
            name: of the study.
            folder: where launches keep locks.
            owner: the key of the experiment that has the trials' runs; no other one may go on with the study.

        Raises:
            InputError: the database can't be reached, or the study was begun with another search.
        """
        shown, directions = stores.shown(url), [StudyDirection.MINIMIZE] * len(search.objectives)
        try:
            with stores.alone(folder):  # Optuna doesn't guard the making of its tables
                storage = connected(url, create=True)
                study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, directions=directions)
                stores.write_ahead(url)
        except (*FAULTS, optuna.exceptions.OptunaError, RuntimeError, ValueError, ImportError) as error:
            said = stores.shown(brief(error))
            raise InputError(f"the storage of studies {shown} can't be used: {said}; --storage names another") from None
        opened = cls(search, url, study, storage)
        try:
            opened._claim(owner)
        except BaseException:
            opened.close()
            raise
        return opened

    def _claim(self, owner: str) -> None:
        """Note whose study it is, and of what. Raises an InputError if it is another's, or of something else."""
        study, named = self.study, f"study {self.study.study_name!r} in {stores.shown(self.url)}"
        definition, before = _definition(self.search), study.user_attrs.get(DEFINITION)
        if before is None:
            if study.get_trials(deepcopy=False):
                raise InputError(f"{named} was made by another program; name another one with --experiment")
            study.set_user_attr(DEFINITION, definition)
        elif differing := [key for key in definition if before.get(key) != definition[key]]:
            raise InputError(
                f"{named} was begun with another {' and another '.join(differing)}, so that old trials and "
                "new ones can't be compared; name another experiment (--experiment, or EXPERIMENT= of make)"
            )
        if study.user_attrs.get(OWNER, owner) != owner:
            raise InputError(
                f"{named} belongs to another experiment, in another tracking store or one that was deleted; "
                "name another experiment (--experiment, or EXPERIMENT= of make)"
            )
        study.set_user_attr(OWNER, owner)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Raise an InputError, with what was said, if the storage goes away in the block."""
        try:
            yield
        except FAULTS as error:  # Optuna's own says that the data may be invalid, whatever it is
            said, shown = stores.shown(brief(error.__cause__ or error)), stores.shown(self.url)
            raise InputError(f"the storage of studies {shown} has gone away: {said}; the same command goes on") from None
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise InputError(f"another launch is at study {self.study.study_name!r}: {brief(error)}") from None

    def begin(self) -> int:
        """Before the first trial is asked for: put those back that a launch left running; how many there were."""
        left = self._trials(TrialState.RUNNING)
        for trial in left:
            self.put_back(trial._trial_id)
        count = len(self._trials())
        self.study.sampler = _sampler(self.search.sampler.made, count)
        launch = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "from_trial": count, **self.provenance}
        self.study.set_user_attr(LAUNCHES, [*self.study.user_attrs.get(LAUNCHES, []), launch])
        return len(left)

    @property
    def provenance(self) -> dict[str, str]:
        """What chooses and prunes the trials."""
        return {"sampler": _whole(self.search.sampler), "pruner": _whole(self.search.pruner), "optuna": optuna.__version__}

    def ask(self) -> Trial | None:
        """A trial that was put back, or a new one; None if there are to be no more."""
        search, asked = self.search, len(self._trials())
        over = asked >= (search.trials or math.inf) or self.spent >= (search.seconds or math.inf)
        if over and not self._trials(TrialState.WAITING):
            return None
        trial = self.study.ask()
        values = search.space.values(lambda name, values: _suggest(trial, name, values))
        return Trial(trial.number, trial._trial_id, values)

    def watch(self, trial: Trial) -> Watch | None:
        """For the worker that trains the trial; None if nothing is pruned."""
        if self.search.pruner.name == "none":
            return None
        return Watch(self.url, self.study.study_name, trial.id, self.search.pruner.made, self.search.epochs)

    def report(self, trial: Trial, history: Sequence[tuple[int, float]]) -> None:
        """Report epochs, (epoch, value), that no worker reports, because they were trained before."""
        known = self.study._storage.get_trial(trial.id).intermediate_values
        for epoch, value in history if self.search.objectives == (PRUNED_BY,) else ():
            if epoch not in known:
                self.study._storage.set_trial_intermediate_value(trial.id, epoch, value)

    def tell(self, trial: Trial, values: Sequence[float] | None, *, pruned: bool = False, reason: str = "") -> None:
        """End a trial: complete with its values, or pruned, or failed for a reason."""
        if reason:
            self.study._storage.set_trial_user_attr(trial.id, REASON, reason)
        state = TrialState.COMPLETE if values is not None else TrialState.PRUNED if pruned else TrialState.FAIL
        self.study.tell(trial.number, values, state=state)

    def put_back(self, trial_id: int) -> None:
        """Let the next launch run a trial with the same parameters and under the same number."""
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.study._storage.set_trial_state_values(trial_id, TrialState.WAITING)

    @property
    def spent(self) -> float:
        """Seconds that all launches have taken."""
        return float(self.study.user_attrs.get(SECONDS, 0.0))

    def spend(self, seconds: float) -> None:
        """Add to them."""
        self.study.set_user_attr(SECONDS, self.spent + seconds)

    def counts(self) -> Counter[str]:
        """Trials by their state: complete, pruned, fail, waiting, running."""
        return Counter(trial.state.name.lower() for trial in self._trials())

    def ended(self) -> int:
        """How many trials have ended."""
        return len(self._trials(*ENDED))

    def failures(self) -> list[tuple[int, str]]:
        """The trials that failed by their own doing, such as those that diverged: (number, reason)."""
        return [(trial.number, trial.user_attrs.get(REASON, "")) for trial in self._trials(TrialState.FAIL)]

    def best(self) -> list[tuple[Trial, list[float]]]:
        """Complete trials with their values, the best first; of several objectives, those that no other trial dominates."""
        found = self.study.best_trials if len(self.search.objectives) > 1 else self._trials(TrialState.COMPLETE)
        ordered = sorted(found, key=lambda trial: (trial.values, trial.number))
        return [(self._trial(trial), trial.values) for trial in ordered]

    def importances(self) -> dict[str, float]:
        """How much of what sets good trials apart each parameter does (PED-ANOVA), in shares of 1; empty if too few ended."""
        if len(self._trials(TrialState.COMPLETE)) < 2:
            return {}
        target = None if len(self.search.objectives) == 1 else lambda trial: trial.values[0]
        with suppress(ValueError, RuntimeError, ZeroDivisionError), warnings.catch_warnings(action="ignore"):
            found = optuna.importance.get_param_importances(self.study, target=target)
            return {name: share for name, share in found.items() if np.isfinite(share)}
        return {}

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _trial(self, trial: FrozenTrial) -> Trial:
        params = trial.params
        return Trial(trial.number, trial._trial_id, self.search.space.values(lambda name, _: params[name]))


def _suggest(trial: optuna.Trial, name: str, values: Values) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, [option.key for option in values.options])
    if values.whole:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return trial.suggest_float(name, values.low, values.high, log=values.log, step=values.step)


def _definition(search: Search) -> dict[str, Any]:
    """What makes trials comparable."""
    parts = {
        "base": dict(search.base),
        "space": [asdict(parameter) for parameter in search.space.parameters],
        "objective": search.objectives,
        "seeds_per_trial": search.seeds_per_trial,
    }
    found: dict[str, Any] = json.loads(json.dumps(parts))
    return found


def _whole(variant: Variant) -> str:
    """A variant with all its arguments, the defaults too."""
    return f"{variant.name}({', '.join(f'{name}={value}' for name, value in variant.arguments.items())})"


def _sampler(recipe: Recipe, begun: int) -> optuna.samplers.BaseSampler:
    """The sampler, whose random numbers go on where earlier launches left them: the same ones again would repeat trials."""
    seed = np.random.SeedSequence(int(recipe.arguments["seed"]), spawn_key=(begun,)).generate_state(1)[0]
    made: optuna.samplers.BaseSampler = getattr(optuna.samplers, recipe.name)(**{**recipe.arguments, "seed": int(seed)})
    return made
