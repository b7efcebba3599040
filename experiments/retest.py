"""Finished networks tested on further test sets, without being trained again: the errors join those that their runs have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from capsnet import further, test_sets
from capsnet.config import RunConfig, make_config
from capsnet.data import Data, read
from capsnet.errors import InputError
from capsnet.models import restored
from capsnet.training import DivergedError, evaluate
from experiments.client import answering
from experiments.journal import FILES
from experiments.known import by_config, is_finished
from experiments.provenance import git_commit
from experiments.record import FURTHER, TRIAL, DataSource, TrackedRun
from experiments.runlog import tell
from experiments.tracking import Store

NEAR = 0.1  # points of error that a network may have more or less than when it was trained, as on another machine


@dataclass(frozen=True)
class Tested:
    """What came of one run: errors in percent by test set, or why there are none."""

    run: TrackedRun
    config: RunConfig
    errors: Mapping[str, float]
    fault: str = ""


def finished(store: Store, names: Sequence[str]) -> dict[RunConfig, TrackedRun]:
    """The finished run that speaks for each config; a search's trials are in no table, and are left out.

    Raises:
        InputError: there is none, or a test set doesn't fit the images of one.
    """
    known = by_config(run for run in store.runs() if TRIAL not in run.tags)
    found = {config: run for config, run in known.items() if is_finished(run)}
    if not found:
        raise InputError(f"experiment {store.name!r} has no finished run to test")
    for config, run in found.items():
        wanted = test_sets.in_order([*config.test_sets, *names])
        make_config({**dict(config), "test_sets": tuple(wanted)}, f"run {run.run_id[:8]} of {store.name}")
    return found


def lacking(runs: Mapping[RunConfig, TrackedRun], names: Sequence[str]) -> dict[RunConfig, tuple[TrackedRun, list[str]]]:
    """Those that have no error on some of the test sets, with these."""
    missing = {config: [name for name in names if f"{FURTHER}{name}" not in run.metrics] for config, run in runs.items()}
    return {config: (runs[config], without) for config, without in missing.items() if without}


def retest(
    store: Store, wanted: Mapping[RunConfig, tuple[TrackedRun, list[str]]], folder: Path, device: torch.device
) -> Iterator[Tested]:
    """Test each run on what it has no error on, and tell MLflow of it, run after run.

    Raises:
        InputError: the files of a data set can't be read, or the tracking store has gone away.
    """
    for config, (run, names) in wanted.items():
        data = read(config, folder, device)
        try:
            with TemporaryDirectory() as fetched:
                weights = store.artifact(run.run_id, FILES[0], Path(fetched))
                errors = _errors(config, run, weights, names, data, folder)
        except (InputError, DivergedError) as error:
            yield Tested(run, config, {}, str(error))
            continue
        metrics = {f"{FURTHER}{name}": error for name, (error, _) in errors.items()}
        with answering(store.uri):
            tell(store, run, metrics, [source for _, source in errors.values()], git_commit())
        yield Tested(run, config, {name: error for name, (error, _) in errors.items()})


def _errors(
    config: RunConfig, run: TrackedRun, weights: Path, names: Sequence[str], data: Data, folder: Path
) -> dict[str, tuple[float, DataSource]]:
    """Test set -> the network's error, and what it was read from.

    Raises:
        InputError: the run read other data than these, or its weights are damaged, or don't give the network that was tested.
    """
    if run.data and run.data[0][1] != data.digest:
        raise InputError(
            f"it read {config.dataset} of SHA-256 {run.data[0][1][:16]}, and the files in {folder} have {data.digest[:16]}"
        )
    network = restored(config, weights).to(data.test.images.device)
    own, before = evaluate(network, data.test, config.test_batch_size).error, run.metrics["test_error"]
    if abs(own - before) > NEAR:
        raise InputError(
            f"its network has a test error of {own:.2f} % here, and had {before:.2f} %: the code that tests it is other"
        )
    found = {}
    for name in names:
        split, digest = further.split(name, folder, data.test, network)
        source = DataSource(name, digest, str(folder), {"test": len(split)})
        found[name] = (evaluate(network, split, config.test_batch_size).error, source)
    return found
