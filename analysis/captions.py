"""What stands above and below a table: what is the same in all of it, whose numbers are beside ours, where ours come from."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.axes import axes_read, constants, dictated
from analysis.cells import Cell, outcomes
from analysis.fields import legend, name_of, named, text_of, value_text
from analysis.published import Published
from analysis.where import beside_the_grid, told
from capsnet.origin import shortened

if TYPE_CHECKING:
    from analysis.comparisons import Comparisons

MODEL_TITLES = {
    "capsnet": "CapsNet",
    "cnn": "Baseline CNN",
    "cnn_matched": "CNN, matched",
}  # names in tables, if not the registry's
TABLE1 = ("model", "routing_iterations", "reconstruction_weight")  # the paper's columns, whether they vary or not
DATASETS = {"mnist": "MNIST", "multimnist": "MultiMNIST"}
# what a published cell may differ in
PROTOCOL = ("epochs", "batch_size", "learning_rate", "lr_schedule", "precision", "validation_size")


def footer(runs: pd.DataFrame) -> str:
    """Where the numbers come from: experiment, commit, seeds, runs, and when the last one ended."""
    commits = sorted({shortened(commit) for commit in runs["git_commit"].dropna() if commit})
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    consecutive = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    last = pd.to_datetime(runs["ended"], utc=True).max()
    parts = [
        f"Experiment {_experiments(runs)}",
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits) or 'unknown'}",
        f"seed{'s' * (len(seeds) > 1)} {f'{seeds[0]} to {seeds[-1]}' if consecutive else ', '.join(map(str, seeds))}",
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {int((outcomes(runs) == 'finished').sum())} finished",
        *_filter(runs),
        *([f"{beside} of configs that no grid here has any more"] if (beside := beside_the_grid(runs)) else []),
        "no run has ended" if pd.isna(last) else f"last run ended {last:%Y-%m-%d %H:%M} UTC",
    ]
    editions = runs.groupby("dataset")["data_sha256"].nunique()
    return "; ".join(parts) + "." + "".join(_mixed(str(name), int(count)) for name, count in editions.items())


def _mixed(dataset: str, digests: int) -> str:
    """What is to be known of a mean over runs that read different files."""
    if digests < 2:
        return ""
    return f" Runs read {digests} different editions of {dataset}: means are of all, and only runs of one are compared."


def published_text(entry: Published) -> str:
    """As printed by its authors, whose digits are not ours to change."""
    deviation = "" if entry.sd is None else f" ± {text_of(entry.sd)}"
    count = f" (ensemble of {entry.ensemble})" if entry.ensemble else "" if entry.n is None else f" (n={entry.n})"
    return text_of(entry.value) + deviation + count


def published_notes(beside: Iterable[tuple[Cell, Published | None]]) -> list[str]:
    """Each protocol of the numbers that stand beside cells, and what these cells have in its place."""
    runs: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for cell, entry in beside:
        if entry:
            runs.setdefault((entry.source, entry.protocol), []).append(cell.runs)
    return [f"Paper: {source}: {protocol} Here: {_here(pd.concat(own))}." for (source, protocol), own in runs.items()]


def _here(runs: pd.DataFrame) -> str:
    values = {field: runs[field].unique() for field in PROTOCOL}
    return ", ".join(named(k, v[0]) if len(v) == 1 else f"several {name_of(k)}" for k, v in values.items())


def weights(runs: pd.DataFrame) -> list[float]:
    """Those of the reconstruction that there are; of a single one a column says yes or no, and the caption which."""
    return sorted(weight for weight in runs["reconstruction_weight"].unique() if weight)


def weight_texts(runs: pd.DataFrame) -> list[str]:
    """What a caption says of them where columns say yes or no."""
    return [f"Reconstruction: weight {text_of(weight)}." for weight in weights(runs)]


def axis_title(axis: str, yes_or_no: bool) -> str:
    """An axis in the header of a table in the form of Table 1."""
    return "reconstruction" if axis == "reconstruction_weight" and yes_or_no else name_of(axis)


def axis_text(axis: str, means: Mapping[str, Any], yes_or_no: bool) -> str:
    """Its value in a row, a dash where it means nothing to the model.

    Args:
        axis: the axis.
        means: the values of those axes that mean something to the row's model.
        yes_or_no: whether there is one weight of the reconstruction at most.
    """
    if axis not in means:
        return "—"
    value = means[axis]
    if axis == "model":
        return title_of(value)
    return ("yes" if value else "no") if axis == "reconstruction_weight" and yes_or_no else value_text(axis, value)


def same_texts(runs: pd.DataFrame, without: Iterable[str] = ()) -> list[str]:
    """What all runs have in common but for some fields, and what comes with each model and data set; as sentences."""
    same = ", ".join(named(k, v) for k, v in constants(runs).items() if k not in without)
    return [*([f"Constant: {same}."] if same else []), *(f"{text}." for text in _dictations(runs))]


def _dictations(runs: pd.DataFrame) -> list[str]:
    """What comes with each model, and each data set: ``CNN: dropout 0.5``, ``MultiMNIST: augmentation shift(pixels=4)``."""
    said, fields = [], dictated(runs)
    for by in dict.fromkeys(fields.values()):
        for values, part in runs.groupby([*by]):
            means = axes_read(
                dict(zip(by, values, strict=True)) | {field: part[field].iloc[0] for field, of in fields.items() if of == by}
            )
            own = ", ".join(named(k, v) for k, v in means.items() if k not in (*by, *TABLE1, "test_sets"))
            if own:
                said.append(f"{' on '.join(title_of(str(value)) for value in values)}: {own}")
    return said


def title_of(name: str) -> str:
    """A model or a data set as a table calls it."""
    return MODEL_TITLES.get(name) or DATASETS.get(name, name)


def in_brackets(fields: Iterable[str]) -> str:
    """`` (r: routing iterations.)``, of those fields that have a short name; or nothing."""
    names = legend(dict.fromkeys(fields))
    return f" ({names}.)" if names else ""


def _filter(runs: pd.DataFrame) -> list[str]:
    """What the runs were chosen by."""
    if not (where := runs.attrs.get("where")):
        return []
    return [f"only those with {told(where)}, which leaves out {runs.attrs['left_out']}"]


def slug(runs: pd.DataFrame) -> str:
    """The experiments' names as a part of a label, with what the runs were chosen by and compared to: a paper may have both."""
    chosen = (*runs.attrs.get("where", ()), runs.attrs.get("reference", ""))
    name = re.sub(r"[^A-Za-z0-9]+", "-", " ".join([_experiments(runs), *chosen])).strip("-").lower()
    return f"{name}-{hashlib.sha256(repr(chosen).encode()).hexdigest()[:6]}" if any(chosen) else name


def _experiments(runs: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, runs["experiment"].unique())))


def faults_notes(comparisons: "Comparisons") -> list[str]:
    """Says so where predictions are gone."""
    count = len(comparisons.faults)
    return [f"Without the predictions of {count} finished run{'s' * (count > 1)}, which are gone."] if count else []
