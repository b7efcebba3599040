"""What routing did on a set of images: how sharply it coupled, how much each pass still changed, which capsules are dead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.data import Split
from capsnet.errors import InputError
from capsnet.layers import ClassCaps, Routing, RoutingModule, Squash, squash
from capsnet.metrics import SILENT
from capsnet.models import CapsuleNetwork, Network, lengths
from capsnet.precision import exact, full
from capsnet.routing import OneSum, dynamic, shares, uniform

NONE = torch.zeros(0, dtype=torch.float64)
BATCH = 100  # images whose votes are held at once: 74 MB of the paper's network, three times that with copies


@dataclass(frozen=True)
class Passes:
    """Procedure 1 on one batch, pass by pass. Means are over all images and inputs.

    Attributes:
        entropy: of an input's coupling coefficients over the classes, in nats: log(classes) if it shares itself out evenly, 0
            if it goes to one class.
        change: of the logits, absolute, from each pass to the next.
        capsules: the class capsules after each pass.
    """

    entropy: Float[Tensor, " passes"]
    change: Float[Tensor, " updates"]
    capsules: Float[Tensor, "passes batch classes dim"]


def passes(
    votes: Float[Tensor, "batch inputs classes dim"],
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
    *,
    squash: Squash = squash,
    none_of_the_above: bool = False,
) -> Passes:
    """Repeat :func:`capsnet.routing.dynamic` and look on; the last capsules are its result. No gradients.

    With one iteration it is :func:`capsnet.routing.uniform`, too.
    """
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    with torch.no_grad():
        capsules = [dynamic(votes, 1, bias, squash=squash, none_of_the_above=none_of_the_above)]
        by_class = votes.transpose(1, 2).contiguous()  # [batch, classes, inputs, dim]
        logits = votes.new_zeros(by_class.shape[:3])
        entropy, change = [_entropy(logits, none_of_the_above)], []
        for _ in range(iterations - 1):
            agreement = (by_class @ capsules[-1][..., None]).squeeze(3)
            logits = logits + agreement
            total = (shares(logits, none_of_the_above)[:, :, None] @ by_class).squeeze(2)
            capsules.append(squash(total if bias is None else total + bias))
            entropy.append(_entropy(logits, none_of_the_above))
            change.append(agreement.abs().double().mean())
    return Passes(torch.stack(entropy), torch.stack(change) if change else NONE.to(votes.device), torch.stack(capsules))


def _entropy(logits: Float[Tensor, "batch classes inputs"], none_of_the_above: bool) -> Float[Tensor, ""]:
    """Of the softmax over the classes (and none of them), in nats, mean over images and inputs."""
    every = torch.nn.functional.pad(logits, (0, 0, 0, int(none_of_the_above)))
    logs = every.double().log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1).mean()


@dataclass(frozen=True)
class Diagnosis:
    """What the capsules of a network did on a set of images, on the CPU. What is said of routing is of that to the classes.

    Attributes:
        images: how many there were.
        iterations: r of the network; it makes no pass beyond it, and ``entropy`` and ``change`` may tell of more.
        outlets: among which an input shares itself out: the classes, and none of them if that is one.
        entropy: of the coupling coefficients, per pass, in nats; of em's assignments; the one of a fixed coupling (random,
            static), and none of attention, whose coefficients are no shares, or of a routing that isn't followed.
        change: of the logits, mean absolute, from each pass to the next.
        primary: the greatest length of each primary capsule on any image.
        hidden: the same of the capsules of each hidden layer, from below; none if there are no such layers.
        classes: the same of the class capsules that the network gives.
        mean_lengths: of each layer's capsules, over all of them and all images: primary, hidden and class capsules.
    """

    images: int
    iterations: int
    outlets: int
    entropy: Float[Tensor, " passes"]
    change: Float[Tensor, " updates"]
    primary: Float[Tensor, "types positions"]
    hidden: Sequence[Float[Tensor, " _"]]
    classes: Float[Tensor, " classes"]
    mean_lengths: Sequence[float]

    @property
    def relative_entropy(self) -> Float[Tensor, " passes"]:
        """The entropy as a share of log(outlets), the greatest there can be."""
        return self.entropy / math.log(self.outlets)

    @property
    def dead_primary(self) -> Int[Tensor, " types"]:
        """How many primary capsules of each type are never longer than ``SILENT``."""
        return (self.primary <= SILENT).sum(dim=1)

    @property
    def dead_hidden(self) -> Sequence[int]:
        """How many capsules of each hidden layer are never longer than ``SILENT``."""
        return [int((longest <= SILENT).sum()) for longest in self.hidden]

    @property
    def dead_classes(self) -> Sequence[int]:
        """The classes whose capsule is never longer than ``SILENT``."""
        return [label for label, length in enumerate(self.classes.tolist()) if length <= SILENT]


def diagnose(network: Network, split: Split, iterations: int = 0) -> Diagnosis:
    """Look at all images of a split, ``BATCH`` at a time.

    Args:
        network: on the device of the split.
        split: with one image or more.
        iterations: passes to look at, the network's own if 0. More than those show whether routing had come to rest. Of
            routings other than ``dynamic`` and ``uniform`` there are the capsules, and the entropy of their own passes, if they
            are followed, and of couplings that are the same for every image.

    Raises:
        InputError: the network has no routing, or there are no images.
    """
    if not isinstance(network, CapsuleNetwork):
        raise InputError("this network has no routing that could be followed")
    if not len(split):
        raise InputError("there are no images to look at")
    last, options = network.capsules, _options(network.capsules.routing)
    layers = [_Lengths() for _ in (network.primary, *network.layers)]
    entropy = change = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            images = split.batch(slice(start, start + BATCH))
            capsules = network.up_from(network.primary_capsules(images))
            classes, *told = _watched(last, capsules[-1], max(iterations, last.iterations))
            share = len(images) / len(split)
            entropy, change = (sums + share * each.cpu() for sums, each in zip((entropy, change), told, strict=True))
            for seen, found in zip(layers, (*capsules, classes), strict=True):
                seen.add(found, share)
    outlets = last.classes + bool(options and options["none_of_the_above"])
    fixed = last.routing.fixed_shares() if isinstance(last.routing, OneSum) else None
    if fixed is not None:
        entropy, outlets = _of_shares(fixed.detach()).cpu()[None], fixed.shape[1]
    primary, *hidden, classes = (each.greatest for each in layers)
    by_type = primary.unflatten(0, (network.primary.types, -1))
    means = [each.mean for each in layers]
    return Diagnosis(len(split), last.iterations, outlets, entropy, change, by_type, hidden, classes, means)


class _Lengths:
    """Of a layer's capsules, batch after batch: the greatest of each on any image, and the mean of all."""

    def __init__(self) -> None:
        self.greatest, self.mean = torch.zeros(1), 0.0

    def add(self, capsules: Float[Tensor, "batch capsules dim"], share: float) -> None:
        """A batch, which is that share of all images."""
        found = lengths(capsules)
        self.greatest = self.greatest.maximum(found.amax(dim=0).cpu())
        self.mean += share * found.double().mean().item()


