"""A training of BYOL on drawn pictures, to be timed: its data, its trial, and what it looks like before its first step.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from trainables.api.context import Context
from trainables.api.trainable import Part
from trainables.data.annotations import Labels
from trainables.data.cache import OwnContext, open_images
from trainables.data.records import Dataset, Record
from trainables.data.synthetic import picture
from trainables.ssl.byol import BYOL, BYOLTraining
from trainables.ssl.byol_networks import BYOLNetworks

NUM_VAL = 16
VIEWS = ("first", "second")


@dataclass(frozen=True)
class Sizes:
    """Of the training, and where it may write."""

    batch: int
    size: int
    """Side of the images in pixels."""
    steps: int
    """Of an epoch."""
    threads: int
    folder: Path

    def data(self) -> Pictures:
        """As many pictures as the steps of an epoch take."""
        return Pictures(self.size, self.batch * self.steps)

    def trial(self) -> Any:
        """A context for trainings."""
        return OwnTrial(self.folder, self.threads)


@dataclass(frozen=True)
class Pictures(Dataset):
    """Ellipses on coloured ground, drawn from the number of the image."""

    name = "pictures"

    image_size_px: int
    num_train: int

    @property
    def num_channels(self) -> int:
        return 3

    def source_files(self) -> dict[str, Path]:
        return {}

    def records(self) -> list[Record]:
        splits = ["train"] * self.num_train + ["val"] * NUM_VAL
        return [Record(f"{i:06d}", f"{i:06d}", split) for i, split in enumerate(splits)]

    def decode(self, record: Record) -> np.ndarray[Any, Any]:
        pixels_HWC, _ = picture(int(record.id), self.image_size_px, self.image_size_px)
        return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))

    @classmethod
    def example(cls, folder: Path) -> Self:
        return cls(32, 8)


@dataclass(frozen=True)
class Kinds(Labels):
    """Ten classes in turn."""

    name = "kind"
    class_names = tuple("0123456789")

    images: Pictures

    def source_files(self) -> dict[str, Path]:
        return {}

    def labels(self) -> dict[str, int]:
        return {record.id: int(record.id) % 10 for record in self.images.records()}


@dataclass(frozen=True)
class Given(Part):
    """Networks as a trained model; what they have learnt changes no time."""

    config: BYOL
    folder: Path

    def load_networks(self, context: Context) -> BYOLNetworks:
        training = self.config.begun(open_images(self.config.data, context), context)
        return training.networks.eval().requires_grad_(False)


class OwnTrial(OwnContext):
    """A trial that writes every state that it is offered."""

    def __init__(self, folder: Path, num_cpus: int) -> None:
        super().__init__(folder)
        self.num_cpus, self.output_dir = num_cpus, folder

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Nobody reads it."""

    def load_checkpoint(self) -> None:
        """Every training begins anew."""

    def offer_checkpoint(self, write: Callable[[Path], None]) -> bool:
        with tempfile.TemporaryDirectory(dir=self.output_dir) as folder:
            write(Path(folder))
        return True

    def save_state(self, write: Callable[[Path], None]) -> None:
        self.offer_checkpoint(write)


def started(sizes: Sizes, **fields: Any) -> BYOLTraining:
    """A training before its first step, in training mode."""
    data, context = sizes.data(), sizes.trial()
    config = BYOL(data, num_epochs=300, batch_size=sizes.batch, labels=Kinds(data), **fields)
    training = config.begun(open_images(data, context), context)
    training.trained().train()
    return training


def views_of(training: BYOLTraining, positions_B: Tensor) -> dict[str, Tensor]:
    """Both views of the images, as the first step sees them."""
    images_BCHW = training.train_images.images(positions_B)
    return {view: training.augmented(images_BCHW, positions_B, view, 0) for view in VIEWS}
