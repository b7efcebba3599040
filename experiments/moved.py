"""A SQLite store that was moved or copied finds its artifacts again."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from experiments import stores
from experiments.locks import is_locked

PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Tables of MLflow's database and their columns that hold paths of artifacts."""


def follow(uri: str) -> str:
    """Have a SQLite store that was moved, or copied, find its artifacts where they are now; -> where they were, or nothing.

    MLflow notes their whole path in the database: it would write those of new runs to where the folder was, and miss others.
    """
    file = stores.database(uri)
    if not file or not file.exists() or _is_launched(file.parent):  # whose launches rely on the paths as they are
        return ""
    here, moved = file.parent / "artifacts", ""
    try:
        with closing(sqlite3.connect(file, timeout=60)) as connection, connection:
            noted = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
            for experiment, before in noted:
                if before == here.as_uri() or not str(before).startswith("file:"):
                    continue
                runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,)).fetchall()
                there = Path(url2pathname(urlsplit(before).path))
                gone = there.name == "artifacts" and not there.parent.exists()
                if gone or any((here / run).is_dir() for (run,) in runs):  # or else they are kept elsewhere on purpose
                    moved = before
                    for table, column in PATHS:
                        _renamed(connection, table, column, before, here.as_uri())
    except sqlite3.DatabaseError:  # no database, or a reader may not write to it
        return ""
    return moved


def _is_launched(folder: Path) -> bool:
    """Whether a launch is going on in a folder, be it mounted elsewhere where that runs."""
    try:
        return any(map(is_locked, (folder / "locks").glob("*/*-of-*.lock")))
    except OSError:  # a reader may not look
        return True


def _renamed(connection: sqlite3.Connection, table: str, column: str, before: str, now: str) -> None:
    """Put another path for this one, and for it in all that begin with it."""
    if column in {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )
