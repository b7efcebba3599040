"""Where the tracking store is, and whether it is there: what can be known of it without mlflow."""

import os
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen


def uri(folder: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or SQLite in the folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def exists(uri: str) -> bool:
    """Whether there is something to read: to look for runs makes no database."""
    file = database(uri)
    return file is None or file.exists()


def answers(uri: str) -> None:
    """Raise an OSError if no server answers within seconds; MLflow's own client would try for four minutes."""
    with suppress(HTTPError):  # it answers, and whether it lets us in is for MLflow to find out
        urlopen(uri.rstrip("/") + "/health", timeout=10).close()
