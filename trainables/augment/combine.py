"""Several augmentations as one.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.augment.augmentation import Augmentation, Geometric, Photometric, check_probability
from trainables.augment.geometric import HorizontalFlip, RandomResizedCrop, Rotation, VerticalFlip
from trainables.augment.photometric import ColourJitter
from trainables.augment.resample import Fill, Interpolation, Warp, check_resampling, resample, still


@dataclass(frozen=True)
class Combine(Augmentation):
    """Several augmentations: ``one`` of them, drawn for each sample, or ``all`` in order.

    Geometric ones that are neighbours move the pixels once: one resampling, with this combination's interpolation and
    fill, also for the geometric combinations among its parts. What lies outside an image between two of them is not
    lost. With ``one``, a flip should have p = 1: it has been chosen already.
    """

    augmentations: tuple[Augmentation, ...]
    choose: Literal["one", "all"] = "all"
    interpolation: Interpolation = "bilinear"
    fill: Fill = "zero"

    def __post_init__(self) -> None:
        if not self.augmentations:
            raise ValueError("augmentations is empty: combine at least one")
        if others := [type(part).__name__ for part in self.augmentations if not isinstance(part, Augmentation)]:
            raise ValueError(f"augmentations: {', '.join(others)} is none; those of trainables.augment are")
        if self.choose not in ("one", "all"):
            raise ValueError(f"choose = {self.choose!r}: 'one' or 'all'")
        check_resampling(self.interpolation, self.fill)

    @property
    def num_draws(self) -> int:
        return 1 + sum(augmentation.num_draws for augmentation in self.augmentations)

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image under its own parameters [B, C, H, W]."""
        if _is_geometric(self):
            warp = warp_of(self, draws_BN, *images_BCHW.shape[2:])
            return resample(images_BCHW, warp, self.interpolation, self.fill)
        chosen_B, parts = self._split(draws_BN)
        if self.choose == "all":
            return self._in_order(self.augmentations, images_BCHW, parts)
        changed_BCHW = torch.empty_like(images_BCHW)
        for place in sorted(set(chosen_B.tolist())):
            where = torch.nonzero(chosen_B == place)[:, 0]
            there = where.to(images_BCHW.device)
            run, part_BN = self.augmentations[place : place + 1], parts[place][where]
            changed_BCHW[there] = self._in_order(run, images_BCHW[there], (part_BN,))
        return changed_BCHW

    def _in_order(self, run: Sequence[Augmentation], images_BCHW: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """One augmentation after the other, with one resampling for neighbouring geometric ones."""
        height, width = images_BCHW.shape[2:]
        given_BCHW, warp = images_BCHW, None
        for augmentation, part_BN in zip(run, draws, strict=True):
            if _is_geometric(augmentation):
                later = warp_of(augmentation, part_BN, height, width)
                warp = later if warp is None else warp.then(later)
                continue
            if warp is not None:
                images_BCHW, warp = resample(images_BCHW, warp, self.interpolation, self.fill), None
            if isinstance(augmentation, Photometric) and images_BCHW is not given_BCHW:
                augmentation.change_(images_BCHW, part_BN)
            else:
                images_BCHW = augmentation.apply(images_BCHW, part_BN)
        return images_BCHW if warp is None else resample(images_BCHW, warp, self.interpolation, self.fill)

    def _split(self, draws_BN: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Which augmentation each sample chooses [B], and every augmentation's own draws."""
        choices_B1, *parts = torch.split(draws_BN, [1, *(a.num_draws for a in self.augmentations)], dim=1)
        return (choices_B1[:, 0] * len(self.augmentations)).long(), tuple(parts)


@dataclass(frozen=True)
class Sometimes(Augmentation):
    """An augmentation with probability ``p``, else the image as it is.

    In a ``Combine`` a geometric one moves the pixels together with its neighbours.
    """

    augmentation: Augmentation
    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.p)

    @property
    def num_draws(self) -> int:
        return 1 + self.augmentation.num_draws

    def apply(self, images_BCHW: Tensor, draws_BN: Tensor) -> Tensor:
        """Each image, changed or not, under its own parameters [B, C, H, W]."""
        where = torch.nonzero(self._happens(draws_BN))[:, 0]
        there = where.to(images_BCHW.device)
        changed_BCHW = self.augmentation.apply(images_BCHW.index_select(0, there), draws_BN[where, 1:])
        return images_BCHW.clone().index_copy_(0, there, changed_BCHW)

    def _happens(self, draws_BN: Tensor) -> Tensor:
        return draws_BN[:, 0] < self.p


def _fill_of(augmentation: Augmentation) -> Fill:
    """What comes in from outside an image."""
    if isinstance(augmentation, Sometimes):
        return _fill_of(augmentation.augmentation)
    return augmentation.fill if isinstance(augmentation, Combine) else "zero"


def _is_geometric(augmentation: Augmentation) -> bool:
    if isinstance(augmentation, Sometimes):
        return _is_geometric(augmentation.augmentation)
    if isinstance(augmentation, Combine):
        return all(_is_geometric(part) for part in augmentation.augmentations)
    return isinstance(augmentation, Geometric)


def warp_of(augmentation: Augmentation, draws_BN: Tensor, height: int, width: int) -> Warp:
    """How an augmentation, or a combination of some, moves the pixels; one of their values alone moves none."""
    if isinstance(augmentation, Geometric):
        return augmentation.warp(draws_BN, height, width)
    if isinstance(augmentation, Photometric):
        return Warp((still(len(draws_BN)),))
    if isinstance(augmentation, Sometimes):
        inner = warp_of(augmentation.augmentation, draws_BN[:, 1:], height, width)
        return Warp.choice([Warp((still(len(draws_BN)),)), inner], augmentation._happens(draws_BN).long())
    assert isinstance(augmentation, Combine)
    chosen_B, parts = augmentation._split(draws_BN)
    warps = [warp_of(a, part_BN, height, width) for a, part_BN in zip(augmentation.augmentations, parts, strict=True)]
    return Warp.choice(warps, chosen_B) if augmentation.choose == "one" else functools.reduce(Warp.then, warps)


def augmented_with_classes(
    augmentation: Augmentation, images_BCHW: Tensor, classes_BHW: Tensor, draws_BN: Tensor
) -> tuple[Tensor, Tensor]:
    """Each image under its own parameters, and the classes of its pixels moved as its pixels are.

    Classes go through one resampling, to the nearest; where the image does not reach they are 0, the background. So
    they are also where a change of values lies between two of geometry, which cuts the image in between.

    Returns:
        Images [B, C, H, W], and classes [B, H, W] in the dtype that they had.
    """
    warp = warp_of(augmentation, draws_BN, *images_BCHW.shape[2:])
    fill: Fill = "reflect" if _fill_of(augmentation) == "reflect" else "zero"
    # float32 is exact for 256 classes, and shared by the CPU and the GPU.
    moved_B1HW = resample(classes_BHW[:, None].float(), warp, "nearest", fill)
    return augmentation.apply(images_BCHW, draws_BN), moved_B1HW[:, 0].to(classes_BHW.dtype)


# "a random transformation (rotation, horizontal flip, or vertical flip) was applied to each sample": the thesis,
# section 4.1.2. It states no range of angles; its question is about all of them.
THESIS_AUGMENTATION = Combine((Rotation(180.0), HorizontalFlip(p=1.0), VerticalFlip(p=1.0)), choose="one")

_CROPPED_AREA = (128 / 140) ** 2
# "horizontal flipping, vertical flipping, rotation, color jitter, and cropping", of 128 pixels from 140: BYOL-TracIn
# (Zeng et al. 2023), section 4.1. It states no angles and no strengths: all angles, and the jitter of BYOL.
BYOL_AUGMENTATION = Combine(
    (
        HorizontalFlip(),
        VerticalFlip(),
        Rotation(180.0),
        RandomResizedCrop(_CROPPED_AREA, _CROPPED_AREA, 1.0, 1.0),
        ColourJitter(),
    )
)
