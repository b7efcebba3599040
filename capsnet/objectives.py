"""The losses that a network may be trained with, beside its reconstruction loss: names and parameters, checked without torch.

All are of a network's class scores, summed over the classes of an image and averaged over the batch; their formulas stand in
:mod:`capsnet.losses`. Scores are the lengths of class capsules, in [0, 1), or a plain network's logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsnet.variants import require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """A loss with its parameters.

    Attributes:
        of: (scores [batch, classes], labels [batch], share of the run's steps that are done []) -> loss [].
        of_lengths: whether it asks for lengths in [0, 1), which not every network's scores are.
        of_one: whether it knows of one right class only, so that images with two labels can't have it.
    """

    of: Callable[[Tensor, Tensor, float | Tensor], Tensor]
    of_lengths: bool = False
    of_one: bool = False


def margin(*, m_plus: float = 0.9, m_minus: float = 0.1, down_weight: float = 0.5) -> Objective:
    """The paper's (equation 4): the right class's length should exceed ``m_plus``, the others' should stay below ``m_minus``.

    ``down_weight``, lambda in the paper, is the weight of the absent classes.
    """
    if not 0 <= m_minus < m_plus <= 1:
        raise ValueError(f"lengths are in [0, 1): 0 <= m_minus < m_plus <= 1 must hold, not m_minus={m_minus}, m_plus={m_plus}")
    if not 0 < down_weight <= 1e6:
        raise ValueError(f"down_weight must be above 0, not {down_weight}: without it, all lengths grow to 1")

    def of(scores: Tensor, labels: Tensor, done: float | Tensor) -> Tensor:  # noqa: ARG001
        from capsnet import losses

        return losses.margin(scores, labels, m_plus, m_minus, down_weight)

    return Objective(of, of_lengths=True)


def spread(*, start: float = 0.2, end: float = 0.9) -> Objective:
    """The right class's length should exceed each of the others' by a margin, which grows from ``start`` to ``end``.

    Hinton, Sabour and Frosst 2018 (Matrix capsules with EM routing), equation 3: from 0.2, linearly during training, to 0.9,
    which avoids dead capsules early on. Here it grows with each step of the run; start = end is a constant margin.
    """
    if not 0 < start <= end <= 1:
        raise ValueError(
            f"a margin between lengths is in (0, 1]: 0 < start <= end <= 1 must hold, not start={start}, end={end}"
        )

    def of(scores: Tensor, labels: Tensor, done: float | Tensor) -> Tensor:
        from capsnet import losses

        return losses.spread(scores, labels, start + (end - start) * done)

    return Objective(of, of_lengths=True, of_one=True)


def cross_entropy(*, scale: float = 1.0) -> Objective:
    """Of the softmax over ``scale`` times the scores.

    Of capsules, the softmax is of their lengths, as in the authors' code (``loss_type='softmax'``). They are below 1, so that a
    scale of 1 leaves the right class of ten a probability of 0.23 at most and the loss above 1.46; a larger one, as is used
    with cosines, which are bounded, too (Wang et al. 2017, NormFace), lets the network be sure.
    """
    require(0 < scale <= 1e6, "scale", "above 0, and at most a million", scale)

    def of(scores: Tensor, labels: Tensor, done: float | Tensor) -> Tensor:  # noqa: ARG001
        from capsnet import losses

        return losses.cross_entropy(scores, labels, scale)

    return Objective(of, of_one=True)


def sigmoid_cross_entropy(*, scale: float = 1.0, threshold: float = 0.0) -> Objective:
    """Each class on its own: its probability is the sigmoid of ``scale`` times (its score - ``threshold``).

    Of capsules, it is of the lengths, from which the defaults make no probability below 1/2; with ``scale=10, threshold=0.5``,
    lengths of 0 and 1 stand for 0.007 and 0.993.
    """
    require(0 < scale <= 1e6, "scale", "above 0, and at most a million", scale)
    require(abs(threshold) <= 1e6, "threshold", "a number of the scores' size", threshold)

    def of(scores: Tensor, labels: Tensor, done: float | Tensor) -> Tensor:  # noqa: ARG001
        from capsnet import losses

        return losses.sigmoid_cross_entropy(scores, labels, scale, threshold)

    return Objective(of)


LOSSES: dict[str, Callable[..., Objective]] = {
    "margin": margin,
    "cross_entropy": cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "spread": spread,
}
