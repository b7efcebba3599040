"""What holds for all tests, and the services that they run against."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services import Postgres, TrackingServer, postgres_running

# A background job of a shell ignores Ctrl-C and hands that on; with a handler here, the commands that tests start do not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty database: making one takes seconds, copying it none."""
    from experiments import client

    folder = tmp_path_factory.mktemp("migrated")
    client.connected(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def further_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further test sets of the digits: ``turned`` and ``flipped``."""
    from capsnet.registry import TEST_SETS, FurtherFacts

    facts = FurtherFacts((1, 16, 16), 10, 360, "tests.digits:flipped")
    monkeypatch.setitem(TEST_SETS, "flipped", facts)
    monkeypatch.setitem(TEST_SETS, "turned", replace(facts, loader="tests.digits:turned", origin="made by a test"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres_running() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """The URI of an empty PostgreSQL database, which takes 0.03 s; MLflow's tables in it take 0.9 s."""
    return postgres_server.create()


@pytest.fixture
def mlflow_server(tmp_path: Path, migrated: Path) -> Iterator[Callable[..., TrackingServer]]:
    """``mlflow_server()`` starts one with a SQLite database, ``mlflow_server(postgres)`` with another store."""
    with ExitStack() as ends:

        def start(store: str = "", *options: str, **environment: str) -> TrackingServer:
            folder = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}"
            folder.mkdir()
            store = store or f"sqlite:///{shutil.copy(migrated, folder)}"
            server = TrackingServer(store, folder / "artifacts", folder / "log", options, environment)
            ends.callback(server.kill)
            server.start()
            return server

        yield start
