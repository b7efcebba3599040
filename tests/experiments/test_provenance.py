"""The commit that a run names is that of the code which trained it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from capsnet import origin
from experiments import provenance

GIT = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=m"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small one, with a text in another encoding than UTF-8."""
    for name in ("capsnet", "experiments"):
        (tmp_path / name).mkdir()
    shutil.copy(origin.__file__, tmp_path / "capsnet")
    (tmp_path / "notes.txt").write_bytes("Zürich".encode("latin-1"))
    (tmp_path / ".gitignore").write_text("ignored.py\n__pycache__\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *words], cwd=tmp_path, check=True)
    return tmp_path


def commit(repository: Path) -> str:
    code = "import origin; print(origin.git_commit())"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=repository / "capsnet", capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["routing.py", "routing.c"])
def test_a_module_that_git_does_not_know_is_a_change(repository: Path, module: str) -> None:
    clean = commit(repository)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    for name in ("scratch.py", "capsnet/notes.txt", "capsnet/ignored.py"):  # none of the code
        (repository / name).write_text("1")
    assert commit(repository) == clean
    (repository / "capsnet" / module).write_text("iterations = 3")
    first = commit(repository)
    assert re.fullmatch(f"{clean}-dirty-[0-9a-f]{{8}}", first)
    (repository / "capsnet" / module).write_text("iterations = 5")
    assert commit(repository) not in (clean, first)


def test_modules_in_python_and_in_c_have_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "capsnet").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "experiments" / "provenance.py"))
    found = set()
    for name, text in [("routing.py", "1"), ("routing.py", "2"), ("routing.c", "2"), ("routing.c", "3"), ("notes.txt", "4")]:
        (tmp_path / "capsnet" / name).write_text(text)
        found.add(provenance.code.__wrapped__())
    assert len(found) == 4, "of five, since notes are no code"


def test_changes_in_any_encoding_are_told_apart(repository: Path) -> None:
    found = {commit(repository)}
    for text in ("Genève", "Graubünden"):
        (repository / "notes.txt").write_bytes(text.encode("latin-1"))
        found.add(commit(repository))
    assert len(found) == 3
