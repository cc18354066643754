"""Encoders: input standardisation, a trunk and a head; how they are made, saved and loaded.

Shapes: B images, C channels, H x W pixels, F features, D embedding dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.api.names import Backbone, Head
from trainables.models.batch_norm import own_batch
from trainables.models.heads import build_head
from trainables.models.trunk import FINEST_STRIDE, NUM_FEATURES, STAGE_CHANNELS, Trunk, build_resnet, build_stem

_RELEASED_HEAD = "fc."


@dataclass(frozen=True)
class EncoderConfig:
    """What has to be known to build an encoder that fits a file of weights."""

    backbone: Backbone
    head: Head | None
    """None where the trunk's features are the embeddings."""
    in_channels: int
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, get_args(Backbone))
        check_choice("head", self.head, (*get_args(Head), None))
        if self.in_channels not in (1, 3):
            raise ValueError(f"in_channels = {self.in_channels}: encoders take 1 or 3 channels")
        if self.embedding_dim < 1:
            raise ValueError(f"embedding_dim = {self.embedding_dim}: at least 1")
        if self.head is None and self.embedding_dim != (num_features := NUM_FEATURES[self.backbone]):
            raise ValueError(f"embedding_dim = {self.embedding_dim}: without a head it is {num_features}, the features")


class Encoder(nn.Module):
    """Standardisation with the training split's mean and std, a trunk, and a head on its pooled features."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: EncoderConfig, trunk: Trunk, head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        _check_statistics(config.in_channels, mean, std)
        self.config = config
        self.trunk, self.head = trunk, head
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of ``stages``, finest first."""
        return STAGE_CHANNELS[self.config.backbone]

    @property
    def finest_stride(self) -> int:
        """Pixels of the image to one of the finest stage."""
        return FINEST_STRIDE

    def without_head(self) -> Encoder:
        """This encoder's trunk, not a copy, with its features as the embeddings."""
        config = dataclasses.replace(self.config, head=None, embedding_dim=NUM_FEATURES[self.config.backbone])
        return Encoder(config, self.trunk, nn.Identity(), self.mean.flatten().tolist(), self.std.flatten().tolist())

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to raw embeddings [B, D], not normalised to unit length."""
        embeddings_BD: Tensor = self.head(self.features(images_BCHW))
        return embeddings_BD

    def stages(self, images_BCHW: Tensor) -> list[Tensor]:
        """Images in [0, 1] to the outputs of the trunk's five stages, finest first (``Trunk.stages``)."""
        return self.trunk.stages(self._standardised(images_BCHW))

    def feature_maps(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to the last residual stage's maps [B, F, H / 32, W / 32]."""
        return self.trunk.feature_maps(self._standardised(images_BCHW))

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to features after global average pooling [B, F]."""
        return self.trunk.features(self._standardised(images_BCHW))

    def released_state(self) -> dict[str, Tensor]:
        """The tensors of trunk and head under the names of released checkpoints: the head is the ResNet's ``fc``."""
        head = {f"{_RELEASED_HEAD}{name}": tensor for name, tensor in self.head.state_dict().items()}
        return {**self.trunk.state_dict(), **head}

    def load_released_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what ``released_state`` names. Raises RuntimeError where names or shapes differ."""
        is_head = {name: name.startswith(_RELEASED_HEAD) for name in state}
        self.trunk.load_state_dict({name: tensor for name, tensor in state.items() if not is_head[name]})
        self.head.load_state_dict(
            {name.removeprefix(_RELEASED_HEAD): tensor for name, tensor in state.items() if is_head[name]}
        )

    def _standardised(self, images_BCHW: Tensor) -> Tensor:
        return (images_BCHW - self.mean) / self.std


def build_encoder(
    backbone: Backbone,
    head: Head | None,
    in_channels: int,
    embedding_dim: int = 128,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    seed: int = 0,
    batch_norm_groups: int = 1,
) -> Encoder:
    """A freshly initialised encoder in training mode, on the CPU.

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
        # In this order, because what a seed means depends on the order of the draws.
        resnet = build_resnet(backbone, batch_norm_groups)
        head_layers = build_head(head, NUM_FEATURES[backbone], embedding_dim, batch_norm_groups)
        if in_channels != 3:
            resnet.conv1 = build_stem(in_channels, STAGE_CHANNELS[backbone][0])
    return Encoder(config, Trunk(resnet), head_layers, mean or [0.0] * in_channels, std or [1.0] * in_channels)


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
def calibrate_batch_norm(encoder: Encoder, batches: Iterable[Tensor], parts: Iterable[nn.Module] | None = None) -> None:
    """Set the running statistics to their plain average over ``batches`` of images [B, C, H, W] in [0, 1].

    Of several workers each does it for itself, with all of the images.

    Args:
        parts: of the encoder, whose statistics alone are set; all where not given.
    """
    within = encoder.modules() if parts is None else (module for part in parts for module in part.modules())
    layers = [module for module in within if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the cumulative average
    was_training = encoder.training
    encoder.eval()
    for layer in layers:
        layer.train()
    with own_batch():
        for images_BCHW in batches:
            encoder.feature_maps(images_BCHW)
    encoder.train(was_training)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _check_statistics(in_channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != in_channels or len(std) != in_channels:
        raise ValueError(f"mean = {mean} and std = {std} need one number for each of the {in_channels} channels")
    if not all(math.isfinite(value) for value in mean) or not all(value > 0 and math.isfinite(value) for value in std):
        raise ValueError(f"mean = {mean}, std = {std}: means must be finite and deviations positive; constant images?")
