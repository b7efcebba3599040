"""What is known of one epoch of training, and of capsules. It imports no torch: those who only read it need none."""

from collections.abc import Sequence
from dataclasses import dataclass

LISTS = {"logit_changes": "logit_change", "hidden_lengths": "hidden_length"}
"""Metrics that are several numbers, and what one of them is called, with its place behind it, from 1."""

SILENT = 0.1
"""A capsule that is not longer than this on any image is dead. It is m- of the margin loss: a length is the probability that
what the capsule stands for is there, and up to this one the loss takes it for absent. A squashed vector has it at |s| = 1/3."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of training gave. Losses are means per training image, errors are percentages."""

    epoch: int  # from 1
    time: int  # end of the epoch, milliseconds since 1970
    train_loss: float  # of class scores + reconstruction_weight * reconstruction loss, while the weights moved
    train_margin_loss: float | None  # of class scores; None with another loss
    train_reconstruction_loss: float | None  # squared error summed over pixels, unweighted; None without a decoder
    train_error: float  # of the augmented images, while the weights moved
    validation_error: float | None  # after the epoch; None without validation images
    learning_rate: float  # of the epoch's last step
    seconds: float  # of training, validation not included
    images_per_second: float
    # what follows is None in runs of older versions, and where it makes no sense
    train_class_loss: float | None = None  # of class scores, whose loss is not the margin loss; None if it is
    gradient_norm: float | None = None  # of the whole gradient before it is clipped, mean over the steps
    right_length: float | None = None  # of the right class's capsule, mean over validation images, or a few of training
    wrong_length: float | None = None  # of the longest wrong one
    # of an input's coupling coefficients in the last pass, nats, mean; see diagnostics.py
    coupling_entropy: float | None = None
    logit_changes: Sequence[float] | None = None  # mean |change of a logit| from each pass of routing to the next
    dead_primary_capsules: int | None = None  # how many are short on every image of the sample
    hidden_lengths: Sequence[float] | None = None  # of the capsules of each hidden layer, from below, mean over the sample

    def __post_init__(self) -> None:
        """A file of JSON has lists."""
        for name in LISTS:
            if (found := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(found))
