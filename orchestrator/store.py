"""Where results live: one folder a key, on a local disk, NFS or an object store, through one interface.

Layout below the root:

    trials/<key>/trial.json              what the trial is: name, class, configuration
    trials/<key>/files/...               result files, valid only if result.json names them
    trials/<key>/result.json             written last: the result is there whole or not at all
    trials/<key>/progress.json           the last two resumable states: checkpoint, items, journal segments
    trials/<key>/{checkpoints,items,journal}/...
    trials/<key>/failure.json            why the trial failed for good
    trials/<key>/claim.json              who runs it now (claims.py)
    studies/<study>/<submission>.json    manifests: the keys a submission needs, and its command

Every document is replaced atomically: by rename on a file system, by a single put on an object store. Files are
written before the document that names them with their digests, so a reader never meets half a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from trainables.api.identity import sha256_of


class DamagedResult(Exception):
    """Published files are missing or differ from their digests."""


@dataclass(frozen=True)
class FileEntry:
    """Digest and size of one published file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Result:
    """A finished trial, as its ``result.json`` tells."""

    key: str
    metrics: dict[str, float]
    files: dict[str, FileEntry]
    segments: list[str]
    started_at: float  # seconds since the epoch
    ended_at: float
    busy_s: float  # seconds of work over all attempts
    attempt: int
    work_flop: float
    provenance: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """A trial that failed for good: its class of failure and what to tell the user."""

    kind: str  # "non-finite", "bad configuration", "out of memory" or "crash"
    message: str
    traceback: str
    attempt: int
    at: float


@dataclass(frozen=True)
class Generation:
    """One resumable state. All files it names were whole before it was written."""

    checkpoint: str | None = None
    checkpoint_files: dict[str, FileEntry] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    item_files: dict[str, FileEntry] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    fraction: float = 0.0
    attempt: int = 1
    started_at: float = 0.0
    busy_s: float = 0.0


