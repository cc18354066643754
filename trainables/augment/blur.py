"""Gaussian blur of a batch of images, each with a width of its own.

Shapes: B images, C channels, H x W pixels, R + 1 places of half a kernel, its centre first.

A blur is a sum of shifted images. It is written out as such: that is faster than a convolution with as many groups as
images or a product with banded matrices, and unlike theirs its rounding cannot depend on the batch or on threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.augment.resample import by_parts


def gaussian_blur(images_BCHW: Tensor, sigmas_px_B: Tensor, radii_px_B: Tensor) -> Tensor:
    """Each image convolved with a Gaussian of its own, cut off at its radius, the border mirrored (``c b | a b c``).

    Args:
        images_BCHW: floating-point, any range, any device.
        sigmas_px_B: standard deviations, at least 0; where it is 0 the image stays as it is.
        radii_px_B: whole numbers; the kernel has 2 * radius + 1 places, whose sum is 1.

    Returns:
        [B, C, H, W], of the images' dtype and device. The kernels are made in float64.
    """

    def blurred(part: slice) -> Tensor:
        half_kernels_BR = _half_kernels(sigmas_px_B[part], radii_px_B[part]).to(images_BCHW)
        return _convolve(_convolve(images_BCHW[part], half_kernels_BR, 2), half_kernels_BR, 3)

    return by_parts(images_BCHW, blurred)


def _half_kernels(sigmas_px_B: Tensor, radii_px_B: Tensor) -> Tensor:
    """The centre and one side of each kernel [B, R + 1], float64 on the CPU, 0 beyond an image's own radius."""
    sigmas_B1 = sigmas_px_B.double().cpu()[:, None].clamp(min=1e-9)  # at 0 the weights are 1 and nothing
    distances_R = torch.arange(max(radii_px_B.tolist(), default=0) + 1)
    weights_BR = torch.exp(-0.5 * (distances_R / sigmas_B1) ** 2) * (distances_R <= radii_px_B.cpu()[:, None])
    # Added one after the other, so that the zeros of a batch with a wider kernel change no rounding.
    return weights_BR / (2 * weights_BR.cumsum(dim=1)[:, -1:] - weights_BR[:, :1])


def _convolve(images_BCHW: Tensor, half_kernels_BR: Tensor, axis: int) -> Tensor:
    length, radius = images_BCHW.shape[axis], half_kernels_BR.shape[1] - 1
    # The mirrored line repeats after 2 L - 2 pixels.
    period = max(1, 2 * length - 2)
    places = torch.arange(-radius, length + radius, device=images_BCHW.device).remainder(period)
    padded_BCHW = images_BCHW.index_select(axis, torch.minimum(places, period - places))
    weights = half_kernels_BR[:, :, None, None, None]
    blurred_BCHW = images_BCHW * weights[:, 0]
    for distance in range(1, radius + 1):
        before = padded_BCHW.narrow(axis, radius - distance, length)
        after = padded_BCHW.narrow(axis, radius + distance, length)
        # Not fused into one operation: whether it rounds once or twice can depend on the place in memory.
        blurred_BCHW.add_((before + after).mul_(weights[:, distance]))
    return blurred_BCHW
