"""Where the results of an experiment are written."""

import hashlib
import re
from collections.abc import Sequence

AND, WHERE, AGAINST = "+", "_where_", "_against_"  # between names of experiments, before each condition, and a reference


def folder_name(*experiments: str, where: Sequence[str] = (), reference: str = "") -> str:
    """The names of experiments, what chooses some of their runs, and what they are compared to, as that of a folder of its own.

    What could lead out of the results, or nowhere, becomes an underscore; a name in which something did ends with a digest, so
    that ``a/b`` and ``a_b`` don't write over each other's results.
    """
    against = AGAINST + _safe(reference) if reference else ""
    return WHERE.join([AND.join(map(_safe, experiments)), *map(_safe, where)]) + against


def _safe(text: str) -> str:
    safe = re.sub(r"[^\w.+=-]|^\.+", "_", text)
    plain = safe == text and not any(word in text for word in (AND, WHERE, AGAINST))
    return safe if plain else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
