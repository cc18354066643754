"""Gaussian blur of a batch of images, each with a width of its own.

Shapes: B images, C channels, H x W pixels, L pixels along an axis.

A blur along an axis is a product with a matrix [L, L] that holds the kernel in each row, its ends folded back at the
border. So every image of a batch can have its own kernel and its own radius in one batched product, which is also
faster than convolutions with as many groups as images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_blur(images_BCHW: Tensor, sigmas_px_B: Tensor, radii_px_B: Tensor) -> Tensor:
    """Each image convolved with a Gaussian of its own, cut off at its radius, the border mirrored (``c b | a b c``).

    Args:
        images_BCHW: floating-point, any range, any device.
        sigmas_px_B: standard deviations, at least 0; where it is 0 the image stays as it is.
        radii_px_B: whole numbers; the kernel has 2 * radius + 1 places, whose sum is 1.

    Returns:
        [B, C, H, W], of the images' dtype and device. The kernels are made in float64.
    """
    height, width = images_BCHW.shape[2:]
    rows_BHH = _blur_matrices(sigmas_px_B, radii_px_B, height).to(images_BCHW)
    columns_BWW = _blur_matrices(sigmas_px_B, radii_px_B, width).to(images_BCHW)
    return rows_BHH[:, None] @ images_BCHW @ columns_BWW[:, None].mT


def _blur_matrices(sigmas_px_B: Tensor, radii_px_B: Tensor, length: int) -> Tensor:
    """Weight of input pixel j in output pixel i [B, L, L], float64 on the CPU."""
    sigmas_B1 = sigmas_px_B.double().cpu()[:, None].clamp(min=1e-9)  # at 0 the weights are 1 and nothing
    radii_B1 = radii_px_B.cpu()[:, None]
    distances_R = torch.arange(int(radii_px_B.max()) + 1)
    weights_BR = torch.exp(-0.5 * (distances_R / sigmas_B1) ** 2) * (distances_R <= radii_B1)
    weights_BR = weights_BR / (weights_BR[:, :1] + 2 * weights_BR[:, 1:].sum(dim=1, keepdim=True))
    # The mirrored line repeats after 2 L - 2 pixels: the kernel is wound around a circle of that length.
    period = max(1, 2 * length - 2)
    circle_BP = torch.zeros(len(weights_BR), period, dtype=torch.float64)
    circle_BP.index_add_(1, distances_R % period, weights_BR)
    circle_BP.index_add_(1, -distances_R[1:] % period, weights_BR[:, 1:])
    i_L1, j_L = torch.arange(length)[:, None], torch.arange(length)
    matrices_BLL = circle_BP[:, (i_L1 - j_L) % period]
    # Every pixel but the first and the last lies on the circle twice.
    matrices_BLL[:, :, 1:-1] += circle_BP[:, (i_L1 + j_L[1:-1]) % period]
    return matrices_BLL
