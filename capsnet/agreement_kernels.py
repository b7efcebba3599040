"""The Triton programs of capsnet.agreement_triton, which launches them and says what they compute together.

Names: u[b, i, e] inputs, W[i, e, j, d] weight, V[b, j, d] the capsules of all passes so far, added up, so that the logits
of a pass are the scalar products of its votes with V. A program of the three large kernels owns ``rows`` examples and
``chunk`` inputs and keeps their u as a matrix [rows, columns], a column for each (input, e); it goes through the classes
one after the other. With W_j[columns, d], the weight of one class, no vote is ever formed:

    spread(a) = each input's number on all its columns        gather(x) = the sum over each input's columns
    sum_d votes * x = gather(u * (x @ W_j^T))                 sum_i a * votes = (spread(a) * u) @ W_j

Every number is written by one program and every sum has a fixed order: two runs agree to the bit. What a program writes
for a later loop of its own to read is separated by a barrier and never overwritten: a small tile lies in several threads
at once, and one would read what another has replaced.

Sizes ending in _p are padded to powers of 2; what is padded is read as 0 and not written.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _columns(number, count, chunk: tl.constexpr, input_dim: tl.constexpr, input_dim_p: tl.constexpr):
    """The columns of a chunk: their offset in u[b] (and row in W), and which of them exist."""
    column = tl.arange(0, chunk * input_dim_p)
    i = number * chunk + column // input_dim_p
    e = column % input_dim_p
    return i * input_dim + e, (i < count) & (e < input_dim)


@triton.jit
@no_type_check
def _weight_of(weight, j, column, exists, classes: tl.constexpr, dim: tl.constexpr, dim_p: tl.constexpr):
    """W_j: [columns, dim]."""
    d = tl.arange(0, dim_p)
    offset = column[:, None] * (classes * dim) + j * dim + d[None, :]
    return tl.load(weight + offset, mask=exists[:, None] & (d < dim)[None, :], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _capsules_of(capsules, j, b, batch, classes: tl.constexpr, dim: tl.constexpr, dim_p: tl.constexpr):
    """The vectors of class j of capsules[b, j, d]: [rows, dim]."""
    d = tl.arange(0, dim_p)
    offset = (b[:, None] * classes + j) * dim + d[None, :]
    return tl.load(capsules + offset, mask=(b < batch)[:, None] & (d < dim)[None, :], other=0.0)


@triton.jit
@no_type_check
def _store_sums(partials, total, number, j, b, batch, classes: tl.constexpr, dim: tl.constexpr, dim_p: tl.constexpr):
    """A chunk's share of a sum over the inputs, [rows, dim], into partials[chunk, b, j, d]."""
    d = tl.arange(0, dim_p)
    offset = ((number * batch + b[:, None]) * classes + j) * dim + d[None, :]
    tl.store(partials + offset, total, mask=(b < batch)[:, None] & (d < dim)[None, :])


@triton.jit
@no_type_check
def _spread(values, rows: tl.constexpr, chunk: tl.constexpr, input_dim_p: tl.constexpr):
    return tl.reshape(tl.broadcast_to(values[:, :, None], (rows, chunk, input_dim_p)), (rows, chunk * input_dim_p))


@triton.jit
@no_type_check
def _gather(values, rows: tl.constexpr, chunk: tl.constexpr, input_dim_p: tl.constexpr):
    return tl.sum(tl.reshape(values, (rows, chunk, input_dim_p)), axis=2)


@triton.jit
@no_type_check
def _leading(x, rounding: tl.constexpr):
    """The leading 11 bits of each number: what the tensor cores read of a float32."""
    return ((x.to(tl.int32, bitcast=True) + rounding) & -8192).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _product(a, b, exact: tl.constexpr):
    """a @ b on the tensor cores. ``exact``: 22 bits of each number take part, in three products.

    Otherwise one product, of ``a`` rounded to 11 bits with ``b``, which came as bfloat16 and has 8.
    """
    if exact:
        high_a = _leading(a, 0)
        high_b = _leading(b, 0)
        total = tl.dot(high_a, b - high_b, input_precision="tf32")
        total = tl.dot(a - high_a, high_b, total, input_precision="tf32")
        total = tl.dot(high_a, high_b, total, input_precision="tf32")
    else:
        total = tl.dot(_leading(a, 4096), b, input_precision="tf32")
    return total


