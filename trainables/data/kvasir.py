"""Kvasir-SEG: endoscopic images of polyps with masks (Jha et al., MMM 2020).

Expected on disk::

    Kvasir-SEG/images/<name>.jpg
               masks/<name>.jpg

1,000 pairs of 332 x 487 to 1920 x 1072 pixels. The masks are JPEG, whose values lie near 0 and 255: 128 and more is
polyp. Images are padded with black to squares. There is no official split, and it is not known which images are of one
patient: every image is a group of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from PIL import Image

from trainables.api.card import Groups
from trainables.api.trainable import recorded
from trainables.data import folders, pictures, splits
from trainables.data.filed import FiledImages, PictureMask
from trainables.data.records import ImageArray, Record, check_image_size
from trainables.data.square import grey_levels
from trainables.data.synthetic import picture

FOLDER_NAME = "Kvasir-SEG"


@dataclass(frozen=True)
class Kvasir(FiledImages):
    """The images in colour.

    Args:
        root: the folder ``Kvasir-SEG``, or the one that holds it.
        val_share: of the images that are validation.
        split_seed: which ones.
    """

    name: ClassVar[str] = "kvasir"
    title: ClassVar[str] = "Kvasir-SEG"
    licence: ClassVar[str] = "Kvasir-SEG (Simula): for research and education, with citation; not redistributed"
    split_description: ClassVar[str] = "by image, drawn with split_seed; which images are of one patient is not known"
    groups: ClassVar[Groups] = "images"

    root: Path = recorded()
    image_size_px: int = 224
    val_share: float = recorded(0.2)
    split_seed: int = recorded(0)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    @property
    def num_channels(self) -> int:
        """Red, green, blue."""
        return 3

    def records(self) -> list[Record]:
        """One record an image, by name."""
        names = folders.files_below(self.folder() / "images")
        if not names:
            raise FileNotFoundError(f"{self.title}: {self.folder()}/images is empty; expected images: unpack it again")
        folders.check_stems(names, self.title)
        ids = [folders.stem(name) for name in names]
        of_split = splits.validation_split(ids, self.val_share, self.split_seed)
        files = zip(ids, of_split, names, strict=True)
        return self._kept([Record(id_, id_, split, f"images/{name}") for id_, split, name in files])

    def decode(self, record: Record) -> ImageArray:
        """The image, padded to a square."""
        folders.check_suffix(record.file, pictures.SUFFIXES, self.title)
        path = folders.check_file(self.folder(), record.file, self.title)
        return grey_levels(pictures.colours(pictures.read_picture(path, record.file)), self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Eight small images of different sides."""
        write_kvasir(folder, num_images=8)
        return cls(root=folder, image_size_px=32)

    def folder(self) -> Path:
        """The folder that holds ``images``. Raises FileNotFoundError that says what was expected where."""
        root = Path(self.root)
        for folder in (root / FOLDER_NAME, root, root / FOLDER_NAME / FOLDER_NAME):
            if (folder / "images").is_dir():
                return folder
        raise FileNotFoundError(
            f"{self.title}: {root} {'holds no' if root.is_dir() else 'does not exist; expected'} {FOLDER_NAME}/images; "
            f"expected {root}/{FOLDER_NAME}/images/<name>.jpg and {FOLDER_NAME}/masks/<name>.jpg: unpack the data set "
            "there, or name its place with --data-root DIR"
        )


@dataclass(frozen=True)
class KvasirPolyp(PictureMask):
    """The polyp."""

    suffixes: ClassVar[Sequence[str]] = (".jpg", ".jpeg", ".png")

    images: Kvasir
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it covers."""
        return "polyp"

    def stem(self, record: Record) -> str:
        """The image's name."""
        return f"masks/{record.id}"


def write_kvasir(root: Path, num_images: int, seed: int = 0) -> Path:
    """Write synthetic images in the layout of Kvasir-SEG; returns the folder ``Kvasir-SEG``."""
    folder = Path(root) / FOLDER_NAME
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(num_images):
        pixels_HW3, mask_HW = picture(1000 * seed + number, 40 + 3 * number, 64 - 2 * number)
        name = f"cju{number:03d}polyp.jpg"
        Image.fromarray(pixels_HW3).save(folder / "images" / name, quality=90)
        # JPEG leaves grey levels around the border, as in the published masks.
        Image.fromarray(mask_HW).convert("RGB").save(folder / "masks" / name, quality=75)
    return folder
