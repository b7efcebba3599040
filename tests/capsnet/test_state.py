"""TrainingState: a file that gives the run back to the bit, or is refused."""

import json
import random
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import capsnet.files
from capsnet.config import RunConfig
from capsnet.errors import InputError
from capsnet.metrics import EpochMetrics
from capsnet.state import STREAMS, TrainingState, _checksum, stream
from capsnet.training import train

CLOCK = {"time", "seconds", "images_per_second"}


def story(state):
    """The history without what the clock says."""
    return [{k: v for k, v in asdict(metrics).items() if k not in CLOCK} for metrics in state.history]


def same_bits(one, other):
    first, second = one._tensors(), other._tensors()
    return first.keys() == second.keys() and all(
        first[k].dtype == second[k].dtype and torch.equal(first[k], second[k]) for k in first
    )


@pytest.fixture
def trained(tiny, data_of, cpu):
    """A state after the first of two epochs."""
    state = TrainingState(tiny(), cpu)
    next(train(state, data_of(state.config)))
    return state


def test_a_file_gives_the_state_back_to_the_bit(trained, tmp_path, cpu):
    path = tmp_path / "new" / "folder" / "a.safetensors"
    trained.save(path)
    again = TrainingState.load(path, cpu)
    assert again.config == trained.config
    assert again.history == trained.history
    assert same_bits(again, trained)
    assert any(name.startswith("adam.exp_avg.") for name in again._tensors())
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"], "nothing temporary is left"


def test_a_state_before_its_first_epoch_is_given_back_too(tiny, cpu, tmp_path, data_of):
    state = TrainingState(tiny(), cpu)
    state.save(tmp_path / "a")
    again = TrainingState.load(tmp_path / "a", cpu)
    assert same_bits(again, state)
    for one in (state, again):
        list(train(one, data_of(one.config)))
    assert same_bits(again, state)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_schedule": "one_cycle"},
        {"lr_schedule": "plateau(factor=0.3, patience=0)", "learning_rate": 0.02},
        {"reconstruction_weight": 0.0, "capsule_bias": True, "lr_schedule": "cosine(warmup=3)", "validation_size": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tiny, data_of, cpu, tmp_path, changes, stop):
    config = tiny(epochs=4, **changes)
    data = data_of(config)
    whole = TrainingState(config, cpu)
    list(train(whole, data))

    broken = TrainingState(config, cpu)
    run = train(broken, data)
    for _ in range(stop):
        next(run)
    broken.save(tmp_path / "a")
    del broken, run
    torch.manual_seed(99)
    resumed = TrainingState.load(tmp_path / "a", cpu)
    before = list(resumed.history)
    assert len(before) == stop
    assert not resumed.finished
    list(train(resumed, data))

    assert resumed.finished
    assert resumed.history[:stop] == before, "times included: logging them again must not double them"
    assert story(resumed) == story(whole)
    assert same_bits(resumed, whole)


def test_a_finished_run_trains_no_more(trained, data_of, tmp_path, cpu):
    data = data_of(trained.config)
    list(train(trained, data))
    trained.save(tmp_path / "a")
    again = TrainingState.load(tmp_path / "a", cpu)
    assert again.finished
    assert list(train(again, data)) == []
    assert same_bits(again, trained)


def test_a_truncated_file_is_refused(trained, tmp_path, cpu):
    trained.save(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    for left in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        (tmp_path / "torn").write_bytes(content[:left])
        with pytest.raises(InputError, match=r"torn can't be read as a checkpoint"):
            TrainingState.load(tmp_path / "torn", cpu)


def test_a_flipped_byte_is_refused_wherever_it_is(trained, tmp_path, cpu):
    trained.save(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    random_ = random.Random(0)
    end = content[:header].rstrip(b" ").__len__()  # after it come blanks that say nothing
    places = [
        *range(9),
        *random_.sample(range(9, end), 150),
        *random_.sample(range(header, len(content)), 50),
        len(content) - 1,
    ]
    for place in places:
        for flip in (1, 0xFF):
            bad = bytearray(content)
            bad[place] ^= flip
            (tmp_path / "flipped").write_bytes(bad)
            with pytest.raises(InputError, match=r"flipped (can't be read|is corrupt|is of format)"):
                TrainingState.load(tmp_path / "flipped", cpu)


def rewrite(path, change):
    """Save the file again with other metadata or tensors, and so with a wrong checksum."""
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, path, metadata)


def test_another_format_is_refused(trained, tmp_path, cpu):
    trained.save(tmp_path / "a")
    rewrite(tmp_path / "a", lambda metadata, tensors: metadata.update(format="capsnet-state-0"))
    with pytest.raises(InputError, match="is of format 'capsnet-state-0', but this version reads 'capsnet-state-1'"):
        TrainingState.load(tmp_path / "a", cpu)
    save_file({"x": torch.zeros(2)}, tmp_path / "b")
    with pytest.raises(InputError, match="is of format None"):
        TrainingState.load(tmp_path / "b", cpu)


@pytest.mark.parametrize("part", ["config", "history", "model.conv.weight", "generator.shuffling", "adam.step.conv.bias"])
def test_other_contents_than_were_written_are_refused(trained, tmp_path, cpu, part):
    trained.save(tmp_path / "a")

    def change(metadata, tensors):
        if part in metadata:
            metadata[part] = metadata[part].replace("1", "2")
        else:
            tensors[part] = tensors[part] + 1

    rewrite(tmp_path / "a", change)
    with pytest.raises(InputError, match="is corrupt: its checksum"):
        TrainingState.load(tmp_path / "a", cpu)


def test_a_tensor_of_another_type_or_shape_is_refused(trained, tmp_path, cpu):
    """The same bytes read as something else."""
    for change in (lambda x: x.view(torch.int32), lambda x: x.reshape(-1)):
        trained.save(tmp_path / "a")
        rewrite(tmp_path / "a", lambda _, tensors, c=change: tensors.update({"conv": c(tensors.pop("model.conv.weight"))}))
        rewrite(tmp_path / "a", lambda _, tensors: tensors.update({"model.conv.weight": tensors.pop("conv")}))
        with pytest.raises(InputError, match="is corrupt: its checksum"):
            TrainingState.load(tmp_path / "a", cpu)


def test_weights_of_another_network_are_refused(trained, tmp_path, cpu):
    """As after an edit of the code while the run was interrupted."""
    snapshot = trained.snapshot()
    for tensors in (
        {**snapshot.tensors, "model.conv.bias": torch.zeros(3)},
        {**snapshot.tensors, "model.scale": torch.zeros(3)},
        {**snapshot.tensors, "ema.conv.bias": torch.zeros(3)},
        {**snapshot.tensors, "adam.exp_avg.conv.bias": torch.zeros(3)},
        {name: tensor for name, tensor in snapshot.tensors.items() if name != "model.conv.bias"},
    ):
        replace(snapshot, tensors=tensors).save(tmp_path / "a")
        with pytest.raises(InputError, match=r"a has other weights than this version's network: .* or delete it"):
            TrainingState.load(tmp_path / "a", cpu)


def test_an_absent_file_or_a_folder_is_refused(tmp_path, cpu):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError, match="can't be read as a checkpoint"):
            TrainingState.load(path, cpu)


