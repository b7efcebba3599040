"""The network's two convolutions in bfloat16 on the tensor cores of a GPU, ReLU between, in a few kernels forward and backward.

Both are products of matrices, whose shapes cuDNN's kernels do not suit. In the paper's network the second, with a stride of 2
and 36 positions only, is a sum of 20,736 terms, and its gradients are another and one with stride: at batch 128 cuDNN took 186,
207 and 229 µs for the three, a third of what the tensor cores can do. The first has a single channel: 215 and 268 µs, for what
is 26 MB to write and 26 MB to read. (H200, PyTorch 2.11, medians of CUDA graphs.)

What the kernels make of it:

    patches_of               what the first convolution multiplies: a row for each place, which has a 1 more for the bias
    first_maps               patches times weight; bias and ReLU
    second_maps              a tile's rows are images at one position; the sum is split, so that all of the GPU has work
    second_weight_gradient   a program per tap, and the sum goes over positions and images; written in float32
    features_gradient        a program per place and tile of images, the longest sums first; through ReLU as well
    first_gradients          the gradients of the first weight and of its bias

Precision: images, weights and features are rounded to bfloat16, as is the gradient of the maps and of the features; sums are
float32, and so are what the second convolution makes and the gradients of all weights, which cuDNN would round.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.kernels import OPTIONS, accepted, fault_of, interpreted, run_on

BLOCK = 64  # channels of both convolutions come in multiples of it
SLOTS = 264  # tiles of second_maps at once on the 132 multiprocessors of an H100 or H200
SHARES = 66  # of the rows, in first_gradients: with the paper's 256 channels as many programs as multiprocessors
CHECKED = 130  # images: a whole tile and a part of another


@dataclass(frozen=True)
class Sizes:
    """Of images and of both convolutions, square kernels without padding; the first has a stride of 1."""

    shape: tuple[int, int, int]  # of an image
    features: int
    first: int  # side of its kernel
    maps: int
    second: int
    stride: int

    @classmethod
    def of(cls, shape: tuple[int, int, int], first: nn.Conv2d, second: nn.Conv2d) -> "Sizes":
        """Of images of this shape and two layers."""
        return cls(
            shape, first.out_channels, first.kernel_size[0], second.out_channels, second.kernel_size[0], second.stride[0]
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of them, the image's first: what :func:`trusted` takes, which a compiler has as constants."""
        return *self.shape, self.features, self.first, self.maps, self.second, self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return self.shape[1] - self.first + 1, self.shape[2] - self.first + 1

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        rows, columns = ((side - self.second) // self.stride + 1 for side in self.grid)
        return rows, columns

    @property
    def numbers_of_patch(self) -> int:
        """What the first convolution adds up."""
        return self.shape[0] * self.first**2

    @property
    def padded(self) -> int:
        """Columns of the patches: their numbers and the 1 for the bias, up to whole blocks."""
        return -(-(self.numbers_of_patch + 1) // 128) * 128

    @property
    def splits(self) -> int:
        """Into how many parts the sums of the maps are cut: few, but so that the last round of tiles is nearly full.

        It depends on the sizes alone, and so an image's maps on nothing else.
        """
        tiles = self.outputs[0] * self.outputs[1] * self.maps // _columns(self.maps)

        def worth(splits: int) -> float:
            return tiles * splits / (-(-tiles * splits // SLOTS) * SLOTS) - 0.015 * splits

        return max(range(1, 9), key=worth)

    def supported(self, batch: int) -> bool:
        """Whether the kernels take them; they count in 32 bits."""
        places, positions = self.grid[0] * self.grid[1], self.outputs[0] * self.outputs[1]
        largest = batch * max(places * max(self.features, self.padded), self.splits * positions * self.maps)
        return self.features % BLOCK == 0 and self.maps % BLOCK == 0 and largest < 2**31


def _columns(channels: int) -> int:
    """The widest tile that channels, a multiple of ``BLOCK``, divide into."""
    return 128 if channels % 128 == 0 else BLOCK


def primary_maps(
    images: Float[Tensor, "batch channels height width"], first: nn.Conv2d, second: nn.Conv2d
) -> Float[Tensor, "batch maps rows columns"]:
    """What the second convolution makes of ReLU of the first, in float32; the images have no gradient."""
    weights = (first.weight, first.bias, second.weight)
    keep = torch.is_grad_enabled() and any(weight is not None and weight.requires_grad for weight in weights)
    maps: Tensor = two_convolutions(images, *weights, second.stride[0], keep)[0] + second.bias
    beyond = first.kernel_size[0] - 1 + second.kernel_size[0]  # pixels that the first position takes
    rows, columns = ((side - beyond) // second.stride[0] + 1 for side in images.shape[2:])
    return maps.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # the compiler asks once, and goes on in one graph
def trusted(device: torch.device, channels: int, height: int, width: int, *layers: int) -> bool:
    """Whether the kernels give what they should on a device, for these ``Sizes.numbers``; if not, why not is told once.

    From Hopper on, where they were found to be faster.
    """
    return run_on(device, (9, 0)) and _checked(device, Sizes((channels, height, width), *layers))


@functools.cache
def _checked(device: torch.device, sizes: Sizes) -> bool:
    return accepted(self_check(device, sizes), "the kernels of the convolutions", device)


def self_check(device: torch.device, sizes: Sizes) -> str:
    """Why the kernels can't be trusted on this device, or "": they are compared with float64.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """
    return fault_of(lambda: deviations(device, CHECKED, sizes), 1e-2)


@torch.inference_mode(False)  # an evaluation may be the first to ask
def deviations(device: torch.device, batch: int, sizes: Sizes) -> dict[str, float]:
    """What they give for random images and weights, against convolutions in float64: |answer - truth| / |truth| of each."""
    generator = torch.Generator().manual_seed(batch)
    first = nn.Conv2d(sizes.shape[0], sizes.features, sizes.first, device=device)
    second = nn.Conv2d(sizes.features, sizes.maps, sizes.second, sizes.stride, device=device)
    for layer in (first, second):
        for parameter in layer.parameters():  # as Network.reset has them
            bound = layer.weight[0].numel() ** -0.5
            values = 2 * bound * torch.rand(parameter.shape, generator=generator) - bound
            parameter.data.copy_(values.to(torch.bfloat16))  # so that nothing is rounded but what the first makes
    images = torch.rand(batch, *sizes.shape, generator=generator).to(torch.bfloat16).float().to(device)
    parameters = [*first.parameters(), *second.parameters()]
    with torch.enable_grad():
        maps = primary_maps(images, first, second)
        gradient = torch.randn(maps.shape, generator=generator).to(torch.bfloat16).float().to(device)
        answers = [maps, *torch.autograd.grad(maps, parameters, gradient)]
        exact = [parameter.detach().double().requires_grad_() for parameter in parameters]
        features = nn.functional.conv2d(images.double(), exact[0], exact[1]).relu()
        truth = nn.functional.conv2d(features, exact[2], exact[3], sizes.stride)
        truths = [truth, *torch.autograd.grad(truth, exact, gradient.double())]
    names = ("maps", "first weight", "first bias", "second weight", "second bias")
    return {
        name: float((answer.detach().double() - truth.detach()).norm() / truth.detach().norm())
        for name, answer, truth in zip(names, answers, truths, strict=True)
    }


@functools.lru_cache(maxsize=64)
def _order(sizes: Sizes, device: torch.device) -> Tensor:
    """The places of the features, those that most positions see first: a GPU that begins with long sums ends evenly."""

    def seen(side: int, outputs: int) -> list[int]:
        return [sum(0 <= y - sizes.stride * i < sizes.second for i in range(outputs)) for y in range(side)]

    rows, columns = (seen(side, outputs) for side, outputs in zip(sizes.grid, sizes.outputs, strict=True))
    terms = [row * column for row in rows for column in columns]
    return torch.tensor(sorted(range(len(terms)), key=lambda place: -terms[place]), dtype=torch.int32, device=device)


def _sizes(images: Tensor, first: Tensor, second: Tensor, stride: int) -> Sizes:
    shape = images.shape[1], images.shape[2], images.shape[3]
    return Sizes(shape, first.shape[0], first.shape[2], second.shape[0], second.shape[2], stride)


def _rows_of_taps(weight: Tensor) -> Tensor:
    """[outputs, inputs, rows, columns] -> [outputs, rows * columns * inputs], which are the same bytes if channels are last."""
    return weight.permute(0, 2, 3, 1).contiguous().flatten(1)


def _blocks(matrix: Tensor, rows: int, columns: int) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])


@torch.library.custom_op("capsnet::two_convolutions", mutates_args=())
def two_convolutions(
    images: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    stride: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The maps [batch, positions, maps], still without a bias; and if it is to ``keep`` them, what the way back needs.

    That is the patches, the features and the rounded weight.
    """
    from capsnet import convolution_kernels as kernels

    sizes = _sizes(images, first_weight, second_weight, stride)
    batch, (height, width), outputs = len(images), sizes.grid, sizes.outputs
    rows, places, positions = batch * height * width, height * width, outputs[0] * outputs[1]
    padded, numbers = sizes.padded, sizes.numbers_of_patch
    patches = images.new_empty(rows, padded, dtype=torch.bfloat16)
    features = images.new_empty(batch, places * sizes.features, dtype=torch.bfloat16)
    partials = images.new_empty(sizes.splits, batch, positions, sizes.maps)
    first = nn.functional.pad(first_weight.flatten(1).to(torch.bfloat16), (0, padded - numbers))
    weight = _rows_of_taps(second_weight.to(torch.bfloat16))
    of_features, of_maps = _columns(sizes.features), _columns(sizes.maps)
    common = {"step": BLOCK, "interpreted": interpreted(), **OPTIONS}
    with torch.cuda.device_of(images):
        kernels.patches_of[(-(-rows // 64), padded // 64)](
            images.contiguous(),
            patches,
            rows,
            *sizes.shape[1:],
            channels=sizes.shape[0],
            kernel=sizes.first,
            padded=padded,
            tile=64,
            columns=64,
            **OPTIONS,
        )
        kernels.first_maps[(-(-rows // 128), sizes.features // of_features)](
            _blocks(patches, 128, BLOCK),
            _blocks(first, of_features, BLOCK),
            first_bias,
            features,
            rows,
            features=sizes.features,
            padded=padded,
            tile=128,
            columns=of_features,
            num_warps=8,
            **common,
        )
        kernels.second_maps[(positions, sizes.maps // of_maps, -(-batch // 128) * sizes.splits)](
            _blocks(features, 128, BLOCK),
            _blocks(weight, of_maps, BLOCK),
            partials,
            batch,
            width,
            outputs[1],
            positions,
            **_channels(sizes),
            splits=sizes.splits,
            tile=128,
            columns=of_maps,
            num_warps=4,
            num_stages=3,
            **common,
        )
    maps = partials.sum(dim=0)
    if not keep:
        patches, features, weight = (images.new_empty(0) for _ in range(3))
    return maps, patches, features, weight


def _channels(sizes: Sizes) -> dict[str, int]:
    """Of the second convolution."""
    return {"channels": sizes.features, "maps": sizes.maps, "kernel": sizes.second, "stride": sizes.stride}


@two_convolutions.register_fake
def _(
    images: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,  # noqa: ARG001
    second_weight: Tensor,
    stride: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes, batch = _sizes(images, first_weight, second_weight, stride), len(images)
    (height, width), (rows, columns) = sizes.grid, sizes.outputs
    maps = images.new_empty(batch, rows * columns, sizes.maps)
    if not keep:
        return maps, images.new_empty(0), images.new_empty(0), images.new_empty(0)
    rounded = torch.empty_like(maps, dtype=torch.bfloat16)
    patches = rounded.new_empty(batch * height * width, sizes.padded)
    features = rounded.new_empty(batch, height * width * sizes.features)
    return maps, patches, features, rounded.new_empty(sizes.maps, sizes.second**2 * sizes.features)


@torch.library.custom_op("capsnet::two_convolutions_gradients", mutates_args=())
def two_convolutions_gradients(
    gradient: Tensor,
    first_weight: Tensor,
    patches: Tensor,
    features: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    kernel: int,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the first weight and bias and of the second weight.

    Args:
        gradient: of the maps [batch, positions, maps].
        first_weight: as it is; patches, features and the second weight as :func:`two_convolutions` kept them.
        height, width: of the images.
        kernel, stride: of the second convolution.
    """
    from capsnet import convolution_kernels as kernels

    shape = first_weight.shape[1], height, width
    sizes = Sizes(shape, len(first_weight), first_weight.shape[2], len(weight), kernel, stride)
    batch, (height, width), outputs, padded = len(features), sizes.grid, sizes.outputs, sizes.padded
    places, positions, numbers = height * width, outputs[0] * outputs[1], sizes.numbers_of_patch
    gradient = gradient.to(torch.bfloat16).contiguous().flatten(1)
    features_gradient = torch.empty_like(features)
    second_weight_gradient = first_weight.new_empty(sizes.maps, kernel, kernel, sizes.features)
    partials = first_weight.new_empty(SHARES, sizes.features, padded)
    of_features, of_maps = _columns(sizes.features), _columns(sizes.maps)
    common = {"step": BLOCK, "interpreted": interpreted(), "num_warps": 8, "num_stages": 3, **OPTIONS}
    with torch.cuda.device_of(features):
        kernels.second_weight_gradient[(kernel**2 * sizes.features // of_features, sizes.maps // of_maps)](
            _blocks(features, BLOCK, of_features),
            _blocks(gradient, BLOCK, of_maps),
            second_weight_gradient,
            batch,
            width,
            outputs[1],
            positions,
            **_channels(sizes),
            tile=of_maps,
            columns=of_features,
            **common,
        )
        kernels.features_gradient[(sizes.features // of_features, places, -(-batch // 128))](
            _blocks(gradient, 128, BLOCK),
            _blocks(weight, BLOCK, of_features),
            features,
            _order(sizes, features.device),
            features_gradient,
            batch,
            width,
            places,
            *outputs,
            **_channels(sizes),
            tile=128,
            columns=of_features,
            **common,
        )
        kernels.first_gradients[(sizes.features // of_features, padded // 128, SHARES)](
            _blocks(features_gradient.view(batch * places, sizes.features), BLOCK, of_features),
            _blocks(patches, BLOCK, 128),
            partials,
            batch * places,
            features=sizes.features,
            padded=padded,
            shares=SHARES,
            tile=of_features,
            columns=128,
            **common,
        )
    first = partials.sum(dim=0)
    first_weight_gradient = first[:, :numbers].contiguous().view(first_weight.shape)
    return first_weight_gradient, first[:, numbers].contiguous(), second_weight_gradient.permute(0, 3, 1, 2)


@two_convolutions_gradients.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    first_weight: Tensor,
    patches: Tensor,  # noqa: ARG001
    features: Tensor,  # noqa: ARG001
    weight: Tensor,
    height: int,  # noqa: ARG001
    width: int,  # noqa: ARG001
    kernel: int,
    stride: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    count = len(first_weight)
    of_second = first_weight.new_empty(len(weight), kernel, kernel, count).permute(0, 3, 1, 2)
    return first_weight.new_empty(first_weight.shape), first_weight.new_empty(count), of_second


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, first_weight, _, second_weight, stride, _ = inputs
    ctx.numbers = *images.shape[2:], second_weight.shape[2], stride
    ctx.set_materialize_grads(False)  # of what is kept for the way back there are none: zeros as large as all of it
    ctx.save_for_backward(first_weight, *output[1:])


def _back(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return None, *two_convolutions_gradients(gradient, *ctx.saved_tensors, *ctx.numbers), None, None


two_convolutions.register_autograd(_back, setup_context=_remember)
