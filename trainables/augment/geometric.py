"""Augmentations of geometry: uniform numbers to matrices (``resample`` says what a matrix means).

Shapes: B images, N uniform draws a sample.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.augment.augmentation import Augmentation
from trainables.augment.resample import rotation_matrices


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


def _flip_matrices(flipped_B: Tensor, axis: int) -> Tensor:
    matrices_B33 = torch.eye(3, dtype=torch.float64).repeat(len(flipped_B), 1, 1)
    matrices_B33[:, axis, axis] = torch.where(flipped_B, -1.0, 1.0).to(torch.float64)
    return matrices_B33


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p}: a probability lies in [0, 1]")
