"""How one run trains: :func:`train` yields the metrics of epoch after epoch, and whoever asks decides what to do with them."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.answers import answered, wrong
from capsnet.data import Data, Split
from capsnet.diagnostics import diagnose
from capsnet.draws import draw
from capsnet.errors import InputError
from capsnet.execution import AUTO, Execution, keep_freed_memory
from capsnet.losses import one_hot
from capsnet.metrics import EpochMetrics
from capsnet.models import CapsuleNetwork, Network
from capsnet.precision import float32_products, require
from capsnet.state import TrainingState
from capsnet.step import Steps

SAMPLE = 100  # images on which routing is looked at after each epoch

DREW = (
    "a step drew random numbers from PyTorch's own generator, which no checkpoint holds: an augmentation has to draw them in "
    "its draw, from the generator that it is given, and a network in its reset"
)


class DivergedError(RuntimeError):
    """A loss or a score is no longer a finite number. The same config would do it again: not worth a retry."""


@dataclass(frozen=True)
class Step:
    """Where a run stands within an epoch, and the loss of its latest batch."""

    epoch: int  # from 1
    step: int  # finished steps of the epoch
    steps: int  # of the whole epoch
    loss: float


@dataclass(frozen=True)
class Evaluation:
    """A model's answers on a split, on the CPU: the error in percent, and per image the scores of all classes."""

    error: float
    predictions: Int[Tensor, "count *labels"]
    scores: Float[Tensor, "count classes"]


def train(
    state: TrainingState,
    data: Data,
    *,
    execution: Execution = AUTO,
    log_interval: int = 0,
    on_step: Callable[[Step], None] | None = None,
) -> Iterator[EpochMetrics]:
    """Train from where the state stands to its last epoch; between two yields the state is whole and may be saved.

    Args:
        state: changed in place.
        data: of the state's config, on its device.
        execution: how steps are computed.
        log_interval: steps between two calls of ``on_step``, each of which waits for the device; 0 = never.
        on_step: told where the run stands within an epoch.

    Raises:
        DivergedError: the loss of an epoch, or a score of an image that is looked at after it, is not finite.
        InputError: the device hasn't what the config or the execution asks for, or a step draws random numbers of its own.
    """
    require(state.config, state.device)
    if state.config.test_routing_iterations and not isinstance(state.model, CapsuleNetwork):
        raise InputError(
            f"model {state.config.model} has no class capsules to route anew: test_routing_iterations must be empty"
        )
    settled = execution.settle(state.config, state.device)
    if state.device.type == "cpu":
        keep_freed_memory()
    steps = None
    try:
        while not state.finished:
            with computing(state.config.precision, state.device):
                steps = steps or Steps(state, data, settled)
                metrics = _epoch(state, data, steps, log_interval, on_step)
            state.history.append(metrics)
            yield metrics
    finally:
        if steps:
            steps.graphs = None  # they refer to each other, and hold memory of the device until somebody looks for such circles
            state.optimizer.zero_grad()  # gradients lie in a graph's memory


def _epoch(
    state: TrainingState, data: Data, steps: Steps, log_interval: int, on_step: Callable[[Step], None] | None
) -> EpochMetrics:
    config, count, epoch = state.config, len(data.training), len(state.history) + 1
    past = [m.validation_error for m in state.history if m.validation_error is not None]
    schedule, first = config.schedule, (epoch - 1) * config.steps_per_epoch
    started = time.perf_counter()
    # all that is random in an epoch is drawn on the host and moved in one go
    draws = draw(data.training, config.facts.labels, config.augment, config.dropout > 0, state.generators)
    rates = [
        config.learning_rate * schedule(step, config.total_steps, past) for step in range(first, first + config.steps_per_epoch)
    ]
    chance = torch.get_rng_state()
    steps.begin(draws, rates)
    for i in range(config.steps_per_epoch):
        steps.take(i)
        if on_step and log_interval and (i + 1) % log_interval == 0:
            images = min(config.batch_size, count - i * config.batch_size)
            on_step(Step(epoch, i + 1, config.steps_per_epoch, steps.sums[0].item() / images))
    *sums, norms = steps.totals.tolist()  # here the device is waited for
    # on CUDA a compiler that tries out kernels may draw some, too
    if state.device.type == "cpu" and not torch.equal(chance, torch.get_rng_state()):
        raise InputError(DREW)
    loss, classes, reconstruction, train_error = (total / count for total in (*sums[:3], 100 * sums[3]))
    seconds = time.perf_counter() - started
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss of epoch {epoch} is {loss}")
    margin = config.variant("loss").name == "margin"
    validated = evaluate(state.model, data.validation, config.test_batch_size) if len(data.validation) else None
    return EpochMetrics(
        epoch=epoch,
        time=time.time_ns() // 1_000_000,
        train_loss=loss,
        train_margin_loss=classes if margin else None,
        train_reconstruction_loss=reconstruction if config.reconstruction_weight else None,
        train_error=train_error,
        validation_error=validated.error if validated else None,
        learning_rate=rates[-1],
        seconds=seconds,
        images_per_second=count / seconds,
        train_class_loss=None if margin else classes,
        gradient_norm=norms / config.steps_per_epoch,
        **_lengths(state, data, validated),
        **_diagnosis(state, data),
    )


