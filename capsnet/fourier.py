"""Strided convolution in the frequency domain: the primary capsules' convolution with a fifth of the multiplications.

A convolution with stride s is the sum of s * s convolutions with stride 1, one for each phase: the pixels whose row and column
leave the same remainders, with the taps of the kernel that meet them. In the paper's network (20x20 pixels, 9x9 taps, stride 2)
a phase has 10x10 pixels and 5x5 taps, and makes 6x6 outputs. They are among those of a circular convolution of 10x10 pixels,
which is a product, frequency by frequency, of discrete Fourier transforms.

The transforms of real numbers come in conjugate pairs, of which one is enough: of 100 frequencies 4 are real, and of the others
48 remain. A complex product takes three real ones (Gauss): with x = a + bi and w = c + di,

    k1 = c (a + b), k2 = a (d - c), k3 = b (c + d);    x w = (k1 - k3) + (k1 + k2) i

All of it is linear before and after the products, so that the outputs of a phase are

    y = A ((G w) * (D x))

with three constant matrices: D [148, 100], G [148, 25], A [36, 148]. A pair of channels takes 4 * 148 multiplications for its
36 outputs, where plain sums over 81 taps take 2,916; with 128 images the transforms add two thirds of that again. Channels are
summed by matrix products, one for each row of D, and so are the gradients. Unlike Winograd's minimal algorithms of this size,
Fourier transforms amplify no rounding errors: in float32 the result is as close to float64's as the plain convolution's.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet.products import product

PIECE = 128  # images worked on at once where no gradient is wanted
GAP = 17 * 64  # bytes: an odd number of cache lines


@dataclass(frozen=True)
class Geometry:
    """A convolution of single-channel sizes in pixels: images of ``size``, square kernels, no padding."""

    size: tuple[int, int]
    kernel: int
    stride: int

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        rows, columns = ((side - self.kernel) // self.stride + 1 for side in self.size)
        return rows, columns

    @property
    def taps(self) -> int:
        """Side of one phase's kernel, whose last taps are 0 in some phases if the whole kernel is no multiple of the stride."""
        return -(-self.kernel // self.stride)

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of one phase: what its outputs see."""
        return self.outputs[0] + self.taps - 1, self.outputs[1] + self.taps - 1

    @property
    def rank(self) -> int:
        """Real products for one phase and pair of channels: three for a complex frequency, one for a real one."""
        cells = math.prod(self.tile)
        real = math.prod(2 if side % 2 == 0 else 1 for side in self.tile)
        return real + 3 * (cells - real) // 2


@dataclass(frozen=True)
class Transforms:
    """The constant matrices of one geometry."""

    pixels: Float[Tensor, "rank positions"]  # D
    taps: Float[Tensor, "rank taps"]  # G
    outputs: Float[Tensor, "outputs rank"]  # A


@lru_cache(maxsize=64)
def transforms(geometry: Geometry, device: torch.device, dtype: torch.dtype) -> Transforms:
    """The matrices on a device; made in float64, then rounded."""
    tile, sides = geometry.tile, (geometry.tile, (geometry.taps, geometry.taps), geometry.outputs)
    rows: list[list[np.ndarray]] = [[], [], []]
    for p, q in _frequencies(tile):
        angles = [2 * np.pi * (p * y / tile[0] + q * x / tile[1]) for y, x in (_places(grid) for grid in sides)]
        (cos_x, cos_w, cos_y), (sin_x, sin_w, sin_y) = ([function(angle) for angle in angles] for function in (np.cos, np.sin))
        if (2 * p % tile[0], 2 * q % tile[1]) == (0, 0):  # its own conjugate
            three = [cos_x], [cos_w], [cos_y]
        else:  # a + bi of the pixels, and of the taps c + di, conjugated: a convolution of networks is a correlation
            three = (
                [cos_x - sin_x, cos_x, -sin_x],
                [cos_w, sin_w - cos_w, cos_w + sin_w],
                [2 * (cos_y - sin_y), -2 * sin_y, -2 * cos_y],  # twice, for the conjugate frequency
            )
        for matrix, more in zip(rows, three, strict=True):
            matrix.extend(more)
    made = np.stack(rows[0]), np.stack(rows[1]), np.stack(rows[2], axis=1) / math.prod(tile)
    return Transforms(*(torch.tensor(matrix, device=device).to(dtype) for matrix in made))


def _frequencies(sides: tuple[int, int]) -> list[tuple[int, int]]:
    """One of each pair of conjugate frequencies, and those that are their own."""
    every = [(p, q) for p in range(sides[0]) for q in range(sides[1])]
    return [(p, q) for p, q in every if (p, q) <= (-p % sides[0], -q % sides[1])]


def _places(sides: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each place of a grid, row after row."""
    rows, columns = np.mgrid[: sides[0], : sides[1]]
    return rows.ravel(), columns.ravel()


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its time goes into matrix products
def primary_maps(
    images: Float[Tensor, "batch channels height width"], first: nn.Conv2d, second: nn.Conv2d, dtype: torch.dtype
) -> Float[Tensor, "batch maps rows columns"]:
    """``second(first(images).relu())``: the first convolution (stride 1) as one matrix product, the second by its spectrum.

    Args:
        images: which get no gradient.
        first, second: without padding, with a bias.
        dtype: of the matrix products' operands; their sums are of float32 or better.
    """
    geometry = geometry_of((images.shape[2], images.shape[3]), first, second)
    if torch.is_grad_enabled():
        maps: Tensor = _Convolution.apply(tiles(images, first, geometry, dtype), second.weight, geometry)
    else:  # a piece at a time, so that memory does not grow with what only a gradient would need
        by, taps = transforms(geometry, images.device, dtype), spectrum(second.weight, geometry, dtype)
        pieces = [_products(tiles(piece, first, geometry, dtype), taps, by)[0] for piece in images.split(PIECE)]
        maps = torch.cat(pieces, dim=1)
    assert second.bias is not None
    return (maps.to(second.weight.dtype) + second.bias).permute(1, 2, 0).unflatten(2, geometry.outputs)


def geometry_of(size: tuple[int, int], first: nn.Conv2d, second: nn.Conv2d) -> Geometry:
    """Of the second of two convolutions."""
    height, width = (side - first.kernel_size[0] + 1 for side in size)
    return Geometry((height, width), second.kernel_size[0], second.stride[0])


def pays(geometry: Geometry, channels: int, maps: int, batch: int) -> bool:
    """Whether it takes two thirds of the plain convolution's multiplications, or fewer, transforms included.

    With the paper's network that is so from 14 images on. Measured on 2 cores of a Xeon with 15 networks and batches, both in
    turn: where the plain convolution takes 1.5 times as many multiplications or more, it took 1.6 to 3.4 times as long in
    float32 and 1.1 to 3.8 times in bfloat16; at 1.2 to 1.5 times as many, 1.1 to 1.5 times and 0.7 to 1.8 times.
    """
    mixed = geometry.stride**2 * channels
    outputs, cells, taps = math.prod(geometry.outputs), math.prod(geometry.tile), geometry.taps**2
    plain = batch * outputs * geometry.kernel**2 * channels * maps
    products = batch * mixed * maps
    transformed = cells * batch * mixed + taps * mixed * maps + outputs * batch * maps
    return plain >= 1.5 * geometry.rank * (products + transformed)


def tiles(
    images: Float[Tensor, "batch channels height width"], first: nn.Conv2d, geometry: Geometry, dtype: torch.dtype
) -> Float[Tensor, "positions batch mixed"]:
    """The hidden layer, phase by phase."""
    patches = _patches(images.to(dtype), first.kernel_size[0], geometry)
    assert first.bias is not None
    hidden: Tensor = _Hidden.apply(patches.flatten(0, 2), first.weight.to(dtype).flatten(1), first.bias.to(dtype))
    return hidden.view(*patches.shape[:2], -1)


def _patches(
    images: Float[Tensor, "batch channels height width"], kernel: int, geometry: Geometry
) -> Float[Tensor, "positions batch phases fan_in"]:
    """What each pixel of the hidden layer sees, in the order in which the second convolution takes them."""
    (rows, columns), stride = geometry.tile, geometry.stride
    height, width = rows * stride + kernel - 1, columns * stride + kernel - 1
    # where the last phases end outside the image, only taps that are 0 meet what is put there; inside, the rest is never seen
    images = torch.nn.functional.pad(images, (0, width - images.shape[3], 0, height - images.shape[2]))
    windows = images.unfold(2, kernel, 1).unfold(3, kernel, 1).unflatten(3, (columns, stride)).unflatten(2, (rows, stride))
    return windows.permute(2, 4, 0, 3, 5, 1, 6, 7).reshape(rows * columns, len(images), stride**2, -1)


class _Hidden(torch.autograd.Function):
    """From [places, fan_in], [channels, fan_in] and [channels] to [places, channels]: a linear layer and its ReLU."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        hidden = product(patches, weight.t(), bias).relu_()
        ctx.save_for_backward(patches, hidden)
        return hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches, hidden = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, hidden, 0)
        return None, (patches.t() @ gradient).t(), gradient.sum(dim=0)


class _Convolution(torch.autograd.Function):
    """From [positions, batch, phases * channels] and [maps, channels, kernel, kernel] to [outputs, batch, maps]."""

    @staticmethod
    def forward(ctx: Any, tiles: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        taps = spectrum(weight, geometry, tiles.dtype)
        made, pixels = _products(tiles, taps, transforms(geometry, tiles.device, tiles.dtype))
        ctx.save_for_backward(pixels, taps)
        ctx.geometry, ctx.shape, ctx.dtype = geometry, weight.shape, weight.dtype
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, taps = ctx.saved_tensors
        by = transforms(ctx.geometry, taps.device, taps.dtype)
        products = _mixed(by.outputs.t(), gradient.to(taps.dtype))
        of_kernel = _mixed(by.taps.t(), torch.bmm(products.transpose(1, 2), pixels))
        of_weight = _from_phases(of_kernel, ctx.geometry, ctx.shape).to(ctx.dtype)
        return _mixed(by.pixels.t(), torch.bmm(products, taps)), of_weight, None


def _products(
    tiles: Float[Tensor, "positions batch channels"], taps: Float[Tensor, "rank maps channels"], by: Transforms
) -> tuple[Float[Tensor, "outputs batch maps"], Float[Tensor, "rank batch channels"]]:
    """The convolution of the tiles, and their transforms."""
    pixels = _mixed(by.pixels, tiles)
    return _mixed(by.outputs, torch.bmm(pixels, taps.transpose(1, 2))), pixels


def _mixed(matrix: Float[Tensor, "rows count"], arrays: Float[Tensor, "count *shape"]) -> Float[Tensor, "rows *shape"]:
    """Weighted sums of arrays, with a row of the matrix as the weights of each."""
    return product(matrix, arrays.flatten(1)).unflatten(1, arrays.shape[1:])


def spectrum(
    weight: Float[Tensor, "maps channels kernel kernel"], geometry: Geometry, dtype: torch.dtype
) -> Float[Tensor, "rank maps mixed"]:
    """The transformed kernels."""
    kernel = _to_phases(weight.to(dtype), geometry)  # [taps, maps, phases * channels]
    return _mixed(transforms(geometry, weight.device, dtype).taps, kernel)


def _to_phases(weight: Tensor, geometry: Geometry) -> Tensor:
    stride, taps = geometry.stride, geometry.taps
    source = weight.permute(2, 3, 0, 1).contiguous()  # [kernel, kernel, maps, channels]
    made = source.new_zeros(taps, taps, len(weight), stride, stride, weight.shape[1])
    for y in range(stride):
        for x in range(stride):
            part = source[y::stride, x::stride]
            made[: len(part), : part.shape[1], :, y, x] = part
    return made.flatten(3).flatten(0, 1)


def _from_phases(made: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
    stride, taps = geometry.stride, geometry.taps
    source = made.unflatten(0, (taps, taps)).unflatten(3, (stride, stride, -1))
    # rows that are a power of two of bytes apart share a few sets of the cache: to transpose them takes 8 ms instead of 2
    pairs = math.prod(shape[:2])
    target = made.new_empty(math.prod(shape[2:]), pairs + GAP // made.element_size())[:, :pairs].view(*shape[2:], *shape[:2])
    for y in range(stride):
        for x in range(stride):
            part = target[y::stride, x::stride]
            part.copy_(source[: len(part), : part.shape[1], :, y, x])
    return target.permute(2, 3, 0, 1).contiguous()
