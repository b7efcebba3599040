"""Chaos: launch a grid, kill at random whatever takes part in it, launch again, and compare with a launch that was left alone.

Then the same with a search, whose trials depend on what was known when they were asked for: it is to have exactly the trials
that were asked for, each with its run, and each as its run says.

``make chaos KILLS=200`` runs both at length. The victims are real: workers, the launcher, Ray's node, the MLflow server, and
the launcher again by Ctrl-C and by SIGTERM, at moments that a seed chooses.
"""

import argparse
import difflib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import optuna
import pandas as pd
import psutil
import torch
from safetensors.torch import load_file

from capsnet.config import FIELDS
from experiments.known import read_grids, sorted_out
from experiments.sources import parse_grid
from experiments.tracking import Store
from experiments.watch import connected
from tests.services import TrackingServer

LEFT_SECONDS = 3600.0  # for what is left to train when nothing is killed any more: hundreds of runs, after many kills

GRID = """
description: a grid that is short and yet long enough to be killed in
base: {{dataset: digits, train_size: 60, validation_size: 60, augmentation: none, conv_channels: 8, conv_kernel: 5,
  primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 60, batch_size: 20,
  lr_schedule: "plateau(factor=0.5, patience=5)"}}
axes: {{routing_iterations: [1, 3]}}
seeds: {seeds}
"""
SEARCH = """
description: a search that is short and yet long enough to be killed in
base: {{dataset: digits, train_size: 60, validation_size: 300, augmentation: none, conv_channels: 8, conv_kernel: 5,
  primary_types: 2, primary_kernel: 5, decoder_hidden: [16], epochs: 40, batch_size: 20, lr_schedule: constant,
  routing_iterations: 1}}
space:
  learning_rate: {{low: 1e-5, high: 2e-2, log: true}}
  class_dim: {{low: 4, high: 16}}
  routing: [dynamic, uniform]
  routing_iterations: {{low: 1, high: 3, when: {{routing: dynamic}}}}
trials: {trials}
seeds_per_trial: 2
sampler: tpe(n_startup_trials=4)
pruner: median(n_startup_trials=3, n_warmup_steps=10)
confirm: {{top: 2, seeds: 2}}
"""
TIMES = ("seconds", "images_per_second", "train_seconds")  # what differs when the same is trained again
VICTIMS = ("launcher", "worker", "ray node", "server", "ctrl-c", "sigterm")
Say = Callable[[str], object]


