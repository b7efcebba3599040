"""What every figure has to have: letters that are large enough, all inside, none over another."""

import itertools

from matplotlib.text import Text

TOLERANCE = 0.5  # points that boxes may overlap: a box is a little larger than its letters


def texts(figure):
    """All that is written, in one line."""
    return " ".join(text.get_text().replace("\n", " ") for text in written(figure))


def shown_axes(figure):
    return [panel for panel in figure.axes if panel.axison]


def legend_of(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def written(figure):
    """The texts that are drawn: of ticks only those within the view."""
    found = [*figure.texts, *(text for legend in figure.legends for text in [legend.get_title(), *legend.get_texts()])]
    for panel in shown_axes(figure):
        found += [*panel.texts, *(child for child in panel.get_children() if isinstance(child, Text))]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [*ticks, axis.label, axis.offsetText]
    return [text for text in dict.fromkeys(found) if text.get_visible() and text.get_text().strip()]


def overlapping(figure):
    """Pairs of texts that lie over each other."""
    tolerance = TOLERANCE * figure.dpi / 72
    boxes = [(text.get_text(), text.get_window_extent()) for text in written(figure)]
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > tolerance and min(a.y1, b.y1) - max(a.y0, b.y0) > tolerance
    ]


def inside(figure):
    """Whether all texts and panels lie within the figure, to a hundredth of an inch."""
    boxes = [thing.get_window_extent() for thing in [*written(figure), *shown_axes(figure), *figure.legends]]
    page, edge = figure.bbox, 0.01 * figure.dpi
    return all(min(b.x0 - page.x0, b.y0 - page.y0, page.x1 - b.x1, page.y1 - b.y1) > -edge for b in boxes)


def faults(figure):
    """What a reader would complain of; to be called within the style, since ticks are made anew when they are measured."""
    figure.draw_without_rendering()
    found = [f"{text.get_text()!r} has {text.get_fontsize()} pt" for text in written(figure) if text.get_fontsize() < 7]
    found += [f"{one!r} lies over {other!r}" for one, other in overlapping(figure)]
    width, height = figure.get_size_inches()
    if width not in (3.4, 7.0) or height > 9.5:
        found.append(f"{width} x {height} inches")
    return found if inside(figure) else [*found, "something is cut off"]
