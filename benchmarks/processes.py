"""What takes processes of its own: training side by side, memory, whose peak a process has once, and code with other habits."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch

from benchmarks import machine
from benchmarks.clock import Spread, alternate
from benchmarks.training import epoch_of, evaluation, ours
from capsnet.config import RunConfig
from capsnet.origin import cores

SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit the parent's threads and its CUDA context
RESERVE = 0.8  # share of the free memory that processes may take


class Elsewhere:
    """What ``make(*arguments)`` gives, in a process of its own with as many threads; it sleeps between two calls."""

    def __init__(self, make: Callable[..., Callable[..., float]], *arguments: Any) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, torch.get_num_threads(), make, arguments), daemon=True)
        self.process.start()
        theirs.close()  # so that a process that ends is an EOFError here, and no wait for ever

    def __enter__(self) -> Self:
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join()

    def __call__(self, *arguments: Any) -> float:
        """Call, and wait for what it returns."""
        self.ask(*arguments)
        return self.answer()

    def ask(self, *arguments: Any) -> None:
        """Call without waiting for what it returns."""
        self.pipe.send(arguments)

    def answer(self) -> float:
        """What the call that was asked for returned.

        Raises:
            RuntimeError: the process has ended.
        """
        try:
            return float(self.pipe.recv())
        except (EOFError, ConnectionError):
            self.process.join()
            reason = f"with code {self.process.exitcode}; its error stands above, or there was no memory for it"
            raise RuntimeError(f"a process of the benchmark has ended {reason}") from None


def _serve(pipe: Any, threads: int, make: Callable[..., Callable[..., float]], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    call = make(*arguments)
    pipe.send(0.0)  # it is ready
    while True:
        pipe.send(call(*pipe.recv()))


def fitting(counts: Sequence[int], device: torch.device, each: float) -> list[int]:
    """The numbers of processes for which there are cores and memory; ``each`` is the peak of one in bytes."""
    room = RESERVE * machine.free(device) / each
    return [count for count in counts if count == 1 or (count <= cores() and count <= room)]


def side_by_side(
    config: RunConfig, device: torch.device, counts: Sequence[int], *, seconds: float, budget: float, least: int = 3
) -> dict[int, Spread]:
    """Images per second of so many processes together, each training the same network; on the CPU with its share of threads.

    All processes are there from the beginning, and those that are not wanted sleep: so 1, 2, 4 can take turns.

    Args:
        config: of an endless run, one epoch of which is the least that a process trains at a time.
        device: the one they share.
        counts: numbers of processes to compare.
        seconds: how long they train before they are counted.
        budget: seconds for all of it, the processes' start included.
        least: rounds that are measured whatever the budget.
    """
    started, threads = time.perf_counter(), torch.get_num_threads()
    with ExitStack() as ends:
        begun = [Elsewhere(_trainer, config, device) for _ in range(max(counts))]
        workers = [ends.enter_context(worker) for worker in begun]

        def together(count: int) -> float:
            for worker in workers[:count]:
                worker.ask(max(1, threads // count) if device.type == "cpu" else threads, seconds)
            return sum([worker.answer() for worker in workers[:count]])

        passes = {str(count): lambda count=count: together(count) for count in counts}
        rates = alternate(passes, budget - (time.perf_counter() - started), least=least, most=10)
    return {int(count): rate for count, rate in rates.items()}


def _trainer(config: RunConfig, device: torch.device) -> Callable[[int, float], float]:
    run = ours(config, device)

    def train(threads: int, seconds: float) -> float:
        """Train about so long; the images per second of all whole epochs."""
        torch.set_num_threads(threads)
        epochs, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            run()
            epochs += 1
        return epochs * config.training_images / (time.perf_counter() - begun)

    return train


def peak_memory(config: RunConfig, device: torch.device, what: str) -> int:
    """Bytes at most, of a fresh process: ``training`` steps of the config's batch, or ``evaluation`` of a test batch.

    Weights, Adam's moments and workspaces count. On CUDA it is what PyTorch's allocator handed out
    (``torch.cuda.max_memory_allocated``, so without the 0.5 GB of a CUDA context); on the CPU how far the resident memory grew
    beyond that of a process which has imported PyTorch.
    """
    with Elsewhere(_peak, config, device, what) as fresh:
        return int(fresh())


def _peak(config: RunConfig, device: torch.device, what: str) -> Callable[[], float]:
    before = machine.memory("/proc/self/status").get("VmRSS", 0)

    def peak() -> float:
        if what == "training":
            run = ours(epoch_of(config, 2 * config.batch_size), device)
        else:
            run = evaluation(config, config.test_batch_size, device)
        run()
        run()
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        # not ru_maxrss: it begins with what the parent had when it started this process, which may be more than this one's peak
        return machine.memory("/proc/self/status").get("VmHWM", 0) - before

    return peak
