"""What takes processes of its own: training side by side, and memory, whose peak a process only has once."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks import machine
from benchmarks.clock import Spread, alternate
from benchmarks.training import epoch_of, evaluation, ours
from capsnet.config import RunConfig, from_params

SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit the parent's threads and its CUDA context
RESERVE = 0.8  # share of the free memory that processes may take


def fitting(counts: Sequence[int], device: torch.device, each: float) -> list[int]:
    """The numbers of processes for which there are cores and memory; ``each`` is the peak of one in bytes."""
    room = RESERVE * machine.free(device) / each
    return [count for count in counts if count == 1 or (count <= machine.cores() and count <= room)]


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
    started = time.perf_counter()
    threads = torch.get_num_threads()
    with _workers(max(counts), config, device) as workers:

        def together(count: int) -> float:
            share = max(1, threads // count) if device.type == "cpu" else 0
            for worker in workers[:count]:
                worker.send((share, seconds))
            return sum(_answer(worker) for worker in workers[:count])

        passes = {str(count): lambda count=count: together(count) for count in counts}
        rates = alternate(passes, budget - (time.perf_counter() - started), least=least, most=10)
    return {int(count): rate for count, rate in rates.items()}


@contextmanager
def _workers(count: int, config: RunConfig, device: torch.device) -> Iterator[list[Connection]]:
    pairs = [SPAWN.Pipe() for _ in range(count)]
    started = [SPAWN.Process(target=_train, args=(theirs, config.to_params(), str(device)), daemon=True) for _, theirs in pairs]
    try:
        for process, (_, theirs) in zip(started, pairs, strict=True):
            process.start()
            theirs.close()  # so that a worker that ends is an EOFError here, and no wait for ever
        for ours, _ in pairs:
            _answer(ours)
        yield [ours for ours, _ in pairs]
    finally:
        for process in started:
            if process.pid is not None:
                process.terminate()
                process.join()


def _answer(worker: Connection) -> float:
    try:
        return float(worker.recv())
    except EOFError:
        message = "a process that trained beside others has ended; its error stands above, or there was no memory for it"
        raise RuntimeError(message) from None


def _train(orders: Connection, params: Mapping[str, str], device: str) -> None:
    """A worker: says that it is ready, then trains as long as each order says, and answers its images per second."""
    config = from_params(params)
    run = ours(config, torch.device(device))
    orders.send(0)
    while True:
        threads, seconds = orders.recv()
        if threads:
            torch.set_num_threads(threads)
        epochs, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + seconds:
            run()
            epochs += 1
        orders.send(epochs * config.training_images / (time.perf_counter() - begun))


def peak_memory(config: RunConfig, device: torch.device, what: str) -> int:
    """Bytes at most, of a fresh process: ``training`` two steps of the config's batch, or ``evaluating`` two test batches.

    Weights, Adam's moments and workspaces count. On CUDA it is what PyTorch's allocator handed out
    (``torch.cuda.max_memory_allocated``, so without the 0.5 GB of a CUDA context); on the CPU how far the resident memory grew
    beyond that of a process which has imported PyTorch.
    """
    with ProcessPoolExecutor(1, mp_context=SPAWN) as fresh:
        return fresh.submit(_peak, config.to_params(), str(device), what).result()


def _peak(params: Mapping[str, str], device_name: str, what: str) -> int:
    config, device = from_params(params), torch.device(device_name)
    before = machine.memory("/proc/self/status").get("VmRSS", 0)
    if what == "training":
        run: Callable[[], Any] = ours(epoch_of(config, 2 * config.batch_size), device)
    else:
        run = evaluation(config, config.test_batch_size, device)
    run()
    run()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not ru_maxrss: it begins with what the parent had when it started this process, which may be more than this one ever has
    return machine.memory("/proc/self/status").get("VmHWM", 0) - before
