"""Where numbers come from: experiments and their stores, commits, data, seeds, machines; and where their runs can be seen."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pandas as pd

from analysis.runs import Runs
from analysis.sentences import count
from experiments import stores as addresses
from experiments.tracking import Store

LOCAL = "http://127.0.0.1:5000"  # where make ui serves
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Origin:
    """What runs have in common, or not: its name, each value with the number of its runs, and which values raise doubts."""

    name: str
    entries: Sequence[tuple[str, str]]
    doubts: Mapping[str, str]  # value -> what is wrong with it


def origins(found: Runs) -> list[Origin]:
    """All that is known of where the runs come from."""
    began = found.runs[found.runs["run_id"].notna()]
    data, doubts = _data(found.data[run_id] for run_id in began["run_id"] if run_id in found.data)
    seeds = sorted({int(seed) for seed in found.runs["seed"]})
    last = pd.to_datetime(began["ended"], utc=True).max()
    commits = _counted(began["git_commit"].fillna(UNKNOWN))
    dirty = {value: "the code was changed since this commit" for value, _ in commits if "dirty" in value}
    known = [
        _listed("Experiment", (f"{name} (number {store.experiment_id} in MLflow)" for name, store in found.stores.items())),
        _listed("Tracking store", sorted({store.shown for store in found.stores.values()})),
        Origin("Code", commits, {**dirty, UNKNOWN: "the code was in no git checkout"}),
        Origin("Data", data, doubts),
        _listed("Seeds", [", ".join(map(str, seeds))]),
        Origin("Hardware", _counted(began["hardware"].fillna(UNKNOWN)), {}),
        Origin("Versions", _counted(began["versions"].fillna(UNKNOWN)), {}),
        _listed("Last run ended", [] if pd.isna(last) else [f"{last:%Y-%m-%d %H:%M:%S} UTC"]),
    ]
    left_out = sorted(found.left_out)
    if found.repeated:
        left_out.append(f"{found.repeated} finished runs of configs for which an earlier one speaks")
    beside = [f"{count(found.unplanned, 'run')} of configs that no grid here has any more"] if found.unplanned else []
    listed = [*known, _listed("Left out", left_out), _listed("Beside the grid", beside)]
    return [origin for origin in listed if origin.entries]


def user_interface(store: Store) -> str:
    """The address of MLflow's user interface for a store, without user and password."""
    if not addresses.is_server(store.uri):
        return LOCAL
    parts = urlsplit(store.uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def run_address(store: Store, run_id: str) -> str:
    """Where a run can be seen."""
    place = f"experiments/{quote(store.experiment_id, safe='')}/runs/{quote(run_id, safe='')}"
    return f"{user_interface(store)}/#/{place}?workflowType=machine_learning"  # MLflow's pages for training


def _listed(name: str, values: Iterable[str]) -> Origin:
    return Origin(name, [(value, "") for value in values], {})


def _counted(values: Iterable[str]) -> list[tuple[str, str]]:
    """Each value, with the number of runs that have it if they have not all the same."""
    counts = Counter(values)
    several = len(counts) > 1
    return [(value, f"{counts[value]} run{'s' * (counts[value] > 1)}" if several else "") for value in sorted(counts)]


def _data(read: Iterable[Sequence[tuple[str, str]]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The data sets that runs have read, and those of which there are several of one name."""
    sources = list(itertools.chain(*read))
    names = Counter(data for data, _ in set(sources))
    shown = {pair: f"{pair[0]}, SHA-256 {pair[1]}" for pair in sources}
    doubts = {text: f"other runs read other data of the name {data}" for (data, _), text in shown.items() if names[data] > 1}
    return _counted(shown[pair] for pair in sources), doubts
