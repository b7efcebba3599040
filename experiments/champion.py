"""The best confirmed model of a search, in MLflow's registry: ``mlflow.pytorch.load_model("models:/capsnet@champion")``.

What is registered is a program of torch.export with its weights: no pickle, and no code of this project is needed to load it.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pytorch
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from capsnet.config import RunConfig
from capsnet.models import restored
from capsnet.program import Scores
from experiments.record import TrackedRun
from experiments.tracking import Store

MODEL, ALIAS = "capsnet", "champion"


def crown(store: Store, run: TrackedRun, config: RunConfig, tags: Mapping[str, str]) -> str:
    """Register a finished run's model, and give it the alias unless a better one of the same data set has it.

    A run that is registered already keeps its version, and the alias stays where it is: a search that is launched again
    dethrones nobody.

    Args:
        store: that holds the run.
        run: whose weights are taken.
        config: the run's.
        tags: of the version.

    Returns:
        What came of it, in words.
    """
    client = store.client
    found = next((made for made in _versions(client) if made.run_id == run.run_id), None)
    reigning = _reigning(client)
    if found and reigning:
        has = "which is" if reigning.version == found.version else f"while {_told(reigning)} is"
        return f"registered as {MODEL} version {found.version}, {has} models:/{MODEL}@{ALIAS}"
    made = found or _register(store, run, config, tags)
    if reigning and reigning.tags.get("dataset") == config.dataset and _error(reigning.tags) < _error(made.tags):
        return f"registered as {MODEL} version {made.version}; {_told(reigning)} is better and stays models:/{MODEL}@{ALIAS}"
    client.set_registered_model_alias(MODEL, ALIAS, str(made.version))
    instead = f", instead of {_told(reigning)}" if reigning else ""
    return f"registered as models:/{MODEL}@{ALIAS}, version {made.version}{instead}"


def _versions(client: MlflowClient) -> list[ModelVersion]:
    try:
        client.get_registered_model(MODEL)
    except MlflowException:
        client.create_registered_model(MODEL, description="The best confirmed capsule networks of searches: images to lengths.")
    return list(client.search_model_versions(f"name = '{MODEL}'"))


def _reigning(client: MlflowClient) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(MODEL, ALIAS)
    except MlflowException:
        return None


def _register(store: Store, run: TrackedRun, config: RunConfig, tags: Mapping[str, str]) -> ModelVersion:
    with TemporaryDirectory() as folder:
        weights = store.client.download_artifacts(run.run_id, "weights.safetensors", folder)
        _export(Path(weights), config, Path(folder) / "model")
        store.client.log_artifacts(run.run_id, str(Path(folder) / "model"), "model")
    told = {**tags, "dataset": config.dataset, "config": json.dumps(config.to_params())}
    errors = {name: run.metrics[name] for name in ("validation_error", "test_error") if name in run.metrics}
    told |= {name: repr(error) for name, error in errors.items()}
    shown = ", ".join(f"{name.replace('_', ' ')} {error:.2f} %" for name, error in errors.items())
    summary = f"{tags['cell']}, trained on {config.dataset}: {shown}. From images in [0, 1] to the lengths of class capsules."
    source = f"runs:/{run.run_id}/model"
    return store.client.create_model_version(MODEL, source, run.run_id, tags=told, description=summary)


def _error(tags: Mapping[str, str]) -> float:
    return float(tags.get("validation_error", "inf"))


def _told(version: ModelVersion) -> str:
    tags = version.tags
    error = f", validation error {_error(tags):.2f} %" if "validation_error" in tags else ""
    return f"version {version.version} (search {tags.get('search', 'unknown')} on {tags.get('dataset', 'unknown data')}{error})"


def _export(weights: Path, config: RunConfig, folder: Path) -> None:
    network = restored(config, weights)
    shape, classes = config.shape, config.facts.classes
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]), Schema([TensorSpec(np.dtype("float32"), (-1, classes))])
    )
    example = np.zeros((2, *shape), np.float32)
    mlflow.pytorch.save_model(
        Scores(network).eval(),
        str(folder),
        signature=signature,
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[f"torch=={version('torch')}"],
    )
