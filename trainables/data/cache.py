"""Every image decoded once: uint8 memmaps and a small index, in a folder named by the key of the data set.

    <cache_dir>/<name>-<key>/images.npy    uint8 [N, C, H, W]
                             masks.npy     uint8 [N, H, W], 0 or 1
                             index.parquet one row an image
                             contents.json a checksum of each of the three, written last

The folder appears by one rename, so a half-written one is never read; a lock lets one process on a machine decode
while the others wait. The checksums find a damaged one, which is then made again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.data.records import Dataset, ImageArray, Record

log = logging.getLogger(__name__)

ReportProgress = Callable[[float, float, str], None]

_TABLE_FILES = ("images.npy", "masks.npy", "index.parquet")
_CONTENTS = "contents.json"
_READ_BYTES = 1 << 24
_STATISTICS_ROWS = 512


@dataclass(frozen=True)
class ImageTable:
    """A prepared data set. The arrays are read-only memmaps: processes on a machine share them in memory."""

    images_NCHW: ImageArray
    """uint8, black is 0."""
    masks_NHW: ImageArray
    """uint8, 0 or 1."""
    index: pl.DataFrame
    """Columns row (i64), id, group, split (str), position (i64, the slice in its volume), mask_fraction (f64, share of
    the image that the mask covers; 0 for an image without region), source_sha256 (str)."""

    def __len__(self) -> int:
        return self.index.height

    def rows(self, *splits: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row numbers of the splits, in index order. Raises ValueError for a split that the data set lacks."""
        known = self.index["split"].unique().to_list()
        if unknown := sorted(set(splits) - set(known)):
            raise ValueError(f"no split named {', '.join(unknown)}; this data set has {', '.join(sorted(known))}")
        return self.index.filter(pl.col("split").is_in(splits))["row"].to_numpy()

    def mean_std(self, rows: np.ndarray[Any, Any] | Sequence[int]) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of pixels / 255 for each channel, exact, over all pixels of the rows."""
        counts_CV = np.zeros((self.images_NCHW.shape[1], 256), dtype=np.int64)
        for start in range(0, len(rows), _STATISTICS_ROWS):
            images_BCHW = self.images_NCHW[np.asarray(rows[start : start + _STATISTICS_ROWS])]
            for channel, counts_V in enumerate(counts_CV):
                counts_V += np.bincount(images_BCHW[:, channel].ravel(), minlength=256)
        if not counts_CV.sum():
            raise ValueError("mean and standard deviation of no rows: give at least one")
        values_V = np.arange(256) / 255
        weights_CV = counts_CV / counts_CV.sum(axis=1, keepdims=True)
        mean_C = weights_CV @ values_V
        variance_C = (weights_CV * (values_V - mean_C[:, None]) ** 2).sum(axis=1)
        return mean_C.tolist(), np.sqrt(variance_C).tolist()


def open_table(
    dataset: Dataset,
    cache_dir: Path,
    report_progress: ReportProgress | None = None,
    num_workers: int | None = None,
) -> ImageTable:
    """The prepared data set; decodes it first when this machine has not done so yet.

    Args:
        cache_dir: a folder on this machine that processes share.
        report_progress: called with (done, total, "images") while decoding.
        num_workers: threads that decode; by default as many as there are cores.

    Raises:
        FileNotFoundError: the data set's folder is missing.
        BadData: lists every unusable file; nothing is left behind then.
        OSError: the disk of ``cache_dir`` is full.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    digests = FileDigests(cache_dir / "digests.json")
    folder = cache_dir / f"{dataset.name}-{key_of(dataset, digests)}"
    with _locked(folder.with_suffix(".lock")):
        if folder.exists() and _is_intact(folder):
            return _load(folder)
        if folder.exists():
            log.warning("%s is damaged: it is removed and %s is decoded again", folder, dataset.name)
            shutil.rmtree(folder)
        _build(dataset, folder, digests, report_progress, num_workers or os.cpu_count() or 1)
        return _load(folder)


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


def _is_intact(folder: Path) -> bool:
    try:
        contents = json.loads((folder / _CONTENTS).read_text())
        return bool(contents == {name: _checksum(folder / name) for name in _TABLE_FILES})
    except (OSError, ValueError):
        return False


def _load(folder: Path) -> ImageTable:
    images_NCHW = np.load(folder / "images.npy", mmap_mode="r")
    masks_NHW = np.load(folder / "masks.npy", mmap_mode="r")
    return ImageTable(images_NCHW, masks_NHW, pl.read_parquet(folder / "index.parquet"))


def _build(
    dataset: Dataset, folder: Path, digests: FileDigests, report_progress: ReportProgress | None, num_workers: int
) -> None:
    records = _checked_records(dataset)
    aside = folder.with_suffix(".partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    aside.mkdir()
    try:
        mask_fractions = _decode_all(dataset, records, aside, report_progress, num_workers)
        _index(dataset, records, mask_fractions, digests).write_parquet(aside / "index.parquet")
        contents = {name: _checksum(aside / name) for name in _TABLE_FILES}
        (aside / _CONTENTS).write_text(json.dumps(contents))
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _checked_records(dataset: Dataset) -> list[Record]:
    records = dataset.records()
    ids = [record.id for record in records]
    assert len(set(ids)) == len(ids), f"{dataset.name} gives the same id to several records"
    if not records:
        raise BadData(dataset.name, dict.fromkeys(dataset.source_files(), "gives no image"))
    return records


def _decode_all(
    dataset: Dataset, records: list[Record], folder: Path, report_progress: ReportProgress | None, num_workers: int
) -> list[float]:
    """Fill the two memmaps; returns the mask fraction of each record. Decoding is zlib and NumPy, so threads do."""
    count, channels, side = len(records), dataset.num_channels, dataset.image_size_px
    images_NCHW = _allocate(folder / "images.npy", (count, channels, side, side))
    masks_NHW = _allocate(folder / "masks.npy", (count, side, side))
    problems: dict[str, str] = {}

    def decode(row: int) -> dict[str, str]:
        try:
            images_NCHW[row], masks_NHW[row] = dataset.decode(records[row])
        except BadData as error:
            return error.problems
        return {}

    with ThreadPoolExecutor(num_workers) as pool:
        futures = [pool.submit(decode, row) for row in range(count)]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                problems.update(future.result())
                if report_progress is not None:
                    report_progress(done, count, "images")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        raise BadData(f"data set {dataset.name}", dict(sorted(problems.items())))
    images_NCHW.flush()
    masks_NHW.flush()
    return [float(mask_HW.mean()) for mask_HW in masks_NHW]


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
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


def _index(dataset: Dataset, records: list[Record], mask_fractions: list[float], digests: FileDigests) -> pl.DataFrame:
    files = dataset.source_files()
    sources = [digests.digest_all({name: files[name] for name in record.files.values()}) for record in records]
    return pl.DataFrame(
        {
            "row": np.arange(len(records), dtype=np.int64),
            "id": [record.id for record in records],
            "group": [record.group for record in records],
            "split": [record.split for record in records],
            "position": np.array([record.position for record in records], dtype=np.int64),
            "mask_fraction": np.array(mask_fractions, dtype=np.float64),
            "source_sha256": sources,
        }
    )


def _checksum(path: Path) -> int:
    """CRC-32: meant for truncation and bad blocks, and as fast as the disk."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
