"""Data sets whose images and masks lie below one folder, each in a file of its own or of its volume.

What such data sets share: which of the files are there, and how a mask in a picture is read.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from trainables.api.errors import BadData
from trainables.data import folders, pictures, reading
from trainables.data.annotations import PixelAnnotation, Region
from trainables.data.records import Dataset, ImageArray, Record
from trainables.data.square import mask


class FiledImages(Dataset):
    """Base of data sets whose ``Record.file`` is a path below ``folder()``."""

    title: ClassVar[str]
    """What messages call the data set."""

    @abstractmethod
    def folder(self) -> Path:
        """Where the files lie. Raises FileNotFoundError that says what was expected where."""

    def source_files(self) -> Mapping[str, Path]:
        """The images that are there, by their paths below ``folder()``."""
        folder = self.folder()
        return reading.usable({record.file: folder / record.file for record in self.records()})


class FiledAnnotation(PixelAnnotation):
    """Base of annotations whose files lie below the folder of their images."""

    images: FiledImages

    def source_files(self) -> Mapping[str, Path]:
        """The files that are there, by their paths below the folder of the images."""
        folder = self.images.folder()
        names = dict.fromkeys(self.file(record) for record in self.images.records())
        return reading.usable({name: folder / name for name in names})


class StemAnnotation(FiledAnnotation):
    """Base of annotations whose file is known by its name without suffix."""

    suffixes: ClassVar[Sequence[str]]
    """Of the files that may hold it, in either case."""

    @abstractmethod
    def stem(self, record: Record) -> str:
        """Path of the record's file below the folder, without suffix."""

    def file(self, record: Record) -> str:
        """The file of the record's stem, whatever its suffix."""
        return folders.by_stem(self.images.folder(), self.stem(record), self.suffixes)

    def source_files(self) -> Mapping[str, Path]:
        """The files that are there, without those that lie beside another of the same stem.

        These have no digest, like a file that is missing: no cache knows them, and decoding names them.
        """
        folder = self.images.folder()
        stems = {self.file(record): self.stem(record) for record in self.images.records()}
        known: set[str] = set()
        for parent in {Path(name).parent for name in stems}:
            if (folder / parent).is_dir():
                known.update((parent / name).as_posix() for name in os.listdir(folder / parent))
        ambiguous = {n for n, stem in stems.items() if folders.is_ambiguous(folder, stem, self.suffixes, known)}
        return {name: path for name, path in super().source_files().items() if name not in ambiguous}

    def checked_path(self, record: Record) -> Path:
        """The path of the record's file, of which there is one, and it may be read.

        Raises:
            BadData: says what was found instead.
        """
        folder, stem = self.images.folder(), self.stem(record)
        folders.check_one_of_stem(folder, stem, self.suffixes, self.images.title)
        expected = [f"{Path(stem).name}{suffix}" for suffix in self.suffixes]
        return folders.check_file(folder, self.file(record), self.images.title, expected)


class PictureMask(StemAnnotation, Region):
    """Base of regions that lie in one 2-D picture an image, on its own pixels."""

    suffixes: ClassVar[Sequence[str]] = pictures.SUFFIXES

    def inside(self, path: Path, name: str) -> pictures.Mask:
        """mask_HW of a picture: 128 and more. Raises BadData for a picture that shows no mask."""
        picture = pictures.read_picture(path, name)
        mask_HW = pictures.bright_mask(picture)
        brightest = int(pictures.grey(picture).max())
        if brightest and not mask_HW.any() and picture.format not in pictures.LOSSY_FORMATS:
            reason = f"is {brightest} at its brightest pixel, and {pictures.MASK_THRESHOLD} and more is inside"
            raise BadData(self.images.title, {name: f"{reason}: save it with 0 outside and 255 inside"})
        return mask_HW

    def decode(self, record: Record) -> ImageArray:
        """The mask, padded as the image."""
        path, name = self.checked_path(record), self.file(record)
        mask_HW = self.inside(path, name)
        folders.check_same_size(mask_HW, name, self.images.folder() / record.file)
        return mask(mask_HW, self.images.image_size_px)
