"""The wheel holds all that is tracked of its packages, and its commands work in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from zipfile import ZipFile

import pytest

from capsnet import terminal

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
COMMANDS = PROJECT["project"]["scripts"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel of the tracked files as they are now, unpacked: what installing it does, but for the commands' files."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"  # a build leaves files beside its sources
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"capsnet_ablations-{PROJECT['project']['version']}-py3-none-any.whl"
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def tracked():
    words = ["git", "ls-files", "--", *PACKAGES, "pyproject.toml", "README.md", "LICENSE"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).exists()]


def call(installed, folder, command, *arguments):
    """Run a command as its file in bin would."""
    code = (
        "import sys; from importlib.metadata import EntryPoint; sys.argv = sys.argv[1:]\n"
        f"EntryPoint({command!r}, {COMMANDS[command]!r}, 'console_scripts').load()()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(installed), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-c", code, command, *arguments]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_what_is_tracked_of_its_packages_and_nothing_else(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    ours = {name for name in files if not name.startswith("capsnet_ablations-")}
    assert ours == {name for name in tracked() if name.split("/")[0] in PACKAGES}
    assert {"experiments/grids/quick.yaml", "analysis/published.yaml", "analysis/reconstructions.ipynb"} <= ours


def test_every_command_has_its_function():
    assert {target.split(".")[0]: name for name, target in COMMANDS.items()} == terminal.SCRIPTS
    for name, target in COMMANDS.items():
        assert callable(EntryPoint(name, target, "console_scripts").load())


def test_installed_commands_read_what_is_shipped_and_write_nothing_by_looking(installed, tmp_path):
    """In an empty folder, so that nothing of the checkout is taken for a part of the wheel."""
    planned = call(installed, tmp_path, "capsnet-experiments", "plan", "quick")
    assert planned.returncode == 0, planned.stderr
    assert "8 cells" in planned.stdout
    for name in COMMANDS:
        shown = call(installed, tmp_path, name, "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"usage: {name} [-h]" in shown.stdout
        assert f"Example: {name} " in shown.stdout
        assert "python -m" not in shown.stdout
    for words in (["capsnet-experiments", "run", "--bogus"], ["capsnet-analysis"]):
        refused = call(installed, tmp_path, *words)
        assert refused.returncode == 2
        assert "capsnet-experiments run" in refused.stderr
        assert not re.search(r"python -m|\bmake\b|Makefile", refused.stderr)
    assert not list(tmp_path.iterdir())


def test_a_shell_completes_the_name_of_a_command(installed, tmp_path):
    done = call(installed, tmp_path, "capsnet", "--tyro-write-completion", "bash", str(tmp_path / "capsnet"))
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "capsnet").read_text()
    assert "--routing-iterations" in written
    assert re.search(r"^complete .* capsnet$", written, re.MULTILINE)


def test_the_code_of_a_wheel_is_its_release_even_in_somebody_elses_repository(installed, tmp_path):
    code = "from experiments.provenance import git_commit; print(git_commit())"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=m"]
    subprocess.run([*git, "init", "-q"], cwd=installed, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], cwd=installed, check=True)
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"release-{PROJECT['project']['version']}"
