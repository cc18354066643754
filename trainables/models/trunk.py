"""The trunk of an encoder: the convolutions of a torchvision ResNet, with a way to each of its stages.

Shapes: B images, C channels, H x W pixels, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

from trainables.api.names import Backbone
from trainables.models.batch_norm import batch_norm_layer

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

NUM_FEATURES: dict[Backbone, int] = {
    "resnet10_16": 128,
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
}

STAGE_CHANNELS: dict[Backbone, tuple[int, ...]] = {
    "resnet10_16": (16, 16, 32, 64, 128),
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
    "resnet101": (64, 256, 512, 1024, 2048),
    "resnet152": (64, 256, 512, 1024, 2048),
}
"""Of ``Trunk.stages``, finest first."""
NUM_STAGES = 5
FINEST_STRIDE = 2
"""Pixels of the image to one of the finest stage."""

# Multiply-adds of one forward pass at 224 x 224 (He et al. 2016, Table 1; the bottlenecks as torchvision strides them),
# two operations each.
_FORWARD_FLOP_224: dict[Backbone, float] = {
    "resnet10_16": 0.15e9,
    "resnet18": 3.6e9,
    "resnet34": 7.3e9,
    "resnet50": 8.2e9,
    "resnet101": 15.6e9,
    "resnet152": 23.0e9,
}


class Trunk(nn.Module):
    """A ResNet without its classifier. Its state dict has torchvision's names: ``conv1``, ``bn1``, ``layer1`` ..."""

    def __init__(self, resnet: ResNet) -> None:
        """Takes the parts of ``resnet`` over, which is not to be used any more."""
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4

    def stages(self, standardised_BCHW: Tensor) -> list[Tensor]:
        """The outputs of the five stages, finest first: what a decoder skips to.

        The stem before its pooling at half the image's side, then ``layer1`` to ``layer4`` at a 4th, 8th, 16th
        and 32nd, each side rounded up; channels as in ``STAGE_CHANNELS``.
        """
        return list(self._each_stage(standardised_BCHW))

    def feature_maps(self, standardised_BCHW: Tensor) -> Tensor:
        """The last stage alone [B, F, H / 32, W / 32]; earlier ones are let go on the way."""
        for maps in self._each_stage(standardised_BCHW):
            last = maps
        return last

    def features(self, standardised_BCHW: Tensor) -> Tensor:
        """Features after global average pooling [B, F]."""
        return self.feature_maps(standardised_BCHW).mean(dim=(2, 3))

    def _each_stage(self, maps: Tensor) -> Iterator[Tensor]:
        maps = self.relu(self.bn1(self.conv1(maps)))
        yield maps
        maps = self.maxpool(maps)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = layer(maps)
            yield maps


def build_resnet(backbone: Backbone, batch_norm_groups: int = 1) -> ResNet:
    """torchvision's freshly initialised network, for three channels, with its classifier."""
    import torchvision.models  # seconds to load, and a plan builds no network
    from torchvision.models.resnet import BasicBlock

    norm_layer = batch_norm_layer(batch_norm_groups)
    resnet: ResNet
    if backbone == "resnet10_16":
        resnet = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=norm_layer)
        _narrow(resnet, STAGE_CHANNELS[backbone], BasicBlock)
    else:
        # torchvision names its constructors as we name the backbones.
        resnet = getattr(torchvision.models, backbone)(weights=None, norm_layer=norm_layer)
    return resnet


def _narrow(resnet: ResNet, channels: tuple[int, ...], block: type[nn.Module]) -> None:
    """Build the stages anew with so many channels, by torchvision's own means, and initialise them as it does."""
    resnet.inplanes = channels[0]
    resnet.conv1, resnet.bn1 = build_stem(3, channels[0]), resnet._norm_layer(channels[0])
    for place, width in enumerate(channels[1:], start=1):
        layer = resnet._make_layer(block, width, 1, stride=1 if place == 1 else 2)
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        setattr(resnet, f"layer{place}", layer)


def build_stem(in_channels: int, num_channels: int) -> nn.Conv2d:
    """torchvision's first convolution and its initialisation, for another number of channels."""
    stem = nn.Conv2d(in_channels, num_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


def forward_flop(backbone: Backbone, image_size_px: int) -> float:
    """Rough floating-point operations of one image's forward pass."""
    return _FORWARD_FLOP_224[backbone] * (image_size_px / 224) ** 2
