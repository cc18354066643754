"""What a data set is: which records it has, which files they lie in, and how one record becomes pixels.

A data set is one file here: a frozen dataclass below ``Dataset``. Everything that happens while an image is
prepared (slice, modality, size, normalisation, binarisation of the mask) is a field or is covered by
``version``, because it is part of the identity of every result. ``cache.open_table`` does the decoding.

Shapes: C channels, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

ImageArray = np.ndarray[Any, np.dtype[np.uint8]]

MIN_IMAGE_SIZE_PX = 8


@dataclass(frozen=True)
class Record:
    """One image with its mask, not yet read.

    ``files`` maps a role ("image", "mask") to a name; a name that ``source_files()`` lacks is a missing file,
    and is reported as such when the data set is prepared.
    """

    id: str
    """Unique in the data set, and stable: it does not depend on the machine or on the other records."""
    group: str
    """What must stay on one side of a split, and what a block bootstrap draws: a patient, a slab of a volume."""
    split: str
    """"train", "val" or "test"."""
    files: Mapping[str, str]
    position: int = 0
    """Where the image lies in its volume: the index of the axial slice, 0 at the bottom."""


class Dataset(ABC):
    """Base of the data sets. Subclasses are frozen dataclasses; they satisfy ``ReadsFiles``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    licence: ClassVar[str]
    """What its publishers allow, in a sentence for reports."""
    one_volume: ClassVar[bool] = False
    """Whether all images are of one head, so that groups are parts of it and no result speaks of other people."""
    split_description: ClassVar[str]
    """How training and validation images were kept apart, in a sentence for reports."""

    image_size_px: int
    """Side of the square that images and masks are brought to."""

    @property
    def num_channels(self) -> int:
        """Channels of a prepared image: 1 for grey values."""
        return 1

    @abstractmethod
    def source_files(self) -> Mapping[str, Path]:
        """The files that are there, by a name that does not depend on where they lie.

        Raises:
            FileNotFoundError: the folder of the data set is missing; says what was expected where.
        """

    @abstractmethod
    def records(self) -> list[Record]:
        """All records, in a fixed order, those with missing or damaged files included.

        Raises:
            FileNotFoundError: as ``source_files``.
            BadData: files that are needed to know the records are unusable.
        """

    @abstractmethod
    def decode(self, record: Record) -> tuple[ImageArray, ImageArray]:
        """Read one record: ``image_CHW`` uint8 and ``mask_HW`` uint8 in {0, 1}. Called from several threads.

        Raises:
            BadData: naming every unusable file of this record.
        """

    @classmethod
    @abstractmethod
    def example(cls, folder: Path) -> Self:
        """A small instance with its files below ``folder``: for trials, and for the tests of every data set."""


def check_image_size(image_size_px: int) -> None:
    """Raises ValueError for a side that no encoder can use."""
    if image_size_px < MIN_IMAGE_SIZE_PX:
        raise ValueError(f"image_size_px = {image_size_px}: use at least {MIN_IMAGE_SIZE_PX}")
