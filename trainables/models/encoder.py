"""Encoders: input standardisation, a torchvision ResNet, and a MoCo head.

Shapes: B images, C channels, H x W pixels, F features, D embedding dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from trainables import runtime
from trainables.api.context import Context
from trainables.api.trainable import recorded
from trainables.data.batches import DeviceImages
from trainables.data.cache import open_images
from trainables.data.records import Dataset
from trainables.models.batch_norm import batch_norm_layer

Backbone = Literal["resnet18", "resnet50"]
Head = Literal["v1", "v2"]
NUM_FEATURES: dict[str, int] = {"resnet18": 512, "resnet50": 2048}
ENCODER_FILE = "encoder.pt"

# Multiply-adds of one forward pass at 224 x 224 (He et al. 2016, Table 1), two operations each.
_FORWARD_FLOP_224: dict[str, float] = {"resnet18": 3.6e9, "resnet50": 8.2e9}
_CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class EncoderConfig:
    """What has to be known to build an encoder that fits a file of weights."""

    backbone: Backbone
    head: Head
    in_channels: int
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, get_args(Backbone))
        check_choice("head", self.head, get_args(Head))
        if self.in_channels not in (1, 3):
            raise ValueError(f"in_channels = {self.in_channels}: encoders take 1 or 3 channels")
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim = {self.embedding_dim}: at least 1")


class Encoder(nn.Module):
    """Standardisation with the training split's mean and std, a ResNet, and a head.

    The head is the ResNet's ``fc``, so that names in the state dict of ``resnet`` are those of released
    MoCo checkpoints.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, resnet: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        _check_statistics(config.in_channels, mean, std)
        self.config = config
        self.resnet = resnet
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to raw embeddings [B, D], not normalised to unit length."""
        embeddings_BD: Tensor = self.resnet((images_BCHW - self.mean) / self.std)
        return embeddings_BD

    def feature_maps(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to the last residual stage's maps [B, F, H / 32, W / 32]."""
        maps = (images_BCHW - self.mean) / self.std
        for name, module in self.resnet.named_children():
            if name == "avgpool":
                break
            maps = module(maps)
        return maps

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to features after global average pooling [B, F]."""
        return self.feature_maps(images_BCHW).mean(dim=(2, 3))


class EncoderSource(Protocol):
    """Whatever an encoder can be taken from: a pretraining, or a plain value such as an untrained network."""

    def load(self, context: Context) -> Encoder:
        """The encoder in evaluation mode, on the CPU, its parameters frozen."""


@dataclass(frozen=True)
class ReleasedWeights:
    """A released MoCo checkpoint, ``{epoch, arch, state_dict, optimizer}`` (facebookresearch/moco).

    Its content is hashed; where it lies is recorded only.
    """

    path: str = recorded()

    def source_files(self) -> dict[str, Path]:
        return {"weights": Path(self.path)}


@dataclass(frozen=True)
class RandomEncoder:
    """An untrained encoder, as the control of a trained one.

    Standardised with the training split as a trained one is. Its batch normalisation is calibrated: the
    running statistics are the cumulative average over the training split, passed once in order without
    augmentation; with the initial statistics (mean 0, variance 1) activations would grow from block to block and the
    control would differ from a trained network in scale as well as in weights.
    """

    data: Dataset
    backbone: Backbone = "resnet50"
    head: Head = "v2"
    seed: int = 0
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        EncoderConfig(self.backbone, self.head, in_channels=1, embedding_dim=self.embedding_dim)

    def load(self, context: Context) -> Encoder:
        """Build and calibrate. Raises BadData when the data set cannot be read."""
        table = open_images(self.data, context)
        rows = table.rows("train")
        mean, std = table.mean_std(rows)
        # Not the weights that a pretraining of the same seed starts from: a control is drawn by itself.
        seed = runtime.seed_of("untrained", self.seed)
        encoder = build_encoder(
            self.backbone, self.head, self.data.num_channels, self.embedding_dim, mean, std, seed=seed
        )
        device = runtime.device()
        images = DeviceImages(table, rows, device)
        encoder.to(device)
        num_batches = math.ceil(len(images) / _CALIBRATION_BATCH)
        batches = np.array_split(np.arange(len(images)), num_batches)
        calibrate_batch_norm(encoder, (images.images(positions) for positions in batches))
        return frozen(encoder.cpu())


def build_encoder(
    backbone: Backbone,
    head: Head,
    in_channels: int,
    embedding_dim: int = 128,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    seed: int = 0,
    batch_norm_groups: int = 1,
) -> Encoder:
    """A freshly initialised encoder in training mode, on the CPU.

    Heads: ``v1`` Linear(F, D) (He et al. 2020), ``v2`` Linear(F, F)-ReLU-Linear(F, D) without batch
    normalisation (Chen et al. 2020, arXiv:2003.04297).

    Args:
        mean, std: one number a channel, of pixels in [0, 1]; 0 and 1 where not given.
        seed: of the initial weights; the global random state is left as it was.
        batch_norm_groups: parts of a training batch that are normalised by themselves.

    Raises:
        ValueError: an unknown backbone or head, channels other than 1 or 3, a std that is not positive.
    """
    config = EncoderConfig(backbone, head, in_channels, embedding_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.seed_of("encoder", seed))
        constructor = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}[backbone]
        resnet = constructor(weights=None, norm_layer=batch_norm_layer(batch_norm_groups))
        resnet.fc = _head(head, NUM_FEATURES[backbone], embedding_dim)
        if in_channels != 3:
            resnet.conv1 = _stem(in_channels)
    return Encoder(config, resnet, mean or [0.0] * in_channels, std or [1.0] * in_channels)


def frozen(encoder: Encoder) -> Encoder:
    """The same encoder in evaluation mode with parameters that take no gradient."""
    return encoder.eval().requires_grad_(False)


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write configuration and weights, head, batch-norm statistics, mean and std included."""
    state = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    runtime.save_state(path, {"config": dataclasses.asdict(encoder.config), "state_dict": state})


