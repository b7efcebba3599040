"""A study without any run: what it asks for and when it ends, what it prunes and puts back, and which trials are best."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from capsnet.errors import InputError
from experiments.search_yaml import parse_search
from experiments.study import Study, Trial
from experiments.watch import Watched, made_pruner

SEARCH = """
base: {dataset: digits, validation_size: 100, conv_kernel: 5, primary_kernel: 5, epochs: 8,
  routing_iterations: 1, lr_schedule: constant}
space:
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  class_dim: {low: 8, high: 16, step: 4}
  routing: [uniform, static]
trials: 40
sampler: random
"""


def study_of(more: str = "", kept: optuna.Study | None = None) -> Study:
    """A new one, or of the trials that earlier launches kept."""
    replaced = {line.split(":")[0] for line in more.splitlines()}
    lines = [line for line in SEARCH.splitlines() if line.split(":")[0] not in replaced]
    search = parse_search("\n".join([*lines, more]), "s", "s.yaml")
    kept = kept or optuna.create_study(study_name="s", directions=["minimize"] * len(search.objectives))
    return Study(search, "sqlite:///there.db", kept, cast("Any", None))


def asked(study: Study) -> Trial:
    trial = study.ask()
    assert trial is not None
    return trial


def completed(study: Study, *values: Sequence[float]) -> None:
    """As many trials that end with these values."""
    for each in values:
        study.tell(asked(study), each)


def loss(values: dict[str, Any]) -> float:
    """Of a point: by its learning rate most of all."""
    return abs(math.log10(values["learning_rate"]) + 3) + values["class_dim"] / 1000 + (values["routing"] == "static") / 1000


@pytest.mark.parametrize("sampler", ["random(seed=3)", "tpe(n_startup_trials=4, seed=3)"])
def test_trials_are_what_optuna_asks_by_itself(sampler: str) -> None:
    mine = study_of(f"sampler: {sampler}")
    mine.begin()
    seed = int(np.random.SeedSequence(3, spawn_key=(0,)).generate_state(1)[0])
    own = RandomSampler(seed) if "random" in sampler else TPESampler(n_startup_trials=4, seed=seed)
    theirs = optuna.create_study(sampler=own)
    for _ in range(20):
        one, other = asked(mine), theirs.ask()
        wanted = {
            "learning_rate": other.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            "class_dim": other.suggest_int("class_dim", 8, 16, step=4),
            "routing": other.suggest_categorical("routing", ["uniform", "static"]),
        }
        assert list(map(repr, one.values.values())) == list(map(repr, wanted.values())), "of the same types, too"
        mine.tell(one, [loss(wanted)])
        theirs.tell(other, loss(wanted))


def test_a_second_launch_repeats_no_trial_and_any_study_is_the_same_again() -> None:
    rates: list[list[float]] = []
    for _ in range(2):
        kept = optuna.create_study()
        for _ in range(2):
            study = study_of(kept=kept)
            study.begin()
            completed(study, *[[1.0]] * 5)
        rates.append([trial.params["learning_rate"] for trial in kept.trials])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 10


def test_what_a_launch_left_is_asked_first_and_is_none_of_those_that_are_still_to_come(tmp_path: Path) -> None:
    """In a database, because Optuna's trials in memory never wait again."""
    storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}", engine_kwargs={"poolclass": NullPool})
    kept = optuna.create_study(storage=storage)
    study = study_of("trials: 3", kept)
    study.begin()
    first, second, third = (asked(study) for _ in range(3))
    assert study.ask() is None
    study.tell(second, [1.0])
    again = study_of("trials: 4", kept)
    assert again.begin() == 2
    assert again.counts() == {"waiting": 2, "complete": 1}
    assert [asked(again) for _ in range(2)] == [first, third]
    again.put_back(second.id)  # has ended, and stays so
    assert asked(again).number == 3
    assert again.ask() is None
    again.put_back(third.id)
    assert asked(again) == third, "though as many as are wanted were asked"
    assert (again.counts(), again.ended()) == ({"running": 3, "complete": 1}, 1)
    launches = kept.user_attrs["launches"]
    assert [launch["from_trial"] for launch in launches] == [0, 3]
    assert launches[0].items() >= {"sampler": "random(seed=0)", "pruner": "none()", "optuna": optuna.__version__}.items()


def test_a_time_budget_is_that_of_all_launches() -> None:
    kept = optuna.create_study()
    study = study_of("trials: 40\ntime_budget: 1m", kept)
    study.spend(40.0)
    study.spend(19.5)
    assert asked(study).number == 0
    again = study_of("trials: 40\ntime_budget: 1m", kept)
    assert again.spent == 59.5
    again.spend(0.5)
    assert again.ask() is None


