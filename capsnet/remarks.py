"""What a config may have and few would want: it is said before anything starts, and nothing is changed."""

from collections.abc import Iterable, Sequence

from capsnet.config import FIELDS, RunConfig

# Measured with networks of the paper's size: with the first step MultiMNIST's 3,200 capsules, at 3e-4 as at 1e-3, made all
# class capsules as long as they can be, where they stayed; MNIST's 1,152 did not.
MANY_CAPSULES = 2_000
LARGE_STEP = 3e-4


def remarks(configs: Iterable[RunConfig]) -> list[str]:
    """A line for each thing to be wondered at, whichever of the configs have it."""
    listed = list(configs)
    return list(dict.fromkeys([*(line for config in listed for line in _of(config)), *_decoder(listed)]))


def _decoder(configs: Sequence[RunConfig]) -> Iterable[str]:
    """Its sizes, where none is made. They are not refused, because a grid has them beside weights of which one is 0."""
    able = [config for config in configs if "decoder_hidden" not in config.network.unread]
    unread = {config.decoder_hidden for config in able if not config.reconstruction_weight}
    nobody = not any(config.reconstruction_weight for config in able)
    if len(unread) > 1 or (nobody and unread - {FIELDS["decoder_hidden"].default}):
        same = "; runs that differ in it alone train the same network" if len(unread) > 1 else ""
        yield f"decoder_hidden means nothing at reconstruction_weight 0, where there is no decoder{same}"


def _of(config: RunConfig) -> Iterable[str]:
    moved, chosen = config.facts.moved, config.variant("augmentation")
    if moved and (chosen.name, chosen.arguments.get("pixels")) != ("shift", moved):
        yield (
            f"test images of {config.dataset} are moved by up to {moved} pixels, and training images not so, but by "
            f"augmentation {chosen.text}; shift(pixels={moved}) moves them alike, as in the paper"
        )
    rows, columns = config.primary_grid
    count, first = config.primary_types * rows * columns, config.learning_rate * config.schedule(0, config.total_steps, ())
    if config.model == "capsnet" and count > MANY_CAPSULES and first >= LARGE_STEP and not config.primary_coupling:
        yield (
            f"{count:,} primary capsules, and a first step of {first:g}: so many make all class capsules long, and with r = 3 "
            "they may stay so and learn nothing; primary_coupling divides what primary capsules are made of, as in the authors'"
            " code, and a warmup of lr_schedule begins with smaller steps"
        )