class Chaos:
    """A folder, a tracking server, and a launcher that is killed and started again."""

    verb = "run"

    def __init__(self, folder: Path, seed: int, say: Say) -> None:
        self.folder, self.random, self.say = folder, random.Random(seed), say
        self.grid, self.seeds, self.killed = folder / "chaos.yaml", 0, Counter[str]()
        store, artifacts = f"sqlite:///{folder / 'server.db'}", folder / "artifacts"
        self.server = TrackingServer(store, artifacts, folder / "server.log")
        # one thread whoever trains, because bits depend on their number
        self.environment = {**os.environ, "MLFLOW_TRACKING_URI": self.server.uri, "OMP_NUM_THREADS": "1"}

    def run(self, kills: int) -> None:
        """Launch until the grid is finished and so many have been killed; the grid grows as long as some are left to kill."""
        self.server.start()
        launches, failures = 0, 0
        while True:
            if self.killed.total() < kills or not self.seeds:
                self._grow()
            workers, before = self.random.choice([0, 2]), self.killed.total()
            code, printed = self._launch(workers, kills)
            launches += 1
            self.say(f"launch {launches} with {workers} workers ended with {code}; {self.killed.total()} killed so far")
            if code not in (0, 130, -signal.SIGKILL):
                self.say(printed)
            if code == 0 and self.killed.total() >= kills:
                return
            # only what was killed explains a launch that ends badly
            failures = failures + 1 if code != 0 and self.killed.total() == before else 0
            if failures > 2:
                raise AssertionError(f"the grid can't be finished: {printed}")

    def _grow(self) -> None:
        self.seeds += 2
        self.grid.write_text(GRID.format(seeds=self.seeds))

    def _launch(self, workers: int, kills: int) -> tuple[int, str]:
        words = [sys.executable, "-m", "experiments", self.verb, str(self.grid), "--mlruns", str(self.folder / "mlruns")]
        words += ["--experiment", "chaos", "--workers", str(workers), "--checkpoint-every", "0.3"]
        log = self.folder / "launcher.log"
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, env=self.environment, start_new_session=True)
        try:
            while process.poll() is None:
                if self.killed.total() >= kills:
                    process.wait(timeout=LEFT_SECONDS)
                    break
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.random.uniform(1, 12))
                    break
                # whoever was killed less often is likelier to be next: fifteen kills are few for six kinds
                [victim] = self.random.choices(VICTIMS, [(1 + self.killed[kind]) ** -2 for kind in VICTIMS])
                self._kill(victim, process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode, log.read_text(errors="replace")[-2000:]

    def _kill(self, victim: str, process: "subprocess.Popen[bytes]") -> None:
        with suppress(psutil.Error, ProcessLookupError):
            launcher = psutil.Process(process.pid)
            if victim in ("worker", "ray node"):
                what = "ray::" if victim == "worker" else "raylet"
                found = [p for p in launcher.children(recursive=True) if what in "".join(p.cmdline()[:1])]
                if not found:
                    return  # it has no workers, or not yet
                self.random.choice(found).kill()
            elif victim == "server":
                self.server.kill()
                time.sleep(self.random.uniform(0, 4))
                self.server.start()
            elif victim == "ctrl-c":
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.SIGTERM if victim == "sigterm" else signal.SIGKILL)
            self.killed[victim] += 1
            self.say(f"  killed: {victim}")
            if victim in ("ctrl-c", "sigterm"):
                start = time.monotonic()
                process.wait(timeout=60)
                self.say(f"    it ended after {time.monotonic() - start:.1f} s")

    def compare(self) -> str:
        """Raise an AssertionError unless it is what a launch that was left alone gives; else say what was compared."""
        alone = self.folder / "alone"
        environment = {name: value for name, value in self.environment.items() if name != "MLFLOW_TRACKING_URI"}
        words = [sys.executable, "-m", "experiments", self.verb, str(self.grid), "--mlruns", str(alone), "--workers", "0"]
        subprocess.run(words, check=True, capture_output=True, env=environment)
        here, there = Store(self.server.uri, "chaos", *_experiment(self.server.uri)), _opened(alone)
        mine, theirs = _contents(here), _contents(there)
        configs = {config for _, config in parse_grid(self.grid.read_text(), "chaos", "chaos.yaml").configs}
        assert mine.keys() == theirs.keys() == configs, "not one finished run for each config"
        for config, (weights, rows) in mine.items():
            assert rows == theirs[config][1], f"the epochs of {config} are not the same"
            assert all(torch.equal(tensor, theirs[config][0][name]) for name, tensor in weights.items()), "other weights"
        tables = [
            self._tables(folder, variables) for folder, variables in (("mlruns", self.environment), ("alone", environment))
        ]
        for name in tables[0].keys() | tables[1].keys():
            one, other = (found.get(name, b"").decode().splitlines() for found in tables)
            assert one == other, "the tables are not the same to the byte:\n" + "\n".join(difflib.unified_diff(one, other))
        left = [path for path in (self.folder / "mlruns" / "checkpoints").glob("*/*") if not path.name.startswith(".gone")]
        assert not left, f"journals are left over: {left}"
        return f"{len(mine)} runs, their weights, epochs and {len(tables[0])} tables are equal to those of a launch left alone"

    def _tables(self, mlruns: str, environment: dict[str, str]) -> dict[str, bytes]:
        results = self.folder / f"results-{mlruns}"
        words = [sys.executable, "-m", "analysis", "chaos", "--only", "tables", "--mlruns", str(self.folder / mlruns)]
        subprocess.run([*words, "--results", str(results)], check=True, capture_output=True, env=environment)
        when = re.compile(rb"; last run ended [^;.]* UTC")  # the one thing in a table that may differ
        found = {path.name: when.sub(b"", path.read_bytes()) for path in (results / "chaos").iterdir()}
        cells = pd.read_csv(results / "chaos" / "cells.csv", dtype=str)
        found["cells.csv"] = cells.drop(columns="seconds_per_run").to_csv().encode()  # and the time it took
        runs = pd.read_csv(results / "chaos" / "runs.csv", dtype=str)  # and ids of runs and what machines did when
        return found | {"runs.csv": runs[[*FIELDS, "status", "failure", "test_error", "validation_error"]].to_csv().encode()}


