"""What others published, and which configuration has to stand beside which number of theirs."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from capsnet.config import make_config
from capsnet.errors import InputError, unknown
from capsnet.registry import DATASETS, MODELS, TEST_SETS

PATH = Path(__file__).with_name("published.yaml")
DEFAULTS = {
    k: json.dumps(v) if isinstance(v, tuple) else v for k, v in make_config({}, "the defaults").model_dump().items()
}  # as tables have them
FREE = frozenset(
    {
        "epochs",
        "batch_size",
        "learning_rate",
        "lr_schedule",
        "precision",
        "validation_size",
        "test_batch_size",
        "test_sets",
        "test_routing_iterations",
        "seed",
        "primary_coupling",
    }
)
"""Fields in which a run may differ from what was published: the protocol tells of them; of primary_coupling no paper does."""
MOST_HELD_OUT = 0.25  # of the training images: what is trained on fewer is another task, as with a train_size


class Published(BaseModel):
    """One published test error in %, as printed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    value: float
    sd: float | None
    n: Annotated[int, Field(ge=1)] | None
    source: str
    protocol: str
    ensemble: Annotated[int, Field(ge=2)] | None = None  # so many networks answered together; None: each on its own
    test_set: str = ""  # further test set that it is the error on; empty: the data set's own
    match: dict[str, Any] | list[dict[str, Any]]  # field -> value as the table of runs has it; several: any of them

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration, field -> value as in the table of runs, is this cell.

        Images may be held out for validation that the published networks were trained on, but few.
        """
        whole = DATASETS[config["dataset"]].training_images
        few = bool(config["train_size"]) or config["validation_size"] <= MOST_HELD_OUT * whole
        return any(_is(match, config) and (few or "validation_size" in match) for match in self.matches)

    @property
    def matches(self) -> list[dict[str, Any]]:
        """The configurations that are this cell."""
        return [self.match] if isinstance(self.match, dict) else self.match


def load(path: Path = PATH) -> tuple[Published, ...]:
    """The entries of a file, with every ``match`` checked as a configuration.

    Raises:
        InputError: the file is missing or malformed, or a ``match`` has an unknown field or an impossible value.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
        entries = TypeAdapter(tuple[Published, ...]).validate_python(tuple(content) if isinstance(content, list) else content)
    except (OSError, YAMLError) as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except ValidationError as error:
        where = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
        raise InputError("\n".join(f"{path}, entry {loc or '?'}: {message}" for loc, message in where)) from None
    for entry in entries:
        if entry.test_set and entry.test_set not in TEST_SETS:
            raise InputError(unknown("test set", entry.test_set, TEST_SETS, f"{entry.name!r} of {path}"))
        if not entry.matches:
            raise InputError(f"match of {entry.name!r} in {path} is an empty list, so no table can show it")
    checked = [[_checked(match, f"{entry.name!r} in {path}") for match in entry.matches] for entry in entries]
    return tuple(entry.model_copy(update={"match": made}) for entry, made in zip(entries, checked, strict=True))


def find(config: Mapping[str, Any], published: Iterable[Published], test_set: str = "") -> Published | None:
    """The entry whose cell a configuration is, of those of its own test set or of a further one.

    Raises:
        InputError: there are several, so that the table would have to choose.
    """
    found = [entry for entry in published if entry.test_set == test_set and entry.is_of(config)]
    if len(found) > 1:
        raise InputError(f"several published cells match one configuration: {', '.join(entry.name for entry in found)}")
    return found[0] if found else None


def _is(match: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a configuration has what is named, and of all else that its network reads the default."""
    unread = FREE.union(MODELS[config["model"]].unread, () if config["reconstruction_weight"] else ("decoder_hidden", "mask"))
    return all(
        config[field] == match.get(field, default)
        for field, default in DEFAULTS.items()
        if field in match or field not in unread
    )


def _checked(match: dict[str, Any], whose: str) -> dict[str, Any]:
    """The match with its values as the table of runs has them."""
    if not match:
        raise InputError(f"match of {whose} is empty and would be every configuration")
    # next to nothing held out: a small data set may have too few images, and some schedules need one, pairs two
    config = make_config({"validation_size": 2, **match}, f"match of {whose}").model_dump()
    return {k: json.dumps(config[k]) if isinstance(config[k], tuple) else config[k] for k in match}
