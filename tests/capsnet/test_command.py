"""python -m capsnet: every field a flag, checkpoints, one message per mistake, and an answer at once."""

import errno
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

import capsnet.data
import capsnet.interrupts
import capsnet.training
from capsnet import cli, terminal
from capsnet.__main__ import Display, main
from capsnet.config import FIELDS
from capsnet.registry import DATASETS
from capsnet.state import TrainingState

ROOT = Path(__file__).parents[2]
STEP = r"epoch {}  step {}/4  loss \d\.\d{{4}}"
EPOCH = (
    r"epoch {}  loss \d\.\d{{4}}  training error \d+\.\d\d %  validation error \d+\.\d\d %  "
    r"\d+\.\d s  \d+ images/s"
)


@pytest.fixture
def command(monkeypatch, capsys):
    """(flags) -> exit code, standard output, standard error of the command, run in this process."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["capsnet", *map(str, flags)])
        with pytest.raises(SystemExit) as caught:
            terminal.finish(main)
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def process(*arguments, code=None):
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "capsnet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [*start, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def besides(err):
    """What is said on stderr besides the note that a machine has no C compiler."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("note: no C compiler was found"))


def test_help_answers_within_a_second_without_torch():
    """Processor time, because the machine may be busy: the best of five."""
    for _ in range(5):
        before = os.times()
        done = process("--help")
        after = os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        if seconds < 1:
            break
    assert done.returncode == 0
    assert done.stderr == ""
    assert seconds < 1
    whole = process("--help-all")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert len(done.stdout.splitlines()) <= 55 < len(whole.stdout.splitlines()), "a screen, and more"
    for name in FIELDS:
        flag = f"--{name.replace('_', '-')} "
        assert flag in whole.stdout
        assert (flag in done.stdout) == (name in cli.COMMON)
    for flag in ("--data", "--device", "--log-interval", "--checkpoints"):
        assert f"{flag} " in done.stdout
    assert "type: ignore" not in done.stdout, "a comment of the source is no help"


def test_help_and_refused_flags_import_no_torch():
    code = (
        "import sys; sys.argv = ['capsnet', *sys.argv[1:]]\n"
        "from capsnet import terminal; from capsnet.__main__ import main\n"
        "try: terminal.finish(main)\n"
        "except SystemExit as end: code = end.code\n"
        "assert not {'torch', 'sklearn', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(code)"
    )
    for flags, expected in (["--help"], 0), (["--routing", "me"], 2), (["--sed", "1"], 2):
        done = process(*flags, code=code)
        assert done.returncode == expected, done.stderr


def test_a_process_trains_and_tells_in_plain_lines(tiny_flags):
    done = process(*tiny_flags, "--log-interval", 2)
    assert done.returncode == 0
    assert besides(done.stderr) == ""
    head, *middle, test = done.stdout.splitlines()
    assert head == "digits: 100 training, 60 validation, 360 test images; 11,944 parameters; on cpu, steps eager"
    patterns = [STEP.format(1, 2), STEP.format(1, 4), EPOCH.format(1), STEP.format(2, 2), STEP.format(2, 4), EPOCH.format(2)]
    for pattern, line in zip(patterns, middle, strict=True):
        assert re.fullmatch(pattern, line)
    percent, wrong = re.fullmatch(r"test error (\S+) % \((\d+) of 360 images\)", test).groups()
    assert percent == f"{100 * int(wrong) / 360:.2f}"
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stdout), "no escape sequence, no carriage return"


def without_clock(text):
    return re.sub(r"\d+\.\d s  \d+ images/s", "", text)


