"""One training step, and how an epoch's steps are taken: one after the other, or as replays of one captured CUDA graph.

Nothing in a step waits for the device or for the host: the data set, the epoch's order, its augmentation and its learning rates
lie on the device when the epoch begins, and sums of losses stay there until it ends.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet import adam_triton, losses
from capsnet.answers import answered, wrong
from capsnet.augmentation import Augmentation
from capsnet.config import RunConfig
from capsnet.data import Data, Split
from capsnet.draws import Batch, Draws, composed, draw
from capsnet.errors import headline, shortage
from capsnet.execution import Settled, cell_of, give_up_compiling
from capsnet.models import Network
from capsnet.objectives import Objective, margin
from capsnet.state import STREAMS, TrainingState

Losses = tuple[Float[Tensor, ""], Float[Tensor, "4"]]

MARGIN = margin()  # as in the paper

WARM_UP = 3  # steps before a capture, in which libraries choose algorithms and take their workspaces


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


def training_step(
    state: TrainingState, batch: Batch, rate: float | Float[Tensor, ""], done: float | Float[Tensor, ""] = 0.0
) -> Float[Tensor, "5"]:
    """One step of Adam; the sums of :func:`step_losses` and the norm of the gradient, left on the device."""
    weight, objective = state.config.reconstruction_weight, state.config.objective

    def losses() -> Losses:
        return step_losses(state.model, weight, batch.images, batch.labels, objective, done, batch.noise, batch.digits)

    return descend(state, differentiate(state, losses), rate, updater(state))


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
        self.doubtful = settled.compile and not settled.insists  # whether what is compiled works here, for each size of batch
        self.tried: set[int] = set()  # sizes for which it does
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
        if self.graphs:
            self.graphs.begin(draws, rates)
        else:
            self.draws, self.rates = draws.to(self.state.device), rates

    def take(self, step: int) -> None:
        """The step with this number, from 0."""
        start = step * self.size
        if self.graphs:
            self.graphs.replay(min(self.size, self.count - start))
        else:
            self.compute_on(self.draws.at(slice(start, start + self.size)), self.rates[step])

    def compute_on(self, draws: Draws, rate: float | Float[Tensor, ""], places: Int[Tensor, " batch"] | None = None) -> None:
        """A step on these images, or on those at some places among them."""
        state, config = self.state, self.state.config
        size = len(draws.order if places is None else places)

        def losses() -> Losses:
            own = config.reconstruction_weight, self.data.training, draws, places, self.augment, config.objective
            return self.losses(state.model, *own, self.done, config.total_steps)

        try:
            sums = differentiate(state, losses)
        except Exception as error:  # whatever a compiler raises; this step has changed no weight yet
            if not self.doubtful or size in self.tried or shortage(error) == "out of memory":
                raise
            warnings.warn(f"steps are eager, because torch.compile fails on this machine: {headline(error)}", stacklevel=2)
            give_up_compiling(config)
            self.losses, self.doubtful = drawn_losses, False
            sums = differentiate(state, losses)
        self.tried.add(size)
        self.sums.copy_(descend(state, sums, rate, self.update))
        torch._foreach_add_([self.totals, self.done], [self.sums, self.one])  # one launch


@lru_cache(maxsize=1)
def _compiled(cell: RunConfig) -> Callable[..., Losses]:  # noqa: ARG001
    """The step's losses, compiled anew for another cell, for which a process that trains seed after seed waits once.

    What is compiled belongs to the code, not to the run: after some networks in one process torch would compile no more, and
    take eager steps without a word.
    """
    torch.compiler.reset()
    made: Callable[..., Losses] = torch.compile(drawn_losses, dynamic=False)
    return made


class Graphs:
    """A run's steps as CUDA graphs, one for each size of batch. What they read and write lies always in the same memory."""

    def __init__(self, steps: Steps) -> None:
        self.steps, device = steps, steps.state.device
        config = steps.state.config
        any_seed = {name: torch.Generator() for name in STREAMS}
        self.draws = draw(steps.data.training, config.facts.labels, steps.augment, config.dropout > 0, any_seed).to(device)
        own = steps.state.optimizer.param_groups[0]["lr"]  # which a step reads from memory
        self.rate = own if isinstance(own, Tensor) else torch.zeros((), dtype=torch.float64)
        # each step's at the place of its first image; as the optimizer has it, so that one launch finds it and puts it there
        self.rates = torch.zeros(config.steps_per_epoch * steps.size, dtype=self.rate.dtype, device=device)
        self.first = torch.arange(config.batch_size, device=device)
        # of the next step's images; a graph reads it long after the capture: what nothing holds would be another tensor by then
        self.places = self.first.clone()
        self.replays: dict[int, Callable[[], None]] = {}
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = _stream(device)

    def begin(self, draws: Draws, rates: Sequence[float]) -> None:
        """Start an epoch; the first one captures the graphs."""
        self.draws.copy_(draws)
        self.rates[:: self.steps.size].copy_(torch.tensor(rates, dtype=torch.float64))
        self.places.copy_(self.first)
        if not self.replays:
            whole, rest = divmod(self.steps.count, self.steps.size)
            if whole:
                self.replays[self.steps.size] = self._capture(self.steps.size, 0)
            way = self.steps.losses
            if rest:
                self.replays[rest] = self._capture(rest, whole)
            if whole and self.steps.losses is not way:  # which compiling failed for: all of a run's steps are taken in one way
                self.replays[self.steps.size] = self._capture(self.steps.size, 0)

    def replay(self, size: int) -> None:
        """The next step, of ``size`` images."""
        self.replays[size]()

    def _step(self, size: int) -> None:
        """The step that ``places`` say, on so many images."""
        # indexing with a tensor without dimensions would wait for the device
        torch.index_select(self.rates, 0, self.places[:1], out=self.rate[None])
        self.steps.compute_on(self.draws, self.rate, self.places[:size])
        self.places += self.steps.size

    def _capture(self, size: int, number: int) -> Callable[[], None]:
        """A step of ``size`` images, to be replayed; ``number`` is that of such a step."""
        steps = self.steps
        moving = *steps.state.moving(), self.places, steps.totals, steps.done
        before = [(tensor, tensor.clone()) for tensor in moving]

        def warm_up() -> None:
            for _ in range(WARM_UP):
                self.places.copy_(self.first + number * steps.size)
                self._step(size)

        aside(warm_up)
        steps.state.optimizer.zero_grad()  # so that the gradients of the capture lie in the graph's own memory
        replay = recorded(lambda: self._step(size), self.pool, self.stream)
        with torch.no_grad():
            for tensor, value in before:  # the warm-up leaves no trace
                tensor.copy_(value)
        return replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """For captures: of this device, where torch's own is of the first that captured.

    One for all runs of a process: memory of a pool is its stream's, and libraries keep a workspace for each stream they see.
    """
    return torch.cuda.Stream(device)


def aside(work: Callable[[], None]) -> None:
    """Do the work on another stream of the device, as must be before it can be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)


def recorded(work: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> Callable[[], None]:
    """Capture the work in a CUDA graph without doing it; what is returned does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):  # other threads may go on
        work()
    replay: Callable[[], None] = graph.replay
    return replay
