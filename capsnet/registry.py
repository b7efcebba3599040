"""The named variants whose code needs torch, and where that code is, so that names are checked without importing it.

To add one, write the function and its line here. Routings are in routings.py; schedules, augmentations and losses, whose code
needs no torch to be imported, register themselves in their own files.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class DatasetFacts:
    """What can be known of a data set before it is read."""

    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    training_images: int  # of which validation is held out
    test_images: int
    loader: str  # "module:function", called with the folder that holds the data
    digest: str = ""  # SHA-256 of training images, training labels, test images, test labels, in this order; "" = unknown
    labels: int = 1  # of an image; 2: training images are single digits, of which pairs are made, as others are already
    moved: int = 0  # pixels by which validation and test images are moved at random, as by an augmentation shift
    held_out: str = ""  # "module:function" that makes validation images of training images, their index and count; "" = as is
    again: str = ""  # what to do if the files are wrong; "" = mend them, or what is said of them here
    names: tuple[str, ...] = ()  # of the classes, in the order of their numbers; () = they have none but these

    def called(self, label: int) -> str:
        """What a picture calls a class: ``3 (cat)``, or ``3`` if it has no name."""
        return f"{label} ({self.names[label]})" if self.names else str(label)


@dataclass(frozen=True)
class FurtherFacts:
    """What can be known of a further test set before it is read."""

    shape: tuple[int, int, int]  # channels, height, width: as the data set's that a network was trained on
    classes: int
    images: int
    loader: str  # "module:function", called with the folder that holds the data
    origin: str = "official files"  # what a table says of it
    folder: str = ""  # of its files, in the folder that holds the data
    again: str = ""  # what to do if they are wrong; "" = mend them, or what is said of them here


@dataclass(frozen=True)
class ModelFacts:
    """What can be known of a model before it is made."""

    network: str  # "module:function", called with the config
    unread: tuple[str, ...] = ()  # fields that mean nothing to it: at their defaults, of which 0 is reconstruction_weight's
    logits: bool = False  # its scores are logits, not lengths in [0, 1): nothing for a margin or a decoder


ROUTED = ("routing", "routing_iterations", "none_of_the_above", "routing_gradient", "test_routing_iterations")

NO_CAPSULES = (
    "conv_channels",
    "conv_kernel",
    "primary_types",
    "primary_dim",
    "primary_kernel",
    "primary_stride",
    "primary_coupling",
    "hidden_capsules",
    "class_dim",
    "capsule_bias",
    "votes_std",
    "squash",
    "decoder_hidden",
    *ROUTED,
    "reconstruction_weight",
    "mask",
)

MODELS = {
    "capsnet": ModelFacts("capsnet.models:CapsuleNetwork", ("dropout",)),
    "cnn_matched": ModelFacts("capsnet.baselines:MatchedCnn", ("dropout", "hidden_capsules", "votes_std", *ROUTED)),
    "cnn": ModelFacts("capsnet.baselines:baseline", NO_CAPSULES, logits=True),
}

SQUASHES = {
    "paper": "capsnet.layers:squash",
    "efficient": "capsnet.layers:squash_efficient",
    "half": "capsnet.layers:squash_half",
}

GRADIENTS = {
    "full": "through every pass of routing",
    "detached": "through the last weighted sum alone: coupling coefficients are constants",
}

MASKS = {
    "label": "the capsule of the true class in training, the longest one at test",
    "prediction": "the longest capsule in both",
    "none": "all capsules in both",
}
"""What the decoder is fed; all other capsules are set to 0."""

PRECISIONS = {
    "fp32": "float32",
    "tf32": "float32 rounded to 10 bits, CUDA only",
    "bf16": "bfloat16",
}
"""What matrix products and convolutions multiply. They sum in float32, and weights, routing, losses and Adam are float32."""

OFFICIAL = "delete them, and the official ones are downloaded again or asked for"

DATASETS = {
    "mnist": DatasetFacts(
        (1, 28, 28),
        10,
        60_000,
        10_000,
        "capsnet.datasets:mnist",
        "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b",
        again=OFFICIAL,
    ),
    "fashion_mnist": DatasetFacts(
        (1, 28, 28),
        10,
        60_000,
        10_000,
        "capsnet.datasets:fashion_mnist",
        again=OFFICIAL,
        names=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "digits": DatasetFacts((1, 16, 16), 10, 1_437, 360, "capsnet.datasets:digits"),
    "multimnist": DatasetFacts(
        (1, 36, 36), 10, 60_000, 100_000, "capsnet.multimnist:of_mnist", labels=2, moved=4, again=OFFICIAL
    ),
    "multidigits": DatasetFacts((1, 24, 24), 10, 1_437, 3_600, "capsnet.multimnist:of_digits", labels=2, moved=4),
    "cifar10": DatasetFacts(
        (3, 32, 32),
        10,
        50_000,
        10_000,
        "capsnet.datasets:cifar10",
        again=OFFICIAL,
        names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "svhn": DatasetFacts((3, 32, 32), 10, 73_257, 26_032, "capsnet.datasets:svhn", again=OFFICIAL),
    "smallnorb": DatasetFacts(
        (2, 48, 48),
        5,
        24_300,
        24_300,
        "capsnet.datasets:smallnorb",
        again=OFFICIAL,
        names=("animal", "human", "plane", "truck", "car"),
    ),
    "mnist_40": DatasetFacts(
        (1, 40, 40),
        10,
        60_000,
        10_000,
        "capsnet.affnist:mnist_40",
        "3664d8d210c474bcc131a78e4b68d14e6a521bb9d4c7a81780a4898d73a856d3",
        moved=6,
        held_out="capsnet.affnist:placed",
        again=OFFICIAL,
    ),
}

AFFNIST = "https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed"

TEST_SETS = {
    "affnist": FurtherFacts(
        (1, 40, 40),
        10,
        320_000,
        "capsnet.affnist:affnist",
        folder="affNIST",
        again=f"put the test files of {AFFNIST} there, unpacked",
    ),
    "affnist_generated": FurtherFacts(
        (1, 40, 40),
        10,
        10_000,
        "capsnet.affnist:generated",
        origin="generated here from MNIST's test digits: not affNIST",
        again=OFFICIAL,
    ),
}
"""Test sets that have files, beside a data set's own, on which a trained network can be tested, too.

No name is an r and a number, as errors at another r have them. Others are made of a data set's own test images, by
:mod:`capsnet.corruptions`, and called by their kind and a number.
"""


def load(path: str) -> Any:
    """Import what ``"module:name"`` says."""
    module, name = path.split(":")
    return getattr(import_module(module), name)
