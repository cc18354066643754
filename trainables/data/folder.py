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

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from trainables.api.card import Card, Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import folders, labels_csv, pictures, reading, splits
from trainables.data.annotations import Labels, Region
from trainables.data.decoding import num_cores
from trainables.data.records import Dataset, ImageArray, Record, check_image_size
from trainables.data.square import grey_levels, mask
from trainables.data.synthetic import picture

WHAT = "folder of images"
OWN_LICENCE = "the user's own images: whoever gave them knows their terms; not redistributed"
OWN_SPLIT = "as labels.csv says, else drawn with split_seed: whole groups, in the proportions of the labels"


@dataclass(frozen=True)
class Folder(Dataset):
    """2-D images of a folder.

    Args:
        root: the folder that holds ``images``.
        channels: 1 for grey, 3 for colours; ``found`` looks what the images are.
        val_share: of the images that are validation, where ``labels.csv`` gives no splits.
        split_seed: which ones.
    """

    name: ClassVar[str] = "folder"
    licence: ClassVar[str] = OWN_LICENCE
    split_description: ClassVar[str] = OWN_SPLIT
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

    def source_files(self) -> Mapping[str, Path]:
        """The images that are there."""
        images_folder(self.root)
        return reading.usable({record.file: self.root / record.file for record in self.records()})

    def records(self) -> list[Record]:
        """One record an image, by name.

        Raises:
            BadData: two images with one name; ``labels.csv`` contradicts itself or the images.
        """
        names = folders.files_below(images_folder(self.root))
        folders.check_stems(names, WHAT)
        ids = [folders.stem(name) for name in names]
        rows = labels_csv.read_rows(self.root, ids)
        of_split = drawn_splits(list(rows.values()), self.val_share, self.split_seed)
        parts = zip(names, rows.items(), of_split, strict=True)
        return self._kept([Record(id_, row.group, split, f"images/{name}") for name, (id_, row), split in parts])

    def decode(self, record: Record) -> ImageArray:
        """The image, padded to a square."""
        folders.check_suffix(record.file, pictures.SUFFIXES, WHAT)
        image = pictures.read_picture(folders.check_file(self.root, record.file, WHAT), record.file)
        if self.channels == 1 and not pictures.is_grey(image):
            reason = "has colours, and the others were grey when the folder was looked at: submit again"
            raise BadData(WHAT, {record.file: reason})
        pixels_CHW = pictures.grey(image) if self.channels == 1 else pictures.colours(image)
        return grey_levels(pixels_CHW, self.image_size_px)

    def card(self) -> Card:
        """Under the name of the folder; a group is a patient where ``labels.csv`` gives groups, else an image."""
        names = folders.files_below(images_folder(self.root))
        known = labels_csv.gives_groups(self.root, [folders.stem(name) for name in names])
        return replace(super().card(), name=Path(self.root).name, groups="patients" if known else self.groups)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Eight small images in colour, of four patients, with masks and labels."""
        write_folder(folder, num_images=8)
        return cls.found(folder, image_size_px=32)


@dataclass(frozen=True)
class FolderMask(Region):
    """What the masks of the folder cover."""

    images: Folder
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """The only region there is."""
        return "mask"

    def source_files(self) -> Mapping[str, Path]:
        """The masks that are there."""
        names = [self.file(record) for record in self.images.records()]
        return reading.usable({name: self.images.root / name for name in names})

    def file(self, record: Record) -> str:
        """The mask of the image's name."""
        return folders.by_stem(self.images.root, f"masks/{record.id}", pictures.SUFFIXES)

    def decode(self, record: Record) -> ImageArray:
        """The mask, padded as the image."""
        root, name = self.images.root, self.file(record)
        wanted = Path(name).stem
        path = folders.check_file(root, name, WHAT, [f"{wanted}{suffix}" for suffix in pictures.SUFFIXES])
        mask_HW = pictures.mask(pictures.read_picture(path, name, is_mask=True), name)
        folders.check_same_size(mask_HW, name, root / record.file)
        return mask(mask_HW, self.images.image_size_px)


@dataclass(frozen=True)
class FolderLabels(Labels):
    """The column ``label`` of ``labels.csv``; its classes in alphabetical order."""

    images: Folder
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """The column."""
        return "label"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every label that occurs."""
        return tuple(sorted({row.label for row in self._rows().values()} - {""}))

    def source_files(self) -> Mapping[str, Path]:
        """The table."""
        return reading.usable({labels_csv.NAME: self.images.root / labels_csv.NAME})

    def labels(self) -> Mapping[str, int]:
        """The labelled images."""
        names = {name: index for index, name in enumerate(self.class_names)}
        return {id_: names[row.label] for id_, row in self._rows().items() if row.label}

    def _rows(self) -> dict[str, labels_csv.Row]:
        names = folders.files_below(images_folder(self.images.root))
        return labels_csv.read_rows(self.images.root, [folders.stem(name) for name in names])


def images_folder(root: Path) -> Path:
    """``images`` below the root.

    Raises:
        FileNotFoundError: says what was expected where.
        ValueError: a path that is not UTF-8.
    """
    folder = Path(root) / "images"
    if (shown := reading.printable(str(root))) != str(root):
        raise ValueError(f"folder:{shown}: the path is not UTF-8: rename the folder")
    if folder.is_dir():
        return folder
    state = (
        "is a file" if Path(root).is_file() else "holds no folder images" if Path(root).is_dir() else "does not exist"
    )
    raise FileNotFoundError(
        f"folder:{root}: {root} {state}; expected {root}/images with png, jpg, tif, bmp, webp or nii.gz files, and "
        f"{root}/masks with the same names: make these folders, or correct the path"
    )


def drawn_splits(rows: Sequence[labels_csv.Row], val_share: float, split_seed: int) -> list[str]:
    """The splits that the table gives, or drawn ones."""
    if any(row.split for row in rows):
        return [row.split for row in rows]
    groups, labels = [row.group for row in rows], [row.label for row in rows]
    return splits.validation_split(groups, val_share, split_seed, labels)


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
