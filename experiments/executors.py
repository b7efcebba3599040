"""Where runs run. The contract is that of :class:`concurrent.futures.Executor`: ``submit(function, *args)`` -> Future."""

import concurrent.futures
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from capsnet.errors import InputError

GRACE = 16.0  # seconds that workers get to save their last whole epoch
MEMORY = 2**32  # bytes of main memory that a worker on a CPU may need
STORE = 10**8  # bytes of Ray's object store: jobs and outcomes are small


class LostError(ConnectionError):
    """A worker, or the machine that it ran on, died."""


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


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, because Ray crashes if it comes while it starts, and undo Ray's own handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    except SystemExit:  # Ray's answer to SIGTERM
        came.append(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class Session:
    """A connection to Ray: on this machine, where it is started for this launch and dies with it, or to a cluster."""

    def __init__(self, address: str = "local", **resources: float) -> None:
        self.address, self.resources = address, resources
        self.vital: list[psutil.Process] = []  # processes without which nothing goes on
        self.started = False

    def start(self) -> None:
        """Connect; for this machine alone, only when there is something to run."""
        self.started = True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a run without a GPU sees none anyway
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == "local":
            # Ray's ports are open to the network, so that nobody without this launch's token may use them
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
            settings |= {"include_dashboard": False, "object_store_memory": STORE, **self.resources}
        import ray

        with suppress(ImportError):  # a worker's death is told of by the launch, in one line
            from ray._private import worker

            worker.print_to_stdstream = lambda *_, **__: None
        with undisturbed():
            ray.init(self.address, **settings)
        self.vital = [p for p in psutil.Process().children() if p.name() in ("raylet", "gcs_server")]

    def alive(self) -> bool:
        """Whether this machine's part of Ray is there: without it, tasks would wait for ever and in silence."""
        if self.address == "local":
            return all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self.vital)
        import ray

        here = ray.get_runtime_context().get_node_id()
        return any(node["Alive"] and node["NodeID"] == here for node in ray.nodes())

    def restart(self) -> None:
        """Start Ray on this machine anew.

        Raises:
            LostError: it is a cluster, which isn't ours.
        """
        if self.address != "local":
            raise LostError(f"the Ray cluster at {self.address} has lost its node on this machine")
        self.start()


class Ray(Executor):
    """Ray core tasks, each with a share of the CPUs and GPUs of this machine or a cluster."""

    def __init__(self, session: Session, cpus: float, gpus: float) -> None:
        self.session, self.cpus, self.gpus = session, cpus, gpus
        self._running: dict[Future[Any], Any] = {}  # -> Ray's reference
        self._tasks: dict[Callable[..., Any], Any] = {}  # -> Ray's remote function

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand the function to Ray, which runs it when there is room. It is sent, and so are what it takes and returns."""
        if not self.session.started:
            self.session.start()  # before the import, which reads the token
        import ray

        if function not in self._tasks:  # Ray sends a function once, and its name after that
            # whether to try again is the launch's decision, the same for every executor
            self._tasks[function] = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(function)
        reference = self._tasks[function].remote(*args, **kwargs)
        future: Future[Any] = Future()

        def ended(done: "Future[Any]") -> None:
            if self._running.pop(future, None) is None:
                return  # it was given up
            if fault := done.exception():
                future.set_exception(_translated(fault))
            else:
                future.set_result(done.result())

        self._running[future] = reference
        reference.future().add_done_callback(ended)
        return future

    def heal(self) -> None:
        """If Ray died on this machine, lose what is running and start Ray anew."""
        if self.session.alive():
            return
        self._leave(5.0, cancel=True)
        for future in list(self._running):
            if self._running.pop(future, None) is not None:
                future.set_exception(LostError("Ray's node on this machine died"))
        self._tasks.clear()
        self.session.restart()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Interrupt what is running, as Ctrl-C would, give it time to save, and leave Ray."""
        self._leave(GRACE if wait else 0.0, cancel=cancel_futures)

    def _leave(self, grace: float, *, cancel: bool) -> None:
        if not self.session.started:
            return
        import ray

        for _ in range(2):  # a worker that is still importing may lose the first interruption
            for reference in list(self._running.values()) if cancel else ():
                ray.cancel(reference)
            concurrent.futures.wait(list(self._running), grace / 2)
        ray.shutdown()


