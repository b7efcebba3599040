"""What ``make setup`` leaves in its environment, but for the packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# python -m venv as everywhere, but its pip, which would need the network, does nothing
VENV = """
import subprocess, sys
if sys.argv[1:3] == ["-m", "venv"]:
    import sysconfig, venv
    venv.create(sys.argv[3], symlinks=True)
    scheme = {"base": sys.argv[3], "platbase": sys.argv[3]}
    open(sysconfig.get_path("purelib", "venv", scheme) + "/pip.py", "w").close()
else:
    sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Packages that say where they were imported from, in a folder with a space and a letter that isn't ASCII."""
    folder = tmp_path / "Ma\u0142e sieci"
    for package in ("capsnet", "experiments", "analysis"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    for name in ("Makefile", "requirements.lock", "requirements-uv.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "stand_in.py").write_text(VENV)
    return folder


def make_setup(checkout: Path, stand_in: str) -> subprocess.CompletedProcess[str]:
    """Call it with a script for Python."""
    words = ["make", "setup", f"PYTHON={sys.executable} {stand_in}"]
    # as another make that runs the tests would hand on its own variables
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def set_up(checkout: Path) -> list[str]:
    """Make it; the lines of what puts a folder on the path."""
    done = make_setup(checkout, "stand_in.py")
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (checkout / ".venv").glob("lib/python*/site-packages/*.pth")
    return os.fsdecode(path.read_bytes()).splitlines()


def test_a_script_anywhere_imports_the_checkout(checkout: Path, tmp_path: Path) -> None:
    assert set_up(checkout) == [str(checkout)]
    script = tmp_path / "elsewhere" / "mine.py"
    script.parent.mkdir()
    script.write_text(
        "import capsnet, experiments, analysis as a; print(ascii([m.__file__ for m in (capsnet, experiments, a)]))"
    )
    words = [checkout / ".venv" / "bin" / "python", script]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=script.parent, env=environment, capture_output=True, text=True, check=False)
    names = [str(checkout / package / "__init__.py") for package in ("capsnet", "experiments", "analysis")]
    assert done.stdout.strip() == ascii(names), done.stderr


def test_it_stands_there_once_however_often_it_is_made(checkout: Path) -> None:
    set_up(checkout)
    (checkout / ".venv" / ".ready").unlink()
    assert set_up(checkout) == [str(checkout)]


@pytest.mark.parametrize("version", ["3.10.13", "3.15.0"])
def test_a_python_that_the_lock_has_no_packages_for_is_refused_before_any_work(checkout: Path, version: str) -> None:
    numbers = tuple(map(int, version.split(".")))
    (checkout / "other.py").write_text(
        f"import sys\nsys.version_info = {numbers}\nsys.version = '{version} of a stand-in'\nexec(sys.argv[2])\n"
    )
    done = make_setup(checkout, "other.py")
    assert done.returncode == 2
    assert "Python 3.11 to 3.14 is needed, which the packages in requirements.lock are made for" in done.stderr
    assert f"{sys.executable} other.py is {version}; name another one: make PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()
