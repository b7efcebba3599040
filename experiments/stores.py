"""Where the tracking store is, what it can do, and whether it is there: what can be known of it without mlflow."""

import os
import re
import shlex
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import psutil
from filelock import FileLock

from capsnet import files, terminal
from capsnet.errors import InputError, brief

NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "fuse.glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def uri(folder: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or SQLite in the folder."""
    if named := os.environ.get("MLFLOW_TRACKING_URI"):
        return named
    if odd := set("?#%") & set(str(folder.resolve())):
        raise InputError(f"--mlruns {folder}: SQLite's addresses can't hold {' '.join(sorted(odd))}; choose another folder")
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def studies(folder: Path, named: str) -> str:
    """The database of Optuna's studies: the one that is named, or ``OPTUNA_STORAGE``, or SQLite in the folder."""
    if url := named or os.environ.get("OPTUNA_STORAGE", ""):
        if "://" not in url:
            raise InputError(f"--storage must be the URL of a database, such as sqlite:///optuna.db, not {url!r}")
        return f"sqlite:///{file}" if (file := database(url)) else url  # workers have other folders
    return f"sqlite:///{folder.resolve() / 'optuna.db'}"


def shown(uri: str) -> str:
    """An address, or a text with addresses, without passwords, and without what SQLAlchemy tells its programmers first."""
    uri = re.sub(r"^\(raised as a result of [^)]*\) ", "", uri)
    return re.sub(r"([?&](?:password|token|secret)=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@\s]*):[^\s]*@", r"\1:***@", uri))


def browsing(uri: str) -> str:
    """What shows the runs of a store in a browser."""
    if is_server(uri):
        return shown(uri)
    serve = f"MLFLOW_DISABLE_TELEMETRY=true mlflow server --backend-store-uri {shlex.quote(shown(uri))}"
    return "make ui" if terminal.has_make() else serve


def command(uri: str, words: str) -> str:
    """A command of MLflow's on a store, which without its address would make another one in the current folder."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(shown(uri))} {'.venv/bin/' * terminal.has_make()}mlflow {words}"


def is_server(uri: str) -> bool:
    """Whether a server answers there, rather than a database that is opened from here."""
    return uri.startswith(("http://", "https://"))


def database(uri: str) -> Path | None:
    """The file of a SQLite store."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?.*)?", uri)
    return Path(found[1]).resolve() if found else None


def home(uri: str, folder: Path) -> Path:
    """Where the artifacts of a store without a server lie: beside the database, if it is a file."""
    file = database(uri)
    return file.parent if file else folder.resolve()


def exists(uri: str) -> bool:
    """Whether there is something to read: to look for runs makes no database."""
    file = database(uri)
    return file is None or file.exists()


def is_torn(database: Path | None) -> bool:
    """Whether a SQLite store holds no run, nor any experiment of ours, as after a start that was interrupted."""
    if not database or not database.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = [
                connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in known & {"experiments", "runs"}
            ]
    except sqlite3.DatabaseError:  # no database, or one that others hold
        return False
    return sum(rows) <= 1  # MLflow's own experiment


def answers(uri: str, seconds: float = 10.0) -> None:
    """Raise an OSError if no server answers within seconds; MLflow's own client would try for longer.

    Of a database it is asked only whether its host listens; a file is taken to be there.
    """
    try:
        if not is_server(uri):
            place = urlsplit(uri)
            if place.hostname and (port := place.port or PORTS.get(place.scheme.partition("+")[0])):
                socket.create_connection((place.hostname, port), timeout=seconds).close()
            return
        parts = urlsplit(uri.rstrip("/") + "/health")
        nameless = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # urllib knows no user:password@
        with suppress(HTTPError):  # it answers, and whether it lets us in is for MLflow to find out
            urlopen(nameless, timeout=seconds).close()
    except (HTTPException, ValueError) as error:  # what answers is no web server, or the address is none
        raise ConnectionError(brief(error)) from None


def write_ahead(uri: str) -> None:
    """Let a SQLite store keep a write-ahead log, so that readers and a writer don't wait for each other; it stays so."""
    file = database(uri)
    if file and file.exists() and filesystem(file) not in NETWORK:  # the log needs memory that its users share
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else who uses the folder is inside at the same time."""
    with FileLock(writable(folder / "locks") / "store.lock"):
        yield


def writable(folder: Path) -> Path:
    """The folder, which is ``--mlruns`` or in it, made if it isn't there; an InputError if nothing can be written to it."""
    return files.writable(folder, "--mlruns")


def filesystem(path: Path) -> str:
    """The type of the file system that holds a path, such as ext4 or nfs4."""
    mounted = {partition.mountpoint: partition.fstype for partition in psutil.disk_partitions(all=True)}
    return next((mounted[str(p)] for p in [path.resolve(), *path.resolve().parents] if str(p) in mounted), "")


def refuse_alone(uri: str, why: str) -> None:
    """Raise an InputError that says how to set a tracking server up if the store is for one machine only.

    Args:
        uri: of the store.
        why: what needs more than that.
    """
    if database(uri):
        raise InputError(
            f"{uri} is a SQLite file, which serves one machine, but {why}. Start a tracking server where every machine reaches "
            "it, and name it on each of them (docs/cluster.md has it step by step):\n"
            "  mlflow server --backend-store-uri postgresql://USER@127.0.0.1/mlflow \\\n"
            "    --artifacts-destination /SHARED/artifacts --host HOST --allowed-hosts HOST:5000\n"
            "  export MLFLOW_TRACKING_URI=http://HOST:5000\n"
            "and for a search, whose workers report to its study:\n"
            "  export OPTUNA_STORAGE=postgresql://USER@HOST/optuna\n"
            "Passwords belong into ~/.pgpass; whoever reaches the server can use it, unless it has accounts."
        )
