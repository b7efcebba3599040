"""What is timed as a whole: an epoch of ours, an epoch of the textbook version, an evaluation; on images of random bytes."""

from collections.abc import Sequence

import torch

from benchmarks.clock import Pass, timed
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.errors import InputError, unknown
from capsnet.execution import Execution
from capsnet.precision import float32_products
from capsnet.registry import PRECISIONS
from capsnet.state import TrainingState
from capsnet.training import evaluate, train

ENDLESS = 1_000_000  # epochs: more than any measurement takes


def precisions(device: torch.device) -> tuple[str, ...]:
    """Those that the network trains in on a device."""
    return ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")


def chosen(names: tuple[str, ...], device: torch.device) -> tuple[str, ...]:
    """The precisions that are asked for, each once; all that the device has if none is.

    Raises:
        InputError: one that the network doesn't train in on this device.
    """
    known = precisions(device)
    for name in names:
        if name not in known:
            choices = f"choices on {device.type}: {', '.join(known)}"
            missing = f"precision {name} can't be had here; {choices}"
            raise InputError(missing if name in PRECISIONS else unknown("precision", name, known))
    return tuple(dict.fromkeys(names)) or known


def swept(names: Sequence[str], device: torch.device) -> str:
    """The precision of sweeps and of processes side by side: the fastest of a GPU of those measured; on a CPU the first."""
    return max(names, key=precisions(device).index) if device.type == "cuda" else names[0]


def changed(config: RunConfig, **changes: object) -> RunConfig:
    """The config with some fields changed, validated again."""
    return RunConfig.model_validate({**config.model_dump(), **changes})


def epoch_of(config: RunConfig, images: int) -> RunConfig:
    """The config with endless epochs of about so many images, in whole batches, at least one; and without validation."""
    available = config.facts.training_images
    batches = max(1, min(images, available) // config.batch_size)
    size = min(batches * config.batch_size, available)
    return changed(config, train_size=size, validation_size=0, epochs=ENDLESS)


def pictures(config: RunConfig, count: int, device: torch.device) -> Split:
    """Images of random bytes with random labels: no step depends on what is in them for its time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *config.facts.shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(config.facts.classes, (count,), generator=generator)
    return Split(images.to(device), labels.to(device))


def ours(config: RunConfig, device: torch.device, *, compiled: bool = False) -> Pass:
    """A pass is an epoch of :func:`capsnet.training.train`, by its own clock: what a run's user gets, augmentation included.

    Args:
        config: of the endless run.
        device: where.
        compiled: by torch.compile where a long run is; to compile each network of a sweep would take minutes.
    """
    nothing = pictures(config, 0, device)
    data = Data(pictures(config, config.training_images, device), nothing, nothing, "random")
    epochs = train(TrainingState(config, device), data, execution=execution(compiled))
    return lambda: next(epochs).seconds


def execution(compiled: bool) -> Execution:
    """How the steps of :func:`ours` are taken."""
    return Execution(compile="auto" if compiled else "off")


def usual(config: RunConfig, device: torch.device) -> Pass:
    """A pass is an epoch of the textbook version, its DataLoader and transforms included."""
    from benchmarks import textbook  # torchvision takes seconds, which other processes needn't wait for

    split = pictures(config, config.training_images, torch.device("cpu"))
    shown = textbook.Pictures(split.images, split.labels, config.augment.reach)
    epochs = textbook.epochs(textbook.Textbook(config), shown, config.batch_size, device)

    def epoch() -> float:
        with float32_products("fp32"):  # CUDA would convolve in tf32
            return next(epochs)

    return epoch


def evaluation(config: RunConfig, images: int, device: torch.device) -> Pass:
    """A pass evaluates so many images in batches of the config's test_batch_size."""
    model, split = TrainingState(config, device).model, pictures(config, images, device)
    return timed(lambda: evaluate(model, split, config.test_batch_size), device)
