"""Images and annotations, each decoded once on a machine: uint8 memmaps and small indices, named by their keys.

    <cache_dir>/<data set>-<key>/images.npy               uint8 [N, C, H, W]
                                 index.parquet            one row an image
    <cache_dir>/<data set>-<annotation>-<key>/values.npy  uint8 [N, H, W], rows as in the images
                                              index.parquet

``tables`` says how they are kept whole. Labels are small and read anew each time.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import polars as pl

from trainables.api.errors import BadData
from trainables.api.identity import FileDigests, key_of
from trainables.api.trainable import Part, ReadsFiles
from trainables.data import reading, tables
from trainables.data.annotations import Annotation, ClassMasks, Labels, MultiLabels, PixelAnnotation, Region
from trainables.data.decoding import Problems, ReportProgress, decode_rows
from trainables.data.records import Dataset, ImageArray, Record

_STATISTICS_ROWS = 512
_NO_LABEL = -1


class DataContext(Protocol):
    """What preparing data needs to know; the context of every trial does."""

    @property
    def cache_dir(self) -> Path:
        """A folder on this machine that processes share."""

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """Called with (done, total, "images") while decoding."""

    def key(self, part: Part) -> str:
        """Identity of a data set or an annotation."""

    def digests(self, part: ReadsFiles) -> Mapping[str, str]:
        """SHA-256 of its files, by name, as planned."""


@dataclass
class OwnContext:
    """The context of data that are prepared outside a trial, such as by a survey.

    Args:
        on_progress: called with (done, total, unit) while files are hashed ("files") and decoded ("images").
    """

    cache_dir: Path
    on_progress: ReportProgress = lambda done, total, unit: None

    def __post_init__(self) -> None:
        self._digests = FileDigests(
            self.cache_dir / "digests.json", lambda done, total: self.on_progress(done, total, "files")
        )

    def report_progress(self, done: float, total: float, unit: str) -> None:
        """See ``DataContext``."""
        self.on_progress(done, total, unit)

    def key(self, part: Part) -> str:
        """See ``DataContext``."""
        return key_of(part, self._digests)

    def digests(self, part: ReadsFiles) -> Mapping[str, str]:
        """As the files are now."""
        return {name: self._digests.digest(path) for name, path in part.source_files().items()}


@dataclass(frozen=True)
class ImageTable:
    """The images of a data set. The array is a read-only memmap: processes on a machine share it in memory."""

    images_NCHW: ImageArray
    """uint8, black is 0."""
    index: pl.DataFrame
    """Columns row (i64), id, group, split (str), position (i64, the slice in its volume), source_sha256 (str)."""

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


@dataclass(frozen=True)
class AnnotationTable:
    """What is said of each image; its rows are those of the image table."""

    index: pl.DataFrame
    """Columns row (i64), id, group (str), position (i64), annotated (bool: False where the image has no annotation)."""

    @property
    def annotated(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which images are annotated."""
        return self.index["annotated"].to_numpy()


class PixelTable(AnnotationTable, ABC):
    """A whole number a pixel."""

    @property
    @abstractmethod
    def values_NHW(self) -> ImageArray:
        """uint8: 0 or 1, or the index of the class; 0 where there is no annotation."""


@dataclass(frozen=True)
class RegionTable(PixelTable):
    """A mask an image. The index has besides mask_fraction (f64, the share of the image that the mask covers, 0 for an
    empty mask, null where there is no annotation) and source_sha256 (str, of the mask's file)."""

    masks_NHW: ImageArray
    """uint8, 0 or 1; 0 where there is no annotation."""

    @property
    def values_NHW(self) -> ImageArray:
        return self.masks_NHW


@dataclass(frozen=True)
class ClassTable(PixelTable):
    """A class a pixel. The index has besides source_sha256 (str)."""

    classes_NHW: ImageArray
    """uint8, index into ``class_names``; 0 where there is no annotation."""
    class_names: tuple[str, ...]

    @property
    def values_NHW(self) -> ImageArray:
        return self.classes_NHW


