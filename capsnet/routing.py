"""Routings: from votes (each input capsule's prediction of each class capsule) to class capsules.

A routing is a plain function, or a module if it has parameters, buffers or options: a class, made of the numbers of inputs and
classes. ``iterations`` is r in the paper's count: the number of weighted sums, of which the last is the output, so that the
logits are updated r - 1 times.
"""

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from capsnet.config import RunConfig
from capsnet.layers import Routing, RoutingModule, Squash, squash
from capsnet.registry import SQUASHES, load


def routing_of(config: RunConfig, inputs: int, outputs: int) -> Routing:
    """The routing that a config names, from ``inputs`` to ``outputs`` capsules, with what of it is changed."""
    facts = config.router
    named = load(facts.code)
    given: dict[str, Any] = {"none_of_the_above": config.none_of_the_above, "detached": config.routing_gradient == "detached"}
    if config.squash != "paper" and facts.squashes:
        given["squash"] = load(SQUASHES[config.squash])
    changes = {name: value for name, value in given.items() if value} | dict(facts.options)
    if isinstance(named, type):
        return named(inputs, outputs, **changes)
    return partial(named, **changes) if changes else named  # agreement.py knows the plain functions


def dynamic(
    votes: Float[Tensor, "batch inputs classes dim"],
    iterations: int,
    bias: Float[Tensor, "classes dim"] | None = None,
    *,
    squash: Squash = squash,
    none_of_the_above: bool = False,
    detached: bool = False,
) -> Float[Tensor, "batch classes dim"]:
    """Routing by agreement (paper, procedure 1); gradients flow through every pass.

    The logits start at 0 for every example. A pass takes the softmax of the logits over the CLASSES (so that an input
    shares itself out), sums the votes with these coupling coefficients, adds ``bias`` and squashes. Between passes each
    logit grows by the scalar product of its vote with the capsule.

    Args:
        votes: of each input for each class.
        iterations: r.
        bias: added to each weighted sum.
        squash: what makes a capsule of each weighted sum.
        none_of_the_above: the softmax has a further class, without a capsule, whose logit stays 0. The paper's network for
            CIFAR-10 has it, so that not every input has to be explained; in the authors' code it is called leaky routing.
        detached: coupling coefficients are constants to the gradient, which flows through the last weighted sum alone.
    """
    if iterations < 1:
        raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
    capsules = _equal_shares(votes, votes.shape[2] + none_of_the_above, bias, squash)  # the softmax of equal logits
    if iterations == 1:
        return capsules
    by_class = votes.transpose(1, 2).contiguous()  # [batch, classes, inputs, dim]: each pass is two batched matrix products
    logits = votes.new_zeros(by_class.shape[:3])
    for _ in range(iterations - 1):
        logits = logits + (by_class @ capsules[..., None]).squeeze(3)
        coupling = shares(logits, none_of_the_above)
        coupling = coupling.detach() if detached else coupling
        total = (coupling[:, :, None] @ by_class).squeeze(2)
        capsules = squash(total if bias is None else total + bias)
    return capsules


def uniform(
    votes: Float[Tensor, "batch inputs classes dim"],
    iterations: int = 1,
    bias: Float[Tensor, "classes dim"] | None = None,
    *,
    squash: Squash = squash,
) -> Float[Tensor, "batch classes dim"]:
    """No routing: every coupling coefficient is 1 / classes. Equal to dynamic routing with r = 1, its only r."""
    if iterations != 1:
        raise ValueError(f"uniform coupling has one weighted sum, not {iterations}")
    return _equal_shares(votes, votes.shape[2], bias, squash)


def shares(logits: Float[Tensor, "batch classes inputs"], none_of_the_above: bool) -> Float[Tensor, "batch classes inputs"]:
    """How each input shares itself out: the softmax over the classes, without what went to none of them."""
    if none_of_the_above:
        return nn.functional.pad(logits, (0, 0, 0, 1)).softmax(dim=1)[:, :-1]
    return logits.softmax(dim=1)


def _equal_shares(
    votes: Float[Tensor, "batch inputs classes dim"], count: int, bias: Float[Tensor, "classes dim"] | None, squash: Squash
) -> Float[Tensor, "batch classes dim"]:
    total = votes.sum(dim=1) / count
    return squash(total if bias is None else total + bias)


