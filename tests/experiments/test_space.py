"""Spaces: what each field's type makes of the YAML, conditions, variants with parts, and corners against a brute force."""

import inspect
import itertools
import json
import random
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pytest

from capsnet.choices import VARIANTS
from capsnet.config import FIELDS, make_config
from capsnet.registry import DATASETS
from capsnet.routings import ROUTINGS
from capsnet.variants import parse
from experiments.documents import read_document
from experiments.space import CORNERS, Choice, Range, Space, Values
from experiments.space_yaml import read_space

SEARCHED = [name for name in FIELDS if name != "seed"]
NUMBERS = [name for name in SEARCHED if FIELDS[name].annotation in (int, float)]
BASE: dict[str, Any] = {"routing_iterations": 1, "validation_size": 500}  # with which two choices of most fields are valid
BASES: dict[str, dict[str, Any]] = {
    "model": {"loss": "cross_entropy", "reconstruction_weight": 0.0},
    "dropout": {"model": "cnn", "loss": "cross_entropy", "reconstruction_weight": 0.0},
}
TEXTS: dict[str, list[Any]] = {
    "dataset": list(DATASETS)[:2],
    "augmentation": ["none", "shift(pixels=1)"],
    "model": ["capsnet", "cnn"],
    "hidden_capsules": [[], [8], [8, 6]],
    "decoder_hidden": [[16], [16, 32]],
    "routing": list(ROUTINGS)[:2],
    "test_routing_iterations": [[3], [2, 5]],
    "test_sets": [[]],  # the only choice with other data sets than mnist_40
    "mask": ["label", "prediction", "none"],
    "squash": ["paper", "efficient"],
    "routing_gradient": ["full"],  # one iteration has but one gradient
    "loss": ["margin", "spread(end=0.8)"],
    "lr_schedule": ["constant", "step(gamma=0.5, every=2)"],
    "precision": ["fp32", "bf16"],
}
PARTS = [
    (field, variant, name, parameter.annotation)
    for field, registry in VARIANTS.items()
    for variant, function in registry.items()
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
]


def read(text: str) -> tuple[Space, list[str]]:
    faults: list[str] = []
    return read_space(read_document(text, "s.yaml", list(FIELDS))[0], "space of s.yaml", faults), faults


def space_of(text: str) -> Space:
    space, faults = read(text)
    assert not faults
    return space


def choices_of(name: str) -> list[Any]:
    """Two valid choices, or one where there is no other."""
    kind, default = FIELDS[name].annotation, FIELDS[name].default or (0.25 if name == "dropout" else 1)
    return [False, True] if kind is bool else [default, 2 * default] if kind in (int, float) else TEXTS[name]