def load_encoder(path: Path) -> Encoder:
    """What ``save_encoder`` wrote: in evaluation mode, on the CPU, frozen."""
    content = runtime.load_state(path)
    config = EncoderConfig(**content["config"])
    encoder = build_encoder(config.backbone, config.head, config.in_channels, config.embedding_dim)
    encoder.load_state_dict(content["state_dict"], strict=True)
    return frozen(encoder)


@torch.no_grad()
def calibrate_batch_norm(encoder: Encoder, batches: Any) -> None:
    """Set the running statistics to their plain average over ``batches`` of images [B, C, H, W] in [0, 1]."""
    layers = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative average
    was_training = encoder.training
    encoder.train()
    for images_BCHW in batches:
        encoder.feature_maps(images_BCHW)
    encoder.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def forward_flop(backbone: Backbone, image_size_px: int) -> float:
    """Rough floating-point operations of one image's forward pass."""
    return _FORWARD_FLOP_224[backbone] * (image_size_px / 224) ** 2


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ValueError naming field, value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: choose one of {', '.join(map(repr, allowed))}")


def _head(head: Head, num_features: int, embedding_dim: int) -> nn.Module:
    if head == "v1":
        return nn.Linear(num_features, embedding_dim)
    return nn.Sequential(
        nn.Linear(num_features, num_features), nn.ReLU(inplace=True), nn.Linear(num_features, embedding_dim)
    )


def _stem(in_channels: int) -> nn.Conv2d:
    """torchvision's first convolution and its initialisation, for another number of channels."""
    stem = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


def _check_statistics(in_channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != in_channels or len(std) != in_channels:
        raise ValueError(f"mean = {mean} and std = {std} need one number for each of the {in_channels} channels")
    if not all(math.isfinite(value) for value in mean) or not all(value > 0 and math.isfinite(value) for value in std):
        raise ValueError(f"mean = {mean}, std = {std}: means must be finite and deviations positive; constant images?")
