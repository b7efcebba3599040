"""Variants with their parameters as text: one canonical spelling, and every mistake refused with what is needed to mend it."""

import pytest

from capsnet.errors import InputError, unknown
from capsnet.variants import parse, usage


def plain(): ...


def mixed(*, ratio: float, every: int, floor: float = 0.0, warmup: int = 0):
    if ratio < 0:
        raise ValueError(f"ratio must not be negative, but is {ratio}")
    return ratio, every, floor, warmup


REGISTRY = {"plain": plain, "mixed": mixed}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("plain", "plain"),
        (" plain( )\n", "plain"),
        ("mixed(ratio=0.5, every=3)", "mixed(ratio=0.5, every=3)"),
        ("mixed( every = 3,ratio=.5 )", "mixed(ratio=0.5, every=3)"),
        ("mixed(ratio=5e-1, every=3, warmup=0, floor=0)", "mixed(ratio=0.5, every=3)"),
        ("mixed(ratio=1, every=3)", "mixed(ratio=1, every=3)"),
        ("mixed(ratio=1.0, every=3)", "mixed(ratio=1, every=3)"),
        ("mixed(warmup=7, floor=1e-5, every=1_000, ratio=+2)", "mixed(ratio=2, every=1000, floor=1e-05, warmup=7)"),
        ("mixed(ratio=0.1, every=-3, floor=-0.5)", "mixed(ratio=0.1, every=-3, floor=-0.5)"),
        ("mixed(ratio=1e20, every=3)", "mixed(ratio=1e+20, every=3)"),
    ],
)
def test_one_canonical_text(text, canonical):
    variant = parse(text, REGISTRY, "thing")
    assert variant.text == canonical
    again = parse(canonical, REGISTRY, "thing")
    assert (again.text, again.name, again.arguments, again.made) == (
        variant.text,
        variant.name,
        variant.arguments,
        variant.made,
    ), "the canonical text means the same"


def test_the_function_gets_the_arguments_and_the_defaults():
    variant = parse("mixed(every=3, ratio=0.25)", REGISTRY, "thing")
    assert variant.made == (0.25, 3, 0.0, 0)
    assert variant.arguments == {"ratio": 0.25, "every": 3, "floor": 0.0, "warmup": 0}
    assert variant.name == "mixed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("palin", "unknown thing 'palin'; did you mean 'plain'? (choices: plain, mixed)"),
        ("zzz(x=1)", "unknown thing 'zzz'; choices: plain, mixed"),
        ("plain(x=1)", "thing 'plain(x=1)': plain takes no parameter, so 'x' has no meaning"),
        (
            "mixed(ratoi=1, every=2)",
            "unknown parameter 'ratoi' in thing 'mixed(ratoi=1, every=2)'; did you mean 'ratio'? "
            "(choices: ratio, every, floor, warmup)",
        ),
        (
            "mixed(floor=0.1)",
            "thing 'mixed(floor=0.1)' lacks ratio, every; write mixed(ratio=..., every=..., floor=0, warmup=0)",
        ),
        ("mixed", "thing 'mixed' lacks ratio, every; write mixed(ratio=..., every=..., floor=0, warmup=0)"),
        ("mixed(ratio=1, every=2.0)", "thing 'mixed(ratio=1, every=2.0)': every must be of type int, not 2.0"),
        ("mixed(ratio='1', every=2)", "thing 'mixed(ratio='1', every=2)': ratio must be of type float, not '1'"),
        ("mixed(ratio=1, every=True)", "thing 'mixed(ratio=1, every=True)': every must be of type int, not True"),
        ("mixed(ratio=True, every=1)", "thing 'mixed(ratio=True, every=1)': ratio must be of type float, not True"),
        ("mixed(ratio=None, every=1)", "thing 'mixed(ratio=None, every=1)': ratio must be of type float, not None"),
        ("mixed(ratio=-1, every=2)", "thing 'mixed(ratio=-1, every=2)': ratio must not be negative, but is -1"),
    ],
)
def test_a_mistake_is_named_with_what_mends_it(text, message):
    with pytest.raises(InputError) as caught:
        parse(text, REGISTRY, "thing")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "mixed(",
        "mixed)",
        "mixed(0.5, 3)",
        "mixed(ratio=0.5 every=3)",
        "mixed(ratio=0.5, ratio=0.5, every=3)",
        "mixed(ratio=half, every=3)",
        "mixed(ratio=2**3, every=3)",
        "mixed(ratio=__import__('os').getpid(), every=3)",
        "mixed(**{'ratio': 1, 'every': 2})",
        "mixed(*[1], every=2)",
        "mixed(ratio=1, every={[]: 2})",
        "mixed(ratio=1, every=2)(3)",
        "a.mixed(ratio=1, every=2)",
        "plain; plain",
        "two words",
        "'plain'",
        "17",
        "plain\0",
        "mixed(ratio=" + "-" * 50_000 + "1, every=1)",
        "mixed(ratio=1, every=" + "9" * 10_000 + ")",
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_a_malformed_text_is_refused_with_the_pattern(text):
    with pytest.raises(InputError, match=r"(?s)^malformed thing .* write a name, or a name with parameters: name\(key=value"):
        parse(text, REGISTRY, "thing")


def test_a_number_too_large_for_a_float_is_no_crash():
    text = f"mixed(ratio=1, every=1{'0' * 400})"
    assert parse(text, REGISTRY, "thing").text == text


def test_usage_shows_what_is_needed_and_the_defaults():
    assert usage("plain", plain) == "plain"
    assert usage("mixed", mixed) == "mixed(ratio=..., every=..., floor=0, warmup=0)"


def test_unknown_names_the_nearest_and_always_the_choices():
    expected = "unknown key 'rooting' in grids/paper.yaml; did you mean 'routing'? (choices: routing, seed)"
    assert unknown("key", "rooting", ["routing", "seed"], "grids/paper.yaml") == expected
    assert expected in unknown.__doc__
    assert unknown("key", 17, ["routing"]) == "unknown key 17; choices: routing"
