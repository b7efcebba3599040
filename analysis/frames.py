"""Comparisons as data frames with raw numbers, for other programs."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.axes import sorted_runs, varying
from analysis.cells import Cell, dataset_of
from analysis.comparisons import Comparisons
from analysis.effects import Effect, ranks
from analysis.fields import text_of
from analysis.statistics import Estimate


def of_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run, failures and what never ran included, in the order of the cells; errors in %, times in UTC."""
    return sorted_runs(runs, varying(runs))


def of_cells(comparisons: Comparisons) -> pd.DataFrame:
    """One row per cell with raw numbers, for other programs; errors in %, cost in seconds."""
    rows = []
    for cell, images, rank, seeds in zip(comparisons.cells, comparisons.images, *ranks(comparisons.cells), strict=True):
        seen, together = (images.interval, images.ensemble) if images else (None, None)
        rows.append(
            {
                **cell.setting,
                **_errors(cell),
                **_interval(seen, "_images"),
                "n_images": seen.n if seen else 0,
                "ensemble": together.mean if together else math.nan,
                **_ends(together, "_ensemble"),
                "rank": rank,
                "rank_seeds": seeds,
                "seconds_per_run": cell.runs["seconds"].mean(),
                "parameters": cell.runs["parameters"].max(),
            }
        )
    return pd.DataFrame(rows)


def of_differences(comparisons: Comparisons) -> pd.DataFrame:
    """One row per cell that is compared to the reference; errors in percentage points."""
    rows = []
    for difference in comparisons.differences:
        made, seen = difference.comparison, difference.images
        reference = comparisons.references[dataset_of(difference.cell)][0].setting
        rows.append(
            {
                **difference.cell.setting,
                "reference": json.dumps({axis: text_of(value) for axis, value in reference.items()}),
                "pairs": made.difference.n,
                "difference": made.difference.mean,
                "sd": made.difference.sd,
                **_interval(made.difference),
                **_interval(seen, "_images"),
                "pairs_images": seen.n if seen else 0,
                "effect": made.effect,
                "p": made.p,
                "p_holm": difference.p_holm,
                "smallest_p": made.smallest_p,
                "detectable": made.detectable,
            }
        )
    return pd.DataFrame(rows)


def of_effects(found: Mapping[str, Sequence[Effect]]) -> pd.DataFrame:
    """One row per main effect or interaction, in percentage points; of several data sets (data set -> its) with their name."""
    return pd.DataFrame(
        {
            **({"dataset": name} if len(found) > 1 else {}),
            "axes": " x ".join(effect.axes),
            "values": ", ".join(map(text_of, effect.levels)),
            "effect": effect.estimate.mean,
            "sd": effect.estimate.sd,
            **_ends(effect.estimate),
            "n": effect.estimate.n,
        }
        for name, members in found.items()
        for effect in members
    )


def _errors(cell: Cell) -> dict[str, Any]:
    error, published = cell.error, cell.published
    return {
        "n": error.n,
        "planned": len(cell.runs),
        "mean": error.mean,
        "sd": error.sd,
        **_interval(error),
        "min": cell.finished.min(),
        "max": cell.finished.max(),
        "failures": cell.failures,
        "published": published.value if published else None,
        "published_sd": published.sd if published else None,
        "published_n": published.n if published else None,
        "published_source": published.source if published else None,
    }


def _interval(estimate: Estimate | None, suffix: str = "") -> dict[str, Any]:
    """Its ends and what it is."""
    return {**_ends(estimate, suffix), f"interval{suffix}": estimate.kind if estimate else None}


def _ends(estimate: Estimate | None, suffix: str = "") -> dict[str, Any]:
    low, high = (estimate.low, estimate.high) if estimate else (math.nan, math.nan)
    return {f"low{suffix}": low, f"high{suffix}": high}
