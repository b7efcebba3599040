"""Where the results of an experiment are written."""

import hashlib
import re
from collections.abc import Sequence

AND, WHERE = "+", "_where_"  # between names of experiments, and before each condition


def folder_name(*experiments: str, where: Sequence[str] = ()) -> str:
    """The names of experiments, and what chooses some of their runs, as that of a folder, another one for each.

    What could lead out of the results, or nowhere, becomes an underscore; a name in which something did ends with a digest, so
    that ``a/b`` and ``a_b`` don't write over each other's results.
    """
    return WHERE.join([AND.join(map(_safe, experiments)), *map(_safe, where)])


def _safe(text: str) -> str:
    safe = re.sub(r"[^\w.+=-]|^\.+", "_", text)
    plain = safe == text and WHERE not in text and AND not in text
    return safe if plain else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