@triton.jit
@no_type_check
def weighted_sums(
    inputs,  # u [batch, count, input_dim]
    weight,  # W [count, input_dim, classes * dim]
    totals,  # V [batch, classes, dim], or None in the first pass, whose couplings are all 1 / classes
    logits,  # scratch [classes, batch, count]
    couplings,  # out [classes, batch, count]: the softmax of the logits over the classes
    partials,  # out [chunks, batch, classes, dim]: each chunk's share of the weighted sums, without a bias
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    chunk: tl.constexpr,
    exact: tl.constexpr,
):
    """One pass: logits, their softmax over the classes, and the sums of the votes weighted with it."""
    number = tl.program_id(1)
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    i = number * chunk + tl.arange(0, chunk)
    column, exists = _columns(number, count, chunk, input_dim, input_dim_p)
    at_u = b[:, None] * (count * input_dim) + column[None, :]
    u = tl.load(inputs + at_u, mask=(b < batch)[:, None] & exists[None, :], other=0.0).to(tl.float32)
    at_pair = b[:, None] * count + i[None, :]
    is_pair = (b < batch)[:, None] & (i < count)[None, :]
    if totals is not None:
        for j in range(classes):
            w = _weight_of(weight, j, column, exists, classes, dim, dim_p)
            v = _capsules_of(totals, j, b, batch, classes, dim, dim_p)
            logit = _gather(u * _product(v, tl.trans(w), exact), rows, chunk, input_dim_p)
            tl.store(logits + j * batch * count + at_pair, logit, mask=is_pair)
        tl.debug_barrier()
        largest = tl.full((rows, chunk), float("-inf"), tl.float32)
        for j in range(classes):
            logit = tl.load(logits + j * batch * count + at_pair, mask=is_pair, other=0.0)
            largest = tl.maximum(largest, logit)
        exponentials = tl.zeros((rows, chunk), tl.float32)
        for j in range(classes):
            logit = tl.load(logits + j * batch * count + at_pair, mask=is_pair, other=0.0)
            exponentials += tl.exp(logit - largest)
    for j in range(classes):
        w = _weight_of(weight, j, column, exists, classes, dim, dim_p)
        if totals is not None:
            logit = tl.load(logits + j * batch * count + at_pair, mask=is_pair, other=0.0)
            coupling = tl.exp(logit - largest) / exponentials
            tl.store(couplings + j * batch * count + at_pair, coupling, mask=is_pair)
            weighted = u * _spread(coupling, rows, chunk, input_dim_p)
        else:
            weighted = u * (1.0 / classes)
        total = _product(weighted, w, exact)
        _store_sums(partials, total, number, j, b, batch, classes, dim, dim_p)


@triton.jit
@no_type_check
def squash_sums(
    partials,  # [chunks, batch * classes, dim]
    bias,  # [classes, dim], or None
    before,  # [batch * classes, dim]: V before this pass, or None
    sums,  # out [batch * classes, dim]: s
    capsules,  # out, the same: squash(s)
    totals,  # out, the same: V with this pass, or None
    capsule_count,  # batch * classes
    chunks: tl.constexpr,
    classes: tl.constexpr,
    dim: tl.constexpr,
    dim_p: tl.constexpr,
    step: tl.constexpr,
):
    """Add up the chunks of one capsule, and squash."""
    row = tl.program_id(0)
    d = tl.arange(0, dim_p)
    at = row * dim + d
    s = _added_up(partials, row, capsule_count, chunks, dim, dim_p, step)
    if bias is not None:
        s += tl.load(bias + (row % classes) * dim + d, mask=d < dim, other=0.0).to(tl.float32)
    tl.store(sums + at, s, mask=d < dim)
    squared = tl.sum(s * s, axis=0)
    v = s * (tl.sqrt(squared) / (1.0 + squared))
    tl.store(capsules + at, v, mask=d < dim)
    if totals is not None:
        if before is not None:
            v += tl.load(before + at, mask=d < dim, other=0.0)
        tl.store(totals + at, v, mask=d < dim)


