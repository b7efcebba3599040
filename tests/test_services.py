"""The services that other tests run against do what those tests take for granted."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests import services

ROOT = Path(__file__).parents[1]


def test_postgres_wants_its_password(postgres, postgres_server):
    import psycopg

    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (postgres.rpartition("/")[2],)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
    for wrong in ("", ":wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres.replace(f":{postgres_server.password}", wrong))


def test_every_database_is_empty(postgres_server):
    import psycopg

    for _ in range(2):
        with psycopg.connect(postgres_server.create()) as connection:
            connection.execute("CREATE TABLE a (b integer)")


def test_postgres_ends_with_its_test_even_after_a_failure():
    running = services.postgres_running()
    port = running.__enter__().port
    assert answers(port)
    fault = RuntimeError("a fault of the test")
    assert not running.__exit__(RuntimeError, fault, None)
    assert not answers(port)


def test_without_postgres_a_test_is_skipped(monkeypatch):
    monkeypatch.setattr(services, "_postgres_binaries", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"), services.postgres_running():
        pass


@pytest.mark.slow
def test_a_tracking_server_outlives_its_death(mlflow_server, postgres, tmp_path):
    server = mlflow_server(postgres)
    client = MlflowClient(server.uri)
    run_id = client.create_run(client.create_experiment("e")).info.run_id
    client.log_metric(run_id, "a", 1.5)
    (tmp_path / "weights").write_text("seven")
    client.log_artifact(run_id, str(tmp_path / "weights"))
    [kept] = server.artifacts.rglob("weights")  # the client has never heard of this folder
    assert kept.read_text() == "seven"

    leader = server.process.pid
    assert len(services.group(leader)) > 1
    server.kill()
    assert not services.group(leader)
    assert not answers(server.port)

    server.start()
    assert client.get_run(run_id).data.metrics == {"a": 1.5}
    (tmp_path / "fetched").mkdir()
    assert Path(client.download_artifacts(run_id, "weights", str(tmp_path / "fetched"))).read_text() == "seven"
    server.stop()
    assert not answers(server.port)


def test_a_server_that_cannot_start_says_why(tmp_path):
    server = services.TrackingServer("nonsense://", tmp_path / "artifacts", tmp_path / "log")
    with pytest.raises(RuntimeError, match="nonsense"):
        server.start()


@pytest.mark.usefixtures("postgres_server")  # which skips the test where there is none to be had
def test_services_end_with_a_process_that_is_killed():
    code = "from tests.services import *\nwith postgres_running() as server:\n print(server.port, flush=True)\n time.sleep(60)"
    with tempfile.TemporaryDirectory(dir=services._open_to_all(), ignore_cleanup_errors=True) as folder:  # it leaves its files
        Path(folder).chmod(0o755)
        words, environment = [sys.executable, "-c", code], {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            port = int(process.stdout.readline())
            assert answers(port)
            process.send_signal(signal.SIGKILL)
        wait_for_the_end_of(port)


def wait_for_the_end_of(port):
    deadline = time.monotonic() + 10
    while answers(port):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(port):
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
