"""Resampling of a batch of images, each through an affine matrix of its own.

Shapes: B images, C channels, H x W pixels.

A matrix [3, 3] maps a point of the output to the point of the input that is shown there, in homogeneous coordinates
(x right, y down) from the image's centre in units of half its width; so "first M1, then M2" on the image is
``M1 @ M2``. Matrices are made in float64 on the CPU; pixels stay on their device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "nearest", "bicubic"]
Fill = Literal["zero", "mean", "reflect"]

_CACHE_BYTES = 1_500_000  # of images; what is computed from them takes some times as much


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


@dataclass(frozen=True)
class Warp:
    """Where the pixels of the output come from: a chain of affine matrices, and the crops between them.

    A crop reads nothing beyond its edges: a place less than half a pixel beyond its outermost pixels' centres is taken
    as on them. Farther out lies what a later rotation brings in: there the image goes on, as if it had not been cut.
    """

    steps: tuple[tuple[Tensor, Tensor | None], ...]
    """Matrices [B, 3, 3] with boxes [B, 4] or None, first change of the image first. A box is the left, right, top and
    bottom of a crop's outermost pixels' centres in the input of its step, infinite where nothing is cut."""

    def then(self, later: Warp) -> Warp:
        """This change of the image, then the later one. Matrices with no crop between them become one."""
        (matrices_B33, boxes_B4), (later_B33, later_boxes_B4) = self.steps[-1], later.steps[0]
        if later_boxes_B4 is not None:
            return Warp(self.steps + later.steps)
        return Warp((*self.steps[:-1], (matrices_B33 @ later_B33, boxes_B4), *later.steps[1:]))

    def product(self) -> Tensor:
        """All matrices as one [B, 3, 3], crops left aside."""
        product_B33 = self.steps[0][0]
        for matrices_B33, _ in self.steps[1:]:
            product_B33 = product_B33 @ matrices_B33
        return product_B33

    def of(self, rows: Tensor | slice) -> Warp:
        """The warp of some of the images."""
        return Warp(tuple((m_B33[rows], None if boxes is None else boxes[rows]) for m_B33, boxes in self.steps))

    @classmethod
    def choice(cls, warps: Sequence[Warp], chosen_B: Tensor) -> Warp:
        """For each image that one of the warps which it has chosen."""
        places_B = torch.arange(len(chosen_B))
        steps = []
        for step in range(max(len(warp.steps) for warp in warps)):
            padded = [warp.steps[step] if step < len(warp.steps) else still(len(chosen_B)) for warp in warps]
            matrices_B33 = torch.stack([matrices for matrices, _ in padded])[chosen_B, places_B]
            boxes_B4 = None
            if any(boxes is not None for _, boxes in padded):
                uncut_B4 = uncut(len(chosen_B))
                boxes = [uncut_B4 if boxes is None else boxes for _, boxes in padded]
                boxes_B4 = torch.stack(boxes)[chosen_B, places_B]
            steps.append((matrices_B33, boxes_B4))
        return cls(tuple(steps))


def uncut(num_images: int) -> Tensor:
    """Boxes [B, 4] that cut nothing."""
    return torch.tensor([-math.inf, math.inf, -math.inf, math.inf], dtype=torch.float64).repeat(num_images, 1)


def still(num_images: int) -> tuple[Tensor, Tensor | None]:
    """A step that moves nothing."""
    return torch.eye(3, dtype=torch.float64).repeat(num_images, 1, 1), None


def resample(
    images_BCHW: Tensor, warp: Warp | Tensor, interpolation: Interpolation = "bilinear", fill: Fill = "zero"
) -> Tensor:
    """Show each image through its own warp, or affine matrix [B, 3, 3]; see the top of the file for what that means.

    Warps that only permute pixels (flips and quarter turns of square images) permute them exactly.

    Raises:
        ValueError: shapes that do not fit, an unknown interpolation or fill.
    """
    check_resampling(interpolation, fill)
    if isinstance(warp, Tensor):
        warp = Warp(((warp, None),))
    matrices_B33 = warp.product()
    if images_BCHW.ndim != 4 or matrices_B33.shape != (len(images_BCHW), 3, 3):
        raise ValueError(f"images {tuple(images_BCHW.shape)} and matrices {tuple(matrices_B33.shape)} do not fit")
    symmetries = [_symmetry(matrix, images_BCHW) for matrix in matrices_B33.tolist()]

    def resampled(part: slice) -> Tensor:
        return _resample(images_BCHW[part], warp.of(part), symmetries[part], interpolation, fill)

    return by_parts(images_BCHW, resampled)


def _resample(
    images_BCHW: Tensor, warp: Warp, symmetries: list[Symmetry | None], interpolation: Interpolation, fill: Fill
) -> Tensor:
    if not any(symmetries):
        # A copy brings the images into the cache line by line, where gathering pixels would wait for each.
        return _interpolate(images_BCHW.clone(), warp, interpolation, fill)
    resampled_BCHW = torch.empty_like(images_BCHW)
    for symmetry in set(symmetries):
        where = torch.tensor([place for place, s in enumerate(symmetries) if s == symmetry])
        there = where.to(images_BCHW.device)
        part_BCHW = images_BCHW.index_select(0, there)
        if symmetry is None:
            changed_BCHW = _interpolate(part_BCHW, warp.of(where), interpolation, fill)
        else:
            changed_BCHW = _permute(part_BCHW, symmetry)
        resampled_BCHW.index_copy_(0, there, changed_BCHW)
    return resampled_BCHW


def parts_of(images_BCHW: Tensor, num_chosen: int | None = None) -> list[slice]:
    """Which images, or of ``num_chosen`` ones, a chain of operations should take at once: on a CPU as many as its cache
    holds, else all."""
    num_images = len(images_BCHW) if num_chosen is None else num_chosen
    at_once = max(1, num_images)
    if images_BCHW.device.type == "cpu":
        at_once = max(1, _CACHE_BYTES // max(1, images_BCHW[:1].nbytes))
    return [slice(first, first + at_once) for first in range(0, num_images, at_once)]


def by_parts(images_BCHW: Tensor, changed: Callable[[slice], Tensor]) -> Tensor:
    """All images [B, C, H, W], of which ``changed`` makes a part at a time, so that its steps stay in the cache."""
    parts = parts_of(images_BCHW)
    if len(parts) == 1:
        return changed(parts[0])
    changed_BCHW = torch.empty_like(images_BCHW)
    for part in parts:
        changed_BCHW[part] = changed(part)
    return changed_BCHW


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


def _interpolate(images_BCHW: Tensor, warp: Warp, interpolation: Interpolation, fill: Fill) -> Tensor:
    grid_BHW2 = _grid(warp, images_BCHW)
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


def _grid(warp: Warp, images_BCHW: Tensor) -> Tensor:
    """Where each output pixel looks, in grid_sample's coordinates [B, H, W, 2]."""
    height, width = images_BCHW.shape[2:]
    aspect = height / width
    options: dict[str, Any] = {
        "device": images_BCHW.device,
        "dtype": torch.promote_types(images_BCHW.dtype, torch.float32),
    }
    x = (torch.arange(width, **options) * 2 + 1) / width - 1
    y = ((torch.arange(height, **options) * 2 + 1) / height - 1)[:, None] * aspect
    is_apart = True  # whether x depends on the column alone, and y on the row
    for matrices_B33, boxes_B4 in reversed(warp.steps):
        # Warps are made on the host, so looking at one waits for no device.
        is_apart = is_apart and not matrices_B33.numpy()[:, [0, 1], [1, 0]].any()
        # Written out sample by sample and not as a matrix product, whose rounding may depend on the batch.
        m = matrices_B33.to(**options)[:, :, :, None, None]
        if is_apart:
            x, y = m[:, 0, 0] * x + m[:, 0, 2], m[:, 1, 1] * y + m[:, 1, 2]
        else:
            # From one row and one column, the complex sum is the one operation on whole grids.
            along_x = torch.complex(m[:, 0, 0] * x + m[:, 0, 2], m[:, 1, 0] * x + m[:, 1, 2])
            places_BHW2 = torch.view_as_real(along_x + torch.complex(m[:, 0, 1] * y, m[:, 1, 1] * y))
            x, y = places_BHW2.unbind(dim=3)
        if boxes_B4 is not None:
            lowest_B12, highest_B12 = boxes_B4.to(**options).view(-1, 1, 2, 2).unbind(dim=3)
            if is_apart:
                _keep_in_(x, lowest_B12[:, :, :1], highest_B12[:, :, :1], width)
                _keep_in_(y, lowest_B12[:, :, 1:], highest_B12[:, :, 1:], width)
            else:
                _keep_in_(
                    places_BHW2.flatten(2), lowest_B12.repeat(1, 1, width), highest_B12.repeat(1, 1, width), width
                )
    if is_apart:
        places_BHW2 = torch.stack([each.expand(-1, height, width) for each in (x, y)], dim=3)
    if aspect != 1:
        places_BHW2[..., 1].div_(aspect)
    return places_BHW2.to(images_BCHW.dtype)


def _keep_in_(places: Tensor, lowest: Tensor, highest: Tensor, width: int) -> None:
    """Places that are beyond the edges of a box by half a pixel at most are moved to the edges, in place."""
    kept = places.clamp(lowest, highest)
    # Rounding must not tell the outermost places of a crop from those beyond it.
    beyond = torch.nn.functional.hardshrink(places - kept, 1.001 / width)
    torch.add(kept, beyond, out=places)


def check_resampling(interpolation: str, fill: str) -> None:
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation = {interpolation!r}: choose one of {', '.join(get_args(Interpolation))}")
    if fill not in get_args(Fill):
        raise ValueError(f"fill = {fill!r}: choose one of {', '.join(get_args(Fill))}")