def _translated(fault: BaseException) -> BaseException:
    """An error in terms that don't depend on Ray."""
    from ray import exceptions

    if isinstance(fault, exceptions.TaskCancelledError):
        return LostError("the run was stopped")
    if isinstance(fault, exceptions.OutOfMemoryError):
        return MemoryError(f"out of memory: {fault}")
    if isinstance(fault, exceptions.RayTaskError):
        return fault.cause if isinstance(fault.cause, Exception) else LostError(f"a worker was stopped: {fault.cause!r}")
    return LostError(f"a worker died ({type(fault).__name__}): {' '.join(str(fault).split())[:300]}")


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
    gpus, cores = _gpus() if chosen.type == "cuda" else 0, len(os.sched_getaffinity(0))
    most = int(gpus / gpus_per_run) if gpus else cores
    number = _default(most, gpus, runs) if workers is None else workers
    if number == 0:
        return Engine(Inline(), device=str(chosen))
    if chosen.index is not None:
        raise InputError(f"--device {device} is for --workers 0; with {number} workers Ray gives each its card: --device cuda")
    if number > most:
        what = f"{gpus} GPUs hold {most} runs with --gpus-per-run {gpus_per_run:g}" if gpus else f"there are {cores} CPU cores"
        raise InputError(f"--workers {number} is too many: {what}; choices: 0 to {most}")
    session = Session(num_cpus=number, num_gpus=gpus)
    executor, threads = Ray(session, 1, gpus_per_run if gpus else 0), max(1, cores // number)
    if number == 1:
        return Engine(executor, 1, chosen.type, threads)
    alone = Ray(session, 1, 1) if gpus else Ray(session, number, 0)
    if gpus and gpus_per_run >= 1:
        return Engine(executor, number, chosen.type, threads)
    return Engine(executor, number, chosen.type, threads, alone, max(1, gpus))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _default(most: int, gpus: int, runs: int) -> int:
    """As many runs at once as suit this machine; a single one needs no other process.

    On a CPU, runs with a thread each get more done than one run with all threads: quick took 113 s instead of 164 s on two
    cores of a Xeon, measured on 2026-11-22.
    """
    number = min(most, runs) if gpus else min(most, runs, psutil.virtual_memory().total // MEMORY)
    return number if number > 1 else 0


def _cluster(workers: int | None, gpus_per_run: float, address: str, device: str, runs: int) -> Engine:
    session = _connected(address)
    import ray

    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not gpus):
        raise InputError(f"--device {device} can't be had: the cluster at {address} has {gpus} GPUs; choices: auto, cpu, cuda")
    gpus = 0 if device == "cpu" else gpus
    most = int(gpus / gpus_per_run) if gpus else cpus
    number = min(most, max(runs, 1)) if workers is None else workers
    if not 1 <= number <= most:
        what = f"{gpus} GPUs with --gpus-per-run {gpus_per_run:g}" if gpus else f"{cpus} CPUs"
        raise InputError(f"--workers {number} can't be had: the cluster at {address} has {what}; choices: 1 to {most}")
    kind = "cuda" if gpus else "cpu"
    nodes = [node for node in ray.nodes() if node["Alive"]]
    widest, hosts = max(int(node["Resources"].get("CPU", 1)) for node in nodes), {node["NodeManagerAddress"] for node in nodes}
    alone = None if gpus and gpus_per_run >= 1 else Ray(session, 1, 1) if gpus else Ray(session, widest, 0)
    return Engine(Ray(session, 1, gpus_per_run if gpus else 0), number, kind, 1, alone, max(1, gpus), len(hosts) > 1)


def _connected(address: str) -> Session:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(f"--address must be HOST:PORT, as ray start --head prints it, not {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        session = Session(address)
        session.start()
    except (OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"no Ray cluster can be used at --address {address}: {said}; docs/cluster.md says how to start one"
        ) from None
    return session


def is_here(address: str) -> bool:
    """Whether a host is this machine, as far as its name tells."""
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
