"""Shenzhen: chest X-rays, normal or with tuberculosis (Jaeger et al. 2014).

Expected on disk::

    ChinaSet_AllFiles/CXR_png/CHNCXR_<number>_<0 or 1>.png

662 images, of which 336 with tuberculosis: the last digit of the name. Up to 3000 x 3000 pixels. There is no official
split, and it is not known which images are of one patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import folders, pictures
from trainables.data.annotations import Labels
from trainables.data.filed import FiledImages
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.splits import three_splits
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

FOLDER_NAME = "ChinaSet_AllFiles/CXR_png"
CLASSES = ("normal", "tuberculosis")
_NAME = re.compile(r"CHNCXR_(\d+)_([01])\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Shenzhen(FiledImages):
    """The X-rays in grey.

    Args:
        root: the folder ``CXR_png``, or one that holds it.
        test_share, val_share: of the images, in the proportions of the classes; validation of what is no test image.
        split_seed: which ones.
    """

    name: ClassVar[str] = "shenzhen"
    title: ClassVar[str] = "Shenzhen"
    licence: ClassVar[str] = "Shenzhen set (NLM): for research, with citation; not redistributed here"
    split_description: ClassVar[str] = "by image, drawn with split_seed; which images are of one patient is not known"
    groups: ClassVar[Groups] = "images"

    root: Path = recorded()
    image_size_px: int = 140
    test_share: float = recorded(0.2)
    val_share: float = recorded(0.1)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    def records(self) -> list[Record]:
        """One record an image, by name; files with other names are included, to be reported."""
        names = folders.files_below(self.folder())
        if not names:
            raise FileNotFoundError(f"{self.title}: {self.folder()} is empty; expected CHNCXR_*.png: unpack it again")
        ids = [folders.stem(name) for name in names]
        classes = [label if (label := label_of(name)) is not None else 0 for name in names]
        of_split = three_splits(ids, self.test_share, self.val_share, self.split_seed, classes)
        files = zip(ids, of_split, names, strict=True)
        return self._kept([Record(id_, id_, split, name) for id_, split, name in files])

    def decode(self, record: Record) -> ImageArray:
        """The X-ray, padded with black to a square."""
        if label_of(record.file) is None:
            reason = "expected CHNCXR_<number>_<0 or 1>.png, which says its class: rename it or move it away"
            raise BadData(self.title, {record.file: reason})
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.grey(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Sixteen small images of different sides."""
        write_shenzhen(folder, num_images=16)
        return cls(root=folder, image_size_px=32, val_share=0.25)

    def folder(self) -> Path:
        """The folder of the images. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for folder in (root / FOLDER_NAME, root / "CXR_png", root):
            if folder.is_dir() and any(_NAME.fullmatch(name.name) for name in folder.iterdir()):
                return folder
        raise FileNotFoundError(
            f"{self.title}: {root} {'holds no' if root.is_dir() else 'does not exist; expected'} {FOLDER_NAME}; "
            f"expected {root}/{FOLDER_NAME}/CHNCXR_<number>_<0 or 1>.png: unpack the data set there, or name its place "
            "with --data-root DIR"
        )


@dataclass(frozen=True)
class ShenzhenTuberculosis(Labels):
    """Whether there are signs of tuberculosis: the last digit of the name."""

    images: Shenzhen
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it says."""
        return "tuberculosis"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Normal first."""
        return CLASSES

    def source_files(self) -> Mapping[str, Path]:
        """None of its own: names of the images."""
        return {}

    def labels(self) -> Mapping[str, int]:
        """Of the images whose name says it."""
        known = {record.id: label_of(record.file) for record in self.images.records()}
        return {id_: label for id_, label in known.items() if label is not None}


def label_of(name: str) -> int | None:
    """The class that a name says; None of other names."""
    match = _NAME.fullmatch(Path(name).name)
    return int(match[2]) if match else None


def write_shenzhen(root: Path, num_images: int, seed: int = 0) -> Path:
    """Write synthetic images in the layout of the data set, one class after the other; returns the folder."""
    folder = Path(root) / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_images):
        pixels_HW3, _ = picture(1000 * seed + number, 44 + number, 60)
        name = f"CHNCXR_{number:04d}_{int(number >= num_images // 2)}.png"
        Image.fromarray(pixels_HW3).convert("L").save(folder / name)
    return folder
