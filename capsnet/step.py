"""One training step, and how an epoch's steps are taken: one after the other, or as replays of CUDA graphs (graphs.py).

Nothing in a step waits for the device or for the host: the data set, the epoch's order, its augmentation and its learning rates
lie on the device when the epoch begins, and sums of losses stay there until it ends.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet import adam_triton, losses
from capsnet.answers import answered, wrong
from capsnet.augmentation import Augmentation
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.draws import Draws, composed
from capsnet.errors import headline, shortage
from capsnet.execution import Settled, cell_of, give_up
from capsnet.graphs import Graphs
from capsnet.models import Network
from capsnet.objectives import Objective, margin
from capsnet.state import TrainingState

Losses = tuple[Float[Tensor, ""], Float[Tensor, "4"]]

MARGIN = margin()  # as in the paper


def step_losses(
    model: Network,
    weight: float,
    images: Float[Tensor, "batch channels height width"],
    labels: Int[Tensor, "batch *labels"],
    objective: Objective = MARGIN,
    done: float | Float[Tensor, ""] = 0.0,
    noise: Int[Tensor, "batch 2"] | None = None,
    digits: Float[Tensor, "batch 2 channels height width"] | None = None,
) -> Losses:
    """The loss to minimise, and the batch's sums of loss, loss of class scores, reconstruction loss and wrong answers.

    Args:
        model: the network.
        weight: of the reconstruction loss.
        images, labels: a batch.
        objective: the loss of class scores.
        done: share of the run's steps before this one.
        noise: two random numbers of 32 bits for each image, of which dropout is made; None = no dropout.
        digits: of images with two labels, what each was made of: the decoder runs once per digit, against that digit's own
            image, and both losses are added (section 6).
    """
    capsules = model.encode(images, noise)
    scores = model.read(capsules)
    classes = loss = objective.of(scores, labels, done)
    reconstruction = torch.zeros_like(classes)
    if weight:
        if digits is None:
            reconstruction = losses.reconstruction(images, model.reconstruct(capsules, model.decoded(scores, labels)))
        else:
            for i in range(2):
                reconstruction = reconstruction + losses.reconstruction(digits[:, i], model.reconstruct(capsules, labels[:, i]))
        loss = classes + weight * reconstruction
    missed = wrong(answered(scores.detach(), labels.shape[1:].numel()), labels).sum()
    return loss, torch.cat([torch.stack([loss, classes, reconstruction]).detach() * len(labels), missed[None]])


def drawn_losses(
    model: Network,
    weight: float,
    training: Split,
    draws: Draws,
    places: Int[Tensor, " batch"] | None,
    augment: Augmentation,
    objective: Objective,
    taken: Float[Tensor, ""],
    total: int,
) -> Losses:
    """:func:`step_losses` of drawn images: a step up to its gradients, which a compiler sees as one.

    Args:
        model, weight, objective: as there.
        training: the images.
        draws: of an epoch, or of one batch.
        places: of the batch among the draws; None = they are its own.
        augment: what is done to the images.
        taken, total: steps of the run before this one, in float64, and in all.
    """
    batch = composed(training, draws if places is None else draws.at(places), augment)
    done = (taken / total).float()
    return step_losses(model, weight, batch.images, batch.labels, objective, done, batch.noise, batch.digits)


def updater(state: TrainingState) -> Callable[[TrainingState], Float[Tensor, ""]]:
    """How weights and Adam's moments are changed: by a kernel, whether in a graph or not, or by :func:`updated`."""
    clips = state.config.gradient_clip  # which has to know the norm before
    if state.device.type == "cuda" and not clips and adam_triton.trusted(state.device, state.model.parameters()):
        return lambda state: adam_triton.update(state.optimizer)
    return updated


