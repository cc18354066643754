"""UNets: a decoder with skips on the stages of an encoder, its own or the trunk of a pretrained one.

Shapes: B images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables import runtime
from trainables.models.batch_norm import batch_norm_layer
from trainables.models.encoder import Encoder, EncoderConfig, build_encoder

_MOST_DECODER_CHANNELS = 256
_FINEST_CHANNELS = 32  # of a block that has no stage to skip to

_normalisation = batch_norm_layer(1)


class DoubleConvolution(nn.Sequential):
    """Twice: convolution 3 x 3, batch normalisation, ReLU (Ronneberger et al. 2015, with batch normalisation)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                _normalisation(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


@dataclass(frozen=True)
class UNetEncoderConfig:
    """What has to be known to build an encoder that fits a file of weights."""

    in_channels: int
    widths: tuple[int, ...]


class UNetEncoder(nn.Module):
    """Double convolutions with max pooling between them: stages at 1, 1/2, 1/4 ... of the image's side."""

    mean: Tensor
    std: Tensor
    finest_stride = 1

    def __init__(self, config: UNetEncoderConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(DoubleConvolution(*pair) for pair in pairwise([config.in_channels, *config.widths]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of ``stages``, finest first."""
        return self.config.widths

    def stages(self, images_BCHW: Tensor) -> list[Tensor]:
        """Images in [0, 1] to the outputs of the blocks, finest first."""
        maps, found = (images_BCHW - self.mean) / self.std, []
        for place, block in enumerate(self.blocks):
            maps = block(functional.max_pool2d(maps, 2) if place else maps)
            found.append(maps)
        return found


class _Up(nn.Module):
    """One step up: a transposed convolution to twice the side, the skip beside it, a double convolution."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.convolve = DoubleConvolution(out_channels + skip_channels, out_channels)

    def forward(self, coarse_BCHW: Tensor, skip_BCHW: Tensor | None) -> Tensor:
        maps_BCHW = self.up(coarse_BCHW)
        convolved: Tensor = self.convolve(maps_BCHW if skip_BCHW is None else torch.cat([skip_BCHW, maps_BCHW], dim=1))
        return convolved


class Decoder(nn.Module):
    """From the coarsest stage up to the image's own resolution, and to a logit a class.

    One block a halving of the encoder. Each gives as many channels as the stage that it skips to, 256 at most; a block
    above the finest stage skips to nothing.
    """

    def __init__(self, stage_channels: Sequence[int], finest_stride: int, num_classes: int) -> None:
        """
        Args:
            stage_channels: of the encoder's stages, finest first.
            finest_stride: pixels of the image to one of the finest stage, a power of two.
        """
        super().__init__()
        skips = [*reversed(stage_channels[:-1]), *[0] * (finest_stride.bit_length() - 1)]
        widths = [min(skip, _MOST_DECODER_CHANNELS) or _FINEST_CHANNELS for skip in skips]
        inputs = [stage_channels[-1], *widths]
        self.blocks = nn.ModuleList(map(_Up, inputs, skips, widths))
        self.classify = nn.Conv2d(inputs[-1], num_classes, kernel_size=1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Maps of the stages, finest first, to logits_BKHW."""
        maps, skips = stages[-1], [*reversed(stages[:-1])]
        for place, block in enumerate(self.blocks):
            maps = block(maps, skips[place] if place < len(skips) else None)
        logits_BKHW: Tensor = self.classify(maps)
        return logits_BKHW


class Segmenter(nn.Module):
    """An encoder and a decoder on its stages: images to logits of the same height and width."""

    def __init__(self, encoder: UNetEncoder | Encoder, num_classes: int, *, seed: int = 0) -> None:
        """
        Args:
            encoder: is taken over; its head, if any, is not.
            seed: of the decoder's initial weights; the global random state is left as it was.
        """
        super().__init__()
        self.encoder = encoder.without_head() if isinstance(encoder, Encoder) else encoder
        self.num_classes = num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(runtime.seed_of("decoder", seed))
            self.decoder = Decoder(self.encoder.stage_channels, self.encoder.finest_stride, num_classes)
        self._coarsest_stride = self.encoder.finest_stride * 2 ** (len(self.encoder.stage_channels) - 1)
        self._is_encoder_frozen = False

    def freeze_encoder(self) -> None:
        """Its weights and running statistics stay as they are, also in training."""
        self._is_encoder_frozen = True
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self._is_encoder_frozen:
            self.encoder.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1] to logits_BKHW.

        Sides that are no multiple of the coarsest stride are padded at the right and the bottom with the border's
        pixels, and the logits cut again.
        """
        height, width = images_BCHW.shape[2:]
        padding = (0, -width % self._coarsest_stride, 0, -height % self._coarsest_stride)
        padded_BCHW = functional.pad(images_BCHW, padding, mode="replicate") if any(padding) else images_BCHW
        logits_BKHW: Tensor = self.decoder(self.encoder.stages(padded_BCHW))
        return logits_BKHW[:, :, :height, :width]


def save_segmenter(segmenter: Segmenter, path: Path) -> None:
    """Write configuration and weights, batch-norm statistics, mean and std included."""
    state = {name: tensor.detach().cpu() for name, tensor in segmenter.state_dict().items()}
    config = {"encoder": dataclasses.asdict(segmenter.encoder.config), "num_classes": segmenter.num_classes}
    runtime.save_state(path, {"config": config, "state_dict": state})


def load_segmenter(path: Path) -> Segmenter:
    """What ``save_segmenter`` wrote: in evaluation mode, on the CPU, taking no gradient."""
    content = runtime.load_state(path)
    config, encoder_config = content["config"], content["config"]["encoder"]
    encoder: UNetEncoder | Encoder
    if "widths" in encoder_config:
        num_channels = encoder_config["in_channels"]
        encoder = UNetEncoder(UNetEncoderConfig(**encoder_config), [0.0] * num_channels, [1.0] * num_channels)
    else:
        fitting = EncoderConfig(**encoder_config)
        encoder = build_encoder(fitting.backbone, fitting.head, fitting.in_channels, fitting.embedding_dim)
    segmenter = Segmenter(encoder, config["num_classes"])
    segmenter.load_state_dict(content["state_dict"], strict=True)
    return segmenter.eval().requires_grad_(False)
