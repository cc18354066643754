"""ChestX-ray14: frontal chest X-rays with fourteen findings (Wang et al. 2017, NIH).

Expected on disk::

    images_001/images/*.png ... images_012/images/*.png    (or all in one folder images)
    Data_Entry_2017*.csv          Image Index,Finding Labels,Follow-up #,Patient ID,...
    train_val_list.txt            86,524 names
    test_list.txt                 25,596 names, of other patients

112,120 images of 30,805 patients, 1024 x 1024, 519 of them RGBA; findings are joined by a bar, ``No Finding`` is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import csv_tables, folders, pictures, reading, splits
from trainables.data.annotations import MultiLabels
from trainables.data.filed import FiledImages
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
NO_FINDING = "No Finding"
TABLE_PATTERN = "Data_Entry_2017*.csv"
TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


@dataclass(frozen=True)
class ChestXray14(FiledImages):
    """The X-rays in grey; the test images are the official ones.

    Args:
        root: the folder that holds the folders of images, the table and the lists.
        val_share: of the official training images, drawn by patient, by whether there is a finding.
        split_seed: which ones.
    """

    name: ClassVar[str] = "chestxray14"
    title: ClassVar[str] = "ChestX-ray14"
    licence: ClassVar[str] = "ChestX-ray14 (NIH Clinical Center): free to use, with attribution; not redistributed here"
    split_description: ClassVar[str] = "the official test patients; validation by patient, drawn with split_seed"
    groups: ClassVar[Groups] = "patients"

    root: Path = recorded()
    image_size_px: int = 140
    val_share: float = recorded(0.1)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    def records(self) -> list[Record]:
        """One record an image of the lists, by name."""
        rows, lists = self.rows(), {split: self.listed(name) for split, name in _LISTS.items()}
        self._check_apart(rows, lists)
        names = sorted(lists["train"])
        groups = [rows[name]["Patient ID"] for name in names]
        has_finding = [int(rows[name]["Finding Labels"] != NO_FINDING) for name in names]
        drawn = splits.validation_split(groups, self.val_share, self.split_seed, has_finding)
        of_split = dict(zip(names, drawn, strict=True)) | dict.fromkeys(sorted(lists["test"]), "test")
        places = self._places()
        found = [
            Record(folders.stem(name), rows[name]["Patient ID"], split, places.get(name, f"images/{name}"))
            for name, split in of_split.items()
        ]
        return self._kept(found)

    def _check_apart(self, rows: Mapping[str, dict[str, str]], lists: Mapping[str, list[str]]) -> None:
        """Raises BadData where a patient is in both official lists: a test image would have been trained on."""
        train, test = ({rows[name]["Patient ID"] for name in lists[split]} for split in ("train", "test"))
        if both := sorted(train & test):
            said = (
                f"lists images of {len(both)} patient(s) of {TEST_LIST} too, {both[0]} among them: download both again"
            )
            raise BadData(self.title, {TRAIN_LIST: said})

    def rows(self) -> Mapping[str, dict[str, str]]:
        """What the table says of every image, by its name.

        Raises:
            BadData: unknown findings.
        """
        path = self.table()
        return _rows(path, path.stat().st_mtime_ns, path.stat().st_size)

    def listed(self, name: str) -> list[str]:
        """The names in a list. Raises BadData for a name that the table does not know."""
        try:
            text = (self.folder() / name).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise BadData(self.title, {name: f"is no text ({error.reason}): download it again"}) from error
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if not names:
            raise BadData(self.title, {name: "lists nothing: download it again"})
        known = self.rows()
        if unknown := [each for each in names if each not in known]:
            raise BadData(
                self.title, {name: f"lists {', '.join(unknown[:3])}, which {self.table().name} does not know"}
            )
        return names

    def table(self) -> Path:
        """The table; its name has another ending in every release."""
        return sorted(self.folder().glob(TABLE_PATTERN))[0]

    def decode(self, record: Record) -> ImageArray:
        """The X-ray, padded with black to a square."""
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.grey(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Twenty small images of ten patients, with the defects of the published ones."""
        write_chest_xray14(folder, num_images=20)
        return cls(root=folder, image_size_px=32, val_share=0.2)

    def folder(self) -> Path:
        """The folder that holds table and lists. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for folder in (root, root / "ChestXray14", root / "ChestX-ray14", root / "CXR8"):
            has_lists = all((folder / name).is_file() for name in _LISTS.values())
            if has_lists and any(folder.glob(TABLE_PATTERN)):
                return folder
        raise FileNotFoundError(
            f"{self.title}: {root} {'does not hold all of' if root.is_dir() else 'does not exist; expected'} "
            f"{TABLE_PATTERN}, {TRAIN_LIST} and {TEST_LIST}; expected {root}/images_001/images/*.png beside them: "
            "unpack the data set there, or name its place with --data-root DIR"
        )

    def _places(self) -> dict[str, str]:
        """Path of every image below the folder, by its name."""
        found = {}
        for below in ("images", *(f"images_{number:03d}" for number in range(1, 13))):
            for name in folders.files_below(self.folder() / below):
                found[Path(name).name] = f"{below}/{name}"
        return found


_LISTS = {"train": TRAIN_LIST, "test": TEST_LIST}


@dataclass(frozen=True)
class ChestXray14Findings(MultiLabels):
    """The fourteen findings of each image."""

    images: ChestXray14
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it says."""
        return "findings"

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the paper."""
        return FINDINGS

    def source_files(self) -> Mapping[str, Path]:
        """The table."""
        table = self.images.table()
        return reading.usable({table.name: table})

    def labels(self) -> Mapping[str, np.ndarray[Any, np.dtype[np.uint8]]]:
        """Of the images that are left in."""
        table = self.images.table()
        reading.check(table, table.name)
        rows = {folders.stem(name): row for name, row in self.images.rows().items()}
        return {record.id: _indicators(rows[record.id]["Finding Labels"]) for record in self.images.records()}


def _indicators(findings: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    named = set(findings.split("|"))
    return np.array([finding in named for finding in FINDINGS], dtype=np.uint8)


@lru_cache(maxsize=2)
def _rows(path: Path, *_state: int) -> Mapping[str, dict[str, str]]:
    """The checked rows, as long as the file stays as it is."""
    rows, known, problems = csv_tables.read_rows(path, _COLUMNS), {*FINDINGS, NO_FINDING}, {}
    for row in rows:
        if unknown := set(row["Finding Labels"].split("|")) - known:
            reason = f"has the finding {', '.join(sorted(unknown))}; expected {', '.join(sorted(known))}, joined by |"
            problems[f"{path.name}: {row['Image Index']}"] = reason
    if problems:
        raise BadData(ChestXray14.title, problems)
    return csv_tables.by_id(rows, "Image Index", path.name)


def write_chest_xray14(root: Path, num_images: int, seed: int = 0) -> Path:
    """Write synthetic images in the layout of ChestX-ray14, two of a patient; returns the folder.

    Every fourth image is RGBA, the header holds commas in quotation marks, every third image has two findings.
    """
    header = '"Image Index","Finding Labels","Follow-up #","Patient ID","OriginalImage[Width,Height]"'
    lines, names = [header], []
    for number in range(num_images):
        folder = Path(root) / f"images_{number % 2 + 1:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        pixels_HW3, _ = picture(1000 * seed + number, 48, 44)
        grey = Image.fromarray(pixels_HW3).convert("L")
        name = f"{number // 2:08d}_{number % 2:03d}.png"
        (grey.convert("RGBA") if number % 4 == 3 else grey).save(folder / name)
        first, second = FINDINGS[number % 14], FINDINGS[(number + 5) % 14]
        findings = (NO_FINDING, first, f"{first}|{second}")[number % 3]
        lines.append(f'{name},{findings},0,{number // 2},"44,48"')
        names.append(name)
    num_test = num_images // 4 // 2 * 2
    (Path(root) / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    (Path(root) / TRAIN_LIST).write_text("\n".join(names[:-num_test]) + "\n")
    (Path(root) / TEST_LIST).write_text("\n".join(names[-num_test:]) + "\n")
    return Path(root)
