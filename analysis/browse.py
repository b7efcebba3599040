"""What MLflow's pages show of an experiment: a description with its table, and views whose columns are what was varied.

MLflow keeps all of it as tags of the experiment. A view is what its "Save as new view" keeps: filter, order, columns, grouping.
Its page has it under "Views", and an address may name it. Without one, MLflow shows a grid's run folded up, and no result.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.axes import varying
from capsnet.errors import brief
from experiments import stores
from experiments.client import FAULTS
from experiments.record import KIND
from experiments.tracking import NOTE, NOTE_LENGTH

if TYPE_CHECKING:
    from analysis.report import Asked
    from analysis.runs import Runs

SHARED, DOMAIN = "mlflow.sharedViewState.", "mlflow.experimentKind"  # the latter chooses MLflow's pages for training
RUNS, MEANS = "runs", "means"  # the views' keys in addresses


def address(experiment_id: str) -> str:
    """The page of all runs, to be put behind the server's address."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={RUNS}"


def log(found: "Runs", asked: "Iterable[Asked]", table: str) -> list[str]:
    """Tag each experiment; say where that failed, and why.

    Args:
        found: the runs.
        asked: the grids.
        table: in Markdown.
    """
    faults, grids = [], list(asked)
    for name, store in found.stores.items():
        try:
            if not store.answers():
                raise ConnectionError(f"{store.shown} does not answer")
            own = {grid.name: "\n\n".join(grid.paragraphs) for grid in grids if grid.experiment == name}
            store.describe(tags(found.runs, own, table, store.made))
        except FAULTS as error:
            faults.append(f"the experiment {name} is not described in MLflow: {stores.shown(brief(error))}")
    return faults


def tags(runs: pd.DataFrame, grids: Mapping[str, str], table: str, made: int) -> dict[str, str]:
    """The experiment's tags.

    Args:
        runs: one row per run.
        grids: name -> description of what was launched into the experiment.
        table: in Markdown.
        made: when the experiment was, in milliseconds.
    """
    views = {RUNS: ("All runs, by configuration", view(runs)), MEANS: ("Means over seeds", means(runs))}
    saved = {
        SHARED + key: json.dumps({"name": name, "createdAt": made, "updatedAt": made, "state": json.dumps(state)})
        for key, (name, state) in views.items()
    }
    return {NOTE: note(grids, table), DOMAIN: "custom_model_development", **saved}


def note(grids: Mapping[str, str], table: str) -> str:
    """The description: what was asked, and what came out."""
    asked = "\n\n".join(f"{name}: {description.strip()}" for name, description in grids.items())
    where = "\n\n".join(f"The whole report, with figures, is an artifact of the run *{name}*." for name in grids)
    whole = f"{asked}\n\n{table.strip()}\n\n{where}"
    if len(whole) <= NOTE_LENGTH:
        return whole
    return f"{asked[: NOTE_LENGTH // 2]}\n\nThe table is too long for this page.\n\n{where}"


def view(runs: pd.DataFrame) -> dict[str, Any]:
    """Runs without their parents, by name, so that the seeds of a configuration stand together; results first, then axes."""
    axes = [f"params.`{axis}`" for axis in [*varying(runs), "seed"]]
    return {
        "searchFilter": f"tags.{KIND} = 'run'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": ["metrics.`test_error`", "metrics.`validation_error`", *axes],
        "runsHiddenMode": "SHOW_ALL",
    }


def means(runs: pd.DataFrame) -> dict[str, Any]:
    """The same, folded up to one line per configuration with the means of its runs."""
    keys = [{"mode": "param", "groupByData": axis} for axis in varying(runs)]
    return {**view(runs), "groupBy": {"aggregateFunction": "average", "groupByKeys": keys} if keys else None}
