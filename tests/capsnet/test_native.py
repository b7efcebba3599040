"""C sources: compiled once, anew where they change, and where they can't be it is said."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from capsnet import native

SOURCE = "#include <stdint.h>\nint64_t answer(void) { return %d; }\n"


@pytest.fixture
def source(tmp_path):
    if not native.suits() or not native.compiler():
        pytest.skip("there is no C compiler, or none for this CPU")
    forget()
    path = tmp_path / "package" / "thing.c"
    path.parent.mkdir()
    path.write_text(SOURCE % 42)
    yield path
    forget()


def forget():
    """As in another process."""
    native.load.cache_clear()
    if hasattr(native.version, "cache_clear"):
        native.version.cache_clear()


def answer(source):
    forget()
    return native.load(source).answer()


def compiled(monkeypatch):
    """What is compiled from here on."""
    asked = []
    really = native._compile
    monkeypatch.setattr(native, "_compile", lambda *given: asked.append(given) or really(*given))
    return asked


def test_it_is_compiled_at_its_first_use_and_kept_beside_what_python_keeps(source, monkeypatch):
    asked = compiled(monkeypatch)
    assert [answer(source), answer(source)] == [42, 42]
    assert len(asked) == 1
    (kept,) = (source.parent / "__pycache__").iterdir()
    assert kept.suffix == ".so"


@pytest.mark.parametrize("change", ["source", "flags", "compiler", "version"])
def test_where_something_changes_it_is_compiled_anew(source, change, monkeypatch):
    assert answer(source) == 42
    if change == "source":
        source.write_text(SOURCE % 43)
    elif change == "flags":
        monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-g"))
    elif change == "compiler":
        monkeypatch.setenv("CC", f"{shutil.which(native.compiler()[0])} -DANOTHER")
    else:
        monkeypatch.setattr(native, "version", lambda: "gcc 99 for AVX2")
    asked = compiled(monkeypatch)
    assert answer(source) == (43 if change == "source" else 42)
    assert len(asked) == 1


@pytest.mark.usefixtures("source")
def test_the_version_is_the_compilers():
    said = subprocess.run([*native.compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    assert native.version() == f"{said.splitlines()[0]} for {torch.backends.cpu.get_cpu_capability()}"


@pytest.mark.parametrize("damage", ["empty", "cut", "changed"])
def test_a_library_that_was_damaged_is_compiled_anew(source, damage):
    assert answer(source) == 42
    (kept,) = (source.parent / "__pycache__").iterdir()
    content = kept.read_bytes()
    kept.unlink()  # this process has it open
    kept.write_bytes({"empty": b"", "cut": content[:4096], "changed": content[:-1] + b"x"}[damage])
    assert answer(source) == 42
    assert kept.read_bytes() == content


@pytest.mark.parametrize("obstacle", ["a file", "nothing may be written"])
def test_where_nothing_can_be_written_each_process_has_its_own(source, obstacle, monkeypatch):
    """Root may write anywhere, but not into a file; elsewhere the system refuses."""
    folder = source.parent / "__pycache__"
    if obstacle == "a file":
        folder.touch()
    else:
        folder.mkdir()
        monkeypatch.setattr(native, "replaced", lambda path: open(path / "no", "w"))  # noqa: SIM115
    asked = compiled(monkeypatch)
    assert [answer(source), answer(source)] == [42, 42]
    assert len(asked) == 2


def test_what_the_compiler_says_is_told(source):
    source.write_text("int answer(void) { return nothing; }\n")
    with pytest.raises(RuntimeError, match=r"ended with 1: .*thing.c:1:\d+: error: .*nothing.* undeclared"):
        native.load(source)
    assert not (source.parent / "__pycache__").exists(), "no half of a file"


@pytest.mark.parametrize("command", ["no-such-compiler -v", "'without an end"])
def test_a_compiler_that_is_not_there(source, command, monkeypatch):
    monkeypatch.setenv("CC", command)
    native.version.cache_clear()
    with pytest.raises(FileNotFoundError, match=command.split()[0]):
        native.load(source)


def test_a_compiler_that_makes_nothing(source, monkeypatch):
    monkeypatch.setenv("CC", "true")
    with pytest.raises(RuntimeError, match="true ended with 0: it made nothing"):
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
