"""Adversarial test images: moved pixel by pixel along a network's own gradient, until it is mistaken or the level is reached.

White-box: what is lessened is an image's margin, by which the right class's score is above the largest other's (Carlini and
Wagner's f6 is that of logits, arXiv 1608.04644). It means the same whatever the loss, and is not flat where the margin loss is
0, which would pass for robustness.
"""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet.alterations import Attack
from capsnet.data import Split
from capsnet.losses import one_hot
from capsnet.models import Network
from capsnet.training import DivergedError, computing

BATCH = 128  # images at once, which take the memory of a training step
STRIDE = 2.5  # steps reach so many times as far as the level (Madry et al. 2018), so that an image may go along its bounds


def attacked(network: Network, split: Split, attack: Attack, level: int) -> UInt8[Tensor, "count channels height width"]:
    """The images, each as the attack has it: no pixel differs from the image's by more than ``level``.

    Nothing is random: an attack begins at the image itself. The gradient is that of training, through all passes of routing
    unless ``routing_gradient`` is detached, and of plain convolutions, from which the faster ones differ by rounding.

    Raises:
        DivergedError: a gradient is not finite.
    """
    found = torch.empty_like(split.images)
    with computing(network.precision, split.images.device):
        for start in range(0, len(split), BATCH):
            part = slice(start, start + BATCH)
            moved = _moved(network, split.batch(part), split.labels[part], level / 255, attack.steps)
            found[part] = (255 * moved).round()
    return found


def margins(scores: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch *labels"]) -> Float[Tensor, " batch"]:
    """By how much the score of the right class is above the largest other; of several right ones the least of theirs."""
    right = one_hot(labels, scores.shape[1])
    return scores.masked_fill(~right, math.inf).amin(dim=1) - scores.masked_fill(right, -math.inf).amax(dim=1)


def _moved(
    network: Network,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, "batch *labels"],
    most: float,
    steps: int,
) -> Float[Tensor, "batch channels height width"]:
    least, largest = (images - most).clamp_min(0), (images + most).clamp_max(1)
    stride = min(most, STRIDE * most / steps)
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(margins(network.scores(images), labels).sum(), images)
        if not gradient.isfinite().all():
            raise DivergedError("the gradient of the network's scores with respect to its images is not finite")
        images = torch.clamp(images.detach() - stride * gradient.sign(), least, largest)
    return images
