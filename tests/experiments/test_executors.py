"""One contract, and one test of it for every executor; and what a launch does with the faults that come through it."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from capsnet.errors import InputError
from capsnet.training import DivergedError
from experiments import launch as launch_module
from experiments.executors import Engine, Inline, Ray, choose, is_here
from experiments.jobs import Job, Outcome, Place, kind
from experiments.journal import BusyError
from experiments.launch import RETRIES, launch, one_by_one
from experiments.progress import Display
from experiments.ray_tasks import LostError, Session
from experiments.sources import parse_grid
from tests.experiments.conftest import TINY


@pytest.fixture(scope="module")
def ray() -> Iterator[Engine]:
    """Two workers of Ray on this machine."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # also where there is one core
    with choose(2, 1.0, "", "cpu", 4) as engine:
        assert engine.executor.submit(add, 1, 2).result() == 3  # Ray starts at the first task, whichever test comes first
        yield engine
    patch.undo()


@pytest.fixture(params=["inline", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue("ray") if request.param == "ray" else Engine(Inline())
    return found


# what follows runs in workers, which import it from here


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise InputError("no such grid")


def write(path: Path) -> int:
    path.write_text("done")
    return os.getpid()


def die() -> None:
    os._exit(1)


def give_up() -> None:
    raise SystemExit(1)


def sleep_on(folder: Path) -> None:
    try:
        (folder / "begun").touch()
        for _ in range(6000):
            time.sleep(0.01)
    except KeyboardInterrupt:
        time.sleep(1)  # as a large network takes
        (folder / "saved").touch()
        raise


def threads() -> int:
    import torch

    return torch.get_num_threads()


def test_the_contract(engine: Engine, tmp_path: Path) -> None:
    executor = engine.executor
    assert executor.submit(add, 1, b=2).result() == 3
    futures = [executor.submit(write, tmp_path / str(i)) for i in range(5)]
    assert len(wait(futures).done) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4"]
    failed = executor.submit(fail)
    wait([failed])
    assert isinstance(failed.exception(), InputError)  # the kind and the words of a fault survive
    assert str(failed.exception()) == "no such grid"


def test_inline_is_this_process_and_ray_is_not(ray: Engine, tmp_path: Path) -> None:
    assert Inline().submit(write, tmp_path / "a").result() == os.getpid()
    assert ray.executor.submit(write, tmp_path / "a").result() != os.getpid()


def test_ctrl_c_is_for_who_waits_inline() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Inline().submit(interrupt)


@pytest.mark.parametrize("death", [die, give_up])
def test_a_worker_that_dies_is_a_lost_one_and_the_next_is_there(ray: Engine, death: Any) -> None:
    lost = ray.executor.submit(death)
    wait([lost])
    assert isinstance(lost.exception(), LostError)
    assert ray.executor.submit(add, 1, 2).result() == 3


@pytest.mark.slow
def test_ray_listens_to_this_launch_only(ray: Engine) -> None:
    """With another token, or none, nobody can use the ports that Ray opens."""
    import subprocess
    import sys

    import ray as library

    address = library.get_runtime_context().gcs_address
    code = f"import ray; ray.init('{address}', logging_level='ERROR'); print(ray.get(ray.remote(lambda: 'let in').remote()))"
    for changed in ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | changed
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode != 0
        assert "let in" not in done.stdout
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)  # with this one's
    assert "let in" in done.stdout, done.stderr


JOBS = [Job(cell, config) for cell, config in parse_grid(TINY, "tiny", "tiny.yaml").configs]


def launched(work: Any, engine: Engine, folder: Path, jobs: list[Job] = JOBS) -> list[tuple[Job, Outcome]]:
    store: Any = None
    place = Place(store, folder / "checkpoints", "g", "", folder, "cpu", threads=engine.slots)
    with Display(len(jobs), 0) as shown:
        return list(launch(one_by_one(jobs), work, place, engine, shown))


def timed(job: Job, place: Place) -> Outcome:
    """Leaves its beginning and end in the folder, and lasts until as many runs as there should be are there with it."""
    begun, until = time.monotonic(), time.monotonic() + 30
    (mine := place.data / "here" / job.name).touch()
    while len(list(mine.parent.iterdir())) < place.threads and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    mine.unlink()
    (place.data / f"{job.name} {begun}").write_text(str(time.monotonic()))
    return Outcome(job.name, 0.0, test_error=1.0)


def spans(folder: Path) -> list[tuple[str, float, float]]:
    """(name, begun, ended) of what :func:`timed` and others left, in the order in which they began."""
    found = [(*path.name.rsplit(" ", 1), path.read_text()) for path in folder.iterdir() if path.is_file()]
    return sorted(((name, float(begun), float(ended)) for name, begun, ended in found), key=lambda span: span[1])


def at_once(found: list[tuple[str, float, float]]) -> int:
    return max(sum(a <= begun < b for _, a, b in found) for _, begun, _ in found)


def test_the_slots_are_kept_full_and_each_outcome_comes_once(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    ended = launched(timed, engine, tmp_path)
    assert sorted(job.name for job, _ in ended) == sorted(job.name for job in JOBS)
    assert all(outcome.run_id == job.name for job, outcome in ended)
    assert at_once(spans(tmp_path)) == engine.slots


def sick(job: Job, place: Place) -> Outcome:
    """Two runs whose surroundings fail them, one twice and one always; the others are well."""
    (place.data / f"{job.name} {time.monotonic()}").write_text(str(time.monotonic()))
    tries = len([path for path in place.data.iterdir() if path.name.startswith(job.name)])
    if job.name == JOBS[0].name:
        return Outcome("", 0.0, failure="infrastructure", reason="no network") if tries <= 2 else Outcome("r", 0.0, 1.0)
    if job.name == JOBS[1].name:
        raise ConnectionError("no network at all")
    if job.name == JOBS[2].name:
        return Outcome("r", 0.0, failure="diverged", reason="loss is nan")
    return Outcome("r", 0.0, 1.0)


def test_what_its_surroundings_failed_is_tried_again_and_what_diverged_is_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "PAUSE", 0.05)
    ended = {job.name: outcome for job, outcome in launched(sick, engine, tmp_path)}
    tries = [len([name for name, *_ in spans(tmp_path) if name == job.name]) for job in JOBS]
    assert RETRIES == 3
    assert tries == [3, 4, 1, 1]
    assert [ended[job.name].failure for job in JOBS] == ["", "infrastructure", "diverged", ""]
    assert "no network at all" in ended[JOBS[1].name].reason


def crowded(job: Job, place: Place) -> Outcome:
    """The first finds no memory beside another."""
    first = job.name == JOBS[0].name and not list(place.data.glob(f"{job.name} *"))
    timed(job, replace(place, threads=2 if first else 1))
    return Outcome("r", 0.0, failure="out of memory", reason="CUDA out of memory") if first else Outcome("r", 0.0, 1.0)


def test_out_of_memory_beside_others_is_tried_alone(ray: Engine, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    ended = launched(crowded, ray, tmp_path)
    assert sorted(job.name for job, _ in ended) == sorted(job.name for job in JOBS)
    assert not any(outcome.failure for _, outcome in ended)
    found = spans(tmp_path)
    assert [name for name, *_ in found].count(JOBS[0].name) == 2
    last = found[-1]
    assert last[0] == JOBS[0].name
    assert all(end <= last[1] for _, _, end in found[:-1])


def greedy(job: Job, place: Place) -> Outcome:
    (place.data / f"{job.name} {time.monotonic()}").write_text(str(time.monotonic()))
    return Outcome("r", 0.0, failure="out of memory", reason="CUDA out of memory")


def test_out_of_memory_alone_is_a_failure(engine: Engine, tmp_path: Path) -> None:
    [(_, outcome)] = launched(greedy, engine, tmp_path, JOBS[:1])
    assert outcome.failure == "out of memory"
    assert len(spans(tmp_path)) == (2 if engine.alone else 1)  # inline it was alone the first time


def test_a_launch_needs_no_more_memory_for_more_runs(tmp_path: Path) -> None:
    import gc
    import tracemalloc

    jobs = [JOBS[0]] * 4000
    store: Any = None
    place = Place(store, tmp_path, "g", "", tmp_path, "cpu")
    used = []

    def work(job: Job, place: Place) -> Outcome:
        return Outcome("r", 0.0, 1.0)

    tracemalloc.start()
    try:
        with Display(len(jobs), 0) as shown:
            shown.end = lambda *_: None  # pytest keeps what is printed
            for i, _ in enumerate(launch(one_by_one(jobs), work, place, Engine(Inline()), shown)):
                if i in (500, 3999):
                    gc.collect()
                    used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert used[1] - used[0] < 50_000  # bytes; 3,500 outcomes alone would be more


@pytest.mark.slow
def test_ray_is_started_anew_when_its_node_dies(ray: Engine, tmp_path: Path) -> None:
    executor = ray.executor
    assert isinstance(executor, Ray)
    assert executor.submit(add, 1, 2).result() == 3
    executor.session.heal()  # it is well: nothing happens
    lost = executor.submit(sleep_on, tmp_path)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    next(process for process in executor.session.vital if process.name() == "raylet").kill()
    time.sleep(0.5)
    executor.session.heal()
    assert isinstance(lost.exception(timeout=0), LostError)
    assert executor.submit(add, 1, 2).result() == 3


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (DivergedError("the loss is nan"), "diverged"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "error"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
        (OSError(errno.ESTALE, "Stale file handle"), "infrastructure"),
        (LostError("a worker died"), "infrastructure"),
        (BusyError("another process"), "infrastructure"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "infrastructure"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "infrastructure"),
        (InputError("of another version"), "input"),
        (KeyError("a fault of ours"), "error"),
    ],
)
def test_what_a_run_died_of(fault: Exception, word: str) -> None:
    assert kind(fault) == word


REFUSED: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    "negative": ((-1, 1.0, "", "auto"), ["--workers", "-1"]),
    "too many": ((10_000, 1.0, "", "cpu"), ["--workers 10000", "CPU cores", "choices: 0 to"]),
    "no share": ((None, 0.0, "", "auto"), ["--gpus-per-run", "0.25", "not 0"]),
    "a share and a half": ((None, 1.5, "", "auto"), ["--gpus-per-run", "not 1.5"]),
    "one card for all": ((1, 1.0, "", "tpu"), ["'tpu'", "auto, cpu, cuda"]),
    "inline on a cluster": ((0, 1.0, "host:6379", "auto"), ["--workers 0", "--address host:6379"]),
    "no port": ((None, 1.0, "host", "auto"), ["--address must be HOST:PORT", "'host'"]),
    "a client's address": ((None, 1.0, "ray://host:10001", "auto"), ["--address must be HOST:PORT"]),
    "more GPUs than there are": ((None, 2.0, "", "cuda"), ["--gpus-per-run 2", "this machine has 1 GPUs"]),
    "nobody there": ((None, 1.0, "127.0.0.1:9", "auto"), ["no Ray cluster", "127.0.0.1:9", "docs/cluster.md"]),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_an_engine_that_cannot_be_had_is_refused(
    arguments: tuple[Any, ...], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cuda" in arguments:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        choose(*arguments, 4)
    assert all(word in str(error.value) for word in words), error.value
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("cores", "runs", "slots", "threads"), [(1, 9, 1, 0), (2, 9, 2, 1), (4, 9, 4, 1), (4, 2, 2, 2), (4, 1, 1, 0)]
)
def test_what_suits_the_machine(monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, slots: int, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**40))
    engine = choose(None, 1.0, "", "cpu", runs)
    assert (engine.slots, engine.threads) == (slots, threads)
    assert isinstance(engine.executor, Ray if slots > 1 else Inline)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**31))
    assert isinstance(choose(None, 1.0, "", "cpu", runs).executor, Inline)  # there is no memory for two


