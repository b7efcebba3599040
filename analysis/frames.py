"""Comparisons as data frames with raw numbers, for other programs."""

import json
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.cells import dataset_of, sorted_runs, text_of, tidy, varying
from analysis.comparisons import Comparisons, Effect, ranks


def of_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run, failures and what never ran included, in the order of the cells; errors in %, times in UTC."""
    return sorted_runs(runs, varying(runs))


def of_cells(comparisons: Comparisons) -> pd.DataFrame:
    """One row per cell with raw numbers, for other programs; errors in %, cost in seconds."""
    frame = tidy(list(comparisons.cells))
    seen = [images.interval if images else None for images in comparisons.images]
    frame["low_images"] = [interval.low if interval else math.nan for interval in seen]
    frame["high_images"] = [interval.high if interval else math.nan for interval in seen]
    frame["interval_images"] = [interval.kind if interval else None for interval in seen]
    frame["n_images"] = [interval.n if interval else 0 for interval in seen]
    together = [images.ensemble if images else None for images in comparisons.images]
    frame["ensemble"] = [estimate.mean if estimate else math.nan for estimate in together]
    frame["low_ensemble"] = [estimate.low if estimate else math.nan for estimate in together]
    frame["high_ensemble"] = [estimate.high if estimate else math.nan for estimate in together]
    frame["rank"], frame["rank_seeds"] = ranks(comparisons.cells)
    frame["seconds_per_run"] = [cell.runs["seconds"].mean() for cell in comparisons.cells]
    frame["parameters"] = [cell.runs["parameters"].max() for cell in comparisons.cells]
    return frame


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
                "low": made.difference.low,
                "high": made.difference.high,
                "interval": made.difference.kind,
                "low_images": seen.low if seen else math.nan,
                "high_images": seen.high if seen else math.nan,
                "interval_images": seen.kind if seen else None,
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
            "low": effect.estimate.low,
            "high": effect.estimate.high,
            "n": effect.estimate.n,
        }
        for name, members in found.items()
        for effect in members
    )
