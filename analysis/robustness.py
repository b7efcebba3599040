"""What becomes of trained networks on further test sets: their errors there, and how much higher than on their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.axes import texts_of
from analysis.blocks import paired
from analysis.captions import footer, in_brackets, slug
from analysis.cells import Cell, dataset_of, grouped, outcomes
from analysis.comparisons import Comparisons
from analysis.fields import name_of, text_of
from analysis.formats import Table
from analysis.statistics import Comparison, Estimate, t_interval
from analysis.wording import (
    comparison_texts,
    difference_texts,
    estimate_text,
    families_text,
    interval_text,
    p_text,
    setting_text,
    signed_text,
)
from capsnet.config import RunConfig
from capsnet.registry import TEST_SETS
from experiments.record import EPOCHS, FURTHER
from experiments.significance import ALPHA


def tested(comparisons: Comparisons) -> dict[str, str]:
    """Further test set -> its column in the table of runs, of those on which a run was tested."""
    columns = {name: f"{FURTHER}{name}" for name in sorted(TEST_SETS)}
    rows = [cell.runs for cell in comparisons.cells]
    return {name: column for name, column in columns.items() if any(column in r and r[column].notna().any() for r in rows)}


def errors(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row per cell: errors on validation images, its own test set and the further ones; None if there are none."""
    sets = tested(comparisons)
    cells = [cell for cell in comparisons.cells if any(_errors(cell, column) for column in sets.values())]
    if not cells:
        return None
    axes = list(cells[0].setting)
    papers = [name for name in sets if any(name in cell.published_on for cell in cells)]
    header = [*map(name_of, axes), "epochs trained", "validation error (%)", "test error (%)"]
    for name in sets:
        header += [f"{_called(name)} (%)", "95% over seeds", "difference (points)", "95% over seeds"]
        header += [f"paper, {name} (%)"] if name in papers else []
    body = []
    for cell in cells:
        texts = [_epochs(cell), _text(t_interval([*_errors(cell, "validation_error").values()])), _text(cell.error)]
        for name, column in sets.items():
            error, difference = t_interval([*_errors(cell, column).values()]), gap(cell, column)
            texts += [_text(error), interval_text(error)]
            texts += [signed_text(difference.mean, difference) if difference.n else "—", interval_text(difference, signed=True)]
            if name in papers:
                texts.append(text_of(cell.published_on[name].value) if name in cell.published_on else "")
        body.append([*texts_of(cell.setting), *texts])
    caption = (
        "Errors in % of trained networks on further test sets, mean ± sample sd over n seeds, and their difference to the test "
        f"error of the same networks on their own data set, in percentage points.{in_brackets(axes)}"
    )
    notes = [*_origins(sets), "95%: Student-t interval of the mean over seeds, for these images.", *stopping(cells)]
    notes += [f"Paper: {p.source}: {p.protocol}" for p in {p.name: p for c in cells for p in c.published_on.values()}.values()]
    return Table(f"tab:{slug(runs)}-robustness", caption, header, body, len(axes), [*notes, footer(runs)])


