"""What cells and runs are called: the fields that set them apart, with their values."""

import re
from collections.abc import Sequence

from capsnet.config import RunConfig

SHORT = {
    "routing_iterations": "r",
    "test_routing_iterations": "test_r",
    "reconstruction_weight": "recon",
    "learning_rate": "lr",
    "lr_schedule": "schedule",
}
"""What names of runs call the fields that are varied most: of a name, MLflow shows some twenty letters."""


def label(config: RunConfig, names: Sequence[str], digits: int = 4) -> str:
    """The named fields of a config as ``routing_iterations=3 reconstruction_weight=0``, drawn numbers shortened."""
    return shortened(" ".join(f"{name}={_short(getattr(config, name))}" for name in names) or "base", digits)


def brief_label(text: str) -> str:
    """A label as it names runs in MLflow: ``r=3 recon=0``; of different labels, different ones."""
    return re.sub(r"(?:^|(?<= ))\w+(?==)", lambda found: SHORT.get(found[0], found[0]), text)


def shortened(text: str, digits: int = 4) -> str:
    """The text with fewer digits of numbers that nobody wrote: 0.005099361863064981, as a sampler draws it, is 0.005099."""
    return re.sub(r"\d+\.\d{9,}(?:e[+-]?\d+)?", lambda found: f"{float(found[0]):.{digits}g}", text)


def _short(value: object) -> str:
    """As YAML has it, without spaces: ``0.0005``, ``true``, ``[512,1024]``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_short, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value).replace(" ", "")
