"""Runs as Ray core tasks. The only file that imports ray, and late, because it reads its settings then."""

import concurrent.futures
import logging
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from capsnet.errors import InputError, brief

GRACE = 16.0  # seconds that workers get to save their last whole epoch
STORE = 10**8  # bytes of Ray's object store: jobs and outcomes are small


class LostError(ConnectionError):
    """A worker, or the machine that it ran on, died."""


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
    except Exception:
        if not came:
            raise  # or else the interruption reached a part of Ray, too, and Ray waited for it in vain
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
        self.running: dict[Future[Any], Any] = {}  # of all executors -> Ray's reference
        self.tasks: dict[tuple[Callable[..., Any], float, float], Any] = {}  # and what it needs -> Ray's remote function

    def start(self) -> None:
        """Connect; for this machine alone, only when there is something to run."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a run without a GPU sees none anyway
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == "local":
            # Ray's ports are open to the network, so that nobody without this launch's token may use them
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
            settings |= {"include_dashboard": False, "object_store_memory": STORE, **self.resources}
        with undisturbed():
            import ray

            with suppress(ImportError):  # a worker's death is told of by the launch, in one line
                from ray._private import worker

                worker.print_to_stdstream = lambda *_, **__: None
            try:
                ray.init(self.address, **settings)
            except Exception as error:  # Ray raises the plain class where its processes don't start
                raise InputError(
                    f"Ray can't be used: {brief(error)}; the same command goes on, --workers 0 without Ray"
                ) from None
            self.started = True
        self.vital = [p for p in psutil.Process().children() if p.name() in ("raylet", "gcs_server")]

    def alive(self) -> bool:
        """Whether this machine's part of Ray is there: without it, tasks would wait for ever and in silence."""
        if self.address == "local":
            return all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in self.vital)
        import ray

        here = ray.get_runtime_context().get_node_id()
        return any(node["Alive"] and node["NodeID"] == here for node in ray.nodes())

    def heal(self) -> None:
        """If Ray died on this machine, lose what is running and start Ray anew.

        Raises:
            InputError: it is a cluster, which isn't ours.
        """
        if self.alive():
            return
        self.leave(5.0, cancel=True)
        for future in list(self.running):
            if self.running.pop(future, None) is not None:
                future.set_exception(LostError("Ray's node on this machine died"))
        self.tasks.clear()
        if self.address != "local":
            raise InputError(f"the Ray cluster at {self.address} has lost its node on this machine; the same command goes on")
        self.start()

    def leave(self, grace: float, *, cancel: bool) -> None:
        """Interrupt what is running, as Ctrl-C would, give it so many seconds to save, and leave Ray."""
        if not self.started:
            return
        import ray

        for _ in range(2):  # a worker that is still importing may lose the first interruption
            for reference in list(self.running.values()) if cancel else ():
                ray.cancel(reference)
            concurrent.futures.wait(list(self.running), grace / 2)
        ray.shutdown()
        self.started = False


@dataclass(frozen=True)
class Resources:
    """What a cluster has."""

    cpus: int
    gpus: int
    widest: int  # CPUs of its largest machine
    spread: bool  # over several machines


def resources() -> Resources:
    """Of the cluster that this process is connected to."""
    import ray

    total, nodes = ray.cluster_resources(), [node for node in ray.nodes() if node["Alive"]]
    widest = max(int(node["Resources"].get("CPU", 1)) for node in nodes)
    hosts = {node["NodeManagerAddress"] for node in nodes}
    return Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0)), widest, len(hosts) > 1)


class Ray(Executor):
    """Ray core tasks, each with a share of the CPUs and GPUs of this machine or a cluster."""

    def __init__(self, session: Session, cpus: float, gpus: float) -> None:
        self.session, self.cpus, self.gpus = session, cpus, gpus

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand the function to Ray, which runs it when there is room. It is sent, and so are what it takes and returns."""
        if not self.session.started:
            self.session.start()  # before the import, which reads the token
        import ray

        running, tasks, task = self.session.running, self.session.tasks, (function, self.cpus, self.gpus)
        if task not in tasks:  # Ray sends a function once, and its name after that
            # a process that began with a card keeps it, so Ray gives each task with a GPU a new one; where there is but one
            # card, the next run is spared its imports and compilers
            kept: dict[str, Any] = {"max_calls": 0} if self.session.resources.get("num_gpus") == 1 else {}
            # whether to try again is the launch's decision, the same for every executor
            tasks[task] = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, **kept)(function)
        reference = tasks[task].remote(*args, **kwargs)
        future: Future[Any] = Future()

        def ended(done: "Future[Any]") -> None:
            if running.pop(future, None) is None:
                return  # it was given up
            if fault := done.exception():
                future.set_exception(_translated(fault))
            else:
                future.set_result(done.result())

        running[future] = reference
        reference.future().add_done_callback(ended)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave Ray, which ends what any executor of the session has running; with time to save, if it is to be cancelled."""
        self.session.leave(GRACE if wait else 0.0, cancel=cancel_futures)


def _translated(fault: BaseException) -> BaseException:
    """An error in terms that don't depend on Ray."""
    from ray import exceptions

    if isinstance(fault, exceptions.TaskCancelledError):
        return LostError("the run was stopped")
    if isinstance(fault, exceptions.OutOfMemoryError):
        return MemoryError(f"out of memory: {fault}")
    if isinstance(fault, exceptions.RayTaskError):
        return fault.cause if isinstance(fault.cause, Exception) else LostError(f"a worker was stopped: {fault.cause!r}")
    first = re.split(r"(?<=[.:]) ", brief(fault))[0].rstrip(".:")  # what follows is for those who know Ray
    return LostError(f"a worker died ({type(fault).__name__}): {first}")
