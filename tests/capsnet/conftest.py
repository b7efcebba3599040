"""A capsule network small enough to train in a fraction of a second, on the embedded digits."""

import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from capsnet import products
from capsnet.config import RunConfig
from capsnet.data import Data, read
from tests.kernel_memory import watched_kernels
from tests.triton_kernels import GPU, INTERPRETED

torch.set_num_threads(1)  # these networks are small, and two threads that share a core with others wait for each other

TINY = {
    "dataset": "digits",
    "train_size": 100,
    "validation_size": 60,
    "augmentation": "shift(pixels=1)",
    "conv_channels": 8,
    "conv_kernel": 5,
    "primary_types": 2,
    "primary_dim": 4,
    "primary_kernel": 5,
    "class_dim": 4,
    "decoder_hidden": (16,),
    "epochs": 2,
    "batch_size": 32,  # 4 steps, the last of 4 images
    "learning_rate": 3e-3,
    "lr_schedule": "one_cycle",
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """(field=value, ...) -> the tiny config with these changed."""
    return lambda **changes: RunConfig(**{**TINY, **changes})


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """The tiny config on a command line."""
    flags = ["--device", "cpu"]
    for name, value in TINY.items():
        flags += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return flags


@pytest.fixture(scope="session")
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="session")
def data_of(cpu: torch.device) -> Callable[[RunConfig], Data]:
    """The data of a config on digits, which needs no folder."""
    return lambda config: read(config, Path("/nowhere"), cpu)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's mirrors are a port of this machine at which nobody listens."""
    from torchvision import datasets

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [address])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}cifar.tar.gz")
    listed = {part: [address + file, file, md5] for part, (_, file, md5) in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="test_in_the_interpreter runs it")),
        pytest.param("cuda", marks=GPU),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where Triton kernels run. Memory that is not written holds NaN; what they do with it in the interpreter is watched."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    with watched_kernels() if request.param == "cpu" else nullcontext():
        yield torch.device(request.param)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was asked for; none on a machine whose PyTorch hasn't got both libraries."""
    if not products._has_onednn():
        pytest.skip("this PyTorch has one library")
    shapes: list[tuple[int, ...]] = []
    operator = torch.ops.mkldnn._linear_pointwise

    def recorded(left: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
        shapes.append((*left.shape, len(weight)))
        return operator(left, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", recorded)
    return shapes
