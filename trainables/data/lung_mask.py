"""Lung Mask Image Dataset: chest X-rays with masks of the lungs (Kaggle; thesis 3.1).

Expected on disk, either side as png, jpeg or jpg::

    ChestXray/{train,val,test}/image/cxrimage_<N>.png
                               mask/cxrmask_<N>.jpeg

Some images are RGBA: they are taken as grey. The masks are JPEG: 128 and more is lung. The split is the published one;
there are no ids of patients, so every image is a group of its own, and one patient may be on both sides. About 21,165
pairs are there, where the thesis says 19,051.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import folders, pictures
from trainables.data.filed import FiledImages, PictureMask
from trainables.data.records import SPLITS, ImageArray, Record, check_image_size
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

FOLDER_NAME = "ChestXray"
_IMAGE_NAME = re.compile(r"cxrimage_(\d+)\.(png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True)
class LungMask(FiledImages):
    """The X-rays in grey.

    Args:
        root: the folder ``ChestXray``, or one that holds it (up to two folders down).
    """

    name: ClassVar[str] = "lung_mask"
    title: ClassVar[str] = "Lung Mask Image Dataset"
    licence: ClassVar[str] = "Lung Mask Image Dataset (Kaggle): by the terms of its page; not redistributed"
    split_description: ClassVar[str] = "the published folders train, val and test; patients are not known"
    groups: ClassVar[Groups] = "images"

    root: Path = recorded()
    image_size_px: int = 224
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    def records(self) -> list[Record]:
        """One record an image, by split and number; files with other names are included, to be reported."""
        found = []
        for split in SPLITS:
            names = folders.files_below(self.folder() / split / "image")
            # Names of two cases lead to one mask.
            folders.check_stems([f"{split}/image/{name}" for name in names], self.title, any_case=True)
            for name in sorted(names, key=_number):
                id_ = f"{split}_{folders.stem(name)}"
                found.append(Record(id_, id_, split, f"{split}/image/{name}"))
        return self._kept(found)

    def decode(self, record: Record) -> ImageArray:
        """The X-ray, padded with black to a square."""
        if _IMAGE_NAME.fullmatch(Path(record.file).name) is None:
            reason = "expected cxrimage_<N>.png, .jpeg or .jpg, so that its mask is known: rename it or move it away"
            raise BadData(self.title, {record.file: reason})
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.grey(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Nine small images in three splits, with the defects of the published ones."""
        write_lung_mask(folder, {"train": 5, "val": 2, "test": 2})
        return cls(root=folder, image_size_px=32)

    def folder(self) -> Path:
        """The folder that holds the splits. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for candidates in ([root], root.glob("*/"), root.glob("*/*/")):
            for folder in sorted(candidates):
                if any((folder / split / "image").is_dir() for split in SPLITS):
                    return folder
        raise FileNotFoundError(
            f"{self.title}: {root} {'holds no' if root.is_dir() else 'does not exist; expected'} "
            f"{FOLDER_NAME}/train/image; expected {root}/{FOLDER_NAME}/train/image/cxrimage_<N>.png and "
            f"{FOLDER_NAME}/train/mask/cxrmask_<N>.jpeg, the same for val and test: unpack the data set there, or name "
            "its place with --data-root DIR"
        )


@dataclass(frozen=True)
class Lungs(PictureMask):
    """Both lungs."""

    suffixes: ClassVar[Sequence[str]] = (".jpeg", ".jpg", ".png")

    images: LungMask
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it covers."""
        return "lungs"

    def stem(self, record: Record) -> str:
        """The image's number."""
        split, _, below = record.file.split("/", 2)
        match = _IMAGE_NAME.fullmatch(Path(below).name)
        wanted = Path(below).with_name(f"cxrmask_{match[1]}").as_posix() if match else folders.stem(below)
        return f"{split}/mask/{wanted}"


def write_lung_mask(root: Path, counts: Mapping[str, int], seed: int = 0) -> Path:
    """Write synthetic images in the layout of the data set; returns the folder ``ChestXray``.

    Of three images one is RGBA and one JPEG; masks come in all three forms.
    """
    folder, number = Path(root) / FOLDER_NAME, 0
    for split, count in counts.items():
        for kind in ("image", "mask"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            pixels_HW3, mask_HW = picture(1000 * seed + number, 48, 40)
            grey = Image.fromarray(pixels_HW3).convert("L")
            form = number % 3
            image = grey.convert("RGBA") if form == 1 else grey
            image.save(folder / split / "image" / f"cxrimage_{number}{('.png', '.png', '.jpeg')[form]}")
            mask_name = f"cxrmask_{number}{('.jpeg', '.jpg', '.png')[form]}"
            Image.fromarray(mask_HW).save(folder / split / "mask" / mask_name)
            number += 1
    return folder


def _number(name: str) -> tuple[int, str]:
    match = _IMAGE_NAME.fullmatch(name)
    return (int(match[1]) if match else -1, name)
