"""Predictions rest on measured runs of like configs, say on how many, and are None where none is like."""

from pathlib import Path

import pytest

from capsnet.config import FIELDS, RunConfig
from experiments.costs import BEGINNING, Costs, artifact_bytes, checkpoint_bytes
from experiments.jobs import Job, Place
from experiments.journal import Journal, folder_of
from experiments.record import TrackedRun
from experiments.sources import parse_grid
from experiments.tracking import Store
from experiments.worker import run

BASE = RunConfig(train_size=1000, validation_size=500, epochs=10)


def tracked(
    config: RunConfig,
    *,
    seconds: float = 30.0,
    rate: float = 1000.0,
    status: str = "FINISHED",
    hardware: str = "a card",
    start: int = 0,
    parameters: int | None = None,
) -> TrackedRun:
    """A run that trained so many images per second in its last epoch and took so many seconds from start to end."""
    metrics = {"seconds": config.training_images / rate, "images_per_second": rate}
    metrics |= {"parameters": float(parameters)} if parameters else {}
    return TrackedRun("id", status, {}, metrics, {"hardware": hardware}, start, start + int(1000 * seconds))


def seeded(seed: int, **changed: object) -> RunConfig:
    return RunConfig.model_validate(dict(BASE) | {"seed": seed} | changed)


BASELINE: dict[str, object] = {"loss": "cross_entropy", "reconstruction_weight": 0.0}  # what every model can have

# every field, another value of it, what the other's seconds per epoch are known from, and whether its parameters are known
OTHER = {
    "dataset": ("fashion_mnist", "alike", True),  # images of the same shape, and as many
    "train_size": (2000, "scaled", True),
    "validation_size": (300, "scaled", True),
    "augmentation": ("none", "", True),
    "model": ("cnn", "", False),
    "dropout": (0.5, "", True),
    "conv_channels": (128, "", False),
    "conv_kernel": (7, "", False),
    "primary_types": (16, "", False),
    "primary_dim": (4, "", False),
    "primary_kernel": (7, "", False),
    "primary_stride": (1, "", False),
    "hidden_capsules": ((12,), "", False),
    "class_dim": (8, "", False),
    "primary_coupling": (True, "", False),
    "votes_std": (0.3, "alike", True),
    "capsule_bias": (True, "", False),
    "squash": ("efficient", "", False),
    "decoder_hidden": ((256,), "", False),
    "routing": ("uniform", "", False),
    "routing_iterations": (2, "", False),
    "none_of_the_above": (True, "", False),
    "routing_gradient": ("detached", "", False),
    "test_routing_iterations": ((1, 5), "", True),
    "test_sets": (("affnist_generated",), "", True),  # with the base below it
    "reconstruction_weight": (1e-3, "alike", True),  # still a decoder
    "mask": ("none", "", False),
    "loss": ("cross_entropy", "alike", True),
    "epochs": (20, "alike", True),
    "stop_at_error": (0.5, "alike", True),
    "batch_size": (64, "", True),
    "test_batch_size": (100, "", True),
    "learning_rate": (1e-4, "alike", True),
    "lr_schedule": ("constant", "alike", True),
    "precision": ("bf16", "", True),
    "adam_epsilon": (1e-7, "alike", True),
    "weight_decay": (1e-4, "", True),
    "gradient_clip": (1.0, "", True),
    "seed": (7, "alike", True),
}


BELOW: dict[str, dict[str, object]] = {
    "routing": {"routing_iterations": 1},
    "model": BASELINE,
    "dropout": {"model": "cnn", **BASELINE},
    "test_sets": {"dataset": "mnist_40"},
}


def test_every_field_is_judged():
    assert OTHER.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", OTHER)
def test_what_makes_a_config_alike(name: str) -> None:
    value, known, same_network = OTHER[name]
    base = seeded(0, **BELOW.get(name, {}))
    other = RunConfig.model_validate(dict(base) | {name: value})
    costs = Costs({base: tracked(base, parameters=1234)})
    pace = costs.pace(other)
    if not known:
        assert pace is None
    else:
        assert pace is not None
        assert (pace.whole, pace.scaled) == (known == "alike", known == "scaled")
    assert costs.parameters(other) == (1234 if same_network else None)


def test_a_network_of_patches_is_another_one() -> None:
    """Though an augmentation feeds a network and is none of it."""
    other = seeded(0, augmentation="crop(size=24)")
    assert Costs({BASE: tracked(BASE, parameters=1234)}).parameters(other) is None
    assert Costs({other: tracked(other, parameters=1234)}).parameters(seeded(5, augmentation="crop(size=24)")) == 1234


def test_without_a_decoder_its_layers_and_weight_are_no_difference() -> None:
    one, other = seeded(0, reconstruction_weight=0.0), seeded(1, reconstruction_weight=0.0, decoder_hidden=(3,))
    assert Costs({one: tracked(one)}).pace(other) is not None
    assert Costs({one: tracked(one)}).pace(BASE) is None


def test_all_images_and_their_number_are_alike() -> None:
    one, other = seeded(0, train_size=0), seeded(0, train_size=59_500)
    pace = Costs({one: tracked(one, seconds=1000)}).pace(other)
    assert pace is not None
    assert pace.whole


def test_the_pace_is_the_median_time_of_whole_runs_per_epoch() -> None:
    known = {seeded(i): tracked(seeded(i), seconds=seconds) for i, seconds in enumerate((20.0, 30.0, 50.0))}
    pace = Costs(known).pace(seeded(9, epochs=50))
    assert pace is not None
    assert (pace.seconds, pace.runs, pace.whole) == (3.0, 3, True)