def test_a_failed_save_leaves_the_old_file(trained, data_of, tmp_path, cpu, monkeypatch):
    path = tmp_path / "a"
    trained.save(path)
    before = path.read_bytes()
    next(train(trained, data_of(trained.config)))

    def full(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(capsnet.state, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        trained.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "half a file is left"
    monkeypatch.undo()
    trained.save(path)
    assert len(TrainingState.load(path, cpu).history) == 2


def test_a_new_file_takes_the_old_ones_place_at_once(trained, tmp_path):
    """Whoever has the old one open reads it to its end: it is not written over."""
    trained.save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    with (tmp_path / "a").open("rb") as reader:
        trained.history.clear()
        trained.save(tmp_path / "a")
        assert reader.read() == before
    assert (tmp_path / "a").read_bytes() != before


def test_the_file_is_synced_before_it_takes_the_old_ones_place(trained, tmp_path, monkeypatch):
    """Renamed first, a crash of the machine could leave an empty file."""
    done = []
    sync = capsnet.files.synced
    monkeypatch.setattr(
        capsnet.files, "synced", lambda path: (done.append((path.is_dir(), (tmp_path / "a").exists())), sync(path))
    )
    trained.save(tmp_path / "a")
    assert done == [(False, False), (True, True)]


def test_the_file_holds_no_pickle_and_a_readable_history(trained, tmp_path):
    trained.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "pt") as file:
        metadata = file.metadata()
    assert [EpochMetrics(**m) for m in json.loads(metadata["history"])] == trained.history
    assert json.loads(metadata["config"]) == trained.config.to_params()


@pytest.mark.parametrize("differing", [False, True])
def test_a_checkpoint_of_a_branch_with_more_fields_goes_on_if_those_were_at_their_defaults(
    trained, tmp_path, cpu, monkeypatch, differing
):
    params, names = {**trained.config.to_params(), "temperature": "1.0"}, [*trained.config.differing, "temperature"]
    with monkeypatch.context() as branch:
        branch.setattr(RunConfig, "to_params", lambda self: params)
        if differing:
            branch.setattr(RunConfig, "differing", names)
        trained.save(tmp_path / "a")
    if differing:
        with pytest.raises(InputError, match=r"a is of another config .* has no temperature: .*, or delete it to train from"):
            TrainingState.load(tmp_path / "a", cpu)
    else:
        assert TrainingState.load(tmp_path / "a", cpu).config == trained.config


def test_streams_of_a_seed_are_independent_and_fixed():
    """Seeds of other seeds or streams are other seeds; the same on every machine."""
    seeds = {stream(seed, name).initial_seed() for seed in range(50) for name in STREAMS}
    assert len(seeds) == 50 * 5
    assert torch.equal(torch.rand(3, generator=stream(3, "shuffling")), torch.rand(3, generator=stream(3, "shuffling")))
    assert STREAMS == ("initialisation", "shuffling", "augmentation", "dropout", "pairing"), "the place is part of the seed"


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata.pop("config"),
        lambda metadata: metadata.pop("history"),
        lambda metadata: metadata.update(history=metadata["history"].replace('"train_loss"', '"loss"')),
    ],
    ids=["no config", "no history", "another metric"],
)
def test_metrics_of_another_version_are_refused(trained, tmp_path, cpu, change):
    def changed(metadata, tensors):
        change(metadata)
        del metadata["sha256"]
        metadata["sha256"] = _checksum(tensors, metadata)

    trained.save(tmp_path / "a")
    rewrite(tmp_path / "a", changed)
    with pytest.raises(InputError, match=r"a tells other things of its epochs than this version .* or delete it"):
        TrainingState.load(tmp_path / "a", cpu)


def test_a_history_that_is_longer_than_the_run_trains_no_more(trained, data_of):
    trained.history *= 2
    assert list(train(trained, data_of(trained.config))) == []
