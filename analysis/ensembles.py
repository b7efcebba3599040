"""What the networks of a cell, which differ in their seed alone, answer together, as the paper's seven on CIFAR-10."""

import pandas as pd

from analysis.axes import texts_of, varying
from analysis.captions import footer, in_brackets, published_notes, published_text, slug
from analysis.comparisons import Comparisons
from analysis.fields import name_of
from analysis.formats import Table
from analysis.wording import error_text, interval_text


def table(comparisons: Comparisons, runs: pd.DataFrame) -> Table | None:
    """A row for each cell with two networks or more: what they answer together, beside each on its own; None without any."""
    pairs = zip(comparisons.cells, comparisons.images, strict=True)
    found = [(cell, images, images.ensemble) for cell, images in pairs if images and images.ensemble]
    if not found:
        return None
    axes, has_paper = varying(runs), any(cell.published_ensemble for cell, _, _ in found)
    body = []
    for cell, images, together in found:
        results = [error_text(cell), str(images.interval.n), f"{together.mean:.2f}", interval_text(together)]
        paper = [published_text(cell.published_ensemble) if cell.published_ensemble else ""] if has_paper else []
        body.append([*texts_of(cell.setting), *results, f"{len(images.labels):,}", *paper])
    header = [*map(name_of, axes), "single network (%)", "networks", "ensemble (%)", "95% over images", "test images"]
    caption = (
        "Ensembles: test error in % of the mean class scores of all networks of a cell, which differ in their seed alone, "
        f"beside that of a single one (mean ± sample sd).{in_brackets(axes)}"
    )
    kinds = ", ".join(dict.fromkeys(together.kind for _, _, together in found))
    notes = [
        f"95% over images: {kinds}, of these networks; other seeds would make another ensemble.",
        *published_notes((cell, cell.published_ensemble) for cell, _, _ in found),
        footer(runs),
    ]
    return Table(f"tab:{slug(runs)}-ensembles", caption, header + ["paper (%)"] * has_paper, body, len(axes), notes)
