"""Reading files of images: each checked against the digest it was planned with, and every failure said by name.

A trial decodes what its plan saw, or nothing: inside ``planned`` every file that is read is hashed on the way and
compared with its digest in the plan. Small files are read once and decoded from memory; a volume, which is not read
whole, is hashed once.
"""

from __future__ import annotations

import bisect
import difflib
import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from trainables.api.errors import BadData

_CHUNK_BYTES = 1 << 20
_MOST_NAMES = 3
_MOST_COMPARED = 200  # comparing takes about a millisecond for ten names

_planned: ContextVar[Mapping[str, str] | None] = ContextVar("planned", default=None)
_hashed: dict[tuple[str, int, int], str] = {}


@contextmanager
def planned(digests: Mapping[str, str]) -> Iterator[None]:
    """Inside the block, in this thread, files have to have these SHA-256 digests, by name."""
    token = _planned.set(digests)
    try:
        yield
    finally:
        _planned.reset(token)


def read(path: Path, name: str) -> bytes:
    """The whole content of a file.

    Args:
        name: of the file in ``source_files()``, for the check against the plan and for messages.

    Raises:
        BadData: the file cannot be read, is empty, or is not the one that was planned.
    """
    check_regular(path, name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadData("file", {name: why_unusable(path, error)}) from error
    if not content:
        raise BadData("file", {name: "is empty (0 bytes): copy it again"})
    if (digests := _planned.get()) is not None:
        _compare(name, digests, hashlib.sha256(content).hexdigest())
    return content


def check(path: Path, name: str) -> None:
    """The same for a file that something else will read: hashed in pieces, once while it stays as it is.

    Raises:
        BadData: as ``read``.
    """
    check_regular(path, name)
    try:
        found = path.stat()
        if not found.st_size:
            raise BadData("file", {name: "is empty (0 bytes): copy it again"})
        with path.open("rb") as file:
            if (digests := _planned.get()) is None:
                return
            key = (str(path), found.st_size, found.st_mtime_ns)
            if key not in _hashed:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                _hashed[key] = digest.hexdigest()
    except OSError as error:
        raise BadData("file", {name: why_unusable(path, error)}) from error
    _compare(name, digests, _hashed[key])


def check_regular(path: Path, name: str) -> None:
    """Raises BadData for a pipe, a socket or a device, whose reading need not end; says nothing of other failures."""
    if _is_endless(path):
        raise BadData("file", {name: why_unusable(path)})


def _is_endless(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _compare(name: str, digests: Mapping[str, str], found: str) -> None:
    if digests.get(name) != found:
        reason = "has changed since the plan: submit again, so that results say what they were computed from"
        raise BadData("file", {name: reason})


def is_usable(path: Path) -> bool:
    """Whether a file is there and may be read."""
    return path.is_file() and os.access(path, os.R_OK)


def usable(files: Mapping[str, Path]) -> dict[str, Path]:
    """Those that are there and may be read; the others are named when they are decoded."""
    return {name: path for name, path in files.items() if is_usable(path)}


def printable(name: str) -> str:
    """A name as it can be written down: control characters, and bytes that are not UTF-8, as escapes."""
    shown = name.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in shown)


def why_unusable(path: Path, error: OSError | None = None, expected: Sequence[str] = ()) -> str:
    """What is wrong with a file that cannot be read, what was found instead, and what to do.

    Args:
        expected: names that were looked for; by default the file's own.
    """
    if error is None:
        try:
            path.stat()
            error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as caught:
            error = caught
    if path.is_dir():
        return "is a folder: a file was expected, move it away or rename it"
    if _is_endless(path):
        return "is a pipe, a socket or a device: a regular file was expected, move it out of the folder"
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself: link it to the file, or copy the file"
    if path.is_symlink() and not path.exists():
        return f"is a symbolic link to {os.readlink(path)}, which does not exist: copy the file itself"
    if isinstance(error, PermissionError):
        return f"may not be read ({error.strerror}): allow it, for example with chmod a+r"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _missing(path, expected or (path.name,))
    return f"cannot be read ({error.strerror or error}): check the disk, or copy it again"


def _missing(path: Path, expected: Sequence[str]) -> str:
    wanted = f"expected {' or '.join(expected)}"
    folder = path.parent
    if folder.is_file():
        return f"missing: {folder.name} is a file, where a folder was expected that holds the files; {wanted}"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return f"missing: there is no readable folder {folder}; {wanted}"
    near = _near(path.name, names)
    found = f"found {', '.join(near)}" if near else "found an empty folder"
    return f"missing: {wanted}, {found} in {folder}: rename the file or copy it there"


def _near(name: str, names: Sequence[str]) -> list[str]:
    """Names that the file may have been given: those that hold its stem, else those most alike, else its neighbours."""
    stem = name.split(".")[0]
    if holding := [other for other in names if stem in other]:
        return holding[:_MOST_NAMES]
    if len(names) <= _MOST_COMPARED:
        return difflib.get_close_matches(name, names, n=_MOST_NAMES, cutoff=0.3) or list(names[:_MOST_NAMES])
    place = bisect.bisect(names, name)
    return list(names[max(0, place - 1) : place + 1])
