"""MLflow's SQLite database: made whole or not at all, and looked at before MLflow opens it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.provenance import first_line
from orchestrator.snapshot import UnusableDatabase, sqlite_path, sqlite_uri

_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"})
_ABANDONED_AFTER_S = 3600.0


def prepare(tracking_uri: str) -> None:
    """Make an SQLite database that is not there yet, and look whether one that is there can be opened.

    It is made under another name and then put in its place: killed on the way, or without space, nothing is there.
    Raises UnusableDatabase, in one line that says what to do.
    """
    path = sqlite_path(tracking_uri)
    if path is None:
        return
    if path.exists() and path.stat().st_size:
        _look(path)
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        _make(aside, is_logged_ahead=_is_on_local_disk(path))
        _put(aside, path)
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise UnusableDatabase(f"the MLflow database {path} cannot be made: {first_line(error)}") from error
    finally:
        for leftover in path.parent.glob(f"{aside.name}*"):
            leftover.unlink(missing_ok=True)


def _put(aside: Path, path: Path) -> None:
    """Give a whole database its name, unless another process was faster: its database may be written to already."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed: between the look and the move nobody else moves
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        elif not path.stat().st_size:  # what a disk that was full before the first page leaves behind
            os.replace(aside, path)
    finally:
        os.close(folder)


def _make(path: Path, *, is_logged_ahead: bool) -> None:
    # MLflow's own migrations; its public ways to them keep the file open under this name.
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(sqlite_uri(path))
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()
    if is_logged_ahead:
        # A tenth of the writes to disk. Not where other machines may open it: the log works on one machine only.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _look(path: Path) -> None:
    """MLflow would try a garbled database for two minutes and then give a traceback."""
    advice = "nothing is lost: move it away, and `python -m orchestrator sync` fills a new one from the storage"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            is_versioned = "alembic_version" in names and connection.execute("SELECT 1 FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "busy" in str(error):
            return  # MLflow waits for it
        raise UnusableDatabase(f"the MLflow database {path} cannot be read ({error}); {advice}") from error
    if "experiments" in names and not is_versioned:
        raise UnusableDatabase(f"the MLflow database {path} was left half made; {advice}")


def _remove_abandoned(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.new*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
                leftover.unlink()


def _is_on_local_disk(path: Path) -> bool:
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    folders = {str(folder) for folder in path.resolve().parents}
    inside = [(len(point), kind) for point, kind in mounts if point in folders]
    return max(inside, default=(0, ""))[1] in _LOCAL_FILE_SYSTEMS


@event.listens_for(Engine, "connect")
def _sync_less(connection: Any, record: Any) -> None:
    """With a write-ahead log a loss of power may cost the last rows (``sync`` brings them), never the database."""
    if isinstance(connection, sqlite3.Connection):
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
