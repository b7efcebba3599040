"""The notebook runs from its first cell to its last against a run that was just trained, and shows its pictures."""

import base64
import os
import sys
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from analysis.trained import Trained, choose

NOTEBOOK = Path(__file__).parents[2] / "analysis" / "reconstructions.ipynb"


class ThisInterpreter(KernelSpecManager):
    """The only kernel there is: that of the interpreter that runs the tests, whatever is installed for the user."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")


class Kernel(AsyncKernelManager):
    def __init__(self, **options):
        super().__init__(kernel_spec_manager=ThisInterpreter(), **options)


@pytest.fixture
def execute(gallery, tmp_path, monkeypatch):
    """(name=value, ...) -> the notebook, executed in its own folder with these in the environment, and nothing at home."""
    for name in [name for name in os.environ if name.startswith(("JUPYTER", "IPYTHON", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(**environment):
        for name, value in {"RUN_ID": "", "EXPERIMENT": "", "MLRUNS": str(gallery), **environment}.items():
            monkeypatch.setenv(name, value)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        place = {"metadata": {"path": str(NOTEBOOK.parent)}}
        NotebookClient(notebook, kernel_manager_class=Kernel, timeout=120, resources=place).execute()
        return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    return run


def picture(outputs, kind):
    [shown] = outputs
    return Image.open(BytesIO(base64.b64decode(shown.data[f"image/{kind}"])))


def test_the_notebook_shows_both_figures_of_the_best_run(execute, gallery, tmp_path):
    made = execute()
    best = Trained.load(*choose("", "pictures", gallery), tmp_path)
    assert [output.text for output in made["load"]] == [f"{best.title}\n"]  # and no warning
    assert made["choice"] == []
    assert picture(made["figure-3"], "png").size[0] == 680
    assert picture(made["figure-4"], "png").size[0] == 680
    assert picture(made["figure-4-film"], "gif").n_frames == 20


@pytest.mark.slow  # ten seconds for another kernel
def test_the_notebook_shows_the_run_that_is_named_or_says_why_not(execute, gallery, tmp_path):
    store, best = choose("", "pictures", gallery)
    able, unable = (
        next(r for r in store.runs() if r.params["routing"] == routing and r.run_id != best.run_id)
        for routing in ("dynamic", "uniform")
    )
    [output] = execute(RUN_ID=able.run_id[:8])["load"]
    assert output.text.startswith(f"run {able.run_id[:8]}: digits")
    with pytest.raises(CellExecutionError, match=f"run {unable.run_id} was trained without reconstruction"):
        execute(RUN_ID=unable.run_id)


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
