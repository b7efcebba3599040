"""The Triton programs of capsnet.convolution_triton for the gradients; names and tiles as in capsnet.convolution_kernels."""

from typing import no_type_check

import triton
import triton.language as tl

from capsnet.convolution_kernels import product


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def first_gradients(
    gradients,  # of what the first convolution makes, ReLU undone: descriptor [rows, features], blocks [step, tile]
    patches,  # descriptor [rows, padded], blocks [step, columns]
    partials,  # out [shares, features, padded]: of the weight, and in the column of the ones that of the bias
    rows,
    features: tl.constexpr,
    padded: tl.constexpr,
    shares: tl.constexpr,  # of the rows
    tile: tl.constexpr,  # features
    columns: tl.constexpr,  # numbers of a patch
    step: tl.constexpr,  # rows
    interpreted: tl.constexpr,
):
    """The gradients of the first convolution's weight and bias: gradients^T @ patches, over a share of the rows."""
    n = tl.program_id(0) * tile
    k = tl.program_id(1) * columns
    share = tl.program_id(2)
    steps = tl.cdiv(rows, step)
    total = tl.zeros((tile, columns), tl.float32)
    for i in range(share * steps // shares, (share + 1) * steps // shares):
        total = product(gradients.load([i * step, n]).T, patches.load([i * step, k]), total, interpreted)
    at = (share * features + n + tl.arange(0, tile)[:, None]) * padded + k + tl.arange(0, columns)[None, :]
    tl.store(partials + at, total)


@triton.jit
@no_type_check
def _second_weight_gradient(
    program,
    features,
    gradients,
    out,
    batch,
    width,
    out_width,
    positions,
    channels: tl.constexpr,
    maps: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    tile: tl.constexpr,  # maps
    columns: tl.constexpr,  # channels
    step: tl.constexpr,  # images
    interpreted: tl.constexpr,
):
    """The gradient of the second convolution's weight for one tap: gradients^T @ features, over positions and images."""
    across: tl.constexpr = channels // columns
    taps: tl.constexpr = kernel * kernel
    tap = program % (taps * across) // across
    c = program % across * columns
    n = program // (taps * across) * tile
    shift = (tap // kernel * width + tap % kernel) * channels + c
    each = tl.cdiv(batch, step)
    total = tl.zeros((tile, columns), tl.float32)
    for q in range(0, positions * each):
        position = q // each
        b = q % each * step
        at = (position // out_width * width + position % out_width) * stride * channels + shift
        total = product(gradients.load([b, position * maps + n]).T, features.load([b, at]), total, interpreted)
    row = n + tl.arange(0, tile)
    tl.store(out + (row[:, None] * taps + tap) * channels + c + tl.arange(0, columns)[None, :], total)


@triton.jit
@no_type_check
def _features_gradient(
    program,
    gradients,
    weight,
    features,
    order,
    out,
    batch,
    width,
    places,
    out_height,
    out_width,
    channels: tl.constexpr,
    maps: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    tile: tl.constexpr,  # images
    columns: tl.constexpr,  # channels
    step: tl.constexpr,  # maps
    interpreted: tl.constexpr,
):
    """The gradient of what the first convolution makes, back through the second and the ReLU, at one place."""
    aside: tl.constexpr = channels // columns
    c = program % aside * columns
    place = tl.load(order + program // aside % places)
    b = program // aside // places * tile
    y = place // width
    x = place % width
    # the positions that see the place: rows and columns from ceil((y - kernel + 1) / stride) to y // stride
    top = tl.maximum(0, (y - kernel + stride) // stride)
    left = tl.maximum(0, (x - kernel + stride) // stride)
    down = tl.maximum(0, tl.minimum(out_height - 1, y // stride) - top + 1)
    across = tl.maximum(0, tl.minimum(out_width - 1, x // stride) - left + 1)
    each: tl.constexpr = maps // step
    total = tl.zeros((tile, columns), tl.float32)
    for q in range(0, down * across * each):
        seen = q // each
        n = q % each * step
        row = top + seen // across
        column = left + seen % across
        tap = (y - stride * row) * kernel + x - stride * column
        g = gradients.load([b, (row * out_width + column) * maps + n])
        total = product(g, weight.load([n, tap * channels + c]), total, interpreted)
    image = b + tl.arange(0, tile)
    at = (image[:, None] * places + place) * channels + c + tl.arange(0, columns)[None, :]
    value = tl.load(features + at, mask=(image < batch)[:, None], other=0.0).to(tl.float32)
    tl.store(out + at, tl.where(value > 0, total, 0.0).to(tl.bfloat16), mask=(image < batch)[:, None])


@triton.jit(do_not_specialize=["batch"])
@no_type_check
def second_gradients(
    features_by_columns,  # descriptor [batch, places * channels], blocks [step, columns]
    gradients_by_rows,  # of the maps: descriptor [batch, positions * maps], blocks [step, rows]
    gradients_by_images,  # the same, blocks [tile, step]
    weight,  # descriptor [maps, taps * channels], blocks [step, columns]
    features,
    order,  # the places, those that have most to add up first
    weight_out,  # [maps, taps, channels]
    out,  # the same shape as features
    batch,
    width,
    places,
    positions,
    out_height,
    out_width,
    channels: tl.constexpr,
    maps: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    rows: tl.constexpr,  # maps
    tile: tl.constexpr,  # images
    columns: tl.constexpr,  # channels
    step: tl.constexpr,  # images of the weight's sums, maps of the features'
    interpreted: tl.constexpr,
):
    """Both gradients of the second convolution: a program makes a tile of one, the weight's first.

    These are all equally long and their last round leaves much of a GPU idle, which the others then fill, the longest first.
    """
    tiles: tl.constexpr = kernel * kernel * (channels // columns) * (maps // rows)
    program = tl.program_id(0)
    if program < tiles:
        _second_weight_gradient(
            program, features_by_columns, gradients_by_rows, weight_out, batch, width, out_width, positions, channels, maps,
            kernel, stride, rows, columns, step, interpreted,
        )  # fmt: skip
    else:
        _features_gradient(
            program - tiles, gradients_by_images, weight, features, order, out, batch, width, places, out_height, out_width,
            channels, maps, kernel, stride, tile, columns, step, interpreted,
        )  # fmt: skip
