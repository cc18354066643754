"""What is done to an image over a continuous value, and how a map of the changed image comes back to the image.

Shapes: P pairs of an image and a value, C channels, H x W pixels, L pixels along an axis.

The image as it is, is the *anchor*; the changed one is its *view*. All are pure functions of tensors: values are
float64 on the CPU, pixels stay on their device, and what becomes of an image does not depend on its batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.api import axis
from trainables.api.trainable import Part
from trainables.augment.blur import gaussian_blur
from trainables.augment.colour import adjust_brightness_
from trainables.augment.resample import Fill, Interpolation, check_resampling, resample, rotate

_WHOLE_TURN = 360.0  # degrees
_BLUR_RADIUS_SIGMAS = 4.0  # as scipy.ndimage.gaussian_filter


class Sweep(Part, ABC):
    """A change of images by a value. Subclasses are frozen dataclasses."""

    family: ClassVar[str] = "sweep"
    """There are augmentations of the same names, and identities tell classes apart by family and name."""
    title: ClassVar[str]
    """What the value is, for an axis."""
    unit: ClassVar[str]
    """The unit of the value, as it stands directly behind the number; empty where it is a plain factor."""
    neutral: ClassVar[float]
    """The value at which the view is the anchor, bit for bit."""
    period: ClassVar[float | None] = None
    """The view repeats when the value grows by so much; None where it never does."""
    allowed: ClassVar[str]
    """Which values there are, in words, for messages."""
    moves_pixels: ClassVar[bool] = False
    """Whether the view shows a pixel of the anchor at another place."""

    def view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        """Each image under its own value [P, C, H, W].

        Args:
            images_PCHW: floating-point in [0, 1], any device.
            values_P: float64, on the CPU.

        Raises:
            ValueError: a value that the sweep does not have, or not one value for each image.
        """
        self._check_fit(images_PCHW, values_P)
        return self._keep_neutral(images_PCHW, self._view(images_PCHW, values_P), values_P)

    def back(self, maps_PHW: Tensor, values_P: Tensor) -> Tensor:
        """Maps in their view's frame, brought into the anchor's frame [P, H, W]; 0 where the view shows nothing.

        Raises:
            ValueError: as ``view``.
        """
        self._check_fit(maps_PHW, values_P)
        return self._keep_neutral(maps_PHW, self._back(maps_PHW, values_P), values_P)

    def there(self, maps_PHW: Tensor, values_P: Tensor) -> Tensor:
        """Maps in the anchor's frame, moved as the view's pixels are [P, H, W]; where nothing moves, as they are.

        Raises:
            ValueError: as ``view``.
        """
        if self.moves_pixels:
            return self.view(maps_PHW[:, None], values_P)[:, 0]
        self._check_fit(maps_PHW, values_P)
        return maps_PHW

    def kept(self, image_size_px: int, values: Sequence[float]) -> Tensor:
        """Pixels of the anchor [H, W] that the views at all these values show, bool on the CPU."""
        self.check(values)
        return torch.ones(image_size_px, image_size_px, dtype=torch.bool)

    def check(self, values: Sequence[float]) -> None:
        """Whether these can be the values of a curve.

        Raises:
            ValueError: there is none, one stands twice, or one is not ``allowed``; names it.
        """
        if not values or len(set(values)) != len(values):
            raise ValueError(f"values = {tuple(values)}: at least one value, each once")
        self._check_each(values)

    def is_neutral(self, value: float) -> bool:
        """Whether the view is the anchor: the neutral value up to rounding, and what lies whole periods from it."""
        return bool(axis.is_at((value,), self.neutral, self.period)[0])

    def snapped(self, value: float) -> float:
        """The value itself, or the neutral one (whole periods away, too) that it is but for rounding."""
        if not self.is_neutral(value):
            return float(value)
        turns = 0 if self.period is None else round((value - self.neutral) / self.period)
        return self.neutral + turns * (self.period or 0.0)

    @abstractmethod
    def default_values(self) -> tuple[float, ...]:
        """A grid that shows the course at moderate cost; the neutral value is among them."""

    @abstractmethod
    def _view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        """``view`` at any values, the neutral one included."""

    def _back(self, maps_PHW: Tensor, values_P: Tensor) -> Tensor:
        """``back`` at any values. Here: nothing has moved."""
        return maps_PHW

    def _allows(self, value: float) -> bool:
        """Whether a finite value is allowed."""
        return True

    def _check_each(self, values: Sequence[float]) -> None:
        for value in values:
            if not math.isfinite(value) or not self._allows(value):
                raise ValueError(f"value = {value}: a {type(self).__name__} sweep takes {self.allowed}")

    def _check_fit(self, pixels: Tensor, values_P: Tensor) -> None:
        if values_P.shape != (len(pixels),):
            raise ValueError(f"values {tuple(values_P.shape)} do not fit {tuple(pixels.shape)}: one value for each")
        self._check_each(values_P.tolist())

    def _keep_neutral(self, before: Tensor, after: Tensor, values_P: Tensor) -> Tensor:
        """``after``, but where the value is neutral ``before``, bit for bit: no rounding, no clipping."""
        neutral_P = torch.from_numpy(axis.is_at(values_P.numpy(), self.neutral, self.period))
        if after is before or not bool(neutral_P.any()):
            return after
        neutral_P = neutral_P.to(before.device).view(-1, *[1] * (before.ndim - 1))
        return torch.where(neutral_P, before, after)


@dataclass(frozen=True)
class Rotation(Sweep):
    """Rotation about the centre, counter-clockwise positive; exact at multiples of 90°.

    Args:
        interpolation: of images and maps. Bilinear by default: nearest duplicates pixels, bicubic leaves the range.
        fill: what a rotation brings in. Black by default, as the tool of the thesis and the background of the scans.
    """

    title: ClassVar[str] = "rotation angle"
    unit: ClassVar[str] = "°"
    neutral: ClassVar[float] = 0.0
    period: ClassVar[float | None] = _WHOLE_TURN
    allowed: ClassVar[str] = "any finite angle in degrees"
    moves_pixels: ClassVar[bool] = True

    interpolation: Interpolation = "bilinear"
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        check_resampling(self.interpolation, self.fill)

    def kept(self, image_size_px: int, values: Sequence[float]) -> Tensor:
        """The inscribed circle, whatever the angles, so that curves over different angles have one field of view."""
        self.check(values)
        return inscribed_circle(image_size_px)

    def check(self, values: Sequence[float]) -> None:
        """Those of a curve lie within one turn, which is what its statistics are defined on; views turn further."""
        super().check(values)
        for value in values:
            if not 0 <= value <= _WHOLE_TURN:
                raise ValueError(f"value = {value}: a curve over rotations takes angles from 0 to 360 degrees")

    def default_values(self) -> tuple[float, ...]:
        return tuple(float(angle) for angle in range(0, 361, 5))

    def _view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        return rotate(images_PCHW, values_P, self.interpolation, self.fill)

    def _back(self, maps_PHW: Tensor, values_P: Tensor) -> Tensor:
        return rotate(maps_PHW[:, None], -values_P, self.interpolation, self.fill)[:, 0]


@dataclass(frozen=True)
class GaussianBlur(Sweep):
    """Convolution with a Gaussian whose standard deviation is a fraction of the image's side, the border mirrored.

    A fraction, not pixels: data sets and scales have images of 64 to 512 pixels, and the same value shall blur the same
    anatomy alike in all of them. The kernel reaches four standard deviations, as scipy.ndimage.gaussian_filter's.
    """

    title: ClassVar[str] = "standard deviation of the blur"
    unit: ClassVar[str] = " of the side"
    neutral: ClassVar[float] = 0.0
    allowed: ClassVar[str] = "a standard deviation from 0 to 1, as a fraction of the image's side"

    def default_values(self) -> tuple[float, ...]:
        return (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08)

    def _allows(self, value: float) -> bool:
        return 0 <= value <= 1

    def _view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        sigmas_px_P = values_P.double() * images_PCHW.shape[3]
        radii_px_P = (_BLUR_RADIUS_SIGMAS * sigmas_px_P + 0.5).long()
        return gaussian_blur(images_PCHW, sigmas_px_P, radii_px_P).clamp_(0, 1)


@dataclass(frozen=True)
class CentreCrop(Sweep):
    """The centre of the image, of this fraction of its side, enlarged to the image's size (bilinear).

    A map comes back as the mean over each pixel of the anchor of what the map shows there, so that no detail of it is
    skipped on the way down, and pixels at the border of the crop get the share that it covers.
    """

    title: ClassVar[str] = "side of the crop"
    unit: ClassVar[str] = " of the side"
    neutral: ClassVar[float] = 1.0
    allowed: ClassVar[str] = "a side above 0 and up to 1, as a fraction of the image's"
    moves_pixels: ClassVar[bool] = True

    def kept(self, image_size_px: int, values: Sequence[float]) -> Tensor:
        """Pixels that lie whole inside the smallest crop."""
        self.check(values)
        first = math.ceil(image_size_px * (1 - min(values)) / 2 - 1e-9)
        places_L = torch.arange(image_size_px)
        inside_L = (places_L >= first) & (places_L < image_size_px - first)
        return inside_L[:, None] & inside_L

    def default_values(self) -> tuple[float, ...]:
        return (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)

    def _allows(self, value: float) -> bool:
        return 0 < value <= 1

    def _view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        matrices_P33 = torch.eye(3, dtype=torch.float64).repeat(len(values_P), 1, 1)
        matrices_P33[:, 0, 0] = matrices_P33[:, 1, 1] = values_P.double()
        return resample(images_PCHW, matrices_P33)

    def _back(self, maps_PHW: Tensor, values_P: Tensor) -> Tensor:
        scales_P = values_P.to(maps_PHW.device, torch.float64)
        columns_PHW = _shrink(maps_PHW.double(), scales_P)
        return _shrink(columns_PHW.mT, scales_P).mT.to(maps_PHW.dtype)


@dataclass(frozen=True)
class Brightness(Sweep):
    """All pixels times a factor, clipped to [0, 1], as torchvision's ``adjust_brightness``."""

    title: ClassVar[str] = "brightness factor"
    unit: ClassVar[str] = ""
    neutral: ClassVar[float] = 1.0
    allowed: ClassVar[str] = "a factor of at least 0"

    def default_values(self) -> tuple[float, ...]:
        return (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)

    def _allows(self, value: float) -> bool:
        return value >= 0

    def _view(self, images_PCHW: Tensor, values_P: Tensor) -> Tensor:
        return adjust_brightness_(images_PCHW.clone(), values_P)


