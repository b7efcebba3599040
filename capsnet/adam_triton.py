"""A step of PyTorch's Adam and the norm of the gradient in one pass over memory, on GPUs.

A step has to read weights, gradients and two moments and to write three of them, 28 bytes a weight: 230 MB of the paper's
network, which an H200 moves in 53 µs. PyTorch's fused Adam took 103 µs for it and the norm 24 µs more (H200, PyTorch 2.11,
from a profile of replayed steps); the kernel here hasn't been timed yet. The state is that of ``torch.optim.Adam``.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.kernels import OPTIONS, accepted, fault_of, run_on

BLOCK = 1024  # numbers to a program
CHECKED = ((3, 1000), (3, 1024))  # weights whose number is no multiple of 16, and is one: for each, another program is compiled


def update(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    """One step with the gradients that are there; -> their norm. A captured step has its learning rate in a tensor."""
    from capsnet import adam_kernels as kernels

    squares: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters = [p for p in group["params"] if p.grad is not None]
        states = [optimizer.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            if not state:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                state |= {"step": torch.zeros((), device=p.device), **moments}
        torch._foreach_add_([state["step"] for state in states], 1)
        beta_1, beta_2 = group["betas"]
        for p, state in zip(parameters, states, strict=True):
            rate = group["lr"] if isinstance(group["lr"], Tensor) else p.new_full((), group["lr"])
            gradient = p.grad if _alike(p.grad, p) else torch.empty_like(p).copy_(p.grad)
            programs = -(-p.numel() // BLOCK)
            squares.append(p.new_empty(programs))
            with torch.cuda.device_of(p):
                kernels.update[(programs,)](
                    p.detach(),
                    gradient,
                    state["exp_avg"],
                    state["exp_avg_sq"],
                    state["step"],
                    rate,
                    squares[-1],
                    p.numel(),
                    float(group["eps"]),
                    float(group["weight_decay"]),
                    log_1=math.log(beta_1),
                    log_2=math.log(beta_2),
                    beta_1=beta_1,
                    beta_2=beta_2,
                    block=BLOCK,
                    **OPTIONS,
                )
    return torch.cat(squares).sum().sqrt()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether numbers lie in one order. A dimension of size 1 may have any stride, as has that of a single channel."""
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or mine == theirs for size, mine, theirs in strides)


@functools.cache
def trusted(device: torch.device) -> bool:
    """Whether the kernel is there and does what PyTorch's does on a device; if not, why not is told once."""
    return run_on(device) and accepted(self_check(device), "the kernels of Adam", device)


def self_check(device: torch.device) -> str:
    """Why the kernel can't be trusted on a device, or "".

    Raises:
        RuntimeError: there was no memory to find out, so that the next call tries again.
    """

    def found() -> dict[str, float]:
        return {
            f"{name} of {shape[0] * shape[1]} weights": error
            for shape in CHECKED
            for name, error in deviations(device, shape, 3, 0.0).items()
        }

    return fault_of(found, 1e-5)


def deviations(device: torch.device, shape: tuple[int, ...], steps: int, decay: float) -> dict[str, float]:
    """After some steps, against PyTorch's Adam in float64 on the CPU: |answer - truth| / |truth| of what has changed."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    mine, theirs = start.clone().to(device).requires_grad_(), start.double().requires_grad_()
    rate = torch.tensor(1e-2, device=device)
    ours = torch.optim.Adam([mine], lr=rate, weight_decay=decay, capturable=device.type == "cuda")
    exact = torch.optim.Adam([theirs], lr=1e-2, weight_decay=decay)
    norm = norms = torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        gradient = torch.randn(shape, generator=generator)
        mine.grad, theirs.grad = gradient.to(device), gradient.double()
        norm, norms = norm + update(ours).cpu().double(), norms + theirs.grad.norm()
        exact.step()
    found = {
        "parameter": (mine.detach().cpu().double() - start, theirs.detach() - start),
        "first moment": (ours.state[mine]["exp_avg"].cpu().double(), exact.state[theirs]["exp_avg"]),
        "second moment": (ours.state[mine]["exp_avg_sq"].cpu().double(), exact.state[theirs]["exp_avg_sq"]),
        "norm": (norm, norms),
    }
    return {name: float((answer - truth).norm() / truth.norm()) for name, (answer, truth) in found.items()}
