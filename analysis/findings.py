"""What may be said of the cells of an experiment, and what may not, in plain sentences; every number is the statistics'.

A difference is claimed if its corrected p is at most ALPHA. Where none is, it is not said that there is none, but how small a
one would be missed. The sentences are plain text: whoever shows them escapes them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis import contrasts, robustness
from analysis.answer import answer, pair, strongest_first, turn, where
from analysis.axes import followers_note
from analysis.blocks import rows_beside
from analysis.cells import Cell
from analysis.comparisons import Comparisons
from analysis.contrasts import MOST_VALUES, Contrast
from analysis.effects import axes_of
from analysis.fields import name_of
from analysis.gaps import missing_runs, progress
from analysis.robustness import Further
from analysis.sentences import (
    NAMED,
    Chapter,
    Finding,
    against,
    count,
    finding_of,
    listed,
    missed,
    out_of_reach,
    percent,
    setting,
    some,
)
from analysis.statistics import MOST_PAIRS
from analysis.wording import interval_text
from experiments.significance import ALPHA, seeds_needed

METHOD = (
    "Differences are in percentage points of test error and paired by seed; n counts the pairs. p is of an exact two-sided "
    f"sign-flip test (of more than {MOST_PAIRS} pairs, of a paired t-test), and corrected where several differences are asked "
    f"for at once; intervals are Student's t and not corrected. A difference is claimed if p is at most {ALPHA:g}; where its "
    "interval includes 0, as of one pair far from the others, its size is uncertain. Each axis is judged by itself, so that "
    "one of several is claimed by chance more often than that. A difference would be missed if a paired t-test without "
    "correction, with the sd seen here, found it in fewer than 80% of such experiments; the test that decides misses larger "
    "ones, too."
)


@dataclass(frozen=True)
class Findings:
    """The answer in a line or two, and all that can be said."""

    answer: str
    chapters: Sequence[Chapter]


def find(comparisons: Comparisons) -> Findings:
    """The findings of an experiment."""
    if not any(cell.error.n for cell in comparisons.cells):
        return Findings(f"There is no result yet: {progress(comparisons.cells)}.", [missing_runs(comparisons)])
    parts = {name: _find(part) for name, part in comparisons.by_dataset.items()}
    if len(parts) == 1:
        [[answer, chapters]] = parts.values()
    else:  # errors on two data sets have neither difference nor order
        answer = " ".join(f"On {name}: {said}" for name, (said, _) in parts.items())
        chapters = [replace(each, title=f"{each.title} on {name}") for name, (_, own) in parts.items() for each in own]
    return Findings(answer, [*chapters, missing_runs(comparisons)])


def _find(comparisons: Comparisons) -> tuple[str, list[Chapter]]:
    """What is found on one data set: the answer, and the chapters."""
    cells, reference = comparisons.cells, comparisons.reference
    if not any(cell.error.n for cell in cells):
        said = f"There is no result yet: {progress(cells)}."
        return said, [Chapter("Result", "", [Finding(said)])]
    chapters, by_axis, by_two = [_lowest(cells) if reference else _only(comparisons)], list[Contrast](), list[Contrast]()
    if len(axes := axes_of(cells)) > 1:  # of a single axis, its cells say the same
        by_axis, by_two = contrasts.of_axes(comparisons), contrasts.of_two_axes(comparisons)
        many = sorted({whose for axis in axes if (whose := contrasts.base_of(comparisons, axis)[1])}, reverse=True)
        follow = followers_note([cell.setting for cell in cells])
        chapters += [_by_axis(comparisons, by_axis, axes, follow, " or ".join(many)), _interactions(by_two)]
    further = robustness.judged(comparisons)
    if reference:
        chapters.append(_by_cell(comparisons, reference))
        chapters += [_on_further_sets(further, reference)] if further else []
    return f"{answer(comparisons, by_axis, by_two, further)} {chapters[0].findings[0].text}".strip(), chapters


def _only(comparisons: Comparisons) -> Chapter:
    """The result of a single cell."""
    [cell], [images] = comparisons.cells, comparisons.images
    said = [Finding(f"The test error is {percent(cell)}.")]
    intervals = [cell.error, *([images.interval] if images else [])]
    texts = [f"the {each.kind} is {interval_text(each)}" for each in intervals if not math.isnan(each.low)]
    if texts:
        said.append(Finding(f"T{listed(texts)[1:]}."))
    return Chapter("Result", "", said)


def _lowest(cells: Sequence[Cell]) -> Chapter:
    """The cell with the lowest mean, and which others it can be told apart from.

    It is chosen by the numbers that it is compared by, as if each two cells had been compared: p is multiplied by their pairs.
    """
    best, *rest = sorted((cell for cell in cells if cell.error.n), key=lambda cell: cell.error.mean)
    title = "Lowest error"
    if not rest:
        return Chapter(title, "", [Finding(f"Only one cell has a result: {percent(best)}, with {setting(best.setting)}.")])
    equal = sum(abs(cell.error.mean - best.error.mean) < 1e-9 for cell in rest)
    also = f"; {count(equal, 'other cell')} {'has' if equal == 1 else 'have'} the same" if equal else ""
    said = Finding(f"The lowest mean test error is {percent(best)}, with {setting(best.setting)}{also}.")
    likely = Finding("Chosen for being the lowest, it is likely lower than the mean of new seeds would be.")
    return Chapter(title, "", [said, _apart(best, rest), likely])


def _apart(best: Cell, rest: Sequence[Cell]) -> Finding:
    """Which of the rest have a higher error than the best."""
    compared = list(zip(rest, contrasts.of_cells(rest, best), strict=True))
    known = [made for _, made in compared if made.difference.n]
    pairs = (len(rest) + 1) * len(rest) // 2
    if not known:
        return Finding("It cannot be compared: no seed has finished both there and in another cell.")
    if min(made.smallest_p for made in known) * pairs > ALPHA:
        seeds = count(max(made.difference.n for made in known), "seed")
        return Finding(
            f"It cannot be told apart from that of any other cell: {seeds} cannot show a difference, however large, when the "
            f"lowest of {len(rest) + 1} is chosen first; that takes {seeds_needed(pairs)}."
        )
    near = [cell for cell, made in compared if not (made.p * pairs <= ALPHA and made.difference.mean > 0)]
    why = f" p is multiplied by {pairs}, the pairs of cells, because the lowest was chosen among them." if pairs > 1 else ""
    if len(near) == len(rest):
        return Finding(f"It cannot be told apart from that of any other cell.{why}")
    if not near:
        return Finding(f"It is lower than that of {'every' if len(rest) > 1 else 'the'} other cell.{why}", claims=True)
    others = some([setting(cell.setting) for cell in near], "cell")
    apart = f"It is lower than that of {len(rest) - len(near)} of the {len(rest)} other cells"
    return Finding(f"{apart}, but cannot be told apart from that of {others}.{why}", claims=True)


def _by_axis(comparisons: Comparisons, found: Sequence[Contrast], axes: Sequence[str], follow: str, base: str) -> Chapter:
    """Each axis; ``follow`` says which fields follow one of them, ``base`` to whose value those of long axes are compared."""
    said: list[Finding] = []
    far: dict[int, list[str]] = {}  # seeds that it takes -> axes
    for axis in axes:
        of_axis = [each for each in found if each.axes == (axis,)]
        family = [each.comparison for each in of_axis if each.rows]
        if not family:
            planned = any(len(row) > 1 for row in rows_beside(comparisons.cells, [axis]))
            why = (
                "no seed has finished two at otherwise equal settings"
                if planned
                else "no two stand at otherwise equal settings"
            )
            said.append(Finding(f"Values of {name_of(axis)} cannot be compared: {why}."))
            continue
        if out_of_reach(family):
            far.setdefault(seeds_needed(len(family)), []).append(name_of(axis))
        for each in of_axis:
            over = where(each, axes, comparisons.reference)
            said.append(finding_of(pair(each), each.comparison, each.p_holm, family, over))
    lead = (
        "Each two values of an axis, at otherwise equal settings. A seed counts with the settings in which it finished with "
        "both. p is corrected by Holm's method for the pairs of one axis."
    )
    if any(len(each.rows) == 1 for each in found):
        lead += " At a single setting it is that of the two cells, where one is the reference, if that is corrected for more."
    if any(len(set(each.seeds)) > 1 for each in found):
        lead += " Where not all settings have as many seeds, those with more weigh more."
    lead += f" {follow[0].upper()}{follow[1:]}." if follow else ""
    if base:
        lead += f" Of more than {MOST_VALUES} values, each is compared to {base}."
    if far:
        takes = ", ".join(f"{seeds} for {listed(names)}" for seeds, names in far.items())
        lead += f" With so few seeds no difference can be claimed, however large: it takes {takes}."
    return Chapter("Each axis by itself", lead, said)


def _interactions(found: Sequence[Contrast]) -> Chapter:
    title, family = "Interactions", [each.comparison for each in found]
    if not found:
        why = "no seed has finished two values of each of two axes at otherwise equal settings"
        return Chapter(title, "", [Finding(f"None can be judged: {why}.")])
    ordered = strongest_first(found)
    claimed = [each for each in ordered if each.p_holm <= ALPHA]
    corrected = f" p is corrected by Holm's method for {len(found)} such comparisons." if len(found) > 1 else ""
    lead = f"Whether the difference between two values of an axis depends on another axis.{corrected} {out_of_reach(family)}"
    said = [Finding(f"W{turn(each, family)[1:]}.", claims=True) for each in claimed[:NAMED]]
    if len(claimed) > NAMED:
        said.append(Finding(f"{count(len(claimed) - NAMED, 'more interaction')} can be claimed.", claims=True))
    if claimed:
        return Chapter(title, lead.strip(), said)
    said = [Finding(f"None can be claimed. The strongest: {turn(ordered[0], family)}.")]
    if not out_of_reach(family) and (how_small := missed(family)):
        said.append(Finding(f"Of such changes, {how_small}."))
    return Chapter(title, lead.strip(), said)


def _by_cell(comparisons: Comparisons, reference: Cell) -> Chapter:
    family = [each.comparison for each in comparisons.differences if each.comparison.difference.n]
    result = f"it has {percent(reference)}" if reference.error.n else "it has no result"
    corrected = f" p is corrected by Holm's method for {len(family)} comparisons." if len(family) > 1 else ""
    lead = (
        f"The reference is {setting(reference.setting)} ({comparisons.why}); {result}. A cell is named by what it has that the "
        f"reference has not.{corrected} {out_of_reach(family)}"
    )
    said = [
        finding_of(against(each.cell.setting, reference.setting), each.comparison, each.p_holm, family)
        for each in comparisons.differences
    ]
    return Chapter("Each cell against the reference", lead.strip(), said)


def _on_further_sets(found: Sequence[Further], reference: Cell) -> Chapter:
    """Each cell against the reference on images that are of no network's own data set."""
    family = [each.comparison for each in found]
    corrected = f" p is corrected by Holm's method for {len(family)} comparisons." if len(family) > 1 else ""
    lead = f"Each cell against the reference, {setting(reference.setting)}, on test sets that are of another kind.{corrected}"
    said = [
        finding_of(
            f"On {each.kind.called}, {against(each.cell.setting, reference.setting)}", each.comparison, each.p_holm, family
        )
        for each in found
    ]
    return Chapter("Further test sets", f"{lead} {out_of_reach(family)}".strip(), said)
