"""The Triton programs of the way back through routing by agreement; names and rules are those of capsnet.agreement_kernels.

Two go back through a pass: through squash, and from the weighted sums to the logits and V. After all passes come the gradients
of u and of W, which make the gradients of votes of what the passes left: none is ever written.
"""

from typing import no_type_check

import triton
import triton.language as tl

from capsnet.agreement_kernels import add_product, added_up, capsules_of, over_vector, votes_of


@triton.jit(do_not_specialize=["capsule_count", "chunks"])
@no_type_check
def unsquash_gradients(
    partials,  # [chunks, batch * classes, dim]: shares of a gradient of V, or (one chunk) the gradient of the capsules
    before,  # [batch * classes, dim]: the gradient from later passes, or None
    sums,  # the same: s of this pass
    gradients,  # out, the same: the gradient of this pass's capsules, or None
    results,  # out, the same: the gradient of s
    capsule_count,
    chunks,
    dim: tl.constexpr,
    dim_p: tl.constexpr,
    step: tl.constexpr,
):
    """Through squash: g * n / (1 + n^2) + s * (g . s) * (1 - n^2) / (1 + n^2)^2 / n, where n = |s|; 0 at 0."""
    row = tl.program_id(0)
    d = tl.arange(0, dim_p)
    at = row * dim + d
    g = added_up(partials, row, capsule_count, chunks, dim, dim_p, step)
    if before is not None:
        g += tl.load(before + at, mask=d < dim, other=0.0)
    if gradients is not None:
        tl.store(gradients + at, g, mask=d < dim)
    s = tl.load(sums + at, mask=d < dim, other=0.0)
    squared = tl.sum(s * s, axis=0)
    length = tl.sqrt(squared)
    unit = s / tl.maximum(length, 1e-30)
    slope = (1.0 - squared) / ((1.0 + squared) * (1.0 + squared))
    result = g * (length / (1.0 + squared)) + unit * (tl.sum(g * s, axis=0) * slope)
    tl.store(results + at, result, mask=d < dim)


