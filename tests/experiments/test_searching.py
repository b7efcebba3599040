"""Searches as they run: trials, pruning, confirmation, the champion, and what is left of them when something dies."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from capsnet.config import RunConfig, from_params
from capsnet.errors import InputError
from experiments import searching
from experiments.executors import Engine, Inline, choose
from experiments.record import TrackedRun
from experiments.search_yaml import parse_search
from experiments.sources import Cell, Grid
from experiments.study import Study
from experiments.tracking import Store
from experiments.watch import Watch
from tests.experiments.conftest import Command, launched, opened
from tests.experiments.test_resume import running

SEARCH = """
description: a search in a tiny network
base: {dataset: digits, train_size: 60, validation_size: 60, augmentation: none, conv_channels: 8, conv_kernel: 5,
  primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 2, batch_size: 20, lr_schedule: constant}
space:
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  routing_iterations: [1, 2]
trials: 5
sampler: random
confirm: {top: 1, seeds: 2}
"""
GRIDLESS = SEARCH.replace("top: 1", "top: 0")


def searched(mlruns: Path, text: str = SEARCH, name: str = "tiny", *, engine: Any = None, url: str = "") -> Any:
    """Launch a search in this process."""
    from experiments.jobs import Place
    from experiments.locks import Launchers
    from experiments.searching import run_search

    store, engine = opened(mlruns, name), engine or Engine(Inline())
    search, url = parse_search(text, name, f"{name}.yaml"), url or f"sqlite:///{mlruns / 'optuna.db'}"
    place = Place(store, mlruns / "checkpoints" / store.key, name, "", Path("nowhere"), "cpu", 0.0, threads=engine.threads)
    launchers = Launchers(mlruns, name, store.key)
    threads = torch.get_num_threads()
    try:
        with closing(Study.open(search, url, name, mlruns, store.key)) as begun:
            return run_search(search, begun, launchers, place, engine)
    finally:
        torch.set_num_threads(threads)


def study(mlruns: Path, name: str = "tiny", url: str = "") -> optuna.Study:
    url = url or f"sqlite:///{mlruns / 'optuna.db'}"
    storage = RDBStorage(url, engine_kwargs={"poolclass": NullPool})  # which leaves no connection behind
    return optuna.load_study(study_name=name, storage=storage)


def trial_runs(store: Store) -> dict[str, Any]:
    return {run.tags["trial"]: run for run in store.runs() if "trial" in run.tags}


def values_of(config: RunConfig) -> dict[str, Any]:
    return {"learning_rate": config.learning_rate, "routing_iterations": config.routing_iterations}


def test_each_trial_is_a_run_with_the_values_that_optuna_knows(mlruns: Path) -> None:
    found = searched(mlruns)
    assert (found.failed, found.untold, found.unfinished) == ([], [], 0)
    trials, store = study(mlruns).trials, opened(mlruns)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    runs = trial_runs(store)
    assert runs.keys() == {str(trial.number) for trial in trials}
    for trial in trials:
        run = runs[str(trial.number)]
        assert values_of(from_params(run.params)) == trial.params
        assert run.status == "FINISHED"
        assert run.tags["trial_state"] == "complete"
        assert trial.values == [run.metrics["validation_error"]]
        assert trial.value == store.history(run.run_id, "validation_error")[-1][1]
        assert {item.path for item in store.client.list_artifacts(run.run_id)} >= {
            "weights.safetensors",
            "test_predictions.safetensors",
        }


@pytest.mark.slow
def test_a_trial_is_the_run_that_a_grid_would_have_made(mlruns: Path, tmp_path: Path) -> None:
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 1"))
    [run] = trial_runs(opened(mlruns)).values()
    base = GRIDLESS.split("base: ")[1].split("space:")[0].strip()
    cell = json.dumps(values_of(from_params(run.params)))
    launched(tmp_path / "grid", f"base: {base}\nalso: [{cell}]\nseeds: 1")
    [other] = opened(tmp_path / "grid").runs()
    assert other.params == run.params
    timed = {"seconds", "images_per_second", "train_seconds"}
    for name in other.metrics.keys() - timed - {name for name in other.metrics if name.startswith("system/")}:
        assert run.metrics[name] == other.metrics[name]
    assert run.metrics.keys() >= other.metrics.keys() - {n for n in other.metrics if n.startswith("system/")}


def test_the_parent_holds_the_search_its_provenance_and_its_figures(mlruns: Path, tmp_path: Path) -> None:
    searched(mlruns)
    store = opened(mlruns)
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'search'")
    assert parent.info.status == "FINISHED"
    tags = parent.data.tags
    assert tags["optuna"] == optuna.__version__
    assert (tags["sampler"], tags["pruner"]) == ("random(seed=0)", "none()")
    figures = {item.path for item in store.client.list_artifacts(parent.info.run_id, "figures")}
    names = [
        f"{name}.{kind}" for name in ("history", "importances", "parallel_coordinates", "slice") for kind in ("pdf", "png")
    ]
    assert figures == {f"figures/{name}" for name in names}
    copies = store.search_figures(tmp_path / "results")
    assert copies == [tmp_path / "results" / f"search_{name}" for name in names]
    kept_in = store.artifact(parent.info.run_id, "figures", tmp_path)
    assert all(copy.read_bytes() == (kept_in / name).read_bytes() for copy, name in zip(copies, names, strict=True))
    assert all(b"CreationDate" not in copy.read_bytes() for copy in copies)
    for run in trial_runs(store).values():
        assert run.tags["mlflow.parentRunId"] == parent.info.run_id
    kept = study(mlruns).user_attrs["launches"]
    assert [(launch["sampler"], launch["optuna"], launch["from_trial"]) for launch in kept] == [
        ("random(seed=0)", optuna.__version__, 0)
    ]


def test_an_experiment_without_a_search_has_no_figures_of_one_and_two_searches_do_not_mix_theirs(
    mlruns: Path, tmp_path: Path
) -> None:
    store = opened(mlruns)
    assert store.search_figures(tmp_path / "results") == []
    assert not (tmp_path / "results").exists()
    for name in ("one", "other/two"):
        (tmp_path / "drawn").mkdir(exist_ok=True)
        (tmp_path / "drawn" / "history.png").write_text(name)
        store.attach(store.parent(name, "", "", kind="search"), tmp_path / "drawn", "figures")
    copies = store.search_figures(tmp_path / "results")
    assert [(copy.name, copy.read_text()) for copy in copies] == [
        ("search_one_history.png", "one"),
        ("search_other_two_history.png", "other/two"),
    ]


@pytest.mark.slow
def test_the_best_are_confirmed_on_seeds_that_no_trial_had_and_only_these_are_results(mlruns: Path) -> None:
    from analysis.runs import read_runs

    searched(mlruns, SEARCH.replace("top: 1", "top: 2").replace("confirm: {", "confirm: {defaults: true, "))
    ordered = sorted(study(mlruns).trials, key=lambda trial: (trial.value, trial.number))
    rows = read_runs("tiny", mlruns).runs
    assert set(rows["seed"]) == {1, 2}
    assert list(rows["status"]) == ["finished"] * 6
    chosen = {(row.learning_rate, row.routing_iterations) for row in rows.itertuples()}
    assert chosen == {(t.params["learning_rate"], t.params["routing_iterations"]) for t in ordered[:2]} | {(1e-3, 3)}


@pytest.mark.slow
def test_a_second_launch_starts_nothing_and_a_larger_number_goes_on(mlruns: Path) -> None:
    searched(mlruns)
    before = {run.run_id for run in opened(mlruns).runs()}
    searched(mlruns)
    assert {run.run_id for run in opened(mlruns).runs()} == before
    versions = opened(mlruns).client.search_model_versions("name = 'capsnet'")
    assert len(versions) == 1
    first = [trial.params for trial in study(mlruns).trials]
    searched(mlruns, SEARCH.replace("trials: 5", "trials: 9"))
    trials = [trial.params for trial in study(mlruns).trials]
    assert trials[:5] == first
    assert len(trials) == 9
    rates = [params["learning_rate"] for params in trials]
    assert len(set(rates)) == 9, "random numbers were drawn a second time"


@pytest.mark.slow
def test_a_trial_is_the_mean_of_its_seeds_and_fails_with_one_of_them(mlruns: Path) -> None:
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 2\nseeds_per_trial: 3"))
    by_trial: dict[str, list[float]] = {}
    for run in opened(mlruns).runs():
        by_trial.setdefault(run.tags["trial"], []).append(run.metrics["validation_error"])
    assert {number: len(values) for number, values in by_trial.items()} == {"0": 3, "1": 3}
    for trial in study(mlruns).trials:
        assert trial.value == pytest.approx(np.mean(by_trial[str(trial.number)]), rel=1e-12)


def test_equal_trials_are_one_run(mlruns: Path) -> None:
    text = GRIDLESS.replace("  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", "").replace("trials: 5", "trials: 7")
    with choose(0, 1.0, "", "cpu", 7) as engine:
        searched(mlruns, text, engine=engine)
    trials = study(mlruns).trials
    assert len(trials) == 7
    runs = list(opened(mlruns).runs())
    assert len(runs) == 2
    for run in runs:
        mine = [t for t in trials if t.params["routing_iterations"] == from_params(run.params).routing_iterations]
        assert run.tags["trial"] == ", ".join(str(trial.number) for trial in mine)
        assert {trial.value for trial in mine} == {run.metrics["validation_error"]}


@pytest.mark.parametrize("missed", ["all", "the end"])
def test_a_run_of_several_trials_that_mlflow_learns_of_later_is_known_as_theirs(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, missed: str
) -> None:
    from experiments.recorder import Recorder

    push = Recorder._push

    def misses(self: Recorder) -> None:
        if missed == "all" or self.log.journal.record.ending:
            self.fault = "it went away"
        else:
            push(self)

    monkeypatch.setattr(Recorder, "_push", misses)
    text = GRIDLESS.replace("  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", "").replace("trials: 5", "trials: 4")
    found = searched(mlruns, text)
    assert (found.failed, found.untold, found.unfinished) == ([], [], 0)
    numbers = [run.tags["trial"].split(", ") for run in opened(mlruns).runs()]
    assert sorted(int(number) for each in numbers for number in each) == list(range(4))
    assert len(numbers) == 2


def test_a_config_that_a_grid_finished_is_not_trained_again(mlruns: Path) -> None:
    base = GRIDLESS.split("base: ")[1].split("space:")[0].strip()
    launched(mlruns, f"base: {base}\naxes: {{routing_iterations: [1, 2]}}\nseeds: 1")
    before = {run.run_id for run in opened(mlruns).runs()}
    text = GRIDLESS.replace("  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", "").replace("trials: 5", "trials: 4")
    searched(mlruns, text.replace("sampler: random", "sampler: random\npruner: median"))
    assert {run.run_id for run in opened(mlruns).runs()} == before
    for trial in study(mlruns).trials:
        assert set(trial.intermediate_values) == {1, 2}


def test_a_trial_of_which_one_seed_is_known_trains_the_others(mlruns: Path) -> None:
    base = GRIDLESS.split("base: ")[1].split("space:")[0].strip()
    launched(mlruns, f"base: {base}\naxes: {{routing_iterations: [1, 2]}}\nseeds: 1")
    text = GRIDLESS.replace("  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", "")
    found = searched(mlruns, text.replace("trials: 5", "trials: 2\nseeds_per_trial: 2"))
    assert found.unfinished == 0
    assert [trial.state for trial in study(mlruns).trials] == [TrialState.COMPLETE] * 2


DIVERGING = GRIDLESS.replace("{low: 1e-4, high: 1e-2, log: true}", "[1e-3, 1e35]").replace("trials: 5", "trials: 6")


def test_a_trial_that_diverges_fails_and_the_search_goes_on(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = searched(mlruns, DIVERGING)
    trials = study(mlruns).trials
    assert len(trials) == 6
    for trial in trials:
        bad = trial.params["learning_rate"] > 1
        assert trial.state == (TrialState.FAIL if bad else TrialState.COMPLETE)
        if bad:
            assert "DivergedError" in trial.user_attrs["reason"]
    states = {run.tags["trial_state"] for run in opened(mlruns).runs()}
    assert states == {"complete", "failed"}
    assert found.failed == []
    assert "failed: DivergedError" in capsys.readouterr().out


PRUNING = """
base: {dataset: digits, train_size: 60, validation_size: 300, augmentation: none, conv_channels: 8, conv_kernel: 5,
  primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 8, batch_size: 20, lr_schedule: constant}
