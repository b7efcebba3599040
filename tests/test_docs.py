"""What the documents name is there."""

import ast
import csv
import re
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "results" / "README.md"])


def test_every_test_that_a_guarantee_names_exists_and_is_as_fast_as_it_says():
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`(?: \((gpu|slow)\))?", text)
    assert len(named) == text.count("::test_") > 60, "a name in another form would not be looked at"
    for file, test, mark in named:
        tree = ast.parse((ROOT / file).read_text())
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == test]
        assert len(found) == 1, f"{file}::{test}"
        whole = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
        nodes = [*found[0].decorator_list, *(part for node in whole for part in getattr(node.value, "elts", [node.value]))]
        marks = {ast.unparse(node) for node in nodes}
        assert next((m for m in ("gpu", "slow") if f"pytest.mark.{m}" in marks), "") == mark, f"{file}::{test}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), target


def anchors(text):
    """What GitHub calls the headings: small letters, spaces as hyphens, and no other signs."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE)
    bare = (re.sub(r"\]\([^)]*\)", "]", heading) for heading in headings)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in bare}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_that_are_named_exist(path):
    """``capsnet/data.py``, and ``capsnet/data.py:read``: in backticks, from the root of the repository."""
    found = re.findall(
        r"`((?:capsnet|experiments|analysis|benchmarks|tests|docs)/[\w./-]+\.\w+)(?::([\w.]+))?`", path.read_text()
    )
    for file, name in found:
        assert (ROOT / file).exists(), file
        if name:
            *_, last = name.split(".")
            source = (ROOT / file).read_text()
            assert re.search(rf"^\s*(?:def|class) {last}\b|^{last}\b.* = ", source, re.MULTILINE), f"{file}:{name}"


def seconds_of(path):
    """From the first run's start to the last one's end, less pauses of two minutes in which nothing trained."""
    with path.open(newline="", encoding="utf-8") as file:
        ends = [(datetime.fromisoformat(row["ended"]).timestamp(), float(row["seconds"])) for row in csv.DictReader(file)]
    total, until = 0.0, float("-inf")
    for start, end in sorted((end - seconds, end) for end, seconds in ends):
        total += max(0.0, end - (start if start - until > 120 else until))
        until = max(until, end)
    return round(total)


def test_times_of_the_results_are_those_of_the_runs():
    text = (ROOT / "results" / "README.md").read_text()
    [small] = [line for line in text.splitlines() if line.startswith("| ten small grids")]
    for path in sorted((ROOT / "results" / "measured").glob("*/runs.csv")):
        name, seconds = path.parent.name, seconds_of(path)
        if f"[{name}](" in small:
            assert f"{name} {seconds:,} s" in small
            continue
        [line] = [line for line in text.splitlines() if line.startswith(f"| [{name}](")]
        minutes, hours = divmod(seconds, 60), divmod(seconds // 60, 60)
        told = f"{hours[0]} h {hours[1]} min" if hours[0] else f"{minutes[0]} min"
        told += f" {minutes[1]} s" if not hours[0] and minutes[1] else ""
        assert (told if seconds >= 120 else f"{seconds} s") in line.rpartition(" | ")[2], name


def test_means_that_are_quoted_are_in_the_tables_that_are_kept():
    tables = "\n".join(path.read_text() for path in (ROOT / "results" / "measured").glob("*/*.md"))
    measured = set(re.findall(r"[\d.]+ ± [\d.]+", tables))  # and the paper's own, which stand beside
    quoted = {path.relative_to(ROOT).as_posix(): re.findall(r"[\d.]+ ± [\d.]+", path.read_text()) for path in DOCUMENTS}
    assert sum(map(len, quoted.values())) > 60, "means in another form would not be looked at"
    made_up = {"3.6 ± 0.4", "89 ± 7"}  # README: what a table says of failures; rounded further, of 88.9 ± 7.0
    assert {name: means for name, found in quoted.items() if (means := set(found) - measured - made_up)} == {}


def test_speed_is_told_as_it_was_measured():
    """The tables are those of the benchmark that is kept, and README's one of its first and its memory."""
    [kept] = (ROOT / "results" / "measured" / "bench").glob("*.md")
    text = kept.read_text()
    tables = text[text.index("**Images per second") :]
    assert tables.count("\n| ") > 50
    assert tables in (ROOT / "docs" / "speed.md").read_text()
    commit = re.search(r"commit (\w+)", text)[1]
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Speed") : readme.index("## On your cluster")]
    assert f"commit {commit}" in section
    rows = [line for line in section.splitlines() if re.match(r"\| (textbook|training|evaluation)", line)]
    assert len(rows) == 5
    numbers = set(re.findall(r"[\d.,]+ \([\d.,–]+\)|[\d,]+(?= \|$)", tables, re.MULTILINE))
    assert [n for row in rows for n in re.findall(r"[\d.,]+ \([\d.,–]+\)|\d+(?= MB)", row) if n not in numbers] == []
    assert f"| {commit} |" in next(
        line for line in (ROOT / "results" / "README.md").read_text().splitlines() if "| [bench](" in line
    )


def test_the_readme_links_every_document():
    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in text, path.name


def test_every_statistic_is_explained():
    text = (ROOT / "docs" / "statistics.md").read_text()
    trees = [ast.parse((ROOT / "analysis" / f"{name}.py").read_text()) for name in ("statistics", "image_statistics")]
    public = [n.name for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert [name for name in public if f"`{name}`" not in text] == []


def test_the_readmes_grid_is_one_and_grids_it_names_are_shipped():
    from experiments.sources import parse_grid

    text = (ROOT / "README.md").read_text()
    [block] = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    grid = parse_grid(block, "mine", "README.md")
    assert (len(grid.cells), len(list(grid.configs))) == (6, 48)
    table = text[text.index("Grids that come with it") : text.index("## Look at the runs")]
    named = set(re.findall(r"`([a-z0-9-]+)`", table)) - {"make"}
    assert named == {path.stem for path in (ROOT / "experiments" / "grids").glob("*.yaml")}


def test_every_key_of_a_grid_is_explained_and_its_example_is_one():
    from experiments.sources import KEYS, parse_grid

    text = (ROOT / "docs" / "extend.md").read_text()
    section = text[text.index("## The keys of a grid") :]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [*KEYS]
    [block] = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert all(re.search(rf"^{key}:", block, re.MULTILINE) for key in KEYS)
    grid = parse_grid(block, "mine", "docs/extend.md")
    assert (len(grid.cells), len(list(grid.configs))) == (7, 21)
    assert "seven cells" in section
    assert "21 runs" in section
