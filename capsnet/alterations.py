"""The kinds of test sets that are made of a data set's own test images, by facts alone, and those of them that are attacks."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Alteration:
    """What becomes of each test image, as much as a level says."""

    says: str  # what becomes of an image, with {} for the level
    unit: str  # of a level
    levels: range
    drawn: bool = True  # whether something of it is random, so that an image may be tested several times
    intact: int = 0  # the level that would change nothing, which is none
    inside: bool = False  # whether the level, in pixels, has to be less than an image's sides


@dataclass(frozen=True, kw_only=True)
class Attack(Alteration):
    """Images moved against the very network that is tested, by at most so many 255ths of white per pixel."""

    unit: str = "255ths of white"
    levels: range = range(1, 256)
    drawn: bool = False
    steps: int  # along the sign of the gradient
    stride: float  # of a step, as a share of the level
    rivals: bool  # whether towards each wrong class in turn; if not, towards the strongest alone

    def against(self, classes: int, labels: int) -> int:
        """How many classes it goes towards, one after the other, where an image has so many labels."""
        return classes - labels if self.rivals else 1


ATTACKS: Mapping[str, Attack] = {
    "fgsm": Attack(says="moved by {}/255 in one step (FGSM)", steps=1, stride=1, rivals=False),
    # half the stride found less in two of three small networks of digits
    "pgd": Attack(
        says="moved by at most {}/255 towards each wrong class, in 20 steps each (PGD)", steps=20, stride=0.25, rivals=True
    ),
}
"""By name, after Goodfellow et al. 2015 (arXiv 1412.6572) and Madry et al. 2018 (1706.06083), the latter towards each wrong
class in turn as in Gowal et al. 2019 (1910.09338): :mod:`capsnet.attacks`.
"""