@triton.jit(do_not_specialize=["chunk"])
@no_type_check
def pass_gradients(
    inputs,
    weight,
    results,  # the gradient of this pass's weighted sums [batch, classes, dim]
    couplings,  # [count, classes, batch]
    changes,  # out [count, classes, batch]: the gradient of the logits
    partials,  # out [chunks, batch, classes, dim]: shares of the gradient of V
    batch,
    count,
    chunk,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    classes_p: tl.constexpr,
    dim_p: tl.constexpr,
    depth: tl.constexpr,
    rows: tl.constexpr,
    exact: tl.constexpr,
    split: tl.constexpr,
):
    """Back through one pass: the gradients of its logits and of V."""
    number = tl.program_id(1)
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    j = tl.arange(0, classes_p)
    is_pair = (b < batch)[:, None] & (j < classes)[None, :]
    at, exists = capsules_of(results, b, batch, classes, dim, classes_p, dim_p)
    ds = tl.reshape(tl.load(at, mask=exists, other=0.0), (rows, dim_p // 8, classes_p, 8))
    total = tl.zeros((rows, dim_p // 8, classes_p, 8), tl.float32)
    first = number * chunk
    end = tl.minimum(first + chunk, count)
    size = classes * batch
    pair = j[None, :] * batch + b[:, None]
    c = tl.load(couplings + first * size + pair, mask=is_pair, other=0.0)
    for i in range(first, end):
        votes = votes_of(
            inputs, weight, i, b, batch, count, classes, dim, input_dim, classes_p, dim_p, depth, rows, exact, split
        )
        agreement = over_vector(votes * ds)
        change = c * (agreement - tl.sum(c * agreement, axis=1)[:, None])
        tl.store(changes + i * size + pair, change, mask=is_pair)
        # the next input's, which come while its votes are made; the last ones again
        c = tl.load(couplings + tl.minimum(i + 1, end - 1) * size + pair, mask=is_pair, other=0.0)
        total += change[:, None, :, None] * votes
    at, exists = capsules_of(partials + number * batch * classes * dim, b, batch, classes, dim, classes_p, dim_p)
    tl.store(at, tl.reshape(total, (rows, classes_p * dim_p)), mask=exists)


@triton.jit
@no_type_check
def _vectors(at, j, b, batch, classes: tl.constexpr, dim: tl.constexpr, dim_p: tl.constexpr):
    """The vectors of class j of some examples, [rows, dim], of at[batch, classes, dim]."""
    d = tl.arange(0, dim_p)
    offset = (b[:, None] * classes + j) * dim + d[None, :]
    return tl.load(at + offset, mask=(b < batch)[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
@no_type_check
def _vote_gradients(
    results,  # [passes + 1, batch, classes, dim]: the gradients of the weighted sums
    totals,  # [passes, batch, classes, dim]: V of the passes after the first
    couplings,  # [passes, count, classes, batch]
    changes,  # [passes, count, classes, batch]: the gradients of the logits
    j,
    i,
    b,
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    dim_p: tl.constexpr,
    rows: tl.constexpr,
    inputs_at_once: tl.constexpr,
    passes: tl.constexpr,
):
    """The gradients of some inputs' votes for class j: [inputs, rows, dim]."""
    at_pair = (i[:, None] * classes + j) * batch + b[None, :]
    is_pair = (i < count)[:, None] & (b < batch)[None, :]
    ds = _vectors(results, j, b, batch, classes, dim, dim_p) * (1.0 / classes)
    total = tl.zeros((inputs_at_once, rows, dim_p), tl.float32) + ds[None, :, :]
    for k in tl.static_range(passes):
        c = tl.load(couplings + k * count * classes * batch + at_pair, mask=is_pair, other=0.0)
        change = tl.load(changes + k * count * classes * batch + at_pair, mask=is_pair, other=0.0)
        ds = _vectors(results + (k + 1) * batch * classes * dim, j, b, batch, classes, dim, dim_p)
        v = _vectors(totals + k * batch * classes * dim, j, b, batch, classes, dim, dim_p)
        total += c[:, :, None] * ds[None, :, :]
        total += change[:, :, None] * v[None, :, :]
    return total


@triton.jit
@no_type_check
def input_gradients(
    weight,
    results,
    totals,
    couplings,
    changes,
    gradients,  # out [batch, count, input_dim], in the precision of u
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    inputs_at_once: tl.constexpr,
    exact: tl.constexpr,
    passes: tl.constexpr,
):
    """The gradient of u for some inputs: each one's (gradient of its votes) @ W^T, over the classes."""
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    i = tl.program_id(1) * inputs_at_once + tl.arange(0, inputs_at_once)
    d = tl.arange(0, dim_p)
    e = tl.arange(0, input_dim_p)
    is_row = (i < count)[:, None, None] & (e < input_dim)[None, :, None]
    total = tl.zeros((inputs_at_once, rows, input_dim_p), tl.float32)
    for j in range(classes):
        at_w = weight + (i[:, None, None] * input_dim + e[None, :, None]) * (classes * dim) + j * dim + d[None, None, :]
        w = tl.load(at_w, mask=is_row & (d < dim)[None, None, :], other=0.0).to(tl.float32)
        votes = _vote_gradients(
            results, totals, couplings, changes, j, i, b, batch, count, classes, dim, dim_p, rows, inputs_at_once, passes
        )
        total = add_product(total, votes, tl.permute(w, (0, 2, 1)), exact)
    at_u = gradients + (b[None, :, None] * count + i[:, None, None]) * input_dim + e[None, None, :]
    is_u = (b < batch)[None, :, None] & (i < count)[:, None, None] & (e < input_dim)[None, None, :]
    tl.store(at_u, total, mask=is_u)


@triton.jit
@no_type_check
def weight_gradients(
    inputs,
    results,
    totals,
    couplings,
    changes,
    gradients,  # out [count, input_dim, classes * dim], in the precision of W
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    inputs_at_once: tl.constexpr,
    exact: tl.constexpr,
    passes: tl.constexpr,
):
    """The gradient of W for some inputs and one class: each input's u^T @ (gradient of its votes), over the batch."""
    j = tl.program_id(1)
    i = tl.program_id(0) * inputs_at_once + tl.arange(0, inputs_at_once)
    d = tl.arange(0, dim_p)
    e = tl.arange(0, input_dim_p)
    is_row = (i < count)[:, None, None] & (e < input_dim)[None, None, :]
    total = tl.zeros((inputs_at_once, dim_p, input_dim_p), tl.float32)
    for start in range(0, batch, rows):
        b = start + tl.arange(0, rows)
        at_u = (b[None, :, None] * count + i[:, None, None]) * input_dim + e[None, None, :]
        u = tl.load(inputs + at_u, mask=(b < batch)[None, :, None] & is_row, other=0.0).to(tl.float32)
        votes = _vote_gradients(
            results, totals, couplings, changes, j, i, b, batch, count, classes, dim, dim_p, rows, inputs_at_once, passes
        )
        total = add_product(total, tl.permute(votes, (0, 2, 1)), u, exact)
    offset = (i[:, None, None] * input_dim + e[None, None, :]) * (classes * dim) + j * dim + d[None, :, None]
    tl.store(gradients + offset, total, mask=is_row & (d < dim)[None, :, None])
