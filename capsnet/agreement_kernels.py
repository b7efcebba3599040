"""The Triton programs of routing by agreement, forward; capsnet.agreement_triton says what they compute together.

Names: u[b, i, e] inputs, W[i, e, j, d] weight, V[b, j, d] the capsules of all passes so far, added up, so that the logits
of a pass are the scalar products of its votes with V; c[i, j, b] couplings. The programs of a pass own ``rows`` examples and
``chunk`` inputs, which they take one after the other. An input's votes for all classes, [rows, classes, dim], are one product
of matrices; what a pass needs of them are sums over d, which is a logit, over the classes, for the softmax, and over the inputs
of the program. All of it stays in registers: no vote and no logit is ever written.

Every number is written by one program and every sum has a fixed order: two runs agree to the bit. No program reads what it
has written itself.

Sizes ending in _p are padded to powers of 2; what is padded is read as 0 and not written.

How long a program's loop is, is no constant: the programs that a check runs on a few inputs are those that train.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _leading(x, rounding: tl.constexpr):
    """The leading 11 bits of each number: what the tensor cores read of a float32."""
    return ((x.to(tl.int32, bitcast=True) + rounding) & -8192).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def add_product(total, a, b, exact: tl.constexpr):
    """total + a @ b on the tensor cores. ``exact``: 22 bits of each number take part, in three products.

    Otherwise one product, of ``a`` rounded to 11 bits with ``b``, which came as bfloat16 and has 8.
    """
    if exact:
        high_a = _leading(a, 0)
        high_b = _leading(b, 0)
        total = tl.dot(high_a, b - high_b, total, input_precision="tf32")
        total = tl.dot(a - high_a, high_b, total, input_precision="tf32")
        total = tl.dot(high_a, high_b, total, input_precision="tf32")
    else:
        total = tl.dot(_leading(a, 4096), b, total, input_precision="tf32")
    return total


@triton.jit
@no_type_check
def _outputs(classes: tl.constexpr, dim: tl.constexpr, classes_p: tl.constexpr, dim_p: tl.constexpr):
    """The columns of a tile of votes: which output (j, d) each is, and which exist.

    They run over 8 numbers of a vector, then the classes, then the rest of the vector. As the tensor cores deal out columns by
    8 to one warp after the other, a vector lies in one warp, and sums over d take no exchange between warps.
    """
    column = tl.arange(0, classes_p * dim_p)
    j = column // 8 % classes_p
    d = column // (8 * classes_p) * 8 + column % 8
    return j * dim + d, (j < classes) & (d < dim)


@triton.jit
@no_type_check
def capsules_of(at, b, batch, classes: tl.constexpr, dim: tl.constexpr, classes_p: tl.constexpr, dim_p: tl.constexpr):
    """Where the vectors of all classes of some examples lie, as a tile of votes has them, and which of their numbers exist."""
    output, exists = _outputs(classes, dim, classes_p, dim_p)
    return at + b[:, None] * (classes * dim) + output[None, :], (b < batch)[:, None] & exists[None, :]


@triton.jit
@no_type_check
def over_vector(votes):
    """The sum over d of [rows, d // 8, classes, d % 8]: first what lies in one thread."""
    return tl.sum(tl.sum(votes, axis=1), axis=2)


@triton.jit
@no_type_check
def votes_of(
    inputs,
    weight,
    i,
    b,
    batch,
    count,
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
    """The votes of input i for all classes: [rows, d // 8, classes, d % 8].

    Tensor cores take 16 numbers at least. Where an input has 8 or fewer and is ``split``, they are its leading bits and then
    the rest, so that two products do what otherwise takes three.
    """
    output, exists = _outputs(classes, dim, classes_p, dim_p)
    k = tl.arange(0, depth)
    votes = tl.zeros((rows, classes_p * dim_p), tl.float32)
    if split:
        e = k % 8
        at_u = inputs + (b[:, None] * count + i) * (2 * input_dim) + (k // 8 * input_dim + e)[None, :]
    else:
        e = k
        at_u = inputs + (b[:, None] * count + i) * input_dim + e[None, :]
    u = tl.load(at_u, mask=(b < batch)[:, None] & (e < input_dim)[None, :], other=0.0).to(tl.float32)
    at_w = weight + (i * input_dim + e)[:, None] * (classes * dim) + output[None, :]
    w = tl.load(at_w, mask=(e < input_dim)[:, None] & exists[None, :], other=0.0).to(tl.float32)
    if split:
        high = _leading(w, 0)
        votes = tl.dot(u, w - high, votes, input_precision="tf32")
        votes = tl.dot(u, high, votes, input_precision="tf32")
    else:
        votes = add_product(votes, u, w, exact)
    return tl.reshape(votes, (rows, dim_p // 8, classes_p, 8))


@triton.jit
@no_type_check
def uniform_sums(
    inputs,  # u [batch, columns]
    weight,  # W [columns, outputs]
    partials,  # out [chunks, batch, outputs]
    parts,  # out [batch, count, 2, input_dim]: the leading 11 bits of u, and the rest; or None
    batch,
    columns,  # count * input_dim
    chunk,  # of a program's columns: a multiple of step
    input_dim: tl.constexpr,
    classes: tl.constexpr,
    outputs: tl.constexpr,  # classes * dim
    rows: tl.constexpr,
    width: tl.constexpr,  # of a program's outputs
    step: tl.constexpr,
    exact: tl.constexpr,
):
    """The first pass, in which every coupling is 1 / classes: one product of matrices, cut along all three of its sizes."""
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    n = tl.program_id(1) * width + tl.arange(0, width)
    number = tl.program_id(2)
    total = tl.zeros((rows, width), tl.float32)
    for start in range(0, chunk, step):
        k = number * chunk + start + tl.arange(0, step)
        at_u = inputs + b[:, None] * columns + k[None, :]
        u = tl.load(at_u, mask=(b < batch)[:, None] & (k < columns)[None, :], other=0.0).to(tl.float32)
        at_w = weight + k[:, None] * outputs + n[None, :]
        w = tl.load(at_w, mask=(k < columns)[:, None] & (n < outputs)[None, :], other=0.0).to(tl.float32)
        total = add_product(total, u, w, exact)
        if parts is not None:  # of the programs that read the same, one writes
            at = parts + b[:, None] * (2 * columns) + (k // input_dim * (2 * input_dim) + k % input_dim)[None, :]
            exists = (b < batch)[:, None] & (k + tl.program_id(1) * columns < columns)[None, :]
            high = _leading(u, 0)
            tl.store(at, high, mask=exists)
            tl.store(at + input_dim, u - high, mask=exists)
    at = partials + (number * batch + b[:, None]) * outputs + n[None, :]
    tl.store(at, total * (1.0 / classes), mask=(b < batch)[:, None] & (n < outputs)[None, :])


@triton.jit(do_not_specialize=["chunk"])
@no_type_check
def weighted_sums(
    inputs,  # u [batch, count, input_dim], or where ``split``, its parts [batch, count, 2, input_dim]
    weight,  # W [count, input_dim, classes * dim]
    totals,  # V [batch, classes, dim]
    couplings,  # out [count, classes, batch]: the softmax of the logits over the classes; or None
    partials,  # out [chunks, batch, classes, dim]: each chunk's share of the weighted sums, without a bias
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
    """A pass after the first: logits, their softmax over the classes, and the sums of the votes weighted with it."""
    number = tl.program_id(1)
    b = tl.program_id(0) * rows + tl.arange(0, rows)
    j = tl.arange(0, classes_p)
    at, exists = capsules_of(totals, b, batch, classes, dim, classes_p, dim_p)
    v = tl.load(at, mask=exists, other=0.0) * 1.4426950408889634  # so that powers of 2 are those of e
    v = tl.reshape(v, (rows, dim_p // 8, classes_p, 8))
    total = tl.zeros((rows, dim_p // 8, classes_p, 8), tl.float32)
    for i in range(number * chunk, tl.minimum(number * chunk + chunk, count)):
        votes = votes_of(
            inputs, weight, i, b, batch, count, classes, dim, input_dim, classes_p, dim_p, depth, rows, exact, split
        )
        logits = tl.where((j < classes)[None, :], over_vector(votes * v), float("-inf"))
        exponentials = tl.exp2(logits - tl.max(logits, axis=1)[:, None])
        c = exponentials * (1.0 / tl.sum(exponentials, axis=1))[:, None]
        if couplings is not None:
            at_pair = couplings + (i * classes + j[None, :]) * batch + b[:, None]
            tl.store(at_pair, c, mask=(b < batch)[:, None] & (j < classes)[None, :])
        total += c[:, None, :, None] * votes
    at, exists = capsules_of(partials + number * batch * classes * dim, b, batch, classes, dim, classes_p, dim_p)
    tl.store(at, tl.reshape(total, (rows, classes_p * dim_p)), mask=exists)


@triton.jit
@no_type_check
def added_up(partials, row, capsule_count, chunks, dim: tl.constexpr, dim_p: tl.constexpr, step: tl.constexpr):
    """The sum over chunks of one capsule's shares [chunks, batch * classes, dim]."""
    d = tl.arange(0, dim_p)
    total = tl.zeros((step, dim_p), tl.float32)
    for start in range(0, chunks, step):
        number = start + tl.arange(0, step)
        offset = (number[:, None] * capsule_count + row) * dim + d[None, :]
        total += tl.load(partials + offset, mask=(number < chunks)[:, None] & (d < dim)[None, :], other=0.0)
    return tl.sum(total, axis=0)


@triton.jit(do_not_specialize=["capsule_count", "chunks"])
@no_type_check
def squash_sums(
    partials,  # [chunks, batch * classes, dim]
    bias,  # [classes, dim], or None
    before,  # [batch * classes, dim]: V before this pass, or None
    sums,  # out [batch * classes, dim]: s
    capsules,  # out, the same: squash(s)
    totals,  # out, the same: V with this pass, or None
    capsule_count,  # batch * classes
    chunks,
    classes: tl.constexpr,
    dim: tl.constexpr,
    dim_p: tl.constexpr,
    step: tl.constexpr,
):
    """Add up the chunks of one capsule, and squash."""
    row = tl.program_id(0)
    d = tl.arange(0, dim_p)
    at = row * dim + d
    s = added_up(partials, row, capsule_count, chunks, dim, dim_p, step)
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
