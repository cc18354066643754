"""Augmentations of geometry: uniform numbers to warps (``resample`` says what the matrices mean).

Shapes: B images, N uniform draws a sample.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.augment.augmentation import Geometric, check_probability
from trainables.augment.resample import Warp, rotation_matrices, uncut

_CROP_PROPOSALS = 10


@dataclass(frozen=True)
class Rotation(Geometric):
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

    def warp(self, draws_BN: Tensor, height: int, width: int) -> Warp:
        matrices_B33 = rotation_matrices(self.lowest_deg + draws_BN[:, 0] * (self.max_deg - self.lowest_deg))
        return Warp(((matrices_B33, None),))


@dataclass(frozen=True)
class _Flip(Geometric):
    p: float = 0.5

    @property
    @abstractmethod
    def _axis(self) -> int:
        """0 for x, 1 for y."""

    def __post_init__(self) -> None:
        check_probability(self.p)

    @property
    def num_draws(self) -> int:
        return 1

    def warp(self, draws_BN: Tensor, height: int, width: int) -> Warp:
        return Warp(((_flip_matrices(draws_BN[:, 0] < self.p, self._axis), None),))


@dataclass(frozen=True)
class HorizontalFlip(_Flip):
    """Left and right exchanged with probability ``p``."""

    _axis = 0


@dataclass(frozen=True)
class VerticalFlip(_Flip):
    """Top and bottom exchanged with probability ``p``."""

    _axis = 1


@dataclass(frozen=True)
class RandomResizedCrop(Geometric):
    """A crop of random area, aspect ratio and place, enlarged to the image's size: torchvision's, draw for draw.

    Ten proposals of a size, of which the first that fits into the image is taken, in whole pixels; where none does,
    the largest centre crop of an allowed ratio (torchvision.transforms.RandomResizedCrop, after Szegedy et al. 2015).

    Args:
        min_area, max_area: share of the image's area.
        min_ratio, max_ratio: width over height, uniform in the logarithm.
    """

    min_area: float = 0.2
    max_area: float = 1.0
    min_ratio: float = 3 / 4
    max_ratio: float = 4 / 3

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= self.max_area <= 1:
            raise ValueError(f"min_area, max_area = {self.min_area}, {self.max_area}: above 0, in order, up to 1")
        if not 0 < self.min_ratio <= self.max_ratio:
            raise ValueError(f"min_ratio, max_ratio = {self.min_ratio}, {self.max_ratio}: above 0, in order")

    @property
    def num_draws(self) -> int:
        return 2 * _CROP_PROPOSALS + 2

    def warp(self, draws_BN: Tensor, height: int, width: int) -> Warp:
        return crop_warp(*self.boxes(draws_BN, height, width), height, width)

    def boxes(self, draws_BN: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Top, left, height and width of the crops [B], whole pixels as float64."""
        areas_BK, ratios_BK = draws_BN[:, :_CROP_PROPOSALS], draws_BN[:, _CROP_PROPOSALS : 2 * _CROP_PROPOSALS]
        areas_BK = height * width * (self.min_area + areas_BK * (self.max_area - self.min_area))
        lowest, highest = math.log(self.min_ratio), math.log(self.max_ratio)
        ratios_BK = torch.exp(lowest + ratios_BK * (highest - lowest))
        widths_BK, heights_BK = (areas_BK * ratios_BK).sqrt().round(), (areas_BK / ratios_BK).sqrt().round()
        fits_BK = (widths_BK > 0) & (widths_BK <= width) & (heights_BK > 0) & (heights_BK <= height)
        first_B1 = fits_BK.int().argmax(dim=1, keepdim=True)  # 0 where none fits
        fits_B = fits_BK.any(dim=1)
        centre_height, centre_width = self._largest(height, width)
        heights_B = torch.where(fits_B, heights_BK.gather(1, first_B1)[:, 0], float(centre_height))
        widths_B = torch.where(fits_B, widths_BK.gather(1, first_B1)[:, 0], float(centre_width))
        tops_B = torch.where(fits_B, draws_BN[:, -2] * (height - heights_B + 1), (height - heights_B) / 2).floor()
        lefts_B = torch.where(fits_B, draws_BN[:, -1] * (width - widths_B + 1), (width - widths_B) / 2).floor()
        return tops_B, lefts_B, heights_B, widths_B

    def _largest(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the largest centre crop whose ratio is allowed."""
        if width / height < self.min_ratio:
            return round(width / self.min_ratio), width
        if width / height > self.max_ratio:
            return height, round(height * self.max_ratio)
        return height, width


def crop_warp(tops_B: Tensor, lefts_B: Tensor, heights_B: Tensor, widths_B: Tensor, height: int, width: int) -> Warp:
    """Rectangles of whole pixels, enlarged to images of height x width."""
    aspect = height / width
    matrices_B33 = torch.eye(3, dtype=torch.float64).repeat(len(tops_B), 1, 1)
    matrices_B33[:, 0, 0], matrices_B33[:, 0, 2] = widths_B / width, (2 * lefts_B + widths_B) / width - 1
    matrices_B33[:, 1, 1] = heights_B / height
    matrices_B33[:, 1, 2] = ((2 * tops_B + heights_B) / height - 1) * aspect
    left_B, right_B = (2 * lefts_B + 1) / width - 1, (2 * (lefts_B + widths_B) - 1) / width - 1
    top_B, bottom_B = (2 * tops_B + 1) / height - 1, (2 * (tops_B + heights_B) - 1) / height - 1
    boxes_B4 = torch.stack([left_B, right_B, top_B * aspect, bottom_B * aspect], dim=1)
    is_whole_B1 = ((heights_B == height) & (widths_B == width))[:, None]
    return Warp(((matrices_B33, torch.where(is_whole_B1, uncut(len(tops_B)), boxes_B4)),))


def _flip_matrices(flipped_B: Tensor, axis: int) -> Tensor:
    matrices_B33 = torch.eye(3, dtype=torch.float64).repeat(len(flipped_B), 1, 1)
    matrices_B33[:, axis, axis] = torch.where(flipped_B, -1.0, 1.0).to(torch.float64)
    return matrices_B33
