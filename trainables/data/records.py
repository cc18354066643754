"""What a data set is: its images, which records there are, in which files they lie, and how one becomes pixels.

A data set is one file here: a frozen dataclass below ``Dataset``. What is said about its images (a mask, a class, a
label) is an annotation, apart from them (``annotations``). Everything that happens while an image is prepared
(slice, modality, size, normalisation) is a field or is covered by ``version``, because it is part of the identity of
every result; which images there are and in which split is not asked for but found, so it enters by ``content``.

Shapes: C channels, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from trainables.api.card import Card, Groups
from trainables.api.trainable import Part

ImageArray = np.ndarray[Any, np.dtype[np.uint8]]

MIN_IMAGE_SIZE_PX = 8
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One image, not yet read."""

    id: str
    """Unique in the data set, and stable: it does not depend on the machine or on the other records."""
    group: str
    """What must stay on one side of a split, and what a block bootstrap draws: a patient, a slab of a volume."""
    split: str
    """"train", "val" or "test"."""
    file: str = ""
    """Name of the image's file in ``source_files()``; one that is not there is a missing file, and is reported as such
    when the data set is prepared. Empty for images that lie in no file."""
    position: int = 0
    """Where the image lies in its volume: the index of the axial slice, 0 at the bottom."""


class Dataset(Part, ABC):
    """Base of the data sets. Subclasses are frozen dataclasses; they satisfy ``ReadsFiles``.

    Fields that only choose images or split them are ``recorded``: ``content`` has what they led to.
    """

    name: ClassVar[str]
    licence: ClassVar[str]
    """What its publishers allow, in a sentence for reports."""
    groups: ClassVar[Groups]
    """What a group is: patients, volumes, images where patients are not known, or slabs of one volume."""
    split_description: ClassVar[str]
    """How training and validation images were kept apart, in a sentence for reports."""

    image_size_px: int
    """Side of the square that images and masks are brought to."""
    excluded: tuple[str, ...] = ()
    """Ids of records to leave out, such as those with bad files. Subclasses have it as a recorded field."""

    @property
    def num_channels(self) -> int:
        """Channels of a prepared image: 1 for grey values."""
        return 1

    @abstractmethod
    def source_files(self) -> Mapping[str, Path]:
        """The files of the images that are there, by a name that does not depend on where they lie.

        Raises:
            FileNotFoundError: the folder of the data set is missing; says what was expected where.
        """

    @abstractmethod
    def records(self) -> list[Record]:
        """All records but the excluded ones, in a fixed order, those with missing or damaged files included.

        Raises:
            FileNotFoundError: as ``source_files``.
            BadData: files that are needed to know the records are unusable.
        """

    @abstractmethod
    def decode(self, record: Record) -> ImageArray:
        """Read one image: ``image_CHW`` uint8. Called from several threads.

        Raises:
            BadData: naming every unusable file of this record.
        """

    @classmethod
    @abstractmethod
    def example(cls, folder: Path) -> Self:
        """A small instance with its files below ``folder``: for trials, and for the tests of every data set."""

    def content(self, digests: Mapping[str, str]) -> list[list[str]]:
        """What of the files counts: the sorted rows [id, split, SHA-256 of the image's file]."""
        return sorted([record.id, record.split, digests.get(record.file, "")] for record in self.records())

    def card(self) -> Card:
        """The data set in a few facts."""
        records = self.records()
        counts = Counter(record.split for record in records)
        return Card(
            name=self.name,
            counts={split: counts[split] for split in SPLITS if counts[split]},
            num_groups=len({record.group for record in records}),
            split=self.split_description,
            licence=self.licence,
            groups=self.groups,
        )

    def _kept(self, records: list[Record]) -> list[Record]:
        """The records without the excluded ones."""
        left_out = set(self.excluded)
        return [record for record in records if record.id not in left_out]


# A plan asks for these of every trial, and listing the records of a large data set may take seconds.
@lru_cache(maxsize=64)
def split_counts(dataset: Dataset) -> Mapping[str, int]:
    """How many images each split has; as they are when first asked for in this process."""
    return Counter(record.split for record in dataset.records())


def check_image_size(image_size_px: int) -> None:
    """Raises ValueError for a side that no encoder can use."""
    if image_size_px < MIN_IMAGE_SIZE_PX:
        raise ValueError(f"image_size_px = {image_size_px}: use at least {MIN_IMAGE_SIZE_PX}")