def test_a_card_that_is_named_is_for_one_run_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    engine = choose(None, 1.0, "", "cuda:1", 9)
    assert (engine.slots, engine.device, type(engine.executor)) == (1, "cuda:1", Inline)
    with pytest.raises(InputError, match=r"--device cuda:1 is for --workers 0; with 2 workers"):
        choose(2, 1.0, "", "cuda:1", 9)
    with pytest.raises(InputError, match=r"no device 'cuda:2': .* 2 CUDA devices; choices: auto, cpu, cuda:0, cuda:1"):
        choose(None, 1.0, "", "cuda:2", 9)


def test_cores_are_counted_where_no_system_says_which_a_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**40))
    assert choose(None, 1.0, "", "cpu", 9).slots == 3


@pytest.mark.parametrize(
    ("gpus", "share", "slots", "alone"),
    [(1, 1.0, 1, False), (1, 0.25, 4, True), (4, 1.0, 4, False), (4, 0.5, 8, True), (4, 0.75, 4, True), (4, 2, 2, False)],
)
def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch, gpus: int, share: float, slots: int, alone: bool) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    engine = choose(None, share, "", "auto", 100)
    assert (engine.slots, engine.device, bool(engine.alone)) == (slots, "cuda", alone)
    if isinstance(engine.executor, Ray):
        assert engine.executor.gpus == share
        assert engine.executor.session.resources["num_gpus"] == gpus
    if alone:
        assert engine.alone_slots == gpus
        assert isinstance(engine.alone, Ray)
        assert engine.alone.gpus == 1
    with pytest.raises(InputError, match=r"--device cuda:0 is for --workers 0"):
        choose(2 if gpus > 1 else 1, 1.0, "", "cuda:0", 100)


