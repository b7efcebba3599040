"""Grids: what YAML means, and that nothing wrong in it gets through."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from capsnet.config import FIELDS, RunConfig
from capsnet.errors import InputError
from experiments.labels import SHORT, brief_label
from experiments.sources import SHIPPED, parse_grid, read_grid

SMALL = "base: {dataset: digits, validation_size: 100, conv_kernel: 5, primary_kernel: 5, epochs: 1}\n"


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_every_shipped_grid_loads_and_says_what_it_answers(name: str) -> None:
    grid = read_grid(name)
    assert grid.cells
    assert len(grid.description) > 100
    assert "paper" in grid.description, "what the paper reports, or that it doesn't"
    assert re.search(r"[Cc]osts|takes|Needs a CUDA device|hours on", grid.description), "what it costs"


def test_the_shipped_grids_are_what_they_are_said_to_be() -> None:
    quick = read_grid("quick")
    assert (len(quick.cells), len(list(quick.configs))) == (8, 72)
    paper = read_grid("paper")
    cells = {(cell.configs[0].routing_iterations, cell.configs[0].reconstruction_weight) for cell in paper.cells}
    assert cells == {(1, 0.0), (1, 5e-4), (3, 0.0), (3, 5e-4)}
    for _, config in paper.configs:
        assert config.training_images == 60_000
        # all else that the paper fixes is the default, which other tests hold to the paper
        free = {"routing_iterations", "reconstruction_weight", "seed", "validation_size", "precision"}
        free |= {"epochs", "lr_schedule", "learning_rate"}  # fewer epochs, and a schedule that ends with them
        assert {k for k in RunConfig.model_fields if getattr(config, k) != RunConfig.model_fields[k].default} <= free
    assert [len(cell.configs) for cell in paper.cells] == [6] * 4
    recipe = {
        (c.learning_rate, c.lr_schedule, c.precision) for name in ("paper", "mnist-full") for _, c in read_grid(name).configs
    }
    assert len(recipe) == 1, "one was found to work for the other"


@pytest.mark.parametrize(
    ("name", "models"), [("affnist", {"capsnet", "cnn_matched", "cnn"}), ("affnist-small", {"capsnet", "cnn_matched"})]
)
def test_the_grids_of_affnist_train_at_random_places_and_stop_at_one_error(name: str, models: set[str]) -> None:
    configs = [config for _, config in read_grid(name).configs]
    assert {config.model for config in configs} == models
    for config in configs:
        assert (config.dataset, config.augmentation) == ("mnist_40", "shift(pixels=6)")
        assert config.stop_at_error == configs[0].stop_at_error > 0
        assert "affnist_generated" in config.test_sets
        assert ("affnist" in config.test_sets) == (name == "affnist")


def test_axes_make_a_product_and_also_adds_single_cells() -> None:
    text = SMALL + (
        "axes: {routing_iterations: [1, 3], reconstruction_weight: [0, 5e-4, 1.e-2]}\n"
        "also: [{routing: uniform, routing_iterations: 1}]\nseeds: [7, 3]\n"
    )
    grid = parse_grid(text, "g", "g.yaml")
    found = [(c.routing, c.routing_iterations, c.reconstruction_weight, c.seed) for cell in grid.cells for c in cell.configs]
    product = [("dynamic", r, w, s) for r in (1, 3) for w in (0.0, 5e-4, 1e-2) for s in (7, 3)]
    assert found == [*product, ("uniform", 1, 5e-4, 7), ("uniform", 1, 5e-4, 3)]


def test_exclude_leaves_out_cells_that_have_all_that_an_entry_names() -> None:
    text = SMALL + (
        "axes: {routing: [dynamic, uniform, random], routing_iterations: [1, 2, 3], decoder_hidden: [[4], [4, 8]]}\n"
        "exclude:\n"
        "  - {routing: [uniform, random], routing_iterations: [2, 3]}\n"
        "  - {routing: random, decoder_hidden: [4, 8]}\n"  # a list that is one value
        "  - {decoder_hidden: [[4]], routing_iterations: 3}\n"
        "also: [{routing: random, decoder_hidden: [4, 8], routing_iterations: 1}]"  # which is beside the product
    )
    found = [
        (c.routing, c.routing_iterations, c.decoder_hidden)
        for cell in parse_grid(text, "g", "g.yaml").cells
        for c in cell.configs
    ]
    assert found == [
        ("dynamic", 1, (4,)),
        ("dynamic", 1, (4, 8)),
        ("dynamic", 2, (4,)),
        ("dynamic", 2, (4, 8)),
        ("dynamic", 3, (4, 8)),
        ("uniform", 1, (4,)),
        ("uniform", 1, (4, 8)),
        ("random", 1, (4,)),
        ("random", 1, (4, 8)),
    ]


def test_cells_that_are_only_tested_on_other_images_train_the_same_network() -> None:
    text = SMALL + "axes: {routing_iterations: [1, 3], test_sets: [[], [noisy_20]], test_routing_iterations: [[], [5]]}"
    [said] = parse_grid(text, "g", "g.yaml").remarks
    assert "6 cells more than there are networks (what it is tested on changes no training, and one cell can have" in said


def test_cells_that_train_the_same_network_are_told_of() -> None:
    text = SMALL + "axes: {routing: [dynamic, uniform], routing_iterations: [1, 3], batch_size: [8, 16, 32]}\n"
    text += "exclude: [{routing: uniform, routing_iterations: 3}]\nseeds: 2"
    [said] = parse_grid(text, "g", "g.yaml").remarks
    pair = "batch_size=8 and routing=uniform routing_iterations=1 batch_size=8, and so on: 3 cells more than there are networks"
    assert f"twice, as routing=dynamic routing_iterations=1 {pair} (uniform routing is dynamic routing with r = 1);" in said
    [said] = parse_grid(SMALL + "axes: {decoder_hidden: [[4], [8]], reconstruction_weight: [0, 1]}", "g", "g.yaml").remarks
    assert "as decoder_hidden=[4] reconstruction_weight=0 and decoder_hidden=[8] reconstruction_weight=0 (without" in said
    counted = "also: [{routing: uniform, routing_iterations: 1, train_size: 0}, {routing_iterations: 1, train_size: 1337}]"
    assert len(parse_grid(SMALL + counted, "g", "g.yaml").remarks) == 1, "all images, and as many"
    different = parse_grid(SMALL + "also: [{routing_iterations: 3}, {routing: uniform, routing_iterations: 1}]", "g", "g.yaml")
    assert different.remarks == []


def test_of_an_axis_that_is_wrong_no_value_is_asked_for() -> None:
    with pytest.raises(InputError) as caught:
        parse_grid("axes: {epochs: 3}\nexclude: [{epochs: 3}]", "g", "g.yaml")
    assert str(caught.value) == "axis epochs of g.yaml must be a list of one value or more, not 3"


def test_true_and_one_are_different_values_to_exclude() -> None:
    text = SMALL + "axes: {capsule_bias: [false, true], batch_size: [1, 2]}\nexclude: [{capsule_bias: 1}]"
    with pytest.raises(InputError, match=r"1 in exclude of g.yaml is no value of the axis capsule_bias; values: false, true"):
        parse_grid(text, "g", "g.yaml")


@pytest.mark.parametrize("routings", ["[uniform, dynamic]", "[dynamic, uniform]"])
@pytest.mark.parametrize("iterations", ["[1, 3]", "[5, 1, 3]"])
def test_the_entry_that_an_error_proposes_makes_the_grid_valid_and_leaves_out_no_good_cell(
    routings: str, iterations: str
) -> None:
    axes = f"batch_size: [1, 2], routing: {routings}, routing_iterations: {iterations}, learning_rate: [0.1, 0.2]"
    text = f"{SMALL}axes: {{{axes}}}"
    with pytest.raises(InputError, match="must be 1") as caught:
        parse_grid(text, "g", "g.yaml")
    _, message = str(caught.value).splitlines()
    entry = message.removeprefix("to leave out what can't be: ")
    cells = parse_grid(f"{text}\n{entry}", "g", "g.yaml").cells
    assert len(cells) == 4 * (1 + len(json.loads(iterations)))


def test_what_is_proposed_holds_the_entries_that_are_there_and_can_be_pasted() -> None:
    """Also of two models and several faults at once; texts with commas are quoted."""
    schedule = "step(gamma=0.5, every=2)"
    axes = f"model: [capsnet, cnn_matched], routing: [dynamic, uniform], lr_schedule: [constant, '{schedule}']"
    axes = f"axes: {{{axes}, routing_iterations: [1, 3]}}"
    text = f"{SMALL}{axes}\nexclude: [{{model: cnn_matched, lr_schedule: '{schedule}'}}]"
    with pytest.raises(InputError) as caught:
        parse_grid(text, "g", "g.yaml")
    proposed = str(caught.value).splitlines()[-1].removeprefix("to leave out what can't be: ")
    assert proposed.startswith(f'exclude: [{{model: cnn_matched, lr_schedule: "{schedule}"}}, {{')
    found = parse_grid(f"{SMALL}{axes}\n{proposed}", "g", "g.yaml").cells
    assert len(found) == 2 * 3 + 1


@pytest.mark.parametrize(
    "axes",
    [
        "{batch_size: [-1, 2], routing_iterations: [1, 3]}",  # a value is wrong by itself
        "{routing: [uniform], routing_iterations: [3, 5]}",  # nothing would be left
        "{routing: [dynamic, uniform], routing_iterations: [3, 5]}",  # of uniform
    ],
)
def test_no_entry_is_proposed_where_a_value_never_fits(axes: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_grid(f"{SMALL}axes: {axes}", "g", "g.yaml")
    assert "to leave out" not in str(caught.value)


def test_a_number_with_an_exponent_is_a_number() -> None:
    # in YAML 1.1, which PyYAML reads, 5e-4 is text
    assert parse_grid("base: {learning_rate: 5e-4}", "g", "g.yaml").cells[0].configs[0].learning_rate == 5e-4


def test_a_label_holds_what_differs_and_nothing_else() -> None:
    text = SMALL + "axes: {routing_iterations: [1, 3], lr_schedule: [constant, 'step(gamma=0.5, every=2)']}"
    labels = [cell.label for cell in parse_grid(text, "g", "g.yaml").cells]
    assert labels[0] == "routing_iterations=1 lr_schedule=constant"
    assert labels[3] == "routing_iterations=3 lr_schedule=step(gamma=0.5,every=2)"
    assert parse_grid(SMALL, "g", "g.yaml").cells[0].label == "base"


def test_a_label_names_nothing_that_the_cells_model_does_not_read() -> None:
    text = SMALL + "axes: {routing_iterations: [1, 3], capsule_bias: [false, true]}\nalso: [{model: cnn_matched}]"
    labels = [cell.label for cell in parse_grid(text, "g", "g.yaml").cells]
    assert labels[0] == "model=capsnet capsule_bias=false routing_iterations=1"
    assert labels[4] == "model=cnn_matched capsule_bias=false"


def test_a_label_spells_values_as_yaml_does() -> None:
    """So that they can be written into a grid as they are shown."""
    text = SMALL + (
        "also:\n"
        "  - {capsule_bias: true, test_routing_iterations: [1, 2, 5], decoder_hidden: [8], weight_decay: 1e-5}\n"
        "  - {dataset: mnist_40, test_sets: [affnist, affnist_generated]}\n"
    )
    first, second = parse_grid(text, "g", "g.yaml").cells
    assert "capsule_bias=true" in first.label
    assert "test_routing_iterations=[1,2,5]" in first.label
    assert "test_sets=[affnist,affnist_generated]" in second.label
    for cell in (first, second):
        told = YAML(typ="safe", pure=True).load("{" + cell.label.replace("=", ": ").replace(" ", ", ").replace(":,", ":") + "}")
        config = cell.configs[0]
        assert told == {name: list(v) if isinstance(v := getattr(config, name), tuple) else v for name in told}
        assert len(told) > 4


def test_a_run_is_named_briefly_and_by_nothing_that_another_label_gives() -> None:
    label = "routing_iterations=1 reconstruction_weight=0.0005 lr_schedule=step(gamma=0.5,every=2) seed=0"
    assert brief_label(label) == "r=1 recon=0.0005 schedule=step(gamma=0.5,every=2) seed=0"
    assert brief_label("trial 3: learning_rate=0.001 batch_size=64") == "trial 3: lr=0.001 batch_size=64"
    assert brief_label("base seed=0") == "base seed=0"
    assert set(SHORT) <= set(FIELDS)
    assert not set(SHORT.values()) & set(FIELDS)
    assert len(set(SHORT.values())) == len(SHORT)


def test_all_cells_get_a_seed_before_any_gets_the_next() -> None:
    grid = parse_grid(SMALL + "axes: {routing_iterations: [1, 3]}\nseeds: 2", "g", "g.yaml")
    assert [(c.seed, c.routing_iterations) for _, c in grid.configs] == [(0, 1), (0, 3), (1, 1), (1, 3)]


BAD = {
    "unknown top key": ("axis: {epochs: [1]}", ["unknown key 'axis' in g.yaml", "did you mean 'axes'"]),
    "misspelt field in base": (
        "base: {rooting_iterations: 3}",
        ["'rooting_iterations' in base of g.yaml", "'routing_iterations'"],
    ),
    "misspelt field in axes": ("axes: {epoch: [3]}", ["'epoch' in axes of g.yaml", "'epochs'"]),
    "misspelt field in also": ("also: [{epoch: 3}]", ["'epoch' in also of g.yaml", "'epochs'"]),
    "text for a number": ("base: {epochs: many}", ["epochs", "integer", "'many'", "g.yaml"]),
    "fraction for a count": ("base: {epochs: 1.5}", ["epochs", "1.5"]),
    "out of range": ("base: {learning_rate: -1}", ["learning_rate", "greater than 0", "-1"]),
    "not a number": ("base: {reconstruction_weight: .nan}", ["reconstruction_weight", "finite"]),
    "unknown dataset": ("base: {dataset: minst}", ["'minst'", "did you mean 'mnist'", "fashion_mnist", "digits"]),
    "unknown schedule": ("axes: {lr_schedule: [cosin]}", ["'cosin'", "one_cycle", "plateau"]),
    "unknown routing": ("base: {routing: me}", ["'me'", "dynamic", "uniform"]),
    "malformed schedule": ("base: {lr_schedule: 'step(gamma=0.5'}", ["malformed lr_schedule", "step(gamma=0.5"]),
    "axis not a list": ("axes: {epochs: 3}", ["axis epochs", "list", "3"]),
    "axis without values": ("axes: {epochs: []}", ["axis epochs", "one value or more"]),
    "empty": ("description: nothing", ["empty grid", "g.yaml"]),
    "nothing at all": ("", ["g.yaml", "mapping"]),
    "not a mapping": ("- 1", ["g.yaml", "mapping"]),
    "base is a list": ("base: [1]", ["base of g.yaml", "mapping"]),
    "an empty cell in also": ("also: [{epochs: 3}, null]", ["also of g.yaml has an empty cell"]),
    "half of a surrogate pair": ('axes: {epochs: [1, 2]}\ndescription: "\\ud800"', ["description of g.yaml must be text"]),
    "too many seeds in a list": (
        f"base: {{epochs: 3}}\nseeds: {list(range(10_001))}",
        ["seeds of g.yaml must be 10000 at most"],
    ),
    "nested without end": (f"base: {{decoder_hidden: {'[' * 900}1{']' * 900}}}", ["g.yaml is nested too deeply"]),
    "also is a mapping": ("also: {epochs: 2}", ["also of g.yaml", "list"]),
    "exclude is a mapping": ("axes: {epochs: [2, 3]}\nexclude: {epochs: 2}", ["exclude of g.yaml must be a list"]),
    "an empty entry in exclude": ("axes: {epochs: [2, 3]}\nexclude: [{}]", ["exclude of g.yaml has an empty entry"]),
    "a field that is no axis": (
        "base: {epochs: 3}\naxes: {routing_iterations: [1, 3]}\nexclude: [{epochs: 3}]",
        ["epochs in exclude of g.yaml is no axis; axes: routing_iterations"],
    ),
    "exclude without axes": (
        "base: {epochs: 3}\nexclude: [{epochs: 3}]",
        ["epochs in exclude of g.yaml is no axis; axes: none"],
    ),
    "misspelt field in exclude": (
        "axes: {epochs: [2, 3]}\nexclude: [{epoch: 3}]",
        ["'epoch' in exclude of g.yaml", "'epochs'"],
    ),
    "no value of the axis": (
        "axes: {epochs: [2, 3]}\nexclude: [{epochs: [3, 4]}]",
        ["4 in exclude", "axis epochs; values: 2, 3"],
    ),
    "an entry without effect, and what else is wrong": (
        "axes: {epochs: [2, 3], routing: [dynamic, bogus]}\nexclude: [{epochs: 2}, {epochs: 2}]\nalso: [{epochs: -3}]",
        ["the 2. entry of exclude", "unknown routing 'bogus'", "epochs must be greater than or equal to 1, not -3"],
    ),
    "all that is wrong at once": (
        "axes: {epochs: 3}\nexclude: [{epochs: 3, routing: me, colour: 1}]\nseeds: 0",
        ["axis epochs of g.yaml must be a list", "routing in exclude of g.yaml is no axis", "'colour' in exclude", "seeds of"],
    ),
    "no value at all": ("axes: {epochs: [2, 3]}\nexclude: [{epochs: []}]", ["[] in exclude", "axis epochs; values: 2, 3"]),
    "everything is left out": (
        "axes: {epochs: [2, 3]}\nexclude: [{epochs: [2, 3]}]",
        ["exclude of g.yaml leaves out every cell"],
    ),
    "left out twice": (
        "axes: {epochs: [2, 3]}\nexclude: [{epochs: 3}, {epochs: [3]}]",
        ["the 2. entry of exclude of g.yaml leaves out nothing"],
    ),
    "a value twice": ("axes: {epochs: [2, 3, 2]}", ["axis epochs of g.yaml has 2 twice"]),
    "a key twice": ("base: {epochs: 2}\nseeds: 2\nbase: {epochs: 3}", ["g.yaml has the key 'base' twice, in line 3"]),
    "equal in another spelling": (
        "axes: {lr_schedule: ['step(gamma=0.5, every=2)', 'step(every=2,gamma=.5)']}",
        ["two equal cells"],
    ),
    "all images and as many": (
        "base: {dataset: digits, validation_size: 500, conv_kernel: 5, primary_kernel: 5}\naxes: {train_size: [0, 300, 937]}",
        ["two equal cells, the 1. and the 3.: train_size=937 trains on the same images as train_size=0"],
    ),
    "also repeats a cell": ("axes: {epochs: [2, 3]}\nalso: [{epochs: 3}]", ["two equal cells", "epochs=3"]),
    "base and axes": ("base: {epochs: 1}\naxes: {epochs: [2]}", ["epochs", "both in base and in axes"]),
    "seed as an axis": ("axes: {seed: [1, 2]}", ["seed", "'seeds'"]),
    "no seeds": ("base: {epochs: 1}\nseeds: 0", ["seeds", "0"]),
    "seeds without end": ("base: {epochs: 1}\nseeds: 1099511627776", ["seeds", "10000 at most"]),
    "a seed twice": ("base: {epochs: 1}\nseeds: [1, 1]", ["seeds", "different"]),
    "a seed below": ("base: {epochs: 1}\nseeds: [-1]", ["seeds of g.yaml", "whole numbers from 0, not [-1]"]),
    "seeds as text": ("base: {epochs: 1}\nseeds: six", ["seeds", "'six'"]),
    "true is no number of seeds": ("base: {epochs: 1}\nseeds: true", ["seeds", "True"]),
    "description is a list": ("base: {epochs: 1}\ndescription: [1]", ["description", "text"]),
    "a field twice": ("base: {epochs: 1, epochs: 2}", ["g.yaml has the key 'epochs' twice, in line 1"]),
    "broken YAML": ("base: {epochs: 1", ["g.yaml", "not valid YAML", "line"]),
    "a tag that would make an object": ("base: !!python/object:os.system {}", ["g.yaml", "YAML"]),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_grid_is_refused_with_what_is_needed_to_mend_it(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_grid(text, "g", "g.yaml")
    for word in words:
        assert word in str(caught.value)


def test_everything_wrong_is_said_at_once_and_once() -> None:
    text = "base: {epochs: 0, learning_rate: -1}\naxes: {routing_iterations: [1, 2]}\nseeds: 3"
    with pytest.raises(InputError) as caught:
        parse_grid(text, "g", "g.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_an_unknown_grid_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown grid 'papr'; did you mean 'paper'.*mnist-small.*quick"):
        read_grid("papr")
    (tmp_path / "mine.yaml").write_text(SMALL)
    with pytest.raises(InputError, match=r"min.yaml can't be read: No such file or directory; did you mean .*mine.yaml\?"):
        read_grid(str(tmp_path / "min.yaml"))
    with pytest.raises(InputError, match=r"none.yaml can't be read"):
        read_grid(str(tmp_path / "none.yaml"))


def test_what_is_no_yaml_file_is_called_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("notes.md", "mine.yaml", "grids/mine.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("base: {}")
    for name in ("notes.md", "grids/notes.md", "./paper"):
        with pytest.raises(InputError, match=rf"^the grid {name} is no .yaml file; shipped ones: .*quick"):
            read_grid(name)
    with pytest.raises(InputError, match=r"the grid grids/mine is no .yaml file; did you mean grids/mine.yaml\?"):
        read_grid("grids/mine")
    with pytest.raises(InputError, match=r"unknown grid 'mine'; .*the path of a .yaml file; did you mean mine.yaml\?"):
        read_grid("mine")


def test_the_grid_of_losses_varies_the_constants_of_the_margin_loss() -> None:
    losses = [config.variant("loss") for _, config in read_grid("losses").configs]
    values = [tuple(sorted(loss.arguments.items())) for loss in losses if loss.name == "margin"]
    for constant in ("m_plus", "m_minus", "down_weight"):
        assert len({dict(value)[constant] for value in values}) > 1, constant
