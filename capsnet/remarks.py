"""What a config may have and few would want: it is said before anything starts, and nothing is changed."""

from collections.abc import Iterable, Sequence

from capsnet.config import FIELDS, RunConfig

# Seen with networks of the paper's size: the first step, of 3e-4 as of 1e-3, made all class capsules above MultiMNIST's 3,200
# primary ones as long as they can be, where they stayed; MNIST's 1,152 did not, but those of the matched network did. With 16
# channels instead of 256 even 4,608 learned. The limits are chosen between these.
MANY_CAPSULES = {"capsnet": 2_000, "cnn_matched": 1_000}
MANY_INPUTS = 5_000  # of a primary capsule; the paper's network: 256 channels of 9 x 9
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
    count, inputs = config.primary_types * rows * columns, config.conv_channels * config.primary_kernel**2
    first = config.learning_rate * config.schedule(0, config.total_steps, ())
    many = config.model in MANY_CAPSULES and count > MANY_CAPSULES[config.model] and inputs > MANY_INPUTS
    votes = not config.hidden_capsules and config.votes_std >= FIELDS["votes_std"].default
    if many and votes and first >= LARGE_STEP and not config.primary_coupling:
        what = "class capsules" if config.model == "capsnet" else "class vectors of cnn_matched"
        yield (
            f"{count:,} primary capsules, and a first step of {first:g}: so many may make all {what} long, which then learn "
            "nothing; primary_coupling divides what primary capsules are made of, as in the authors' code, and a warmup of "
            "lr_schedule begins with smaller steps"
        )