@dataclass(frozen=True)
class LabelTable(AnnotationTable):
    """A class an image."""

    labels_N: np.ndarray[Any, np.dtype[np.int64]]
    """Index into ``class_names``; -1 where there is no label."""
    class_names: tuple[str, ...]

    def words(self, row: int) -> str:
        """The class of an image; empty where there is none."""
        label = int(self.labels_N[row])
        return self.class_names[label] if label >= 0 else ""


@dataclass(frozen=True)
class MultiLabelTable(AnnotationTable):
    """Findings of each image."""

    labels_NK: ImageArray
    """uint8, 0 or 1 for each of ``class_names``; 0 where there is no annotation."""
    class_names: tuple[str, ...]

    def words(self, row: int) -> str:
        """The findings of an image; empty where it has none."""
        return ", ".join(name for name, is_there in zip(self.class_names, self.labels_NK[row], strict=True) if is_there)


def open_images(dataset: Dataset, context: DataContext) -> ImageTable:
    """The images of a data set; decodes them first, with all cores, when this machine has not done so yet.

    Raises:
        FileNotFoundError: the data set's folder is missing.
        BadData: lists every unusable file, those that changed since the plan included; nothing is left behind then.
        OSError: the disk of ``cache_dir`` is full.
    """
    folder = context.cache_dir / f"{dataset.name}-{context.key(dataset)}"

    def make(aside: Path) -> None:
        records, digests = _checked_records(dataset), context.digests(dataset)
        side = dataset.image_size_px
        images_NCHW = tables.allocate(aside / "images.npy", (len(records), dataset.num_channels, side, side))

        def decode(row: int) -> None:
            images_NCHW[row] = dataset.decode(records[row])

        files = {row: record.file for row, record in enumerate(records)}
        problems = decode_rows(files, decode, digests, context.report_progress)
        _raise_all(f"data set {dataset.name}", problems)
        images_NCHW.flush()
        sources = [digests.get(record.file, "") for record in records]
        splits = pl.Series("split", [record.split for record in records])
        index = _index(records).insert_column(3, splits).with_columns(source_sha256=pl.Series(sources, dtype=pl.String))
        index.write_parquet(aside / "index.parquet")

    def load(whole: Path) -> ImageTable:
        return ImageTable(tables.load_array(whole / "images.npy"), tables.load_index(whole / "index.parquet"))

    return tables.open_or_make(folder, make, load)


@overload
def open_annotation(annotation: Region, context: DataContext) -> RegionTable: ...
@overload
def open_annotation(annotation: ClassMasks, context: DataContext) -> ClassTable: ...
@overload
def open_annotation(annotation: Labels, context: DataContext) -> LabelTable: ...
@overload
def open_annotation(annotation: MultiLabels, context: DataContext) -> MultiLabelTable: ...
def open_annotation(annotation: Annotation, context: DataContext) -> AnnotationTable:
    """What an annotation says, in the rows of ``open_images(annotation.images, context)``; does not need that table.

    Raises:
        BadData: lists every unusable file; also where all masks of a region are empty.
        FileNotFoundError, OSError: as ``open_images``.
    """
    if isinstance(annotation, Labels | MultiLabels):
        return _labels(annotation, context)
    if not isinstance(annotation, PixelAnnotation):
        raise TypeError(f"{type(annotation).__name__} is none of Region, ClassMasks, Labels, MultiLabels")
    return _open_pixels(annotation, context)


def survey(part: Dataset | Annotation, context: DataContext) -> dict[str, str]:
    """What is wrong with a data set or an annotation, by id of record: what ``replace(part, excluded=...)`` can leave
    out. Nothing where its table lies in the cache.

    Raises:
        FileNotFoundError, BadData: what no record stands for is wrong.
    """
    if isinstance(part, Labels | MultiLabels):
        part.labels()
        return {}
    assert isinstance(part, Dataset | PixelAnnotation)
    try:
        open_images(part, context) if isinstance(part, Dataset) else _open_pixels(part, context)
    except BadData:
        records = part.records()
        files = {row: _file(part, record) for row, record in enumerate(records)}
        problems = decode_rows(files, lambda row: part.decode(records[row]), context.digests(part))
        if not problems:
            raise
        return {records[row].id: _sentence(found) for row, found in problems.items()}
    return {}


