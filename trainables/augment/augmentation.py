"""What an augmentation is: uniform numbers in, a batch of images with parameters of their own out.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from trainables.api.trainable import Part
from trainables.augment.resample import Warp, resample


class Augmentation(Part, ABC):
    """A random change of images. Subclasses are frozen dataclasses, below ``Geometric`` or ``Photometric``."""

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """How many uniform numbers one sample takes."""

    @abstractmethod
    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W], of the images' dtype and device.

        Args:
            images_BCHW: floating-point in [0, 1], any device.
            draws_BN: uniform numbers in [0, 1), float64 on the CPU. An image's result depends on its own only.
        """


class Geometric(Augmentation):
    """Moves pixels and leaves their values."""

    @abstractmethod
    def warp(self, draws_BN: Tensor, height: int, width: int) -> Warp:
        """How the pixels of images of this size move."""

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W]: bilinear, zero where the image does not reach."""
        height, width = images_BCHW.shape[2:]
        return resample(images_BCHW, self.warp(draws_BN, height, width))


class Photometric(Augmentation):
    """Changes values of pixels and leaves them where they are; what leaves [0, 1] is clipped."""

    @abstractmethod
    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        """Change each image in place, under its own parameters: a chain of changes needs no memory for each."""

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W], the images themselves unchanged."""
        changed_BCHW = images_BCHW.clone()
        self.change_(changed_BCHW, draws_BN)
        return changed_BCHW


def check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p = {p}: a probability lies in [0, 1]")