def inscribed_circle(image_size_px: int) -> Tensor:
    """Pixels [H, W] that no rotation about the centre takes out of the image, bool.

    One diagonal of a pixel inside the true circle, so that after bilinear interpolation there and back no value
    inside comes from beyond the border of the image.
    """
    centre = (image_size_px - 1) / 2
    squares = (torch.arange(image_size_px, dtype=torch.float64) - centre) ** 2
    return (squares[:, None] + squares[None, :]).sqrt() <= centre - math.sqrt(2)


def _shrink(maps_PHL: Tensor, scales_P: Tensor) -> Tensor:
    """Each line scaled about its centre by at most 1, by the mean over a pixel; 0 beyond its ends.

    The integral of a line is piecewise linear, so means over pixels are exact differences of it.
    """
    num_pixels = maps_PHL.shape[2]
    integral_PHE = torch.nn.functional.pad(maps_PHL.cumsum(dim=2), (1, 0))
    edges_E = torch.arange(num_pixels + 1, dtype=torch.float64, device=maps_PHL.device)
    scales_P1 = scales_P[:, None]
    edges_PE = ((edges_E - num_pixels / 2) / scales_P1 + num_pixels / 2).clamp(0, num_pixels)
    below_PE = edges_PE.floor().clamp(max=num_pixels - 1).long()
    below_PHE = below_PE[:, None].expand(-1, maps_PHL.shape[1], -1)
    lower_PHE, upper_PHE = integral_PHE.gather(2, below_PHE), integral_PHE.gather(2, below_PHE + 1)
    at_edges_PHE = lower_PHE + (edges_PE - below_PE)[:, None] * (upper_PHE - lower_PHE)
    return at_edges_PHE.diff(dim=2) * scales_P1[:, :, None]
