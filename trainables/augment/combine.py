"""Several augmentations as one.

Shapes: B images, C channels, H x W pixels, N uniform draws a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainables.augment.augmentation import Augmentation
from trainables.augment.geometric import HorizontalFlip, Rotation, VerticalFlip
from trainables.augment.resample import Fill, Interpolation, check_resampling, resample


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
        check_resampling(self.interpolation, self.fill)

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


# "a random transformation (rotation, horizontal flip, or vertical flip) was applied to each sample": the thesis,
# section 4.1.2. It states no range of angles; its question is about all of them.
THESIS_AUGMENTATION = Combine((Rotation(180.0), HorizontalFlip(p=1.0), VerticalFlip(p=1.0)), choose="one")
