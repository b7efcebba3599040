"""What all command lines say of a mistake, and by which name they call the commands."""

import sys
from io import BytesIO, TextIOWrapper

import pytest

from capsnet import cli, terminal
from capsnet.__main__ import Command
from capsnet.errors import InputError
from experiments.__main__ import COMMANDS


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # tyro draws boxes where they can be drawn
@pytest.mark.parametrize("columns", ["60", "100", "300"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--routing-iterations 2.5",
            "--routing-iterations must be a whole number, not '2.5'; it is: r: weighted sums computed",
        ),
        ("--learning-rate fast", "--learning-rate must be a number, not 'fast'; it is: Adam's, times"),
        ("--decoder-hidden 3 x", "--decoder-hidden must be whole numbers, not '3 x'; it is: units of the decoder's"),
        ("--log-interval 1e3", "--log-interval must be a whole number, not '1e3'; it is: steps between"),
        ("--epoch 3", "Unrecognized options: --epoch, 3; did you mean --epochs?"),
        ("--epochs", "Missing value for argument '--epochs'. Expected 1 value;"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(words, said, columns, encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), encoding))
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(InputError) as error:
        cli.parse(Command, "python -m capsnet", "", words.split())
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("; python -m capsnet --help lists all")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --workers two", "--workers must be a whole number, not 'two'; it is: runs at once"),
        ("run --experimant x", "Unrecognized options: --experimant, x; did you mean --experiment?"),
        ("run --bogus", "Unrecognized options: --bogus"),
        ("plan", "Missing from python -m experiments plan: GRID"),
        ("search --storage", "Missing value for argument '--storage'"),
    ],
)
def test_a_subcommands_mistake_points_to_its_own_help(words, said):
    with pytest.raises(InputError) as error:
        cli.parse(COMMANDS, "python -m experiments", "", words.split(), switches=True)
    assert str(error.value).startswith(said)
    assert str(error.value).endswith(f"; python -m experiments {words.split()[0]} --help lists all")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rn quick", "unknown command 'rn'; did you mean 'run'? (choices: plan, run, search, sync, test)"),
        ("quick", "unknown command 'quick'; choices: plan, run, search, sync, test"),
        ("--workers 2 run quick", "a command must come before --workers; choices: plan, run, search, sync, test"),
        ("", "Expected one of {plan, run, search, sync, test}"),
    ],
)
def test_a_command_that_is_not_there_is_told_with_those_that_are(words, said):
    with pytest.raises(InputError) as error:
        cli.parse(COMMANDS, "python -m experiments", "", words.split(), switches=True)
    assert str(error.value) == f"{said}; python -m experiments --help lists all"


def test_numbers_are_read_as_before():
    words = "--decoder-hidden 5 6 --test-routing-iterations --learning-rate 1e-3 --epochs 7"
    config = cli.parse(Command, "python -m capsnet", "", words.split()).config
    read = config.decoder_hidden, config.test_routing_iterations, config.learning_rate, config.epochs
    assert read == ((5, 6), (), 0.001, 7)
    assert cli.parse(COMMANDS, "x", "", ["run", "quick"], switches=True).workers is None
    assert cli.parse(COMMANDS, "x", "", ["run", "quick", "--workers", "0"], switches=True).workers == 0


@pytest.mark.parametrize(
    ("started", "text", "said"),
    [
        ("/x/bin/capsnet-experiments", "python -m experiments sync", "capsnet-experiments sync"),
        ("/x/bin/capsnet-analysis", "python -m experiments run", "capsnet-experiments run"),
        ("/x/bin/capsnet", "Example: python -m capsnet --epochs 5", "Example: capsnet --epochs 5"),
        ("/x/bin/capsnet", "python -m benchmarks", "python -m benchmarks"),  # no wheel has it
        ("/x/experiments/__main__.py", "python -m experiments sync", "python -m experiments sync"),
    ],
)
def test_commands_are_called_as_their_user_calls_them(started, text, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    assert terminal.called(text) == said


def test_make_is_for_a_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not terminal.has_make()
    (tmp_path / "Makefile").touch()
    assert terminal.has_make()
    monkeypatch.setattr(sys, "argv", ["/x/bin/capsnet"])
    assert not terminal.has_make()
