"""Whole networks, made from a config."""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from capsnet import convolution_triton, fourier
from capsnet.agreement import WITHOUT_VOTES
from capsnet.config import RunConfig
from capsnet.convolution_sizes import Sizes
from capsnet.errors import InputError, brief
from capsnet.layers import ClassCaps, Decoder, PrimaryCaps
from capsnet.losses import one_hot
from capsnet.precision import OPERANDS, exact, exporting, rounded
from capsnet.registry import MODELS, SQUASHES, load
from capsnet.routing import routing_of


class Network(nn.Module):
    """What every network here can do. Images become a vector for each class, and vectors become scores, or an image again.

    Attributes:
        precision: of its products.
        mask: which capsules the decoder is fed.
        decoder: None without reconstruction.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.precision, self.mask = config.precision, config.mask
        self.decoder: Decoder | None = None

    def reset(self, generator: Generator) -> "Network":
        """Draw all weights from one generator: class capsules as in ClassCaps, all else as PyTorch does by default.

        The decoder is last, so that networks with and without it start from the same other weights.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = module.weight[0].numel() ** -0.5  # kaiming_uniform_(a=sqrt(5)), and the same for the bias
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
            elif isinstance(module, ClassCaps):
                module.reset(generator)
        return self

    def encode(
        self,
        images: Float[Tensor, "batch channels height width"],
        noise: Int[Tensor, "batch 2"] | None = None,
    ) -> Float[Tensor, "batch classes dim"]:
        """Images in [0, 1] to a vector for each class; ``noise`` is each image's own, in a training step with dropout."""
        raise NotImplementedError

    def read(self, vectors: Float[Tensor, "batch classes dim"]) -> Float[Tensor, "batch classes"]:
        """The scores of the classes: the lengths of their vectors."""
        return lengths(vectors)

    def scores(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Of each class; the largest is the prediction. Those of capsules are lengths in [0, 1)."""
        return self.read(self.encode(images))

    def reconstruct(
        self, capsules: Float[Tensor, "batch classes dim"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The decoder's image of one class's capsule, or of all capsules, whatever the classes, if ``mask`` is none."""
        if self.decoder is None:
            raise ValueError("this network was trained without reconstruction (reconstruction_weight 0) and has no decoder")
        with rounded(self.precision, capsules.device):
            which = one_hot(classes, capsules.shape[1]).to(capsules.dtype)
            return self.decoder(capsules, torch.ones_like(which) if self.mask == "none" else which)

    def decoded(self, scores: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The classes whose capsules are decoded in training; at test they are the predictions."""
        return scores.argmax(dim=1) if self.mask == "prediction" else labels


class Convolved(Network):
    """A network whose first two layers are the paper's convolutions (figure 1), the second of which makes primary capsules."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        shape = config.shape
        self.conv = nn.Conv2d(shape[0], config.conv_channels, config.conv_kernel)
        self.primary = PrimaryCaps(
            config.conv_channels,
            config.primary_types,
            config.primary_dim,
            config.primary_kernel,
            config.primary_stride,
            load(SQUASHES[config.squash]),
            config.primary_coupling,
        )
        self.sizes = Sizes.of(shape, self.conv, self.primary.conv)
        self.geometry = fourier.geometry_of(shape[1:], self.conv, self.primary.conv)
        # once for the run: its network answers in the same way when a figure asks for a few images
        self.spectral = fourier.pays(
            self.geometry, config.conv_channels, self.primary.conv.out_channels, min(config.batch_size, config.training_images)
        )

    def reset(self, generator: Generator) -> "Convolved":
        """The same, and then what primary capsules do to the weights of their convolution."""
        super().reset(generator)
        self.primary.reset()
        return self

    def maps(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps rows columns"]:
        """What the second convolution makes of images in [0, 1], with ReLU after the first alone."""
        return self.primary.divided(self._convolved(images))

    def _convolved(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps rows columns"]:
        if self.takes_spectra(images):
            operands = torch.float64 if self.conv.weight.dtype == torch.float64 else OPERANDS[self.precision]
            with exact(images.device):
                return fourier.primary_maps(images, self.conv, self.primary.conv, operands)
        if self.takes_kernels(images):
            with exact(images.device):
                return convolution_triton.primary_maps(images, self.conv, self.primary.conv)
        with rounded(self.precision, images.device):
            return self.primary.conv(self.conv(images).relu())

    def takes_kernels(self, images: Tensor) -> bool:
        """Where the convolutions have kernels of their own: in bfloat16, on GPUs that they are for and were found right on."""
        plain = exporting() or images.requires_grad or self.conv.weight.dtype != torch.float32
        fits = self.precision == "bf16" and not plain and self.sizes.supported(len(images))
        return fits and convolution_triton.trusted(images.device, *self.sizes.numbers)

    def takes_spectra(self, images: Tensor) -> bool:
        """Where it pays; but GPUs have units for the rounded products of plain convolutions, which it doesn't outrun."""
        plain = exporting() or images.requires_grad or (images.is_cuda and self.precision != "fp32")
        return self.spectral and not plain

    def make_decoder(self, config: RunConfig) -> None:
        """Last of the parts, so that networks with and without it start from the same other weights."""
        if config.reconstruction_weight > 0:
            facts = config.facts
            self.decoder = Decoder(facts.classes, config.class_dim, config.decoder_hidden, config.shape)


class CapsuleNetwork(Convolved):
    """The paper's network (figure 1): convolution, primary capsules, class capsules, and a decoder if it has a weight.

    The paper's sizes on MNIST make 8,215,568 parameters, 8,215,728 with the capsule bias, 6,804,224 without the decoder.
    Between primary and class capsules there may be layers of ``hidden`` ones, which the paper doesn't have.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        rows, columns = config.primary_grid
        first = config.primary_types * rows * columns, config.primary_dim
        below = [first, *((count, config.class_dim) for count in config.hidden_capsules)]
        counts = *config.hidden_capsules, config.facts.classes
        *hidden, last = (_routed(config, *inputs, count) for inputs, count in zip(below, counts, strict=True))
        self.hidden, self.capsules = nn.ModuleList(hidden), last
        self.make_decoder(config)

    @property
    def layers(self) -> list[ClassCaps]:
        """All that route, from below; the last one makes the class capsules."""
        return [*self.hidden, self.capsules]

    def route_with(self, iterations: int) -> None:
        """Have all layers make so many weighted sums from now on."""
        for layer in self.layers:
            layer.iterations = iterations

    def encode(
        self,
        images: Float[Tensor, "batch channels height width"],
        noise: Int[Tensor, "batch 2"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "batch classes dim"]:
        """Images in [0, 1] to class capsules."""
        return self.capsules(self.below(self.primary_capsules(images)))

    def primary_capsules(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch inputs dim"]:
        """Images in [0, 1] to primary capsules."""
        return self.primary.capsules(self.maps(images))

    def below(self, primary: Float[Tensor, "batch primary dim"]) -> Float[Tensor, "batch inputs input_dim"]:
        """Primary capsules to those that vote for the class capsules: themselves, if no layer is hidden between."""
        return self.up_from(primary)[-1]

    def up_from(self, primary: Float[Tensor, "batch primary dim"]) -> list[Float[Tensor, "batch _ _"]]:
        """Primary capsules to themselves and those of each hidden layer, the lowest first."""
        capsules = [primary]
        for layer in self.hidden:
            capsules.append(layer(capsules[-1]))
        return capsules


def _routed(config: RunConfig, inputs: int, input_dim: int, count: int) -> ClassCaps:
    """A layer of so many capsules above so many others."""
    routing = routing_of(config, inputs, count)
    return ClassCaps(
        inputs,
        input_dim,
        count,
        config.class_dim,
        routing,
        config.routing_iterations,
        config.capsule_bias,
        WITHOUT_VOTES.get(routing),
        config.votes_std,
    )


def lengths(capsules: Float[Tensor, "batch classes dim"]) -> Float[Tensor, "batch classes"]:
    """The capsules' lengths; the gradient at length 0 is 0."""
    return torch.linalg.vector_norm(capsules, dim=2)


def make(config: RunConfig) -> Network:
    """The network of a config, on the CPU, whose weights are yet to come."""
    model: Network = load(MODELS[config.model].network)(config)
    return model


def restored(config: RunConfig, weights: Path) -> Network:
    """The network of a config with the weights in a file of safetensors, on the CPU.

    Raises:
        InputError: they are damaged, or of another version of the network.
    """
    network = make(config)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"its weights are damaged, or of another version of the network ({brief(error, 120)})") from None
    return network


def build(config: RunConfig, generator: Generator) -> Network:
    """The network of a config with its first weights, on the CPU."""
    return make(config).reset(generator)