@pytest.mark.parametrize("status", ["RUNNING", "KILLED", "FAILED"])
def test_runs_that_have_not_finished_tell_how_fast_they_train(status: str) -> None:
    known = {seeded(i): tracked(seeded(i), rate=rate, status=status) for i, rate in enumerate((500.0, 1000.0, 2000.0))}
    pace = Costs(known).pace(seeded(9))
    assert pace is not None
    assert (pace.seconds, pace.runs, pace.whole, pace.scaled) == (1.0, 3, False, False)
    finished = Costs(known | {seeded(8): tracked(seeded(8), seconds=25.0)}).pace(seeded(9))
    assert finished is not None
    assert (finished.seconds, finished.runs, finished.whole) == (2.5, 1, True)


def test_evaluation_may_take_twice_what_training_on_as_many_images_does() -> None:
    """10 epochs of 1 s, and in evaluation at most as long: what is more stood still."""
    config = BASE.model_copy(update={"validation_size": 10_000})
    training = 10 * config.training_images / 1000
    evaluation = (10 * 10_000 + 10_000) / 1000
    for seconds, whole in ((2 * (training + evaluation) - 1, True), (2 * (training + evaluation) + BEGINNING + 1, False)):
        pace = Costs({config: tracked(config, seconds=seconds)}).pace(config)
        assert pace is not None
        assert pace.whole == whole


def test_an_attack_may_take_four_times_what_its_steps_would_in_training() -> None:
    """10 epochs of 1 s; 10,000 test images go 20 times forth and back for each of 9 classes, without the fast convolutions."""
    config = BASE.model_copy(update={"test_sets": ("pgd_8",)})
    training, evaluation = 10 * config.training_images / 1000, (10 * config.validation_size + 10_000 + 721 * 10_000) / 1000
    for seconds, whole in ((2 * (training + evaluation) - 1, True), (2 * (training + evaluation) + BEGINNING + 1, False)):
        pace = Costs({config: tracked(config, seconds=seconds)}).pace(config)
        assert pace is not None
        assert pace.whole == whole


@pytest.mark.parametrize("seconds", [0.0, 4.0, 90_000.0])
def test_a_time_from_start_to_end_that_the_images_do_not_explain_is_no_measure(seconds: float) -> None:
    """The run trained 10 epochs of 1 s: it was recorded after the fact, or stood still between two launches."""
    pace = Costs({BASE: tracked(BASE, seconds=seconds)}).pace(seeded(1))
    assert pace is not None
    assert (pace.seconds, pace.whole) == (1.0, False)


def test_other_numbers_of_images_scale_the_time_of_training_alone() -> None:
    pace = Costs({BASE: tracked(BASE, rate=500.0)}).pace(seeded(1, train_size=30_000))
    assert pace is not None
    assert (pace.seconds, pace.runs, pace.whole, pace.scaled) == (60.0, 1, False, True)


def test_only_runs_on_the_hardware_of_the_newest_run_count() -> None:
    slow, fast = tracked(BASE, seconds=60.0, hardware="cpu", start=1), tracked(BASE, seconds=20.0, hardware="card", start=2)
    costs = Costs({seeded(1): slow, seeded(2): fast})
    pace = costs.pace(BASE)
    assert pace is not None
    assert (pace.seconds, pace.runs, costs.hardware) == (2.0, 1, "card")
    elsewhere = seeded(3, conv_channels=8)
    assert Costs({seeded(2): fast, elsewhere: slow}).pace(elsewhere) is None


def test_what_was_not_measured_is_not_known() -> None:
    begun = TrackedRun("id", "RUNNING", {}, {}, {}, 0, None)
    for known in ({}, {BASE: begun}):
        costs = Costs(known)
        assert costs.pace(BASE) is None
        assert costs.parameters(BASE) is None
        assert costs.hardware == ""


def test_a_real_run_is_measured_and_its_files_are_as_large_as_predicted(mlruns: Path) -> None:
    grid = parse_grid(
        "base: {dataset: digits, train_size: 40, validation_size: 40, augmentation: none, conv_channels: 32, conv_kernel: 5, "
        "primary_types: 8, primary_kernel: 5, decoder_hidden: [128, 256], epochs: 2, lr_schedule: constant}\nseeds: 2",
        "g",
        "g.yaml",
    )
    store = Store.open("e", mlruns, create=True)
    assert store is not None
    first, second = (config for _, config in grid.configs)
    place = Place(store, mlruns / "checkpoints", "g", "", Path("nowhere"), "cpu", checkpoint_every=0)
    run(Job("c", first), place)
    [logged] = store.runs()
    costs = Costs({first: logged})
    pace, parameters = costs.pace(second), costs.parameters(second)
    assert pace is not None
    assert parameters is not None
    assert pace.whole
    assert pace.seconds * 2000 == logged.end - logged.start
    kept = sum(path.stat().st_size for path in (mlruns / "artifacts").rglob("*.safetensors"))
    assert artifact_bytes(second, parameters) == pytest.approx(kept, rel=0.01)
    journal = Journal(folder_of(mlruns / "checkpoints", first))  # which stays until the launch knows of the outcome
    checkpoints = sum(path.stat().st_size for path in (journal.last, journal.before))
    assert checkpoint_bytes(parameters) == pytest.approx(checkpoints, rel=0.02)