class OneSum(RoutingModule):
    """A routing of one weighted sum, which is squashed; subclasses say with which coefficients."""

    def __init__(self, squash: Squash) -> None:
        super().__init__()
        self.squash = squash

    @abstractmethod
    def coefficients(self, votes: Float[Tensor, "batch inputs classes dim"]) -> Float[Tensor, "#batch inputs classes"]:
        """What each vote is multiplied by."""

    def fixed_shares(self) -> Float[Tensor, "inputs outlets"] | None:
        """How each input shares itself out, among the classes and none of them if that is one; None if images differ in it."""
        return None

    def forward(
        self,
        votes: Float[Tensor, "batch inputs classes dim"],
        iterations: int = 1,
        bias: Float[Tensor, "classes dim"] | None = None,
    ) -> Float[Tensor, "batch classes dim"]:
        """Sum the votes, add the bias, squash."""
        if iterations != 1:
            raise ValueError(f"{type(self).__name__} has one weighted sum, not {iterations}")
        total = (self.coefficients(votes)[..., None] * votes).sum(dim=1)
        return self.squash(total if bias is None else total + bias)


class Random(OneSum):
    """Coupling coefficients that nobody chose: the softmax over the classes of logits from a standard normal distribution.

    They are drawn once for a run, the same for every image, and kept with its weights. A baseline of Paik, Kwak and Kim 2019
    (arXiv 1907.13327) assigns strengths at random; this distribution is a choice made here.
    """

    coupling: Tensor

    def __init__(self, inputs: int, classes: int, squash: Squash = squash) -> None:
        super().__init__(squash)
        self.register_buffer("coupling", torch.empty(inputs, classes))

    def reset(self, generator: Generator) -> None:
        """Draw the coefficients."""
        self.coupling.copy_(torch.randn(self.coupling.shape, generator=generator).softmax(dim=1))

    def coefficients(self, votes: Float[Tensor, "batch inputs classes dim"]) -> Float[Tensor, "1 inputs classes"]:  # noqa: ARG002
        """As they were drawn."""
        return self.coupling[None]

    def fixed_shares(self) -> Float[Tensor, "inputs classes"]:
        """As they were drawn."""
        return self.coupling


class Static(OneSum):
    """Learned coupling: the softmax over the classes of logits that are parameters, the same for every image.

    They are the log priors of procedure 1, which "can be learned discriminatively at the same time as all the other weights"
    (paper, section 2), with no iteration after them. All are 0 at first, which is uniform coupling. With ``none_of_the_above``
    the softmax has a further class, without a capsule, whose logit stays 0.
    """

    def __init__(self, inputs: int, classes: int, squash: Squash = squash, none_of_the_above: bool = False) -> None:
        super().__init__(squash)
        self.none_of_the_above = none_of_the_above
        self.logits = nn.Parameter(torch.empty(inputs, classes))

    def reset(self, generator: Generator) -> None:  # noqa: ARG002
        """Uniform coupling."""
        nn.init.zeros_(self.logits)

    def coefficients(self, votes: Float[Tensor, "batch inputs classes dim"]) -> Float[Tensor, "1 inputs classes"]:  # noqa: ARG002
        """As they were learned."""
        return shares(self.logits.T[None], self.none_of_the_above).transpose(1, 2)

    def fixed_shares(self) -> Float[Tensor, "inputs outlets"]:
        """As they were learned."""
        return nn.functional.pad(self.logits, (0, int(self.none_of_the_above))).softmax(dim=1)


class Attention(OneSum):
    """Self-attention routing of Efficient-CapsNet (Mazzia, Salvetti and Chiaberge 2021, arXiv 2101.12491, section 3).

    Of each class the scalar products of all its votes, divided by the root of their dimensions, are an attention matrix; a
    vote's logit is the sum of its row, itself included. Coefficients are the softmax of these over the classes, plus a learned
    log prior of each input and class, which starts at 0. A row's sum is the vote's scalar product with the sum of all votes, so
    that no matrix is made. Taken over is the routing alone: squash (theirs is ``efficient``), loss and primary capsules are
    the config's.

    Efficient-CapsNet routes 16 capsules. The logits grow with the number of inputs, and so does the sharpness of the coupling,
    if the ``temperature`` that divides them doesn't.
    """

    def __init__(self, inputs: int, classes: int, squash: Squash = squash, temperature: float = 1.0) -> None:
        super().__init__(squash)
        self.temperature = temperature
        self.priors = nn.Parameter(torch.empty(inputs, classes))

    def reset(self, generator: Generator) -> None:  # noqa: ARG002
        """No prior."""
        nn.init.zeros_(self.priors)

    def coefficients(self, votes: Float[Tensor, "batch inputs classes dim"]) -> Float[Tensor, "batch inputs classes"]:
        """Attention and priors; they need not sum to 1, nor be positive."""
        attention = (votes * votes.sum(dim=1, keepdim=True)).sum(dim=3) / (votes.shape[3] ** 0.5 * self.temperature)
        return attention.softmax(dim=2) + self.priors
