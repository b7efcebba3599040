"""What a config may have and few would want: it is said before anything starts, and nothing is changed."""

from collections.abc import Iterable

from capsnet.config import RunConfig


def remarks(configs: Iterable[RunConfig]) -> list[str]:
    """A line for each thing to be wondered at, whichever of the configs have it."""
    return list(dict.fromkeys(line for config in configs for line in _of(config)))


def _of(config: RunConfig) -> Iterable[str]:
    moved, chosen = config.facts.moved, config.variant("augmentation")
    if moved and (chosen.name, chosen.arguments.get("pixels")) != ("shift", moved):
        yield (
            f"test images of {config.dataset} are moved by up to {moved} pixels, and training images not so, but by "
            f"augmentation {chosen.text}; shift(pixels={moved}) moves them alike, as in the paper"
        )
