"""docs/extend.md, followed to the letter in a copy of the repository."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = re.findall(r"^```(diff|console)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path):
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def changes(block):
    """(file, what stands there, what shall stand there) of each part of a diff."""
    for file, part in re.findall(r"^--- (\S+)\n((?:[ +-].*\n|\n)+?)(?=---|\Z)", block, re.MULTILINE):
        lines = part.splitlines()
        yield file, *("".join(f"{line[1:]}\n" for line in lines if line[:1] in kept) for kept in (" -", " +"))


def apply(block, folder):
    for file, old, new in changes(block):
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times:\n{old}"
        (folder / file).write_text(text.replace(old, new))


def commands(block):
    """(what is typed, what is printed)."""
    for typed, printed in re.findall(r"^\$ (.*\n(?:> .*\n)*)((?:(?![$>] ).*\n)*)", block, re.MULTILINE):
        yield re.sub(r"^> ", "", typed, flags=re.MULTILINE), printed


def shape(text):
    """What is printed, whatever its numbers, digests and folders: these differ from machine to machine."""
    text = re.sub(r"/[\w./-]*(?=mlruns|nowhere)", "/", text)
    return re.sub(r"#+", "#", re.sub(r"[0-9a-f]{64}|\d[\d.,]*", "#", text)).replace("# ", "#").split()


def test_every_change_still_finds_its_place(copy):
    diffs = [block for kind, block in BLOCKS if kind == "diff"]
    assert sum(len(list(changes(block))) for block in diffs) == "".join(diffs).count("--- ") > 12
    for block in diffs:
        apply(block, copy)
    for path in copy.rglob("*.py"):
        ast.parse(path.read_text())


@pytest.mark.slow
def test_the_recipes_do_what_they_say(copy):
    environment = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "CAPSNET_DATA")}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    before = ""
    for kind, block in BLOCKS:
        if kind == "diff":
            apply(block, copy)
            continue
        for typed, printed in commands(block):
            if re.fullmatch(r"\w+=.*\n", typed):  # a variable, for what follows
                before += typed
                continue
            words = ["bash", "-c", before + typed]
            done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == (2 if printed.startswith("error: ") else 0), typed + done.stdout + done.stderr
            if printed:
                assert shape(done.stdout + done.stderr) == shape(printed), typed