def _open_pixels(annotation: PixelAnnotation, context: DataContext) -> AnnotationTable:
    name = re.sub(r"[^\w.+-]+", "_", f"{annotation.images.name}-{annotation.name}")
    folder = context.cache_dir / f"{name}-{context.key(annotation)}"

    def load(whole: Path) -> AnnotationTable:
        values_NHW, index = tables.load_array(whole / "values.npy"), tables.load_index(whole / "index.parquet")
        if isinstance(annotation, ClassMasks):
            return ClassTable(index, values_NHW, annotation.class_names)
        return RegionTable(index, values_NHW)

    return tables.open_or_make(folder, lambda aside: _make_pixels(annotation, context, aside), load)


def _make_pixels(annotation: PixelAnnotation, context: DataContext, aside: Path) -> None:
    records, digests = _checked_records(annotation.images), context.digests(annotation)
    annotated = {record.id for record in annotation.records()}
    files = {row: annotation.file(record) for row, record in enumerate(records) if record.id in annotated}
    side = annotation.images.image_size_px
    values_NHW = tables.allocate(aside / "values.npy", (len(records), side, side))

    def decode(row: int) -> None:
        values_NHW[row] = annotation.decode(records[row])

    problems = decode_rows(files, decode, digests, context.report_progress)
    _raise_all(f"{annotation.name} of data set {annotation.images.name}", problems)
    values_NHW.flush()
    index = _annotation_index(records, annotated).with_columns(
        source_sha256=pl.Series([digests.get(files[row], "") if row in files else None for row in range(len(records))])
    )
    if isinstance(annotation, Region):
        fractions = [float(values_NHW[row].mean()) if row in files else None for row in range(len(records))]
        _check_some_region(annotation, fractions)
        index = index.with_columns(mask_fraction=pl.Series(fractions, dtype=pl.Float64))
    index.write_parquet(aside / "index.parquet")


def _check_some_region(region: Region, fractions: list[float | None]) -> None:
    known = [fraction for fraction in fractions if fraction is not None]
    if not any(known):
        reason = (
            f"all {len(known)} masks are empty: expected pixels of the region in some; look at the values in the "
            "masks, and at what the region asks for"
        )
        raise BadData(f"region {region.name} of data set {region.images.name}", {region.name: reason})


def _labels(annotation: Labels | MultiLabels, context: DataContext) -> LabelTable | MultiLabelTable:
    records = _checked_records(annotation.images)
    with reading.planned(context.digests(annotation)):
        labels = annotation.labels()
    annotated = {record.id for record in annotation.records()}
    values = {id_: value for id_, value in labels.items() if id_ in annotated}
    index, names = _annotation_index(records, annotated), annotation.class_names
    if isinstance(annotation, Labels):
        labels_N = np.array([values.get(record.id, _NO_LABEL) for record in records], dtype=np.int64)
        return LabelTable(index, labels_N, names)
    none_K = np.zeros(len(names), dtype=np.uint8)
    return MultiLabelTable(index, np.stack([values.get(record.id, none_K) for record in records]), names)


def _checked_records(dataset: Dataset) -> list[Record]:
    records = dataset.records()
    ids = [record.id for record in records]
    assert len(set(ids)) == len(ids), f"{dataset.name} gives the same id to several records"
    if not records:
        raise BadData(dataset.name, dict.fromkeys(dataset.source_files(), "gives no image"))
    return records


def _index(records: list[Record]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": np.arange(len(records), dtype=np.int64),
            "id": [record.id for record in records],
            "group": [record.group for record in records],
            "position": np.array([record.position for record in records], dtype=np.int64),
        }
    )


def _annotation_index(records: list[Record], annotated: set[str]) -> pl.DataFrame:
    return _index(records).with_columns(annotated=pl.Series([record.id in annotated for record in records]))


def _file(part: Dataset | PixelAnnotation, record: Record) -> str:
    return record.file if isinstance(part, Dataset) else part.file(record)


def _raise_all(what: str, problems: Problems) -> None:
    if problems:
        found = {name: reason for of_row in problems.values() for name, reason in of_row.items()}
        raise BadData(what, dict(sorted(found.items())))


def _sentence(problems: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in problems.items())
