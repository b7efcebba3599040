"""Adversarial test images: moved along the sign of a network's own gradient, no pixel by more than a level, to be mistaken.

White-box. What is lessened is a margin: the score of the right class less that of a rival. It means the same whatever the loss,
and is not flat where the margin loss is 0, which would pass for robustness.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from capsnet.alterations import Attack
from capsnet.data import Split
from capsnet.losses import one_hot
from capsnet.models import Network
from capsnet.training import DivergedError, computing

BATCH = 128  # images at once, which take the memory of a training step


@torch.enable_grad()
def attacked(network: Network, split: Split, attack: Attack, level: int) -> UInt8[Tensor, "count channels height width"]:
    """The images, each as the attack has it: no pixel differs from the image's by more than ``level``.

    Nothing is random: an attack begins at the image itself. An image whose margin is below 0 already stays. The gradient is
    that of training, so a ``routing_gradient`` that is detached hides the earlier passes, and of plain convolutions, from which
    the faster ones differ by rounding.

    Raises:
        DivergedError: a gradient is not finite.
    """
    found = split.images.clone()
    with computing(network.precision, split.images.device):
        for start in range(0, len(split), BATCH):
            part = slice(start, start + BATCH)
            _attack(network, found[part], split.labels[part], attack, level / 255)
    return found


def margins(scores: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch *labels"]) -> Float[Tensor, " batch"]:
    """By how much the score of the right class is above the largest other; of several right ones the least of theirs."""
    right = one_hot(labels, scores.shape[1])
    return _margins(scores, right, ~right)


def _margins(
    scores: Float[Tensor, "batch classes"], right: Bool[Tensor, "batch classes"], rivals: Bool[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    return scores.masked_fill(~right, math.inf).amin(dim=1) - scores.masked_fill(~rivals, -math.inf).amax(dim=1)


def _attack(
    network: Network,
    images: UInt8[Tensor, "batch channels height width"],
    labels: Int[Tensor, "batch *labels"],
    attack: Attack,
    most: float,
) -> None:
    """Replace each image by the one with the least margin that is found, towards one rival after another, the strongest first.

    An image that the network is mistaken about goes no further.
    """
    own = images.float() / 255
    with torch.no_grad():
        scores = network.scores(own)
    right, least = one_hot(labels, scores.shape[1]), margins(scores, labels)
    rivals = scores.masked_fill(right, -math.inf).argsort(dim=1, descending=True, stable=True)
    for rank in range(attack.against(scores.shape[1], labels.shape[1:].numel())):
        left = torch.nonzero(least >= 0).flatten()
        if not len(left):
            return
        rival = one_hot(rivals[left, rank], scores.shape[1])
        moved = (255 * _moved(network, own[left], right[left], rival, attack, most)).round()
        with torch.no_grad():
            margin = margins(network.scores(moved / 255), labels[left])
        better = margin < least[left]
        least[left[better]], images[left[better]] = margin[better], moved[better].to(torch.uint8)


def _moved(
    network: Network,
    images: Float[Tensor, "batch channels height width"],
    right: Bool[Tensor, "batch classes"],
    rival: Bool[Tensor, "batch classes"],
    attack: Attack,
    most: float,
) -> Float[Tensor, "batch channels height width"]:
    """Images in [0, 1] after all steps towards one rival, none of whose pixels differs by more than ``most``."""
    lowest, highest = (images - most).clamp_min(0), (images + most).clamp_max(1)
    for _ in range(attack.steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(_margins(network.scores(images), right, rival).sum(), images)
        if not gradient.isfinite().all():
            raise DivergedError("the gradient of the network's scores with respect to its images is not finite")
        images = torch.clamp(images.detach() - attack.stride * most * gradient.sign(), lowest, highest)
    return images
