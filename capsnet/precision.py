"""What matrix products multiply, as ``RunConfig.precision`` says; all else is float32 whatever it says.

Products sum in float32 or better. Weights, Adam's moments, squash, routing and losses are float32: only the operands of
convolutions and fully connected layers are rounded, and what they make, where a sum of many terms averages the rounding out. A
convolution in the frequency domain rounds transforms and products, too, and is off by one and a half times as much.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from capsnet.config import RunConfig
from capsnet.errors import InputError

OPERANDS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
SLOWER = 1.1  # times as long: what is less may be chance
SLOW = 0.2  # seconds of a product that takes 10 ms in float32


def require(config: RunConfig, device: torch.device) -> None:
    """Refuse a precision that the device hasn't.

    Raises:
        InputError: it says what there is instead.
    """
    if device.type == "cpu":
        if config.precision == "tf32":
            raise InputError("precision tf32 is for CUDA devices, and this is a CPU; choices here: fp32, bf16")
    elif config.precision != "fp32" and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise InputError(
            f"precision {config.precision} needs a GPU of compute capability 8.0, which {name} is not; choices: fp32"
        )


def remarks(configs: Iterable[RunConfig], device: torch.device) -> list[str]:
    """A line if bf16 is slower on the device than the float32 that it replaces: some CPUs have no or slow units for it."""
    if device.type != "cpu" or not any(config.precision == "bf16" for config in configs):
        return []
    ratio = cost_of_bf16()
    if ratio < SLOWER:
        return []
    return [
        f"precision bf16 will be slower than fp32 here: a product takes {ratio:.1f} times as long on this CPU (docs/speed.md)"
    ]


def cost_of_bf16() -> float:
    """What a product in bf16 takes on this CPU, times what it takes in float32: measured in turn, in 0.1 to 0.4 s."""
    dtypes = torch.float32, torch.bfloat16
    operands = [(torch.ones(256, 5184, dtype=dtype), torch.ones(5184, 256, dtype=dtype)) for dtype in dtypes]
    ratios: list[float] = []
    for _ in range(6):
        full, half = (_seconds(*pair) for pair in operands)
        ratios.append(half / full)
        if half > SLOW:  # without units for it a product takes a hundred times as long, which one round shows
            return ratios[-1]
    return median(ratios[1:])  # the first compiles


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    began = perf_counter()
    left @ right
    return perf_counter() - began


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """How CUDA multiplies float32 numbers, inside; as it was before, outside. Its default would be tf32 in convolutions."""
    backends: Any = torch.backends
    places = backends.cuda.matmul, backends.cudnn.conv
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def exporting() -> bool:
    """Whether torch.export is tracing, whose programs are of plain operations.

    Dynamo of PyTorch 2.11 takes ``torch.compiler.is_exporting()`` for true when it compiles, too (pytorch issue 176347); the
    flag that the function returns, it reads as it is.
    """
    return bool(torch.compiler._is_exporting_flag)


def rounded(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Inside, convolutions and fully connected layers round their operands to the precision's type.

    A program of torch.export rounds nothing, and is not tied to the device that it was made on.
    """
    if exporting():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """Inside, nothing is rounded."""
    if exporting():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def full(tensor: Tensor) -> Tensor:
    """What was made by rounded products, in float32; float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
