"""ISIC 2016, part 3: dermoscopic images, benign or malignant (Gutman et al., ISBI 2016 challenge).

Expected on disk::

    ISBI2016_ISIC_Part3_Training_Data/ISIC_*.jpg      ISBI2016_ISIC_Part3_Training_GroundTruth.csv
    ISBI2016_ISIC_Part3_Test_Data/ISIC_*.jpg          ISBI2016_ISIC_Part3_Test_GroundTruth.csv

The tables have no header; labels are ``benign`` and ``malignant`` in the one, ``0.0`` and ``1.0`` in the other. 900
training images (727 benign) and 379 test images (304). Lesions are not given. 859 of the training images are images of
ISIC 2019, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import csv_tables, folders, pictures, reading, splits
from trainables.data.annotations import Labels
from trainables.data.filed import FiledImages
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

CLASSES = ("benign", "malignant")
_PARTS = {"train": "ISBI2016_ISIC_Part3_Training", "test": "ISBI2016_ISIC_Part3_Test"}
_LABELS = {"benign": 0, "malignant": 1, "0.0": 0, "1.0": 1, "0": 0, "1": 1}


@dataclass(frozen=True)
class ISIC2016(FiledImages):
    """The images in colour; the test images are the official ones.

    Args:
        root: the folder that holds both folders and both tables.
        val_share: of the official training images, drawn in the proportions of the classes.
        split_seed: which ones.
    """

    name: ClassVar[str] = "isic2016"
    title: ClassVar[str] = "ISIC 2016"
    licence: ClassVar[str] = "ISIC 2016 (CC-0 in part, see the archive): not redistributed here"
    split_description: ClassVar[str] = "the official test images; validation by image, drawn with split_seed"
    groups: ClassVar[Groups] = "images"

    root: Path = recorded()
    image_size_px: int = 140
    val_share: float = recorded(0.1)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    @property
    def num_channels(self) -> int:
        """Red, green, blue."""
        return 3

    def records(self) -> list[Record]:
        """One record an image of the tables, training images first, by name."""
        labels = {part: self.labels_of(part) for part in _PARTS}
        ids = sorted(labels["train"])
        drawn = splits.validation_split(ids, self.val_share, self.split_seed, [labels["train"][id_] for id_ in ids])
        found = [(id_, split, "train") for id_, split in zip(ids, drawn, strict=True)]
        found += [(id_, "test", "test") for id_ in sorted(labels["test"])]
        return self._kept([Record(id_, id_, split, f"{_PARTS[part]}_Data/{id_}.jpg") for id_, split, part in found])

    def labels_of(self, part: str) -> dict[str, int]:
        """Index of the class by id, of the official training or test images. Raises BadData for other labels."""
        name = table_of(part)
        rows = csv_tables.read_rows(self.folder() / name, ("image", "label"), has_header=False)
        of_id = csv_tables.by_id(rows, "image", name)
        if problems := {
            f"{name}: {id_}": f"has the label {row['label']!r}; expected benign, malignant, 0.0 or 1.0"
            for id_, row in of_id.items()
            if row["label"] not in _LABELS
        }:
            raise BadData(self.title, problems)
        return {id_: _LABELS[row["label"]] for id_, row in of_id.items()}

    def decode(self, record: Record) -> ImageArray:
        """The image, padded with black to a square."""
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.colours(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Fifteen training and five test images."""
        write_isic2016(folder, num_train=15, num_test=5)
        return cls(root=folder, image_size_px=32, val_share=0.2)

    def folder(self) -> Path:
        """The folder that holds the tables. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for folder in (root, root / "ISIC_2016", root / "ISIC2016"):
            if (folder / table_of("train")).is_file():
                return folder
        expected = ", ".join(
            f"{root}/{part}_Data/ISIC_*.jpg, {root}/{part}_GroundTruth.csv" for part in _PARTS.values()
        )
        raise FileNotFoundError(
            f"{self.title}: {root} {'holds no' if root.is_dir() else 'does not exist; expected'} {table_of('train')}; "
            f"expected {expected}: unpack the data set there, or name its place with --data-root DIR"
        )


@dataclass(frozen=True)
class ISIC2016Malignancy(Labels):
    """Whether the lesion is malignant."""

    images: ISIC2016
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it says."""
        return "malignancy"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Benign first."""
        return CLASSES

    def source_files(self) -> Mapping[str, Path]:
        """Both tables."""
        folder = self.images.folder()
        return {table_of(part): folder / table_of(part) for part in _PARTS}

    def labels(self) -> Mapping[str, int]:
        """Of the images that are left in."""
        for name, path in self.source_files().items():
            reading.check(path, name)
        known = self.images.labels_of("train") | self.images.labels_of("test")
        return {record.id: known[record.id] for record in self.images.records()}


def table_of(part: str) -> str:
    """Name of the table of the training or test labels."""
    return f"{_PARTS[part]}_GroundTruth.csv"


def write_isic2016(root: Path, num_train: int, num_test: int, seed: int = 0) -> Path:
    """Write synthetic images in the layout of ISIC 2016, every fifth of them malignant; returns the folder."""
    number = 0
    for part, count in (("train", num_train), ("test", num_test)):
        folder = Path(root) / f"{_PARTS[part]}_Data"
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for _ in range(count):
            pixels_HW3, _ = picture(1000 * seed + number, 44, 50 + number % 4)
            Image.fromarray(pixels_HW3).save(folder / f"ISIC_{number:07d}.jpg", quality=90)
            is_malignant = number % 5 == 0
            label = CLASSES[is_malignant] if part == "train" else str(float(is_malignant))
            lines.append(f"ISIC_{number:07d},{label}")
            number += 1
        (Path(root) / table_of(part)).write_text("\n".join(lines) + "\n")
    return Path(root)
