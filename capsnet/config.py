"""RunConfig: every choice that can change a number, and nothing else.

A field is the YAML key, the command-line flag, the MLflow parameter and the table's column. Device, paths and the number of
workers are arguments elsewhere, because they choose where a number is computed, not which.
"""

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from capsnet import test_sets
from capsnet.augmentation import Augmentation
from capsnet.choices import CHOICES, VARIANTS, listed
from capsnet.errors import InputError, unknown
from capsnet.objectives import Objective
from capsnet.refusals import CHECKS
from capsnet.registry import (
    DATASETS,
    MODELS,
    DatasetFacts,
    ModelFacts,
)
from capsnet.routings import RoutingFacts
from capsnet.schedules import Schedule
from capsnet.variants import Variant, parse

Count = Annotated[int, Field(ge=1, lt=2**31)]


class RunConfig(BaseModel):
    """One run, whole: two runs with equal configs are the same run. The defaults are the paper's MNIST network.

    A field added later needs a default that reproduces what was there before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    dataset: str = Field("mnist", description=listed("dataset"))
    train_size: int = Field(0, ge=0, description="training images, class by class in proportion; 0 = all but validation's")
    validation_size: int = Field(5000, ge=0, description="images held out of the training set; 0 = no validation")
    augmentation: str = Field(
        "shift(pixels=2)",
        description=f"of training images, each its own: {listed('augmentation')}; a crop is a patch, of which validation and "
        "test see the middle one",
    )

    model: str = Field("capsnet", description=listed("model"))
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the last hidden layer's units that a baseline's step drops")
    conv_channels: Count = Field(256, description="channels of the first convolution (stride 1, ReLU)")
    conv_kernel: Count = Field(9, description="side of its kernel in pixels")
    primary_types: Count = Field(32, description="types of primary capsules at each position")
    primary_dim: Count = Field(8, description="dimensions of a primary capsule")
    primary_kernel: Count = Field(9, description="side of the primary capsules' kernel in pixels")
    primary_stride: Count = Field(2, description="its stride in pixels")
    hidden_capsules: tuple[Count, ...] = Field(
        (),
        description="of each further layer of capsules between primary and class capsules: how many, of class_dim dimensions",
    )
    class_dim: Count = Field(16, description="dimensions of a class capsule")
    primary_coupling: bool = Field(
        False, description="the primary capsules' convolution divided by primary_types, as in the authors' code"
    )
    capsule_bias: bool = Field(False, description="a bias (from 0.1) added to each weighted sum, as in the authors' code")
    votes_std: float = Field(0.1, gt=0, description="standard deviation of the votes' first weights; the authors' code has 0.1")
    squash: str = Field("paper", description=f"of all capsules: {listed('squash')}")
    decoder_hidden: tuple[Count, ...] = Field((512, 1024), description="units of the decoder's hidden layers")
    routing: str = Field("dynamic", description=listed("routing"))
    routing_iterations: Count = Field(3, description="r: weighted sums computed, so r - 1 updates of the logits")
    none_of_the_above: bool = Field(
        False, description="a further class without capsule, of logit 0, takes a share of the coupling (dynamic, static)"
    )
    routing_gradient: str = Field("full", description=f"which way gradients take: {listed('routing_gradient')}")
    test_routing_iterations: tuple[Count, ...] = Field(
        (), description="further r, rising, at which the trained network is tested after its last epoch"
    )
    test_sets: tuple[str, ...] = Field(
        (),
        description=f"further test sets for the trained network: {test_sets.listed()}",
    )
    reconstruction_weight: float = Field(
        5e-4, ge=0, description="times the squared error SUMMED over pixels, averaged over the batch; 0 = no decoder"
    )
    mask: str = Field("label", description=f"what the decoder is fed: {listed('mask')}")
    loss: str = Field("margin", description=f"of the class scores, averaged over the batch: {listed('loss')}")

    epochs: Count = Field(50, description="passes over the training images, at most if stop_at_error is set")
    stop_at_error: float = Field(
        0.0, ge=0, lt=100, description="end after the first epoch with at most this validation error in %; 0 = never"
    )
    batch_size: Count = Field(128, description="images per training step; an epoch's last step may have fewer")
    test_batch_size: Count = Field(1000, description="images per step of evaluation")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's, times the schedule's multiplier")
    adam_epsilon: float = Field(1e-8, gt=0, description="added to the root of Adam's second moment")
    weight_decay: float = Field(0.0, ge=0, description="times the weights, added to their gradients before Adam (L2); 0 = none")
    gradient_clip: float = Field(
        0.0, ge=0, description="the largest norm of a step's whole gradient, which is scaled down to it; 0 = any"
    )
    lr_schedule: str = Field(
        "exponential(gamma=0.96, every=2000, floor=0.001)",
        description=f"counted in steps: {listed('lr_schedule')}",
    )
    precision: str = Field("fp32", description=f"what matrix products multiply: {listed('precision')}")
    seed: int = Field(
        0, ge=0, lt=2**31, description="of initialisation, shuffling, augmentation, dropout and pairing, each its own stream"
    )

    @field_validator(*CHOICES)
    @classmethod
    def _among_choices(cls, value: str, info: Any) -> str:
        assert info.field_name
        return _known(info.field_name, value, CHOICES[info.field_name])

    @field_validator("dropout", "reconstruction_weight", "stop_at_error", "weight_decay", "gradient_clip")
    @classmethod
    def _of_one_zero(cls, value: float) -> float:
        return value + 0.0  # -0.0 equals 0.0, and its text doesn't

    @field_validator("test_sets")
    @classmethod
    def _known_test_sets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """In one order, as it has no meaning."""
        for name in value:
            test_sets.require(name)
        if len(set(value)) < len(value):
            raise ValueError(f"test_sets must name each once, not {list(value)}")
        return tuple(test_sets.in_order(value))

    @field_validator(*VARIANTS)
    @classmethod
    def _canonical(cls, value: str, info: Any) -> str:
        assert info.field_name
        return _variant(info.field_name, value).text

    @model_validator(mode="after")
    def _goes_together(self) -> "RunConfig":
        for check in CHECKS:
            check(self)
        return self

    @property
    def network(self) -> ModelFacts:
        """What is known of the model before it is made."""
        return MODELS[self.model]

    @property
    def facts(self) -> DatasetFacts:
        """What is known of the data set before it is read."""
        return DATASETS[self.dataset]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network sees, and of what its decoder makes: of images or of patches."""
        return self.augment.shape(self.facts.shape)

    @property
    def training_images(self) -> int:
        """Images in one epoch."""
        return self.train_size or self.facts.training_images - self.validation_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch, the last of which may be of a smaller batch."""
        return -(-self.training_images // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole run, if it isn't stopped before its last epoch; schedules count on all of them."""
        return self.epochs * self.steps_per_epoch

    def stops_at(self, validation_error: float | None) -> bool:
        """Whether training ends after an epoch with this validation error in %, however many epochs are left."""
        return self.stop_at_error > 0 and validation_error is not None and validation_error <= self.stop_at_error

    @property
    def primary_grid(self) -> tuple[int, int]:
        """Rows and columns of positions that have primary capsules; the paper's network: 6 x 6."""
        _, height, width = self.shape
        lost = self.conv_kernel - 1 + self.primary_kernel
        return (height - lost) // self.primary_stride + 1, (width - lost) // self.primary_stride + 1

    def variant(self, field: str) -> Variant:
        """What the text of one of the ``VARIANTS`` says: its name, its arguments, and what they make."""
        return _variant(field, getattr(self, field))

    @property
    def augment(self) -> Augmentation:
        """The augmentation that the text names."""
        return self.variant("augmentation").made

    @property
    def objective(self) -> Objective:
        """The loss of class scores that the text names."""
        return self.variant("loss").made

    @property
    def router(self) -> RoutingFacts:
        """What is known of the routing before it is made."""
        return self.variant("routing").made

    @property
    def schedule(self) -> Schedule:
        """The learning-rate schedule that the text names."""
        return self.variant("lr_schedule").made

    @property
    def differing(self) -> list[str]:
        """The fields that are not at their defaults, in alphabetical order."""
        return sorted(name for name, info in type(self).model_fields.items() if getattr(self, name) != info.default)

    def to_params(self) -> dict[str, str]:
        """Every field as one readable string, as MLflow keeps it; :func:`from_params` is the inverse."""
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.model_dump().items()}