def test_going_on_from_a_checkpoint_ends_like_an_uninterrupted_run(command, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--epochs", 3, "--lr-schedule", "plateau(factor=0.5, patience=0)"]
    code, plain, _ = command(*flags)
    assert code == 0
    code, whole, _ = command(*flags, "--checkpoints", tmp_path / "whole")
    assert code == 0
    names = [f"epoch-000{i}.safetensors" for i in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == names
    assert without_clock(whole) == without_clock(plain), "writing changes no number"

    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / names[0], tmp_path / "part")
    code, part, _ = command(*flags, "--checkpoints", tmp_path / "part")
    assert code == 0
    assert f"going on after epoch 1 of {tmp_path / 'part' / names[0]}" in part
    assert "epoch 1 " not in part.replace("after epoch 1 of", "")
    assert without_clock(part).splitlines()[-3:] == without_clock(whole).splitlines()[-3:], "epochs 2 and 3, test error"
    assert sorted(p.name for p in (tmp_path / "part").iterdir()) == names
    first, second = (TrainingState.load(tmp_path / x / names[2], torch.device("cpu")) for x in ("whole", "part"))
    assert all(torch.equal(a, b) for a, b in zip(first._tensors().values(), second._tensors().values(), strict=True))

    code, again, _ = command(*flags, "--checkpoints", tmp_path / "whole")
    assert code == 0
    assert "going on after epoch 3" in again
    assert "loss" not in again
    assert again.splitlines()[-1] == plain.splitlines()[-1], "a finished run is only tested"


def test_the_last_checkpoint_is_the_one_of_the_highest_epoch(command, tiny_flags, tmp_path):
    for name in ("epoch-9999.safetensors", "epoch-10000.safetensors"):
        (tmp_path / name).write_bytes(b"")
    code, _, err = command(*tiny_flags, "--checkpoints", tmp_path)
    assert code == 2
    assert err.index("epoch-10000.safetensors can't be read") < err.index("epoch-9999.safetensors can't be read")


def test_a_checkpoint_of_another_config_is_refused_with_the_difference(command, tiny_flags, tmp_path):
    assert command(*tiny_flags, "--epochs", 1, "--checkpoints", tmp_path)[0] == 0
    code, _, err = command(*tiny_flags, "--epochs", 1, "--seed", 5, "--class-dim", 3, "--checkpoints", tmp_path)
    assert code == 2
    assert "is of another config: class_dim (4 there, 3 here); seed (0 there, 5 here)" in err


def test_of_torn_checkpoints_the_last_whole_one_serves(command, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--epochs", 3, "--checkpoints", tmp_path]
    code, whole, _ = command(*flags)
    assert code == 0
    for epoch in (3, 2):
        path = tmp_path / f"epoch-000{epoch}.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    code, out, err = command(*flags)
    assert code == 0
    assert f"damaged: {path} can't be read as a checkpoint" in err
    assert f"going on after epoch 1 of {tmp_path / 'epoch-0001.safetensors'}" in out
    assert without_clock(out).splitlines()[-3:] == without_clock(whole).splitlines()[-3:], "epochs 2 and 3, test error"
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert f"no checkpoint in {tmp_path} is whole; delete them, or name another folder, to start anew" in err


VALUES = {
    "dataset": "digits",
    "train_size": "90",
    "validation_size": "50",
    "augmentation": "none",
    "model": "capsnet",
    "dropout": "0.0",
    "conv_channels": "6",
    "conv_kernel": "4",
    "primary_types": "3",
    "primary_dim": "5",
    "primary_kernel": "4",
    "primary_stride": "3",
    "hidden_capsules": "5 4",
    "class_dim": "6",
    "primary_coupling": "True",
    "votes_std": "0.3",
    "capsule_bias": "True",
    "squash": "efficient",
    "decoder_hidden": "8 9",
    "routing": "dynamic",
    "routing_iterations": "2",
    "none_of_the_above": "True",
    "routing_gradient": "detached",
    "test_routing_iterations": "1 5",
    "test_sets": "flipped rotated_30 turned",
    "reconstruction_weight": "0.002",
    "mask": "prediction",
    "loss": "cross_entropy(scale=8)",
    "epochs": "1",
    "stop_at_error": "0.25",
    "batch_size": "17",
    "test_batch_size": "33",
    "learning_rate": "0.004",
    "lr_schedule": "cosine(final=0.1)",
    "adam_epsilon": "1e-07",
    "weight_decay": "0.0001",
    "gradient_clip": "2.5",
    "precision": "bf16",
    "seed": "7",
}


def test_every_flag_reaches_the_config(command, tmp_path, further_digits):
    assert VALUES.keys() == FIELDS.keys()
    flags = [part for name, value in VALUES.items() for part in (f"--{name.replace('_', '-')}", value)]
    for listed in ("5 4", "8 9", "1 5", "flipped rotated_30 turned"):
        at = flags.index(listed)
        flags[at : at + 1] = listed.split()
    code, out, _ = command(*flags, "--device", "cpu", "--checkpoints", tmp_path)
    assert code == 0
    state = TrainingState.load(tmp_path / "epoch-0001.safetensors", torch.device("cpu"))
    expected = {
        **VALUES,
        "hidden_capsules": "[5, 4]",
        "decoder_hidden": "[8, 9]",
        "primary_coupling": "true",
        "capsule_bias": "true",
        "none_of_the_above": "true",
    }
    expected |= {"test_routing_iterations": "[1, 5]", "test_sets": '["flipped", "rotated_30", "turned"]'}
    assert state.config.to_params() == expected
    assert "digits: 90 training, 50 validation, 360 test images" in out
    assert [line.partition(":")[0] for line in out.splitlines() if "instead of 2" in line] == [
        "test error at r = 1, instead of 2",
        "test error at r = 5, instead of 2",
    ]
    assert [line.partition(":")[0] for line in out.splitlines() if "test error on" in line] == [
        "test error on flipped (official files)",
        "test error on rotated_30 (its test images, each turned by 30 degrees to either side)",
        "test error on turned (made by a test)",
    ]
    assert "the validation error never fell to 0.25 % within 1 epochs" in out


def test_the_test_set_is_read_once_after_the_last_epoch(command, tiny_flags, monkeypatch):
    """Of 360 images; the 60 for validation are read after each epoch."""
    read, evaluate = [], capsnet.training.evaluate
    monkeypatch.setattr(
        capsnet.training, "evaluate", lambda model, split, size: (read.append(len(split)), evaluate(model, split, size))[1]
    )
    assert command(*tiny_flags)[0] == 0
    assert read == [60, 60, 360]


def test_a_diverged_run_ends_with_code_1_and_without_a_test_error(command, tiny_flags):
    code, out, err = command(*tiny_flags, "--learning-rate", 1e30)
    assert code == 1
    assert "diverged: the training loss of epoch 1 is nan" in err
    assert "test error" not in out
    assert "Traceback" not in err


BAD = [
    (["--rooting-iterations", "3"], ["--rooting-iterations", "--routing-iterations"]),
    (["--routing-iterations", "x"], ["--routing-iterations", "'x'"]),
    (["--routing-iterations", "0"], ["routing_iterations must be greater than or equal to 1, not 0"]),
    (["--routing-iterations"], ["--routing-iterations"]),
    (["--dataset", "minst"], [f"unknown dataset 'minst'; did you mean 'mnist'? (choices: {', '.join(DATASETS)})"]),
    (["--routing", "me"], ["unknown routing 'me'; choices: dynamic, uniform"]),
    (["--model", "rnn"], ["unknown model 'rnn'; did you mean 'cnn'?"]),
    (["--lr-schedule", "expo(gamma=1)"], ["unknown lr_schedule 'expo'", "exponential", "one_cycle"]),
    (["--lr-schedule", "step(0.5"], ["malformed lr_schedule 'step(0.5'; write a name"]),
    (
        ["--augmentation", "shift(pixel=2)"],
        ["unknown parameter 'pixel' in augmentation 'shift(pixel=2)'; did you mean 'pixels'?"],
    ),
    (["--epochs", "0", "--seed", "-1"], ["epochs must be", "seed must be"]),
    (["--capsule-bias", "perhaps"], ["--capsule-bias"]),
    (["--decoder-hidden", "0"], ["decoder_hidden must be greater than or equal to 1, not 0"]),
    (["--learning-rate", "nan"], ["learning_rate must be"]),
    (["--log-interval", "-1"], ["--log-interval must be 0 or more, not -1"]),
    (["--device", "tpu"], ["unknown device 'tpu'; choices: auto, cpu, cuda, cuda:N"]),
    (["--device", "cuda:99"], ["no device 'cuda:99'"]),
    (["something"], ["something"]),
    (["--checkpoints", ""], ["--checkpoints must be a path, not ''"]),
    (["--train-size", "1400"], ["train_size 1400 and validation_size 60 need more than the 1437 training images of digits"]),
]


@pytest.mark.parametrize(("flags", "words"), BAD, ids=lambda x: " ".join(x)[:40])
def test_a_bad_flag_ends_with_code_2_and_one_message(command, tiny_flags, monkeypatch, flags, words):
    monkeypatch.setattr(capsnet.training, "train", None)  # before any training
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = command(*tiny_flags, *flags)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    for word in words:
        assert word in err
    if "error: " in err:
        assert err.count("error: ") == 1


def test_a_bad_flag_ends_a_process_with_code_2(tiny_flags):
    done = process(*tiny_flags, "--lr-schedule", "cosine(finl=0)")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: unknown parameter 'finl' in lr_schedule 'cosine(finl=0)'; did you mean 'final'? (choices: final, warmup) "
        "(in the flags)\n"
    )


def test_brackets_in_a_message_are_shown_as_they_are(command, tiny_flags):
    """They are not rich's markup."""
    code, _, err = command(*tiny_flags, "--dataset", "[bold]x[/]")
    assert code == 2
    assert "unknown dataset '[bold]x[/]'" in err


def test_a_line_is_shown_as_it_is(capsys):
    """Names of files and descriptions hold what a user wrote, which is neither rich's markup nor its emoji."""
    lines = ["[red]x[/] :smile: [/]", "[16, 16]\\"]
    terminal.say(*lines)
    terminal.warn("left out", lines[0])
    out, err = capsys.readouterr()
    assert out.splitlines() == lines
    assert err == f"left out: {lines[0]}\n"


@pytest.mark.parametrize("below", [False, True])
def test_a_checkpoint_folder_that_cannot_be_written_is_refused_before_training(command, tiny_flags, tmp_path, below):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "x" if below else tmp_path / "file"
    code, out, err = command(*tiny_flags, "--checkpoints", folder)
    assert (code, out) == (2, "")
    assert f"error: nothing can be written to {folder}: " in err
    assert "--checkpoints names another folder" in err


def test_absent_data_is_refused(command, tmp_path, offline, monkeypatch):
    flags = ["--conv-channels", 2, "--reconstruction-weight", 0, "--device", "cpu"]
    for extra in (["--data", tmp_path / "a"], []):
        monkeypatch.setenv("CAPSNET_DATA", str(tmp_path / "b"))
        code, out, err = command(*flags, *extra)
        assert (code, out) == (2, "")
        assert f"MNIST can't be read from {extra[1] if extra else tmp_path / 'b'} or downloaded" in err


def test_ctrl_c_ends_with_code_130_and_no_traceback(command, tiny_flags, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(capsnet.training, "evaluate", stop)
    code, _, err = command(*tiny_flags)
    assert code == 130
    assert besides(err) == "stopped: by Ctrl-C\n"


def test_a_terminal_shows_a_bar_with_loss_error_and_time_left(command, tiny_flags, monkeypatch, tmp_path):
    screen = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=screen, force_terminal=True, highlight=False, soft_wrap=True, width=120)
    )
    shown = []
    update = Display.update
    monkeypatch.setattr(Display, "update", lambda self, bar, **values: (shown.append(values), update(self, bar, **values))[1])
    assert command(*tiny_flags, "--log-interval", 1, "--checkpoints", tmp_path)[0] == 0
    assert [values["completed"] for values in shown] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert re.fullmatch(r"epoch 1  loss \d\.\d{4}", shown[0]["description"])
    assert re.fullmatch(r"epoch 2  loss \d\.\d{4}  error \d+\.\d\d %", shown[-1]["description"])
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "100 %" in text
    assert re.search(r"\d:\d\d:\d\d", text)
    assert [len(re.findall(EPOCH.format(epoch), text)) for epoch in (1, 2, 3)] == [1, 1, 0]
    assert "test error" in text


