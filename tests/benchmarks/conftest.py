"""A network that trains in milliseconds, and findings that were measured of it."""

from collections.abc import Callable

import pytest
import torch

from benchmarks.measure import Scale
from capsnet.config import RunConfig

torch.set_num_threads(1)  # these networks are small, and two threads that share a core with others wait for each other

SMALL = {
    "dataset": "digits",
    "augmentation": "shift(pixels=1)",
    "validation_size": 0,
    "conv_channels": 8,
    "conv_kernel": 5,
    "primary_types": 3,
    "primary_dim": 4,
    "primary_kernel": 5,
    "class_dim": 6,
    "decoder_hidden": (16, 24),
    "batch_size": 32,
    "test_batch_size": 50,
}
LITTLE = Scale(
    images=64,
    textbook_images=32,
    test_images=50,
    sweep_images=64,
    values={"batch_size": (16, 32), "routing_iterations": (1, 3), "primary_types": (3, 4)},
    processes=(1, 2, 64),
    window=0.05,
    square=64,
    copied=2**20,
    rounds=2,
)


@pytest.fixture(scope="session")
def small() -> Callable[..., RunConfig]:
    """(field=value, ...) -> the small config with these changed."""
    return lambda **changes: RunConfig(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def paper() -> RunConfig:
    """The paper's network."""
    return RunConfig()


@pytest.fixture(scope="session")
def cpu() -> torch.device:
    return torch.device("cpu")
