"""Searches: what YAML means, that nothing wrong in it gets through, and the grid that confirms the best."""

import random
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from capsnet.config import RunConfig, make_config
from capsnet.errors import InputError
from experiments.samplers import PRUNERS, SAMPLERS
from experiments.search import OBJECTIVES, Confirm, Search
from experiments.search_yaml import KEYS, MESSAGES, SHIPPED, parse_search, read_search
from experiments.sources import Grid, parse_grid
from experiments.space import Range

GOOD = {
    "base": "{dataset: digits, validation_size: 100, conv_kernel: 5, primary_kernel: 5, epochs: 3, lr_schedule: constant}",
    "space": "{learning_rate: {low: 1e-4, high: 1e-2, log: true}, class_dim: [8, 16]}",
    "trials": "4",
}


def written(lines: Mapping[str, str]) -> str:
    """The good search with other lines; an empty one leaves the key out."""
    return "\n".join(f"{key}: {line}" for key, line in {**GOOD, **lines}.items() if line)


def search_of(name: str = "s", **lines: str) -> Search:
    return parse_search(written(lines), name, "s.yaml")


def said_of(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_search(text, "s", "s.yaml")
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_every_shipped_search_loads_and_says_what_it_answers(name: str) -> None:
    search = read_search(name)
    assert len(search.description) > 100
    assert search.corners
    assert search.trials or search.seconds
    assert search.objectives[0] == "validation_error"
    assert search.confirm.top, "what goes into tables is not the search's own best"
    last = search.space.values(lambda _, values: values.high if isinstance(values, Range) else values.options[-1].key)
    assert search.confirmation([last]).cells


def test_an_unknown_search_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown search 'quik'; did you mean 'quick'.*quick.*the path of a .yaml file"):
        read_search("quik")
    with pytest.raises(InputError, match=r"the search .*none.yaml can't be read.*shipped ones: .*quick"):
        read_search(str(tmp_path / "none.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"the search .*folder.yaml can't be read"):
        read_search(str(tmp_path / "folder.yaml"))
    (tmp_path / "latin.yaml").write_bytes("description: größer".encode("latin-1"))
    with pytest.raises(InputError, match=r"the search .*latin.yaml can't be read"):
        read_search(str(tmp_path / "latin.yaml"))


def test_a_search_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(written({}), encoding="utf-8")
    assert read_search(str(path)) == search_of("mine")
    path.write_text(written({"trials": "none"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"trials of /.*/mine.yml"):
        read_search(str(path))


def test_what_is_left_out_takes_its_default() -> None:
    search = search_of()
    assert (search.trials, search.seconds, search.seeds_per_trial) == (4, None, 1)
    assert (search.sampler.name, search.pruner.name, search.objectives) == ("tpe", "none", ("validation_error",))
    assert (search.description, search.confirm) == ("", Confirm(top=3, seeds=6, defaults=False))
    assert search.text == written({})


def test_every_key_is_read() -> None:
    search = search_of(
        description="what is asked",
        time_budget="1h 30m",
        sampler="nsga2(population_size=10)",
        objective="[validation_error, seconds, parameters]",
        seeds_per_trial="2",
        confirm="{top: 0, seeds: 1, defaults: true}",
    )
    assert (search.description, search.trials, search.seconds) == ("what is asked", 4, 5400.0)
    assert search.sampler.text == "nsga2(population_size=10)"
    assert search.objectives == tuple(OBJECTIVES)
    assert (search.seeds_per_trial, search.confirm) == (2, Confirm(top=0, seeds=1, defaults=True))
    assert search_of(pruner="hyperband(reduction_factor=4)").pruner.text == "hyperband(reduction_factor=4)"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("30m", 1800), ("45s", 45), ("1h 30m", 5400), ("1h30m15s", 5415), ("90m", 5400), ("' 2 h '", 7200)],
)
def test_a_time_budget_alone_or_beside_trials(text: str, seconds: float) -> None:
    assert (search_of(time_budget=text).seconds, search_of(time_budget=text).trials) == (seconds, 4)
    assert (search_of(time_budget=text, trials="").seconds, search_of(time_budget=text, trials="").trials) == (seconds, None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_by_its_name_alone(name: str) -> None:
    assert search_of(sampler=name).sampler.text == name


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_by_its_name_alone(name: str) -> None:
    assert search_of(pruner=name).pruner.text == name


@pytest.mark.parametrize(
    ("key", "text", "arguments"),
    [
        (
            "sampler",
            "tpe(n_startup_trials=0, n_ei_candidates=1, seed=7)",
            {"n_startup_trials": 0, "n_ei_candidates": 1, "seed": 7},
        ),
        ("sampler", "random(seed=2147483647)", {"seed": 2147483647}),
        ("sampler", "cmaes(n_startup_trials=0)", {"n_startup_trials": 0, "seed": 0}),
        ("sampler", "nsga2(population_size=2, crossover_prob=1, swapping_prob=0)", {"population_size": 2, "swapping_prob": 0}),
        ("pruner", "median(n_startup_trials=0, n_warmup_steps=0, interval_steps=1)", {"n_startup_trials": 0}),
        ("pruner", "hyperband(min_resource=1, reduction_factor=2)", {"min_resource": 1, "reduction_factor": 2}),
    ],
)
def test_a_recipe_has_the_arguments_of_the_text(key: str, text: str, arguments: dict[str, Any]) -> None:
    recipe = getattr(search_of(**{key: text}), key).made
    assert arguments.items() <= recipe.arguments.items()


def test_a_point_is_base_and_what_the_space_says_and_a_seed() -> None:
    search = search_of(
        space="{routing: [dynamic, uniform], routing_iterations: {low: 2, high: 5, when: {routing: dynamic}}}",
        base=GOOD["base"].replace("}", ", routing_iterations: 1}"),
    )
    found = {(config.routing, config.routing_iterations) for config in search.corners}
    assert found == {("dynamic", 2), ("dynamic", 5), ("uniform", 1)}, "where the condition doesn't hold, what base has"
    config = search.config({"routing": "dynamic", "routing_iterations": 4}, seed=9)
    assert (config.dataset, config.conv_kernel, config.routing_iterations, config.seed) == ("digits", 5, 4, 9)
    assert all(config.seed == 0 for config in search.corners)


def test_without_base_a_condition_leaves_the_default() -> None:
    search = search_of(
        base="", space="{capsule_bias: [true, false], primary_dim: {low: 2, high: 4, when: {capsule_bias: true}}}"
    )
    default = RunConfig().primary_dim
    assert {(c.capsule_bias, c.primary_dim) for c in search.corners} == {(True, 2), (True, 4), (False, default)}


def test_the_most_epochs_are_those_of_any_corner() -> None:
    base = GOOD["base"].replace("epochs: 3, ", "")
    assert search_of(base=base, space="{epochs: {low: 2, high: 9}}").epochs == 9
    assert search_of().epochs == 3
    conditional = "{routing: [dynamic, uniform], routing_iterations: [1], epochs: {choices: [1, 2], when: {routing: uniform}}}"
    assert search_of(space=conditional).epochs == 3, "base's, where the condition doesn't hold"


BAD: dict[str, tuple[dict[str, str], list[str]]] = {
    "unknown key": ({"trails": "5"}, ["unknown key 'trails' in s.yaml", "did you mean 'trials'", *KEYS]),
    "a grid's key": ({"axes": "{epochs: [1]}"}, ["unknown key 'axes' in s.yaml", "space"]),
    "description is a list": ({"description": "[1]"}, ["description of s.yaml", "text", "[1]"]),
    "no space": ({"space": ""}, ["space of s.yaml", "mapping of fields to ranges and choices", "None"]),
    "empty space": ({"space": "{}"}, ["space of s.yaml", "mapping of fields", "{}"]),
    "space is a list": ({"space": "[epochs]"}, ["space of s.yaml", "mapping of fields", "['epochs']"]),
    "unknown field in space": ({"space": "{learning_rat: [1]}"}, ["'learning_rat' in space of s.yaml", "mean 'learning_rate'"]),
    "unknown field in base": ({"base": "{epoch: 1}"}, ["'epoch' in base of s.yaml", "did you mean 'epochs'"]),
    "base is a list": ({"base": "[1]"}, ["base of s.yaml", "mapping", "[1]"]),
    "seed in space": ({"space": "{seed: [1, 2]}"}, ["seed stands in space of s.yaml", "seeds_per_trial"]),
    "seed in base": ({"base": "{seed: 1}"}, ["seed stands in base of s.yaml", "seeds_per_trial"]),
    "a field in base and in space": ({"space": "{epochs: [1, 2]}"}, ["epochs stands both in base and in space", "when"]),
    "an empty condition is none": ({"space": "{epochs: {choices: [1, 2], when: {}}}"}, ["epochs stands both in base and in"]),
    "a bad range, conditional, that base has too": (
        {"space": "{routing: [dynamic], epochs: {low: 3, high: 1, when: {routing: dynamic}}}"},
        ["epochs in space of s.yaml", "low must be below high"],
    ),
    "what is left where a condition doesn't hold": (
        {"space": "{routing: [dynamic, attention], routing_iterations: {low: 1, high: 4, when: {routing: dynamic}}}"},
        [
            "routing attention has one weighted sum: routing_iterations must be 1 (in s.yaml); where its condition (when) "
            "doesn't hold, routing_iterations is 3: base can say another value"
        ],
    ),
    "0 trials": ({"trials": "0"}, ["trials of s.yaml", "1 or more", "not 0"]),
    "negative trials": ({"trials": "-3"}, ["trials of s.yaml", "1 or more", "not -3"]),
    "half a trial": ({"trials": "1.5"}, ["trials of s.yaml", "whole number", "not 1.5"]),
    "true trials": ({"trials": "true"}, ["trials of s.yaml", "whole number", "not True"]),
    "trials as text": ({"trials": "many"}, ["trials of s.yaml", "whole number", "'many'"]),
    "trials without a number": ({"trials": " null"}, ["trials of s.yaml", "whole number", "not None"]),
    "trials without a number, but a time": ({"trials": "null", "time_budget": "1h"}, ["trials of s.yaml", "not None"]),
    "neither trials nor a time budget": ({"trials": ""}, ["s.yaml must say how long", "trials: 50", "time_budget: 2h"]),
    "a budget without a unit": ({"time_budget": "90"}, ["time_budget of s.yaml", "2h, 30m or 1h 30m", "not 90"]),
    "a budget of no time": ({"time_budget": "0h"}, ["time_budget of s.yaml", "'0h'"]),
    "a negative budget": ({"time_budget": "-2h"}, ["time_budget of s.yaml", "'-2h'"]),
    "half hours": ({"time_budget": "1.5h"}, ["time_budget of s.yaml", "'1.5h'"]),
    "units in the wrong order": ({"time_budget": "30m 1h"}, ["time_budget of s.yaml", "'30m 1h'"]),
    "an unknown unit": ({"time_budget": "2d"}, ["time_budget of s.yaml", "'2d'"]),
    "more hours than a float holds": ({"time_budget": f"{'9' * 400}h"}, ["time_budget of s.yaml", "999h'"]),
    "an empty budget": ({"time_budget": "''"}, ["time_budget of s.yaml", "''"]),
    "a budget without a time": ({"time_budget": " null"}, ["time_budget of s.yaml", "None"]),
    "a budget that is true": ({"time_budget": "true"}, ["time_budget of s.yaml", "True"]),
    "a budget in a list": ({"time_budget": "[2h]"}, ["time_budget of s.yaml", "['2h']"]),
    "unknown sampler": ({"sampler": "tpee"}, ["unknown sampler of s.yaml 'tpee'", "did you mean 'tpe'", *SAMPLERS]),
    "unknown pruner": ({"pruner": "medien"}, ["unknown pruner of s.yaml 'medien'", "did you mean 'median'", *PRUNERS]),
    "no sampler": ({"sampler": "null"}, ["sampler of s.yaml", "text", "None"]),
    "sampler as a mapping": ({"sampler": "{tpe: {seed: 1}}"}, ["sampler of s.yaml", "text", "{'tpe': {'seed': 1}}"]),
    "malformed sampler": ({"sampler": "tpe(seed=1"}, ["malformed sampler of s.yaml", "'tpe(seed=1'", "name(key=value"]),
    "unknown objective": ({"objective": "validation_eror"}, ["unknown objective 'validation_eror' in s.yaml", *OBJECTIVES]),
    "a metric that is no objective": ({"objective": "train_loss"}, ["unknown objective 'train_loss' in s.yaml", *OBJECTIVES]),
    "the test error": ({"objective": "test_error"}, ["objective of s.yaml", "must not see the test set", *OBJECTIVES]),
    "the test error among others": (
        {"objective": "[seconds, test_error]"},
        ["objective of s.yaml", "must not see the test set"],
    ),
    "an objective twice": ({"objective": "[seconds, seconds]"}, ["objective of s.yaml", "different", "['seconds', 'seconds']"]),
    "no objective": ({"objective": "[]"}, ["objective of s.yaml", "one, or a list of different ones", "[]"]),
    "objective is null": ({"objective": "null"}, ["unknown objective None in s.yaml", *OBJECTIVES]),
    "objective in two lists": ({"objective": "[[seconds]]"}, ["unknown objective ['seconds'] in s.yaml", *OBJECTIVES]),
    "objective is a mapping": ({"objective": "{seconds: 1}"}, ["unknown objective {'seconds': 1} in s.yaml", *OBJECTIVES]),
    "a pruner with several objectives": (
        {"objective": "[validation_error, seconds]", "pruner": "median(n_warmup_steps=2)"},
        ["pruner median(n_warmup_steps=2) in s.yaml", "one objective, but there are several"],
    ),
    "cmaes with several objectives": (
        {"objective": "[validation_error, seconds]", "sampler": "cmaes(seed=1)"},
        ["sampler cmaes in s.yaml", "one objective, not several", "choices: tpe, random, nsga2"],
    ),
    "a pruner of seconds": (
        {"objective": "seconds", "pruner": "hyperband"},
        ["pruner hyperband in s.yaml", "epochs, of which seconds knows nothing", "minimise validation_error"],
    ),
    "a pruner of parameters": (
        {"objective": "[parameters]", "pruner": "median"},
        ["pruner median in s.yaml", "parameters knows"],
    ),
    "no seeds": ({"seeds_per_trial": "0"}, ["seeds_per_trial of s.yaml", "1 or more", "not 0"]),
    "true seeds": ({"seeds_per_trial": "true"}, ["seeds_per_trial of s.yaml", "whole number", "True"]),
    "seeds without a number": ({"seeds_per_trial": "null"}, ["seeds_per_trial of s.yaml", "whole number", "None"]),
    "a list of seeds": ({"seeds_per_trial": "[1, 2]"}, ["seeds_per_trial of s.yaml", "whole number", "[1, 2]"]),
    "confirm is a number": ({"confirm": "3"}, ["confirm of s.yaml", "{top: 3, seeds: 6}", "not 3"]),
    "confirm is null": ({"confirm": "null"}, ["confirm of s.yaml", "mapping", "None"]),
    "unknown key of confirm": ({"confirm": "{tops: 3}"}, ["unknown key 'tops' in confirm of s.yaml", "mean 'top'", "defaults"]),
    "negative top": ({"confirm": "{top: -1}"}, ["top in confirm of s.yaml", "0 for none", "-1"]),
    "top as text": ({"confirm": "{top: all}"}, ["top in confirm of s.yaml", "'all'"]),
    "top is true": ({"confirm": "{top: true}"}, ["top in confirm of s.yaml", "True"]),
    "no seeds to confirm": ({"confirm": "{seeds: 0}"}, ["seeds in confirm of s.yaml", "1 or more", "0"]),
    "half a seed to confirm": ({"confirm": "{seeds: 1.5}"}, ["seeds in confirm of s.yaml", "whole number", "1.5"]),
    "defaults as a number": ({"confirm": "{defaults: 1}"}, ["defaults in confirm of s.yaml", "true or false", "1"]),
    # what RunConfig refuses at a corner
    "text for a number": ({"space": "{class_dim: [8, '16']}"}, ["class_dim", "integer", "'16'", "s.yaml"]),
    "a fraction for a count": ({"space": "{class_dim: [8, 16.0]}"}, ["class_dim", "integer", "16.0", "s.yaml"]),
    "true for a number": ({"space": "{class_dim: [8, true]}"}, ["class_dim", "integer", "True", "s.yaml"]),
    "1 for true": ({"space": "{capsule_bias: [false, 1]}"}, ["capsule_bias", "boolean", "1", "s.yaml"]),
    "a number for a text": ({"space": "{routing: [dynamic, 3]}"}, ["routing", "string", "3", "s.yaml"]),
    "a number for a list": ({"space": "{decoder_hidden: [[16], 16]}"}, ["decoder_hidden", "tuple", "16", "s.yaml"]),
    "text in a list": ({"space": "{decoder_hidden: [[16, many]]}"}, ["decoder_hidden", "integer", "'many'", "s.yaml"]),
    "a list for a number": ({"space": "{class_dim: [8, [16]]}"}, ["class_dim", "integer", "(16,)", "s.yaml"]),
    "an unknown choice": ({"space": "{routing: [dynamic, unifrom]}"}, ["'unifrom'", "did you mean 'uniform'", "s.yaml"]),
    "an unknown variant": ({"space": "{augmentation: [none, shitf]}"}, ["'shitf'", "did you mean 'shift'", "s.yaml"]),
    "a malformed variant": ({"space": "{augmentation: ['shift(1)']}"}, ["malformed augmentation 'shift(1)'", "s.yaml"]),
    "a low end out of range": ({"space": "{learning_rate: {low: 0, high: 1}}"}, ["learning_rate", "greater than 0", "s.yaml"]),
    "a high end out of range": (
        {"space": "{class_dim: {low: 1, high: 2147483648}}"},
        ["class_dim", "less than 2147483648", "s.yaml"],
    ),
    "a base value out of range": ({"base": "{epochs: 0}"}, ["epochs", "greater than or equal to 1", "0", "s.yaml"]),
    "sizes of which only the largest don't fit together": (
        {"space": "{train_size: {low: 1, high: 1338}, class_dim: [8, 16], routing: [dynamic]}"},
        ["train_size 1338 and validation_size 100", "1437", "s.yaml"],
    ),
    "parts that don't fit at one corner": (
        {"space": "{routing: [dynamic, uniform], routing_iterations: {low: 1, high: 4}}"},
        ["routing uniform", "routing_iterations must be 1", "s.yaml"],
    ),
    "what base has where a condition doesn't hold": (
        {"space": "{routing: [dynamic, uniform], routing_iterations: {low: 1, high: 4, when: {routing: dynamic}}}"},
        ["routing uniform", "routing_iterations must be 1", "s.yaml"],
    ),
    "a part out of range": (
        {"base": "{epochs: 1}", "space": "{lr_schedule: [{exponential: {gamma: {low: 0.5, high: 1.5}, every: 5}}]}"},
        ["lr_schedule 'exponential(", "gamma must be in (0, 1], not 1.5", "s.yaml"],
    ),
    "a fixed part of the wrong type": (
        {"base": "{epochs: 1}", "space": "{lr_schedule: [constant, {step: {gamma: 0.5, every: 5.0}}]}"},
        ["lr_schedule", "every must be of type int, not 5.0", "s.yaml"],
    ),
    "a part's choice of the wrong type": (
        {"base": "{epochs: 1}", "space": "{lr_schedule: [{cosine: {warmup: [0, many]}}]}"},
        ["lr_schedule", "warmup must be of type int, not 'many'", "s.yaml"],
    ),
    "a part that is missing": (
        {"base": "{epochs: 1}", "space": "{lr_schedule: [constant, {step: {gamma: 0.5}}]}"},
        ["lr_schedule 'step(gamma=0.5)' lacks every", "step(gamma=..., every=..., warmup=0)", "s.yaml"],
    ),
    "defaults that can't be confirmed": (
        {"base": "{dataset: digits, validation_size: 100}", "space": "{conv_kernel: [3, 5]}", "confirm": "{defaults: true}"},
        ["conv_kernel 9 and primary_kernel 9", "digits", "s.yaml"],
    ),
    "no validation in base": (
        {"base": "{validation_size: 0}"},
        ["objective validation_error of s.yaml", "validation_size must not be 0"],
    ),
    "no validation in space": (
        {"base": "{epochs: 1}", "space": "{validation_size: [0, 100, 500], class_dim: [8, 16]}"},
        ["objective validation_error of s.yaml", "validation_size must not be 0"],
    ),
    "no validation for one of several objectives": (
        {"base": "{validation_size: 0}", "objective": "[seconds, validation_error]"},
        ["objective validation_error of s.yaml", "validation_size must not be 0"],
    ),
    "no validation where a condition holds": (
        {"space": "{routing: [dynamic], validation_size: {low: 0, high: 100, when: {routing: dynamic}}}"},
        ["objective validation_error of s.yaml", "validation_size must not be 0"],
    ),
}


@pytest.mark.parametrize(("lines", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_search_is_refused_with_what_is_needed_to_mend_it(lines: dict[str, str], words: list[str]) -> None:
    said = said_of(written(lines))
    assert len(said.splitlines()) == 1, "one mistake, one line"
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("sampler", "tpe(n_startup_trials=-1)", ["n_startup_trials must be", "0 or more", "-1"]),
        ("sampler", "tpe(n_ei_candidates=0)", ["n_ei_candidates must be 1 or more", "0"]),
        ("sampler", "tpe(n_startup_trials=0.5)", ["n_startup_trials must be of type int", "0.5"]),
        ("sampler", "tpe(seed=True)", ["seed must be of type int", "True"]),
        ("sampler", "tpe(trials=5)", ["unknown parameter 'trials'", "n_startup_trials, n_ei_candidates, seed"]),
        ("sampler", "random(n_startup_trials=5)", ["unknown parameter 'n_startup_trials'", "seed"]),
        ("sampler", "random(seed=-1)", ["seed must be 0 or more", "-1"]),
        ("sampler", "random(seed=2147483648)", ["seed must be", "2147483648"]),
        ("sampler", "cmaes(n_startup_trials=-1)", ["n_startup_trials must be", "-1"]),
        ("sampler", "nsga2(population_size=1)", ["population_size must be 2 or more", "1"]),
        ("sampler", "nsga2(crossover_prob=1.5)", ["crossover_prob must be in [0, 1]", "1.5"]),
        ("sampler", "nsga2(swapping_prob=-0.5)", ["swapping_prob must be in [0, 1]", "-0.5"]),
        ("pruner", "none(n_startup_trials=1)", ["none takes no parameter", "'n_startup_trials'"]),
        ("pruner", "median(n_startup_trials=-1)", ["n_startup_trials must be", "-1"]),
        ("pruner", "median(n_warmup_steps=-1)", ["n_warmup_steps must be", "-1"]),
        ("pruner", "median(interval_steps=0)", ["interval_steps must be", "1 or more", "0"]),
        ("pruner", "median(warmup=0)", ["unknown parameter 'warmup'", "n_warmup_steps"]),
        ("pruner", "hyperband(min_resource=0)", ["min_resource must be", "1 or more", "0"]),
        ("pruner", "hyperband(reduction_factor=1)", ["reduction_factor must be 2 or more", "1"]),
        ("pruner", "hyperband(max_resource=9)", ["unknown parameter 'max_resource'", "min_resource"]),
    ],
)
def test_a_bad_parameter_of_a_sampler_or_pruner_is_refused(key: str, text: str, words: list[str]) -> None:
    said = said_of(written({key: text}))
    assert len(said.splitlines()) == 1
    for word in [f"{key} of s.yaml '{text}'", *words]:
        assert word in said


NO_SEARCH = {
    "nothing": ("", ["s.yaml must be a mapping", *KEYS]),
    "a list": ("- space", ["s.yaml must be a mapping"]),
    "a text": ("space", ["s.yaml must be a mapping"]),
    "broken YAML": ("space: {epochs: [1, 2]", ["s.yaml is not valid YAML", "line"]),
    "a key twice": (f"{written({})}\ntrials: 5", ["s.yaml has the key 'trials' twice, in line"]),
    "a field twice": ("space: {epochs: [1], epochs: [2]}", ["s.yaml has the key 'epochs' twice, in line 1"]),
    "two documents": ("trials: 1\n---\ntrials: 2", ["s.yaml is not valid YAML"]),
    "a tag that would make an object": ("base: !!python/object:os.system {}", ["s.yaml is not valid YAML"]),
}


@pytest.mark.parametrize(("text", "words"), NO_SEARCH.values(), ids=NO_SEARCH.keys())
def test_what_is_no_mapping_is_refused_in_one_line(text: str, words: list[str]) -> None:
    said = said_of(text)
    assert len(said.splitlines()) == 1
    for word in words:
        assert word in said


def test_everything_wrong_is_said_at_once_and_once() -> None:
    said = said_of(
        "bogus: 1\n"
        "description: 2\n"
        "base: {seed: 1, epoch: 2, batch_size: 8}\n"
        "space:\n"
        "  rooting: [dynamic]\n"
        "  seed: [1, 2]\n"
        "  class_dim: {low: 9, high: 1}\n"
        "  learning_rate: {low: 0, high: 1, log: true}\n"
        "  batch_size: [8, 16]\n"
        "  routing: {choices: [dynamic], when: {model: capsnet}}\n"
        "trials: 0\n"
        "time_budget: soon\n"
        "sampler: cmaess\n"
        "pruner: median(interval_steps=0)\n"
        "objective: [test_error, seconds]\n"
        "seeds_per_trial: 0\n"
        "confirm: {top: -1, seeds: 0, defaults: 3, sedes: 1}\n"
    )
    wanted = [
        "'bogus'",
        "description of",
        "seed stands in base",
        "'epoch' in base",
        "'rooting' in space",
        "seed stands in space",
        "class_dim in space",
        "learning_rate in space",
        "batch_size stands both",
        "routing in space",
        "trials of",
        "time_budget of",
        "sampler of s.yaml 'cmaess'",
        "interval_steps",
        "must not see the test set",
        "seeds_per_trial of",
        "'sedes'",
        "top in confirm",
        "seeds in confirm",
        "defaults in confirm",
    ]
    lines = said.splitlines()
    for word in wanted:
        assert len([line for line in lines if word in line]) == 1, word
    assert len(lines) == len(wanted), "and nothing else"
    assert all("s.yaml" in line for line in lines)


def test_different_faults_of_corners_are_said_at_once_and_each_once() -> None:
    space = "{class_dim: [8, x], learning_rate: {low: -1, high: 1}, routing: [dynamic, me], conv_kernel: [5, 9]}"
    said = said_of(written({"base": "{dataset: digits, validation_size: 0, epochs: 2}", "space": space})).splitlines()
    assert len(said) == len(set(said)) == 5
    for word in ("'x'", "greater than 0", "'me'", "conv_kernel 9 and primary_kernel 9", "validation_size must not be 0"):
        assert len([line for line in said if word in line]) == 1, word


def test_one_mistake_that_many_corners_share_stays_readable() -> None:
    parts = "gamma: [0.1, 0.2, 0.3, 0.4, 0.5], every: [1, 2, 3, 4, 5], floor: [0.01, 0.02, 0.03], warmup: 999999"
    said = said_of(written({"base": "{epochs: 1}", "space": f"{{lr_schedule: [{{exponential: {{{parts}}}}}]}}"})).splitlines()
    assert len(said) == MESSAGES + 1
    assert all("warmup is not over" in line for line in said[:-1])
    assert said[-1] == f"and {75 - MESSAGES} more, of other points of the space"


@pytest.mark.parametrize("objective", ["seconds", "parameters", "[seconds, parameters]"])
def test_what_needs_no_validation_may_have_none(objective: str) -> None:
    base = "{dataset: digits, validation_size: 0, conv_kernel: 5, primary_kernel: 5}"
    assert all(config.validation_size == 0 for config in search_of(base=base, objective=objective).corners)


def test_defaults_need_be_valid_only_where_they_are_confirmed() -> None:
    lines = {"base": "{dataset: digits, validation_size: 100}", "space": "{conv_kernel: [3, 5]}"}
    assert len(search_of(**lines).corners) == 2


def test_a_point_between_corners_is_what_was_picked() -> None:
    search = search_of(
        space="{learning_rate: {low: 1e-5, high: 1, log: true}, class_dim: {low: 4, high: 64, step: 4}, epochs: "
        "{low: 1, high: 9, when: {routing: dynamic}}, routing: [dynamic]}"
    )
    generator = random.Random(0)

    def pick(_: str, values: Any) -> Any:
        if not hasattr(values, "whole"):
            return generator.choice(values.options).key
        between = generator.uniform(values.low, values.high)
        return round(between) if values.whole else between

    for seed in range(50):
        values = search.space.values(pick)
        config = search.config(values, seed)
        assert {name: getattr(config, name) for name in values} == values
        assert config.seed == seed


def confirmed(search: Search, best: list[dict[str, Any]]) -> tuple[Grid, list[RunConfig]]:
    """The grid, and the first config of each of its cells, with the seed that trials begin with."""
    grid = search.confirmation(best)
    return grid, [cell.configs[0].model_copy(update={"seed": 0}) for cell in grid.cells]


def points(count: int) -> list[dict[str, Any]]:
    generator = random.Random(0)
    return [{"learning_rate": 10 ** generator.uniform(-4, -2), "class_dim": generator.choice([8, 16])} for _ in range(count)]


@pytest.mark.parametrize("per_trial", [1, 2, 7])
@pytest.mark.parametrize("seeds", [1, 6])
def test_the_best_are_confirmed_on_seeds_that_no_trial_had(per_trial: int, seeds: int) -> None:
    search = search_of(seeds_per_trial=str(per_trial), confirm=f"{{top: 2, seeds: {seeds}}}")
    grid = search.confirmation(points(5))
    for cell in grid.cells:
        found = [config.seed for config in cell.configs]
        assert len(set(found)) == len(found) == seeds
        assert not set(found) & set(range(per_trial))


def test_what_the_confirmation_is_described_with_is_what_the_search_asked() -> None:
    search = read_search("quick")
    description = search.confirmation([{}]).description
    assert description.startswith("The best trials of the search quick, trained again")
    assert description.endswith(search.description)


@pytest.mark.parametrize("top", [1, 3, 5, 9])
def test_as_many_are_confirmed_as_are_wanted_the_best_first(top: int) -> None:
    search, best = search_of(confirm=f"{{top: {top}}}"), points(5)
    _, configs = confirmed(search, best)
    assert configs == [search.config(values, 0) for values in best[:top]]


def test_equal_configs_count_once() -> None:
    search = search_of(confirm="{top: 3}", base=GOOD["base"].replace(", lr_schedule: constant", ""))
    spellings = ["step(gamma=0.5, every=2)", "step(every=2, gamma=.5)", "step(gamma=0.5, every=2, warmup=0)"]
    best = [{"lr_schedule": text, "learning_rate": 0.001} for text in spellings]
    best += [{"lr_schedule": spellings[0]}]  # whose default is the learning rate above
    best += [{"learning_rate": rate} for rate in (0.25, 0.25, 0.5, 0.75)]
    _, configs = confirmed(search, best)
    assert [(c.lr_schedule[:4], c.learning_rate) for c in configs] == [("step", 0.001), ("expo", 0.25), ("expo", 0.5)]


def test_all_images_and_as_many_count_once() -> None:
    search = search_of(confirm="{top: 3}")
    every = search.config({}, 0).training_images
    _, configs = confirmed(search, [{"train_size": every}, {"train_size": 0}, {"train_size": every - 1}])
    assert [config.training_images for config in configs] == [every, every - 1]


def test_the_defaults_are_confirmed_beside_the_best_where_they_are_wanted() -> None:
    search, best = search_of(confirm="{top: 2, defaults: true}"), points(3)
    _, configs = confirmed(search, best)
    default = make_config(search.base, "s")
    assert configs == [*(search.config(values, 0) for values in best[:2]), default]
    _, again = confirmed(search, [best[0], {"learning_rate": default.learning_rate}, best[1]])
    assert again == [search.config(best[0], 0), default], "what is among the best anyway isn't trained twice"
    alone = search_of(confirm="{top: 0, defaults: true}")
    assert confirmed(alone, best)[1] == [default]
    assert default not in confirmed(search_of(), best)[1]


@pytest.mark.parametrize(
    ("confirm", "told"),
    [
        ("{}", "confirm trains 3 settings on 6 seeds, * 0.0625 or more, * it takes 7 seeds"),
        ("{top: 3, seeds: 7, defaults: true}", ""),
        ("{top: 3, seeds: 6, defaults: true}", "confirm trains 4 settings on 6 seeds, * 0.09375 or more, * it takes 7 seeds"),
        ("{top: 1, seeds: 1}", ""),  # nothing is compared
        ("{top: 0, defaults: true}", ""),
        ("{top: 2, seeds: 1}", "confirm trains 2 settings on 1 seed, * 1 or more, * it takes 6 seeds"),
    ],
)
def test_a_search_says_before_it_begins_that_too_few_seeds_confirm(confirm: str, told: str) -> None:
    remarks = search_of(confirm=confirm).remarks
    assert len(remarks) == bool(told)
    assert all(fnmatch(remark, told) for remark in remarks)


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_a_shipped_search_confirms_on_seeds_enough(name: str) -> None:
    assert read_search(name).remarks == []


@pytest.mark.parametrize("name", ["größer", "🧪 two", 'a"b\\c', "no", "1e3", "tab\t", "- {x: #}"])
def test_whatever_its_name_the_grids_text_gives_the_grid_again(name: str) -> None:
    grid = search_of(name, confirm="{seeds: 1}").confirmation([{}])
    assert parse_grid(grid.text, f"{name}-confirm", "again.yaml") == grid
    assert name.strip() in grid.description
    assert grid.description.encode(), "which a lone surrogate would refuse"


def test_whatever_its_values_the_grids_text_gives_the_grid_again() -> None:
    search = search_of(confirm="{top: 20, seeds: 3, defaults: true}")
    best: list[dict[str, Any]] = [
        *points(5),
        *({"learning_rate": rate} for rate in (1e-5, 1e-07, 0.1 + 0.2, 1, 2.5e16, 1e22, 5e-324, 1 / 3)),
        {"decoder_hidden": [16, 32]},
        {"decoder_hidden": (8,)},
        {"decoder_hidden": []},
        {"capsule_bias": True},
        {"lr_schedule": "exponential(gamma=0.3333333333333333, every=50, floor=1e-05)"},
    ]
    grid = search.confirmation(best)
    assert parse_grid(grid.text, grid.name, "again.yaml") == grid
    expected = [search.config(values, seed) for values in best for seed in (1, 2, 3)]
    default = [make_config({**search.base, "seed": seed}, "s") for seed in (1, 2, 3)]
    assert [config for cell in grid.cells for config in cell.configs] == expected + default


@pytest.mark.parametrize("pruner", ["hyperband(min_resource=3)", "median(n_warmup_steps=2)", "median(n_warmup_steps=9)"])
def test_a_pruner_that_could_never_prune_is_refused(pruner: str) -> None:
    assert f"pruner {pruner} of s.yaml never prunes" in said_of(written({"pruner": pruner}))
    for able in ("hyperband(min_resource=2)", "median(n_warmup_steps=1)", "median", "hyperband", "none"):
        search_of(pruner=able)


def test_so_many_seeds_that_nobody_means_them_are_refused() -> None:
    assert "must be 10000 at most, together" in said_of(written({"seeds_per_trial": "3000000000"}))
