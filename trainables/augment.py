"""Augmentations as frozen dataclasses: parameters for each sample, one resampling for the whole composition.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample, T combined augmentations.

An augmentation turns uniform numbers into matrices. A matrix [3, 3] maps a point of the output to the point of the
input that is shown there, in homogeneous coordinates (x right, y down) from the image's centre in units of half its
width; so "first M1, then M2" on the image is ``M1 @ M2``. Matrices are made in float64 on the CPU; pixels
stay on their device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "nearest", "bicubic"]
Fill = Literal["zero", "mean", "reflect"]


class Augmentation(ABC):
    """A random change of geometry. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """How many uniform numbers one sample takes."""

    @abstractmethod
    def matrices(self, draws_BN: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), float64, to matrices [B, 3, 3]."""

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W]: bilinear, zero where the image does not reach."""
        return resample(images_BCHW, self.matrices(draws_BN))


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Rotation about the centre by an angle uniform in [min_deg, max_deg), counter-clockwise.

    ``min_deg`` is -max_deg where not given, so ``Rotation(max_deg=180)`` takes every angle.
    """

    max_deg: float = 180.0
    min_deg: float | None = None

    def __post_init__(self) -> None:
        if not self.lowest_deg <= self.max_deg:
            raise ValueError(f"min_deg = {self.lowest_deg} lies above max_deg = {self.max_deg}")

    @property
    def lowest_deg(self) -> float:
        return -self.max_deg if self.min_deg is None else self.min_deg

    @property
    def num_draws(self) -> int:
        return 1

    def matrices(self, draws_BN: Tensor) -> Tensor:
        return rotation_matrices(self.lowest_deg + draws_BN[:, 0] * (self.max_deg - self.lowest_deg))


@dataclass(frozen=True)
class _Flip(Augmentation):
    p: float = 0.5

    @property
    @abstractmethod
    def _axis(self) -> int:
        """0 for x, 1 for y."""

    def __post_init__(self) -> None:
        _check_probability(self.p)

    @property
    def num_draws(self) -> int:
        return 1

    def matrices(self, draws_BN: Tensor) -> Tensor:
        return _flip_matrices(draws_BN[:, 0] < self.p, self._axis)


@dataclass(frozen=True)
class HorizontalFlip(_Flip):
    """Left and right exchanged with probability ``p``."""

    _axis = 0


@dataclass(frozen=True)
class VerticalFlip(_Flip):
    """Top and bottom exchanged with probability ``p``."""

    _axis = 1


@dataclass(frozen=True)
class Combine(Augmentation):
    """Several augmentations in one resampling: ``one`` of them, drawn for each sample, or ``all`` in order.

    With ``one``, a flip should have p = 1: it has been chosen already. Nested combinations are resampled with
    the outermost one's interpolation and fill.
    """

    augmentations: tuple[Augmentation, ...]
    choose: Literal["one", "all"] = "all"
    interpolation: Interpolation = "bilinear"
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        if not self.augmentations:
            raise ValueError("augmentations is empty: combine at least one")
        if self.choose not in ("one", "all"):
            raise ValueError(f"choose = {self.choose!r}: 'one' or 'all'")
        _check_resampling(self.interpolation, self.fill)

    @property
    def num_draws(self) -> int:
        return 1 + sum(augmentation.num_draws for augmentation in self.augmentations)

    def matrices(self, draws_BN: Tensor) -> Tensor:
        choices_B1, *parts = torch.split(draws_BN, [1, *(a.num_draws for a in self.augmentations)], dim=1)
        matrices = [a.matrices(part_BN) for a, part_BN in zip(self.augmentations, parts, strict=True)]
        if self.choose == "one":
            chosen_B = (choices_B1[:, 0] * len(matrices)).long()
            return torch.stack(matrices)[chosen_B, torch.arange(len(draws_BN))]
        composed_B33 = matrices[0]
        for matrices_B33 in matrices[1:]:
            composed_B33 = composed_B33 @ matrices_B33
        return composed_B33

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W], resampled once."""
        return resample(images_BCHW, self.matrices(draws_BN), self.interpolation, self.fill)


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
    _check_resampling(interpolation, fill)
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


def _flip_matrices(flipped_B: Tensor, axis: int) -> Tensor:
    matrices_B33 = torch.eye(3, dtype=torch.float64).repeat(len(flipped_B), 1, 1)
    matrices_B33[:, axis, axis] = torch.where(flipped_B, -1.0, 1.0).to(torch.float64)
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


def _check_resampling(interpolation: str, fill: str) -> None:
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation = {interpolation!r}: choose one of {', '.join(get_args(Interpolation))}")
    if fill not in get_args(Fill):
        raise ValueError(f"fill = {fill!r}: choose one of {', '.join(get_args(Fill))}")


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p}: a probability lies in [0, 1]")


# "a random transformation (rotation, horizontal flip, or vertical flip) was applied to each sample": the thesis,
# section 4.1.2. It states no range of angles; its question is about all of them.
THESIS_AUGMENTATION = Combine((Rotation(180.0), HorizontalFlip(p=1.0), VerticalFlip(p=1.0)), choose="one")
