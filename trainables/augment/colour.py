"""Brightness, contrast, saturation and hue of a batch of images, each with a factor of its own.

Shapes: B images, C channels, H x W pixels. Images are floating-point in [0, 1], grey (C = 1) or red, green and blue
(C = 3); factors are float64 on the CPU. Conventions and values are those of torchvision.transforms.v2.functional.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def adjust_brightness(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Pixels times the factor, clipped; 1 changes nothing. Any number of channels."""
    return (images_BCHW * _one_each(factors_B, images_BCHW)).clamp_(0, 1)


def adjust_contrast(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Distances from the image's mean grey times the factor, clipped; 1 changes nothing, 0 leaves the mean."""
    # Two steps: the sum over a whole image would be split among threads when it is alone in its batch.
    means_B111 = _grey(images_BCHW).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return _blend(images_BCHW, means_B111, factors_B)


def adjust_saturation(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Distances from each pixel's grey times the factor, clipped; 1 changes nothing. Grey images stay as they are."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    return _blend(images_BCHW, _grey(images_BCHW), factors_B)


def adjust_hue(images_BCHW: Tensor, shifts_B: Tensor) -> Tensor:
    """Hue turned by a share of the circle, -0.5 to 0.5; 0 changes nothing. Grey images stay as they are.

    Lightest and darkest of a pixel's three values stay (HSV's value and chroma); by how far the hue is from a colour's
    own, that colour gets a value between them.
    """
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    _check_channels(images_BCHW)
    red, green, blue = images_BCHW.unbind(dim=1)
    highest = torch.maximum(torch.maximum(red, green), blue)
    lowest = torch.minimum(torch.minimum(red, green), blue)
    chroma = highest - lowest
    # 0 for the darkest colour and exactly 1 for the lightest, so that rounding down tells whether a colour is that.
    shares_BCHW = (images_BCHW - lowest[:, None]) / chroma.clamp(min=torch.finfo(chroma.dtype).tiny)[:, None]
    red, green, blue = shares_BCHW.unbind(dim=1)
    # The hue in sixths of the circle, from red over green to blue; selected by arithmetic, which is 10 times faster
    # than by comparison.
    hue = torch.lerp((red - green).add_(4), (blue - red).add_(2), green.floor())
    hue = torch.lerp(hue, green - blue, red.floor())
    hue += _one_each(shifts_B, images_BCHW)[:, 0] * 6
    shifted_BCHW = torch.empty_like(images_BCHW)
    for channel, own_hue in enumerate((0, 2, 4)):
        # Distance from the colour's own hue on the circle of six, 0 to 3: full up to 1, nothing from 2.
        distance = hue - own_hue
        distance.sub_((distance * (1 / 6)).round_(), alpha=6).abs_()
        shifted_BCHW[:, channel] = distance.neg_().add_(2).clamp_(0, 1).mul_(chroma).add_(lowest)
    return shifted_BCHW


def _grey(images_BCHW: Tensor) -> Tensor:
    """Luma [B, 1, H, W]."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    _check_channels(images_BCHW)
    red, green, blue = images_BCHW[:, :1], images_BCHW[:, 1:2], images_BCHW[:, 2:]
    # Products and sums apart: fused, whether they round once or twice can depend on the place in memory.
    return (red * _LUMA[0]).add_(green * _LUMA[1]).add_(blue * _LUMA[2])


def _blend(images_BCHW: Tensor, others: Tensor, factors_B: Tensor) -> Tensor:
    factors = _one_each(factors_B, images_BCHW)
    return (images_BCHW * factors).add_(others * (1 - factors)).clamp_(0, 1)


def _one_each(values_B: Tensor, images_BCHW: Tensor) -> Tensor:
    return values_B.to(images_BCHW)[:, None, None, None]


def _check_channels(images_BCHW: Tensor) -> None:
    if images_BCHW.shape[1] != 3:
        raise ValueError(f"{images_BCHW.shape[1]} channels: colours are changed in images with 1 (grey) or 3 (RGB)")
