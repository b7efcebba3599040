"""Documents that can be followed: commands with what they print, changes of files, in a copy of the repository."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(diff|console)\n(.*?)^```$|^<!-- (beforehand)\n(.*?)^-->$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    """(kind, text) of each: diff, console, or what readers don't see, because their troubles came by themselves."""
    return [(a or c, b or d) for a, b, c, d in BLOCK.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))]


def copied(folder: Path) -> Path:
    """The tracked files as they are now, with this environment."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def changes(block: str) -> Iterator[tuple[str, str, str]]:
    """(file, what stands there, what shall stand there) of each part of a diff."""
    for file, part in re.findall(r"^--- (\S+)\n((?:[ +-].*\n|\n)+?)(?=---|\Z)", block, re.MULTILINE):
        lines = part.splitlines()
        old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] in kept) for kept in (" -", " +"))
        yield file, old, new


def apply(block: str, folder: Path) -> None:
    for file, old, new in changes(block):
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times:\n{old}"
        (folder / file).write_text(text.replace(old, new))


def commands(block: str) -> Iterator[tuple[str, str]]:
    """(what is typed, what is printed)."""
    for typed, printed in re.findall(r"^\$ (.*\n(?:> .*\n)*)((?:(?![$>] ).*\n)*)", block, re.MULTILINE):
        yield re.sub(r"^> ", "", typed, flags=re.MULTILINE), printed


def typed_in(command: str, folder: Path) -> tuple[int, str]:
    """Exit code and all that a command prints."""
    hidden = ("MLFLOW_TRACKING_URI", "CAPSNET_DATA", "OPTUNA_STORAGE", "MAKEFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
    words = ["bash", "-c", command]
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def shape(text: str, folder: Path) -> list[str]:
    """The words of what is printed, whatever numbers, ids, folders and the names that there are to choose from."""
    text = text.replace(str(folder), "/home/me/capsnet-ablations")
    text = re.sub(r"\(choices: [^)]*\)", "(choices)", text)
    return re.sub(r"(#[ ,]*)+", "#", re.sub(r"\b[0-9a-f]{32,64}\b|\d[\d.,]*", "#", text)).split()


def follow(name: str, folder: Path) -> None:
    """Do all that a document says, and compare what is printed."""
    variables = ""
    for kind, block in blocks(name):
        if kind == "diff":
            apply(block, folder)
            continue
        for typed, printed in commands(block):
            if re.fullmatch(r'\w+="[^"]*"\n', typed):  # for what follows
                variables += typed
                continue
            code, said = typed_in(variables + typed, folder)
            wrong = re.search(r"^(error|diverged|failed):|\*\*\* ", printed, re.MULTILINE)
            assert (code == 0) == (not wrong), typed + said
            if printed:
                assert shape(said, folder) == shape(printed, folder), typed
