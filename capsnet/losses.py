"""The paper's two losses. Both are averaged over the batch; within an image they are summed, which the formulas rely on.

The authors' released code halves the margin loss and takes its mean over the 10 classes, which makes its reconstruction
weight 20 times the formula's.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

M_PLUS = 0.9  # length that the right class's capsule should exceed
M_MINUS = 0.1  # length that the other capsules should stay below
DOWN_WEIGHT = 0.5  # lambda: weight of the absent classes


def margin(lengths: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Margin loss (paper, equation 4), summed over classes, averaged over the batch.

    T max(0, 0.9 - |v|)^2 + 0.5 (1 - T) max(0, |v| - 0.1)^2, where T is 1 for the right class.
    """
    absent = (lengths - M_MINUS).relu() ** 2
    loss = torch.where(one_hot(labels, lengths.shape[1]), (M_PLUS - lengths).relu() ** 2, DOWN_WEIGHT * absent)
    return loss.sum(dim=1).mean()


def one_hot(labels: Int[Tensor, " batch"], classes: int) -> Bool[Tensor, "batch classes"]:
    """Where the label is. torch's own looks at the labels first, for which it waits for the device."""
    return labels[:, None] == torch.arange(classes, device=labels.device)


def reconstruction(
    images: Float[Tensor, "batch channels height width"], made: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Squared error summed over an image's pixels, in [0, 1], averaged over the batch; not yet weighted (section 4.1)."""
    return (images - made).square().sum(dim=(1, 2, 3)).mean()
