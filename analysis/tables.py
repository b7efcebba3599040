"""The tables of an experiment: errors in the form of the paper's Table 1, all numbers, differences, effects of axes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import frames, robustness
from analysis.cells import (
    Cell,
    cells,
    constants,
    legend,
    name_of,
    outcomes,
    text_of,
    texts_of,
    told,
    varying,
    widest,
    with_model,
)
from analysis.comparisons import ALPHA, Comparisons, Difference, Effect, compare, interactions, main_effects, ranks
from analysis.formats import Table, latex, markdown, page
from analysis.published import Published, load
from analysis.statistics import MOST_PAIRS, t_interval
from analysis.wording import (
    decimals_of,
    error_text,
    estimate_text,
    interval_text,
    number_text,
    p_text,
    setting_text,
    signed_text,
)
from experiments.record import OTHER_R
from experiments.sources import shortened
from experiments.tracking import Store

MEASURE = "test error (%)"
MODELS = {
    "capsnet": "CapsNet",
    "cnn": "CNN",
    "cnn_matched": "CNN, matched",
    "cnn_multimnist": "CNN, MultiMNIST's",
}  # names in tables, if not the registry's
TABLE1 = ("model", "routing_iterations", "reconstruction_weight")  # the paper's columns, whether they vary or not
# what a published cell may differ in
PROTOCOL = ("epochs", "batch_size", "learning_rate", "lr_schedule", "precision", "validation_size")


def accuracy(comparisons: Comparisons, runs: pd.DataFrame) -> Table:
    """Table 1's form: model, r, reconstruction, then the other axes, and ``mean ± sd (n=3)`` beside the paper's numbers.

    Of three axes or more, the one with the most values is laid side by side, unless that leaves more places empty than it
    fills, as with the numbers that a search has drawn, or a model is there to which an axis means nothing.
    """
    all_cells, axes = comparisons.cells, varying(runs)
    across = widest(runs, axes) if len(axes) > 2 else None
    rows = _rows(all_cells, axes, across)
    unread = any(len(told(cell.setting)) < len(cell.setting) for cell in all_cells)
    if across and (unread or 2 * len(all_cells) < len(rows) * runs[across].nunique()):
        across, rows = None, _rows(all_cells, axes, None)
    first = [axis for axis in TABLE1 if axis != across]
    down = first + [axis for axis in axes if axis not in (*first, across)]
    columns: dict[Any, list[Cell]] = {}  # by the value of the axis that is laid across
    for cell in sorted(all_cells, key=lambda c: [c.setting[across]] if across else []):  # stable: columns sort by value
        columns.setdefault(cell.setting[across] if across else None, []).append(cell)
    papers = [value for value, members in columns.items() if any(c.published for c in members)]
    yes_or_no = len(_weights(runs)) < 2 and across != "reconstruction_weight"
    header = ["reconstruction" if axis == "reconstruction_weight" and yes_or_no else name_of(axis) for axis in down]
    for value in columns:
        column = _column(across, value)
        header += [column, _paper(across, column)] if value in papers else [column]
    configs = [(next(iter(by_value.values())).runs.iloc[0], by_value) for by_value in rows.values()]
    body = []
    for config, by_value in sorted(configs, key=lambda pair: [pair[0][axis] for axis in down]):
        body.append([*(_label(axis, config, yes_or_no) for axis in down), *_results(by_value, list(columns), papers)])
    weights = [f"Reconstruction: weight {text_of(weight)}." for weight in _weights(runs) if yes_or_no]
    caption = " ".join([_caption(runs, axes, across), *weights])
    notes = [*_published_notes([cell.published for cell in all_cells if cell.published], runs), footer(runs)]
    return Table(f"tab:{_slug(runs)}", caption, header, body, len(down), notes)


def ablation(comparisons: Comparisons, runs: pd.DataFrame) -> Table:
    """Every cell with both intervals, extremes, ensemble and rank."""
    axes = varying(runs)
    mean_ranks, seeds = ranks(comparisons.cells)
    header = [*map(name_of, axes), MEASURE, "95% over seeds", "95% over seeds and images", "min–max", "ensemble", "rank"]
    body = []
    for cell, images, rank in zip(comparisons.cells, comparisons.images, mean_ranks, strict=True):
        error = cell.error
        spread = f"{cell.finished.min():.2f}–{cell.finished.max():.2f}" if error.n > 1 else "—"
        seen = _partly(interval_text(images.interval), images.interval.n, error.n) if images else "—"
        results = [error_text(cell), interval_text(error), seen, spread]
        together = images.ensemble if images else None
        results.append(_partly(f"{together.mean:.2f}", images.interval.n, error.n) if images and together else "—")
        results.append("—" if math.isnan(rank) else f"{rank:.1f}")
        body.append([*texts_of(cell.setting), *results])
    notes = [
        "95% over seeds: Student-t interval of the mean, for this test set; over seeds and images: "
        + (" or ".join(dict.fromkeys(i.interval.kind for i in comparisons.images if i)) or "not available without predictions")
        + ". Ensemble: error of the runs' mean scores."
        + (f" Rank: by test error, 1 is best; {_over(seeds)} that all cells with a result have finished." if seeds else "")
    ]
    caption = f"All cells: test error in %.{_legend(axes)}"
    notes += [*robustness.stopping(comparisons.cells), *_faults(comparisons), footer(runs)]
    return Table(f"tab:{_slug(runs)}-ablation", caption, header, body, len(axes), notes)


def differences(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Every cell against the reference; None if there is one cell."""
    reference = comparisons.reference
    if reference is None:
        return None
    axes = varying(runs)
    header = [*map(name_of, axes), "pairs", "difference (points)", "95% over seeds", "95% over seeds and images"]
    header += ["effect size", "p", "p (Holm)", "detectable", "verdict"]
    body = [_difference_row(difference, comparisons) for difference in comparisons.differences]
    caption = (
        f"Difference of the test error to the reference ({setting_text(reference)}; {comparisons.why}), in percentage points, "
        f"paired by seed; the reference has {error_text(reference)} %.{_legend(axes)}"
    )
    count = sum(d.comparison.difference.n > 0 for d in comparisons.differences)
    most = max((d.comparison.difference.n for d in comparisons.differences), default=0)
    test = "exact two-sided sign-flip permutation test" + f" (t-test of over {MOST_PAIRS} pairs)" * (most > MOST_PAIRS)
    note = (
        f"p: {test} of the paired differences, by Holm's method corrected for "
        f"{count} comparison{'s' * (count != 1)}. Effect size: mean difference over its sd, Hedges-corrected. Detectable: the "
        f"smallest true difference that a paired t-test of this n, uncorrected, finds in 80% of experiments (alpha {ALPHA:g}); "
        "the corrected p finds it less often."
    )
    notes = [note, *reach_notes(comparisons), *_faults(comparisons), footer(runs)]
    marked = frozenset(i for i, d in enumerate(comparisons.differences) if d.p_holm <= ALPHA)
    return Table(f"tab:{_slug(runs)}-differences", caption, header, body, len(axes), notes, marked)


