"""Choices that don't go together in a config, each refused with its reason: a row of a table would name what was never done.

A check takes a config whose fields are valid one by one, and raises a ValueError that names the fields.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from capsnet.objectives import LOSSES
from capsnet.registry import TEST_SETS
from capsnet.test_sets import alteration

if TYPE_CHECKING:
    from capsnet.config import RunConfig


def images(config: "RunConfig") -> None:
    """There are enough of them, and they are of the size that they have to be."""
    available, (_, height, width) = config.facts.training_images, config.shape
    if config.validation_size + max(config.train_size, 1) > available:
        raise ValueError(
            f"train_size {config.train_size} and validation_size {config.validation_size} need more than the {available} "
            f"training images of {config.dataset}"
        )
    for name in config.test_sets:
        fits(config, name)
    if config.augment.reach >= min(config.facts.shape[1:]):
        raise ValueError(f"augmentation {config.augmentation} can move the whole image of {config.dataset} out of sight")
    if config.augment.size:
        patches(config)
    if "primary_kernel" not in config.network.unread and min(config.primary_grid) < 1:
        raise ValueError(
            f"conv_kernel {config.conv_kernel} and primary_kernel {config.primary_kernel} are too large for the "
            f"{height}x{width} {'patches' if config.augment.size else 'images'} of {config.dataset}"
        )


def fits(config: "RunConfig", name: str) -> None:
    """A further test set has images that the network can see, and something of them is left."""
    if made := alteration(name):
        alters, level = made
        if alters.inside and level >= min(config.shape[1:]):
            raise ValueError(f"test set {name} would leave nothing of the {config.shape[1]}x{config.shape[2]} images")
        return
    further, sees = TEST_SETS[name], (config.shape, config.facts.classes)
    needs, has = (f"{shape} with {n} classes" for shape, n in ((further.shape, further.classes), sees))
    if needs != has:
        raise ValueError(f"test set {name} has images {needs}, which don't fit those of {config.dataset}: {has}")


def patches(config: "RunConfig") -> None:
    """They are smaller than the images, and large enough."""
    (_, height, width), size = config.facts.shape, config.augment.size
    if config.facts.labels > 1:
        raise ValueError(
            f"augmentation {config.augmentation} could cut off one of the {config.facts.labels} digits of {config.dataset}"
        )
    if size > min(height, width):
        raise ValueError(f"augmentation {config.augmentation} is larger than the {height}x{width} images of {config.dataset}")
    if size == height == width:
        raise ValueError(
            f"augmentation {config.augmentation} is all of the {height}x{width} images of {config.dataset}: write none"
        )


def model(config: "RunConfig") -> None:
    """It reads what is chosen, and its scores are what the loss takes."""
    fields = type(config).model_fields
    wanted = {name: 0.0 if name == "reconstruction_weight" else fields[name].default for name in config.network.unread}
    wrong = [name for name, value in wanted.items() if getattr(config, name) != value]
    if wrong:
        must = (f"must be {json.dumps(wanted[name])}, not {json.dumps(getattr(config, name))}" for name in wrong)
        first, *rest = zip(wrong, must, strict=True)
        raise ValueError(
            f"{first[0]} means nothing to model {config.model}: it {first[1]}"
            + "".join(f"; nor does {name}: it {text}" for name, text in rest)
        )
    if config.network.logits and config.objective.of_lengths:
        raise ValueError(
            f"loss {config.loss} is of lengths in [0, 1), and the scores of model {config.model} have no bounds; "
            f"choices: {_able(config)}"
        )


def _able(config: "RunConfig") -> str:
    """The losses that both the scores of the model and the labels of the data set go with."""
    known = {name: loss() for name, loss in LOSSES.items()}
    lengths, single = not config.network.logits, config.facts.labels == 1
    return ", ".join(name for name, loss in known.items() if (lengths or not loss.of_lengths) and (single or not loss.of_one))


def training(config: "RunConfig") -> None:
    """What looks at the validation error has one, and a warm-up ends."""
    schedule = config.variant("lr_schedule")
    if config.stop_at_error and not config.validation_size:
        raise ValueError("stop_at_error looks at the validation error: validation_size must not be 0")
    if schedule.name == "plateau" and not config.validation_size:
        raise ValueError("lr_schedule plateau watches the validation error: validation_size must not be 0")
    if schedule.arguments.get("warmup", 0) >= config.total_steps:
        raise ValueError(f"lr_schedule {config.lr_schedule}: warmup is not over within the {config.total_steps} steps")


def routing(config: "RunConfig") -> None:
    """It has what its options are about."""
    if not config.router.iterated and config.routing_iterations != 1:
        raise ValueError(f"routing {config.routing} has one weighted sum: routing_iterations must be 1")
    if not config.router.squashes and config.capsule_bias:
        raise ValueError(f"routing {config.routing} has no sum to which a bias could be added: capsule_bias must be false")
    others = config.test_routing_iterations
    if others and not config.router.iterated:
        raise ValueError(f"routing {config.routing} has one weighted sum: test_routing_iterations must be empty")
    if list(others) != sorted({*others} - {config.routing_iterations}):
        raise ValueError(
            f"test_routing_iterations must rise and not have routing_iterations, which is tested anyway, not {list(others)}"
        )
    if config.none_of_the_above and not config.router.outlet:
        raise ValueError(
            f"none_of_the_above is a class in the softmax of dynamic and static routing: with routing {config.routing} it "
            "must be false"
        )
    if config.routing_gradient == "detached" and (not config.router.detaches or config.routing_iterations == 1):
        raise ValueError(
            "routing_gradient detached leaves out all passes but the last: it needs routing dynamic and routing_iterations "
            "of 2 or more"
        )


def decoder(config: "RunConfig") -> None:
    """There is one, if it is told what it is fed."""
    if config.mask != "label" and not config.reconstruction_weight:
        raise ValueError(f"mask {config.mask} is of what the decoder is fed: reconstruction_weight must be above 0")


def labels(config: "RunConfig") -> None:
    """An image of two digits has two right classes, and each digit an image and a capsule of its own."""
    if config.facts.labels == 1:
        return
    if config.objective.of_one:
        raise ValueError(
            f"loss {config.loss} knows one right class, and the images of {config.dataset} have two labels; "
            f"choices: {_able(config)}"
        )
    if config.mask != "label":
        raise ValueError(
            f"mask {config.mask} doesn't say which of the two digits of {config.dataset} a capsule stands for: it must be label"
        )
    # of each split the first two digits are of two classes, as any two are that follow each other
    if config.validation_size == 1:
        raise ValueError(
            f"validation_size 1 holds out a single digit, and an image of {config.dataset} has two: it must be 0, or 2 or more"
        )
    if config.training_images == 1:
        single = f"train_size 1 is a single digit, and an image of {config.dataset} has two: it must be 0, or 2 or more"
        left = (
            f"validation_size {config.validation_size} leaves a single digit to train on, and an image of {config.dataset} has "
            f"two: it must be at most {config.facts.training_images - 2}"
        )
        raise ValueError(single if config.train_size else left)


CHECKS: tuple[Callable[["RunConfig"], None], ...] = (images, model, training, routing, decoder, labels)
"""In their order: the first that refuses speaks."""
