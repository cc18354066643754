"""A tiny synthetic data set: bars and discs at random places, each image different from the others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.api.trainable import recorded
from trainables.data.annotations import ClassMasks, Labels, MultiLabels, Region
from trainables.data.records import Dataset, Record


@dataclass(frozen=True)
class TinyShapes(Dataset):
    """Images of two ellipses each; the parameters of image i follow from (seed, i)."""

    name = "tiny_shapes"
    image_size_px: int = 32
    num_train: int = 24
    num_val: int = 6
    channels: int = 1
    seed: int = 0
    root: str = recorded("")

    @property
    def num_channels(self) -> int:
        return self.channels

    def source_files(self) -> dict[str, Path]:
        return {}

    def records(self) -> list[Record]:
        splits = ["train"] * self.num_train + ["val"] * self.num_val
        return [Record(id=f"{i:03d}", group=f"{i:03d}", split=split) for i, split in enumerate(splits)]

    def decode(self, record: Record) -> np.ndarray:
        rng = np.random.default_rng([self.seed, int(record.id)])
        axis = np.linspace(-1, 1, self.image_size_px)
        image = np.zeros((self.image_size_px,) * 2)
        for _ in range(2):
            x, y = rng.uniform(-0.5, 0.5, 2)
            width, height = rng.uniform(0.1, 0.5, 2)
            inside = ((axis - x) / width) ** 2 + ((axis[:, None] - y) / height) ** 2 < 1
            image[inside] = rng.uniform(0.4, 1)
        return np.repeat((image * 255).astype(np.uint8)[None], self.channels, axis=0)

    @classmethod
    def example(cls, folder: Path) -> "TinyShapes":
        return cls()


class _OfShapes:
    def source_files(self) -> dict[str, Path]:
        return {}

    def file(self, record: Record) -> str:
        return ""


@dataclass(frozen=True)
class TinyClasses(_OfShapes, ClassMasks):
    """Background, dark and bright pixels."""

    class_names = ("background", "dark", "bright")

    images: TinyShapes
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        return "brightness"

    def decode(self, record: Record) -> np.ndarray:
        pixels_HW = self.images.decode(record)[0]
        return (pixels_HW > 0).astype(np.uint8) + (pixels_HW > 178)


@dataclass(frozen=True)
class TinyShapeMask(_OfShapes, Region):
    """All that is not background."""

    images: TinyShapes
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        return "shapes"

    def decode(self, record: Record) -> np.ndarray:
        return (self.images.decode(record)[0] > 0).astype(np.uint8)


@dataclass(frozen=True)
class TinyLabels(_OfShapes, Labels):
    """Every third image is of one class; the last image has no label."""

    images: TinyShapes
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        return "third"

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("a", "b", "c")

    def labels(self) -> dict[str, int]:
        return {record.id: int(record.id) % 3 for record in self.images.records()[:-1]}


@dataclass(frozen=True)
class TinyFindings(_OfShapes, MultiLabels):
    """Finding k is in the images whose number has bit k."""

    images: TinyShapes
    excluded: tuple[str, ...] = recorded(())

    @property
    def name(self) -> str:
        return "bits"

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("one", "two", "four")

    def labels(self) -> dict[str, np.ndarray]:
        return {r.id: np.array([int(r.id) >> k & 1 for k in range(3)], dtype=np.uint8) for r in self.images.records()}