FIELDS = RunConfig.model_fields
# errors of a value out of range: what the field counts is their reason
BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})


def make_config(values: Mapping[Any, Any], place: str) -> RunConfig:
    """A validated config, or one error that lists everything wrong with the values.

    Args:
        values: field -> value; what is missing takes its default.
        place: where the values stand, such as ``base of grids/paper.yaml``.

    Raises:
        InputError: an unknown field, a wrong type, a value out of range, or parts that don't fit together.
    """
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return RunConfig.model_validate(listed)
    except ValidationError as error:
        raise InputError("\n".join(_message(e, place) for e in error.errors())) from None


def from_params(params: Mapping[str, str], differing: Collection[str] | None = None) -> RunConfig:
    """The config that :meth:`RunConfig.to_params` wrote.

    Args:
        params: of a run.
        differing: the names of those that were not at their defaults, if that is known. All others of which this version knows
            nothing are left out, as of a branch that has more fields: a field's default is what was there before it.

    Raises:
        InputError: a parameter that this version doesn't know, or doesn't accept.
    """
    if strange := [name for name in params if name not in FIELDS]:
        if differing is None or not set(strange).isdisjoint(differing):
            here = [name for name in strange if differing is None or name in differing]
            raise InputError(f"this version has no {', '.join(here)}: another branch, or another version, logged it")
        params = {name: text for name, text in params.items() if name in FIELDS}
    values: dict[str, Any] = {}
    for name, text in params.items():
        is_text = FIELDS[name].annotation is str
        try:
            values[name] = text if is_text else _value(text)
        except json.JSONDecodeError:
            raise InputError(f"{name} = {text!r} is not a value of {name}") from None
    return make_config(values, "the logged parameters")


# thousands of runs hold a few texts, and a table is to cost little beside the search for its runs
@lru_cache(maxsize=4096)
def _variant(field: str, text: str) -> Variant:
    return parse(text, VARIANTS[field], field)


@lru_cache(maxsize=4096)
def _value(text: str) -> Any:
    return json.loads(text)


def _known(what: str, value: str, choices: Mapping[str, Any]) -> str:
    if value not in choices:
        raise ValueError(unknown(what, value, choices))
    return value


def _message(error: ErrorDetails, place: str) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return unknown("key", name, FIELDS, place)
    if error["type"] == "invalid_key":  # YAML's keys may be numbers
        return unknown("key", error["input"], FIELDS, place)
    if error["type"] == "value_error":  # raised above or by a variant's parser: already names the field
        return f"{error['ctx']['error']} (in {place})"
    said = error["msg"].replace("Input should be", "must be").replace("a valid", "of type")
    why = f"; {name} is: {FIELDS[name].description}" if error["type"] in BOUNDS else ""
    return f"{name} {said}, not {error['input']!r} (in {place}){why}"
