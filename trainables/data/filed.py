"""Data sets whose images and masks lie below one folder, each in a file of its own or of its volume.

What such data sets share: which of the files are there, and how a mask in a picture is read.
"""

from __future__ import annotations

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


class PictureMask(FiledAnnotation, Region):
    """Base of regions that lie in one 2-D picture an image, on its own pixels."""

    suffixes: ClassVar[Sequence[str]] = pictures.SUFFIXES
    """Of the files that may hold the mask."""

    def file(self, record: Record) -> str:
        """The mask of the record's stem, whatever its suffix."""
        return folders.by_stem(self.images.folder(), self.stem(record), self.suffixes)

    @abstractmethod
    def stem(self, record: Record) -> str:
        """Path of the record's mask below the folder, without suffix."""

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
        folder, name = self.images.folder(), self.file(record)
        folders.check_one_of_stem(folder, self.stem(record), self.suffixes, self.images.title)
        expected = [f"{Path(self.stem(record)).name}{suffix}" for suffix in self.suffixes]
        path = folders.check_file(folder, name, self.images.title, expected)
        mask_HW = self.inside(path, name)
        folders.check_same_size(mask_HW, name, folder / record.file)
        return mask(mask_HW, self.images.image_size_px)
