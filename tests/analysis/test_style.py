"""The look: colours that all eyes tell apart, texts that fit, files that contradict no others."""

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analysis.style import (
    COLOURS,
    DIVERGING,
    SEQUENTIAL,
    NothingToDrawError,
    ink_on,
    luminance,
    scale,
    style,
    width_of,
    wrapped,
    write_all,
)
from capsnet.errors import InputError

# what is left of linear RGB without one kind of cone: Machado, Oliveira and Fernandes 2009, Table 1, severity 1
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def lab(colour, blindness="none"):
    """CIE L*a*b*, in which a distance of 2.3 is just seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(np.array(BLINDNESS[blindness]) @ linear, 1e-4, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_are_told_apart(blindness):
    for one, other in itertools.combinations([*COLOURS, "white"], 2):
        assert np.linalg.norm(lab(one, blindness) - lab(other, blindness)) > 15, (one, other)


def test_more_is_darker_and_no_effect_is_the_lightest():
    lightness = [lab(SEQUENTIAL(x))[0] for x in np.linspace(0, 1, 20)]
    assert all(np.diff(lightness) < 0)
    both = [lab(DIVERGING(x))[0] for x in np.linspace(0, 1, 21)]
    assert all(np.diff(both[:11]) > 0)
    assert all(np.diff(both[10:]) < 0)


def test_ink_can_be_read_on_any_colour():
    for colour in [*COLOURS, *np.random.default_rng(0).random((200, 3))]:
        lighter, darker = sorted([luminance(colour), luminance(ink_on(colour))], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5


@pytest.mark.parametrize("inches", [0.3, 1.0, 2.5])
def test_lines_fit_unless_a_word_does_not(inches):
    text = "lr schedule exponential(gamma=0.96, every=2000, floor=0.001), r 3\nn=2 of 3"
    lines = wrapped(text, inches).split("\n")
    assert " ".join(lines) == text.replace("\n", " ")
    assert all(width_of(line) <= inches or " " not in line for line in lines)
    assert all(width_of(f"{a} {b.split()[0]}") > inches for a, b in itertools.pairwise(lines[:-1]))  # none breaks too soon


def test_a_width_is_that_of_the_letters_drawn():
    with style():
        figure = Figure(dpi=200)
        text = figure.text(0, 0, "exponential(gamma=0.96)", fontsize=7)
        figure.draw_without_rendering()
        assert width_of(text.get_text()) == pytest.approx(text.get_window_extent().width / 200, rel=0.03)


@pytest.mark.parametrize(("values", "kind"), [([1, 9], "linear"), ([1, 11], "log"), ([0, 1, 11], "symlog"), ([0, 0], "linear")])
def test_an_axis_is_logarithmic_if_values_span_a_factor_of_ten(values, kind):
    panel = Figure().subplots()
    scale([panel], values)
    assert (panel.get_xscale(), panel.get_yscale()) == ("linear", kind)


def test_files_have_numbers_if_there_are_several_and_old_ones_go(tmp_path):
    def none():
        raise NothingToDrawError("nothing is there")

    def pages(count):
        return lambda: [Figure(figsize=(1, 1)) for _ in range(count)]

    paths, skipped = write_all({"a": pages(2), "b": pages(1), "c": pages(1)}, tmp_path / "new")
    assert [path.name for path in paths] == ["a-1.png", "a-1.pdf", "a-2.png", "a-2.pdf", "b.png", "b.pdf", "c.png", "c.pdf"]
    assert skipped == []
    (tmp_path / "new" / "a-mine.png").touch()
    paths, skipped = write_all({"a": pages(1), "b": none, "c": none}, tmp_path / "new")
    assert skipped == ["b, c: nothing is there"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a.png", "a.pdf", "a-mine.png"}
    assert all(path.stat().st_size > 500 for path in paths)


def test_a_figure_that_fails_costs_no_other_and_is_told_with_the_place(tmp_path, capsys, monkeypatch):
    def drawn():
        return [Figure(figsize=(1, 1))]

    def fails():
        raise KeyError("hue")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paths, skipped = write_all({"a": drawn, "b": fails, "c": drawn}, tmp_path / "new")
    assert [path.name for path in paths] == ["a.png", "a.pdf", "c.png", "c.pdf"]
    assert skipped == ["b: a fault of the program, KeyError: 'hue'"]
    said = capsys.readouterr().err
    assert said.startswith("error: KeyError: 'hue'; where it comes from stands in ")
    assert 'raise KeyError("hue")' in Path(said.split()[-1]).read_text()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), InputError("no such image")])
def test_what_the_next_figure_would_meet_too_ends_all(tmp_path, error):
    def fails():
        raise error

    with pytest.raises(type(error)):
        write_all({"a": fails}, tmp_path)


def test_drawing_leaves_the_callers_style_alone():
    with mpl.rc_context({"font.size": 33, "pdf.fonttype": 3}):
        with style():
            assert (mpl.rcParams["font.size"], mpl.rcParams["pdf.fonttype"]) == (8, 42)
        assert (mpl.rcParams["font.size"], mpl.rcParams["pdf.fonttype"]) == (33, 3)
