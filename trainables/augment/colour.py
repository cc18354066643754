"""Brightness, contrast, saturation and hue of a batch of images, each with a factor of its own.

Shapes: B images, C channels, H x W pixels. Images are floating-point in [0, 1], grey (C = 1) or red, green and blue
(C = 3); factors are float64 on the CPU. Conventions and values are those of torchvision.transforms.v2.functional, but
images change in place, and are returned.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def adjust_brightness_(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Pixels times the factor, clipped; 1 changes nothing. Any number of channels."""
    return images_BCHW.mul_(_one_each(factors_B, images_BCHW)).clamp_(0, 1)


def adjust_contrast_(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Distances from the image's mean grey times the factor, clipped; 1 changes nothing, 0 leaves the mean."""
    # Two steps: the sum over a whole image would be split among threads when it is alone in its batch.
    means_BC11 = images_BCHW.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return _blend_(images_BCHW, _grey(means_BC11), factors_B)


def adjust_saturation_(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Distances from each pixel's grey times the factor, clipped; 1 changes nothing. Grey images stay as they are."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    return _blend_(images_BCHW, _grey(images_BCHW), factors_B)


def adjust_hue_(images_BCHW: Tensor, shifts_B: Tensor) -> Tensor:
    """Hue turned by a share of the circle, -0.5 to 0.5; 0 changes nothing. Grey images stay as they are.

    Lightest and darkest of a pixel's three values stay (HSV's value and chroma); by how far the hue is from a colour's
    own, that colour gets a value between them. Hues are kept as sixths of the circle times the chroma, and found by
    comparing values: neither a division nor a choice of cases is needed.
    """
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    _check_channels(images_BCHW)
    red, green, blue = images_BCHW[:, :1], images_BCHW[:, 1:2], images_BCHW[:, 2:]
    least, most = torch.minimum(green, blue), torch.maximum(green, blue)
    lowest, highest = torch.minimum(least, red), torch.maximum(most, red)
    chroma = highest - lowest
    # From red at 0 to cyan at 3, on green's side positive. Red is a pixel's highest, middle or lowest value, and the
    # distance then |g - b|, 2 (highest - lowest) - (red - lowest) or 3 (highest - lowest) - |g - b|; this is all three.
    between = torch.clamp(red, least, most)
    distance = (between - lowest).add_((most - between).add_(least - lowest), alpha=2)
    hue = torch.copysign(distance, green - blue)
    # The hue that a colour's full value moves to the place of: its own minus the shift, -3 to 3.
    own_B3 = torch.tensor([0.0, 2.0, -2.0], dtype=torch.float64) - 6 * shifts_B.double().cpu()[:, None]
    own_B3 = own_B3 - 6 * (own_B3 / 6).round()
    # Full up to a distance of 1 on the circle of six, nothing from 2 to 4.
    torch.mul(chroma, own_B3.to(images_BCHW)[:, :, None, None], out=images_BCHW)
    torch.sub(hue, images_BCHW, out=images_BCHW)
    return images_BCHW.abs_().sub_(3 * chroma).abs_().add_(lowest - chroma).clamp_(lowest, highest)


def _grey(images_BCHW: Tensor) -> Tensor:
    """Luma [B, 1, H, W]."""
    if images_BCHW.shape[1] == 1:
        return images_BCHW
    _check_channels(images_BCHW)
    red, green, blue = images_BCHW[:, :1], images_BCHW[:, 1:2], images_BCHW[:, 2:]
    # Products and sums apart: fused, whether they round once or twice can depend on the place in memory.
    return (red * _LUMA[0]).add_(green * _LUMA[1]).add_(blue * _LUMA[2])


def _blend_(images_BCHW: Tensor, others: Tensor, factors_B: Tensor) -> Tensor:
    """Towards ``others``, which are used up."""
    factors = _one_each(factors_B, images_BCHW)
    return images_BCHW.mul_(factors).add_(others.mul_(1 - factors)).clamp_(0, 1)


def _one_each(values_B: Tensor, images_BCHW: Tensor) -> Tensor:
    return values_B.to(images_BCHW)[:, None, None, None]


def _check_channels(images_BCHW: Tensor) -> None:
    if images_BCHW.shape[1] != 3:
        raise ValueError(f"{images_BCHW.shape[1]} channels: colours are changed in images with 1 (grey) or 3 (RGB)")
