"""What an experiment lacks, in sentences: runs without a result, cells without an interval, predictions."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.cells import Cell, outcomes
from analysis.comparisons import Comparisons
from analysis.runs import THEN
from analysis.sentences import NAMED, Chapter, Finding, count, setting
from experiments.record import CODE, COMMIT


def missing_runs(comparisons: Comparisons) -> Chapter:
    """Runs without a result, cells without an interval, predictions that could not be read."""
    cells = comparisons.cells
    said = [f"{progress(cells)}."]
    lacking = [cell for cell in cells if cell.error.n < len(cell.runs)]
    said += [f"{setting(cell.setting)}: {cell.count}." for cell in lacking[:NAMED]] if len(cells) > 1 else []
    if len(lacking) > NAMED:
        said.append(f"{count(len(lacking) - NAMED, 'more cell')} lack{'s' * (len(lacking) == NAMED + 1)} runs.")
    if any("diverged" in cell.failures and cell.error.n for cell in lacking):
        said.append("Where runs diverged, the mean is of the others, and flatters the cell.")
    single = sum(cell.error.n == 1 for cell in cells)
    if single == len(cells):
        those = "Each cell has" if single > 1 else "There is"
        said.append(f"{those} a single finished run, so there is no interval over seeds, and nothing can be claimed.")
    elif single:
        said.append(
            f"{count(single, 'cell')} with a single finished run {'has' if single == 1 else 'have'} no interval over seeds."
        )
    if comparisons.faults:
        lost = f"The predictions of {count(len(comparisons.faults), 'finished run')} could not be read"
        said.append(f"{lost}: intervals over test images and ensembles are without them.")
    elif not any(comparisons.images) and not comparisons.doubts and any(cell.error.n for cell in cells):
        said.append("Predictions were not read, so there is no interval over test images.")
    said += _mixed_code(cells)
    said += [f"{each[0].upper()}{each[1:]}." for each in comparisons.doubts[:NAMED]]
    if len(comparisons.doubts) > NAMED:
        said.append(f"{count(len(comparisons.doubts) - NAMED, 'more such doubt')} stand under what could not be read.")
    return Chapter("What is missing", "", [Finding(each) for each in said])


def _mixed_code(cells: Sequence[Cell]) -> list[str]:
    """That finished runs were trained by different code, which a mean over them hides; of older runs, by different commits."""
    for column, what, fresh in ((CODE, "code", "; --fresh trains the old ones again"), (COMMIT, "commits", "")):
        found = [_told(cell, column) for cell in cells if cell.error.n]
        if mixed := sum(len(each) > 1 for each in found):
            of = f"the runs of {count(mixed, 'cell')}" if len(cells) > 1 else "the runs"
            return [f"Different {what} trained {of}: if it matters, no mean of theirs is of one program{fresh}."]
        if len(set().union(*found)) > 1:
            return [f"Different {what} trained the cells: what differs between them may be the code{fresh}."]
        if all(found):  # where there are digests, another commit is no other code
            return []
    return []


def _told(cell: Cell, column: str) -> set[str]:
    """What finished runs of a cell say of the code that trained them, or a part of them; empty if one of them says nothing."""
    finished = cell.runs[outcomes(cell.runs) == "finished"]
    values = finished[column].dropna() if column in finished else finished[COMMIT][:0]
    return {part for value in values for part in value.split(THEN)} if len(values) == len(finished) else set()


def progress(cells: Sequence[Cell]) -> str:
    """``All 36 runs have finished``, or ``34 of 36 runs have finished; 1 diverged, 1 not run``."""
    runs = pd.concat([cell.runs for cell in cells])
    finished = sum(cell.error.n for cell in cells)
    if finished == len(runs):
        few = {1: "The only run has finished", 2: "Both runs have finished"}
        return few.get(len(runs), f"All {len(runs)} runs have finished")
    have = "has" if len(runs) == 1 else "have"
    return f"{finished} of {count(len(runs), 'run')} {have} finished; {replace(cells[0], runs=runs).failures}"