def effects(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Main effects of the axes' values and interactions of each two; None without an axis or a complete design."""
    found = all_effects(comparisons)
    if not found:
        return None
    body = [
        [
            " × ".join(map(name_of, effect.axes)),
            ", ".join(map(text_of, effect.levels)),
            signed_text(effect.estimate.mean, effect.estimate),
            interval_text(effect.estimate, signed=True),
            str(effect.estimate.n),
        ]
        for effect in found
    ]
    caption = (
        "Main effect of each value of an axis: its mean test error minus that over all values of the axis, in percentage "
        "points, over otherwise equal settings. Interaction (×): what is left of a pair's mean when both effects are taken "
        f"off.{_legend(varying(runs))}"
    )
    note = (
        "95%: Student-t interval over n seeds, not corrected for the number of effects. A seed counts with those settings "
        "of the other axes for which it finished with every value."
    )
    absent = [name_of(axis) for axis in varying(runs) if (axis,) not in {effect.axes for effect in found}]
    without = f" Without {', '.join(absent)}, for want of a complete design." if absent else ""
    header = ["axis", "value", "effect (points)", "95% interval", "n"]
    return Table(f"tab:{_slug(runs)}-effects", caption, header, body, 2, [note + without, footer(runs)])


def other_r(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Test errors at an r other than that of training, of the same trained networks; None if nothing was tested so."""
    columns = {int(str(name).removeprefix(OTHER_R)): str(name) for name in runs if str(name).startswith(OTHER_R)}
    found = [cell for cell in comparisons.cells if cell.runs[[*columns.values()]].notna().any(axis=None)]
    if not found:
        return None
    axes = varying(runs)
    own = {int(r) for cell in found for r in cell.runs["routing_iterations"]}
    body = []
    for cell in found:
        errors = {r: t_interval(cell.runs[name].dropna()) for r, name in columns.items()}
        errors[int(cell.runs["routing_iterations"].iloc[0])] = cell.error
        texts = [estimate_text(errors[r]) if r in errors and errors[r].n else "—" for r in sorted({*columns, *own})]
        body.append([*texts_of(cell.setting), *texts])
    header = [*map(name_of, axes), *(f"r = {r} at test" for r in sorted({*columns, *own}))]
    caption = (
        "Test error in % of trained networks that route with another r at test, mean ± sample sd over n seeds; what each was "
        f"trained with is in the column of its own r.{_legend(axes)}"
    )
    return Table(f"tab:{_slug(runs)}-other-r", caption, header, body, len(axes), [footer(runs)])


def ensembles(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row for each cell with two networks or more: what they answer together, beside each on its own; None without any."""
    pairs = zip(comparisons.cells, comparisons.images, strict=True)
    found = [(cell, images, images.ensemble) for cell, images in pairs if images and images.ensemble]
    if not found:
        return None
    axes, entries = varying(runs), [cell.published_ensemble for cell, _, _ in found if cell.published_ensemble]
    body = []
    for cell, images, together in found:
        results = [error_text(cell), str(images.interval.n), f"{together.mean:.2f}", interval_text(together)]
        paper = [_published_text(cell.published_ensemble) if cell.published_ensemble else ""] if entries else []
        body.append([*texts_of(cell.setting), *results, f"{len(images.labels):,}", *paper])
    header = [*map(name_of, axes), "single network (%)", "networks", "ensemble (%)", "95% over images", "test images"]
    caption = (
        "Ensembles: test error in % of the mean class scores of all networks of a cell, which differ in their seed alone, "
        f"beside that of a single one (mean ± sample sd).{_legend(axes)}"
    )
    kinds = ", ".join(dict.fromkeys(together.kind for _, _, together in found))
    notes = [
        f"95% over images: {kinds}, of these networks; other seeds would make another ensemble.",
        *_published_notes(entries, runs),
        footer(runs),
    ]
    return Table(f"tab:{_slug(runs)}-ensembles", caption, header + ["paper (%)"] * bool(entries), body, len(axes), notes)


def on_further_sets(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Errors on further test sets beside each cell's own; None if nothing was tested there."""
    return robustness.labelled(robustness.errors(comparisons), _slug(runs), footer(runs))


def further_differences(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """Every cell against the reference on further test sets; None if nothing was tested there, or there is one cell."""
    return robustness.labelled(robustness.differences(comparisons), _slug(runs), footer(runs))


def all_effects(comparisons: Comparisons) -> list[Effect]:
    """Main effects, then interactions."""
    return [*main_effects(comparisons.cells), *interactions(comparisons.cells)]


def write(comparisons: Comparisons, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every table as Markdown, LaTeX and HTML, and the numbers behind them as CSV."""
    tables = {"accuracy": accuracy(comparisons, runs), "ablation": ablation(comparisons, runs)}
    tables |= {name: made for name, make in OPTIONAL.items() if (made := make(comparisons, runs))}
    files: dict[str, str] = {}
    for name, table in tables.items():
        files |= {f"{name}.md": markdown(table), f"{name}.tex": latex(table), f"{name}.html": page(table)}
    numbers = {"cells": frames.of_cells(comparisons), "differences": frames.of_differences(comparisons)}
    numbers["effects"] = frames.of_effects(all_effects(comparisons))
    numbers["robustness"] = robustness.frame(comparisons)
    files |= {f"{name}.csv": _csv(frame) for name, frame in numbers.items() if len(frame)}
    folder.mkdir(parents=True, exist_ok=True)
    for gone in {f"{name}.{kind}" for name in OPTIONAL for kind in ("md", "tex", "html", "csv")} - files.keys():
        (folder / gone).unlink(missing_ok=True)  # of an earlier build, which would contradict this one
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


OPTIONAL = {
    "differences": differences,
    "effects": effects,
    "other_r": other_r,
    "ensembles": ensembles,
    "robustness": on_further_sets,
    "robustness_differences": further_differences,
}


def judged(
    runs: pd.DataFrame,
    stores: Mapping[str, Store] | None = None,
    published: Iterable[Published] | None = None,
    reference: str = "",
) -> Comparisons:
    """The cells of a table of runs, compared; ``published`` is published.yaml's unless given.

    Raises:
        InputError: there is no run, published.yaml is wrong, or no cell is the reference.
    """
    published = load() if published is None else tuple(published)
    return compare(cells(runs, published), stores or {}, reference)


def reach_notes(comparisons: Comparisons) -> list[str]:
    """Says so where no data of this n could have been significant."""
    compared = [d.comparison for d in comparisons.differences if d.comparison.difference.n]
    if not compared or comparisons.in_reach:
        return []
    least, count = min(c.smallest_p for c in compared), len(compared)
    corrected = f" and {p_text(min(1.0, least * count))} after the correction" if count > 1 and least < 1 else ""
    pairs = max(c.difference.n for c in compared)
    needed = math.ceil(math.log2(2 * count / ALPHA))
    return [
        f"Significance is out of reach: the least p that {pairs} pair{'s' * (pairs > 1)} can give is {p_text(least)}"
        f"{corrected}; {needed} seeds would be needed for {ALPHA:g}."
    ]


def verdict(difference: Difference) -> str:
    """What may be said of a difference."""
    if not difference.comparison.difference.n:
        return "no pair of runs"  # or of another data set
    if difference.p_holm <= ALPHA:
        return "lower error" if difference.comparison.difference.mean < 0 else "higher error"
    return "no difference can be claimed"


def footer(runs: pd.DataFrame) -> str:
    """Where the numbers come from: experiment, commit, seeds, runs, and when the last one ended."""
    commits = sorted({_short(commit) for commit in runs["git_commit"].dropna() if commit})
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    consecutive = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    last = pd.to_datetime(runs["ended"], utc=True).max()
    parts = [
        f"Experiment {_experiments(runs)}",
        f"commit{'s' * (len(commits) > 1)} {', '.join(commits) or 'unknown'}",
        f"seed{'s' * (len(seeds) > 1)} {f'{seeds[0]} to {seeds[-1]}' if consecutive else ', '.join(map(str, seeds))}",
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {int((outcomes(runs) == 'finished').sum())} finished",
        *_filter(runs),
        "no run has ended" if pd.isna(last) else f"last run ended {last:%Y-%m-%d %H:%M} UTC",
    ]
    return "; ".join(parts) + "."


def _over(seeds: int) -> str:
    return f"mean over the {seeds} seeds" if seeds > 1 else "of the one seed"


def _partly(text: str, n: int, of: int) -> str:
    """Says so if predictions of some runs are gone."""
    return text if n == of else f"{text} (n={n})"


def _filter(runs: pd.DataFrame) -> list[str]:
    """What the runs were chosen by."""
    if not (where := runs.attrs.get("where")):
        return []
    return [f"only those with {' and '.join(where)}, which leaves out {runs.attrs['left_out']}"]


def _difference_row(difference: Difference, comparisons: Comparisons) -> list[str]:
    made, labels = difference.comparison, texts_of(difference.cell.setting)
    estimate = made.difference
    if not estimate.n:
        return [*labels, "0", *["—"] * 7, verdict(difference)]
    seen = _partly(interval_text(difference.images, signed=True), difference.images.n, estimate.n) if difference.images else "—"
    interval = "all equal" if estimate.sd == 0 else interval_text(estimate, signed=True)  # no spread is no certainty
    results = [str(estimate.n), signed_text(estimate.mean, estimate), interval, seen]
    results.append("—" if math.isnan(made.effect) else number_text(made.effect, 2, signed=True))
    results += [p_text(made.p), p_text(difference.p_holm)]
    # nothing can be detected where no p can be small enough
    detectable = made.detectable > 0 and comparisons.in_reach
    results.append(f"{made.detectable:.{decimals_of(made.detectable)}f}" if detectable else "—")
    said = verdict(difference) if comparisons.in_reach else "out of reach"
    return [*labels, *results, said]


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _rows(all_cells: Sequence[Cell], axes: list[str], across: str | None) -> dict[tuple[Any, ...], dict[Any, Cell]]:
    """Values of the other axes -> value of the axis that is laid across -> cell."""
    rows: dict[tuple[Any, ...], dict[Any, Cell]] = {}
    for cell in all_cells:
        key = tuple(cell.setting[axis] for axis in axes if axis != across)
        rows.setdefault(key, {})[cell.setting[across] if across else None] = cell
    return rows


def _weights(runs: pd.DataFrame) -> list[float]:
    return sorted(weight for weight in runs["reconstruction_weight"].unique() if weight)


def _label(axis: str, config: "pd.Series[Any]", yes_or_no: bool) -> str:
    value = config[axis]
    if axis == "model":
        return MODELS.get(value, str(value))
    if axis not in told({"model": config["model"], axis: value}):
        return "—"
    return ("yes" if value else "no") if axis == "reconstruction_weight" and yes_or_no else text_of(value)


def _column(across: str | None, value: Any) -> str:
    if across is None:
        return MEASURE
    return shortened(value) if isinstance(value, str) else f"{name_of(across)} = {text_of(value)}"


def _paper(across: str | None, column: str) -> str:
    return f"paper, {column}" if across else "paper (%)"


def _results(by_value: dict[Any, Cell], values: list[Any], papers: list[Any]) -> list[str]:
    texts = []
    for value in values:
        cell = by_value.get(value)
        texts.append(error_text(cell) if cell else "")
        if value in papers:
            texts.append(_published_text(cell.published) if cell and cell.published else "")
    return texts


def _published_text(entry: Published) -> str:
    """As printed by its authors, whose digits are not ours to change."""
    deviation = "" if entry.sd is None else f" ± {text_of(entry.sd)}"
    count = f" (ensemble of {entry.ensemble})" if entry.ensemble else "" if entry.n is None else f" (n={entry.n})"
    return text_of(entry.value) + deviation + count


def _published_notes(entries: Iterable[Published], runs: pd.DataFrame) -> list[str]:
    values = {field: runs[field].unique() for field in PROTOCOL}
    here = [f"{name_of(k)} {text_of(v[0])}" if len(v) == 1 else f"several {name_of(k)}" for k, v in values.items()]
    sources = dict.fromkeys((entry.source, entry.protocol) for entry in entries)
    return [f"Paper: {source}: {protocol} Here: {', '.join(here)}." for source, protocol in sources]


def _caption(runs: pd.DataFrame, axes: list[str], across: str | None) -> str:
    same_in_all = constants(runs)
    rest = " (all but validation's)" if same_in_all.get("train_size") == 0 else ""
    same = ", ".join(f"{name_of(k)} {text_of(v)}" + (rest if k == "train_size" else "") for k, v in same_in_all.items())
    columns = f" Columns: {name_of(across)}." if across else ""
    constant = f" Constant: {same}." if same else ""
    constant += "".join(f" {text}." for text in _of_models(runs))
    return f"Test error in %, mean ± sample sd over n seeds.{columns}{constant}{_legend([*TABLE1, *axes, *same_in_all])}"


def _of_models(runs: pd.DataFrame) -> list[str]:
    """What comes with each model: ``CNN: dropout 0.5, loss cross_entropy``."""
    said = []
    for model, part in runs.groupby("model") if (fields := with_model(runs)) else ():
        means = told({"model": model, **{field: part[field].iloc[0] for field in fields if field not in TABLE1}})
        if own := ", ".join(f"{name_of(k)} {text_of(v)}" for k, v in means.items() if k != "model"):
            said.append(f"{MODELS.get(str(model), str(model))}: {own}")
    return said


def _legend(fields: Iterable[str]) -> str:
    names = legend(dict.fromkeys(fields))
    return f" ({names}.)" if names else ""


def _faults(comparisons: Comparisons) -> list[str]:
    count = len(comparisons.faults)
    return [f"Without the predictions of {count} finished run{'s' * (count > 1)}, which are gone."] if count else []


def _slug(runs: pd.DataFrame) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", _experiments(runs)).strip("-").lower()


def _short(commit: str) -> str:
    """The first 7 digits of a commit, with whatever marks it as dirty."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]*", r"\1", commit)


def _experiments(runs: pd.DataFrame) -> str:
    return ", ".join(sorted(map(str, runs["experiment"].unique())))
