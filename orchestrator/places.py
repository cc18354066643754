"""Where a submission reads and writes: its storage and its cache, looked at before anything runs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.failures import NO_SPACE
from orchestrator.provenance import first_line, without_password
from orchestrator.storage import creates_at_once
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


def opened(given: str | None) -> Store:
    """The storage of a command (see ``storage_of``), after a first look into it, which changes nothing.

    Raises ValueError for a storage that cannot be meant, UsageError naming one that cannot be read: no credentials, no
    network, not ours.
    """
    storage = storage_of(given)
    with _said(f"read the storage {without_password(storage)}", "look at its address, and at your credentials for it"):
        store = Store(storage)
        store.names("studies")
    return store


def existing(given: str | None) -> Store:
    """The storage of a command that reads studies. Raises FileNotFoundError where it has none, else as ``opened``."""
    store = opened(given)
    if not store.names("studies"):
        raise no_study(store)
    return store


def no_study(store: Store) -> FileNotFoundError:
    """What is said of a storage in which nothing is to be found."""
    return FileNotFoundError(f"{store.uri} holds no study; give --storage with the folder or URL of your results")


def give_home(folder: Path) -> None:
    """Let a user without a home have this one, here and in child processes: libraries fail without as they load."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(folder)


def check_writable(store: Store, cache_dir: Path) -> None:
    """Write a little where storage and cache are or will be, and take it away.

    Raises UsageError naming the place that takes nothing: read-only, full, not ours, no credentials.
    """
    with _said(
        f"write to the storage {store.uri}", "give --storage with a place that can be written, or make space there"
    ):
        if store.is_local:
            _probe(Path(store.uri))
        else:
            name = f".probe-{uuid.uuid4().hex}"
            store.write_document(name, "x" * _PROBE_BYTES)
            store.remove(name)
    with _said(
        f"write to the cache folder {cache_dir}", "give --cache-dir with a folder of this machine, or make space there"
    ):
        _probe(cache_dir)
    _probe_exclusive(store)


def _probe_exclusive(store: Store) -> None:
    """Try what claims rest on: that of two creators of one document the second is refused.

    Raises UsageError where it is not; says so where a look and a write are two steps.
    """
    place = Store(str(_nearest(Path(store.uri)))) if store.is_local else store
    name, advice = f".probe-{uuid.uuid4().hex}", "give --storage with another place"
    try:
        is_refused = place.create_document(name, 1) and not place.create_document(name, 2)
    except OSError as error:
        what = "it has no hard links" if store.is_local else "nothing can be created there"
        raise UsageError(f"storage {store.uri}: {what} ({error.strerror or error}); {advice}") from error
    finally:
        place.remove(name)
    if not is_refused:
        raise UsageError(
            f"storage {store.uri}: one document can be created twice, and two drivers would run one trial; {advice}"
        )
    if not creates_at_once(place):
        said = "cannot be asked to create what is not there in one step: let one driver at a time use it"
        print(f"warning: {store.uri} {said}", file=sys.stderr)


def _nearest(folder: Path) -> Path:
    """This folder, or the one that it would be made in."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def full_place(store: Store, cache_dir: Path) -> str:
    """The one of storage and cache that has no space now, as far as this machine sees; empty where both have."""
    for folder in [Path(store.uri), cache_dir] if store.is_local else [cache_dir]:
        try:
            _probe(folder)
        except OSError as error:
            if error.errno in NO_SPACE:
                return str(folder)
    return ""


@contextlib.contextmanager
def _said(what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except ValueError:  # it says by itself what is wrong with the address
        raise
    except Exception as error:  # each file system has errors of its own
        if os.environ.get("QUARTERTURN_TRACEBACK"):
            raise
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"cannot {what}: {reason}; {advice}") from error


def _probe(folder: Path) -> None:
    """Write and remove in a folder, or in the one that it would be made in."""
    with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
