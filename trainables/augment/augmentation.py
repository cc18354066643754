"""What an augmentation is: uniform numbers in, a batch of images with parameters of their own out.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from trainables.api.trainable import Part
from trainables.augment.resample import resample


class Augmentation(Part, ABC):
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
