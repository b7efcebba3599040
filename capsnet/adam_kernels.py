"""The Triton program of capsnet.adam_triton."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def update(
    parameter,
    gradient,
    first,  # moment
    second,
    steps,  # how many there are with this one
    rate,  # of learning, one number on the device
    squares,  # out: each program's sum of squared gradients
    count,
    epsilon,
    decay,
    log_1: tl.constexpr,  # natural logarithms of the two betas
    log_2: tl.constexpr,
    beta_1: tl.constexpr,
    beta_2: tl.constexpr,
    block: tl.constexpr,
):
    """Adam (Kingma and Ba 2015, algorithm 1) on a block of numbers, with L2 decay; and its part of the gradient's norm."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    exists = at < count
    t = tl.load(steps).to(tl.float64)  # in float32, 1 - 0.999 would be off by 3e-5
    left_1 = (1.0 - tl.exp(t * tl.full((), log_1, tl.float64))).to(tl.float32)
    left_2 = (1.0 - tl.exp(t * tl.full((), log_2, tl.float64))).to(tl.float32)
    p = tl.load(parameter + at, mask=exists, other=0.0)
    g = tl.load(gradient + at, mask=exists, other=0.0)
    m = tl.load(first + at, mask=exists, other=0.0)
    v = tl.load(second + at, mask=exists, other=0.0)
    tl.store(squares + tl.program_id(0), tl.sum(g * g, axis=0))
    g += decay * p
    m = beta_1 * m + (1.0 - beta_1) * g
    v = beta_2 * v + (1.0 - beta_2) * g * g
    p -= tl.load(rate) / left_1 * m / (tl.sqrt(v) / tl.sqrt(left_2) + epsilon)
    tl.store(parameter + at, p, mask=exists)
    tl.store(first + at, m, mask=exists)
    tl.store(second + at, v, mask=exists)
