"""Imports go one way, capsnet <- experiments <- analysis, capsnet <- benchmarks; each heavy library stays where it belongs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "capsnet": {"capsnet"},
    "experiments": {"capsnet", "experiments"},
    "analysis": {"capsnet", "experiments", "analysis"},
    "benchmarks": {"capsnet", "benchmarks"},
}
FORBIDDEN = {"capsnet": {"mlflow", "optuna", "ray", "pandas"}}
ALONE = {  # the files that may import it
    "mlflow": {f"experiments/{name}.py" for name in ("client", "tracking", "catalog", "runlog", "champion")},
    "optuna": {f"experiments/{name}.py" for name in ("study", "watch", "study_figures")},
    "ray": {"experiments/ray_tasks.py"},
}
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(source):
    """The top-level packages that a file imports anywhere: in functions, under TYPE_CHECKING, or by a constant name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__"):
                found.add(str(node.args[0].value).partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    names = imported(path.read_text())
    assert names & MAY_IMPORT.keys() <= MAY_IMPORT[package]
    assert not names & FORBIDDEN.get(package, set())
    assert "tests" not in names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_library_stays_where_it_belongs(path):
    here = path.relative_to(ROOT).as_posix()
    assert not imported(path.read_text()) & {library for library, files in ALONE.items() if here not in files}


def test_the_walk_sees_every_kind_of_import():
    """So that the tests above can fail."""
    for source in (
        "import mlflow",
        "import os, mlflow.entities as e",
        "from mlflow.tracking import MlflowClient",
        "def f():\n    import mlflow",
        "if TYPE_CHECKING:\n    from mlflow import MlflowClient",
        "import_module('mlflow.entities')",
        "importlib.import_module('mlflow')",
        "__import__('mlflow')",
    ):
        assert "mlflow" in imported(source)
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {"capsnet"}
    assert len([path for path in FILES if path.parts[-2] == "capsnet"]) >= 15
