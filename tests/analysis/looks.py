"""What a reader sees of a figure: its words, and whether they fit."""

import itertools

from matplotlib.text import Text


def texts(figure):
    """All words."""
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(Text) if text.get_visible())


def smallest(figure):
    """The size of the smallest words, in points."""
    return min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text())


def shown_axes(figure):
    """Panels that are not empty places."""
    return [panel for panel in figure.axes if panel.axison]


def inside(figure):
    """Whether all that is drawn lies within the figure, to a hundredth of an inch."""
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.01


def clashes(axis):
    """Neighbouring tick labels that overlap."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    drawn = [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible() and label.get_text()]
    pairs = itertools.pairwise(drawn)
    return [(a.get_text(), b.get_text()) for a, b in pairs if a.get_window_extent().overlaps(b.get_window_extent())]
