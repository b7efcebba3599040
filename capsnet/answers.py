"""What scores say: the classes with the largest ones, as many as an image has labels, and whether they are the right ones."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capsnet.losses import one_hot


def answered(scores: Float[Tensor, "batch classes"], labels: int = 1) -> Int[Tensor, "batch *labels"]:
    """The class with the largest score; of two labels, the two classes in rising order. A tie goes to the lower class."""
    first = scores.argmax(dim=1)
    if labels == 1:
        return first
    assert labels == 2, "no data set here has more"
    # not topk, which on CUDA makes no promise about ties
    second = scores.masked_fill(one_hot(first, scores.shape[1]), -math.inf).argmax(dim=1)
    return torch.stack([torch.minimum(first, second), torch.maximum(first, second)], dim=1)


def wrong(answers: Int[Tensor, "batch *labels"], labels: Int[Tensor, "batch *labels"]) -> Bool[Tensor, " batch"]:
    """Which answers are wrong: of two labels, those that are not both found, whatever their order (paper, section 6)."""
    if labels.ndim == 1:
        return answers != labels
    return (answers != labels.sort(dim=1).values).any(dim=1)
