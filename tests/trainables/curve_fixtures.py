"""A tiny data set with a region, encoders and curves on them, for the tests of the curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import cloudpickle
import numpy as np
import polars as pl
import torch
from fake_context import FakeContext
from test_frozen import lively_encoder

from trainables.data.annotations import Region
from trainables.data.records import Dataset, Record
from trainables.interpretability.curve import InterpretabilityCurve
from trainables.interpretability.selection import ImageChoice
from trainables.models.encoder import Encoder
from trainables.saliency.controls import ImageIntensity
from trainables.saliency.gradients import SmoothGrad

SIZE = 32


@dataclass(frozen=True)
class Blobs(Dataset):
    """A bright region on noise. Images 3 and 6 have no region, image 8 one outside the inscribed circle."""

    name: ClassVar[str] = "blobs"
    image_size_px: int = SIZE
    num_images: int = 10

    def source_files(self) -> Mapping[str, Path]:
        return {}

    def records(self) -> list[Record]:
        splits = ["train", "train", "val", "test", "train"] * 2
        return [Record(f"image {i}", f"patient {i // 3}", splits[i], position=i % 3) for i in range(self.num_images)]

    def decode(self, record: Record) -> np.ndarray:
        return self.image_and_mask(record)[0]

    def image_and_mask(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        number = int(record.id.split()[1])
        random = np.random.default_rng(number)
        mask_HW = np.zeros((SIZE, SIZE), dtype=np.uint8)
        if number == 8:
            mask_HW[:3, :3] = 1
        elif number not in (3, 6):
            mask_HW[6 + number : 16 + number, 9:20] = 1
        image_HW = random.integers(0, 120, (SIZE, SIZE)) + 100 * mask_HW
        return image_HW.astype(np.uint8)[None], mask_HW

    @classmethod
    def example(cls, folder: Path) -> Self:
        return cls()


@dataclass(frozen=True)
class BlobRegion(Region):
    images: Blobs = Blobs()
    name = "blob"

    def source_files(self) -> Mapping[str, Path]:
        return {}

    def file(self, record: Record) -> str:
        return ""

    def decode(self, record: Record) -> np.ndarray:
        return self.images.image_and_mask(record)[1]


@dataclass(frozen=True)
class GivenEncoder:
    channels: int = 1
    backbone: str = "resnet18"

    def load(self, context: FakeContext) -> Encoder:
        return lively_encoder(channels=self.channels)


@dataclass(frozen=True)
class BrokenEncoder(GivenEncoder):
    """Trained one step too far: a weight of its last block is NaN."""

    def load(self, context: FakeContext) -> Encoder:
        encoder = super().load(context)
        with torch.no_grad():
            encoder.trunk.layer4[0].conv1.weight[0, 0, 0, 0] = math.nan
        return encoder


REGION = BlobRegion()


class PicklingContext(FakeContext):
    """Sends the function of ``map`` through cloudpickle, as another process would get it."""

    def map(self, function, items, *, batch_size=1):
        return super().map(cloudpickle.loads(cloudpickle.dumps(function)), items, batch_size=batch_size)


def intensity_curve(**settings) -> InterpretabilityCurve:
    defaults = {"method": ImageIntensity(), "values": (0, 30, 90), "images": ImageChoice(5)}
    return InterpretabilityCurve(REGION, **(defaults | settings))


def smoothgrad_curve(**settings) -> InterpretabilityCurve:
    defaults = {"encoder": GivenEncoder(), "method": SmoothGrad(num_samples=2)}
    return intensity_curve(**(defaults | settings))


def run(
    curve: InterpretabilityCurve, folder: Path, context: FakeContext | None = None
) -> tuple[pl.DataFrame, FakeContext]:
    context = context or FakeContext(folder)
    curve.run(context)
    return pl.read_parquet(context.output_dir / "curve.parquet"), context


def pick(frame: pl.DataFrame, **values) -> pl.DataFrame:
    return frame.filter(*(pl.col(name) == value for name, value in values.items()))


def pixels_of(image_id: str) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = Blobs().image_and_mask(Record(image_id, "", ""))
    return torch.from_numpy(image / 255).float(), torch.from_numpy(mask)
