"""Controls: maps that show what a curve owes to the trip, to the image, and to the mask.

Shapes: N anchors, P pairs (views of anchors), C channels, H x W pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views
from trainables.saliency.gradients import SmoothGrad


@dataclass(frozen=True)
class FixedMap(SaliencyMethod):
    """Control: a map that does not depend on the angle, and only makes the trip there and back.

    The map of the unrotated image, rotated with the view. A curve of it shows what interpolation, corners and
    binarisation do, and nothing of how the encoder sees rotated images.

    Raises:
        ValueError: ``of`` has no map at 0 degrees.
    """

    of: SaliencyMethod = dataclasses.field(default_factory=SmoothGrad)

    def __post_init__(self) -> None:
        if self.of.skips(0.0):
            raise ValueError(f"{self.of} has no map of the unrotated image: fix a method that is defined at 0 degrees")

    # An instance's, since it depends on ``of``; the base has it for the class.
    @property
    def needs_encoder(self) -> bool:  # type: ignore[override]
        return self.of.needs_encoder

    @property
    def encoder_dtype(self) -> torch.dtype:
        return self.of.encoder_dtype

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The maps of the unrotated images [N, H, W]."""
        num = len(anchors.ids)
        views = anchors.views(torch.arange(num), torch.zeros(num, dtype=torch.float64))
        return {"maps": self.of.maps(encoder, anchors, self.of.prepare(encoder, anchors), views)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        maps_P1HW = prepared["maps"][views.rows_P.to(prepared["maps"].device), None]
        return anchors.rotate(maps_P1HW, views.angles_deg_P)[:, 0]


@dataclass(frozen=True)
class ImageIntensity(SaliencyMethod):
    """Control: the view itself as map, its brightest channel. No model is involved."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return views.images_PCHW.amax(dim=1)


@dataclass(frozen=True)
class MaskRoundTrip(SaliencyMethod):
    """Control: the mask itself as map, rotated with the view. The Dice that is left is the ceiling for any map."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        masks_P1HW = anchors.masks_NHW[views.rows_P.to(anchors.masks_NHW.device), None]
        return anchors.rotate(masks_P1HW.to(views.images_PCHW.dtype), views.angles_deg_P)[:, 0]