def test_workers_share_the_cores(ray: Engine) -> None:
    assert ray.threads == 1
    assert ray.slots == 2


@pytest.mark.parametrize(
    ("address", "here"), [("127.0.0.1:6379", True), ("localhost:1", True), ("[::1]:1", True), ("10.0.0.1:6379", False)]
)
def test_whether_an_address_is_this_machine(address: str, here: bool) -> None:
    assert is_here(address) is here


PROCESSES = """
import os, sys
from experiments.ray_tasks import Ray, Session

def here():
    return os.getpid()

session = Session(num_cpus=1, num_gpus=int(sys.argv[1]))  # Ray takes it that they are there
executor = Ray(session, 1, 0.5)
print(len({executor.submit(here).result() for _ in range(2)}))
executor.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "processes"), [(1, 1), (2, 2)])
def test_runs_on_the_only_card_share_a_process_and_others_begin_anew(gpus: int, processes: int) -> None:
    """A process that has begun with a card keeps it, whichever Ray means for its next task."""
    words = [sys.executable, "-c", PROCESSES, str(gpus)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split()[-1:] == [str(processes)], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["beside others", "alone"])
def test_shutdown_interrupts_and_leaves_nothing_running(tmp_path: Path, alone: bool) -> None:
    """The last test of this file: it ends its Ray."""
    import ray as library

    library.shutdown()  # of the fixture, if it is there
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with choose(2, 1.0, "", "cpu", 4) as engine:
        patch.undo()
        assert isinstance(engine.executor, Ray)
        busy = engine.alone if alone else engine.executor
        assert busy
        busy.submit(sleep_on, tmp_path)
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        start = time.monotonic()
        engine.executor.shutdown(cancel_futures=True)
        assert time.monotonic() - start < 10
    assert (tmp_path / "saved").exists()
    assert not [p for p in psutil.Process().children(recursive=True) if "raylet" in p.name()]


def test_the_executors_are_executors() -> None:
    assert issubclass(Inline, Executor)
    assert issubclass(Ray, Executor)


@pytest.mark.parametrize("interrupted", [False, True], ids=["alone", "by Ctrl-C"])
def test_ray_that_does_not_start(interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches its processes, too, and then it waits for them in vain: that is an interruption, and no fault."""
    import ray

    def init(*_: object, **__: object) -> None:
        if interrupted:
            signal.raise_signal(signal.SIGINT)
        raise Exception("The current node timed out during startup")  # noqa: TRY002  # the class that Ray raises

    monkeypatch.setattr(ray, "init", init)
    expected = pytest.raises(KeyboardInterrupt) if interrupted else pytest.raises(InputError, match=r"timed out.*--workers 0")
    with expected:
        Session().start()
