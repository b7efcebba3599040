"""RunConfig: its own identity, and every bad value named with its place."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from capsnet import affnist, multimnist
from capsnet.choices import CHOICES, VARIANTS
from capsnet.config import FIELDS, RunConfig, from_params, make_config
from capsnet.errors import InputError
from capsnet.registry import DATASETS, MODELS, load
from capsnet.routings import ROUTINGS
from capsnet.variants import usage

OTHER = {  # every field at a value that is not its default and goes with the others
    "dataset": "digits",
    "train_size": 321,
    "validation_size": 99,
    "augmentation": "shift(pixels=1)",
    "model": "capsnet",
    "dropout": 0.0,
    "conv_channels": 24,
    "conv_kernel": 5,
    "primary_types": 6,
    "primary_dim": 5,
    "primary_kernel": 4,
    "primary_stride": 1,
    "hidden_capsules": (12, 11),
    "class_dim": 7,
    "primary_coupling": True,
    "votes_std": 0.3,
    "capsule_bias": True,
    "squash": "half",
    "decoder_hidden": (33,),
    "routing": "static",
    "routing_iterations": 1,
    "none_of_the_above": True,
    "routing_gradient": "full",
    "test_routing_iterations": (),
    "test_sets": (),
    "reconstruction_weight": 6.4e-6,
    "mask": "none",
    "loss": "spread(start=0.1, end=0.8)",
    "epochs": 4,
    "stop_at_error": 1.5,
    "batch_size": 50,
    "test_batch_size": 77,
    "learning_rate": 0.1 + 0.2,  # 17 digits
    "lr_schedule": "plateau(factor=0.5, patience=3, floor=0.01, warmup=5)",
    "adam_epsilon": 1e-7,
    "weight_decay": 1e-4,
    "gradient_clip": 2.5,
    "precision": "bf16",
    "seed": 2**31 - 1,
}

# no other model reads all that this one does, which has no dropout; all that one weighted sum allows, and all that other digits
# than mnist_40's are tested on
SAME = ("model", "dropout", "routing_gradient", "test_routing_iterations", "test_sets")


def test_every_field_has_another_value_here():
    assert OTHER.keys() == FIELDS.keys()
    same = {name for name in FIELDS if OTHER[name] == FIELDS[name].default}
    assert same == set(SAME)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is(name):
    assert FIELDS[name].description
    assert not FIELDS[name].is_required(), "a field added later must not break old configs"


def test_params_are_one_readable_string_each():
    params = RunConfig(**OTHER).to_params()
    assert params.keys() == FIELDS.keys()
    assert all(isinstance(value, str) for value in params.values())
    assert params["lr_schedule"] == OTHER["lr_schedule"]
    assert (params["train_size"], params["capsule_bias"], params["decoder_hidden"]) == ("321", "true", "[33]")
    assert params["learning_rate"] == "0.30000000000000004"


@pytest.mark.parametrize(
    "values",
    [
        {},
        OTHER,
        {"routing_gradient": "detached", "test_routing_iterations": (1, 5)},
        {"model": "cnn", "dropout": 0.5, "loss": "cross_entropy", "reconstruction_weight": 0.0},
        {"dataset": "mnist_40", "test_sets": ("affnist", "affnist_generated")},
        {"decoder_hidden": ()},
        {"learning_rate": 1e-7, "reconstruction_weight": 0.0},
    ],
)
def test_params_give_the_config_back(values):
    config = RunConfig(**values)
    again = from_params(config.to_params())
    assert again == config
    assert hash(again) == hash(config)
    assert again.to_params() == config.to_params()
    assert all(type(getattr(again, name)) is type(getattr(config, name)) for name in FIELDS)


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in (*SAME, "routing", "routing_iterations")])
def test_each_field_alone_survives_the_round_trip_and_makes_another_config(name):
    """With the other fields at values that any of these goes with."""
    base = {**OTHER, "validation_size": 100, name: OTHER[name]}
    default = FIELDS[name].default if name not in ("dataset", "validation_size") else {"dataset": "mnist"}.get(name, 98)
    first, second = RunConfig(**base), RunConfig(**{**base, name: default})
    assert first != second
    assert first.to_params()[name] != second.to_params()[name]
    assert getattr(from_params(second.to_params()), name) == default


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr_schedule": "exponential(every=9, gamma=.5)"}, {"lr_schedule": " exponential( gamma = 0.5, every=9, floor=0.0)"}),
        ({"lr_schedule": "constant()"}, {"lr_schedule": "constant(warmup=0)"}),
        ({"augmentation": "shift(pixels=1)"}, {"augmentation": "shift( pixels=+1 )"}),
        ({"loss": "margin(m_plus=.9, down_weight=0.5)"}, {"loss": "margin"}),
        ({"loss": "spread( end=1.0, start=2e-1)"}, {"loss": "spread(end=1)"}),
        ({"augmentation": "none()"}, {"augmentation": "none"}),
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"reconstruction_weight": 0}, {"reconstruction_weight": 0.0}),
        ({"decoder_hidden": [3, 4]}, {"decoder_hidden": (3, 4)}),
        ({}, {name: info.default for name, info in FIELDS.items()}),
    ],
)
def test_two_spellings_are_one_config(one, other):
    first, second = make_config(one, "here"), make_config(other, "there")
    assert first == second
    assert hash(first) == hash(second)
    assert first.to_params() == second.to_params()


def test_defaults_are_the_papers_network():
    config = RunConfig()
    assert config.primary_grid == (6, 6)
    assert (config.conv_channels, config.primary_types, config.primary_dim, config.class_dim) == (256, 32, 8, 16)
    assert config.decoder_hidden == (512, 1024)
    assert config.reconstruction_weight == 0.0005
    assert config.learning_rate * config.schedule(10**9, 10**9, ()) == pytest.approx(1e-6)


def test_a_network_of_patches_has_their_size():
    config = RunConfig(dataset="cifar10", augmentation="crop(size=24)")
    assert (config.shape, config.facts.shape, config.primary_grid) == ((3, 24, 24), (3, 32, 32), (4, 4))
    config = RunConfig(dataset="smallnorb", augmentation="crop(size=32)")
    assert (config.shape, config.primary_grid) == ((2, 32, 32), (8, 8))
    assert RunConfig().shape == (1, 28, 28)


def test_steps_count_the_last_smaller_batch():
    config = RunConfig(train_size=100, batch_size=32, epochs=3, lr_schedule="constant")
    assert (config.training_images, config.steps_per_epoch, config.total_steps) == (100, 4, 12)
    exact = RunConfig(train_size=96, batch_size=32, epochs=3)
    assert (exact.steps_per_epoch, exact.total_steps) == (3, 9)
    assert RunConfig(validation_size=10_000).training_images == 50_000


def test_a_config_cannot_be_changed():
    config = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    assert config.seed == 0


BAD = [
    ({"rooting_iterations": 3}, "unknown key 'rooting_iterations' in grids/x.yaml; did you mean 'routing_iterations'?"),
    ({"device": "cpu"}, "unknown key 'device' in grids/x.yaml"),
    ({"Seed": 1}, "did you mean 'seed'?"),
    ({1: 2}, "unknown key 1 in grids/x.yaml"),
    ({None: 2}, "unknown key None in grids/x.yaml"),
    ({"dataset": "minst"}, f"unknown dataset 'minst'; did you mean 'mnist'? (choices: {', '.join(DATASETS)})"),
    ({"dataset": 3}, "dataset must be of type string, not 3"),
    (
        {"model": "capsnot"},
        "unknown model 'capsnot'; did you mean 'capsnet'? (choices: capsnet, cnn_matched, cnn)",
    ),
    ({"routing": "me"}, "unknown routing 'me'; choices: dynamic, uniform"),
    (
        {"augmentation": "shfit(pixels=2)"},
        "unknown augmentation 'shfit'; did you mean 'shift'? (choices: none, shift, affine, crop)",
    ),
    ({"augmentation": "shift"}, "augmentation 'shift' lacks pixels; write shift(pixels=...)"),
    ({"augmentation": "affine(rotation=181)"}, "augmentation 'affine(rotation=181)': rotation must be 0 to 180, not 181"),
    ({"augmentation": "affine(shear=-0.1)"}, "shear must be 0 to 1, not -0.1"),
    ({"augmentation": "affine(scale=1)"}, "scale must be 0 to 0.9, not 1"),
    ({"augmentation": "affine(pixels=-1)"}, "pixels must be 0 or more, not -1"),
    ({"augmentation": "affine(rotation=0, shear=0, scale=0)"}, "write shift(pixels=...) for shifts alone, or none"),
    ({"augmentation": "affine(pixels=28)"}, "can move the whole image of mnist out of sight"),
    ({"augmentation": "crop(size=0)"}, "augmentation 'crop(size=0)': size must be 1 or more, not 0"),
    ({"augmentation": "crop(size=29)"}, "augmentation crop(size=29) is larger than the 28x28 images of mnist"),
    ({"augmentation": "crop(size=28)"}, "augmentation crop(size=28) is all of the 28x28 images of mnist: write none"),
    ({"augmentation": "crop(size=16)"}, "conv_kernel 9 and primary_kernel 9 are too large for the 16x16 patches of mnist"),
    (
        {"dataset": "multimnist", "augmentation": "crop(size=32)"},
        "crop(size=32) could cut off one of the 2 digits of multimnist",
    ),
    ({"dataset": "cifar10", "augmentation": "crop(size=48)"}, "is larger than the 32x32 images of cifar10"),
    ({"augmentation": "shift(pixels=0)"}, "augmentation 'shift(pixels=0)': pixels must be 1 or more"),
    ({"augmentation": "shift(pixels=28)"}, "augmentation shift(pixels=28) can move the whole image of mnist out of sight"),
    ({"lr_schedule": "exponental(gamma=0.9, every=1)"}, "unknown lr_schedule 'exponental'; did you mean 'exponential'?"),
    ({"lr_schedule": "exponential(0.9)"}, "malformed lr_schedule 'exponential(0.9)'"),
    (
        {"lr_schedule": "step(gamma=0.5)"},
        "lr_schedule 'step(gamma=0.5)' lacks every; write step(gamma=..., every=..., warmup=0)",
    ),
    ({"lr_schedule": "constant(warmup=430)", "epochs": 1}, "warmup is not over within the 430 steps"),
    ({"lr_schedule": "plateau(factor=0.5, patience=2)", "validation_size": 0}, "lr_schedule plateau watches the validation"),
    ({"lr_schedule": None}, "lr_schedule must be of type string, not None"),
    ({"train_size": -1}, "train_size must be greater than or equal to 0, not -1"),
    ({"train_size": "10"}, "train_size must be of type integer, not '10'"),
    ({"train_size": 55_001}, "train_size 55001 and validation_size 5000 need more than the 60000 training images of mnist"),
    ({"validation_size": 60_000}, "validation_size 60000"),
    ({"validation_size": -1}, "validation_size must be greater than or equal to 0"),
    ({"dataset": "digits"}, "validation_size 5000 need more than the 1437 training images of digits"),
    ({"conv_kernel": 21}, "conv_kernel 21 and primary_kernel 9 are too large for the 28x28 images of mnist"),
    ({"hidden_capsules": [0]}, "hidden_capsules must be greater than or equal to 1, not 0"),
    ({"hidden_capsules": 8}, "hidden_capsules must be"),
    ({"decoder_hidden": [0]}, "decoder_hidden must be greater than or equal to 1, not 0"),
    ({"decoder_hidden": 512}, "decoder_hidden must be"),
    ({"decoder_hidden": ["a"]}, "decoder_hidden must be of type integer, not 'a'"),
    ({"capsule_bias": "yes"}, "capsule_bias must be of type boolean, not 'yes'"),
    ({"capsule_bias": 1}, "capsule_bias must be of type boolean, not 1"),
    ({"routing": "uniform"}, "routing uniform has one weighted sum: routing_iterations must be 1"),
    ({"routing": "attention"}, "routing attention has one weighted sum: routing_iterations must be 1"),
    ({"mask": "labels"}, "unknown mask 'labels'; did you mean 'label'?"),
    ({"mask": "none", "reconstruction_weight": 0}, "mask none is of what the decoder is fed: reconstruction_weight must be"),
    ({"test_routing_iterations": [1, 3]}, "must rise and not have routing_iterations, which is tested anyway, not [1, 3]"),
    ({"test_routing_iterations": [2, 1]}, "test_routing_iterations must rise"),
    ({"test_routing_iterations": [2, 2]}, "test_routing_iterations must rise"),
    (
        {"routing_iterations": 0},
        "routing_iterations must be greater than or equal to 1, not 0 (in grids/x.yaml); routing_iterations is: r: weighted "
        "sums computed",
    ),
    ({"test_routing_iterations": [0]}, "test_routing_iterations must be greater than or equal to 1"),
    (
        {"routing": "static", "routing_iterations": 1, "test_routing_iterations": [2]},
        "routing static has one weighted sum: test_routing_iterations must be empty",
    ),
    (
        {"test_sets": ["afnist"]},
        "unknown test set 'afnist'; did you mean 'affnist'? (choices: affnist, affnist_generated, blur",
    ),
    ({"test_sets": ["rotatd_30"]}, "unknown test set 'rotatd_30'; did you mean 'rotated_N'?"),
    ({"test_sets": ["affnist"]}, "affnist has images (1, 40, 40) with 10 classes, which don't fit those of mnist: (1, 28, 28)"),
    ({"dataset": "mnist_40", "test_sets": ["affnist", "affnist"]}, "test_sets must name each once"),
    ({"stop_at_error": 0.5, "validation_size": 0}, "stop_at_error looks at the validation error: validation_size must not"),
    ({"stop_at_error": -0.1}, "stop_at_error must be greater than or equal to 0"),
    ({"stop_at_error": 100.0}, "stop_at_error must be less than 100"),
    ({"squash": "eficient"}, "unknown squash 'eficient'; did you mean 'efficient'?"),
    ({"routing_gradient": "ful"}, "unknown routing_gradient 'ful'; did you mean 'full'?"),
    ({"routing": "uniform", "routing_iterations": 1, "none_of_the_above": True}, "with routing uniform it must be false"),
    ({"routing": "em", "none_of_the_above": True}, "with routing em it must be false"),
    ({"routing_gradient": "detached", "routing": "em"}, "needs routing dynamic and routing_iterations of 2 or more"),
    ({"routing_gradient": "detached", "routing_iterations": 1}, "needs routing dynamic and routing_iterations of 2 or more"),
    ({"routing": "attention(temperature=0)", "routing_iterations": 1}, "temperature must be above 0, not 0"),
    ({"routing": "em(scale=0)"}, "scale must be above 0, not 0"),
    ({"routing": "em", "capsule_bias": True}, "routing em has no sum to which a bias could be added"),
    ({"routing_iterations": 0}, "routing_iterations must be greater than or equal to 1, not 0"),
    ({"routing_iterations": 3.0}, "routing_iterations must be of type integer, not 3.0"),
    ({"routing_iterations": True}, "routing_iterations must be of type integer, not True"),
    ({"reconstruction_weight": -1e-9}, "reconstruction_weight must be greater than or equal to 0"),
    ({"reconstruction_weight": float("nan")}, "reconstruction_weight must be"),
    ({"reconstruction_weight": "5e-4"}, "reconstruction_weight must be of type number, not '5e-4'"),
    ({"dropout": 0.5}, "dropout means nothing to model capsnet: it must be 0.0, not 0.5"),
    ({"dropout": 1.0}, "dropout must be less than 1, not 1.0"),
    ({"dropout": -0.1}, "dropout must be greater than or equal to 0"),
    ({"loss": "hinge"}, "unknown loss 'hinge'; choices: margin, cross_entropy, sigmoid_cross_entropy, spread"),
    ({"loss": "margin(m_plus=0.1, m_minus=0.1)"}, "0 <= m_minus < m_plus <= 1 must hold, not m_minus=0.1, m_plus=0.1"),
    ({"loss": "margin(m_plus=1.1)"}, "lengths are in [0, 1)"),
    ({"loss": "margin(down_weight=0)"}, "down_weight must be above 0, not 0: without it, all lengths grow to 1"),
    ({"loss": "spread(start=0)"}, "0 < start <= end <= 1 must hold, not start=0, end=0.9"),
    ({"loss": "spread(end=0.1)"}, "0 < start <= end <= 1 must hold, not start=0.2, end=0.1"),
    ({"loss": "cross_entropy(scale=0)"}, "loss 'cross_entropy(scale=0)': scale must be above 0"),
    ({"loss": "sigmoid_cross_entropy(scale=-1)"}, "scale must be above 0, and at most a million, not -1"),
    ({"loss": "sigmoid_cross_entropy(threshold=1e999)"}, "threshold must be a number"),
    ({"loss": None}, "loss must be of type string, not None"),
    ({"learning_rate": 0.0}, "learning_rate must be greater than 0"),
    ({"learning_rate": float("inf")}, "learning_rate must be a finite number"),
    ({"learning_rate": False}, "learning_rate must be of type number, not False"),
    ({"epochs": 0}, "epochs must be greater than or equal to 1"),
    ({"batch_size": 0}, "batch_size must be greater than or equal to 1"),
    ({"test_batch_size": 0}, "test_batch_size must be greater than or equal to 1"),
    ({"adam_epsilon": 0.0}, "adam_epsilon must be greater than 0"),
    ({"primary_coupling": 32}, "primary_coupling must be of type boolean, not 32"),
    ({"votes_std": 0.0}, "votes_std must be greater than 0"),
    ({"weight_decay": -1e-4}, "weight_decay must be greater than or equal to 0"),
    ({"gradient_clip": -1.0}, "gradient_clip must be greater than or equal to 0"),
    ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean 'bf16'?"),
    ({"seed": 2**31}, "seed must be less than 2147483648"),
    ({"seed": -1}, "seed must be greater than or equal to 0"),
    *[
        ({name: 0}, f"{name} must be greater than or equal to 1")
        for name in (
            "conv_channels",
            "conv_kernel",
            "primary_types",
            "primary_dim",
            "primary_kernel",
            "primary_stride",
            "class_dim",
        )
    ],
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=lambda x: str(x)[:60] if isinstance(x, dict) else "")
def test_a_bad_value_is_named_with_its_place(values, message):
    with pytest.raises(InputError) as caught:
        make_config(values, "grids/x.yaml")
    assert message in str(caught.value)
    assert "in grids/x.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_field_has_a_bad_value_above():
    assert {name for values, _ in BAD for name in values} >= FIELDS.keys()


def test_all_bad_values_are_said_at_once():
    with pytest.raises(InputError) as caught:
        make_config({"epochs": 0, "seed": "x", "routing": "me", "sed": 1}, "the flags")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any(
        line.startswith("epochs must be greater than or equal to 1, not 0 (in the flags); epochs is: ") for line in lines
    )
    assert "seed must be of type integer, not 'x' (in the flags)" in lines


def test_logged_parameters_that_are_not_a_config_are_refused():
    params = RunConfig().to_params()
    for changed, message in [
        ({"train_size": "many"}, "train_size = 'many' is not a value of train_size"),
        ({"train_size": "1.5"}, "train_size must be of type integer"),
        ({"learning_rate": "NaN"}, "learning_rate must be"),
        ({"capsule_bias": "True"}, "capsule_bias = 'True' is not a value"),
        ({"gone": "1"}, "this version has no gone: another branch, or another version, logged it"),
    ]:
        with pytest.raises(InputError, match=message):
            from_params({**params, **changed})


def test_an_old_run_without_a_newer_field_has_its_default():
    params = RunConfig(seed=5).to_params()
    for name in ("capsule_bias", "loss", "dropout"):
        del params[name]
    assert from_params(params) == RunConfig(seed=5)


def test_a_field_of_another_branch_that_was_at_its_default_is_none():
    config = RunConfig(seed=5, epochs=3)
    assert config.differing == ["epochs", "seed"]
    assert RunConfig(seed=0).differing == []
    params = {**config.to_params(), "temperature": "1.0"}
    assert from_params(params, config.differing) == config
    with pytest.raises(InputError, match="this version has no temperature: another branch"):
        from_params(params, [*config.differing, "temperature"])


def test_every_registered_name_has_its_code():
    for path in [
        *(facts.network for facts in MODELS.values()),
        *(make().code for make in ROUTINGS.values()),
        *(facts.loader for facts in DATASETS.values()),
    ]:
        assert callable(load(path))


def test_a_config_is_made_and_refused_without_torch():
    code = (
        "import sys, capsnet, capsnet.config\n"
        "from capsnet.config import RunConfig, make_config\n"
        "RunConfig(lr_schedule='cosine')\n"
        "try: make_config({'lr_schedule': 'x'}, 'x')\n"
        "except ValueError: pass\n"
        "else: raise SystemExit('not refused')\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'mlflow', 'pandas', 'scipy', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["dataset", "model", "squash", *VARIANTS])
def test_the_help_lists_every_choice_with_its_parameters_and_in_this_order(name):
    said = FIELDS[name].description or ""
    choices = [*CHOICES[name]] if name in CHOICES else [usage(*choice) for choice in VARIANTS[name].items()]
    places = [re.search(rf"(?:^|[ ]){re.escape(choice)}(?=$|[ ,;])", said) for choice in choices]
    assert None not in places, said
    assert sorted(found.start() for found in places) == [found.start() for found in places]


def test_a_choice_that_somebody_adds_is_in_the_help_without_a_word_of_his():
    code = (
        "from capsnet import registry, schedules\n"
        "registry.DATASETS['mine'] = registry.DatasetFacts((3, 20, 24), 2, 9, 9, 'm:f')\n"
        "registry.SQUASHES['mine'] = 'm:f'\n"
        "schedules.SCHEDULES['mine'] = lambda *, factor, floor=0.5: None\n"
        "from capsnet.config import FIELDS\n"
        "print(*(FIELDS[name].description for name in ('dataset', 'squash', 'lr_schedule')), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dataset, squash, schedule = done.stdout.splitlines()
    assert dataset.endswith(", mine (3 x 20x24)")
    assert squash.endswith(", mine")
    assert schedule.endswith(", mine(factor=..., floor=0.5)")


def test_the_help_says_how_far_the_test_images_of_a_data_set_are_moved():
    """The default augmentation is that of MNIST, whose training images would be moved by less."""
    said = RunConfig.model_fields["dataset"].description or ""
    for reach, names in ((affnist.FREE // 2, ["mnist_40"]), (multimnist.REACH, ["multimnist", "multidigits"])):
        assert all(name in said for name in names)
        assert f"shift(pixels={reach})" in said
