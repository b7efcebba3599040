"""The network's two convolutions in bfloat16 on the tensor cores of a GPU, ReLU between, in a few kernels forward and backward.

Both are products of matrices, whose shapes cuDNN's kernels do not suit. In the paper's network the second, with a stride of 2
and 36 positions only, is a sum of 20,736 terms, and its gradients are another and one with stride: at batch 128 cuDNN took 186,
207 and 229 µs for the three, a third of what the tensor cores can do. The first has a single channel: 215 and 268 µs, for what
is 26 MB to write and 26 MB to read. (H200, PyTorch 2.11, medians of CUDA graphs.)

What the kernels make of it:

    patches_of        what the first convolution multiplies: a row for each place, which has a 1 more for the bias
    first_maps        patches times weight; bias and ReLU
    second_maps       a tile's rows are images at one position; the sum is split, so that all of the GPU has work
    second_gradients  of the weight, a program per tap, whose sum goes over positions and images; written in float32. Of the
                      features, a program per place and tile of images, the longest sums first; through ReLU as well. In one
                      launch: of the paper's network the former are 324 tiles, where a GPU has room for 264 at once
    first_gradients   the gradients of the first weight and of its bias

Precision: images, weights and features are rounded to bfloat16, as is the gradient of the maps and of the features; sums are
float32, and so are what the second convolution makes and the gradients of all weights, which cuDNN would round.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.convolution_sizes import Sizes, padded
from capsnet.kernels import accepted, fault_of, relative_errors, run_on

CHECKED = 130  # images: a whole tile and a part of another


def primary_maps(
    images: Float[Tensor, "batch channels height width"], first: nn.Conv2d, second: nn.Conv2d
) -> Float[Tensor, "batch maps rows columns"]:
    """What the second convolution makes of ReLU of the first, in float32; the images have no gradient."""
    weights = (first.weight, first.bias, second.weight)
    keep = torch.is_grad_enabled() and any(weight is not None and weight.requires_grad for weight in weights)
    padded = padded_rows(first.weight.detach())
    maps: Tensor = two_convolutions(images, *weights, padded, second.stride[0], keep)[0] + second.bias
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
    return relative_errors(names, answers, truths)


def _sizes(images: Tensor, first: Tensor, second: Tensor, stride: int) -> Sizes:
    shape = images.shape[1], images.shape[2], images.shape[3]
    return Sizes(shape, first.shape[0], first.shape[2], second.shape[0], second.shape[2], stride)


def padded_rows(weight: Float[Tensor, "features channels rows columns"]) -> Float[Tensor, "features padded"]:
    """The first weight as a product takes it: here, and not within the operation, so that a compiler makes one kernel of it."""
    numbers = weight[0].numel()
    return nn.functional.pad(weight.flatten(1).to(torch.bfloat16), (0, padded(numbers) - numbers))


def _rows_of_taps(weight: Tensor) -> Tensor:
    """[outputs, inputs, rows, columns] -> [outputs, rows * columns * inputs], which are the same bytes if channels are last."""
    return weight.permute(0, 2, 3, 1).contiguous().flatten(1)


@torch.library.custom_op("capsnet::two_convolutions", mutates_args=())
def two_convolutions(
    images: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    second_weight: Tensor,
    first_rows: Tensor,
    stride: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The maps [batch, positions, maps], still without a bias; and if it is to ``keep`` them, what the way back needs.

    That is the patches, the features and the rounded weight. ``first_rows``: of :func:`padded_rows`, without a gradient.
    """
    from capsnet import convolution_launches as launches

    sizes = _sizes(images, first_weight, second_weight, stride)
    weight = _rows_of_taps(second_weight.to(torch.bfloat16))
    with torch.cuda.device_of(images):
        patches = launches.patches(images, sizes)
        features = launches.features(patches, first_rows, first_bias, sizes)
        maps = launches.shares_of_maps(features, weight, sizes).sum(dim=0)
    if not keep:
        patches, features, weight = (images.new_empty(0) for _ in range(3))
    return maps, patches, features, weight


@two_convolutions.register_fake
def _(
    images: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,  # noqa: ARG001
    second_weight: Tensor,
    first_rows: Tensor,  # noqa: ARG001
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
    from capsnet import convolution_launches as launches

    shape = first_weight.shape[1], height, width
    sizes = Sizes(shape, len(first_weight), first_weight.shape[2], len(weight), kernel, stride)
    gradient = gradient.to(torch.bfloat16).contiguous().flatten(1)
    with torch.cuda.device_of(features):
        second, through_relu = launches.second_gradients(gradient, weight, features, sizes)
        first = launches.shares_of_first_gradients(through_relu, patches, sizes).sum(dim=0)
    numbers = sizes.numbers_of_patch
    first_weight_gradient = first[:, :numbers].contiguous().view(first_weight.shape)
    return first_weight_gradient, first[:, numbers].contiguous(), second.permute(0, 3, 1, 2)


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
    images, first_weight, _, second_weight, _, stride, _ = inputs
    ctx.numbers = *images.shape[2:], second_weight.shape[2], stride
    ctx.set_materialize_grads(False)  # of what is kept for the way back there are none: zeros as large as all of it
    ctx.save_for_backward(first_weight, *output[1:])


def _back(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradient = gradient.to(torch.bfloat16).contiguous()  # here, where a compiler makes it in one kernel with what comes before
    return None, *two_convolutions_gradients(gradient, *ctx.saved_tensors, *ctx.numbers), None, None, None


two_convolutions.register_autograd(_back, setup_context=_remember)
