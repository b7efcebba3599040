"""The network as it is usually written: what ours is compared with.

Eight convolutions make the primary capsules, the votes are one broadcast matrix product, routing is softmax and sums over
explicit tensors, images pass one by one through torchvision's transforms, and all of it runs eagerly in fp32. It computes the
same function as :mod:`capsnet`, loss and gradients included; only how is different.
"""

import time
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from capsnet.config import RunConfig
from capsnet.models import CapsuleNetwork


def squash(vectors: Tensor) -> Tensor:
    """Equation 1 of the paper, as printed."""
    square = (vectors**2).sum(dim=-1, keepdim=True)
    return square / (1 + square) * vectors / square.sqrt()


class PrimaryCapsules(nn.Module):
    """A convolution for each of a capsule's dimensions, each with a channel per type."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        convolution = config.conv_channels, config.primary_types, config.primary_kernel, config.primary_stride
        self.capsules = nn.ModuleList(nn.Conv2d(*convolution) for _ in range(config.primary_dim))

    def forward(self, features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch inputs dim"]:
        """Squashed capsules; ``inputs`` runs over types, rows, columns."""
        return squash(torch.stack([capsule(features).flatten(1) for capsule in self.capsules], dim=-1))


class DigitCapsules(nn.Module):
    """Class capsules by broadcast votes [batch, inputs, classes, dim] and explicit routing."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        rows, columns = config.primary_grid
        self.inputs, self.classes = config.primary_types * rows * columns, config.facts.classes
        self.iterations = config.routing_iterations
        self.weight = nn.Parameter(0.1 * torch.randn(1, self.inputs, self.classes, config.class_dim, config.primary_dim))

    def forward(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> Float[Tensor, "batch classes dim"]:
        """Procedure 1 of the paper; gradients flow through every pass."""
        votes = torch.matmul(self.weight, inputs[:, :, None, :, None]).squeeze(-1)
        logits = torch.zeros(len(inputs), self.inputs, self.classes, 1, device=inputs.device)
        for iteration in range(self.iterations):
            coupling = torch.softmax(logits, dim=2)
            capsules = squash((coupling * votes).sum(dim=1, keepdim=True))
            if iteration < self.iterations - 1:
                logits = logits + (votes * capsules).sum(dim=-1, keepdim=True)
        return capsules.squeeze(1)


class Textbook(nn.Module):
    """Convolution, primary capsules, class capsules, decoder."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        channels, height, width = config.shape
        self.conv = nn.Conv2d(channels, config.conv_channels, config.conv_kernel)
        self.primary = PrimaryCapsules(config)
        self.digits = DigitCapsules(config)
        layers: list[nn.Module] = []
        size = config.facts.classes * config.class_dim
        for units in config.decoder_hidden:
            layers += [nn.Linear(size, units), nn.ReLU(inplace=True)]
            size = units
        self.decoder = nn.Sequential(*layers, nn.Linear(size, channels * height * width), nn.Sigmoid())

    def forward(
        self, images: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch classes dim"], Float[Tensor, "batch pixels"]]:
        """Class capsules, and the reconstructions from the right class's capsule."""
        capsules = self.digits(self.primary(torch.relu(self.conv(images))))
        mask = torch.eye(capsules.shape[1], device=capsules.device)[labels]
        return capsules, self.decoder((capsules * mask[:, :, None]).flatten(1))

    def loss(
        self,
        images: Float[Tensor, "batch channels height width"],
        labels: Int[Tensor, " batch"],
        capsules: Float[Tensor, "batch classes dim"],
        made: Float[Tensor, "batch pixels"],
    ) -> Float[Tensor, ""]:
        """Margin loss and weighted squared error, each summed within an image and averaged over the batch."""
        lengths = (capsules**2).sum(dim=2).sqrt()
        present = torch.eye(lengths.shape[1], device=lengths.device)[labels]
        margin = present * torch.relu(0.9 - lengths) ** 2 + 0.5 * (1 - present) * torch.relu(lengths - 0.1) ** 2
        error = ((made - images.flatten(1)) ** 2).sum(dim=1).mean()
        return margin.sum(dim=1).mean() + self.config.reconstruction_weight * error

    def adopt(self, ours: CapsuleNetwork) -> "Textbook":
        """Take over our network's weights, so that both compute the same function."""
        mine, dim = self.config, self.config.primary_dim
        assert ours.decoder is not None
        assert not ours.primary.coupled, "the textbook's primary capsules are the paper's"
        with torch.no_grad():
            self.conv.load_state_dict(ours.conv.state_dict())
            for d, capsule in enumerate(self.primary.capsules):  # our channels run over types, then dimensions
                capsule.load_state_dict({k: v[d::dim] for k, v in ours.primary.conv.state_dict().items()})
            by_class = ours.capsules.weight.unflatten(2, (mine.facts.classes, mine.class_dim))  # [inputs, in, classes, out]
            self.digits.weight.copy_(by_class.permute(0, 2, 3, 1)[None])
            self.decoder.load_state_dict(ours.decoder.layers.state_dict())
        return self


class Pictures(Dataset[tuple[Tensor, int]]):
    """Grey images one by one, as torchvision's data sets give them: a PIL image, transformed on each access."""

    def __init__(self, images: UInt8[Tensor, "count 1 height width"], labels: Int[Tensor, " count"], shift: int) -> None:
        self.images, self.labels = images[:, 0].cpu().numpy(), labels.tolist()
        crop = transforms.RandomCrop(tuple(images.shape[2:]), padding=shift)
        self.transform = transforms.Compose([crop, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def epochs(model: Textbook, pictures: Pictures, batch_size: int, device: torch.device) -> Iterator[float]:
    """Train on and on; after each epoch, its seconds."""
    loader = DataLoader(pictures, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters())
    model.to(device).train()
    while True:
        started = time.perf_counter()
        for host_images, host_labels in loader:
            images, labels = host_images.to(device), host_labels.to(device)
            optimizer.zero_grad()
            model.loss(images, labels, *model(images, labels)).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.perf_counter() - started
