"""Folders of arrays that are made once on a machine: whole or not at all, by one process at a time, made again when
damaged.

A folder appears by one rename, so a half-written one is never read; a lock lets one process make it while the others
wait. ``contents.json``, written last, has a checksum of every file. Reading a table through takes as long as the disk
gives it, so that is done once while the machine is up: ``verified.json`` notes the start of the machine, and size, time
of change and inode of every file. While they are the same a table is opened without a lock and without being read. Any
write, truncation or replacement shows in them, what a disk loses while the machine is down in the checksums. A damaged
table costs a warning and its decoding, as if it had never been made.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

log = logging.getLogger(__name__)

Table = TypeVar("Table")
Bytes = np.memmap[Any, np.dtype[np.uint8]]

_CONTENTS = "contents.json"
_VERIFIED = "verified.json"
_READ_BYTES = 1 << 24
# What JSON of another shape raises when it is read as the names of files with their checksums.
_GARBLED = (ValueError, TypeError, AttributeError, RecursionError)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def open_or_make(folder: Path, make: Callable[[Path], None], load: Callable[[Path], Table]) -> Table:
    """What ``load`` gives of the folder; ``make`` fills it first, through an empty folder beside it, where there is no
    whole one. Nothing is left behind when ``make`` raises."""
    if _is_verified(folder):
        try:
            return load(folder)
        except Exception as error:  # damaged under our eyes, in whatever way: the checksums will tell
            log.warning("%s cannot be read (%s): its checksums are looked at", folder, error)
            (folder / _VERIFIED).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not _is_verified(folder):
            _verify_or_make(folder, make)
        return load(folder)


def allocate(path: Path, shape: tuple[int, ...]) -> Bytes:
    """A new uint8 array on disk, its blocks taken. Raises OSError that says what to do when the disk is full."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    # Writing into a memmap on a full disk kills the process; taking the blocks first raises an error instead.
    size = path.stat().st_size
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            advice = f"{size / 1e6:.0f} MB are needed in {path.parent}: free them, or use another --cache-dir"
            raise OSError(error.errno, f"{error.strerror}: {advice}") from error
    return array


def load_array(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The read-only memmap of an array: processes on a machine share it in memory."""
    array: np.ndarray[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="r")
    return array


def load_index(path: Path) -> pl.DataFrame:
    """The index of a table."""
    return pl.read_parquet(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock of a killed process is free."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process prepares %s: waiting for it", path.stem)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _verify_or_make(folder: Path, make: Callable[[Path], None]) -> None:
    if folder.exists() and not _is_intact(folder):
        log.warning("%s is damaged: it is removed and decoded again", folder)
        shutil.rmtree(folder)
    if not folder.exists():
        _make(folder, make)
    _note_verified(folder)


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    aside = folder.with_suffix(".partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    aside.mkdir()
    try:
        make(aside)
        contents = {path.name: _checksum(path) for path in sorted(aside.iterdir())}
        (aside / _CONTENTS).write_text(json.dumps(contents))
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_intact(folder: Path) -> bool:
    try:
        contents = json.loads((folder / _CONTENTS).read_text())
        return bool(contents) and all(_checksum(folder / name) == checksum for name, checksum in contents.items())
    except (OSError, *_GARBLED):
        return False


def _is_verified(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _VERIFIED).read_text()) == _state(folder))
    except (OSError, *_GARBLED):
        return False


def _note_verified(folder: Path) -> None:
    """Only saves time: where it cannot be written, the table is read through at every opening."""
    aside = folder / f"{_VERIFIED}.{os.getpid()}"
    try:
        aside.write_text(json.dumps(_state(folder)))
        os.replace(aside, folder / _VERIFIED)
    except OSError as error:
        log.info("%s cannot be noted as verified: %s", folder, error)


def _state(folder: Path) -> dict[str, Any]:
    """The start of the machine, and what the file system says of every file of the table.

    Raises OSError for a missing file, and one of ``_GARBLED`` for garbled contents.
    """
    names = [_CONTENTS, *json.loads((folder / _CONTENTS).read_text())]
    stats = {name: (folder / name).stat() for name in names}
    files = {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}
    return {"boot": _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "", "files": files}


def _checksum(path: Path) -> int:
    """CRC-32: meant for truncation and bad blocks, and as fast as the disk."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
