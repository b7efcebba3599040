"""The losses. All are averaged over the batch; within an image they are summed, which the paper's formulas rely on.

The authors' released code halves the margin loss and takes its mean over the 10 classes, which makes its reconstruction
weight 20 times the formula's.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def margin(
    lengths: Float[Tensor, "batch classes"],
    labels: Int[Tensor, "batch *labels"],
    m_plus: float = 0.9,
    m_minus: float = 0.1,
    down_weight: float = 0.5,
) -> Float[Tensor, ""]:
    """Margin loss (paper, equation 4), summed over classes, averaged over the batch.

    T max(0, 0.9 - |v|)^2 + 0.5 (1 - T) max(0, |v| - 0.1)^2, where T is 1 for the right class, or for both of two (section 6).
    """
    absent = (lengths - m_minus).relu() ** 2
    loss = torch.where(one_hot(labels, lengths.shape[1]), (m_plus - lengths).relu() ** 2, down_weight * absent)
    return loss.sum(dim=1).mean()


def spread(
    scores: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], apart: float | Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Spread loss (Hinton, Sabour and Frosst 2018, equation 3), summed over the wrong classes, averaged over the batch.

    max(0, m - (a_t - a_i))^2 of each wrong class i, where t is the right one and m how far they should be ``apart``.
    """
    right = one_hot(labels, scores.shape[1])
    ours = (scores * right).sum(dim=1, keepdim=True)
    loss = (apart - (ours - scores)).relu() ** 2
    return loss.masked_fill(right, 0.0).sum(dim=1).mean()


def cross_entropy(scores: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], scale: float) -> Float[Tensor, ""]:
    """-log of the right class's softmax, averaged over the batch."""
    logs = (scale * scores).log_softmax(dim=1)
    return -(logs * one_hot(labels, scores.shape[1])).sum(dim=1).mean()


def sigmoid_cross_entropy(
    scores: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch *labels"], scale: float, threshold: float
) -> Float[Tensor, ""]:
    """-T log p - (1 - T) log(1 - p), p = sigmoid(scale (score - threshold)), summed over classes, averaged over the batch."""
    logits = scale * (scores - threshold)
    right = one_hot(labels, scores.shape[1])
    return functional.softplus(torch.where(right, -logits, logits)).sum(dim=1).mean()


def one_hot(labels: Int[Tensor, "batch *labels"], classes: int) -> Bool[Tensor, "batch classes"]:
    """Where the label is, or the labels are. torch's own looks at them first, for which it waits for the device."""
    found = labels[..., None] == torch.arange(classes, device=labels.device)
    return found if labels.ndim == 1 else found.any(dim=1)


def reconstruction(
    images: Float[Tensor, "batch channels height width"], made: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Squared error summed over an image's pixels, in [0, 1], averaged over the batch; not yet weighted (section 4.1)."""
    return (images - made).square().sum(dim=(1, 2, 3)).mean()
