"""The layers of the network (paper, section 4)."""

import math
from abc import ABC
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from capsnet.precision import exact, exporting, full

Routing = Callable[..., Tensor]
Squash = Callable[[Tensor], Tensor]


class RoutingModule(nn.Module, ABC):
    """A routing with parameters, buffers or options, made of the numbers of inputs and classes.

    Attributes:
        takes_activations: whether it is given the lengths of the inputs, after votes, iterations and bias.
        followed: a method that it may have, which takes the same as ``forward`` and gives the capsules and the coupling
            coefficients of each pass, [batch, classes, inputs]. What is told of routing after each epoch is made of it.
    """

    takes_activations = False
    followed: Callable[..., tuple[Tensor, list[Tensor]]]

    def reset(self, generator: Generator) -> None:  # noqa: ARG002
        """Give them their first values; who has none needs none."""
        if next(self.parameters(), None) is not None or next(self.buffers(), None) is not None:
            raise NotImplementedError(f"{type(self).__name__} has parameters or buffers, and gives them no first values")


def squash(vectors: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest dim"]:
    """Shrink short vectors to almost 0 and long ones to a length just below 1 (paper, equation 1).

    |s|^2 / (1 + |s|^2) * s / |s|, written as s * |s| / (1 + |s|^2), so that nothing is divided by a length and no constant
    is needed: at s = 0 value and gradient are 0.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (length / (1 + length**2))


def squash_efficient(vectors: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest dim"]:
    """(1 - 1 / e^|s|) s / |s|: Efficient-CapsNet's (Mazzia et al. 2021, arXiv 2101.12491), after Xi et al. 2017 (1712.03480).

    Short vectors keep their length, where the paper's squash squares it. At s = 0 the value is 0 and the gradient the identity.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    short = length < 1e-4  # where the quotient would lose digits, and at 0 its gradient; the series leaves out length^3 / 24
    safe = torch.where(short, 1, length)
    return vectors * torch.where(short, 1 - length / 2 + length**2 / 6, -torch.expm1(-safe) / safe)


def squash_half(vectors: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest dim"]:
    """|s|^2 / (0.5 + |s|^2) * s / |s|: half the constant, so that short vectors stay twice as long (J. Su's Keras code, 2018).

    It is that of github.com/bojone/Capsule, which others copied. At s = 0 value and gradient are 0, as in the paper's squash.
    """
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (length / (0.5 + length**2))


def dropped(
    features: Float[Tensor, "batch units"], noise: Int[Tensor, "batch 2"], share: float
) -> Float[Tensor, "batch units"]:
    """Dropout: a share of each image's units at 0, the others larger by so much that the mean stays.

    Which ones they are is made from two random numbers of the image's own, so that a step has no generator: it is the same on
    every device, in a captured graph, and however images are divided into batches.
    """
    return features * kept(noise, features.shape[1], share).to(features.dtype) / (1 - share)


def kept(noise: Int[Tensor, "batch 2"], units: int, share: float) -> Bool[Tensor, "batch units"]:
    """Which units stay: each unit's number, hashed with the image's two of 32 bits, is not among the lowest share."""
    number = torch.arange(1, units + 1, device=noise.device)
    return _hashed(_hashed(number ^ noise[:, :1]) ^ noise[:, 1:]) >= round(share * 2**32)


def _hashed(x: Int[Tensor, "batch units"]) -> Int[Tensor, "batch units"]:
    """32 bits mixed one to one (Wellons 2018, hash-prospector): each bit that goes in turns half of those that come out.

    Both factors are below 2^31, so that no product leaves int64.
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    return x ^ (x >> 15)


class PrimaryCaps(nn.Module):
    """A convolution whose channels are read, at each position, as ``types`` vectors of ``dim`` numbers, squashed.

    With ``coupled`` it is divided by ``types`` before its bias is added, as in the authors' code, where one pass of
    routing makes these capsules: its softmax over the types gives each the coupling coefficient 1 / types. First weights are as
    many times larger, so that networks with and without it begin as the same function. What differs is how far a step of Adam,
    whose size does not depend on the gradient's scale, moves the capsules.
    """

    def __init__(
        self, channels: int, types: int, dim: int, kernel: int, stride: int, squash: Squash = squash, coupled: bool = False
    ) -> None:
        super().__init__()
        self.types, self.dim, self.squash, self.coupled = types, dim, squash, coupled
        self.conv = nn.Conv2d(channels, types * dim, kernel, stride)

    def reset(self) -> None:
        """What remains to be done to first weights that were drawn as of any convolution."""
        if self.coupled:
            with torch.no_grad():
                self.conv.weight *= self.types

    def forward(self, features: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch inputs dim"]:
        """``inputs`` runs over types, then rows, then columns."""
        return self.capsules(self.divided(self.conv(features)))

    def divided(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels rows columns"]:
        """What the convolution made, bias included, but its sums divided by the types where they are coupled."""
        if not self.coupled:
            return maps
        assert self.conv.bias is not None
        return torch.lerp(self.conv.bias[:, None, None], full(maps), 1 / self.types)

    def capsules(self, maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch inputs dim"]:
        """What the convolution made, read as capsules."""
        grouped = full(maps).unflatten(1, (self.types, self.dim)).flatten(3)  # [batch, types, dim, positions]
        # the permutation keeps a capsule's numbers at one position; a bare view would mix positions
        return self.squash(grouped.permute(0, 1, 3, 2).flatten(1, 2))


class ClassCaps(nn.Module):
    """Class capsules (DigitCaps): each input votes through a matrix of its own for each class, and the votes are routed.

    Args:
        inputs: number of input capsules.
        input_dim: their dimensions.
        classes, dim: number and dimensions of the class capsules.
        routing: votes -> capsules, with its number of ``iterations``; a module's parameters are among the layer's.
        bias: add a learned bias, from 0.1, to each weighted sum, as in the authors' code.
        direct: the same function of inputs and matrices, which needs no votes; None = routing takes the votes.
        std: standard deviation of the first weights; 0.1 in the authors' code.
    """

    def __init__(
        self,
        inputs: int,
        input_dim: int,
        classes: int,
        dim: int,
        routing: Routing,
        iterations: int,
        bias: bool,
        direct: Routing | None = None,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        self.classes, self.routing, self.iterations, self.direct, self.std = classes, routing, iterations, direct, std
        self.weight = nn.Parameter(torch.empty(inputs, input_dim, classes * dim))
        self.bias = nn.Parameter(torch.empty(classes, dim)) if bias else None

    def reset(self, generator: Generator) -> None:
        """Weights from a normal distribution; the authors' code cuts it off at two deviations."""
        nn.init.normal_(self.weight, std=self.std, generator=generator)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.1)
        if isinstance(self.routing, RoutingModule):
            self.routing.reset(branch(generator))

    def votes(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> Float[Tensor, "batch inputs classes dim"]:
        """Each input's prediction of each class capsule (paper, equation 2): one matrix product per input capsule."""
        return torch.bmm(inputs.transpose(0, 1), self.weight).transpose(0, 1).unflatten(2, (self.classes, -1))

    def forward(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> Float[Tensor, "batch classes dim"]:
        """Route the votes to the class capsules."""
        with exact(inputs.device):
            if self.direct and not exporting():  # a program of torch.export is of plain operations
                return self.direct(full(inputs), self.weight, self.classes, self.iterations, self.bias)
            return self._routed(full(inputs))

    def _routed(self, inputs: Float[Tensor, "batch inputs input_dim"]) -> Float[Tensor, "batch classes dim"]:
        takes = isinstance(self.routing, RoutingModule) and self.routing.takes_activations
        activations = [torch.linalg.vector_norm(inputs, dim=2)] if takes else []
        return self.routing(self.votes(inputs), self.iterations, self.bias, *activations)


def branch(generator: Generator) -> Generator:
    """A generator that follows from this one and leaves it where it stands, so that what is drawn later is the same."""
    ahead = generator.clone_state()
    return Generator().manual_seed(int(torch.randint(2**32, (), generator=ahead)))


class Decoder(nn.Module):
    """Class capsules to an image in [0, 1]: fully connected, ReLU between, a sigmoid at the end (paper, figure 2).

    It is fed all capsules, in the paper's network with every class but one set to 0.
    """

    def __init__(self, classes: int, dim: int, hidden: tuple[int, ...], shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        size = classes * dim
        for units in hidden:
            layers += [nn.Linear(size, units), nn.ReLU()]
            size = units
        self.layers = nn.Sequential(*layers, nn.Linear(size, math.prod(shape)), nn.Sigmoid())

    def forward(
        self, capsules: Float[Tensor, "batch classes dim"], which: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch channels height width"]:
        """``which`` has a 1 at each class to keep and 0 elsewhere."""
        hidden = self.layers[:-1]((capsules * which[:, :, None]).flatten(1))
        return self.layers[-1](full(hidden)).unflatten(1, self.shape)