def _watched(
    layer: ClassCaps, inputs: Float[Tensor, "batch inputs input_dim"], iterations: int
) -> tuple[Float[Tensor, "batch classes dim"], Float[Tensor, " passes"], Float[Tensor, " updates"]]:
    """The layer's capsules, and over so many passes the coupling's entropy and the logits' change, if they can be told."""
    routing, options = layer.routing, _options(layer.routing)
    if isinstance(routing, RoutingModule) and hasattr(routing, "followed"):
        return *_followed(routing, layer, inputs), NONE
    if options is None:
        return layer(inputs), NONE, NONE
    found = passes(layer.votes(inputs), iterations, layer.bias, **options)
    return found.capsules[layer.iterations - 1], found.entropy, found.change


def _followed(
    routing: RoutingModule, layer: ClassCaps, inputs: Float[Tensor, "batch inputs input_dim"]
) -> tuple[Float[Tensor, "batch classes dim"], Float[Tensor, " passes"]]:
    """The class capsules, and the entropy of each pass, as a routing tells them itself."""
    with exact(inputs.device):
        given = (lengths(full(inputs)),) if routing.takes_activations else ()
        capsules, coupled = routing.followed(layer.votes(full(inputs)), layer.iterations, layer.bias, *given)
    return capsules, torch.stack([_of_shares(each) for each in coupled])


def _of_shares(shares: Float[Tensor, "any outlets *inputs"]) -> Float[Tensor, ""]:
    """Entropy of what each gives to the outlets, in nats, mean over all."""
    return torch.special.entr(shares.double()).sum(dim=1).mean()


def _options(routing: Routing) -> dict[str, Any] | None:
    """With which options :func:`passes` repeats a routing; None if it doesn't."""
    plain, given = (routing.func, routing.keywords) if isinstance(routing, partial) else (routing, {})
    if plain not in (dynamic, uniform):
        return None
    return {"squash": given.get("squash", squash), "none_of_the_above": given.get("none_of_the_above", False)}
