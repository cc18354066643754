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
    """Control: a map that does not depend on the value, and only makes the trip there and back.

    The map at the neutral value, moved as the view's pixels are. A curve of it shows what interpolation, corners and
    binarisation do, and nothing of how the encoder sees changed images; a sweep that moves nothing leaves it constant.

    Raises:
        ValueError: ``of`` has no map at the neutral value.
    """

    of: SaliencyMethod = dataclasses.field(default_factory=SmoothGrad)

    def __post_init__(self) -> None:
        if not self.of.is_defined_at_neutral:
            raise ValueError(f"{self.of} has no map of the unchanged image: fix a method that is defined there")

    # An instance's, since it depends on ``of``; the base has it for the class.
    @property
    def needs_encoder(self) -> bool:  # type: ignore[override]
        return self.of.needs_encoder

    @property
    def encoder_dtype(self) -> torch.dtype:
        return self.of.encoder_dtype

    @property
    def passes_per_anchor(self) -> float:
        return self.of.passes_per_anchor + self.of.passes_per_map

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The maps at the neutral value [N, H, W]."""
        num = len(anchors.ids)
        neutral_N = torch.full((num,), anchors.sweep.neutral, dtype=torch.float64)
        views = anchors.views(torch.arange(num), neutral_N)
        return {"maps": self.of.maps(encoder, anchors, self.of.prepare(encoder, anchors), views)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return anchors.sweep.there(self.anchor_maps(encoder, anchors, prepared, views), views.values_P)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return prepared["maps"][views.rows_P.to(prepared["maps"].device)]


@dataclass(frozen=True)
class ImageIntensity(SaliencyMethod):
    """Control: the image itself as map, its brightest channel. No model is involved."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return views.images_PCHW.amax(dim=1)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return anchors.images_NCHW[views.rows_P].amax(dim=1)


@dataclass(frozen=True)
class MaskRoundTrip(SaliencyMethod):
    """Control: the mask itself as map, moved as the view's pixels are. Its Dice is the ceiling for any map."""

    needs_encoder: ClassVar[bool] = False

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return anchors.sweep.there(self.anchor_maps(encoder, anchors, prepared, views), views.values_P)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return anchors.masks_NHW[views.rows_P.to(anchors.masks_NHW.device)].to(views.images_PCHW.dtype)
