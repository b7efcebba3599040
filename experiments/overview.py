"""How a plan is shown: a table of cells, and below it in plain lines what the numbers mean and rest on."""

from collections import Counter
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.table import Table

from capsnet.origin import shortened
from capsnet.terminal import escaped, say, wide
from experiments.plan import DIVERGED, DONE, ELSEWHERE, NEW, PARTLY, RUNNING, CellPlan, GridPlan
from experiments.significance import ALPHA, seeds_needed, smallest_p

UNMEASURED = "no run of a like config is measured"
UNFINISHED = "no run of the same network has finished"


def show(plan: GridPlan, title: str) -> None:
    """Print a plan."""
    wide().print(table(plan, title))
    say(*notes(plan))


def table(plan: GridPlan, title: str) -> Table:
    """A row per cell, of what any cell has something to say on."""
    heads = ("runs", "done", "other\ncode", "rest", "time\nleft", "from\nruns", "disk\nleft")
    rows = [_row(cell) for cell in plan.cells]
    told = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    made = Table(
        title=escaped(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    made.add_column("cell", overflow="fold")
    for i in told:
        made.add_column(heads[i], justify="left" if heads[i] == "rest" else "right", no_wrap=True)
    for cell, row in zip(plan.cells, rows, strict=True):
        made.add_row(escaped(cell.label), *(escaped(row[i]) for i in told))
    return made


def _row(cell: CellPlan) -> tuple[str, ...]:
    runs, done, other = str(len(cell.seeds)), str(cell.states[DONE]), str(cell.other_code or "")
    rest = ",\n".join(_rest(cell.states, cell.failures))
    if not cell.left:
        return runs, done, other, rest, "", "", ""
    time = duration(cell.seconds) if cell.seconds is not None else "unknown"
    mark = "" if cell.pace is None or cell.pace.whole else " (b)" if cell.pace.scaled else " (a)"
    mark += " (c)" if cell.pace and cell.pace.elsewhere else ""
    measured = f"{cell.pace.runs}{mark}" if cell.pace else "0"
    return runs, done, other, rest, time, measured, decimal(cell.disk) if cell.disk is not None else "unknown"


def notes(plan: GridPlan) -> Iterator[str]:
    """What the table adds up to, and what has to be known to read it."""
    states, failures = plan.states, plan.failures
    runs = _count(states.total() + failures.total(), "run")
    yield ", ".join([_count(len(plan.cells), "cell"), runs, f"{states[DONE]} finished", *_rest(states, failures)])
    if other := sum(cell.other_code for cell in plan.cells):
        yield f"other code: {other} finished that other code than {shortened(plan.commit)} trained; --fresh trains them again"
    if states[ELSEWHERE]:
        yield "running elsewhere: MLflow says so, and no files of it are here; not counted in time and disk"
    if failures.keys() - {DIVERGED}:
        yield f"{', '.join(sorted(failures.keys() - {DIVERGED}))}: failed, and goes on at the next launch"
    if failures[DIVERGED]:
        yield "diverged: would do so again; only --retry-failed trains it again"
    yield from _time(plan)
    yield from _disk(plan)
    yield _significance(plan)


def _rest(states: Counter[str], failures: Counter[str]) -> list[str]:
    """Counts of all that is not done: running, partly done, new, and each kind of failure by its name."""
    named = [(states[word], word) for word in (RUNNING, ELSEWHERE, PARTLY, NEW)]
    return [f"{n} {word}" for n, word in named + [(n, kind) for kind, n in sorted(failures.items())] if n]


def _time(plan: GridPlan) -> Iterator[str]:
    left = [cell for cell in plan.cells if cell.left]
    paces = [cell.pace for cell in left if cell.pace]
    if left and not paces:
        yield f"time: unknown ({UNMEASURED})"
    if not paces:
        return
    if plan.workers > 1:
        alone = duration(sum(cell.seconds or 0 for cell in left))
        yield f"time: about {duration(plan.seconds)} with {plan.workers} runs at once, {alone} if one after the other"
        yield f"  {plan.workers} at once are taken to be as fast, each, as those that were measured"
    else:
        yield f"time: about {duration(plan.seconds)}, one run after the other"
    if any(cell.may_stop and cell.pace for cell in left):
        yield "  at most: runs with stop_at_error may end before their last epoch"
    if len(paces) < len(left):
        yield f"  not counted: {len(left) - len(paces)} of {len(left)} cells, since {UNMEASURED}"
    with_all = ", validation, test and logging included" if any(pace.whole for pace in paces) else ""
    yield f"  measured on {plan.hardware}{with_all}"
    if any(not pace.whole and not pace.scaled for pace in paces):
        yield "  (a) training alone: no run of a like config has finished in one go"
    if any(pace.scaled for pace in paces):
        yield "  (b) training alone, in proportion to the images: from runs alike but for their number"
    if any(pace.elsewhere for pace in paces):
        yield "  (c) from runs of other experiments"


def _disk(plan: GridPlan) -> Iterator[str]:
    left = [cell for cell in plan.cells if cell.left]
    unknown = sum(cell.disk is None for cell in left)
    if left and unknown == len(left):
        yield f"disk: unknown ({UNFINISHED})"
    elif left:
        yield (
            f"disk: {decimal(plan.disk)} of weights and test predictions, "
            f"and up to {decimal(plan.checkpoint_bytes)} of checkpoints while they train"
        )
        if unknown:
            yield f"  not counted: {unknown} of {len(left)} cells, since {UNFINISHED}"


def _significance(plan: GridPlan) -> str:
    pairs, counts = plan.paired_seeds, {len(cell.seeds) for cell in plan.cells}
    if not pairs:
        return "no seed is common to all cells: no test can pair the runs of all of them"
    seeds = _count(pairs, "seed")
    if max(counts) > pairs:
        seeds += f" common to all cells (of {min(counts)} to {max(counts)})"
    family = max(plan.comparisons, 1)
    p, corrected = smallest_p(pairs), min(1.0, family * smallest_p(pairs))
    test = f"{seeds}: a two-sided paired sign-flip test"
    on = " on further test sets" if family > max(plan.own_comparisons, 1) else ""
    holm = f" in {family} comparisons with a reference{on}, corrected by Holm," if family > 1 else ""
    if corrected < ALPHA:
        return f"{test} can reach p = {p:.4g} < {ALPHA}" + (f", and{holm} {corrected:.4g}" if holm else "")
    enough = seeds_needed(family)
    reached = f"{enough} seeds reach {family * smallest_p(enough):.4g} < {ALPHA}"
    if p < ALPHA:
        return f"{test} can reach p = {p:.4g} < {ALPHA}, but{holm} no less than {corrected:.4g}; {reached}"
    return f"{test} can't go under p = {p:.4g}; {reached}" + (holm.removesuffix(",") if holm else "")


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more: 90 s, 2.0 min, 47 h, 2.1 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{1 if seconds < 10 * length else 0}f} {unit}"
    return f"{seconds:.0f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
