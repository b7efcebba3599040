"""Plain convolutional networks beside the capsules: those of the paper (section 5.1 and Table 1), and one of equal size."""

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from capsnet.config import RunConfig
from capsnet.layers import dropped
from capsnet.models import Convolved, Network
from capsnet.precision import full, rounded


class Baseline(Network):
    """Convolutions, fully connected layers with ReLU, and a logit for each class, which is its score.

    The last hidden layer is the one with dropout.
    """

    def __init__(self, config: RunConfig, convolutions: nn.Sequential, size: int, hidden: tuple[int, ...]) -> None:
        super().__init__(config)
        self.convolutions, self.dropout = convolutions, config.dropout
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Linear(size, units), nn.ReLU()]
            size = units
        self.hidden = nn.Sequential(*layers)
        self.logits = nn.Linear(size, config.facts.classes)

    def encode(
        self, images: Float[Tensor, "batch channels height width"], noise: Int[Tensor, "batch 2"] | None = None
    ) -> Float[Tensor, "batch classes 1"]:
        """Images in [0, 1] to logits, as vectors of one dimension."""
        with rounded(self.precision, images.device):
            features = self.hidden(self.convolutions(images).flatten(1))
            if noise is not None:
                features = dropped(features, noise, self.dropout)
            return full(self.logits(features))[:, :, None]

    def read(self, vectors: Float[Tensor, "batch classes 1"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        return vectors[:, :, 0]


class Cnn(Baseline):
    """The baseline on MNIST: 35,445,522 parameters, trained with cross-entropy.

    Convolutions of 256, 256 and 128 channels, 5x5, stride 1, that keep height and width; layers of 328 and 192 units.
    """

    def __init__(self, config: RunConfig) -> None:
        one, height, width = config.shape
        channels = one, 256, 256, 128
        layers = [layer for pair in pairwise(channels) for layer in (_convolution(*pair, 5), nn.ReLU())]
        super().__init__(config, nn.Sequential(*layers), 128 * height * width, (328, 192))


class CnnMultimnist(Baseline):
    """The baseline on MultiMNIST: 24,563,978 parameters at 36x36, trained with sigmoid cross-entropy.

    Convolutions of 512 channels, 9x9, and 256, 5x5, stride 1, that keep height and width, each followed by ReLU and 2x2
    pooling; a layer of 1024 units. The paper doesn't say which pooling; here it is the maximum.
    """

    def __init__(self, config: RunConfig) -> None:
        one, height, width = config.shape
        first, second = _convolution(one, 512, 9), _convolution(512, 256, 5)
        layers = nn.Sequential(first, nn.ReLU(), Halve(), second, nn.ReLU(), Halve())
        super().__init__(config, layers, 256 * (height // 4) * (width // 4), (1024,))


def baseline(config: RunConfig) -> Baseline:
    """The paper's for the data set: where images have two labels MultiMNIST's, and MNIST's elsewhere."""
    return CnnMultimnist(config) if config.facts.labels == 2 else Cnn(config)


class Halve(nn.Module):
    """The maximum of every 2x2 pixels; an odd last row or column is left out.

    Several equal ones share the gradient, for which torch's own pooling has no deterministic algorithm on CUDA.
    """

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels half_height half_width"]:
        """Half as high and half as wide."""
        rows, columns = maps.shape[2] // 2, maps.shape[3] // 2
        return maps[:, :, : 2 * rows, : 2 * columns].unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).amax(dim=(3, 5))


def _convolution(channels: int, made: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, made, kernel, padding=kernel // 2)


class MatchedCnn(Convolved):
    """A rival of the capsule network's own size, which lacks capsules and their routing alone.

    The same two convolutions, ReLU where primary capsules would be squashed, and a fully connected layer where they would be
    routed: a vector for each class, squashed, so that its length is a score for the same losses and the decoder draws from
    it. It has the capsule network's number of parameters, 8,215,568 on MNIST, as a matrix of 8 x 16 for each of 1152 capsules
    and 10 classes is one of 9216 x 160; and 160 more with ``capsule_bias``, as it has.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        rows, columns = config.primary_grid
        self.classes = config.facts.classes
        size = config.primary_types * config.primary_dim * rows * columns
        self.vectors = nn.Linear(size, self.classes * config.class_dim, bias=config.capsule_bias)
        self.make_decoder(config)

    def reset(self, generator: Generator) -> "MatchedCnn":
        """All weights as PyTorch draws them by default, and the bias, if there is one, as the capsules' own."""
        super().reset(generator)
        if self.vectors.bias is not None:
            nn.init.constant_(self.vectors.bias, 0.1)
        return self

    def encode(
        self,
        images: Float[Tensor, "batch channels height width"],
        noise: Int[Tensor, "batch 2"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch classes dim"]:
        """Images in [0, 1] to class vectors."""
        features = self.maps(images).relu().flatten(1)
        with rounded(self.precision, images.device):
            vectors = self.vectors(features)
        return self.primary.squash(full(vectors).unflatten(1, (self.classes, -1)))