def test_the_bar_of_a_run_that_goes_on_starts_where_it_stopped(tiny):
    config = tiny(epochs=3)
    task = Display(config, done=2).tasks[0]
    assert (task.completed, task.total) == (8, 12)


def test_a_copy_beside_the_checkpoints_is_none_of_them(command, tiny_flags, tmp_path):
    """In a folder whose name rich would take for markup."""
    folder = tmp_path / "runs[" / "x]"
    flags = [*tiny_flags, "--epochs", 2, "--checkpoints", folder]
    assert command(*flags)[0] == 0
    shutil.copy(folder / "epoch-0001.safetensors", folder / "epoch-0001-backup.safetensors")
    code, out, _ = command(*flags)
    assert code == 0
    assert f"going on after epoch 2 of {folder / 'epoch-0002.safetensors'}" in out


def test_minus_zero_is_zero(command, tiny_flags, tmp_path):
    for weight in ("0", "-0.0"):
        assert command(*tiny_flags, "--reconstruction-weight", weight, "--checkpoints", tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 3 TiB"), "error: out of memory: Unable to allocate 3 TiB\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "error: out of memory: DefaultCPUAllocator"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "error: disk full: [Errno 28] No space left on device: '/x'"),
    ],
)
def test_what_the_machine_lacks_is_no_fault_of_the_program(command, tiny_flags, monkeypatch, error, said):
    def train(*_, **__):
        raise error

    monkeypatch.setattr(capsnet.training, "train", train)
    code, _, err = command(*tiny_flags)
    assert code == 1
    assert said in err
    assert "where it comes from" not in err


def test_ctrl_c_that_a_library_makes_something_else_of_is_one(command, tiny_flags, monkeypatch):
    def read(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise AttributeError("module 'numpy' has no attribute 'dtype'") from None

    monkeypatch.setattr(capsnet.data, "read", read)
    monkeypatch.setattr(capsnet.interrupts, "_came", [])
    code, _, err = command(*tiny_flags)
    assert (code, err) == (130, "stopped: by Ctrl-C\n")


def test_a_reader_that_goes_away_ends_it_as_sigpipe_does(tiny_flags):
    flags = shlex.join(map(str, [*tiny_flags, "--log-interval", 1, "--epochs", 30]))
    pipe = f"{sys.executable} -m capsnet {flags} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, besides(done.stderr)) == (141, "")
