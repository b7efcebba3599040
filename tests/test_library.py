"""docs/library.md: its blocks run one after the other beside a finished experiment, and print what stands there."""

import re
from pathlib import Path

import pytest
import torch

from analysis.trained import Trained, choose
from capsnet.data import read
from tests.documents import ROOT, shape
from tests.experiments.conftest import launched

QUICK = """
base: {dataset: digits, train_size: 300, validation_size: 100, augmentation: none, conv_channels: 16, conv_kernel: 5,
  primary_types: 4, primary_kernel: 5, decoder_hidden: [32], epochs: 2, batch_size: 20, learning_rate: 3e-3,
  lr_schedule: constant, reconstruction_weight: 0.01}
axes: {routing_iterations: [3]}
also:
  - {routing_iterations: 1, reconstruction_weight: 0}
seeds: 1
"""
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def mlruns(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an experiment "quick"."""
    folder = tmp_path_factory.mktemp("library") / "mlruns"
    folder.mkdir()
    (folder / migrated.name).write_bytes(migrated.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert not launched(folder, QUICK, "quick").failed
    return folder


@pytest.mark.slow  # its torch.export, seaborn and two trainings
def test_every_block_runs_and_prints_what_stands_there(mlruns: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(mlruns.parent)
    text = (ROOT / "docs" / "library.md").read_text()
    found, names = BLOCK.findall(text), {}
    assert len(found) == text.count("\n```") / 2, "every block is looked at"
    for block in found:
        exec(compile(block, "docs/library.md", "exec"), names)
        printed = "\n".join(re.findall("^# > (.*)$", block, re.MULTILINE))
        said = capsys.readouterr().out
        assert shape(said, mlruns) == shape(printed, mlruns), said
    assert len(names["runs"]) == 2
    assert set(names["curves"]["run_id"]) == set(names["runs"]["run_id"])
    assert (mlruns.parent / "validation.png").stat().st_size > 5000


def test_the_program_of_any_run_gives_its_logged_test_error_again(mlruns: Path, tmp_path: Path) -> None:
    store, best = choose("", "quick", mlruns)
    for run in store.runs():
        trained = Trained.load(store, run, tmp_path)
        trained.export(tmp_path / "network.pt2")
        program = torch.export.load(tmp_path / "network.pt2").module()
        test = read(trained.config, Path("nowhere"), torch.device("cpu")).test
        scores = torch.cat([program(test.batch(slice(i, i + 77))) for i in range(0, len(test), 77)])
        assert 100 * (scores.argmax(dim=1) != test.labels).sum().item() / len(test) == run.metrics["test_error"]
    assert best.run_id in {run.run_id for run in store.runs()}