space:
  learning_rate: [1e-2, 5e-3, 1e-9]
  class_dim: {low: 4, high: 12}
trials: 14
sampler: random(seed=1)
pruner: median(n_startup_trials=2, n_warmup_steps=3)
confirm: {top: 0}
"""


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median(n_startup_trials=2, n_warmup_steps=3)", "hyperband(min_resource=3)"])
def test_hopeless_trials_are_pruned_in_their_workers(mlruns: Path, pruner: str) -> None:
    searched(mlruns, PRUNING.replace("median(n_startup_trials=2, n_warmup_steps=3)", pruner))
    trials, runs, store = study(mlruns).trials, trial_runs(opened(mlruns)), opened(mlruns)
    by_state = Counter(trial.state for trial in trials)
    assert len(trials) == 14
    assert by_state[TrialState.PRUNED] >= 3
    assert by_state[TrialState.COMPLETE] >= 2
    numbered = {number: run for tag, run in runs.items() for number in tag.split(", ")}
    for trial in trials:
        run = numbered[str(trial.number)]
        history = dict(store.history(run.run_id, "validation_error"))
        assert trial.intermediate_values == history  # epochs from 1
        if trial.state == TrialState.PRUNED:
            assert run.status == "KILLED"
            assert run.tags["trial_state"] == f"pruned at epoch {len(history)} of 8"
            assert 3 <= len(history) < 8
            assert "test_error" not in run.metrics  # the test set is for runs that ended
        else:
            assert len(history) == 8
    assert not list((mlruns / "checkpoints").glob("*/[!.]*")), "checkpoints of pruned runs are left"


@pytest.mark.slow
def test_several_objectives_give_a_pareto_front(mlruns: Path) -> None:
    text = SEARCH.replace("sampler: random", "sampler: nsga2(population_size=3)\nobjective: [validation_error, parameters]")
    text = text.replace("routing_iterations: [1, 2]", "class_dim: {low: 4, high: 12}")
    searched(mlruns, text)
    runs = {number: run for tag, run in trial_runs(opened(mlruns)).items() for number in tag.split(", ")}
    for trial in study(mlruns).trials:
        run = runs[str(trial.number)]
        assert trial.values == [run.metrics["validation_error"], run.metrics["parameters"]]
    store = opened(mlruns)
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'search'")
    figures = {item.path for item in store.client.list_artifacts(parent.info.run_id, "figures")}
    assert "figures/pareto_front.png" in figures


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe(n_startup_trials=2)", "cmaes", "nsga2(population_size=2)"])
def test_every_sampler_goes_on_after_a_restart(mlruns: Path, sampler: str) -> None:
    text = GRIDLESS.replace("sampler: random", f"sampler: {sampler}").replace("epochs: 2", "epochs: 1")
    searched(mlruns, text)
    searched(mlruns, text.replace("trials: 5", "trials: 8"))
    assert [trial.state for trial in study(mlruns).trials] == [TrialState.COMPLETE] * 8


@pytest.mark.slow
def test_the_champion_gives_the_logged_test_error_again(mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    from capsnet.data import read

    searched(mlruns, SEARCH.replace("top: 1", "top: 2"))
    store = opened(mlruns)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])  # of torch.export's own loading
    mlflow.set_tracking_uri(store.uri)
    try:
        model = mlflow.pytorch.load_model("models:/capsnet@champion", dst_path=str(tmp_path))
        info = mlflow.models.get_model_info("models:/capsnet@champion")
    finally:
        mlflow.set_tracking_uri(None)
    version = store.client.get_model_version_by_alias("capsnet", "champion")
    confirmed = {run.run_id: run for run in store.runs() if "trial" not in run.tags}
    run = confirmed[version.run_id]
    means: dict[tuple, list[float]] = {}
    for other in confirmed.values():
        means.setdefault(tuple(values_of(from_params(other.params)).items()), []).append(other.metrics["validation_error"])
    mine = means[tuple(values_of(from_params(run.params)).items())]
    assert np.mean(mine) == min(np.mean(group) for group in means.values())
    assert run.metrics["validation_error"] == min(mine)
    data = read(from_params(run.params), Path("nowhere"), torch.device("cpu"))
    scores = torch.cat([model(data.test.batch(slice(i, i + 100))) for i in range(0, len(data.test), 100)])
    error = 100 * (scores.argmax(1) != data.test.labels).sum().item() / len(data.test)
    assert error == run.metrics["test_error"]
    assert info.signature.inputs.inputs[0].shape == (-1, 1, 16, 16)
    assert info.saved_input_example_info is not None
    assert version.tags["search"] == "tiny"
    assert f"test error {error:.2f} %" in version.description


def test_a_study_of_the_same_name_with_another_space_is_refused(mlruns: Path) -> None:
    searched(mlruns, GRIDLESS)
    before = (mlruns / "optuna.db").read_bytes()
    for change in (("high: 1e-2", "high: 1e-1"), ("epochs: 2", "epochs: 4"), ("trials: 5", "trials: 5\nseeds_per_trial: 2")):
        what = {"high": "space", "epochs": "base", "trials": "seeds_per_trial"}[change[0].split(":")[0]]
        with pytest.raises(InputError, match=rf"study 'tiny' in sqlite.* was begun with another {what}, .*--experiment"):
            searched(mlruns, GRIDLESS.replace(*change))
    assert (mlruns / "optuna.db").read_bytes() == before
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 6").replace("sampler: random", "sampler: tpe"))  # may change


@pytest.mark.slow
def test_a_storage_that_cannot_be_reached_is_refused_before_the_first_trial(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SEARCH)
    for url, said in (
        ("postgresql://user:secret@127.0.0.1:9/optuna", "postgresql://user:***@127.0.0.1:9/optuna can't be used"),
        ("nonsense", "--storage must be the URL of a database"),
        (f"sqlite:///{tmp_path}/tiny.yaml", "can't be used"),
        ("nosql://x/y", "can't be used"),
    ):
        done = command("search", str(path), "--storage", url)
        assert done.returncode == 2
        assert said in done.stderr
        assert "secret" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


def wait_for(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def states_of(mlruns: Path) -> Counter[str]:
    """Trials by state, read without Optuna, whose opening of a study would take the launch's processor."""
    try:
        with closing(sqlite3.connect(f"file:{mlruns / 'optuna.db'}?mode=ro", uri=True)) as connection:
            return Counter(state for (state,) in connection.execute("SELECT state FROM trials"))
    except sqlite3.OperationalError:  # not yet there
        return Counter()


