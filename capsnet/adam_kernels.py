"""The Triton program of capsnet.adam_triton."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def update(
    parameters,  # a tuple for each of these six: a tensor, or a number, for each parameter
    gradients,
    firsts,  # moments
    seconds,
    steps,  # how many there are with this one
    counts,  # of numbers
    rate,  # of learning, one number on the device
    squares,  # out: each program's sum of squared gradients
    epsilon,
    decay,
    log_1: tl.constexpr,  # natural logarithms of the two betas
    log_2: tl.constexpr,
    beta_1: tl.constexpr,
    beta_2: tl.constexpr,
    block: tl.constexpr,
):
    """Adam (Kingma and Ba 2015, algorithm 1), with L2 decay; a program has a block of one parameter."""
    program = tl.program_id(0)
    first = 0  # program of a parameter
    for i in tl.static_range(len(parameters)):
        programs = tl.cdiv(counts[i], block)
        if (program >= first) & (program < first + programs):
            at = (program - first) * block + tl.arange(0, block)
            exists = at < counts[i]
            t = tl.load(steps[i]).to(tl.float64)  # in float32, 1 - 0.999 would be off by 3e-5
            left_1 = (1.0 - tl.exp(t * tl.full((), log_1, tl.float64))).to(tl.float32)
            left_2 = (1.0 - tl.exp(t * tl.full((), log_2, tl.float64))).to(tl.float32)
            p = tl.load(parameters[i] + at, mask=exists, other=0.0)
            g = tl.load(gradients[i] + at, mask=exists, other=0.0)
            m = tl.load(firsts[i] + at, mask=exists, other=0.0)
            v = tl.load(seconds[i] + at, mask=exists, other=0.0)
            tl.store(squares + program, tl.sum(g * g, axis=0))
            g += decay * p
            m = beta_1 * m + (1.0 - beta_1) * g
            v = beta_2 * v + (1.0 - beta_2) * g * g
            p -= tl.load(rate) / left_1 * m / (tl.sqrt(v) / tl.sqrt(left_2) + epsilon)
            tl.store(parameters[i] + at, p, mask=exists)
            tl.store(firsts[i] + at, m, mask=exists)
            tl.store(seconds[i] + at, v, mask=exists)
        first += programs
