"""EM routing (Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", procedure 1), of vector votes."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from capsnet.layers import RoutingModule

SMALL = 1e-8
"""Added to the data that a class is assigned and to squared lengths, so that nothing is divided by 0."""

FLOOR = 0.01
"""Added to variances: the square of the deviation of the first weights, by which a vote of a capsule of length 1 varies."""


class EM(RoutingModule):
    """Classes are Gaussians, of which each input's assignment explains its votes; a class is active if that is cheap.

    Taken over from procedure 1, with every input connected to every class: assignments R_ij that start at 1 / classes, and in
    each pass an M-step (R_ij times the input's activation a_i; of each dimension mean mu_jh and variance sigma_jh^2; costs
    (beta_u + log sigma_jh) sum_i R_ij; a_j = logistic(lambda (beta_a - sum_h cost_jh))) and between passes an E-step (R_ij in
    proportion to a_j p_j(V_ij)). beta_u and beta_a are learned, one of each for each class.

    Not taken over, or left open there and chosen here:

    - Votes and means are vectors of the config's dimensions, not 4x4 matrices, and no coordinates are added to them.
    - An input's activation is the length of its primary capsule. What is handed on is v_j = a_j mu_j / |mu_j|, so that a
      length is an activation, as losses and decoder take it; there is no squash of class capsules, and no bias.
    - sum_i R_ij in the costs is divided by its mean over the classes, so that they don't grow with the number of inputs.
    - The sum of the costs counts as its difference to the mean over the classes. With the costs as they are, all classes of an
      image rise and fall together with the variances of its votes, and 2 of 3 networks on 300 digits didn't learn.
    - A variance has a floor. Without it a class whose votes vanish is the cheapest for every image: it stays active, its
      gradient is 0, and the network answers with it for ever, as 2 of 3 networks on 300 digits did.
    - lambda is ``scale`` / dimensions in every pass; the paper has a schedule and doesn't print it. It multiplies the costs
      alone: beta_a is learned with any factor.
    - The loss is the config's; the paper has the spread loss.

    beta_u and beta_a start at 0.
    """

    takes_activations = True

    def __init__(self, inputs: int, classes: int, scale: float = 1.0) -> None:  # noqa: ARG002
        super().__init__()
        self.scale = scale
        self.of_use = nn.Parameter(torch.empty(classes))  # beta_u
        self.of_activation = nn.Parameter(torch.empty(classes))  # beta_a

    def reset(self, generator: Generator) -> None:  # noqa: ARG002
        """No preference."""
        nn.init.zeros_(self.of_use)
        nn.init.zeros_(self.of_activation)

    def forward(
        self,
        votes: Float[Tensor, "batch inputs classes dim"],
        iterations: int,
        bias: None,
        activations: Float[Tensor, "batch inputs"],
    ) -> Float[Tensor, "batch classes dim"]:
        """``iterations`` is the number of M-steps; ``activations`` are those of the inputs, in [0, 1]."""
        capsules, _ = self.followed(votes, iterations, bias, activations)
        return capsules

    def followed(
        self,
        votes: Float[Tensor, "batch inputs classes dim"],
        iterations: int,
        bias: None,  # noqa: ARG002
        activations: Float[Tensor, "batch inputs"],
    ) -> tuple[Float[Tensor, "batch classes dim"], list[Float[Tensor, "batch classes inputs"]]]:
        """The capsules, and the assignments that each M-step was made with, which sum to 1 over the classes."""
        if iterations < 1:
            raise ValueError(f"routing takes 1 iteration or more, not {iterations}")
        by_class = votes.transpose(1, 2)  # [batch, classes, inputs, dim]
        assigned = [votes.new_full(by_class.shape[:3], 1 / votes.shape[2])]
        mean, variance, active = self._maximised(by_class, assigned[-1] * activations[:, None])
        for _ in range(iterations - 1):
            assigned.append(self._expected(by_class, mean, variance, active))
            mean, variance, active = self._maximised(by_class, assigned[-1] * activations[:, None])
        capsules = active.sigmoid()[..., None] * mean / (mean.square().sum(dim=2, keepdim=True) + SMALL).sqrt()
        return capsules, assigned

    def _maximised(
        self, votes: Float[Tensor, "batch classes inputs dim"], assigned: Float[Tensor, "batch classes inputs"]
    ) -> tuple[Float[Tensor, "batch classes dim"], Float[Tensor, "batch classes dim"], Float[Tensor, "batch classes"]]:
        """The M-step: means, variances, and the logits of the activations."""
        amount = assigned.sum(dim=2) + SMALL
        share = (assigned / amount[..., None])[:, :, None]
        mean = (share @ votes).squeeze(2)
        variance = (share @ (votes - mean[:, :, None]).square()).squeeze(2) + FLOOR
        cost = self.scale * (self.of_use[:, None] + variance.log() / 2).mean(dim=2)  # the scaled mean is lambda times the sum
        cost = cost * amount / amount.mean(dim=1, keepdim=True)
        return mean, variance, self.of_activation + cost.mean(dim=1, keepdim=True) - cost

    @staticmethod
    def _expected(
        votes: Float[Tensor, "batch classes inputs dim"],
        mean: Float[Tensor, "batch classes dim"],
        variance: Float[Tensor, "batch classes dim"],
        active: Float[Tensor, "batch classes"],
    ) -> Float[Tensor, "batch classes inputs"]:
        """The E-step: each input's assignments, which sum to 1 over the classes."""
        distance = ((votes - mean[:, :, None]).square() @ variance.reciprocal()[..., None]).squeeze(3)
        height = (2 * math.pi * variance).log().sum(dim=2, keepdim=True)
        return (nn.functional.logsigmoid(active)[..., None] - (distance + height) / 2).softmax(dim=1)
