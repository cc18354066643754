"""ISIC 2019: dermoscopic images of eight diagnoses (Codella et al. 2018; Combalia et al. 2019; Tschandl et al. 2018).

Expected on disk::

    ISIC_2019_Training_Input/ISIC_*.jpg          (or once more nested)
    ISIC_2019_Training_GroundTruth.csv           image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK
    ISIC_2019_Training_Metadata.csv              image,...,lesion_id,...

25,331 images of 11,847 known lesions; 2,084 images without a lesion are lesions of their own. UNK has no image, so
there are eight classes. 2,074 names end in ``_downsampled``, without a full-size twin. The labels of the official test
images are not published: test and validation images are drawn here, whole lesions in the proportions of the classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import csv_tables, folders, pictures, reading
from trainables.data.annotations import Labels
from trainables.data.filed import FiledImages
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.splits import three_splits
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

IMAGES_FOLDER = "ISIC_2019_Training_Input"
TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
_SUFFIXES = (".jpg", ".jpeg")
_DOWNSAMPLED = "_downsampled"


@dataclass(frozen=True)
class ISIC2019(FiledImages):
    """The images in colour.

    Args:
        root: the folder that holds the images' folder and both tables.
        test_share, val_share: of the images, drawn by lesion; validation is drawn of what is no test image.
        split_seed: which ones.
    """

    name: ClassVar[str] = "isic2019"
    title: ClassVar[str] = "ISIC 2019"
    licence: ClassVar[str] = "ISIC 2019 (CC BY-NC 4.0): non-commercial, with attribution; not redistributed here"
    split_description: ClassVar[str] = "by lesion, drawn with split_seed; the official test labels are not published"
    groups: ClassVar[Groups] = "lesions"

    root: Path = recorded()
    image_size_px: int = 140
    test_share: float = recorded(0.2)
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
        """One record an image, by name, of the images that the table of labels knows."""
        labels, lesions = self.class_of(), self.lesion_of()
        names = {folders.stem(name).rsplit("/", 1)[-1]: name for name in self._files()}
        ids = sorted(labels)
        groups, classes = [lesions[id_] for id_ in ids], [labels[id_] for id_ in ids]
        of_split = three_splits(groups, self.test_share, self.val_share, self.split_seed, classes)
        files = [f"{IMAGES_FOLDER}/{names.get(id_, f'{id_}.jpg')}" for id_ in ids]
        return self._kept([Record(*parts) for parts in zip(ids, groups, of_split, files, strict=True)])

    def class_of(self) -> dict[str, str]:
        """The diagnosis of every image of the table.

        Raises:
            BadData: rows that name no class, or several.
        """
        labels, problems = {}, {}
        rows = csv_tables.by_id(csv_tables.read_rows(self.folder() / TRUTH, ("image", *CLASSES)), "image", TRUTH)
        for row in rows.values():
            named = [column for column in (*CLASSES, "UNK") if _is_one(row.get(column, "0"))]
            if len(named) != 1:
                problems[f"{TRUTH}: {row['image']}"] = f"is of {', '.join(named) or 'no class'}; expected one class"
            elif named[0] in CLASSES:
                labels[row["image"]] = named[0]
        if problems:
            raise BadData(self.title, problems)
        return labels

    def lesion_of(self) -> dict[str, str]:
        """The lesion of every image; its own name where none is known.

        Raises:
            BadData: an image without a row: its lesion might be on both sides of a split.
        """
        rows = csv_tables.by_id(
            csv_tables.read_rows(self.folder() / METADATA, ("image", "lesion_id")), "image", METADATA
        )
        ids = list(self.class_of())
        if lacking := [id_ for id_ in ids if id_ not in rows]:
            said = f"has no row of {len(lacking)} image(s) of {TRUTH}, {lacking[0]} among them: download it again"
            raise BadData(self.title, {METADATA: said})
        return {id_: rows[id_]["lesion_id"] or id_ for id_ in ids}

    def ids_of(self, isic_ids: Collection[str], *, with_lesions: bool = True) -> list[str]:
        """Ids here of images that another ISIC data set has, and of the other images of their lesions."""
        wanted, lesions = {without_downsampled(id_) for id_ in isic_ids}, self.lesion_of()
        found = {id_ for id_ in lesions if without_downsampled(id_) in wanted}
        if with_lesions:
            of_found = {lesions[id_] for id_ in found}
            found = {id_ for id_, lesion in lesions.items() if lesion in of_found}
        return sorted(found)

    def decode(self, record: Record) -> ImageArray:
        """The image, padded with black to a square."""
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.colours(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Twenty small images of twelve lesions, with the defects of the published ones."""
        write_isic2019(folder, num_images=20)
        return cls(root=folder, image_size_px=32)

    def folder(self) -> Path:
        """The folder that holds both tables. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for folder in (root, root / "ISIC_2019", root / "ISIC2019"):
            if (folder / TRUTH).is_file():
                return folder
        raise FileNotFoundError(
            f"{self.title}: {root} {'holds no' if root.is_dir() else 'does not exist; expected'} {TRUTH}; expected "
            f"{root}/{TRUTH}, {root}/{METADATA} and {root}/{IMAGES_FOLDER}/ISIC_*.jpg: unpack the data set there, or "
            "name its place with --data-root DIR"
        )

    def _files(self) -> list[str]:
        names = [n for n in folders.files_below(self.folder() / IMAGES_FOLDER) if n.lower().endswith(_SUFFIXES)]
        if not names:
            raise FileNotFoundError(
                f"{self.title}: {self.folder()}/{IMAGES_FOLDER} holds no images; expected ISIC_*.jpg: unpack it again"
            )
        return names


@dataclass(frozen=True)
class ISIC2019Diagnosis(Labels):
    """The diagnosis of each image."""

    images: ISIC2019
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it says."""
        return "diagnosis"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The eight that have images, in the order of the table."""
        return CLASSES

    def source_files(self) -> Mapping[str, Path]:
        """The table of labels."""
        return {TRUTH: self.images.folder() / TRUTH}

    def labels(self) -> Mapping[str, int]:
        """Of the images that are left in."""
        reading.check(self.images.folder() / TRUTH, TRUTH)
        known = self.images.class_of()
        return {record.id: CLASSES.index(known[record.id]) for record in self.images.records()}


def without_downsampled(id_: str) -> str:
    """The id that an image has in the other ISIC data sets."""
    return id_.removesuffix(_DOWNSAMPLED)


def write_isic2019(root: Path, num_images: int, seed: int = 0) -> Path:
    """Write synthetic images in the layout of ISIC 2019; returns the folder.

    Every fifth name ends in ``_downsampled``, every sixth image has no lesion, the others share one in pairs. The
    folder of images is nested once more, as in some archives.
    """
    folder = Path(root) / IMAGES_FOLDER / IMAGES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    truth, metadata = [",".join(("image", *CLASSES, "UNK"))], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number in range(num_images):
        pixels_HW3, _ = picture(1000 * seed + number, 40 + number % 3, 52)
        name = f"ISIC_{number:07d}{_DOWNSAMPLED if number % 5 == 4 else ''}"
        Image.fromarray(pixels_HW3).save(folder / f"{name}.jpg", quality=90)
        of_class = [float(place == number // 2 % 2) for place in range(len(CLASSES) + 1)]
        truth.append(",".join([name, *map(str, of_class)]))
        metadata.append(f"{name},45.0,head/neck,{'' if number % 6 == 5 else f'HAM_{number // 2:07d}'},female")
    (Path(root) / TRUTH).write_text("\n".join(truth) + "\n")
    (Path(root) / METADATA).write_text("\n".join(metadata) + "\n")
    return Path(root)


def _is_one(cell: str) -> bool:
    try:
        return float(cell) == 1.0
    except ValueError:
        return False