def updated(state: TrainingState) -> Float[Tensor, ""]:
    """Weights and Adam's moments by PyTorch's own; -> the norm of the gradient before it is clipped."""
    parameters = list(state.model.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if state.config.gradient_clip:
        nn.utils.clip_grads_with_norm_(parameters, state.config.gradient_clip, norm)
    state.optimizer.step()
    return norm


def descend(
    state: TrainingState,
    sums: Float[Tensor, "4"],
    rate: float | Float[Tensor, ""],
    update: Callable[[TrainingState], Float[Tensor, ""]],
) -> Float[Tensor, "5"]:
    """One step down the gradient that is there, by what :func:`updater` gave; the sums of losses and the gradient's norm."""
    state.set_rate(rate)
    norm = update(state)
    return torch.cat([sums, norm[None]])


def differentiate(state: TrainingState, losses: Callable[[], Losses]) -> Float[Tensor, "4"]:
    """Leave the gradient of the first of the losses in the parameters; their sums."""
    state.optimizer.zero_grad()
    loss, sums = losses()
    loss.backward()
    return sums


class Steps:
    """The steps of one run's epochs on its device."""

    def __init__(self, state: TrainingState, data: Data, settled: Settled) -> None:
        self.state, self.data = state, data
        self.augment, self.size, self.count = state.config.augment, state.config.batch_size, len(data.training)
        self.losses = _compiled(cell_of(state.config)) if settled.compile else drawn_losses
        whole, rest = divmod(self.count, self.size)
        self.sizes = [self.size] * bool(whole) + [rest] * bool(rest)  # of an epoch's batches
        self.doubtful = settled.compile and "compile" not in settled.insists  # whether what is compiled works here
        self.insists_on_graphs = "graph" in settled.insists
        self.totals = torch.zeros(5, dtype=torch.float64, device=state.device)
        self.sums = torch.zeros_like(self.totals)  # of the last step
        self.done = torch.zeros_like(self.totals[0])  # steps of the run
        self.one = torch.ones_like(self.done)
        self.rates: Sequence[float] = ()
        self.graphs = Graphs(self) if settled.graph else None
        self.update = updater(state)

    def begin(self, draws: Draws, rates: Sequence[float]) -> None:
        """Start an epoch with what was drawn for it, and the learning rate of each of its steps."""
        self.totals.zero_()
        self.done.fill_(len(self.state.history) * self.state.config.steps_per_epoch)
        if self.graphs and not self.graphs.captured:
            self._capture(self.graphs)
        if self.graphs:
            self.graphs.begin(draws, rates)
        else:
            self.draws, self.rates = draws.to(self.state.device), rates
            if self.doubtful:
                self.try_out([(self.draws.at(slice(size)), None) for size in self.sizes])

    def _capture(self, graphs: Graphs) -> None:
        """Before the first epoch; where a capture fails, the run's steps are launched one by one.

        They give the same bits, but for what a compiler rounds otherwise, to which images are shown in another way then.
        """
        try:
            graphs.capture()
        except Exception as error:  # whatever a driver or a library raises that can't be captured
            if self.insists_on_graphs or shortage(error) == "out of memory":
                raise
            said = f"steps are not replayed, because no CUDA graph can be captured here: {headline(error)}"
            warnings.warn(said, stacklevel=2)
            give_up("graph", self.state.config)
            self.graphs = None

    def take(self, step: int) -> None:
        """The step with this number, from 0."""
        start = step * self.size
        if self.graphs:
            self.graphs.replay(min(self.size, self.count - start))
        else:
            self.compute_on(self.draws.at(slice(start, start + self.size)), self.rates[step])

    def compute_on(self, draws: Draws, rate: float | Float[Tensor, ""], places: Int[Tensor, " batch"] | None = None) -> None:
        """A step on these images, or on those at some places among them."""
        sums = self._differentiated(draws, places)
        self.sums.copy_(descend(self.state, sums, rate, self.update))
        torch._foreach_add_([self.totals, self.done], [self.sums, self.one])  # one launch

    def _differentiated(self, draws: Draws, places: Int[Tensor, " batch"] | None) -> Float[Tensor, "4"]:
        state, config = self.state, self.state.config
        own = config.reconstruction_weight, self.data.training, draws, places, self.augment, config.objective
        return differentiate(state, lambda: self.losses(state.model, *own, self.done, config.total_steps))

    def try_out(self, batches: Sequence[tuple[Draws, Int[Tensor, " _"] | None]]) -> None:
        """Before the first step: where what is compiled fails for any size of batch, all steps of the run are eager.

        Were it some of them, a run that goes on after an interruption would have other bits. No weight is changed.

        Args:
            batches: one of each size, as they will be handed to :meth:`compute_on`.
        """
        self.doubtful = False
        try:
            for batch in batches:
                self._differentiated(*batch)
        except Exception as error:  # whatever a compiler raises
            if shortage(error) == "out of memory":
                raise
            warnings.warn(f"steps are eager, because torch.compile fails on this machine: {headline(error)}", stacklevel=2)
            give_up("compile", self.state.config)
            self.losses = drawn_losses


CELLS = 4
"""So many keep their compiled steps: of the same code torch keeps eight, and a cell needs two, for its sizes of batch."""

_kept: dict[RunConfig, Callable[..., Losses]] = {}


def _compiled(cell: RunConfig) -> Callable[..., Losses]:
    """The step's losses, compiled anew for each cell: a process that trains a grid seed by seed waits once for each of four.

    What is compiled belongs to the code, not to the run: after more networks in one process torch would compile no more, and
    take eager steps without a word.
    """
    if cell not in _kept:
        if len(_kept) in (0, CELLS):
            torch.compiler.reset()
            _kept.clear()
        _kept[cell] = torch.compile(drawn_losses, dynamic=False)
    return _kept[cell]
