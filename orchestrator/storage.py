"""Documents and folders of files under one root: a local disk, NFS or an object store, through one interface.

Every document is replaced atomically: by rename on a file system, by a single put on an object store. Files are
written before the document that names them with their digests, so a reader never meets half of anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from trainables.api.identity import sha256_of

_CHUNK_BYTES = 1 << 20


class DamagedResult(Exception):
    """Published files are missing or differ from their digests."""


@dataclass(frozen=True)
class FileEntry:
    """Digest and size of one published file."""

    sha256: str
    size_bytes: int


class Storage:
    """Documents and folders under one root. Cheap to open; safe to use from many processes and threads."""

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

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.uri,)

    # -- documents ------------------------------------------------------------------------------------

    def write_document(self, path: str, document: Any, *, is_durable: bool = True) -> None:
        """Replace one JSON document atomically; one that is not durable may be lost when the machine loses power."""
        self.write_bytes(path, _encoded(document), is_durable=is_durable)

    def read_document(self, path: str) -> Any | None:
        """The JSON document, or None when it is absent or garbled (every document can be made again)."""
        try:
            return json.loads(self.read_bytes(path) or b"")
        except (ValueError, RecursionError):  # the second: brackets without end
            return None

    def create_document(self, path: str, document: Any, *, is_durable: bool = False) -> bool:
        """Create a JSON document unless it exists; of several callers exactly one gets True."""
        content = _encoded(document)
        if not self.is_local:
            return _put_if_absent(self._fs, self._at(path), content)
        temporary = _written_aside(Path(self._at(path)), content, is_durable)
        try:
            # A hard link appears with its whole content, and fails if the name is taken (NFS too).
            os.link(temporary, self._at(path))
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    def read_bytes(self, path: str) -> bytes | None:
        """What a file holds, or None when it is absent."""
        try:
            return bytes(self._fs.cat_file(self._at(path)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def write_bytes(self, path: str, content: bytes, *, is_durable: bool = True) -> None:
        """Replace one file atomically."""
        if self.is_local:
            os.replace(_written_aside(Path(self._at(path)), content, is_durable), self._at(path))
        else:
            self._fs.pipe_file(self._at(path), content)

    def take_away(self, path: str, aside: str | None = None) -> str | None:
        """Move a document aside; returns its new path, or None when another process was faster."""
        aside = aside or f"{path}.{uuid.uuid4().hex}"
        try:
            if self.is_local:
                Path(self._at(aside)).parent.mkdir(parents=True, exist_ok=True)
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
        """Copy every file below ``local`` to the folder ``path``; returns what was written, verified by size.

        Raises FileNotFoundError where ``local`` is no folder: nothing there is not the same as an empty one.
        """
        if not local.is_dir():
            raise FileNotFoundError(f"the folder {local} is gone: nothing of it can be brought to {self.uri}/{path}")
        entries: dict[str, FileEntry] = {}
        for file in sorted(p for p in local.rglob("*") if p.is_file()):
            name = file.relative_to(local).as_posix()
            entries[name] = FileEntry(sha256_of(file), file.stat().st_size)
            self._put(file, f"{path}/{name}", entries[name].size_bytes)
        return entries

    def download(self, path: str, files: Mapping[str, FileEntry], local: Path) -> Path:
        """The folder ``path`` on local disk, digests verified; the place itself if the store is local.

        Raises DamagedResult naming the file that is missing or differs, or whose name leads out of the folder.
        """
        if self.is_local:
            local = Path(self._at(path))
        for name, entry in files.items():
            check_inside(name, f"{self.uri}/{path}")
            target = local / name
            if not self.is_local:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or sha256_of(target) != entry.sha256:
                    self._get(f"{path}/{name}", target)
            if not target.exists() or sha256_of(target) != entry.sha256:
                raise DamagedResult(f"{self.uri}/{path}/{name} is missing or does not match its digest")
        return local

    def verify(self, path: str, files: Mapping[str, FileEntry]) -> None:
        """Read all files where they lie. Raises DamagedResult naming the first that is missing or differs."""
        for name, entry in files.items():
            check_inside(name, f"{self.uri}/{path}")
            digest = hashlib.sha256()
            try:
                with self._fs.open(self._at(f"{path}/{name}"), "rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
            except FileNotFoundError as error:
                raise DamagedResult(f"{self.uri}/{path}/{name} is missing") from error
            if digest.hexdigest() != entry.sha256:
                raise DamagedResult(f"{self.uri}/{path}/{name} does not match its digest")

    def unwhole(self, path: str, files: Mapping[str, FileEntry]) -> str | None:
        """The first file that is not there with its size, or None: a look without reading them."""
        if not files:
            return None
        sizes = self._sizes(path)
        return next((name for name, entry in files.items() if sizes.get(name) != entry.size_bytes), None)

    # -- the file system ------------------------------------------------------------------------------

    def _at(self, path: str) -> str:
        if path:
            check_inside(path, self.uri)
        return f"{self._root}/{path}"

    def _sizes(self, path: str) -> dict[str, int]:
        """Bytes of every file below a folder, by its path in it: one request where every request costs."""
        root = self._at(path)
        if self.is_local:
            sizes: dict[str, int] = {}
            for file in (Path(folder) / name for folder, _, names in os.walk(root) for name in names):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    sizes[file.relative_to(root).as_posix()] = file.stat().st_size
            return sizes
        entries = self._fs.find(root, detail=True).items()
        return {name.removeprefix(root.rstrip("/")).lstrip("/"): int(entry["size"]) for name, entry in entries}

    def _put(self, file: Path, path: str, size_bytes: int) -> None:
        if self.is_local:
            target = Path(self._at(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            with target.open("rb+") as copied:  # on the disk before the document that names it
                os.fsync(copied.fileno())
            arrived = target.stat().st_size
        else:
            self._fs.put_file(str(file), self._at(path))
            arrived = int(self._fs.size(self._at(path)))
        if arrived != size_bytes:
            raise OSError(f"{self.uri}/{path} did not arrive whole ({size_bytes} bytes): is the disk full?")

    def _get(self, path: str, target: Path) -> None:
        # Aside and renamed: another trial of this node may be reading the same file.
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self._fs.get_file(self._at(path), str(aside))
        except FileNotFoundError as error:
            raise DamagedResult(f"{self.uri}/{path} is missing") from error
        os.replace(aside, target)


def _put_if_absent(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> bool:
    try:
        fs.pipe_file(path, content, mode="create")
    except OSError:  # each store has words of its own for a condition that did not hold
        if fs.exists(path):
            return False
        raise
    return True


def creates_at_once(storage: Storage) -> bool:
    """Whether ``create_document`` is one step; elsewhere it looks and then writes, and two may succeed."""
    own = getattr(storage._fs.pipe_file, "__func__", None)  # asynchronous ones have a function of each instance
    return storage.is_local or own is not AbstractFileSystem.pipe_file


def storage_mark(storage: Storage) -> str:
    """Tells folders of one storage from those of another in a cache that both use."""
    return hashlib.sha256(storage.uri.encode()).hexdigest()[:8]


def _encoded(document: Any) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode()


def _written_aside(target: Path, content: bytes, is_durable: bool) -> str:
    """A file with this content beside ``target``, ready to be renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # of a full disk, which it would keep full
        raise
    return str(temporary)


def is_name(name: str) -> bool:
    """Whether a text is the name of one thing in a folder, and no way out of it."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\0"}


def check_inside(name: str, where: str) -> None:
    """Raise DamagedResult for a path that leads out of the folder that it is told from."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DamagedResult(f"{where} names a file {name!r}, which lies outside of it")
