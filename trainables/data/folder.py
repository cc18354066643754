"""A user's own images, without writing code: ``folder:PATH``.

Expected on disk::

    PATH/images/...      png, jpg, jpeg, tif, bmp or webp, grey or in colour, also in folders below
         masks/...       the same names, in any of these formats; may be missing altogether
         labels.csv      optional: see ``labels_csv``

With NIfTI files in ``images`` it is a folder of volumes: see ``folder_volumes``. Images are padded with black to
squares. A mask has the size of its image; JPEG and WebP masks are inside from 128 up, those of the other formats where
their colour is not black (or, of one colour throughout, where they are opaque). Without splits in ``labels.csv``, 20 %
of the images are validation: whole groups, in the proportions of the labels; two images or more, or none of a handful.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import folders, labels_csv, pictures
from trainables.data.decoding import num_cores
from trainables.data.filed import PictureMask
from trainables.data.own import OwnImages, OwnLabels, OwnMask, images_folder
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture


@dataclass(frozen=True)
class Folder(OwnImages):
    """2-D images of a folder.

    Args:
        root: the folder that holds ``images``.
        channels: 1 for grey, 3 for colours; ``found`` looks what the images are.
        val_share: of the images that are validation, where ``labels.csv`` gives no splits.
        split_seed: which ones.
    """

    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "folder of images"
    groups: ClassVar[Groups] = "images"

    root: Path = recorded()
    image_size_px: int = 224
    channels: int = 1
    val_share: float = recorded(0.2)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)
        if self.channels not in (1, 3):
            raise ValueError(f"channels = {self.channels}: use 1 for grey or 3 for colours")

    @classmethod
    def found(cls, root: Path, image_size_px: int) -> Self:
        """With one channel if all images are grey in fact, else with three.

        Reads until the first colour; only a folder of grey images that are stored as colours is read whole.
        """
        folder = images_folder(root)
        paths = [folder / name for name in folders.files_below(folder)]
        with ThreadPoolExecutor(num_cores()) as pool:
            chunks = (paths[start : start + 64] for start in range(0, len(paths), 64))
            all_grey = all(all(pool.map(_is_grey, chunk)) for chunk in chunks)
        return cls(root, image_size_px, 1 if all_grey else 3)

    @property
    def num_channels(self) -> int:
        """See ``channels``."""
        return self.channels

    def records(self) -> list[Record]:
        """One record an image, by name.

        Raises:
            BadData: two images with one name; ``labels.csv`` contradicts itself or the images.
        """
        names, rows = self.names(), self.rows()
        of_split = self.drawn_splits(list(rows.values()))
        parts = zip(names, rows.items(), of_split, strict=True)
        return self._kept([Record(id_, row.group, split, f"images/{name}") for name, (id_, row), split in parts])

    def decode(self, record: Record) -> ImageArray:
        """The image, padded to a square."""
        folders.check_suffix(record.file, pictures.SUFFIXES, self.title)
        image = pictures.read_picture(folders.check_file(self.folder(), record.file, self.title), record.file)
        if self.channels == 1 and not pictures.is_grey(image):
            reason = "has colours, and the others were grey when the folder was looked at: submit again"
            raise BadData(self.title, {record.file: reason})
        pixels_CHW = pictures.grey(image) if self.channels == 1 else pictures.colours(image)
        if (pixels_CHW == pixels_CHW[:, :1, :1]).all():
            raise BadData(self.title, {record.file: "is one colour throughout: expected an image, move it away"})
        return grey_levels(pixels_CHW, self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Eight small images in colour, of four patients, with masks and labels."""
        write_folder(folder, num_images=8)
        return cls.found(folder, image_size_px=32)


@dataclass(frozen=True)
class FolderMask(OwnMask, PictureMask):
    """What the masks of the folder cover."""

    images: Folder
    excluded: tuple[str, ...] = recorded(())

    def stem(self, record: Record) -> str:
        """The image's name."""
        return f"masks/{record.id}"

    def inside(self, path: Path, name: str) -> pictures.Mask:
        """mask_HW by the rule of the picture's format: see ``pictures.mask``."""
        return pictures.mask(pictures.read_picture(path, name, is_mask=True), name)


@dataclass(frozen=True)
class FolderLabels(OwnLabels):
    """The label of every image."""

    images: Folder
    excluded: tuple[str, ...] = recorded(())


def write_folder(root: Path, num_images: int, seed: int = 0) -> Path:
    """Write synthetic images with masks and ``labels.csv``; two images a patient; returns ``root``."""
    rows = ["image,group,label"]
    for kind in ("images", "masks"):
        (Path(root) / kind).mkdir(parents=True, exist_ok=True)
    for number in range(num_images):
        pixels_HW3, mask_HW = picture(1000 * seed + number, 44, 36 + number)
        name = f"picture {number}.png"
        Image.fromarray(pixels_HW3).save(Path(root) / "images" / name)
        Image.fromarray(np.minimum(mask_HW, 1)).save(Path(root) / "masks" / name)
        rows.append(f"{name},patient {number // 2},{('round', 'flat')[number // 2 % 2]}")
    (Path(root) / labels_csv.NAME).write_text("\n".join(rows) + "\n")
    return Path(root)


def _is_grey(path: Path) -> bool:
    """Also of what cannot be read: its decoding will say so."""
    try:
        return pictures.is_grey(pictures.read_picture(path, path.name))
    except BadData:
        return True