class Store:
    """Results under one root. Cheap to open; safe to use from many processes."""

    def __init__(self, uri: str) -> None:
        """Open ``uri``: a folder, or any fsspec URL such as ``s3://bucket/results``.

        Raises ValueError naming the URI when its protocol needs a package that is not installed.
        """
        try:
            # A listing remembered from before another process wrote would make a whole result look damaged.
            self._fs, self._root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot open the storage {uri!r}: {error}") from error
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local:
            self._root = str(Path(self._root).resolve())
        self.uri = self._root if self.is_local else uri.rstrip("/")

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    # -- documents ------------------------------------------------------------------------------------

    def write_document(self, path: str, document: Any, *, is_durable: bool = True) -> None:
        """Replace one JSON document atomically; one that is not durable may be lost when the machine loses power."""
        self._replace(path, json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode(), is_durable)

    def read_document(self, path: str) -> Any | None:
        """The JSON document, or None when it is absent or garbled (every document can be made again)."""
        try:
            return json.loads(self._fs.cat_file(self._at(path)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return None

    def create_document(self, path: str, document: Any) -> bool:
        """Create a JSON document unless it exists; of several callers exactly one gets True."""
        content = json.dumps(document, sort_keys=True).encode()
        if not self.is_local:
            try:
                self._fs.pipe_file(self._at(path), content, mode="create")
            except FileExistsError:
                return False
            return True
        temporary = self._write_aside(path, content, is_durable=False)
        try:
            # A hard link appears with its whole content, and fails if the name is taken (NFS too).
            os.link(temporary, self._at(path))
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    def take_away(self, path: str) -> str | None:
        """Move a document aside; returns its new path, or None when another process was faster."""
        aside = f"{path}.{uuid.uuid4().hex}"
        try:
            if self.is_local:
                os.rename(self._at(path), self._at(aside))
            else:
                self._fs.mv(self._at(path), self._at(aside))
        except FileNotFoundError:
            return None
        return aside

    def remove(self, path: str) -> None:
        """Remove a document or a folder; nothing happens when it is absent."""
        try:
            self._fs.rm(self._at(path), recursive=True)
        except FileNotFoundError:
            return

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.exists(self._at(path)))

    def names(self, path: str) -> list[str]:
        """Sorted names of what lies in a folder, without what is still being written; empty when it is absent."""
        try:
            entries = self._fs.ls(self._at(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted(name for name in names if not name.startswith("."))

    def size_bytes(self, path: str) -> int:
        """Bytes below a path; 0 when it is absent."""
        return int(self._fs.du(self._at(path))) if self.exists(path) else 0

    # -- folders of files -----------------------------------------------------------------------------

    def upload(self, local: Path, path: str) -> dict[str, FileEntry]:
        """Copy every file below ``local`` to the folder ``path``; returns what was written, verified by size."""
        entries: dict[str, FileEntry] = {}
        for file in sorted(p for p in local.rglob("*") if p.is_file()):
            name = file.relative_to(local).as_posix()
            entries[name] = FileEntry(sha256_of(file), file.stat().st_size)
            self._put(file, f"{path}/{name}", entries[name].size_bytes)
        return entries

    def download(self, path: str, files: Mapping[str, FileEntry], local: Path) -> Path:
        """The folder ``path`` on local disk, digests verified; the place itself if the store is local.

        Raises DamagedResult naming the file that is missing or differs.
        """
        if self.is_local:
            local = Path(self._at(path))
        for name, entry in files.items():
            target = local / name
            if not self.is_local:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or sha256_of(target) != entry.sha256:
                    self._get(f"{path}/{name}", target)
            if not target.exists() or sha256_of(target) != entry.sha256:
                raise DamagedResult(f"{self.uri}/{path}/{name} is missing or does not match its digest")
        return local

    def is_whole(self, path: str, files: Mapping[str, FileEntry]) -> bool:
        """Whether all files are there with their sizes: a look without reading them."""
        return all(self._size(f"{path}/{name}") == entry.size_bytes for name, entry in files.items())

    # -- trials ---------------------------------------------------------------------------------------

    def result(self, key: str) -> Result | None:
        """The result of a trial if it is there; a damaged one is set aside and counts as absent."""
        document = self.read_document(f"trials/{key}/result.json")
        if document is None:
            return None
        try:
            files = {name: FileEntry(**entry) for name, entry in document.pop("files").items()}
            result = Result(files=files, **document)
        except (AttributeError, KeyError, TypeError):
            self.set_aside(key)
            return None
        if not self.is_whole(f"trials/{key}/files", files) or not self._has_segments(result):
            self.set_aside(key)
            return None
        return result

    def _has_segments(self, result: Result) -> bool:
        return all(self._size(f"trials/{result.key}/journal/{name}") is not None for name in result.segments)

    def publish(self, result: Result) -> None:
        """Make a result valid. Its files were uploaded before; what was only needed to resume goes."""
        if not self.is_whole(f"trials/{result.key}/files", result.files):
            raise OSError(
                f"the files of trial {result.key} did not arrive whole in {self.uri}: is the disk full? "
                "The trial is not done; submit again when there is space"
            )
        self.write_document(f"trials/{result.key}/result.json", asdict(result))
        for leftover in ("progress.json", "checkpoints", "items", "failure.json"):
            self.remove(f"trials/{result.key}/{leftover}")

    def fetch(self, key: str, cache_dir: Path) -> Path:
        """Local folder with the verified files of a finished trial.

        Raises DamagedResult, after setting the result aside, when its files are not what was published.
        """
        result = self.result(key)
        if result is None:
            raise DamagedResult(f"trial {key} has no result in {self.uri}; submit again to compute it")
        try:
            return self.download(f"trials/{key}/files", result.files, cache_dir / "fetched" / key)
        except DamagedResult as error:
            self.set_aside(key)
            raise DamagedResult(f"{error}; it was set aside, submit again to compute it anew") from error

    def set_aside(self, key: str) -> None:
        """Take a damaged result out of use, keeping it for a look."""
        aside = self.take_away(f"trials/{key}/result.json")
        if aside is not None:
            message = f"warning: the result of trial {key} is damaged; set aside as {self.uri}/{aside}"
            print(message, file=sys.stderr, flush=True)

    def failure(self, key: str) -> Failure | None:
        """Why a trial failed for good, or None."""
        document = self.read_document(f"trials/{key}/failure.json")
        return Failure(**document) if document else None

    def record_failure(self, key: str, failure: Failure) -> None:
        """Remember that a trial failed for good."""
        self.write_document(f"trials/{key}/failure.json", asdict(failure))

    def clear_failure(self, key: str) -> None:
        """Give a failed trial another chance."""
        self.remove(f"trials/{key}/failure.json")

    def generations(self, key: str) -> list[Generation]:
        """The resumable states of a trial, newest first; empty when there are none or they are garbled."""
        document = self.read_document(f"trials/{key}/progress.json")
        try:
            return [_generation(entry) for entry in document or []]
        except (AttributeError, KeyError, TypeError):
            return []

    def write_generations(self, key: str, generations: list[Generation]) -> None:
        """Replace the resumable states of a trial atomically."""
        self.write_document(f"trials/{key}/progress.json", [asdict(g) for g in generations])

    def write_segment(self, key: str, name: str, rows: list[list[Any]]) -> str:
        """One journal segment, rows of [metric, step, value, time in ms]; returns its full name, with a digest."""
        content = json.dumps(rows, allow_nan=False).encode()
        name = f"{name}-{_short_digest(content)}.json"
        self._replace(f"trials/{key}/journal/{name}", content)
        return name

    def segment(self, key: str, name: str) -> list[list[Any]]:
        """The rows of one journal segment. Raises DamagedResult when it is missing or differs from its digest."""
        path = f"trials/{key}/journal/{name}"
        try:
            content = self._fs.cat_file(self._at(path))
        except FileNotFoundError as error:
            raise DamagedResult(f"{self.uri}/{path} is missing") from error
        if not name.endswith(f"-{_short_digest(content)}.json"):
            raise DamagedResult(f"{self.uri}/{path} does not match its digest")
        return list(json.loads(content))

    def manifests(self) -> Iterator[dict[str, Any]]:
        """All manifests, study by study."""
        for study in self.names("studies"):
            for name in self.names(f"studies/{study}"):
                manifest = self.read_document(f"studies/{study}/{name}") if name.endswith(".json") else None
                if isinstance(manifest, dict) and "trials" in manifest:
                    yield manifest

    # -- the file system ------------------------------------------------------------------------------

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _size(self, path: str) -> int | None:
        if self.is_local:
            try:
                return os.stat(self._at(path)).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            return int(self._fs.size(self._at(path)))
        except FileNotFoundError:
            return None

    def _replace(self, path: str, content: bytes, is_durable: bool = True) -> None:
        if self.is_local:
            os.replace(self._write_aside(path, content, is_durable=is_durable), self._at(path))
        else:
            self._fs.pipe_file(self._at(path), content)

    def _write_aside(self, path: str, content: bytes, *, is_durable: bool) -> str:
        target = Path(self._at(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        return str(temporary)

    def _put(self, file: Path, path: str, size_bytes: int) -> None:
        if self.is_local:
            target = Path(self._at(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        else:
            self._fs.put_file(str(file), self._at(path))
        if self._size(path) != size_bytes:
            raise OSError(f"{self.uri}/{path} did not arrive whole ({size_bytes} bytes): is the disk full?")

    def _get(self, path: str, target: Path) -> None:
        # Aside and renamed: another trial of this node may be reading the same file.
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self._fs.get_file(self._at(path), str(aside))
        except FileNotFoundError as error:
            raise DamagedResult(f"{self.uri}/{path} is missing") from error
        os.replace(aside, target)


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _generation(document: dict[str, Any]) -> Generation:
    for name in ("checkpoint_files", "item_files"):
        document[name] = {file: FileEntry(**entry) for file, entry in document[name].items()}
    return Generation(**document)