def _lengths(state: TrainingState, data: Data, validated: Evaluation | None) -> dict[str, Any]:
    """Of the right class's vector and of the longest other, means over the validation images, or over the sample's."""
    if state.config.network.logits:
        return {}
    looked_at = data.validation if validated else _sample(state, data)
    scores = (validated or evaluate(state.model, looked_at, SAMPLE)).scores
    right = one_hot(looked_at.labels.cpu(), scores.shape[1])
    other = scores.masked_fill(right, -math.inf).amax(dim=1)
    return {"right_length": scores[right].mean().item(), "wrong_length": other.mean().item()}


def _sample(state: TrainingState, data: Data) -> Split:
    """The first ``SAMPLE`` validation images, or training images if there are none, as the network sees them at test.

    They hold each class in proportion, and are the same for every epoch and seed.
    """
    sample = data.sample(SAMPLE)
    # what validation shows is the middle of an image already, and the middle of that is the same
    return Split(state.config.augment.still(sample.images), sample.labels)


def _diagnosis(state: TrainingState, data: Data) -> dict[str, Any]:
    """What routing did after the epoch on the sample. A network without routing has none."""
    if not isinstance(state.model, CapsuleNetwork):
        return {}
    found = diagnose(state.model, _sample(state, data))
    capsules = {"dead_primary_capsules": int(found.dead_primary.sum()), "hidden_lengths": found.mean_lengths[1:-1] or None}
    if not len(found.entropy):  # of a routing whose passes are not followed
        return capsules
    return {"coupling_entropy": found.entropy[-1].item(), "logit_changes": tuple(found.change.tolist()), **capsules}


@torch.inference_mode()
def evaluate(model: Network, split: Split, batch_size: int) -> Evaluation:
    """The model's answers on all images of a split. An image's does not depend on who asks, nor but for rounding on its batch.

    Raises:
        DivergedError: a score is not finite, as after a last step that went astray, which no training loss has seen.
    """
    with computing(model.precision, split.images.device):
        scores = _scores(model, split, batch_size)
    if not scores.isfinite().all():
        raise DivergedError("the network's scores are not finite numbers")
    predictions = answered(scores, split.labels.shape[1:].numel())
    error = 100 * wrong(predictions, split.labels).sum().item() / len(split)  # in this order 3.76 % is 3.76
    return Evaluation(error, predictions.cpu(), scores.cpu())


def _scores(model: Network, split: Split, batch_size: int) -> Float[Tensor, "count classes"]:
    """Of all images of a split, in one tensor.

    A tensor that stays from each batch would lie in the memory that the batch has freed, where the next batch finds too little
    then: the heap of a process that tested 100,000 images of 36 x 36 grew by 5 GB.
    """
    first = model.scores(split.batch(slice(batch_size)))
    scores = first.new_empty(len(split), first.shape[1])
    scores[:batch_size] = first
    for start in range(batch_size, len(split), batch_size):
        batch = slice(start, start + batch_size)
        scores[batch] = model.scores(split.batch(batch))
    return scores


def errors_at(model: Network, split: Split, batch_size: int, iterations: Sequence[int]) -> dict[int, float]:
    """The errors in percent of a network that routes with these r, each instead of its own, which it has again afterwards."""
    errors: dict[int, float] = {}
    if not isinstance(model, CapsuleNetwork):
        assert not iterations, "train refuses them"
        return errors
    own = model.capsules.iterations
    try:
        for r in iterations:
            model.route_with(r)
            errors[r] = evaluate(model, split, batch_size).error
    finally:
        model.route_with(own)
    return errors


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Only algorithms that give the same bits every time, and products of this precision, inside; as it was before, outside.

    It is the process that is told, and all of its threads: one run trains in a process at a time. A CUDA device is the current
    one inside, where streams and graphs are made.
    """
    memory: Any = torch.utils.deterministic
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing here reads memory that it has not written
    try:
        with float32_products(precision), current(device):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = filled


def current(device: torch.device) -> AbstractContextManager[object]:
    """A CUDA device is the current one, inside."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        InputError: an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"unknown device {name!r}; choices: auto, cpu, cuda, cuda:N")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        there = ", ".join(["auto", "cpu", *devices])
        raise InputError(f"no device {name!r}: torch sees {len(devices)} CUDA devices; choices: {there}")
    return torch.device(name)
