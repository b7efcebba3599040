"""A cluster: Ray with two nodes on this machine, PostgreSQL, an MLflow server with proxied artifacts. One node is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.tracking import Store
from tests.experiments.conftest import TINY, launched, opened
from tests.experiments.test_resume import assert_equal_to_the_bit, running
from tests.services import TrackingServer

pytestmark = pytest.mark.slow
LONGER = TINY.replace("epochs: 2", "epochs: 300").replace("seeds: 2", "seeds: 3")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs nothing and two nodes with a CPU each; with a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", "ab" * 32)  # to stay: Ray reads it once in a process, whichever test comes first
    # a dead node is noticed within seconds instead of half a minute
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_timeout_ms", "1000")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield found
    finally:
        found.shutdown()


def test_a_node_killed_in_the_middle_costs_nothing(
    cluster: Any,
    postgres: str,
    mlflow_server: Callable[..., TrackingServer],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    server, shared = mlflow_server(postgres), tmp_path / "shared"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny.write_text(LONGER)
    words = [sys.executable, "-m", "experiments", "run", str(tiny), "--mlruns", str(shared), "--checkpoint-every", "0.5"]
    with running([*words, "--address", cluster.address]) as process:
        until = time.monotonic() + 120
        while len(list((shared / "checkpoints").rglob("last.safetensors"))) < 2:  # both nodes are at work
            assert time.monotonic() < until, process.communicate(timeout=1)
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, printed + errors
    assert "to be tried again: LostError" in printed
    assert "6 runs on cpu: 6 finished, 6 of them now; 0 failed" in printed
    assert "Traceback" not in printed + errors
    assert not list((shared / "checkpoints").glob("*/[!.]*"))
    assert list((server.artifacts).rglob("weights.safetensors"))  # went through the server
    here = opened(shared)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    launched(tmp_path / "alone", LONGER, threads=1)
    there = Store.open("tiny", tmp_path / "alone", create=False)
    assert there is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert_equal_to_the_bit(here, there)


def test_a_cluster_without_room_or_key_is_refused(
    cluster: Any, tiny: Path, mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # not asked before the cluster
    words = [sys.executable, "-m", "experiments", "run", str(tiny), "--mlruns", str(mlruns), "--address", cluster.address]

    def refused(*more: str, **environment: str) -> str:
        line = [*words, *more]
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, timeout=200, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    assert "--workers 5 can't be had" in (said := refused("--workers", "5"))
    assert "choices: 1 to 1" in said
    assert refused("--device", "cuda").endswith("has 0 GPUs; choices: auto, cpu")
    assert "no Ray cluster can be used" in refused(RAY_AUTH_TOKEN="0" * 64)
