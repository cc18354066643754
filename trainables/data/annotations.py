"""What is said about images: regions, classes of pixels, labels. Apart from the images, with a content of their own.

An annotation holds the data set that it speaks of in its field ``images``. Pretrainings read the images alone, so
another region, or a bad mask, neither changes their identity nor removes an image from them. An annotation is a
frozen dataclass below one of the four kinds here.

Shapes: H rows, W columns, K labels of one image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from trainables.api.trainable import Part
from trainables.data.records import Dataset, ImageArray, Record


class Annotation(Part, ABC):
    """Base of what is said about the images of a data set. Subclasses are frozen dataclasses."""

    images: Dataset
    excluded: tuple[str, ...] = ()
    """Ids of images to leave without annotation, such as those with bad masks. Subclasses have it as a recorded field;
    the images themselves stay."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it says, in a word or two for folders, tables and labels: ``white_matter``."""

    @abstractmethod
    def source_files(self) -> Mapping[str, Path]:
        """The files of the annotation that are there, by a name that does not depend on where they lie."""

    @abstractmethod
    def content(self, digests: Mapping[str, str]) -> list[list[Any]]:
        """What of the files counts: sorted rows that begin with [id, group, position] of each annotated image."""

    def records(self) -> list[Record]:
        """The images that it speaks of, in the data set's order. What is not among them is marked as missing."""
        left_out = set(self.excluded)
        return [record for record in self.images.records() if record.id not in left_out]

    @classmethod
    def example(cls, images: Dataset) -> Self:
        """An instance for the ``example`` of its data set."""
        return cls(images)  # type: ignore[call-arg]


class PixelAnnotation(Annotation):
    """An annotation that lies in one file an image and says something of every pixel."""

    @abstractmethod
    def file(self, record: Record) -> str:
        """Name of the record's file in ``source_files()``; one that is not there is a missing file."""

    @abstractmethod
    def decode(self, record: Record) -> ImageArray:
        """Read one record: [H, W] uint8, on the pixels of the image. Called from several threads.

        Raises:
            BadData: naming every unusable file.
        """

    def content(self, digests: Mapping[str, str]) -> list[list[Any]]:
        """The sorted rows [id, group, position, SHA-256 of the annotation's file]."""
        records = self.records()
        return sorted([r.id, r.group, r.position, digests.get(self.file(r), "")] for r in records)


class Region(PixelAnnotation):
    """A binary mask: ``decode`` gives 1 inside, 0 outside."""


class ClassMasks(PixelAnnotation):
    """The class of every pixel: ``decode`` gives the index into ``class_names``.

    A pixel of a resized image gets the class that covers most of it; of equal shares, the class with the lower index.
    """

    class_names: ClassVar[tuple[str, ...]]


class Labels(Annotation):
    """One class an image."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes, in a fixed order."""

    @abstractmethod
    def labels(self) -> Mapping[str, int]:
        """Index into ``class_names`` by id of the image.

        Raises:
            BadData: the file of labels is unusable.
        """

    def records(self) -> list[Record]:
        """The labelled images."""
        labels = self.labels()
        return [record for record in super().records() if record.id in labels]

    def content(self, digests: Mapping[str, str]) -> list[list[Any]]:
        """The sorted rows [id, group, position, name of the class]: the labels themselves, not their file."""
        labels, names = self.labels(), self.class_names
        return sorted([r.id, r.group, r.position, names[labels[r.id]]] for r in self.records())


class MultiLabels(Annotation):
    """Any number of findings an image."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The findings, in a fixed order."""

    @abstractmethod
    def labels(self) -> Mapping[str, np.ndarray[Any, np.dtype[np.uint8]]]:
        """labels_K, 0 or 1 for each of ``class_names``, by id of the image.

        Raises:
            BadData: the file of labels is unusable.
        """

    def records(self) -> list[Record]:
        """The labelled images."""
        labels = self.labels()
        return [record for record in super().records() if record.id in labels]

    def content(self, digests: Mapping[str, str]) -> list[list[Any]]:
        """The sorted rows [id, group, position, names of the findings]."""
        labels, names = self.labels(), np.array(self.class_names)
        return sorted([r.id, r.group, r.position, names[labels[r.id] == 1].tolist()] for r in self.records())
