"""A step of PyTorch's Adam and the norm of the gradient in one pass over memory, on GPUs.

A step has to read weights, gradients and two moments and to write three of them, 28 bytes a weight: 230 MB of the paper's
network, which an H200 moves in 53 µs. PyTorch's fused Adam took 103 µs for it and the norm 24 µs more (H200, PyTorch 2.11,
from a profile of replayed steps); the kernel here, one launch for all parameters, hasn't been timed yet. The state is that of
``torch.optim.Adam``.
"""

import functools
import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.kernels import OPTIONS, accepted, fault_of, run_on
from capsnet.state import moments

BLOCK = 1024  # numbers to a program


def update(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    """One step with the gradients that are there; -> their norm. A captured step has its learning rate in a tensor."""
    from capsnet import adam_kernels as kernels

    squares: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters = [p for p in group["params"] if p.grad is not None]
        states = [optimizer.state[p] for p in parameters]
        torch._foreach_add_([state["step"] for state in states], 1)
        rate, (beta_1, beta_2) = group["lr"], group["betas"]
        programs = sum(-(-p.numel() // BLOCK) for p in parameters)
        squares.append(parameters[0].new_empty(programs))
        with torch.cuda.device_of(parameters[0]):
            kernels.update[(programs,)](
                tuple(p.detach() for p in parameters),
                tuple(p.grad if _alike(p.grad, p) else torch.empty_like(p).copy_(p.grad) for p in parameters),
                *(tuple(state[name] for state in states) for name in ("exp_avg", "exp_avg_sq", "step")),
                tuple(p.numel() for p in parameters),
                rate if isinstance(rate, Tensor) else parameters[0].new_full((), rate),
                squares[-1],
                float(group["eps"]),
                float(group["weight_decay"]),
                log_1=math.log(beta_1),
                log_2=math.log(beta_2),
                beta_1=beta_1,
                beta_2=beta_2,
                block=BLOCK,
                **OPTIONS,
            )
    return (squares[0] if len(squares) == 1 else torch.cat(squares)).sum().sqrt()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether numbers lie in one order. A dimension of size 1 may have any stride, as has that of a single channel."""
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or mine == theirs for size, mine, theirs in strides)


def trusted(device: torch.device, parameters: Iterable[Tensor]) -> bool:
    """Whether the kernel does on a device what PyTorch's does, for such parameters; if not, why not is told once."""
    return run_on(device) and _checked(device, tuple(p.numel() % 16 > 0 for p in parameters))


@functools.cache
def _checked(device: torch.device, odd: tuple[bool, ...]) -> bool:
    return accepted(self_check(device, odd), "the kernels of Adam", device)


def self_check(device: torch.device, odd: tuple[bool, ...]) -> str:
    """Why the kernel can't be trusted on a device, or "".

    Args:
        device: of the kernel.
        odd: for each parameter, whether the number of its weights is no multiple of 16: what is compiled depends on it.

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """
    return fault_of(lambda: deviations(device, [(3, 1000) if one else (3, 1024) for one in odd], 3, 0.0), 1e-5)


def deviations(device: torch.device, shapes: Sequence[tuple[int, ...]], steps: int, decay: float) -> dict[str, float]:
    """After some steps, against PyTorch's Adam in float64 on the CPU: |answer - truth| / |truth| of what has changed.

    Args:
        device: of the kernel.
        shapes: of parameters.
        steps, decay: how many, and what L2 decay.
    """
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    mine = [start.clone().to(device).requires_grad_() for start in starts]
    theirs = [start.double().requires_grad_() for start in starts]
    rate = torch.tensor(1e-2, device=device)
    ours = torch.optim.Adam(mine, lr=rate, weight_decay=decay, capturable=device.type == "cuda")
    ours.state.update({parameter: moments(parameter) for parameter in mine})
    exact = torch.optim.Adam(theirs, lr=1e-2, weight_decay=decay)
    norm = norms = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        for one, other in zip(mine, theirs, strict=True):
            gradient = torch.randn(one.shape, generator=generator)
            one.grad, other.grad = gradient.to(device), gradient.double()
        norm = norm + update(ours).cpu().double()
        norms = norms + torch.nn.utils.get_total_norm([parameter.grad for parameter in theirs if parameter.grad is not None])
        exact.step()
    found = {"norm": float((norm - norms).abs() / norms)}
    for i, (one, other, start) in enumerate(zip(mine, theirs, starts, strict=True)):
        pairs = {
            "weights": (one.detach().cpu().double() - start, other.detach() - start),
            "first moment": (ours.state[one]["exp_avg"].cpu().double(), exact.state[other]["exp_avg"]),
            "second moment": (ours.state[one]["exp_avg_sq"].cpu().double(), exact.state[other]["exp_avg_sq"]),
        }
        for name, (answer, truth) in pairs.items():
            found[f"{name} of parameter {i}"] = float((answer - truth).norm() / truth.norm())
    return found
