"""Services for tests, the real ones: a PostgreSQL server and MLflow tracking servers, each on a free port of 127.0.0.1.

They end with the test, and if this process dies before that, with it.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

START_SECONDS = 90.0  # a busy machine with two cores may need half of it
STOP_SECONDS = 15.0


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# PostgreSQL


@dataclass
class Postgres:
    """A PostgreSQL server of its own, which wants a password."""

    port: int
    password: str
    made: int = 0

    def uri(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """The URI of a new and empty database."""
        self.made += 1
        name = f"database_{self.made}"
        import psycopg

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.uri(name)


@contextmanager
def postgres_running() -> Iterator[Postgres]:
    """A PostgreSQL server from the machine's package, with its data in a temporary folder; skips the test without one."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = _unprivileged()
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=_open_to_all() if user else None) as made:
        folder = Path(made)
        data, secret, log = folder / "data", folder / "password", folder / "log"
        server = Postgres(free_port(), secrets.token_hex(16))
        secret.write_text(server.password)
        for path in (folder, secret) if user else ():
            shutil.chown(path, user)
        words = [binaries / "initdb", "-D", data, "--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}"]
        if _popen([*words, "--no-locale", "--encoding=UTF8", "--no-sync"], log, user=user).wait():
            raise RuntimeError(f"initdb failed: {log.read_text()}")
        # nothing here outlives a power cut, so nothing waits for a disk
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        process = _popen([binaries / "postgres", "-D", data, "-p", server.port, *options], log, user=user, end=signal.SIGINT)
        try:
            _wait_until(lambda: _accepts(server), process, log)
            yield server
        finally:
            _end(process, signal.SIGINT)  # a "fast" shutdown: SIGTERM would wait for clients to go


def _postgres_binaries() -> Path | None:
    """The newest version's: Debian has them in no PATH."""
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if (path.parent / "postgres").exists()]
    newest = max(versions, key=lambda path: float(path.parent.name), default=None)
    found = shutil.which("initdb")
    return newest or (Path(found).resolve().parent if found else None)


def _unprivileged() -> str | None:
    """Who runs PostgreSQL, which refuses to be run by root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _open_to_all() -> str:
    """A temporary folder that another user can reach, too."""
    folders = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))
    return str(next(folder for folder in folders if all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))))


def _accepts(server: Postgres) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError), psycopg.connect(server.uri("postgres"), connect_timeout=5):
        return True
    return False


# MLflow


@dataclass
class TrackingServer:
    """An ``mlflow server`` that can be killed and started again, on the same port and with the same store."""

    store: str  # --backend-store-uri
    artifacts: Path  # where it puts what clients send it
    log: Path
    options: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        # where this process logs to, and that it is a test, is not meant for a server
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
        # without its eight processes for evaluation jobs, it answers after 6.4 s instead of 7.9
        quick = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self.port, "--workers", "1"]
        words += ["--backend-store-uri", self.store, "--serve-artifacts", "--artifacts-destination", self.artifacts]
        self.process = _popen([*words, *self.options], self.log, {**inherited, **quick, **self.environment})
        _wait_until(self._answers, self.process, self.log)

    def kill(self) -> None:
        """SIGKILL to it and all that it started; ``kill -9`` of its own process would leave uvicorn with the port."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process:
            _end(process, how)

    def _answers(self) -> bool:
        with suppress(URLError, OSError), urlopen(self.uri + "/health", timeout=5):
            return True
        return False


# Processes


def _popen(
    words: Sequence[object],
    log: Path,
    environment: dict[str, str] | None = None,
    user: str | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> "subprocess.Popen[bytes]":
    """A process with a group of its own, for all that it starts, and that gets the signal ``end`` if this one dies."""
    guard = [setpriv, "--pdeathsig", end.name.removeprefix("SIG")] if (setpriv := shutil.which("setpriv")) else []
    as_user: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    with log.open("ab") as out:
        return subprocess.Popen(
            [*guard, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=log.parent,
            env=environment,
            start_new_session=True,
            **as_user,
        )


def _wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process, signal.SIGKILL)
            raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]", how: signal.Signals) -> None:
    """End a process by a signal, or else by SIGKILL, and whatever is left of its group."""
    if how != signal.SIGKILL:
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + STOP_SECONDS
    while left := group(process.pid):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still there after SIGKILL: {left}")
        time.sleep(0.01)


def group(leader: int) -> list[psutil.Process]:
    """The processes of a group that live; a zombie does, and keeps its port, until its last thread is dead, too."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            dead = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
            if os.getpgid(process.pid) == leader and not dead:
                found.append(process)
    return found
