"""Routings: from votes (each input capsule's prediction of each class capsule) to class capsules.

A routing is a plain function. ``iterations`` is r in the paper's count: the number of weighted sums, of which the last is
the output, so that the logits are updated r - 1 times.
"""

from jaxtyping import Float
from torch import Tensor

from capsnet.layers import squash


def dynamic(
    votes: Float[Tensor, "batch inputs classes dim"],
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
) -> Float[Tensor, "batch classes dim"]:
    """Routing by agreement (paper, procedure 1); gradients flow through every pass.

    The logits start at 0 for every example. A pass takes the softmax of the logits over the CLASSES (so that an input
    shares itself out), sums the votes with these coupling coefficients, adds ``bias`` and squashes. Between passes each
    logit grows by the scalar product of its vote with the capsule.
    """
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    capsules = uniform(votes, 1, bias)  # the softmax of equal logits, without computing it
    if iterations == 1:
        return capsules
    by_class = votes.transpose(1, 2).contiguous()  # [batch, classes, inputs, dim]: each pass is two batched matrix products
    logits = votes.new_zeros(by_class.shape[:3])
    for _ in range(iterations - 1):
        logits = logits + (by_class @ capsules[..., None]).squeeze(3)
        total = (logits.softmax(dim=1)[:, :, None] @ by_class).squeeze(2)
        capsules = squash(total if bias is None else total + bias)
    return capsules


def uniform(
    votes: Float[Tensor, "batch inputs classes dim"],
    iterations: int = 1,
    bias: Float[Tensor, "classes dim"] | None = None,
) -> Float[Tensor, "batch classes dim"]:
    """No routing: every coupling coefficient is 1 / classes. Equal to dynamic routing with r = 1, its only r."""
    if iterations != 1:
        raise ValueError(f"uniform coupling has one weighted sum, not {iterations}")
    total = votes.sum(dim=1) / votes.shape[2]
    return squash(total if bias is None else total + bias)