@triton.jit
@no_type_check
def _added_up(partials, row, capsule_count, chunks: tl.constexpr, dim: tl.constexpr, dim_p: tl.constexpr, step: tl.constexpr):
    d = tl.arange(0, dim_p)
    total = tl.zeros((step, dim_p), tl.float32)
    for start in range(0, chunks, step):
        number = start + tl.arange(0, step)
        offset = (number[:, None] * capsule_count + row) * dim + d[None, :]
        total += tl.load(partials + offset, mask=(number < chunks)[:, None] & (d < dim)[None, :], other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
@no_type_check
def unsquash_gradients(
    partials,  # [chunks, batch * classes, dim]: shares of a gradient of V, or (one chunk) the gradient of the capsules
    before,  # [batch * classes, dim]: the gradient from later passes, or None
    sums,  # the same: s of this pass
    gradients,  # out, the same: the gradient of this pass's capsules, or None
    results,  # out, the same: the gradient of s
    capsule_count,
    chunks: tl.constexpr,
    dim: tl.constexpr,
    dim_p: tl.constexpr,
    step: tl.constexpr,
):
    """Through squash: g * n / (1 + n^2) + s * (g . s) * (1 - n^2) / (1 + n^2)^2 / n, where n = |s|; 0 at 0."""
    row = tl.program_id(0)
    d = tl.arange(0, dim_p)
    at = row * dim + d
    g = _added_up(partials, row, capsule_count, chunks, dim, dim_p, step)
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


@triton.jit
@no_type_check
def pass_gradients(
    inputs,
    weight,
    totals,  # V [batch, classes, dim] of this pass
    results,  # the gradient of its weighted sums [batch, classes, dim]
    couplings,  # [classes, batch, count]
    agreements,  # scratch [classes, batch, count]: the gradient of the couplings
    changes,  # out [classes, batch, count]: the gradient of the logits
    shares,  # in and out [batch, count, input_dim]: the gradient of u from passes (after this one: with it)
    partials,  # out [chunks, batch, classes, dim]: shares of the gradient of V
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    chunk: tl.constexpr,
    exact: tl.constexpr,
    last: tl.constexpr,  # no pass has been here before: there is nothing in ``shares`` yet
):
    """Back through one pass: the gradients of its logits, of V, and its part of the gradient of u."""
    number = tl.program_id(1)
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    i = number * chunk + tl.arange(0, chunk)
    column, exists = _columns(number, count, chunk, input_dim, input_dim_p)
    at_u = b[:, None] * (count * input_dim) + column[None, :]
    is_u = (b < batch)[:, None] & exists[None, :]
    u = tl.load(inputs + at_u, mask=is_u, other=0.0).to(tl.float32)
    at_pair = b[:, None] * count + i[None, :]
    is_pair = (b < batch)[:, None] & (i < count)[None, :]
    share = tl.zeros((rows, chunk * input_dim_p), tl.float32)
    if not last:
        share += tl.load(shares + at_u, mask=is_u, other=0.0)
    mean = tl.zeros((rows, chunk), tl.float32)
    for j in range(classes):
        w = _weight_of(weight, j, column, exists, classes, dim, dim_p)
        ds = _capsules_of(results, j, b, batch, classes, dim, dim_p)
        back = _product(ds, tl.trans(w), exact)
        agreement = _gather(u * back, rows, chunk, input_dim_p)
        tl.store(agreements + j * batch * count + at_pair, agreement, mask=is_pair)
        c = tl.load(couplings + j * batch * count + at_pair, mask=is_pair, other=0.0)
        mean += c * agreement
        share += _spread(c, rows, chunk, input_dim_p) * back
    tl.debug_barrier()
    for j in range(classes):
        w = _weight_of(weight, j, column, exists, classes, dim, dim_p)
        c = tl.load(couplings + j * batch * count + at_pair, mask=is_pair, other=0.0)
        agreement = tl.load(agreements + j * batch * count + at_pair, mask=is_pair, other=0.0)
        change = c * (agreement - mean)
        tl.store(changes + j * batch * count + at_pair, change, mask=is_pair)
        v = _capsules_of(totals, j, b, batch, classes, dim, dim_p)
        change_u = _spread(change, rows, chunk, input_dim_p)
        share += change_u * _product(v, tl.trans(w), exact)
        total = _product(change_u * u, w, exact)
        _store_sums(partials, total, number, j, b, batch, classes, dim, dim_p)
    tl.store(shares + at_u, share, mask=is_u)


@triton.jit
@no_type_check
def input_gradients(
    weight,
    results,  # the gradient of the first pass's weighted sums [batch, classes, dim]
    shares,  # the gradient of u from the other passes, or None
    gradients,  # out [batch, count, input_dim], in the precision of u
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    chunk: tl.constexpr,
    exact: tl.constexpr,
):
    """The gradient of u: the first pass, whose couplings are 1 / classes, and the others."""
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    column, exists = _columns(tl.program_id(1), count, chunk, input_dim, input_dim_p)
    at_u = b[:, None] * (count * input_dim) + column[None, :]
    is_u = (b < batch)[:, None] & exists[None, :]
    total = tl.zeros((rows, chunk * input_dim_p), tl.float32)
    for j in range(classes):
        w = _weight_of(weight, j, column, exists, classes, dim, dim_p)
        ds = _capsules_of(results, j, b, batch, classes, dim, dim_p)
        total += _product(ds, tl.trans(w), exact)
    total *= 1.0 / classes
    if shares is not None:
        total += tl.load(shares + at_u, mask=is_u, other=0.0)
    tl.store(gradients + at_u, total, mask=is_u)


@triton.jit
@no_type_check
def weight_gradients(
    inputs,
    results,  # [passes + 1, batch, classes, dim]: the gradients of the weighted sums
    totals,  # [passes, batch, classes, dim]: V of the passes after the first
    couplings,  # [passes, classes, batch, count]
    changes,  # [passes, classes, batch, count]: the gradients of the logits
    gradients,  # out [count, input_dim, classes * dim], in the precision of W
    batch,
    count,
    classes: tl.constexpr,
    dim: tl.constexpr,
    input_dim: tl.constexpr,
    dim_p: tl.constexpr,
    input_dim_p: tl.constexpr,
    rows: tl.constexpr,
    chunk: tl.constexpr,
    exact: tl.constexpr,
    passes: tl.constexpr,
    tiles: tl.constexpr,  # of ``rows`` examples: all of the batch
):
    """The gradient of W for a chunk of inputs and one class: each input's u^T @ (gradient of its votes), over the batch."""
    j = tl.program_id(1)
    i = tl.program_id(0) * chunk + tl.arange(0, chunk)
    d = tl.arange(0, dim_p)
    e = tl.arange(0, input_dim_p)
    is_row = (i < count)[:, None, None] & (e < input_dim)[None, None, :]
    total = tl.zeros((chunk, dim_p, input_dim_p), tl.float32)
    for tile in range(tiles):
        b = tile * rows + tl.arange(0, rows)
        at_u = (b[None, :, None] * count + i[:, None, None]) * input_dim + e[None, None, :]
        u = tl.load(inputs + at_u, mask=(b < batch)[None, :, None] & is_row, other=0.0).to(tl.float32)
        at_pair = j * batch * count + b[None, :] * count + i[:, None]
        is_pair = (b < batch)[None, :] & (i < count)[:, None]
        ds = _capsules_of(results, j, b, batch, classes, dim, dim_p) * (1.0 / classes)
        votes = tl.zeros((chunk, rows, dim_p), tl.float32) + ds[None, :, :]
        for k in tl.static_range(passes):
            c = tl.load(couplings + k * classes * batch * count + at_pair, mask=is_pair, other=0.0)
            change = tl.load(changes + k * classes * batch * count + at_pair, mask=is_pair, other=0.0)
            ds = _capsules_of(results + (k + 1) * batch * classes * dim, j, b, batch, classes, dim, dim_p)
            v = _capsules_of(totals + k * batch * classes * dim, j, b, batch, classes, dim, dim_p)
            votes += c[:, :, None] * ds[None, :, :]
            votes += change[:, :, None] * v[None, :, :]
        total += _product(tl.permute(votes, (0, 2, 1)), u, exact)
    offset = (i[:, None, None] * input_dim + e[None, None, :]) * (classes * dim) + j * dim + d[None, :, None]
    tl.store(gradients + offset, total, mask=is_row & (d < dim)[None, :, None])
