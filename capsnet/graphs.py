"""A run's steps as CUDA graphs: captured once, then replayed."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from capsnet.draws import Draws, draw
from capsnet.state import STREAMS

if TYPE_CHECKING:
    from capsnet.step import Steps

WARM_UP = 3  # steps before a capture, in which libraries choose algorithms and take their workspaces


class Graphs:
    """A run's steps as CUDA graphs, one for each size of batch. What they read and write lies always in the same memory."""

    def __init__(self, steps: "Steps") -> None:
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
        """Start an epoch."""
        self.draws.copy_(draws)
        self.rates[:: self.steps.size].copy_(torch.tensor(rates, dtype=torch.float64))
        self.places.copy_(self.first)

    @property
    def captured(self) -> bool:
        """Whether there is a graph for each size of batch."""
        return len(self.replays) == len(self.steps.sizes)

    def capture(self) -> None:
        """Capture the graphs, before the first epoch begins. No weight is changed, be it that one of them fails."""
        self.places.copy_(self.first)
        if self.steps.doubtful:
            batches = [(self.draws, self.places[:size]) for size in self.steps.sizes]
            aside(lambda: self.steps.try_out(batches))
        for size in self.steps.sizes:
            first = 0 if size == self.steps.size else self.steps.count // self.steps.size  # step of that size
            self.replays[size] = self._capture(size, first)

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

        try:
            aside(warm_up)
            steps.state.optimizer.zero_grad()  # so that the gradients of the capture lie in the graph's own memory
            return recorded(lambda: self._step(size), self.pool, self.stream)
        finally:
            with torch.no_grad():
                for tensor, value in before:  # the warm-up leaves no trace
                    tensor.copy_(value)


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
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):  # other threads may go on
            work()
    finally:
        torch.cuda.set_stream(current)  # PyTorch 2.11 stays in the other one if the end of a capture fails
    replay: Callable[[], None] = graph.replay
    return replay