@pytest.mark.parametrize(
    "how",
    [signal.SIGKILL, signal.SIGINT, signal.SIGTERM],
)
@pytest.mark.slow
def test_a_search_that_was_stopped_ends_with_the_trials_that_were_asked_for(
    mlruns: Path, tmp_path: Path, command: Command, how: signal.Signals
) -> None:
    """None lost, none doubled; those that were running keep their numbers and parameters."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SEARCH.replace("epochs: 2", "epochs: 25").replace("trials: 5", "trials: 3"))
    words = [sys.executable, "-m", "experiments", "search", str(path), "--experiment", "tiny", "--mlruns", str(mlruns)]
    words += ["--workers", "0"]
    with running([*words, "--checkpoint-every", "0"]) as process:
        wait_for(lambda: states_of(mlruns)["COMPLETE"] >= 1 and states_of(mlruns)["RUNNING"] == 1)
        wait_for(lambda: list(mlruns.glob("checkpoints/*/*/last.safetensors")))
        process.send_signal(how)
        process.communicate(timeout=60)
    before = {t.number: t.params for t in study(mlruns).trials}
    assert states_of(mlruns)["RUNNING" if how == signal.SIGKILL else "WAITING"] == 1
    done = command("search", str(path), "--experiment", "tiny", "--workers", "0")
    assert done.returncode == 0, done.stderr
    trials = study(mlruns).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert {number: trials[number].params for number in before} == before
    runs = [run for run in opened(mlruns).runs() if "trial" in run.tags]
    assert sorted(run.tags["trial"] for run in runs) == ["0", "1", "2"]
    for run in runs:
        steps = [epoch for epoch, _ in opened(mlruns).history(run.run_id, "validation_error")]
        assert steps == list(range(1, 26))


@pytest.mark.slow
def test_a_time_budget_ends_a_search(mlruns: Path) -> None:
    searched(mlruns, GRIDLESS.replace("trials: 5", "time_budget: 3s"))
    count, spent = len(study(mlruns).trials), study(mlruns).user_attrs["seconds"]
    assert count >= 1
    assert spent >= 3
    searched(mlruns, GRIDLESS.replace("trials: 5", "time_budget: 3s"))
    assert len(study(mlruns).trials) == count


@pytest.mark.slow
def test_four_workers_and_a_study_in_postgresql(postgres: str, mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    with choose(4, 1.0, "", "cpu", 14) as engine:
        found = searched(mlruns, PRUNING, url=postgres, engine=engine)
    assert (found.failed, found.untold, found.unfinished) == ([], [], 0)
    found = study(mlruns, url=postgres)
    trials = found.trials
    assert len(trials) == 14
    states = Counter(trial.state for trial in trials)
    # which are pruned, if any, depends on what four workers have told when
    assert states.keys() <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert states[TrialState.COMPLETE] >= 2
    assert all(trial.intermediate_values for trial in trials)
    numbers = [int(number) for run in opened(mlruns).runs() for number in run.tags["trial"].split(", ")]
    assert sorted(numbers) == list(range(14))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Optuna's connection to a file without tables
def test_a_worker_trains_on_when_the_storage_is_away(mlruns: Path) -> None:
    """And reports what was missed when it is back."""
    searched(mlruns, PRUNING.replace("trials: 14", "trials: 1"))
    search = parse_search(PRUNING, "tiny", "tiny.yaml")
    url, file = f"sqlite:///{mlruns / 'optuna.db'}", mlruns / "optuna.db"
    with closing(Study.open(search, url, "tiny", mlruns, opened(mlruns).key)) as begun:
        begun.begin()
        trial = begun.ask()
        assert trial is not None
        watch = begun.watch(trial)
    assert isinstance(watch, Watch)
    watched = watch.open()
    assert watched is not None
    assert not watched.prunes([50.0])
    watched.close()
    content = file.read_bytes()
    assert file.read_bytes() == content
    for path in mlruns.glob("optuna.db*"):
        path.rename(path.with_name("away" + path.name[len("optuna.db") :]))
    while_away = watch.open()
    assert while_away is None or not while_away.prunes([50.0, 40.0])
    if while_away:
        while_away.close()
    for path in mlruns.glob("optuna.db*"):
        path.unlink()
    for path in mlruns.glob("away*"):
        path.rename(path.with_name("optuna.db" + path.name[len("away") :]))
    watched = watch.open()
    assert watched is not None
    watched.prunes([50.0, 40.0, 30.0])
    watched.close()
    assert study(mlruns).trials[trial.number].intermediate_values == {1: 50.0, 2: 40.0, 3: 30.0}


@pytest.mark.slow
def test_two_launches_of_a_search_are_refused(mlruns: Path, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SEARCH.replace("epochs: 2", "epochs: 9000"))
    words = [sys.executable, "-m", "experiments", "search", str(path), "--experiment", "tiny", "--mlruns", str(mlruns)]
    words += ["--workers", "0"]
    with running(words) as process:
        wait_for(lambda: list(mlruns.glob("checkpoints/*/*/history.jsonl")))
        done = command("search", str(path), "--experiment", "tiny")
        assert done.returncode == 2
        assert "another launch of experiment 'tiny' is going on" in done.stderr
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert "0 trials have ended; the same command goes on from there" in errors
    assert isinstance(out, (str, bytes))


@pytest.mark.slow
def test_a_search_without_confirmation_has_no_table_and_that_is_no_error(mlruns: Path, tmp_path: Path) -> None:
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 1"))
    words = [sys.executable, "-m", "analysis", "tiny", "--mlruns", str(mlruns), "--results", str(tmp_path / "results")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "holds 1 runs of a search's trials, and no trial is confirmed yet" in done.stdout


@pytest.mark.slow
def test_sync_ends_the_run_of_a_search_that_nobody_is_at(mlruns: Path, command: Command) -> None:
    searched(mlruns, GRIDLESS.replace("trials: 5", "trials: 1"))
    store = opened(mlruns)
    [parent] = store.client.search_runs([store.experiment_id], "tags.kind = 'search'")
    store.client.update_run(parent.info.run_id, status="RUNNING")
    assert command("sync").returncode == 0
    assert store.client.get_run(parent.info.run_id).info.status == "KILLED"


def test_the_search_of_the_document_is_one() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "search.md").read_text(), re.DOTALL)
    [text] = [block for block in blocks if "space:" in block]
    assert parse_search(text, "search", "docs/search.md").trials == 50


@pytest.mark.slow
def test_a_time_budget_ends_a_search_of_a_finite_space_too(mlruns: Path) -> None:
    """Trials that repeat earlier ones take no time, and there would be no end of them."""
    text = GRIDLESS.replace("  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n", "")
    searched(mlruns, text.replace("trials: 5", "time_budget: 60s"))
    assert len(list(opened(mlruns).runs())) == 2
    assert len(study(mlruns).trials) < 150


def test_a_study_of_another_experiment_is_refused(mlruns: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    searched(mlruns, GRIDLESS, url=url)
    (other := tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"study 'tiny' in .* belongs to another experiment, in another tracking store"):
        searched(other, GRIDLESS, url=url)


@pytest.mark.parametrize(
    ("dataset", "error", "crowned"),
    [("digits", "5.1", True), ("digits", "5.0", True), ("digits", "4.9", False), ("mnist", "0.1", True)],
)
def test_a_model_reigns_unless_a_better_one_of_its_data_set_does(mlruns: Path, monkeypatch, dataset, error, crowned) -> None:
    from experiments import champion
    from tests.experiments.conftest import TINY, launched

    launched(mlruns, TINY.replace("seeds: 2", "seeds: 1").replace("[1, 3]", "[1]"))
    store = opened(mlruns)
    [run] = store.runs()
    client = store.client
    monkeypatch.setattr(champion, "_register", registered)
    client.create_registered_model("capsnet")
    tags = {"dataset": dataset, "validation_error": error}
    reigning = client.create_model_version("capsnet", f"runs:/{run.run_id}/model", None, tags=tags)
    client.set_registered_model_alias("capsnet", "champion", reigning.version)
    champion.crown(store, run, run.config, {"validation_error": "5.0"})
    assert (client.get_model_version_by_alias("capsnet", "champion").version != reigning.version) == crowned


def registered(store, run, config, tags):
    """A version without the model itself, of which the export takes seconds."""
    return store.client.create_model_version(
        "capsnet", f"runs:/{run.run_id}/model", run.run_id, tags={"dataset": config.dataset, **tags}
    )


@pytest.mark.slow
def test_a_worse_or_older_model_dethrones_nobody(mlruns: Path) -> None:
    from experiments import champion

    searched(mlruns, SEARCH)
    client = opened(mlruns).client
    first = client.get_model_version_by_alias("capsnet", "champion")
    # as if a better one had been registered meanwhile
    better = client.create_model_version("capsnet", first.source, None, tags={"dataset": "digits", "validation_error": "0.1"})
    client.set_registered_model_alias("capsnet", "champion", better.version)
    searched(mlruns, SEARCH)
    assert client.get_model_version_by_alias("capsnet", "champion").version == better.version
    searched(mlruns, SEARCH, "other")
    assert client.get_model_version_by_alias("capsnet", "champion").version == better.version
    assert champion.MODEL == "capsnet"
    client.set_model_version_tag("capsnet", better.version, "validation_error", "99.9")
    searched(mlruns, SEARCH.replace("trials: 5", "trials: 2"), "third")
    assert client.get_model_version_by_alias("capsnet", "champion").tags["experiment"] == "third"


def test_a_search_of_which_nothing_is_complete_fails(mlruns: Path) -> None:
    found = searched(mlruns, DIVERGING.replace("[1e-3, 1e35]", "[1e34, 1e35]").replace("top: 0", "top: 1"))
    assert found.failed == ["no trial was complete, so that there is nothing to confirm"]


def test_a_run_that_settled_before_its_worker_died_is_not_trained_again(mlruns: Path) -> None:
    """The launch that lost the outcome hands the same job out again."""
    from experiments import jobs, worker
    from experiments.sources import parse_grid
    from tests.experiments.conftest import TINY

    store = opened(mlruns)
    cell, config = next(iter(parse_grid(TINY, "tiny", "tiny.yaml").configs))
    place = jobs.Place(store, mlruns / "checkpoints" / store.key, "tiny", "", Path("nowhere"), "cpu", 0.0)
    job = jobs.Job(cell, config)
    first, second = worker.run(job, place), worker.run(job, place)
    assert first.run_id == second.run_id
    assert (first.test_error, first.values, first.history) == (second.test_error, second.values, second.history)
    assert len(list(store.runs())) == 1
    worker.acknowledge(job, place)
    assert not list((mlruns / "checkpoints").glob("*/[!.]*"))


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ([47.76, 51.083, 54.406], "51.1 ± 3.3"),
        ([0.25, 0.26, 0.29], "0.267 ± 0.021"),
        ([2.5, 2.5], "2.50 ± 0.00"),
        ([2.5], "2.50"),
        ([], "-"),
    ],
)
def test_confirmed_errors_have_the_digits_that_their_deviation_bears(errors: list[float], shown: str) -> None:
    """As the tables of the analysis have it."""
    configs = tuple(RunConfig(seed=seed) for seed in range(3))
    known = {
        config: TrackedRun(str(config.seed), "FINISHED", {}, {"test_error": error}, {}, 0, 1)
        for config, error in zip(configs, errors, strict=False)
    }
    table = searching._table(Grid("g", "", "", (Cell("c", configs),)), known)
    assert [*table.columns[3].cells] == [shown]
    assert [*table.columns[1].cells] == ["3" if len(errors) == 3 else f"{len(errors)} of 3"]
