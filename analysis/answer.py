"""What is claimed of an experiment on one data set, in a sentence or two: the report's first, and the experiment's in MLflow.

It says no more than the chapters of findings.py do, and leaves out no kind of claim: means over settings, cells that no such
mean has, interactions, further test sets. Of an axis it names the largest difference.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from analysis.axes import axes_read
from analysis.cells import Cell
from analysis.comparisons import Comparisons, Difference
from analysis.contrasts import Contrast
from analysis.effects import axes_of
from analysis.fields import apart, name_of
from analysis.robustness import Further
from analysis.sentences import against, claim, count, differing, listed, out_of_reach, points, setting, support
from analysis.statistics import Comparison
from experiments.significance import ALPHA

SHORT = 3  # claims of one kind

Made = TypeVar("Made", Contrast, Difference)


def answer(
    comparisons: Comparisons, by_axis: Sequence[Contrast], by_two: Sequence[Contrast], further: Sequence[Further]
) -> str:
    """What is claimed of the axes and cells, or that nothing is; empty of a single cell.

    Args:
        comparisons: of one data set.
        by_axis, by_two: contrasts of single axes, and of two; none if there is a single axis.
        further: comparisons on further test sets.
    """
    reference = comparisons.reference
    if reference is None:
        return ""
    on_average = [each for each in by_axis if each.p_holm <= ALPHA]
    axes = axes_of(comparisons.cells)
    incomparable = set(axes) - {each.axes[0] for each in by_axis if each.rows}
    turns = strongest_first(each for each in by_two if each.p_holm <= ALPHA)
    elsewhere = [each for each in further if each.p_holm <= ALPHA]
    spoken = {axis for each in (*on_average, *turns) for axis in each.axes}
    alone = [each for each in comparisons.differences if each.p_holm <= ALPHA]
    own = {id(each): set(differing(each.cell.setting, reference.setting)) for each in alone}
    # of other cells what is claimed of their axes speaks
    alone = [each for each in alone if own[id(each)] & incomparable or own[id(each)].isdisjoint(spoken)]
    spoken |= {axis for each in alone for axis in own[id(each)]}
    compared = {each.axes[0] for each in by_axis if each.rows}
    silent = [name_of(axis) + _alone(axis, by_axis) for axis in axes if axis in compared - spoken]
    said = [
        _means(on_average, silent, axes, reference),
        _cells(alone, len(comparisons.differences), reference, beside=bool(by_axis)),
        _turns(turns),
        _elsewhere(elsewhere, reference),
    ]
    return " ".join(filter(None, said)) or _nothing(comparisons, by_axis)


def _means(claimed: Sequence[Contrast], silent: Sequence[str], axes: Sequence[str], reference: Cell) -> str:
    """``On average over the other axes, r = 3 against 1 lowers the test error by ...; for epochs no difference ...``."""
    if not claimed:
        return ""
    whose = dict.fromkeys(each.axes for each in claimed)
    best = _largest([max((each for each in claimed if each.axes == own), key=_size) for own in whose])
    over_all = all(len(each.rows) > 1 and not each.held for each in best)
    said = []
    for each in best:
        over = "" if over_all else where(each, axes, reference)
        said.append(claim(f"{pair(each)}{over}{',' if over else ''}", each.comparison))
    if more := len(claimed) - len(best):
        said.append(f"{count(more, 'more difference')} can be claimed")
    if silent:
        said.append(f"for {listed(silent)} no difference can be claimed{'' if over_all else ' on average'}")
    return ("On average over the other axes, " if over_all else "") + "; ".join(said) + "."


def _alone(axis: str, by_axis: Sequence[Contrast]) -> str:
    """`` (with r = 1)`` of an axis whose values stand beside each other at that alone, in each of several settings."""
    first, *rest = (each for each in by_axis if each.axes == (axis,) and each.rows)
    told = first.held and len(first.rows) > 1 and all(each.held == first.held for each in rest)
    return f" (with {setting(first.held)})" if told else ""


def _cells(claimed: Sequence[Difference], compared: int, reference: Cell, *, beside: bool) -> str:
    """Single cells against the reference; ``beside`` means over settings that other sentences tell of."""
    if not claimed:
        return ""
    best = _largest(claimed)
    said = [claim(against(each.cell.setting, reference.setting), each.comparison) for each in best]
    if more := len(claimed) - len(best):
        said.append(f"{count(more, 'more difference')} can be claimed")
    if not beside and len(claimed) < compared:
        said.append("no other difference to the reference can be claimed")
    return ("Of single cells, " if beside else "") + "; ".join(said) + "."


def _turns(claimed: Sequence[Contrast]) -> str:
    if not claimed:
        return ""
    said = f"W{_turned(claimed[0])[1:]}"
    more = f"; {count(len(claimed) - 1, 'more interaction')} can be claimed" if len(claimed) > 1 else ""
    return f"{said}{more}."


def _elsewhere(claimed: Sequence[Further], reference: Cell) -> str:
    if not claimed:
        return ""
    most = max(claimed, key=_size)
    said = claim(f"On {most.kind.called}, {against(most.cell.setting, reference.setting)}", most.comparison)
    more = f"; {count(len(claimed) - 1, 'more difference')} on further test sets can be claimed" if len(claimed) > 1 else ""
    return f"{said}{more}."


def _nothing(comparisons: Comparisons, by_axis: Sequence[Contrast]) -> str:
    known = [each for each in by_axis if each.rows]
    families = [[each.comparison for each in known if each.axes == axes] for axes in {each.axes for each in known}]
    compared = [*(each.comparison for each in comparisons.differences), *(each.comparison for each in known)]
    seeds = max((made.difference.n for made in compared), default=0)
    if not seeds:
        return "No difference can be claimed: no seed has finished in two cells."
    few = not comparisons.in_reach and all(map(out_of_reach, families))
    are = f"{count(seeds, 'seed')} {'is' if seeds == 1 else 'are'}"
    return "No difference can be claimed" + (f": {are} too few to show one." if few else ".")


def strongest_first(found: Iterable[Contrast]) -> list[Contrast]:
    """By p, and of equal ones by size."""
    return sorted(found, key=lambda each: (each.p_holm, -_size(each)))


def _largest(made: Sequence[Made]) -> list[Made]:
    """A few of them, in their order."""
    kept = sorted(made, key=_size, reverse=True)[:SHORT]
    return [each for each in made if any(each is one for one in kept)]


def _size(made: Contrast | Difference | Further) -> float:
    return abs(made.comparison.difference.mean)


def pair(contrast: Contrast, axis: int = 0, word: str = "against") -> str:
    """``r = 3 against 1``, and what changes with it: ``train size = 50 against 200 (and epochs = 80 against 20)``."""
    field, (value, other) = contrast.axes[axis], contrast.pairs[axis]
    said = _against(field, value, other, word)
    if len(contrast.axes) > 1 or not contrast.rows:
        return said
    own, its = (axes_read(contrast.rows[0][each,].setting) for each in (value, other))
    others = [each for each in own if each != field and each in its and own[each] != its[each]]
    follow = [_against(each, own[each], its[each], word) for each in others]
    return f"{said} (and {listed(follow)})" if follow else said


def _against(field: str, value: object, other: object, word: str) -> str:
    shown, beside = apart(field, value, other)
    return f"{name_of(field)} = {shown} {word} {beside}"


def turn(contrast: Contrast, family: Sequence[Comparison]) -> str:
    """How one axis changes the difference that another makes."""
    return f"{_turned(contrast)} ({support(contrast.comparison, contrast.p_holm, family)})"


def _turned(contrast: Contrast) -> str:
    changes = points(contrast.comparison.difference.mean, contrast.comparison)
    at = f", with {setting(contrast.held)}," if contrast.held else ""
    return f"with {pair(contrast, 1, 'instead of')}, the difference of {pair(contrast)}{at} changes by {changes}"


def where(contrast: Contrast, axes: Sequence[str], reference: Cell | None) -> str:
    """``, averaged over 4 settings of epochs and squash``, with how many seeds each has if they have not all as many.

    Of a single setting which it is: ``, with epochs = 5``. Axes that have a single value in all of them are named in any case.

    Args:
        contrast: some settings of which count.
        axes: those that can have an effect.
        reference: the cell that others are compared to.
    """
    settings = [{axis: each[axis] for axis in axes if axis in each} for each in contrast.others]
    if len(contrast.rows) > 1:
        at = f", with {setting(contrast.held)}" if contrast.held else ""
        varied = [axis for axis in axes if len({str(each.get(axis)) for each in settings}) > 1]
        over = f"{at}, averaged over {len(settings)} settings" + (f" of {listed(map(name_of, varied))}" if varied else "")
        numbers = [str(n) for n in contrast.seeds]
        shown = listed(numbers) if len(numbers) < 5 else f"{min(contrast.seeds)} to {max(contrast.seeds)}"
        return over + (f" (seeds: {shown})" if len(set(numbers)) > 1 else "")
    if not settings or not settings[0]:
        return ""
    if any(cell is reference for cell in contrast.rows[0].values()):
        return ", all else as in the reference"
    return f", with {setting(settings[0])}"