class SearchChaos(Chaos):
    """The same with a search, which grows by trials."""

    verb = "search"

    def _grow(self) -> None:
        self.seeds += 6
        self.grid.write_text(SEARCH.format(trials=self.seeds))

    def compare(self) -> str:
        """Raise an AssertionError unless the study, MLflow and the registry tell one story of all trials."""
        store = Store(self.server.uri, "chaos", *_experiment(self.server.uri))
        study = optuna.load_study(study_name="chaos", storage=connected(f"sqlite:///{self.folder / 'mlruns' / 'optuna.db'}"))
        trials, runs = study.get_trials(), {}
        assert [trial.number for trial in trials] == list(range(self.seeds)), "not the trials that were asked for"
        states = Counter(trial.state.name for trial in trials)
        assert states.keys() <= {"COMPLETE", "PRUNED"}, states
        tracked = [run for run in store.runs() if "superseded" not in run.tags]
        known, strangers = sorted_out(tracked)
        assert len(known) == len(tracked), "a config has two runs"
        assert not strangers, strangers
        for run in tracked:
            for number in filter(None, run.tags.get("trial", "").split(", ")):
                runs.setdefault(int(number), []).append(run)
        for trial in trials:
            mine = runs.pop(trial.number)
            history = dict(store.history(mine[0].run_id, "validation_error"))
            if trial.state.name == "COMPLETE":
                assert len(mine) == 2, "a run for each seed"
                assert trial.value == sum(run.metrics["validation_error"] for run in mine) / 2
                assert {run.status for run in mine} == {"FINISHED"}
            else:
                assert [run.tags["trial_state"] for run in mine] == [f"pruned at epoch {len(history)} of 40"]
                assert trial.intermediate_values == history
            for run in mine:
                steps = [epoch for epoch, _ in store.history(run.run_id, "train_loss")]
                assert steps == list(range(1, len(steps) + 1)), "epochs are missing, or there twice"
        assert not runs, "runs of trials that there are not"
        confirmed = {run.run_id: run for run in tracked if "trial" not in run.tags}
        assert {run.status for run in confirmed.values()} == {"FINISHED"}
        grids, _ = read_grids(store)
        [grid] = grids.values()
        wanted = {config for _, config in grid.configs}
        assert wanted <= {config for config, run in known.items() if run.run_id in confirmed}, "not all are confirmed"
        assert len(wanted) == 4
        assert store.client.get_model_version_by_alias("capsnet", "champion").run_id in confirmed
        left = [path for path in (self.folder / "mlruns" / "checkpoints").glob("*/*") if not path.name.startswith(".gone")]
        assert not left, f"journals are left over: {left}"
        return f"{len(trials)} trials ({dict(states)}), their {len(tracked) - len(confirmed)} runs and the champion agree"


def _experiment(uri: str) -> tuple[str, int]:
    from mlflow import MlflowClient

    found = MlflowClient(uri).get_experiment_by_name("chaos")
    return found.experiment_id, found.creation_time


def _opened(folder: Path) -> Store:
    environment = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        store = Store.open("chaos", folder, create=False)
    finally:
        if environment:
            os.environ["MLFLOW_TRACKING_URI"] = environment
    assert store is not None
    return store


def _contents(store: Store) -> dict:
    """Config -> weights and rows of each metric of its finished run; every run is finished and of another config."""
    runs = [run for run in store.runs() if "superseded" not in run.tags]
    assert {run.status for run in runs} == {"FINISHED"}, Counter(run.status for run in runs)
    known, strangers = sorted_out(runs)
    assert len(known) == len(runs), "a config was finished twice"
    assert not strangers, strangers
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (config, run) in enumerate(known.items()):
            names = [name for name in run.metrics if not name.startswith("system/")]
            rows = {name: store.history(run.run_id, name) for name in names}
            rows |= {name: [(epoch, 0.0) for epoch, _ in rows[name]] for name in TIMES}
            (place := Path(folder) / str(number)).mkdir()  # what was read before may still be mapped from its file
            path = store.client.download_artifacts(run.run_id, "weights.safetensors", str(place))
            found[config] = load_file(path), rows
    return found


def chaos(
    folder: Path, kills: int, seed: int = 0, say: Say = lambda line: print(line, flush=True), kind: type[Chaos] = Chaos
) -> Counter[str]:
    """Kill so many times, compare, and return what was killed how often."""
    # a shell's background job ignores Ctrl-C and hands that on: with a handler here, the launches do not
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found = kind(folder, seed, say)
    try:
        found.run(kills)
        say(f"{found.killed.total()} killed: {dict(found.killed)}")
        say(found.compare())
    finally:
        found.server.kill()
    return found.killed


def main() -> None:
    """``python -m tests.chaos --kills 200 --seed 7``: a grid, then a search."""
    example = "Example: python -m tests.chaos --kills 15 --only grid"
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--kills", type=int, default=15, metavar="N", help="of each, the grid and the search (default: 15)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is killed, and when (default: 0)")
    parser.add_argument("--only", choices=["grid", "search"], help="one of the two (default: both)")
    arguments = parser.parse_args()
    for name, kind in (("grid", Chaos), ("search", SearchChaos)):
        if arguments.only in (None, name):
            print(f"a {name}:", flush=True)
            with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
                chaos(Path(folder), arguments.kills, arguments.seed, kind=kind)


if __name__ == "__main__":
    main()
