"""The routings there are, with their parameters, and what can be known of them without their code, which needs torch.

To add one, write the code, as in routing.py, and here a function of its parameters and a line in ``ROUTINGS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from capsnet.variants import require


@dataclass(frozen=True)
class RoutingFacts:
    """What can be known of a routing before it is made."""

    code: str  # "module:name": a function of votes, iterations and bias, or a class of capsnet.layers.RoutingModule
    options: Mapping[str, Any] = field(default_factory=dict)  # what the code is given beside: the variant's parameters
    iterated: bool = False  # it has an r; if not, it computes one weighted sum
    squashes: bool = True  # sums of votes, to which a bias can be added; it takes ``squash``, the function
    outlet: bool = False  # it takes ``none_of_the_above``
    detaches: bool = False  # it takes ``detached``


def dynamic() -> RoutingFacts:
    """Routing by agreement (paper, procedure 1)."""
    return RoutingFacts("capsnet.routing:dynamic", iterated=True, outlet=True, detaches=True)


def uniform() -> RoutingFacts:
    """No routing: every coupling coefficient is 1 / classes."""
    return RoutingFacts("capsnet.routing:uniform")


def random() -> RoutingFacts:
    """Coupling coefficients that are drawn once."""
    return RoutingFacts("capsnet.routing:Random")


def static() -> RoutingFacts:
    """Learned coupling, the same for every image."""
    return RoutingFacts("capsnet.routing:Static", outlet=True)


def attention(*, temperature: float = 1.0) -> RoutingFacts:
    """Self-attention routing of Efficient-CapsNet; its logits are divided by the temperature."""
    require(temperature > 0, "temperature", "above 0", temperature)
    return RoutingFacts("capsnet.routing:Attention", {"temperature": temperature})


def em(*, scale: float = 1.0) -> RoutingFacts:
    """EM routing of matrix capsules; lambda, its inverse temperature, is scale / dimensions."""
    require(scale > 0, "scale", "above 0", scale)
    return RoutingFacts("capsnet.em:EM", {"scale": scale}, iterated=True, squashes=False)


ROUTINGS: dict[str, Callable[..., RoutingFacts]] = {
    "dynamic": dynamic,
    "uniform": uniform,
    "random": random,
    "static": static,
    "attention": attention,
    "em": em,
}
