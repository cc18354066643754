"""Where an encoder can be taken from without training it: an untrained network, or released weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
from torch import nn

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.context import Context
from trainables.api.names import RANDOMISED_LAYERS, Backbone, Head
from trainables.api.trainable import Part, recorded, seed
from trainables.data.batches import DeviceImages
from trainables.data.cache import ImageTable, open_images
from trainables.data.records import Dataset
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder, calibrate_batch_norm, frozen
from trainables.models.released import LoadReport, released_encoder

log = logging.getLogger(__name__)

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
        check_choice("head", self.head, get_args(Head))
        EncoderConfig(self.backbone, self.head, in_channels=1, embedding_dim=self.embedding_dim)

    def load(self, context: Context) -> Encoder:
        """Build and calibrate. Raises BadData when the data set cannot be read."""
        table = open_images(self.data, context)
        mean, std = table.mean_std(table.rows("train"))
        # Not the weights that a pretraining of the same seed starts from: a control is drawn by itself.
        weights_seed = runtime.seed_of("untrained", self.init_seed)
        encoder = build_encoder(
            self.backbone, self.head, self.data.num_channels, self.embedding_dim, mean, std, seed=weights_seed
        )
        return _calibrated(encoder, table)


@dataclass(frozen=True)
class Randomised(Part):
    """An encoder with fresh weights from its output down to some layer: cascading randomisation (Adebayo et al. 2018,
    section 3.1). A map that explains what was learnt has to change with it.

    The fresh weights are those of the untrained encoder of the same seed. The running statistics of the fresh layers
    are taken over the training split without augmentation, as for ``Untrained``; what lies below is left as it was.

    Args:
        of: the encoder whose lower layers are kept.
        down_to: the lowest layer that is randomised: ``head``, ``layer4`` ... ``layer1``, ``stem`` (which is all).
    """

    of: EncoderSource
    data: Dataset
    down_to: str = "head"
    init_seed: int = seed()

    def __post_init__(self) -> None:
        check_choice("down_to", self.down_to, RANDOMISED_LAYERS)

    @property
    def backbone(self) -> Backbone:
        """That of the encoder."""
        backbone: Backbone = getattr(self.of, "backbone", "resnet50")
        return backbone

    def load(self, context: Context) -> Encoder:
        """Mix and calibrate. Raises BadData when the data set cannot be read."""
        encoder = self.of.load(context)
        config, seed = encoder.config, runtime.seed_of("untrained", self.init_seed)
        fresh = build_encoder(config.backbone, config.head, config.in_channels, config.embedding_dim, seed=seed)
        changed = []
        for name in RANDOMISED_LAYERS[: RANDOMISED_LAYERS.index(self.down_to) + 1]:
            for own, new in zip(_layers(encoder, name), _layers(fresh, name), strict=True):
                own.load_state_dict(new.state_dict())
                changed.append(own)
        if self.down_to == "head":  # which has no statistics
            return frozen(encoder)
        return _calibrated(encoder, open_images(self.data, context), changed)


def _layers(encoder: Encoder, name: str) -> list[nn.Module]:
    if name == "head":
        return [encoder.head]
    trunk = encoder.trunk
    return [trunk.conv1, trunk.bn1] if name == "stem" else [getattr(trunk, name)]


def _calibrated(encoder: Encoder, table: ImageTable, parts: Sequence[nn.Module] | None = None) -> Encoder:
    """The encoder with its batch normalisation, or that of some parts, calibrated on the training split."""
    device = runtime.device()
    images = DeviceImages(table, table.rows("train"), device)
    encoder.to(device)
    batches = np.array_split(np.arange(len(images)), math.ceil(len(images) / _CALIBRATION_BATCH))
    calibrate_batch_norm(encoder, (images.images(positions) for positions in batches), parts)
    return frozen(encoder.cpu())


@dataclass(frozen=True)
class PixelStatistics(Part):
    """Mean and standard deviation of pixels in [0, 1], one number a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_channels(self) -> int:
        return len(self.mean)


IMAGENET_RGB = PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET_GREY = PixelStatistics((0.449,), (0.226,))
"""For grey images shown to weights of ImageNet: the means over its channels."""


@dataclass(frozen=True)
class Released(Part):
    """An encoder as somebody released it: MoCo's checkpoints, and ResNets of torchvision and timm.

    A checkpoint of MoCo keeps its head. Any other ResNet has none that is an embedding (its ``fc`` is a
    classifier of other images' classes, which is not taken), so its features after pooling are the embeddings.
    Weights for three channels serve grey images with their stem summed over the channels. One file is one sample of a
    training: n = 1.

    The content of the file is hashed; where it lies is recorded only.
    """

    path: str = recorded()
    standardisation: Dataset | PixelStatistics  # type: ignore[misc]  # a recorded field is no default
    """What images are standardised with: given numbers, those that the weights were trained with for example, or mean
    and std of a data set's training split, as for encoders that are trained on it."""
    backbone: Backbone = "resnet50"

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, get_args(Backbone))

    def source_files(self) -> dict[str, Path]:
        return {"weights": Path(self.path)}

    def load(self, context: Context) -> Encoder:
        """The encoder; says in the log what became of every part of the file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file cannot be used, or does not fit; names every key that is wrong.
            BadData: the data set of the standardisation cannot be read.
        """
        encoder, report = self.read(context)
        log.info("released encoder: %s", report.summary())
        return encoder

    def read(self, context: Context) -> tuple[Encoder, LoadReport]:
        """The encoder, and what became of every key of the file."""
        statistics = self.standardisation
        if isinstance(statistics, Dataset):
            table = open_images(statistics, context)
            mean, std = table.mean_std(table.rows("train"))
        else:
            mean, std = list(statistics.mean), list(statistics.std)
        return released_encoder(Path(self.path), self.backbone, statistics.num_channels, mean, std)
