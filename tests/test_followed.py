"""docs/extend.md and docs/troubleshooting.md, followed to the letter in a copy of the repository."""

import ast

import pytest

from tests.documents import apply, blocks, changes, copied, follow


def test_every_change_still_finds_its_place(tmp_path):
    folder, diffs = copied(tmp_path), [block for kind, block in blocks("extend.md") if kind == "diff"]
    assert sum(len(list(changes(block))) for block in diffs) == "".join(diffs).count("--- ") > 12
    for block in diffs:
        apply(block, folder)
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extend.md", "troubleshooting.md"])
def test_what_is_typed_gives_what_is_printed(tmp_path, name):
    follow(name, copied(tmp_path))