def test_the_best_come_first_and_of_equal_ones_the_earlier() -> None:
    study = study_of()
    completed(study, [2.0], [1.0], [3.0], [1.0])
    study.tell(asked(study), None, pruned=True)
    study.tell(asked(study), None, reason="nan")
    asked(study)
    best = study.best()
    assert [(trial.number, values) for trial, values in best] == [(1, [1.0]), (3, [1.0]), (0, [2.0]), (2, [3.0])]
    assert best[0][0].values == study.study.trials[1].params
    assert study.counts() == {"complete": 4, "pruned": 1, "fail": 1, "running": 1}
    assert (study.ended(), study.failures()) == (6, [(5, "nan")])


def test_the_best_of_two_objectives_are_those_that_none_is_better_than() -> None:
    points = np.random.default_rng(0).integers(0, 6, (30, 2)).astype(float).tolist()
    study = study_of("objective: [validation_error, parameters]")
    assert study.best() == []
    completed(study, *points)
    better = [[(q <= p).all() and (q != p).any() for q in np.array(points)] for p in np.array(points)]
    front = sorted((p, i) for i, p in enumerate(points) if not any(better[i]))
    assert [(values, trial.number) for trial, values in study.best()] == front
    assert len(front) > 1


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_nothing_is_pruned_in_the_warmup_and_a_hopeless_trial_after_it(warmup: int) -> None:
    """As its worker reports it, each epoch once."""
    study = study_of(f"pruner: median(n_startup_trials=3, n_warmup_steps={warmup})")
    study.study.pruner = made_pruner(study.search.pruner.made, study.search.epochs)
    for _ in range(3):
        trial = asked(study)
        study.report(trial, [(epoch, 10.0) for epoch in range(1, 9)])
        study.tell(trial, [10.0])
    trial = asked(study)
    watched = Watched(optuna.trial.Trial(study.study, trial.id), cast("Any", None))
    pruned = [watched.prunes([50.0] * epoch) for epoch in range(1, 8)]
    assert pruned == [epoch > warmup for epoch in range(1, 8)]
    assert study.study.trials[3].intermediate_values == dict.fromkeys(range(1, 8), 50.0)
    study.report(trial, [(7, 1.0), (8, 60.0)])
    assert study.study.trials[3].intermediate_values == dict.fromkeys(range(1, 8), 50.0) | {8: 60.0}


def test_hyperbands_most_is_the_epochs_of_a_whole_trial() -> None:
    search, told = study_of("pruner: hyperband").search, []
    for pruner in (made_pruner(search.pruner.made, search.epochs), HyperbandPruner(1, 8, 3)):
        kept = optuna.create_study(study_name="s", pruner=pruner)
        for number in range(20):
            trial = kept.ask()
            for epoch in range(1, 9):
                trial.report(7 * number % 20 + 1 / epoch, epoch)
                if pruned := trial.should_prune():
                    break
            told.append(epoch)
            kept.tell(trial, None if pruned else 1.0, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
    assert told[:20] == told[20:]
    assert len(set(told)) > 2


def test_epochs_are_reported_of_the_objective_that_has_them() -> None:
    study = study_of("objective: parameters")
    study.report(asked(study), [(1, 50.0)])
    assert study.study.trials[0].intermediate_values == {}
    assert study.watch(Trial(0, 0, {})) is None


@pytest.mark.parametrize("more", ["", "objective: [validation_error, parameters]"])
def test_what_sets_good_trials_apart_has_the_greatest_share(more: str) -> None:
    study = study_of(more)
    study.begin()
    for _ in range(40):
        trial = asked(study)
        assert trial.number > 1 or study.importances() == {}, "one that is complete tells nothing"
        study.tell(trial, [loss(trial.values), trial.values["class_dim"]][: len(study.search.objectives)])
    shares = study.importances()
    assert max(shares, key=lambda name: shares[name]) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() == {"learning_rate", "class_dim", "routing"}


def test_trials_of_another_program_are_not_gone_on_with() -> None:
    kept = optuna.create_study()
    kept.ask()
    with pytest.raises(InputError, match=r"was made by another program; name another one with --experiment"):
        study_of(kept=kept)._claim("mine")
    assert kept.user_attrs == {}


@pytest.mark.parametrize(
    ("cause", "error", "said"),
    [
        (None, OSError("disk full"), r"storage of studies sqlite:///there.db has gone away: disk full; the same command"),
        (OSError("refused"), StorageInternalError("may be invalid"), "has gone away: refused; the same command goes on"),
        (None, UpdateFinishedTrialError("Trial#7 has finished"), "another launch is at study 's': Trial#7 has finished"),
    ],
)
def test_a_storage_that_fails_is_told_of_by_its_cause(cause: Exception | None, error: Exception, said: str) -> None:
    with pytest.raises(InputError, match=said), study_of().answering():
        raise error from cause
