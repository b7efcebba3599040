"""The trials of a search: which run follows, and what the study is told when one has ended."""

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from capsnet import interrupts
from capsnet.config import RunConfig
from capsnet.errors import InputError
from experiments.client import FAULTS as AWAY
from experiments.gridding import make_job
from experiments.jobs import Job, Outcome, Place, trial_state
from experiments.journal import BusyError, Journal, folder_of
from experiments.known import by_config, state
from experiments.labels import label
from experiments.progress import Display
from experiments.record import GRID, REASON, TRIAL, TRIAL_STATE, TrackedRun
from experiments.search import Search
from experiments.study import Study, Trial
from experiments.watch import FAULTS

EXHAUSTED = 100  # trials in a row that repeat earlier ones: there is nothing left to try
VERDICTS = ("pruned", "diverged")  # what a run can end with that is the trial's own doing


@dataclass
class Going:
    """A trial that has not ended."""

    trial: Trial
    configs: list[RunConfig]  # seed by seed
    ended: dict[RunConfig, Outcome] = field(default_factory=dict)
    queued: set[RunConfig] = field(default_factory=set)
    twins: list[Trial] = field(default_factory=list)  # later trials with equal configs, which end with it

    @property
    def trials(self) -> list[Trial]:
        """The trial and its twins."""
        return [self.trial, *self.twins]

    @property
    def stage(self) -> list[RunConfig]:
        """What is to be trained now: the first seed, which alone can be pruned, and after it all others."""
        return self.configs[:1] if self.configs[0] not in self.ended else self.configs[1:]


