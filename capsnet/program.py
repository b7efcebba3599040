"""A trained network as a program of torch.export with its weights, which runs without any code of this project."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.files import replaced
from capsnet.models import Network


class Scores(nn.Module):
    """Images to the scores of the classes, of capsules their lengths: all that a prediction needs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The largest score is the prediction."""
        return self.network.scores(images)


def export(network: Network, shape: tuple[int, int, int], path: Path) -> None:
    """Write the program that gives a network's scores.

    ``torch.export.load(path).module()`` is a function of images in [0, 1], [n, channels, height, width] for any n, that gives
    scores, [n, classes]: of capsules their lengths. It computes in float32, whatever the ``precision`` of the run. The file is
    no safetensors file: torch runs what stands in it, so that one from a stranger is better not loaded.

    Args:
        network: trained, on the CPU.
        shape: channels, height and width of what it sees: its config's ``shape``.
        path: of the file, which ends in ``.pt2``.
    """
    several = torch.zeros(2, *shape)  # of one image, its number would be a constant
    program = torch.export.export(Scores(network).eval(), (several,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    with replaced(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)
