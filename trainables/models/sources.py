"""Where an encoder can be taken from without training it: an untrained network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trainables import runtime
from trainables.api.context import Context
from trainables.api.names import Backbone, Head
from trainables.api.trainable import Part, seed
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, open_images
from trainables.data.records import Dataset
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder, calibrate_batch_norm, frozen

_CALIBRATION_BATCH = 32


class EncoderSource(Protocol):
    """Whatever an encoder can be taken from: a pretraining, or a plain value such as an untrained network."""

    def load(self, context: Context) -> Encoder:
        """The encoder in evaluation mode, on the CPU, its parameters frozen."""


@dataclass(frozen=True)
class Untrained(Part):
    """An untrained encoder, as the control of a trained one.

    Standardised with the training split as a trained one is. Its batch normalisation is calibrated: the
    running statistics are the cumulative average over the training split, passed once in order without
    augmentation; with the initial statistics (mean 0, variance 1) activations would grow from block to block and the
    control would differ from a trained network in scale as well as in weights.
    """

    data: Dataset
    backbone: Backbone = "resnet50"
    head: Head = "v2"
    init_seed: int = seed()
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        EncoderConfig(self.backbone, self.head, in_channels=1, embedding_dim=self.embedding_dim)

    def load(self, context: Context) -> Encoder:
        """Build and calibrate. Raises BadData when the data set cannot be read."""
        table = prepared(self.data, context)
        rows = table.rows("train")
        mean, std = table.mean_std(rows)
        # Not the weights that a pretraining of the same seed starts from: a control is drawn by itself.
        weights_seed = runtime.seed_of("untrained", self.init_seed)
        encoder = build_encoder(
            self.backbone, self.head, self.data.num_channels, self.embedding_dim, mean, std, seed=weights_seed
        )
        device = runtime.device()
        images = DeviceImages(table, rows, device)
        encoder.to(device)
        num_batches = math.ceil(len(images) / _CALIBRATION_BATCH)
        batches = np.array_split(np.arange(len(images)), num_batches)
        calibrate_batch_norm(encoder, (images.images(positions) for positions in batches))
        return frozen(encoder.cpu())


def prepared(data: Dataset, context: Context) -> ImageTable:
    """The data set as this machine's cache has it. Raises BadData when it cannot be read."""
    return open_images(data, context)
