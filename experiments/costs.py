"""What a run costs in seconds and bytes, as runs of like configs were measured: a config that none is like has no estimate.

Two configs are alike if they are equal in every field but those that are named here, so a new field tells configs apart until
somebody knows that it costs nothing. Hardware is no field: only runs on one kind of it count, that of the newest run.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import median

from capsnet import test_sets
from capsnet.alterations import Attack
from capsnet.config import RunConfig
from experiments.record import EPOCHS, HARDWARE, TrackedRun

# seed, votes_std: other random numbers, as many. learning_rate, lr_schedule, adam_epsilon: a number per step. loss: some sums
# over the class scores of a batch. epochs, stop_at_error: how many, and seconds are counted per epoch.
FREE = frozenset({"seed", "votes_std", "learning_rate", "lr_schedule", "adam_epsilon", "loss", "epochs", "stop_at_error"})
# enter as the counts of images that they make: mnist and fashion_mnist are alike, and so are a train_size of 0 and of 60,000
IMAGES = frozenset({"dataset", "train_size", "validation_size"})
# how images reach the network, how often it is tested, what its products multiply, what Adam gets, what a step drops: its
# weights are as many
FEEDING = frozenset(
    {
        "augmentation",
        "batch_size",
        "test_batch_size",
        "test_routing_iterations",
        "test_sets",
        "precision",
        "dropout",
        "weight_decay",
        "gradient_clip",
    }
)
# the network itself: model, conv_*, primary_*, hidden_capsules, class_dim, capsule_bias, decoder_hidden, routing,
# routing_iterations, and of reconstruction_weight only whether it is 0, which leaves out the decoder

ATTACKED = 4  # times the time of an image that trains, at most: an attack's steps have no fast convolutions
BEGINNING = 60.0  # seconds that a run may take to read its data and to warm up the device


@dataclass(frozen=True)
class Pace:
    """The seconds of an epoch.

    Attributes:
        seconds: median over the runs.
        runs: how many it rests on.
        whole: they are a run's time from start to end, divided by its epochs: with validation, test, logging and checkpoints.
            If not, they are training alone, by the images per second of each run's last epoch.
        scaled: no run had as many images; these seconds are those of training alone, in proportion to the images.
        elsewhere: the runs are of other experiments than the one that is planned.
    """

    seconds: float
    runs: int
    whole: bool
    scaled: bool = False
    elsewhere: bool = False


class Costs:
    """What runs say of the costs of any config.

    Args:
        known: a run of each config.
        hardware: the kind of it that counts; empty = that of the run that began last, of those that tell how fast they are.
    """

    def __init__(self, known: Mapping[RunConfig, TrackedRun], hardware: str = "") -> None:
        timed = {config: run for config, run in known.items() if run.metrics.get("images_per_second", 0) > 0}
        newest = max(timed.values(), key=lambda run: run.start, default=None)
        self.hardware = hardware or (newest.tags.get(HARDWARE, "unknown hardware") if newest else "")
        self._wall: dict[Hashable, list[float]] = defaultdict(list)  # seconds from start to end, per epoch
        self._rate: dict[Hashable, list[float]] = defaultdict(list)  # training images per second, of alike configs
        self._scaled: dict[Hashable, list[float]] = defaultdict(list)  # and of configs alike but for the number of images
        self._parameters: dict[Hashable, int] = {}
        for config, run in timed.items():
            if run.tags.get(HARDWARE, "unknown hardware") != self.hardware:
                continue
            network, images = keys(config)
            rate = run.metrics["images_per_second"]
            self._rate[network, images].append(rate)
            self._scaled[network].append(rate)
            if wall := _wall(config, run, rate):
                self._wall[network, images].append(wall / epochs_of(config, run))
        for config, run in known.items():
            if "parameters" in run.metrics:
                self._parameters[keys(config, FEEDING)[0]] = int(run.metrics["parameters"])

    def pace(self, config: RunConfig) -> Pace | None:
        """The pace of whole runs of alike configs, or else of training alone, or else scaled by images; or None."""
        network, images = keys(config)
        if walls := self._wall.get((network, images)):
            return Pace(median(walls), len(walls), whole=True)
        alike = self._rate.get((network, images))
        if rates := alike or self._scaled.get(network):
            return Pace(config.training_images / median(rates), len(rates), whole=False, scaled=not alike)
        return None

    def parameters(self, config: RunConfig) -> int | None:
        """The number of the network's parameters, if a run of the same network has finished."""
        return self._parameters.get(keys(config, FEEDING)[0])


def epochs_of(config: RunConfig, run: TrackedRun) -> int:
    """The epochs of a run that has finished: fewer than the config's if it stopped at an error."""
    return int(run.metrics.get(EPOCHS, config.epochs))


def artifact_bytes(config: RunConfig, parameters: int) -> int:
    """What a finished run leaves: weights in single precision; per test image labels and answers, and a score of each class."""
    return 4 * parameters + config.facts.test_images * (2 * 8 * config.facts.labels + 4 * config.facts.classes)


def checkpoint_bytes(parameters: int) -> int:
    """What a run holds while it trains: two checkpoints, each of the weights and Adam's two moments."""
    return 2 * 3 * 4 * parameters


def keys(config: RunConfig, without: frozenset[str] = frozenset()) -> tuple[Hashable, Hashable]:
    """What one image costs depends on the first, and how many images an epoch and a test have is the second."""
    decoder = config.reconstruction_weight > 0
    merged = {"reconstruction_weight": decoder, "decoder_hidden": config.decoder_hidden if decoder else ()}
    left_out = FREE | IMAGES | without
    network = tuple(merged.get(name, value) for name, value in config if name not in left_out)
    facts = config.facts
    return (network, config.shape, facts.classes), (config.training_images, config.validation_size, facts.test_images)


def _wall(config: RunConfig, run: TrackedRun, rate: float) -> float | None:
    """A finished run's seconds from start to end, if its images explain them.

    They don't if it stood still between two launches, or was recorded after the fact. No image costs more than one that trains;
    the factors of 2 are for a last epoch, which alone was measured, that was faster or slower than the others.
    """
    if run.status != "FINISHED" or run.end is None:
        return None
    wall = (run.end - run.start) / 1000
    epochs, further = epochs_of(config, run), sum(test_sets.images(name, config.facts) for name in config.test_sets)
    tested = config.facts.test_images + further + ATTACKED * attack_steps(config)
    training = epochs * config.training_images / rate
    evaluation = (epochs * config.validation_size + tested) / rate
    return wall if training / 2 <= wall <= 2 * (training + evaluation) + BEGINNING else None


def attack_steps(config: RunConfig) -> int:
    """How often a test image goes forth and back in attacks, over all images, at most: those that are mistaken are left."""
    facts, made = config.facts, map(test_sets.alteration, config.test_sets)
    attacks = [attack for attack, _ in filter(None, made) if isinstance(attack, Attack)]
    return facts.test_images * sum(each.steps * each.against(facts.classes, facts.labels) for each in attacks)