def differences(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Every cell against the reference of its data set on the further test sets, paired by seed; None if no pair was tested."""
    sets, found = tested(comparisons), judged(comparisons)
    if not found:
        return None
    families = grouped(found, lambda each: each.cell)
    references = {name: comparisons.references[name][0] for name in families}
    axes = list(found[0].cell.setting)
    body = []
    for each in found:
        made, reference = each.comparison, references[dataset_of(each.cell)]
        own = t_interval(np.subtract(*paired(each.cell.by_seed, reference.by_seed)))
        texts = [each.called, str(made.difference.n), *difference_texts(own), *difference_texts(made.difference)]
        body.append([*texts_of(each.cell.setting), *texts, *comparison_texts(made, each.p_holm)])
    marked = frozenset(i for i, each in enumerate(found) if each.p_holm <= ALPHA)
    header = [*map(name_of, axes), "test set", "pairs", "difference on own test set (points)", "95% over seeds"]
    header += ["difference (points)", "95% over seeds", "effect size", "p", "p (Holm)"]
    several = "of its data set " * (len(comparisons.by_dataset) > 1)
    named = ", ".join(f"({setting_text(cell.setting)})" for cell in references.values())
    caption = (
        f"Difference to the reference {several}{named} of the "
        "error on further test sets, in percentage points, paired by seed, and on the networks' own test set, which tells how "
        f"equal those are that are compared; {_reached(references, sets)}.{in_brackets(axes)}"
    )
    least = min(each.comparison.smallest_p for each in found)
    note = (
        "p: sign-flip test of the paired differences, by Holm's method corrected for "
        f"{families_text(families, named=len(families) > 1)}; the least p that so many pairs can give is {p_text(least)} "
        "before the correction."
    )
    notes = [*_origins(sets), note, *stopping(comparisons.cells), footer(runs)]
    return Table(f"tab:{slug(runs)}-robustness-differences", caption, header, body, len(axes) + 1, notes, marked)


def compared(comparisons: Comparisons) -> list[tuple[Cell, str, Comparison]]:
    """Each cell but the reference of its data set, on each further test set, by the seeds that both have finished."""
    found = []
    for cell in comparisons.cells:
        reference, _ = comparisons.references.get(dataset_of(cell), (None, ""))
        if reference is None or cell is reference:
            continue
        for name, column in tested(comparisons).items():
            pairs = paired(_errors(cell, column), _errors(reference, column))
            if pairs.size:
                found.append((cell, name, statistics.compare(*pairs)))
    return found


@dataclass(frozen=True)
class Further:
    """A cell against the reference of its data set on a further test set, in percentage points."""

    cell: Cell
    name: str  # of the test set
    comparison: Comparison
    p_holm: float  # over all that are compared on the further test sets of one data set

    @property
    def called(self) -> str:
        """The test set's name, with a word on its origin."""
        return _called(self.name)


def judged(comparisons: Comparisons) -> list[Further]:
    """All of :func:`compared`, with p corrected for those of the same data set."""
    found = compared(comparisons)
    families = grouped(found, lambda each: each[0])
    adjusted = {name: iter(statistics.holm([made.p for _, _, made in family])) for name, family in families.items()}
    return [Further(cell, name, made, float(next(adjusted[dataset_of(cell)]))) for cell, name, made in found]


def _reached(references: Mapping[str, Cell], sets: Mapping[str, str]) -> str:
    """What the references have on the further test sets."""
    said = []
    for cell in references.values():
        means = {name: t_interval([*_errors(cell, column).values()]) for name, column in sets.items()}
        said.append(", ".join(f"{_called(name)} {_text(mean)} %" for name, mean in means.items()))
    return f"the reference has: {said[0]}" if len(said) == 1 else f"the references have: {'; '.join(said)}"


def gap(cell: Cell, column: str) -> Estimate:
    """The error in a column minus the own test error of the same runs, in percentage points."""
    return t_interval(np.subtract(*paired(_errors(cell, column), cell.by_seed)))


def stopping(cells: Sequence[Cell]) -> list[str]:
    """Of cells whose runs were to stop at a validation error: who did not get there, each by name."""
    wanted = [cell for cell in cells if (cell.runs["stop_at_error"] > 0).any()]
    if not wanted:
        return []
    missed = [f"{len(seeds)} of {cell.error.n} ({setting_text(cell.setting)})" for cell in wanted if (seeds := never(cell))]
    said = "all finished ones reached it" if any(cell.error.n for cell in wanted) else "none has finished"
    said = f"never reached it, and are counted as they ended: {'; '.join(missed)}" if missed else said
    return [f"Runs were to stop at the validation error stop_at_error: {said}."]


def never(cell: Cell) -> list[int]:
    """Seeds of finished runs that trained all their epochs without reaching the error at which they were to stop."""
    errors, wanted = _errors(cell, "validation_error"), float(cell.runs["stop_at_error"].iloc[0])
    config = RunConfig.model_construct(stop_at_error=wanted)
    seeds = cell.runs["seed"][cell.finished.index]
    return [seed for seed in seeds if wanted > 0 and not config.stops_at(errors.get(seed))]


def _errors(cell: Cell, column: str) -> dict[int, float]:
    """Seed -> value of the finished runs that have one."""
    rows = cell.runs[outcomes(cell.runs) == "finished"]
    rows = rows[rows[column].notna()] if column in rows else rows[:0]
    return dict(zip(rows["seed"], rows[column], strict=True)) if len(rows) else {}


def _epochs(cell: Cell) -> str:
    """``7–12``, of finished runs; ``30 (1 of 3 never reached 0.8 %)``."""
    counts = [int(count) for count in _errors(cell, EPOCHS).values()]
    if not counts:
        return "—"
    text = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"
    missed = never(cell)
    wanted = text_of(cell.runs["stop_at_error"].iloc[0])
    return f"{text} ({len(missed)} of {len(counts)} never reached {wanted} %)" if missed else text


def _called(name: str) -> str:
    """A generated test set is called so wherever a number on it stands."""
    return name if "generated" in name or "generated" not in TEST_SETS[name].origin else f"{name} (generated)"


def _origins(sets: Sequence[str] | dict[str, str]) -> list[str]:
    return [f"{name}: {TEST_SETS[name].images:,} images, {TEST_SETS[name].origin}." for name in sets]


def _text(estimate: Estimate) -> str:
    return estimate_text(estimate) if estimate.n else "—"


def frame(comparisons: Comparisons) -> pd.DataFrame:
    """A row per cell and further test set with raw numbers, for other programs; errors in %."""
    rows = []
    for cell in comparisons.cells:
        for name, column in tested(comparisons).items():
            if found := _errors(cell, column):
                there, difference = t_interval([*found.values()]), gap(cell, column)
                numbers = {"n": there.n, "error": there.mean, "sd": there.sd, "low": there.low, "high": there.high}
                numbers |= {"own": cell.error.mean, "difference": difference.mean}
                numbers |= {"difference_low": difference.low, "difference_high": difference.high, "never": len(never(cell))}
                rows.append({**cell.setting, "test_set": name, "generated": "generated" in name, **numbers})
    return pd.DataFrame(rows)
