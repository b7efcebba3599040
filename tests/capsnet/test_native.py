"""C sources: compiled once, anew where they change, and where they can't be it is said."""

import os
import shutil
import subprocess
import sys

import pytest

from capsnet import native

SOURCE = "#include <stdint.h>\nint64_t answer(void) { return %d; }\n"


@pytest.fixture
def source(tmp_path):
    if not native.suits() or not native.compiler():
        pytest.skip("there is no C compiler, or none for this CPU")
    native.load.cache_clear()
    path = tmp_path / "package" / "thing.c"
    path.parent.mkdir()
    path.write_text(SOURCE % 42)
    yield path
    native.load.cache_clear()


def answer(source):
    native.load.cache_clear()  # as in another process
    return native.load(source).answer()


def commands(monkeypatch):
    """What is run from here on."""
    asked = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: asked.append(command) or run(command, **options))
    return asked


def test_it_is_compiled_at_its_first_use_and_kept_beside_what_python_keeps(source, monkeypatch):
    asked = commands(monkeypatch)
    assert [answer(source), answer(source)] == [42, 42]
    assert len(asked) == 1
    (kept,) = (source.parent / "__pycache__").iterdir()
    assert kept.suffix == ".so"


@pytest.mark.parametrize("change", ["source", "flags", "compiler"])
def test_where_something_changes_it_is_compiled_anew(source, change, monkeypatch):
    assert answer(source) == 42
    if change == "source":
        source.write_text(SOURCE % 43)
    elif change == "flags":
        monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-g"))
    else:
        monkeypatch.setenv("CC", f"{shutil.which(native.compiler()[0])} -DANOTHER")
    asked = commands(monkeypatch)
    assert answer(source) == (43 if change == "source" else 42)
    assert len(asked) == 1


def test_where_nothing_can_be_written_each_process_has_its_own(source, monkeypatch):
    """Root may write anywhere, but not into a file."""
    (source.parent / "__pycache__").touch()
    asked = commands(monkeypatch)
    assert [answer(source), answer(source)] == [42, 42]
    assert len(asked) == 2


def test_what_the_compiler_says_is_told(source, monkeypatch):
    source.write_text("int answer(void) { return nothing; }\n")
    with pytest.raises(RuntimeError, match=r"ended with 1: .*thing.c:1:\d+: error: .*nothing.* undeclared"):
        native.load(source)
    assert not list((source.parent / "__pycache__").iterdir()), "no half of a file"


def test_a_compiler_that_is_not_there(source, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -v")
    with pytest.raises(FileNotFoundError, match="no-such-compiler"):
        native.load(source)


def test_a_library_that_cannot_be_loaded(source):
    source.write_text("extern void nowhere(void);\nvoid answer(void) { nowhere(); }\n")
    with pytest.raises(OSError, match="nowhere"):
        native.load(source)


def test_which_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.compiler() == []
    for name in ("clang", "gcc", "cc"):
        (tmp_path / name).touch(mode=0o755)
        assert native.compiler() == [name]
    monkeypatch.setenv("CC", "zig cc")
    assert native.compiler() == ["zig", "cc"]


@pytest.mark.parametrize(
    ("platform", "capability", "suits"), [("linux", "AVX2", True), ("darwin", "AVX2", False), ("linux", "DEFAULT", False)]
)
def test_which_machines_the_sources_are_written_for(platform, capability, suits, monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr(sys, "platform", platform)
    assert native.suits() == suits


def test_processes_that_compile_at_once_do_not_meet(source):
    program = f"from pathlib import Path; from capsnet import native; assert native.load(Path({str(source)!r})).answer() == 42"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    together = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [process.wait() for process in together] == [0, 0, 0]
    assert len(list((source.parent / "__pycache__").iterdir())) == 1
