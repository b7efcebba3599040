"""Where runs run. The contract is that of :class:`concurrent.futures.Executor`: ``submit(function, *args)`` -> Future."""

import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import psutil

from capsnet.errors import InputError, brief
from capsnet.origin import cores
from experiments.ray_tasks import Ray, Session, resources

MEMORY = 2**32  # bytes of main memory that a worker on a CPU may need


@dataclass(frozen=True)
class Engine:
    """An executor and how much goes through it at once."""

    executor: Executor
    slots: int = 1
    device: str = "cpu"  # for the workers
    threads: int = 0  # of the CPU for one run; 0 = torch's choice
    alone: Executor | None = None  # for a run that found no memory beside others
    alone_slots: int = 1
    spread: bool = False  # over several machines

    @property
    def replaces(self) -> bool:
        """Whether a worker that dies is replaced."""
        return isinstance(self.executor, Ray)

    @property
    def cores(self) -> int:
        """Of the CPU that are busy when every slot is."""
        return self.slots * (self.threads or cores())

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(cancel_futures=True)


class Inline(Executor):
    """In this process, at once: for debugging, for one GPU, and for each shard of a job array."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run the function before returning. Ctrl-C is for whoever waits here, not for the future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # the future carries it
            future.set_exception(error)
        return future


def choose(workers: int | None, gpus_per_run: float, address: str, device: str, runs: int) -> Engine:
    """The engine for a number of workers; 0 = runs take turns in this process, None = what suits the machine or the cluster.

    Args:
        workers: runs at once.
        gpus_per_run: the share of a GPU for each; 0.25 packs four runs on one.
        address: of a Ray cluster; empty = this machine.
        device: auto, cpu, cuda or cuda:N.
        runs: how many there are in all.

    Raises:
        InputError: a number that can't be had, a cluster that doesn't answer.
    """
    from capsnet.training import choose_device

    if not 0 < gpus_per_run <= 8 or (gpus_per_run > 1 and gpus_per_run % 1):
        raise InputError(f"--gpus-per-run must be a share of a GPU such as 0.25, or a whole number, not {gpus_per_run:g}")
    if workers is not None and workers < 0:
        raise InputError(f"--workers must be 0 (runs take turns in this process) or a number of runs at once, not {workers}")
    if address:
        if workers == 0:
            raise InputError(f"--workers 0 trains in this process, but --address {address} names a cluster; leave one out")
        return _cluster(workers, gpus_per_run, address, device, runs)
    chosen = choose_device(device)
    gpus = _gpus() if chosen.type == "cuda" else 0
    most = _holds(gpus, gpus_per_run, "this machine") if gpus else cores()
    number = _default(0 if chosen.index is not None else most, gpus, runs) if workers is None else workers
    if number == 0:
        return Engine(Inline(), device=str(chosen))
    if chosen.index is not None:
        raise InputError(f"--device {device} is for --workers 0; with {number} workers Ray gives each its card: --device cuda")
    if number > most:
        what = f"{gpus} GPUs hold {most} runs with --gpus-per-run {gpus_per_run:g}" if gpus else f"there are {most} CPU cores"
        raise InputError(f"--workers {number} is too many: {what}; choices: 0 to {most}")
    session = Session(num_cpus=number, num_gpus=gpus)
    alone = _alone(session, gpus, gpus_per_run, number) if number > 1 else None
    executor, threads = Ray(session, 1, gpus_per_run if gpus else 0), max(1, cores() // number)
    return Engine(executor, number, chosen.type, threads, alone, max(1, gpus))


def _holds(gpus: int, gpus_per_run: float, where: str) -> int:
    """Runs that so many GPUs hold at once. A share is of one card: four cards hold four runs of 0.75, not five."""
    if gpus_per_run > gpus:
        raise InputError(f"--gpus-per-run {gpus_per_run:g} can't be had: {where} has {gpus} GPUs")
    return gpus * int(1 / gpus_per_run) if gpus_per_run < 1 else int(gpus / gpus_per_run)


def _alone(session: Session, gpus: int, gpus_per_run: float, cpus: int) -> Ray | None:
    """For a run that is to have a GPU, or so many CPUs, to itself; None if every run has its GPUs to itself anyway."""
    if gpus:
        return None if gpus_per_run >= 1 else Ray(session, 1, 1)
    return Ray(session, cpus, 0)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _default(most: int, gpus: int, runs: int) -> int:
    """As many runs at once as suit this machine; a single one needs no other process.

    On a CPU a thread for each run: full-size networks get a little more done so than one run with all threads, and small
    ones as much (docs/speed.md).
    """
    number = min(most, runs) if gpus else min(most, runs, psutil.virtual_memory().total // MEMORY)
    return number if number > 1 else 0


def _cluster(workers: int | None, gpus_per_run: float, address: str, device: str, runs: int) -> Engine:
    session = _connected(address)
    found = resources()
    gpus = 0 if device == "cpu" else found.gpus
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not gpus):
        choices = ["auto", "cpu", *["cuda"] * bool(found.gpus)]
        raise InputError(
            f"--device {device} can't be had: the cluster at {address} has {found.gpus} GPUs; choices: {', '.join(choices)}"
        )
    most = _holds(gpus, gpus_per_run, f"the cluster at {address}") if gpus else found.cpus
    number = min(most, max(runs, 1)) if workers is None else workers
    if not 1 <= number <= most:
        what = f"{gpus} GPUs with --gpus-per-run {gpus_per_run:g}" if gpus else f"{found.cpus} CPUs"
        raise InputError(f"--workers {number} can't be had: the cluster at {address} has {what}; choices: 1 to {most}")
    alone = _alone(session, gpus, gpus_per_run, found.widest)
    executor, kind = Ray(session, 1, gpus_per_run if gpus else 0), "cuda" if gpus else "cpu"
    return Engine(executor, number, kind, 1, alone, max(1, gpus), found.spread)


def _connected(address: str) -> Session:
    host, port = host_and_port(address)
    try:
        socket.create_connection((host, port), timeout=10).close()  # Ray itself would try for minutes
        # and, if something else listens there, would heed no Ctrl-C meanwhile
        words = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it isn't well")
        session = Session(address)
        session.start()
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        silent = isinstance(error, subprocess.TimeoutExpired)
        said = "what listens there doesn't answer as Ray does" if silent else brief(error)
        raise InputError(
            f"no Ray cluster can be used at --address {address}: {said}; docs/cluster.md says how to start one"
        ) from None
    return session


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address.

    Raises:
        InputError: it isn't of this form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise InputError(f"--address must be HOST:PORT, as ray start --head prints it, not {address!r}")
    return host.strip("[]"), int(port)


def is_here(address: str) -> bool:
    """Whether a host is this machine, as far as its name tells."""
    host, _ = host_and_port(address)
    return host in ("localhost", "::1") or host.startswith("127.")
