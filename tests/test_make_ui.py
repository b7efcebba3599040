"""``make ui`` ends when it is told to, and says nothing of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where make finds its environment made: this one's."""
    for name in ("requirements.lock", "requirements-uv.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "mlflow").write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent / "mlflow"}" "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (programs.parent / ".ready").touch()
    (tmp_path / "mlruns").mkdir()
    return tmp_path


def served(folder: Path, port: int, uri: str = "") -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    words = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "ui", f"PORT={port}"]
    told = subprocess.STDOUT
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=told, text=True, start_new_session=True
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_ctrl_c_ends_it_quietly_also_with_a_page_open(folder: Path) -> None:
    port = free_port()
    server = served(folder, port)
    try:
        for _ in range(240):
            try:
                page = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.5)
        with page:
            asked = "/api/2.0/mlflow/experiments/search?max_results=5"
            page.sendall(f"GET {asked} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert b"200 OK" in page.recv(1000)
            for _ in range(2):  # as a terminal does, to make, its shell and the server; and once more, which nobody would miss
                os.killpg(server.pid, signal.SIGINT)
                time.sleep(0.02)
            said, _ = server.communicate(timeout=60)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
    assert "Shutting down" in said
    assert "Traceback" not in said
    assert "Error" not in said
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/version", timeout=5)


def test_a_server_that_fails_is_an_error(folder: Path) -> None:
    (folder / ".venv" / "bin" / "mlflow").write_text("#!/bin/sh\necho no disk >&2\nexit 3\n")
    server = served(folder, free_port())
    said, _ = server.communicate(timeout=60)
    assert server.returncode == 2
    assert "no disk" in said
    assert "Error 3" in said


def test_a_port_that_is_taken_is_an_error_before_an_address_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = served(folder, port)
        said, _ = server.communicate(timeout=60)
    assert server.returncode == 2
    assert f"error: port {port} can't be used: it is taken, by another make ui perhaps, or is none" in said
    assert "name another one: make ui PORT=5001" in said
    assert "serving" not in said


@pytest.mark.parametrize(
    ("uri", "address"),
    [("http://there:8080", "http://there:8080"), ("https://me:secret@there/mlflow/", "https://there/mlflow")],
)
def test_a_server_that_is_named_has_an_address_to_open_without_a_password(folder: Path, uri: str, address: str) -> None:
    server = served(folder, free_port(), uri)
    said, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert said == f"MLFLOW_TRACKING_URI names a server; open {address}/#/experiments?workflowType=machine_learning\n"
