"""The checkpoints of one run: the last good one and the one before it, so that one that was torn or has rotted costs little.

They are the run's journal. A metric reaches MLflow only after the checkpoint that holds it, so that a run which goes on from a
checkpoint never logs an epoch a second time with other numbers.
"""

from pathlib import Path

import torch

from capsnet.config import RunConfig
from capsnet.errors import InputError
from capsnet.state import TrainingState


class Checkpoints:
    """The files of one run in ``<folder>/checkpoints``, named by its MLflow run id."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self.last = folder / "checkpoints" / f"{run_id}.safetensors"
        self.before = self.last.with_suffix(".before.safetensors")

    def save(self, state: TrainingState) -> None:
        """Write the state; the checkpoint that was the last becomes the one before."""
        if self.last.exists():
            self.last.replace(self.before)
        state.save(self.last)

    def load(self, config: RunConfig, device: torch.device) -> TrainingState | None:
        """The newest state that is whole, or None if nothing was ever saved.

        Raises:
            InputError: there are files, but none that this config can go on from; what is wrong with each.
        """
        faults = []
        for path in (self.last, self.before):
            if not path.exists():
                continue
            try:
                state = TrainingState.load(path, device)
            except InputError as error:
                faults.append(str(error))
                continue
            if state.config == config:
                return state
            faults.append(f"{path} is of another config")
        if faults:
            raise InputError("; ".join(faults))
        return None

    def remove(self) -> None:
        """Delete the files of a run that has been recorded whole."""
        for path in (self.last, self.before):
            path.unlink(missing_ok=True)
