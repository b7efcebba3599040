"""What a routing without votes gives, against explicit votes in float64: what kernels are trusted by before their first use."""

import torch
from torch import Tensor

from capsnet.kernels import relative_errors
from capsnet.layers import Routing
from capsnet.routing import dynamic

CPU = torch.device("cpu")


@torch.inference_mode(False)  # an evaluation may be the first to ask
def deviations(
    route: Routing,
    sizes: tuple[int, int, int, int, int],
    iterations: int,
    biased: bool = True,
    precision: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> dict[str, float]:
    """For random inputs, |answer - truth| / |truth| of the capsules and of each gradient.

    Args:
        route: of inputs, weight, classes, iterations and bias, as :func:`capsnet.agreement.route`.
        sizes: batch, inputs, input_dim, classes, dim.
        iterations, biased: of the routing.
        precision: of inputs, weight and bias.
        device: of ``route``; the truth, votes and ``dynamic``, is found on the CPU.
    """
    batch, count, input_dim, classes, dim = sizes
    generator = torch.Generator().manual_seed(sum(sizes) + iterations)

    def drawn(*shape: int) -> Tensor:  # whatever a user has made the default of
        return torch.randn(shape, generator=generator, dtype=torch.float32, device=CPU)

    shapes = {"inputs": (batch, count, input_dim), "weight": (count, input_dim, classes * dim), "bias": (classes, dim)}
    values = {name: drawn(*shape).to(precision) for name, shape in shapes.items()}
    values["weight"] *= 0.3
    if not biased:
        del values["bias"]
    gradient = drawn(batch, classes, dim)

    leaves = {name: value.to(device).requires_grad_() for name, value in values.items()}
    with torch.enable_grad():
        capsules = route(leaves["inputs"], leaves["weight"], classes, iterations, leaves.get("bias"))
        answers = [capsules, *torch.autograd.grad(capsules, list(leaves.values()), gradient.to(device))]
        exact = {name: value.double().requires_grad_() for name, value in values.items()}
        votes = torch.einsum("bie,iek->bik", exact["inputs"], exact["weight"]).unflatten(2, (classes, dim))
        truth = dynamic(votes, iterations, exact.get("bias"))
        truths = [truth, *torch.autograd.grad(truth, list(exact.values()), gradient.double())]
    return relative_errors(("capsules", *leaves), answers, truths)
