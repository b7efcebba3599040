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
from jaxtyping import Float
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from safetensors.torch import load_file
from torch import Tensor, nn

from capsnet.config import RunConfig
from capsnet.models import CapsuleNetwork
from experiments.tracking import Store, TrackedRun

MODEL, ALIAS = "capsnet", "champion"


class _Scores(nn.Module):
    """Images to the lengths of the class capsules: all that a prediction needs."""

    def __init__(self, network: CapsuleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The largest length is the prediction."""
        return self.network.scores(images)


def crown(store: Store, run: TrackedRun, config: RunConfig, tags: Mapping[str, str]) -> str:
    """Register a finished run's model and give it the alias; a run that is registered already keeps its version.

    Args:
        store: that holds the run.
        run: whose weights are taken.
        config: the run's.
        tags: of the version.

    Returns:
        The version.
    """
    client = store.client
    try:
        client.get_registered_model(MODEL)
    except MlflowException:
        client.create_registered_model(
            MODEL, description="The best confirmed capsule network of a search: class lengths of images."
        )
    found = [made for made in client.search_model_versions(f"name = '{MODEL}'") if made.run_id == run.run_id]
    if not found:
        with TemporaryDirectory() as folder:
            weights = store.client.download_artifacts(run.run_id, "weights.safetensors", folder)
            _export(Path(weights), config, Path(folder) / "model")
            client.log_artifacts(run.run_id, str(Path(folder) / "model"), "model")
        told = {**tags, "dataset": config.dataset, "config": json.dumps(config.to_params())}
        found = [client.create_model_version(MODEL, f"runs:/{run.run_id}/model", run.run_id, tags=told)]
    number = str(found[0].version)
    client.set_registered_model_alias(MODEL, ALIAS, number)
    return number


def reigning(store: Store) -> str:
    """What has the alias now, in words; empty if nothing has."""
    try:
        found = store.client.get_model_version_by_alias(MODEL, ALIAS)
    except MlflowException:
        return ""
    return (
        f"version {found.version} ({found.tags.get('search', 'made by hand')} on {found.tags.get('dataset', 'unknown data')})"
    )


def _export(weights: Path, config: RunConfig, folder: Path) -> None:
    network = CapsuleNetwork(config)
    network.load_state_dict(load_file(weights))
    shape, classes = config.facts.shape, config.facts.classes
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]), Schema([TensorSpec(np.dtype("float32"), (-1, classes))])
    )
    example = np.zeros((2, *shape), np.float32)
    mlflow.pytorch.save_model(
        _Scores(network).eval(),
        str(folder),
        signature=signature,
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[f"torch=={version('torch')}"],
    )
