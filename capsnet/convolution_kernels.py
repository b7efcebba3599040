"""The Triton programs of capsnet.convolution_triton, which launches them and says what they compute together.

Names: images[b, c, h, w]; features[b, y, x, c], what the first convolution and its ReLU make; maps[b, p, n], what the second
makes at position p = row * output_width + column; taps run over the rows of a kernel, then its columns. In the products of the
second convolution the rows of a tile are images, all at one place: so a tile of features, whichever the place and the tap, is a
plain rectangle of the matrix features[b, (y, x, c)], and one of maps or of their gradient a rectangle of maps[b, (p, n)]. They
are read through tensor descriptors, with which the hardware copies whole tiles, and fills with 0 what lies outside.

Compiled once for all batches: their size is in masks, and in offsets that are multiples of the channels anyway.

Every number is written by one program and every sum has a fixed order: two runs agree to the bit.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def product(a, b, total, interpreted: tl.constexpr):
    """total + a @ b of bfloat16 numbers, summed in float32. Triton's interpreter multiplies float32 alone."""
    if interpreted:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total)


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def patches_of(
    images,
    out,  # [rows, padded]: a row's patch, then a 1, then 0
    rows,  # batch * places
    height,
    width,
    channels: tl.constexpr,
    kernel: tl.constexpr,
    padded: tl.constexpr,
    tile: tl.constexpr,  # rows
    columns: tl.constexpr,  # numbers of a patch; they run over channels, rows and columns of the kernel
):
    """What the first convolution multiplies, rounded to bfloat16."""
    numbers: tl.constexpr = channels * kernel * kernel
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    k = tl.program_id(1) * columns + tl.arange(0, columns)
    out_width = width - kernel + 1
    places = (height - kernel + 1) * out_width
    corner = row // places * (channels * height * width) + row % places // out_width * width + row % places % out_width
    tap = k % (kernel * kernel)
    at = k // (kernel * kernel) * (height * width) + tap // kernel * width + tap % kernel
    exists = (row < rows)[:, None] & (k < numbers)[None, :]
    patch = tl.load(images + corner[:, None] + at[None, :], mask=exists, other=0.0)
    patch = tl.where((k == numbers)[None, :], 1.0, patch)
    tl.store(out + row[:, None] * padded + k[None, :], patch.to(tl.bfloat16), mask=(row < rows)[:, None])


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def first_maps(
    patches,  # descriptor [rows, padded], blocks [tile, step]
    weight,  # descriptor [features, padded], blocks [columns, step]
    bias,  # [features]
    out,  # [rows, features]
    rows,
    features: tl.constexpr,
    padded: tl.constexpr,
    tile: tl.constexpr,  # rows
    columns: tl.constexpr,  # features
    step: tl.constexpr,  # numbers of a patch
    interpreted: tl.constexpr,
):
    """The first convolution and its ReLU."""
    first = tl.program_id(0) * tile
    n = tl.program_id(1) * columns
    total = tl.zeros((tile, columns), tl.float32)
    for k in range(0, padded, step):
        total = product(patches.load([first, k]), weight.load([n, k]).T, total, interpreted)
    row = first + tl.arange(0, tile)
    column = n + tl.arange(0, columns)
    total += tl.load(bias + column)[None, :]
    at = row[:, None] * features + column[None, :]
    kept = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)  # else a network that has diverged would look sound
    tl.store(out + at, kept.to(tl.bfloat16), mask=(row < rows)[:, None])


@triton.jit(do_not_specialize=["batch"])
@no_type_check
def second_maps(
    features,  # descriptor [batch, places * channels], blocks [tile, step]
    weight,  # descriptor [maps, taps * channels], blocks [columns, step]
    partials,  # out [splits, batch, positions, maps]: shares of the sums, without a bias
    batch,
    width,  # of the features
    out_width,
    positions,
    channels: tl.constexpr,
    maps: tl.constexpr,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    splits: tl.constexpr,  # of the sum over taps and channels
    tile: tl.constexpr,  # images
    columns: tl.constexpr,  # maps
    step: tl.constexpr,  # channels
    interpreted: tl.constexpr,
):
    """The second convolution at one position of a tile of images."""
    position = tl.program_id(0)
    n = tl.program_id(1) * columns
    b = tl.program_id(2) // splits * tile
    split = tl.program_id(2) % splits
    each: tl.constexpr = channels // step
    terms: tl.constexpr = kernel * kernel * each
    corner = (position // out_width * width + position % out_width) * stride * channels
    total = tl.zeros((tile, columns), tl.float32)
    for q in range(split * terms // splits, (split + 1) * terms // splits):
        tap = q // each
        at = corner + (tap // kernel * width + tap % kernel) * channels + q % each * step
        total = product(features.load([b, at]), weight.load([n, q * step]).T, total, interpreted)
    row = b + tl.arange(0, tile)
    at = ((split * batch + row[:, None]) * positions + position) * maps + n + tl.arange(0, columns)[None, :]
    tl.store(partials + at, total, mask=(row < batch)[:, None])
