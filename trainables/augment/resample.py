"""Resampling of a batch of images, each through an affine matrix of its own.

Shapes: B images, C channels, H x W pixels.

A matrix [3, 3] maps a point of the output to the point of the input that is shown there, in homogeneous coordinates
(x right, y down) from the image's centre in units of half its width; so "first M1, then M2" on the image is
``M1 @ M2``. Matrices are made in float64 on the CPU; pixels stay on their device.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "nearest", "bicubic"]
Fill = Literal["zero", "mean", "reflect"]


def rotate(
    images_BCHW: Tensor, angles_deg: Tensor | float, interpolation: Interpolation = "bilinear", fill: Fill = "zero"
) -> Tensor:
    """Rotate each image about its centre by its own angle.

    Counter-clockwise positive, and numerically the same as ``torchvision.transforms.functional.rotate``; at
    multiples of 90° (of square images) exactly ``torch.rot90``, with no interpolation. Rotating by -a brings
    an image back up to interpolation and what left the frame.

    Args:
        images_BCHW: floating-point, any range, any device.
        angles_deg: one number, or one for each image [B].
        interpolation: ``bicubic`` may overshoot the range of the input.
        fill: what comes in from outside: 0, the image's own mean for each channel, or its mirror image.

    Returns:
        [B, C, H, W], of the images' dtype and device. An image's result does not depend on its batch.

    Raises:
        ValueError: other shapes, an unknown interpolation or fill.
    """
    angles_B = torch.as_tensor(angles_deg, dtype=torch.float64).cpu().expand(len(images_BCHW))
    return resample(images_BCHW, rotation_matrices(angles_B), interpolation, fill)


def resample(
    images_BCHW: Tensor, matrices_B33: Tensor, interpolation: Interpolation = "bilinear", fill: Fill = "zero"
) -> Tensor:
    """Show each image through its own affine matrix; see the top of the file for what a matrix means.

    Matrices that only permute pixels (flips and quarter turns of square images) permute them exactly.

    Raises:
        ValueError: shapes that do not fit, an unknown interpolation or fill.
    """
    check_resampling(interpolation, fill)
    if images_BCHW.ndim != 4 or matrices_B33.shape != (len(images_BCHW), 3, 3):
        raise ValueError(f"images {tuple(images_BCHW.shape)} and matrices {tuple(matrices_B33.shape)} do not fit")
    symmetries = [_symmetry(matrix, images_BCHW) for matrix in matrices_B33.tolist()]
    resampled_BCHW = torch.empty_like(images_BCHW)
    for symmetry in set(symmetries):
        where = torch.tensor([place for place, s in enumerate(symmetries) if s == symmetry], device=images_BCHW.device)
        part_BCHW = images_BCHW[where]
        if symmetry is None:
            chosen_B33 = matrices_B33[where.to(matrices_B33.device)]
            resampled_BCHW[where] = _interpolate(part_BCHW, chosen_B33, interpolation, fill)
        else:
            resampled_BCHW[where] = _permute(part_BCHW, symmetry)
    return resampled_BCHW


def rotation_matrices(angles_deg_B: Tensor) -> Tensor:
    """Counter-clockwise rotations [B, 3, 3] in float64; exact at multiples of 90°."""
    angles_B = angles_deg_B.to(torch.float64)
    quarters_B = torch.round(angles_B / 90.0)
    rest_B = torch.deg2rad(angles_B - 90.0 * quarters_B)
    cos_B, sin_B = torch.cos(rest_B), torch.sin(rest_B)
    # (cos, sin) of the whole angle, by the number of quarter turns modulo 4.
    cosines_4B = torch.stack([cos_B, -sin_B, -cos_B, sin_B])
    sines_4B = torch.stack([sin_B, cos_B, -sin_B, -cos_B])
    turns_B = torch.remainder(quarters_B, 4).long()
    places_B = torch.arange(len(angles_B))
    cos_B, sin_B = cosines_4B[turns_B, places_B], sines_4B[turns_B, places_B]
    matrices_B33 = torch.eye(3, dtype=torch.float64).repeat(len(angles_B), 1, 1)
    # y points down and the matrix maps output to input, hence the sign of the sines.
    matrices_B33[:, 0, 0], matrices_B33[:, 0, 1] = cos_B, -sin_B
    matrices_B33[:, 1, 0], matrices_B33[:, 1, 1] = sin_B, cos_B
    return matrices_B33


Symmetry = tuple[float, float, float, float]


def _symmetry(matrix: list[list[float]], images_BCHW: Tensor) -> Symmetry | None:
    """The linear part, if the matrix maps the pixel grid onto itself; else None."""
    (a, b, x), (c, d, y), _ = matrix
    is_signed_permutation = sorted(map(abs, (a, b))) == [0, 1] == sorted(map(abs, (c, d))) and abs(a) == abs(d)
    keeps_grid = b == 0 or images_BCHW.shape[2] == images_BCHW.shape[3]
    return (a, b, c, d) if is_signed_permutation and keeps_grid and x == y == 0 else None


def _permute(images_BCHW: Tensor, symmetry: Symmetry) -> Tensor:
    """Pixels by the signed permutation ``output (x, y) shows input (a x + b y, c x + d y)``."""
    a, b, c, d = symmetry
    horizontal, vertical = (a, d) if b == 0 else (b, c)
    flipped = [axis for axis, sign in ((3, horizontal), (2, vertical)) if sign < 0]
    flipped_BCHW = images_BCHW.flip(flipped)
    return flipped_BCHW if b == 0 else flipped_BCHW.transpose(2, 3)


def _interpolate(images_BCHW: Tensor, matrices_B33: Tensor, interpolation: Interpolation, fill: Fill) -> Tensor:
    grid_BHW2 = _grid(matrices_B33, images_BCHW)
    offset_BC11 = images_BCHW.mean(dim=(2, 3), keepdim=True) if fill == "mean" else None
    shifted_BCHW = images_BCHW if offset_BC11 is None else images_BCHW - offset_BC11
    resampled_BCHW = torch.nn.functional.grid_sample(
        shifted_BCHW,
        grid_BHW2,
        mode=interpolation,
        padding_mode="reflection" if fill == "reflect" else "zeros",
        align_corners=False,
    )
    return resampled_BCHW if offset_BC11 is None else resampled_BCHW + offset_BC11


def _grid(matrices_B33: Tensor, images_BCHW: Tensor) -> Tensor:
    """Where each output pixel looks, in grid_sample's coordinates [B, H, W, 2]."""
    height, width = images_BCHW.shape[2:]
    aspect = height / width
    # Written out sample by sample and not as a matrix product, whose rounding may depend on the batch.
    m_B33 = matrices_B33.to(device=images_BCHW.device, dtype=images_BCHW.dtype)[:, :, :, None, None]
    x_W = (torch.arange(width, device=m_B33.device, dtype=m_B33.dtype) * 2 + 1) / width - 1
    y_H1 = ((torch.arange(height, device=m_B33.device, dtype=m_B33.dtype) * 2 + 1) / height - 1)[:, None] * aspect
    x_BHW = m_B33[:, 0, 0] * x_W + m_B33[:, 0, 1] * y_H1 + m_B33[:, 0, 2]
    y_BHW = m_B33[:, 1, 0] * x_W + m_B33[:, 1, 1] * y_H1 + m_B33[:, 1, 2]
    return torch.stack([x_BHW, y_BHW / aspect], dim=-1)


def check_resampling(interpolation: str, fill: str) -> None:
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation = {interpolation!r}: choose one of {', '.join(get_args(Interpolation))}")
    if fill not in get_args(Fill):
        raise ValueError(f"fill = {fill!r}: choose one of {', '.join(get_args(Fill))}")