def asked(space: Space, answers: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The point of these answers, and the names that were asked for."""
    names: list[str] = []

    def pick(name: str, _: Values) -> Any:
        names.append(name)
        return answers[name]

    return space.values(pick), names


def normal(points: Iterable[Mapping[str, Any]]) -> list[str]:
    """Points as texts, with variants in one spelling."""
    return [
        json.dumps({k: spelled(k, v) if k in VARIANTS else v for k, v in point.items()}, sort_keys=True) for point in points
    ]


@cache
def spelled(field: str, text: str) -> str:
    return parse(text, VARIANTS[field], field).text


@pytest.mark.parametrize("name", SEARCHED)
def test_every_field_but_the_seed_can_be_chosen_from_a_list(name: str) -> None:
    given = choices_of(name)
    for text in (json.dumps({name: given}), json.dumps({name: {"choices": given}})):
        found = [point[name] for point in space_of(text).corners()]
        assert found == given
        assert [type(value) for value in found] == [type(value) for value in given]
        configs = [make_config(BASES.get(name, BASE) | {name: value}, "s.yaml") for value in found]
        assert [getattr(config, name) for config in configs] == [tuple(v) if isinstance(v, list) else v for v in given]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_range_has_the_type_of_its_field(name: str) -> None:
    kind, (low, high) = FIELDS[name].annotation, choices_of(name)
    for extra in ({}, {"log": True}, {"log": False}, {"step": high - low}):
        (parameter,) = space_of(json.dumps({name: {"low": low, "high": high, **extra}})).parameters
        values = parameter.values
        assert isinstance(values, Range)
        assert (values.low, values.high, values.step, values.log) == (low, high, extra.get("step"), extra.get("log", False))
        assert values.whole == (kind is int)
        assert {type(values.low), type(values.high)} == {kind}
    for value in (low, high, kind((low + high) / 2)):
        assert getattr(make_config(BASES.get(name, BASE) | {name: value}, "s.yaml"), name) == value


def test_a_real_field_may_be_written_in_whole_numbers_and_a_whole_one_may_not_in_real_ones() -> None:
    (parameter,) = space_of("reconstruction_weight: {low: 0, high: 3, step: 1}").parameters
    assert repr(parameter.values) == "Range(low=0.0, high=3.0, whole=False, step=1.0, log=False)"
    assert read("epochs: {low: 1.0, high: 3}")[1] == ["epochs in space of s.yaml: low must be a whole number, not 1.0"]


@pytest.mark.parametrize(("field", "variant", "name", "kind"), PARTS, ids=[f"{v}.{n}" for _, v, n, _ in PARTS])
def test_a_variants_parameter_has_the_type_of_its_annotation(field: str, variant: str, name: str, kind: type) -> None:
    (parameter,) = space_of(json.dumps({field: [{variant: {name: {"low": 1, "high": 2}}}]})).parameters
    assert isinstance(parameter.values, Choice)
    ((part,),) = [option.parts for option in parameter.values.options]
    assert part.name == f"{field}.{variant}.{name}"
    assert part.values == Range(1, 2, whole=kind is int)
    assert isinstance(part.values, Range)
    assert type(part.values.low) is kind
    _, faults = read(json.dumps({field: [{variant: {name: {"low": 0.5, "high": 2}}}]}))
    assert faults == ([f"{part.name} in space of s.yaml: low must be a whole number, not 0.5"] if kind is int else [])


STEPS = {  # low, high, step, and a high that steps miss
    "whole": ("class_dim", 1, 10, 3, 11),
    "whole, where a rounded quotient would not tell": ("train_size", 1, 2147483645, 4, 2147483647),
    "tenths": ("learning_rate", 0, 0.3, 0.1, 0.35),
    "from above 0": ("learning_rate", 0.1, 0.7, 0.2, 0.8),
    "exponents": ("learning_rate", 1e-4, 1e-3, 1e-4, 1.05e-3),
    "below 0": ("learning_rate", -1, 1, 0.5, 1.25),
    "many": ("learning_rate", 0, 1e6, 0.1, 1e6 + 0.05),
    "more than a float can count": ("learning_rate", 0, 1e300, 1e-300, 1.5e-300),
    "a third, shortened": ("learning_rate", 0, 0.999999999, 0.333333333, 1),
}


@pytest.mark.parametrize(("name", "low", "high", "step", "past"), STEPS.values(), ids=STEPS.keys())
def test_steps_end_at_high_as_the_numbers_are_written(name: str, low: float, high: float, step: float, past: float) -> None:
    assert read(f"{name}: {{low: {low}, high: {high}, step: {step}}}")[1] == []
    _, faults = read(f"{name}: {{low: {low}, high: {past}, step: {step}}}")
    assert faults == [f"{name} in space of s.yaml: steps of {step} from {low} don't end at {past}"]


CHAIN = {
    "routing": "[dynamic, uniform]",
    "capsule_bias": "{choices: [true, false], when: {routing: dynamic}}",
    "class_dim": "{low: 8, high: 16, when: {capsule_bias: true}}",
    "batch_size": "{choices: [32, 64], when: {routing: [dynamic, uniform]}}",
}


@pytest.mark.parametrize("order", list(itertools.permutations(CHAIN)), ids="-".join)
def test_conditions_hold_through_others_in_whatever_order_they_stand(order: tuple[str, ...]) -> None:
    space = space_of("\n".join(f"{name}: {CHAIN[name]}" for name in order))
    first = {name: i for i, name in enumerate(space.fields)}
    assert first["routing"] < first["capsule_bias"] < first["class_dim"]
    small = ({"routing": "dynamic", "capsule_bias": True, "class_dim": dim} for dim in (8, 16))
    expected = [*small, {"routing": "dynamic", "capsule_bias": False}, {"routing": "uniform"}]
    found = normal(space.corners())
    assert sorted(found) == sorted(normal({**point, "batch_size": size} for point in expected for size in (32, 64)))


def test_the_order_of_the_yaml_is_kept_where_conditions_leave_it_free() -> None:
    space = space_of(
        "epochs: [1, 2]\nclass_dim: {low: 8, high: 9, when: {routing: dynamic}}\nmodel: [capsnet]\nrouting: [dynamic]"
    )
    assert space.fields == ("epochs", "model", "routing", "class_dim")


def test_nothing_is_asked_of_what_is_not_there() -> None:
    space = space_of(
        "routing: [dynamic, uniform]\n"
        "routing_iterations: {low: 1, high: 5, when: {routing: dynamic}}\n"
        "lr_schedule: [constant, {exponential: {gamma: {low: 0.5, high: 0.9}, every: [500, 2000]}}]\n"
    )
    point, names = asked(space, {"routing": "uniform", "lr_schedule": "constant"})
    assert (point, names) == ({"routing": "uniform", "lr_schedule": "constant"}, ["routing", "lr_schedule"])
    answers = {
        "routing": "dynamic",
        "routing_iterations": 4,
        "lr_schedule": "exponential",
        "lr_schedule.exponential.gamma": 0.625,
        "lr_schedule.exponential.every": 500,
    }
    point, names = asked(space, answers)
    assert names == list(answers)
    assert point == {"routing": "dynamic", "routing_iterations": 4, "lr_schedule": "exponential(gamma=0.625, every=500)"}


EVERY = {  # 96 points
    "routing": ["dynamic", "uniform"],
    "capsule_bias": [True, False],
    "decoder_hidden": [[16], [32], [16, 8]],
    "batch_size": [8, 9],
    "lr_schedule": ["constant", {"cosine": {"final": 0.5}}],
    "augmentation": ["none", "shift(pixels=1)"],
}
CONDITIONS = {
    "no condition": ({}, 96),
    "all of several hold": ({"routing": "dynamic", "capsule_bias": True}, 24),
    "one of several choices": ({"decoder_hidden": [[16], [32]]}, 64),
    "a list as a choice": ({"decoder_hidden": [[16, 8]]}, 32),
    "false": ({"capsule_bias": False}, 48),
    "a number, written as a real one": ({"batch_size": 8.0}, 48),
    "a variant with parts": ({"lr_schedule": "cosine"}, 48),
    "a text with parameters": ({"augmentation": "shift(pixels=1)"}, 48),
}


@pytest.mark.parametrize(("when", "holding"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_a_condition_may_be_on_any_choice(when: dict[str, Any], holding: int) -> None:
    text = json.dumps({"class_dim": {"choices": [7], "when": when}} | EVERY)
    points = list(space_of(text).corners())
    assert len(points) == 96, "one choice more makes no more points"
    assert sum("class_dim" in point for point in points) == holding


CYCLES = {
    "on itself": ["routing: {choices: [dynamic], when: {routing: dynamic}}"],
    "of two": [
        "routing: {choices: [dynamic], when: {capsule_bias: true}}",
        "capsule_bias: {choices: [true], when: {routing: dynamic}}",
    ],
    "of three": [
        "routing: {choices: [dynamic], when: {model: capsnet}}",
        "capsule_bias: {choices: [true], when: {routing: dynamic}}",
        "model: {choices: [capsnet], when: {capsule_bias: true}}",
    ],
}


@pytest.mark.parametrize("lines", CYCLES.values(), ids=CYCLES.keys())
def test_conditions_in_a_circle_are_refused_with_the_fields_in_it(lines: list[str]) -> None:
    _, (fault,) = read("\n".join(["epochs: [1, 2]", *lines]))
    named = ", ".join(line.partition(":")[0] for line in lines)
    assert fault == f"the conditions of {named} in space of s.yaml name each other"


def brute_force(document: Mapping[str, Any]) -> set[str]:
    """All corners: the product of all ends, without what has a condition that doesn't hold."""

    def ends(name: str, given: Any) -> list[tuple[Any, Any]]:
        """(What conditions call it, the value)."""
        if isinstance(given, dict) and "low" in given:
            return [(given["low"], given["low"]), (given["high"], given["high"])]
        found: list[tuple[Any, Any]] = []
        for choice in given["choices"] if isinstance(given, dict) else given:
            if not isinstance(choice, dict):
                found.append((choice, choice))
                continue
            ((variant, parts),) = choice.items()
            lists = [[value for _, value in ends(k, v)] if isinstance(v, (dict, list)) else [v] for k, v in parts.items()]
            for values in itertools.product(*lists):
                arguments = ", ".join(f"{k}={v}" for k, v in zip(parts, values, strict=True))
                found.append((variant, f"{variant}({arguments})"))
        return found

    def there(name: str, chosen: Mapping[str, Any]) -> bool:
        given = document[name]
        when = given.get("when", {}) if isinstance(given, dict) else {}
        return all(there(other, chosen) and chosen[other][0] in allowed for other, allowed in when.items())

    products = itertools.product(*(ends(name, given) for name, given in document.items()))
    every = [dict(zip(document, product, strict=True)) for product in products]
    return set(normal({name: chosen[name][1] for name in document if there(name, chosen)} for chosen in every))


def some_space(generator: random.Random) -> dict[str, Any]:
    """A few fields, each with conditions on those before, in any order."""
    pool: dict[str, Any] = {
        "routing": ["dynamic", "uniform"],
        "capsule_bias": [True, False],
        "decoder_hidden": [[16], [32, 8], [64]],
        "class_dim": {"low": 4, "high": 8, "step": 2},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "epochs": [1, 2, 3],
        "augmentation": ["none", {"shift": {"pixels": {"low": 1, "high": 3}}}],
        "lr_schedule": [
            "constant",
            {"exponential": {"gamma": {"low": 0.25, "high": 0.5}, "every": [5, 10], "floor": 0.125}},
            {"cosine": {"final": 0.5}},
        ],
    }
    names = generator.sample(list(pool), generator.randint(1, 5))
    document: dict[str, Any] = {}
    for i, name in enumerate(names):
        given = pool[name]
        when: dict[str, Any] = {}
        for other in generator.sample(names[:i], min(i, generator.randint(0, 2))):
            if isinstance(pool[other], list):
                keys = [next(iter(choice)) if isinstance(choice, dict) else choice for choice in pool[other]]
                when[other] = generator.sample(keys, generator.randint(1, len(keys)))
        if when:
            given = {**(given if isinstance(given, dict) else {"choices": given}), "when": when}
        document[name] = given
    return dict(generator.sample(list(document.items()), len(document)))


@pytest.mark.parametrize("seed", range(40))
def test_corners_are_all_combinations_of_ends_and_each_once(seed: int) -> None:
    document = some_space(random.Random(seed))
    found = normal(space_of(json.dumps(document)).corners())
    assert len(found) == len(set(found))
    assert set(found) == brute_force(document)


def test_the_brute_force_sees_conditions_and_parts() -> None:
    """So that the test above can fail."""
    documents = [some_space(random.Random(seed)) for seed in range(40)]
    deep = [d for d in documents if any(set(g.get("when", ())) & conditional(d) for g in d.values() if isinstance(g, dict))]
    assert len(deep) >= 3
    assert sum("lr_schedule" in document for document in documents) >= 10


def conditional(document: Mapping[str, Any]) -> set[str]:
    return {name for name, given in document.items() if isinstance(given, dict) and "when" in given}


def test_as_many_corners_as_are_looked_at_are_all_looked_at_and_of_more_some_of_which_none_is_outside() -> None:
    numbers = [name for name in SEARCHED if FIELDS[name].annotation is int]
    ranges = {name: {"low": 1, "high": 2} for name in numbers}
    most = CORNERS.bit_length() - 1
    assert len(numbers) >= most, "two ends each"
    few = normal(space_of(json.dumps(dict(itertools.islice(ranges.items(), most)))).corners())
    assert len(set(few)) == len(few) == CORNERS == 2**most

    huge = space_of(json.dumps(ranges | {"class_dim": [*range(1, 50)], "routing": ["dynamic", "uniform"]}))
    found = list(huge.corners())
    assert len(found) == CORNERS
    assert found == list(huge.corners()), "the same each time"
    for name in huge.fields:
        ends = set(range(1, 50)) if name == "class_dim" else {"dynamic", "uniform"} if name == "routing" else {1, 2}
        assert {point[name] for point in found} == ends, "each end of each is among them"


def test_a_huge_space_keeps_its_conditions_and_parts() -> None:
    numbers = {name: [1, 2] for name in SEARCHED if FIELDS[name].annotation is int and name != "class_dim"}
    step = {"step": {"gamma": {"low": 0.25, "high": 0.5}, "every": {"low": 1, "high": 9}}}
    conditions = {"class_dim": {"low": 3, "high": 4, "when": {"epochs": 1}}, "lr_schedule": ["constant", step]}
    found = list(space_of(json.dumps(conditions | numbers)).corners())
    assert all(("class_dim" in point) == (point["epochs"] == 1) for point in found)
    schedules = {f"step(gamma={gamma}, every={every})" for gamma in (0.25, 0.5) for every in (1, 9)}
    assert {point["lr_schedule"] for point in found} == {"constant", *schedules}


VARIANTS_WITH_PARTS = {
    "fixed parts alone": ("augmentation: [{shift: {pixels: 2}}]", ["shift(pixels=2)"]),
    "in the order of the signature": ("lr_schedule: [{step: {every: 3, gamma: 0.5}}]", ["step(gamma=0.5, every=3)"]),
    "defaults are left out": ("lr_schedule: [{cosine: {final: 0, warmup: 0}}]", ["cosine"]),
    "a whole number for a real one": ("lr_schedule: [{cosine: {final: 1}}]", ["cosine(final=1)"]),
    "a range of whole numbers": (
        "lr_schedule: [{step: {gamma: 0.5, every: {low: 2, high: 8, log: true}}}]",
        ["step(gamma=0.5, every=2)", "step(gamma=0.5, every=8)"],
    ),
    "a range down to a default": ("lr_schedule: [{cosine: {final: {low: 0, high: 0.5}}}]", ["cosine", "cosine(final=0.5)"]),
    "choices beside a fixed one": (
        "lr_schedule: [{step: {every: [2, 4], gamma: 0.5}}]",
        ["step(gamma=0.5, every=2)", "step(gamma=0.5, every=4)"],
    ),
    "small numbers": ("lr_schedule: [{one_cycle: {final: [1e-7, 4e-6]}}]", ["one_cycle(final=1e-07)", "one_cycle"]),
    "one variant plain, as a text and with parts": (
        "lr_schedule: [one_cycle, 'one_cycle(rise=.5)', {cosine: {warmup: [1]}}]",
        ["one_cycle", "one_cycle(rise=0.5)", "cosine(warmup=1)"],
    ),
}


@pytest.mark.parametrize(("text", "canonical"), VARIANTS_WITH_PARTS.values(), ids=VARIANTS_WITH_PARTS.keys())
def test_variants_with_parts_become_texts_that_the_config_makes_canonical(text: str, canonical: list[str]) -> None:
    field = text.partition(":")[0]
    assert [getattr(make_config(BASE | point, "s.yaml"), field) for point in space_of(text).corners()] == canonical


def test_an_option_is_found_by_what_optuna_calls_it() -> None:
    bias, hidden = (p.values for p in space_of("capsule_bias: [true, false]\ndecoder_hidden: [[16], [8, 4]]").parameters)
    assert isinstance(bias, Choice)
    assert isinstance(hidden, Choice)
    for values, wanted in ((bias, [True, False]), (hidden, [[16], [8, 4]])):
        keys = [option.key for option in values.options]
        assert all(isinstance(key, (str, bool)) for key in keys)
        again = json.loads(json.dumps(keys))  # as a database keeps them
        assert [values.option(key).value for key in again] == wanted


BAD = {
    "unknown field": ("rooting: [dynamic]", ["unknown key 'rooting'", "did you mean 'routing'", "routing_iterations"]),
    "a number as a field": ("7: [dynamic]", ["unknown key 7", "choices: dataset"]),
    "a variant's parameter as a field": ("gamma: [0.5]", ["unknown key 'gamma'", "lr_schedule"]),
    "seed": ("seed: [1, 2]", ["seed", "seeds_per_trial"]),
    "seed as a range": ("seed: {low: 0, high: 5}", ["seed", "seeds_per_trial"]),
    "low above high": ("class_dim: {low: 9, high: 4}", ["class_dim", "low must be below high", "9 and 4"]),
    "low as high": ("class_dim: {low: 4, high: 4}", ["class_dim", "low must be below high", "4 and 4"]),
    "large ones, a little apart": ("train_size: {low: 1000001, high: 1000000}", ["1000001 and 1000000"]),
    "log with 0": ("learning_rate: {low: 0, high: 1, log: true}", ["learning_rate", "low must be above 0", "log", "not 0"]),
    "log below 0": ("learning_rate: {low: -1, high: 1, log: true}", ["learning_rate", "low must be above 0", "not -1"]),
    "step with log": ("class_dim: {low: 1, high: 9, log: true, step: 2}", ["class_dim", "either log or step"]),
    "step 0": ("class_dim: {low: 1, high: 9, step: 0}", ["class_dim", "step must be above 0", "not 0"]),
    "negative step": ("learning_rate: {low: 1, high: 9, step: -0.5}", ["learning_rate", "step must be above 0", "-0.5"]),
    "steps that miss high": ("class_dim: {low: 1, high: 9, step: 3}", ["class_dim", "steps of 3 from 1", "end at 9"]),
    "a step beyond high": ("class_dim: {low: 1, high: 9, step: 30}", ["class_dim", "steps of 30 from 1", "end at 9"]),
    "no step": ("class_dim: {low: 1, high: 9, step: }", ["class_dim", "step must be a whole number", "None"]),
    "text for low": ("learning_rate: {low: small, high: 1}", ["learning_rate", "low must be a number", "'small'"]),
    "true for high": ("learning_rate: {low: 0.5, high: true}", ["learning_rate", "high must be a number", "True"]),
    "text for high of a whole field": ("epochs: {low: 1, high: '9'}", ["epochs", "high must be a whole number", "'9'"]),
    "real step of a whole field": ("epochs: {low: 1, high: 9, step: 0.5}", ["epochs", "step must be a whole number", "0.5"]),
    "real high of a whole field": ("epochs: {low: 1, high: 9.5}", ["epochs", "high must be a whole number", "9.5"]),
    "a list for low": ("epochs: {low: [1], high: 9}", ["epochs", "low must be a whole number", "[1]"]),
    "nan": ("learning_rate: {low: .nan, high: 1}", ["learning_rate", "low must be finite", "nan"]),
    "inf": ("learning_rate: {low: 0.5, high: .inf}", ["learning_rate", "high must be finite", "inf"]),
    "minus inf": ("reconstruction_weight: {low: -.inf, high: 1}", ["reconstruction_weight", "low must be finite", "-inf"]),
    "inf for a whole field": ("epochs: {low: 1, high: .inf}", ["epochs", "high must be a whole number", "inf"]),
    "larger than any float": (f"epochs: {{low: 1, high: 1{'0' * 400}}}", ["epochs", "high must be finite"]),
    "log is text": ("learning_rate: {low: 0.5, high: 1, log: 'yes'}", ["learning_rate", "log must be true or false", "'yes'"]),
    "log is a number": ("learning_rate: {low: 0.5, high: 1, log: 1}", ["learning_rate", "log must be true or false", "1"]),
    "no high": ("epochs: {low: 1}", ["epochs", "lacks high"]),
    "no ends": ("epochs: {step: 1}", ["epochs", "lacks low and high"]),
    "an empty range": ("epochs: {}", ["epochs", "lacks low and high"]),
    "unknown key of a range": (
        "epochs: {low: 1, hihg: 3}",
        ["epochs", "unknown key 'hihg'", "did you mean 'high'", "step, log"],
    ),
    "range of texts": ("routing: {low: 1, high: 3}", ["routing", "no numbers", "list of choices"]),
    "range of booleans": ("capsule_bias: {low: 0, high: 1}", ["capsule_bias", "no numbers", "list of choices"]),
    "range of tuples": ("decoder_hidden: {low: 16, high: 64}", ["decoder_hidden", "no numbers", "list of choices"]),
    "range of variants": ("lr_schedule: {low: 0.1, high: 0.5}", ["lr_schedule", "no numbers", "list of choices"]),
    "a single value": ("epochs: 3", ["epochs", "range {low: ..., high: ...} or a list of choices", "not 3"]),
    "a single text": ("routing: dynamic", ["routing", "list of choices", "'dynamic'"]),
    "nothing": ("epochs:", ["epochs", "list of choices", "None"]),
    "no choices": ("routing: []", ["routing", "must not be empty"]),
    "no choices under a key": ("routing: {choices: []}", ["routing", "must not be empty"]),
    "a choice twice": ("routing: [dynamic, uniform, dynamic]", ["routing", '"dynamic"', "twice"]),
    "a number twice": ("learning_rate: [1, 2, 1.0]", ["learning_rate", "1.0", "twice"]),
    "a boolean twice": ("capsule_bias: [true, true]", ["capsule_bias", "true", "twice"]),
    "a list twice": ("decoder_hidden: [[16, 8], [8], [16, 8]]", ["decoder_hidden", "[16, 8]", "twice"]),
    "a variant twice": (
        "lr_schedule: [{cosine: {final: 0.5}}, {cosine: {final: 0.25}}]",
        ["lr_schedule", '"cosine"', "twice"],
    ),
    "nan as a choice": ("learning_rate: [0.5, .nan]", ["learning_rate", "nan is no choice"]),
    "inf as a choice": ("learning_rate: [.inf]", ["learning_rate", "inf is no choice"]),
    "null as a choice": ("routing: [dynamic, null]", ["routing", "None is no choice"]),
    "a date as a choice": ("dataset: [2001-01-01]", ["dataset", "2001", "is no choice"]),
    "a date in a list": ("decoder_hidden: [[2001-01-01]]", ["decoder_hidden", "2001", "is no choice"]),
    "a list that holds itself": ("decoder_hidden: [&a [*a]]", ["decoder_hidden", "is no choice"]),
    "parts of what is no variant": ("squash: [{paper: {r: [1, 2]}}]", ["squash", "is no choice"]),
    "parts of a variant without any": (
        "routing: [{dynamic: {r: [1, 2]}}]",
        ["routing.dynamic", "parameter 'r'", "choices: none"],
    ),
    "two variants in one choice": (
        "lr_schedule: [{cosine: {final: 1}, constant: {warmup: 1}}]",
        ["lr_schedule", "is no choice"],
    ),
    "choices that are a range": ("epochs: {choices: {low: 1, high: 3}}", ["epochs", "choices must be a list", "'low': 1"]),
    "choices beside a range": ("epochs: {choices: [1], low: 1}", ["epochs", "unknown key 'low'", "choices, when"]),
    "unknown variant": (
        "lr_schedule: [constant, {exponentail: {gamma: 0.5}}]",
        ["lr_schedule", "'exponentail'", "did you mean 'exponential'", "one_cycle"],
    ),
    "unknown parameter of a variant": (
        "lr_schedule: [{exponential: {gama: 0.5}}]",
        ["lr_schedule.exponential", "unknown parameter 'gama'", "did you mean 'gamma'", "every"],
    ),
    "a parameter of what has none": (
        "augmentation: [{none: {pixels: 1}}]",
        ["augmentation.none", "unknown parameter 'pixels'"],
    ),
    "a variant without parts": ("lr_schedule: [{cosine: {}}]", ["lr_schedule.cosine", "write parameters", "{}"]),
    "a variant with null": ("lr_schedule: [{cosine: }]", ["lr_schedule.cosine", "write parameters", "None"]),
    "a variant with a list": ("lr_schedule: [{cosine: [0.5]}]", ["lr_schedule.cosine", "write parameters", "[0.5]"]),
    "a bad range in a part": (
        "lr_schedule: [{exponential: {gamma: {low: 0.9, high: 0.5}, every: 5}}]",
        ["lr_schedule.exponential.gamma", "low must be below high", "0.9 and 0.5"],
    ),
    "log with 0 in a part": (
        "lr_schedule: [{cosine: {final: {low: 0, high: 0.5, log: true}}}]",
        ["lr_schedule.cosine.final", "low must be above 0"],
    ),
    "a part without choices": ("lr_schedule: [{cosine: {final: []}}]", ["lr_schedule.cosine.final", "must not be empty"]),
    "a part's choice twice": ("lr_schedule: [{cosine: {final: [1, 1]}}]", ["lr_schedule.cosine.final", "1", "twice"]),
    "text for a part": ("lr_schedule: [{cosine: {final: low}}]", ["lr_schedule.cosine.final", "range", "'low'"]),
    "true for a part": ("lr_schedule: [{cosine: {final: true}}]", ["lr_schedule.cosine.final", "range", "True"]),
    "nan for a part": ("lr_schedule: [{cosine: {final: .nan}}]", ["lr_schedule.cosine.final", "range", "nan"]),
    "a condition of a part": (
        "routing: [dynamic]\nlr_schedule: [{cosine: {final: {low: 0.1, high: 0.5, when: {routing: dynamic}}}}]",
        ["lr_schedule.cosine.final", "no other condition"],
    ),
    "a condition that is text": ("epochs: {low: 1, high: 3, when: dynamic}", ["epochs", "when must be a mapping", "'dynamic'"]),
    "a condition that is null": ("epochs: {low: 1, high: 3, when: }", ["epochs", "when must be a mapping", "None"]),
    "a condition on what isn't there": (
        "class_dim: [8]\nepochs: {low: 1, high: 3, when: {routing: dynamic}}",
        ["epochs", "'routing'", "isn't in the space", "there are: class_dim"],
    ),
    "a condition on a misspelt field": (
        "epochs: {low: 1, high: 3, when: {rooting: dynamic}}",
        ["epochs", "'rooting'", "isn't in"],
    ),
    "a condition on a part": (
        "lr_schedule: [{cosine: {final: [0.1, 0.5]}}]\nepochs: {choices: [1], when: {lr_schedule.cosine.final: 0.1}}",
        ["epochs", "'lr_schedule.cosine.final'", "isn't in the space", "lr_schedule"],
    ),
    "a condition on a range": (
        "class_dim: {low: 1, high: 3}\nepochs: {low: 1, high: 3, when: {class_dim: 1}}",
        ["epochs", "class_dim", "is a range", "list of choices"],
    ),
    "a condition on an unknown choice": (
        "routing: [dynamic, uniform]\nepochs: {low: 1, high: 3, when: {routing: dinamic}}",
        ["epochs", "when", "unknown routing 'dinamic'", "did you mean 'dynamic'", "uniform"],
    ),
    "a condition on one unknown choice of several": (
        "routing: [dynamic]\nepochs: {low: 1, high: 3, when: {routing: [dynamic, uniform]}}",
        ["epochs", "unknown routing 'uniform'", "choices: dynamic"],
    ),
    "a condition on 1 for true": (
        "capsule_bias: [true, false]\nepochs: {low: 1, high: 3, when: {capsule_bias: 1}}",
        ["epochs", "unknown capsule_bias 1", "True, False"],
    ),
    "a condition on a list without its brackets": (
        "decoder_hidden: [[16], [8]]\nepochs: {low: 1, high: 3, when: {decoder_hidden: [16]}}",
        ["epochs", "unknown decoder_hidden 16", "[16], [8]"],
    ),
    "a condition on no choice": (
        "routing: [dynamic, uniform]\nepochs: {low: 1, high: 3, when: {routing: []}}",
        ["epochs", "no choice of routing", "dynamic, uniform"],
    ),
    "a condition on a mapping": (
        "lr_schedule: [{cosine: {final: 1}}]\nepochs: {choices: [1], when: {lr_schedule: {cosine: {final: 1}}}}",
        ["epochs", "unknown lr_schedule", "choices: cosine"],
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_space_is_refused_with_what_is_needed_to_mend_it(text: str, words: list[str]) -> None:
    _, faults = read(text)
    assert len(faults) == 1, "one mistake, one message"
    for word in [*words, "in space of s.yaml"]:
        assert word in faults[0]


def test_every_bad_field_is_named_and_what_depends_on_it_is_not() -> None:
    _, faults = read(
        "rooting: [dynamic]\n"
        "routing: []\n"
        "class_dim: {low: 9, high: 1}\n"
        "capsule_bias: {choices: [true], when: {routing: dynamic, class_dim: 9}}\n"
        "epochs: {low: 1, high: 3, when: {capsule_bias: maybe, model: capsnet}}\n"
    )
    assert [fault.split()[0] for fault in faults] == ["unknown", "routing", "class_dim", "epochs", "epochs"]
