"""Augmentations of values: uniform numbers to brightness, contrast, colour, sharpness and noise.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample.

Parameters and their names are torchvision's, whose classes hold one parameter for a whole batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.augment.augmentation import Photometric
from trainables.augment.blur import gaussian_blur
from trainables.augment.colour import adjust_brightness_, adjust_contrast_, adjust_hue_, adjust_saturation_
from trainables.augment.resample import parts_of


@dataclass(frozen=True)
class Brightness(Photometric):
    """Pixels times a factor uniform in [1 - brightness, 1 + brightness], at least 0."""

    brightness: float = 0.4

    def __post_init__(self) -> None:
        _check_strength("brightness", self.brightness)

    @property
    def num_draws(self) -> int:
        return 1

    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        factors_B = _factors(draws_BN[:, 0], self.brightness)
        for part in parts_of(images_BCHW):
            adjust_brightness_(images_BCHW[part], factors_B[part])


@dataclass(frozen=True)
class Contrast(Photometric):
    """Distances from the image's mean grey times a factor uniform in [1 - contrast, 1 + contrast], at least 0."""

    contrast: float = 0.4

    def __post_init__(self) -> None:
        _check_strength("contrast", self.contrast)

    @property
    def num_draws(self) -> int:
        return 1

    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        factors_B = _factors(draws_BN[:, 0], self.contrast)
        for part in parts_of(images_BCHW):
            adjust_contrast_(images_BCHW[part], factors_B[part])


@dataclass(frozen=True)
class ColourJitter(Photometric):
    """Brightness, contrast, saturation and hue, in an order drawn for each sample (torchvision's ColorJitter).

    Of grey images brightness and contrast only: they have no colour. ``hue`` is a share of the circle.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_strength(name, getattr(self, name))
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue = {self.hue}: a share of the circle, from 0 to 0.5")

    @property
    def num_draws(self) -> int:
        return 5

    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        changes = self._changes(draws_BN)
        orders = list(itertools.permutations(range(4)))
        order_of_B = (draws_BN[:, 4] * len(orders)).long()
        # Orders that differ only in what changes nothing here are one.
        is_idle = [self._is_idle(change, images_BCHW.shape[1]) for change in range(4)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, number in enumerate(order_of_B.tolist()):
            groups.setdefault(tuple(c for c in orders[number] if not is_idle[c]), []).append(place)
        for order, places in groups.items():
            for part in parts_of(images_BCHW, len(places)):
                where = torch.tensor(places[part])
                there = where.to(images_BCHW.device)
                part_BCHW = images_BCHW.index_select(0, there)
                for change in order:
                    adjust_, parameters_B = changes[change]
                    adjust_(part_BCHW, parameters_B[where])
                images_BCHW.index_copy_(0, there, part_BCHW)

    def _changes(self, draws_BN: Tensor) -> list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]]:
        """The four changes with each sample's parameters, in the order of the fields."""
        return [
            (adjust_brightness_, _factors(draws_BN[:, 0], self.brightness)),
            (adjust_contrast_, _factors(draws_BN[:, 1], self.contrast)),
            (adjust_saturation_, _factors(draws_BN[:, 2], self.saturation)),
            (adjust_hue_, (2 * draws_BN[:, 3] - 1) * self.hue),
        ]

    def _is_idle(self, change: int, num_channels: int) -> bool:
        strength = (self.brightness, self.contrast, self.saturation, self.hue)[change]
        return strength == 0 or (change >= 2 and num_channels == 1)


@dataclass(frozen=True)
class GaussianBlur(Photometric):
    """Convolution with a Gaussian whose standard deviation is uniform in [min_sigma_px, max_sigma_px].

    The border is mirrored. ``kernel_px`` is the side of the kernel, odd: what lies farther out is cut off, as in
    torchvision. SimCLR (2020, appendix A) takes a tenth of the image's side.
    """

    min_sigma_px: float = 0.1
    max_sigma_px: float = 2.0
    kernel_px: int = 23

    def __post_init__(self) -> None:
        if not 0 <= self.min_sigma_px <= self.max_sigma_px:
            raise ValueError(
                f"min_sigma_px, max_sigma_px = {self.min_sigma_px}, {self.max_sigma_px}: at least 0, in order"
            )
        if self.kernel_px < 1 or self.kernel_px % 2 == 0:
            raise ValueError(f"kernel_px = {self.kernel_px}: an odd number of pixels, at least 1")

    @property
    def num_draws(self) -> int:
        return 1

    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        sigmas_px_B = self.min_sigma_px + draws_BN[:, 0] * (self.max_sigma_px - self.min_sigma_px)
        radii_px_B = torch.full((len(sigmas_px_B),), self.kernel_px // 2)
        for part in parts_of(images_BCHW):
            images_BCHW[part] = gaussian_blur(images_BCHW[part], sigmas_px_B[part], radii_px_B[part]).clamp_(0, 1)


@dataclass(frozen=True)
class GaussianNoise(Photometric):
    """Normal noise for each pixel, its standard deviation uniform in [min_std, max_std] (the range of pixels is 1).

    A sample's noise comes from a seed that is one of its draws, and is made on the CPU in float32 whatever computes
    with it: the device does not change it.
    """

    min_std: float = 0.0
    max_std: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.min_std <= self.max_std:
            raise ValueError(f"min_std, max_std = {self.min_std}, {self.max_std}: at least 0, in order")

    @property
    def num_draws(self) -> int:
        return 2

    def change_(self, images_BCHW: Tensor, draws_BN: Tensor) -> None:
        stds_B = self.min_std + draws_BN[:, 0] * (self.max_std - self.min_std)
        noise_CHW = torch.empty(images_BCHW.shape[1:])
        generator = torch.Generator()
        for image_CHW, std, draw in zip(images_BCHW, stds_B.tolist(), draws_BN[:, 1].tolist(), strict=True):
            generator.manual_seed(int(draw * 2**53))  # all the bits that a draw has
            noise_CHW.normal_(generator=generator)
            image_CHW.add_(noise_CHW.to(image_CHW) * std).clamp_(0, 1)


def _factors(draws_B: Tensor, strength: float) -> Tensor:
    lowest, highest = max(0.0, 1 - strength), 1 + strength
    return lowest + draws_B * (highest - lowest)


def _check_strength(name: str, strength: float) -> None:
    if not 0 <= strength < float("inf"):
        raise ValueError(f"{name} = {strength}: at least 0, and finite")
