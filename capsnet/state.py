"""TrainingState: one run between two epochs, whole, and its file.

The file is the run's journal: the weights, Adam's moments, the generators, and the history of metrics with its timestamps. A
run that goes on from it equals one that was never interrupted, to the bit. It is a safetensors file, never a pickle.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from capsnet.config import RunConfig, from_params
from capsnet.errors import InputError
from capsnet.files import replaced
from capsnet.metrics import EpochMetrics
from capsnet.models import Network, build

FORMAT = "capsnet-state-1"
# uses of randomness: appended to, never reordered, because the place is part of the seed
STREAMS = ("initialisation", "shuffling", "augmentation", "dropout", "pairing")


def stream(seed: int, name: str) -> Generator:
    """The generator of one use of randomness: independent of the others and the same on every device."""
    words = np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name),)).generate_state(2, np.uint32)
    return Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


class DamagedError(InputError):
    """A checkpoint that was torn or has rotted: an older one may be whole."""


@dataclass(frozen=True)
class Snapshot:
    """A state as it was at one moment, to be written later."""

    config: RunConfig
    tensors: Mapping[str, Tensor]  # weights, Adam's moments and generators, on the device
    history: Sequence[EpochMetrics]

    def save(self, path: Path) -> None:
        """Write the file whole or not at all: to a temporary file, synced, renamed."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.config.to_params()),
            "differing": json.dumps(self.config.differing),
            "history": json.dumps([asdict(metrics) for metrics in self.history]),
        }
        metadata["sha256"] = _checksum(tensors, metadata)
        with replaced(path) as temporary:
            save_file(tensors, temporary, metadata)


class TrainingState:
    """A model, its optimizer, its generators and its history of epochs."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model: Network = build(config, stream(config.seed, "initialisation")).to(device)
        cuda = device.type == "cuda"
        if cuda and config.precision != "fp32":  # where spectra may be taken, whose gradients of weights lie the usual way
            self.model.to(memory_format=torch.channels_last)  # as its units for matrix products take them
        # a captured step reads the learning rate from memory
        rate = torch.tensor(config.learning_rate, device=device) if cuda else config.learning_rate
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=rate,
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=cuda,
        )
        # at once, so that a captured step changes moments that are there
        self.optimizer.state.update({parameter: moments(parameter) for parameter in self.model.parameters()})
        self.generators = {name: stream(config.seed, name) for name in STREAMS[1:]}
        self.history: list[EpochMetrics] = []

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over, be it the last of all or the one after which ``stop_at_error`` ends training."""
        last = self.history[-1].validation_error if self.history else None
        return len(self.history) >= self.config.epochs or self.config.stops_at(last)

    def set_rate(self, rate: float | Float[Tensor, ""]) -> None:
        """The learning rate of the next step; a tensor that the optimizer reads anyway has it already."""
        for group in self.optimizer.param_groups:
            if group["lr"] is rate:
                continue
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate) if isinstance(rate, Tensor) else group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def moving(self) -> list[Tensor]:
        """The tensors that a step changes: weights, Adam's moments and its count of steps."""
        states = [tensor for parameter in self.model.parameters() for tensor in self.optimizer.state[parameter].values()]
        return [*(parameter.detach() for parameter in self.model.parameters()), *states]

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        Snapshot(self.config, self._tensors(), self.history).save(path)

    def snapshot(self) -> Snapshot:
        """A copy on the device, which further training leaves as it is: some microseconds a tensor."""
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        return Snapshot(self.config, tensors, tuple(self.history))

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "TrainingState":
        """The state that :meth:`save` wrote.

        Raises:
            DamagedError: the file is torn or corrupt.
            InputError: it is of another format, or of a config or a network that this version hasn't.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise DamagedError(f"{path} can't be read as a checkpoint: {error}") from None
        except OSError as error:
            raise InputError(f"{path} can't be read as a checkpoint: {error}") from None
        if metadata.get("format") != FORMAT:
            raise InputError(
                f"{path} is of format {metadata.get('format')!r}, but this version reads {FORMAT!r}: use the version that "
                "wrote it, or delete it to train from the beginning"
            )
        if metadata.pop("sha256", "") != _checksum(tensors, metadata):
            raise DamagedError(f"{path} is corrupt: its checksum doesn't fit its contents")
        other = "use the version that wrote it, or delete it to train from the beginning"
        try:
            history = [EpochMetrics(**metrics) for metrics in json.loads(metadata["history"])]
            params, differing = json.loads(metadata["config"]), json.loads(metadata.get("differing", "null"))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} tells other things of its epochs than this version ({error}): {other}") from None
        try:
            config = from_params(params, differing)
        except InputError as error:
            raise InputError(f"{path} is of another config than any of this version: {error}; {other}") from None
        state = cls(config, device)
        wanted = {name: tensor.shape for name, tensor in state._tensors().items()}
        # a file from before the first step may have no moments, and none has a generator that came later
        needed = {name for name in wanted if name.startswith("model.")}
        if not needed <= tensors.keys() or any(wanted.get(name) != tensor.shape for name, tensor in tensors.items()):
            raise InputError(f"{path} has other weights than this version's network: {other}")
        state._restore(tensors)
        state.history = history
        return state

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, tensor in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = tensor
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        return tensors

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "adam": {}, "generator": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        for name, parameter in self.model.named_parameters():
            for key, tensor in self.optimizer.state[parameter].items():
                if f"{key}.{name}" in parts["adam"]:  # a file from before the first step may have none
                    tensor.copy_(parts["adam"][f"{key}.{name}"])
        for name, generator in self.generators.items():
            if name in parts["generator"]:  # a checkpoint has no stream that came later, which it would not have drawn from
                generator.set_state(parts["generator"][name])


def moments(parameter: Tensor) -> dict[str, Tensor]:
    """Adam's state of a parameter before its first step, laid out as the parameter is, which fused Adam wants."""
    zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=parameter.device), **zeros}


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
