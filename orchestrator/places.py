"""Where a submission reads and writes: its storage and its cache, looked at before anything runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.store import Store
from orchestrator.usage import UsageError

_PROBE_BYTES = 1 << 16


def storage_of(given: str | None) -> str:
    """The storage that was given, else ``QUARTERTURN_STORAGE``, else ``results``.

    Raises ValueError for a relative one inside of a Ray job.
    """
    storage = given or os.environ.get("QUARTERTURN_STORAGE") or "results"
    is_relative = "://" not in storage and not Path(storage).is_absolute()
    if is_relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ValueError(
            f"storage {storage!r} is relative, and the folder of a Ray job is a copy that is new with every change of "
            "the code: give --storage with an absolute path or URL that all nodes reach, or set QUARTERTURN_STORAGE"
        )
    return storage


def storage_mark(store: Store) -> str:
    """Tells folders of one storage from those of another in a cache that both use."""
    return hashlib.sha256(store.uri.encode()).hexdigest()[:8]


def check_writable(store: Store, cache_dir: Path) -> None:
    """Write a little where storage and cache are or will be, and take it away.

    Raises UsageError naming the place that takes nothing: read-only, full, not ours, no credentials.
    """
    with _said(f"storage {store.uri}", "give --storage with a place that can be written, or make space there"):
        if store.is_local:
            _probe(Path(store.uri))
        else:
            name = f".probe-{uuid.uuid4().hex}"
            store.write_document(name, "x" * _PROBE_BYTES)
            store.remove(name)
    with _said(f"cache folder {cache_dir}", "give --cache-dir with a folder of this machine, or make space there"):
        _probe(cache_dir)


@contextlib.contextmanager
def _said(place: str, advice: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each file system has errors of its own
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise UsageError(f"cannot write to the {place}: {reason}; {advice}") from error


def _probe(folder: Path) -> None:
    """Write and remove in a folder, or in the one that it would be made in."""
    folder = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