class Trials:
    """Asks the study for trials and tells it how they ended; each seed of a trial is a run of its own."""

    def __init__(self, search: Search, study: Study, place: Place, shown: Display) -> None:
        self.search, self.study, self.place, self.shown = search, study, place, shown
        self.known = _Known(search.name, place)
        self.waiting = deque[Job]()
        self.going: dict[RunConfig, Going] = {}  # by the config of each seed
        self.later: list[Trial] = []  # which their surroundings failed: the next launch runs them again
        self.failed: list[str] = []  # one line for each of them
        self.since = time.monotonic()

    def following(self) -> Job | None:
        """The next run; None if there is none now."""
        asked = 0
        with self.study.answering():
            while not self.waiting:
                interrupts.check()
                self._spend()
                # trials whose runs are all known cost nothing, so that a time budget alone would never be used up by them
                exhausted = self.search.trials is None and asked >= EXHAUSTED
                trial = None if exhausted else self.study.ask()
                if trial is None:
                    return None
                asked += 1
                self._begin(trial)
        return self.waiting.popleft()

    def _spend(self) -> None:
        now = time.monotonic()
        if self.search.seconds is not None:
            self.study.spend(now - self.since)
        self.since = now

    def _begin(self, trial: Trial) -> None:
        try:
            configs = [self.search.config(trial.values, seed) for seed in range(self.search.seeds_per_trial)]
        except InputError as error:  # a point that is refused although corners of the space are not
            self.study.tell(trial, None, reason=str(error))
            return
        if twin := self.going.get(configs[0]):
            twin.twins.append(trial)
            return
        going = Going(trial, configs)
        self.going |= dict.fromkeys(configs, going)
        self._advance(going)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Take note of a run that is over, and tell the study if its trial is."""
        with self.study.answering():
            self._spend()
            self.known.add(job, outcome)
            if going := self.going.get(job.config):  # else another seed ended the trial before
                going.ended[job.config] = outcome
                self._advance(going)

    def _advance(self, going: Going) -> None:
        """End the trial if it can be, or else queue the runs that it needs next and that nobody has trained yet."""
        while not self._end(going):
            stage = going.stage
            for config in [config for config in stage if config not in going.ended and config not in going.queued]:
                if outcome := self.known.outcome(config):
                    going.ended[config] = outcome
                    self.shown.done += 1
                else:
                    going.queued.add(config)
                    self.waiting.append(self._job(going, config))
            if any(config not in going.ended for config in stage):
                return

    def _job(self, going: Going, config: RunConfig) -> Job:
        cell = f"trial {going.trial.number}: {label(config, self.search.space.fields)}"
        job = make_job(cell, config, self.known.runs, self.place)
        watch = self.study.watch(going.trial) if config == going.configs[0] else None
        return replace(job, trial=str(going.trial.number), watch=watch)

    def _end(self, going: Going) -> bool:
        """Whether the trial could be ended."""
        bad = next((outcome for outcome in going.ended.values() if outcome.failure), None)
        if not bad and len(going.ended) < len(going.configs):
            return False
        for trial in going.trials:
            for config, outcome in going.ended.items():
                self.known.tag(config, outcome, trial)
            if bad and bad.failure not in VERDICTS:
                self.later.append(trial)
                self.failed.append(f"trial {trial.number}: {bad.reason} (run {bad.run_id or 'without an id yet'})")
                continue
            self.study.report(trial, going.ended[going.configs[0]].history)
            values = None if bad else [self._mean(going, name) for name in self.search.objectives]
            self.study.tell(trial, values, pruned=bad is not None and bad.failure == "pruned", reason=bad.reason if bad else "")
        self.shown.planned = max(0, self.shown.planned - len(going.configs) + len(going.ended))
        self.waiting = deque(job for job in self.waiting if job.config not in going.queued)
        for config in going.configs:
            del self.going[config]
        return True

    @staticmethod
    def _mean(going: Going, name: str) -> float:
        return sum(outcome.values[name] for outcome in going.ended.values()) / len(going.ended)

    def put_back(self) -> int:
        """Leave what has not ended to the next launch; how many trials that are."""
        left = {trial.id for going in self.going.values() for trial in going.trials} | {trial.id for trial in self.later}
        with suppress(*FAULTS):
            for trial_id in left:
                self.study.put_back(trial_id)
        return len(left)


class _Known:
    """How configs ended that need not be trained: in this launch, or before as MLflow has it."""

    def __init__(self, search: str, place: Place) -> None:
        self.search, self.store, self.checkpoints = search, place.store, place.checkpoints
        self.runs = by_config(self.store.runs())
        self.outcomes: dict[RunConfig, Outcome] = {}
        self.trials = {config: run.tags[TRIAL] for config, run in self.runs.items() if TRIAL in run.tags}  # "3, 17"

    def add(self, job: Job, outcome: Outcome) -> None:
        """Remember how a run of this launch ended."""
        if not outcome.failure or outcome.failure in VERDICTS:
            self.outcomes[job.config] = outcome
        self.trials[job.config] = job.trial

    def outcome(self, config: RunConfig) -> Outcome | None:
        """How a config ended; None if it has to be trained."""
        if found := self.outcomes.get(config):
            return found
        run = self.runs.get(config)
        if run is None:
            return None
        told = state(run)
        if told == "finished" and "parameters" in run.metrics:
            return Outcome(run.run_id, 0.0, run.metrics.get("test_error"), values=self._values(run), history=self._history(run))
        if told == "diverged" or (told == "pruned" and run.tags.get(GRID) == self.search):
            return Outcome(run.run_id, 0.0, failure=told, reason=run.tags.get(REASON, ""), history=self._history(run))
        return None

    def _values(self, run: TrackedRun) -> dict[str, float]:
        found = {name: run.metrics[name] for name in ("validation_error", "parameters") if name in run.metrics}
        return {**found, "seconds": sum(seconds for _, seconds in self.store.history(run.run_id, "seconds"))}

    def _history(self, run: TrackedRun) -> list[tuple[int, float]]:
        return sorted(self.store.history(run.run_id, "validation_error"))

    def tag(self, config: RunConfig, outcome: Outcome, trial: Trial) -> None:
        """Tell MLflow that a run is a trial's, if it was trained for another one or for a grid."""
        numbers = self.trials.get(config, "").split(", ")
        if str(trial.number) in numbers:
            return
        self.trials[config] = ", ".join(number for number in [*numbers, str(trial.number)] if number)
        tags = {TRIAL: self.trials[config], TRIAL_STATE: trial_state(outcome.failure, outcome.reason)}
        if not self._noted(config, tags) and outcome.run_id:
            with suppress(*AWAY):
                self.store.tag(outcome.run_id, tags)

    def _noted(self, config: RunConfig, tags: Mapping[str, str]) -> bool:
        """Whether MLflow will be told the tags from the run's journal, whose own would replace what it is told before."""
        journal = Journal(folder_of(self.checkpoints, config))
        if journal.folder.exists():
            with suppress(BusyError, InputError), journal.held():
                if journal.begun and not journal.record.told:
                    journal.update(tags={**journal.record.tags, **tags})
                    return True
        return False
