"""What a segmentation is trained with: a UNet of its own, or a decoder on the trunk of some encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from trainables import runtime
from trainables.api.context import Context
from trainables.api.trainable import Part
from trainables.models import trunk
from trainables.models.sources import EncoderSource
from trainables.models.unet import Segmenter, UNetEncoder, UNetEncoderConfig

# Work of the decoder in that of its encoder: rough, for estimates only.
_UNET_DECODER_SHARE, _TRUNK_DECODER_SHARE = 1.0, 1.5


@dataclass(frozen=True)
class Inputs:
    """What goes in and comes out: pixels in [0, 1] with these statistics, one number a channel; so many classes."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int

    @property
    def num_channels(self) -> int:
        return len(self.mean)


class SegmentationNetwork(Part, ABC):
    """What builds a segmenter. Subclasses are frozen dataclasses."""

    @abstractmethod
    def build(self, inputs: Inputs, context: Context, seed: int) -> Segmenter:
        """The network before its training, in training mode, on the CPU.

        Args:
            seed: of the weights that it draws.
        """

    @property
    @abstractmethod
    def coarsest_stride(self) -> int:
        """Pixels of the image to one of the coarsest stage."""

    @abstractmethod
    def forward_flop(self, num_channels: int, image_size_px: int) -> float:
        """Rough floating-point operations of one image's forward pass."""


@dataclass(frozen=True)
class UNet(SegmentationNetwork):
    """The supervised baseline (thesis 4.1.1): an encoder of double convolutions, four by default, and one step up for
    each step down.

    The thesis states blocks and no widths: they are those of Ronneberger et al. 2015. Batch normalisation is ours.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"widths = {self.widths}: at least two blocks, of at least one channel each")

    @property
    def coarsest_stride(self) -> int:
        return 1 << (len(self.widths) - 1)

    def build(self, inputs: Inputs, context: Context, seed: int) -> Segmenter:
        """With random weights."""
        config = UNetEncoderConfig(inputs.num_channels, self.widths)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(runtime.seed_of("unet encoder", seed))
            encoder = UNetEncoder(config, inputs.mean, inputs.std)
        return Segmenter(encoder, inputs.num_classes, seed=seed)

    def forward_flop(self, num_channels: int, image_size_px: int) -> float:
        """Two operations a multiplication."""
        flop, side_px = 0.0, float(image_size_px)
        for channels, width in pairwise([num_channels, *self.widths]):
            flop += 2 * 9 * side_px**2 * width * (channels + width)
            side_px /= 2
        return (1 + _UNET_DECODER_SHARE) * flop


@dataclass(frozen=True)
class TrunkUNet(SegmentationNetwork):
    """A UNet whose encoder is the trunk of an encoder that is there (thesis 4.1.2): of a pretraining, untrained, or
    released. One step up for each of the trunk's strides: five.

    Images are standardised as that encoder's are.
    """

    encoder: EncoderSource
    is_frozen: bool = False
    """Train the decoder alone, on the encoder as it is, running statistics included."""

    @property
    def coarsest_stride(self) -> int:
        return trunk.FINEST_STRIDE << (trunk.NUM_STAGES - 1)

    def build(self, inputs: Inputs, context: Context, seed: int) -> Segmenter:
        """With the encoder's weights, and random ones in the decoder.

        Raises:
            ValueError: the encoder takes another number of channels than the images have.
        """
        encoder = self.encoder.load(context)
        if encoder.config.in_channels != inputs.num_channels:
            raise ValueError(
                f"the encoder takes {encoder.config.in_channels} channels and the images have {inputs.num_channels}: "
                "use an encoder that was trained on such images"
            )
        segmenter = Segmenter(encoder.requires_grad_(True), inputs.num_classes, seed=seed)
        if self.is_frozen:
            segmenter.freeze_encoder()
        return segmenter.train()

    def forward_flop(self, num_channels: int, image_size_px: int) -> float:
        backbone: Any = getattr(self.encoder, "backbone", "resnet50")  # the dearer one where it is not known
        return (1 + _TRUNK_DECODER_SHARE) * trunk.forward_flop(backbone, image_size_px)
