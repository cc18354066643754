"""The work of a curve on a device: maps of all images at a batch of values, and their scores.

Shapes: N images, P pairs of an image and a value, K images shown, F fields of view, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainables import runtime
from trainables.api.errors import NonFiniteMetric
from trainables.api.names import FieldOfView
from trainables.models.encoder import Encoder
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, Views

if TYPE_CHECKING:
    from trainables.api.context import Arrays
    from trainables.interpretability.curve import InterpretabilityCurve

NumpyArray = np.ndarray[Any, Any]


class CurveWork:
    """What ``context.map`` calls with a batch of values, in this process or in another.

    Pickles without what lives on a device; that is set up again on the first call.

    Args:
        curve: its configuration.
        encoder: of the curve; None for methods that use none.
        ids: names of the images.
        images_NCHW, masks_NHW: uint8 pixels, and masks of 0 or 1.
        kept_HW: pixels that all values of the curve keep.
        shown: places of the images whose maps are returned at the curve's shown values.

    Raises:
        NonFiniteMetric: weights of the encoder are not finite.
    """

    def __init__(
        self,
        curve: InterpretabilityCurve,
        encoder: Encoder | None,
        ids: Sequence[str],
        images_NCHW: NumpyArray,
        masks_NHW: NumpyArray,
        kept_HW: NumpyArray,
        shown: NumpyArray,
        num_cpus: int,
    ) -> None:
        if encoder is not None and not all(bool(t.isfinite().all()) for t in encoder.state_dict().values()):
            # Fused ReLUs turn NaN into 0: the maps would be finite, and the curve would look normal.
            raise NonFiniteMetric("encoder weights", math.nan, None)
        self.curve, self.encoder, self.ids, self.num_cpus = curve, encoder, tuple(ids), num_cpus
        self.images_NCHW, self.masks_NHW, self.kept_HW, self.shown = images_NCHW, masks_NHW, kept_HW, shown
        self.prepared: dict[str, NumpyArray] | None = None
        self._device_side: _DeviceSide | None = None

    def prepare(self) -> None:
        """Compute, once for all processes, what depends on the images alone."""
        side = _DeviceSide.of(self)
        prepared = self.curve.method.prepare(side.encoder, side.anchors)
        self.prepared = {name: tensor.float().cpu().numpy() for name, tensor in prepared.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_device_side": None}

    def __call__(self, values: Sequence[float]) -> list[Arrays]:
        """For each value: the arrays of ``Scoring.scores``, fields of view first, and at shown values a few maps."""
        if self._device_side is None:
            runtime.use_cores(self.num_cpus)
            self._device_side = _DeviceSide.of(self)
        return self._device_side.results(self.curve, values, torch.from_numpy(self.shown))


@dataclass
class _DeviceSide:
    """Encoder, images and prepared tensors on this process's device."""

    encoder: FrozenEncoder | None
    anchors: Anchors
    fields_HW: Mapping[FieldOfView, Tensor]
    prepared: Prepared

    @classmethod
    def of(cls, work: CurveWork) -> _DeviceSide:
        curve, device = work.curve, runtime.device()
        runtime.keep_freed_memory()
        images_NCHW = torch.from_numpy(work.images_NCHW).to(device).float().div_(255)
        masks_NHW = torch.from_numpy(work.masks_NHW).to(device).float()
        kept_HW = torch.from_numpy(work.kept_HW).to(device)
        if curve.cut_to_circle:
            images_NCHW = images_NCHW * kept_HW
        anchors = Anchors(work.ids, images_NCHW, masks_NHW, curve.sweep)
        dtype = curve.method.encoder_dtype
        encoder = None if work.encoder is None else FrozenEncoder(work.encoder, device, dtype)
        prepared = {name: torch.from_numpy(values).to(device) for name, values in (work.prepared or {}).items()}
        fields: dict[FieldOfView, Tensor] = {"full": torch.ones_like(kept_HW), "kept": kept_HW}
        return cls(encoder, anchors, {name: fields[name] for name in fields_of_view(work.kept_HW)}, prepared)

    def results(self, curve: InterpretabilityCurve, values: Sequence[float], shown_K: Tensor) -> list[Arrays]:
        num_images = len(self.anchors.ids)
        rows_P = torch.arange(num_images).repeat(len(values))
        values_P = torch.tensor(values, dtype=torch.float64).repeat_interleave(num_images)
        views = self.anchors.views(rows_P, values_P)
        if curve.cut_to_circle:
            views.images_PCHW.mul_(self.fields_HW["kept"])
        maps_PHW, back_PHW = self._maps(curve, views)
        results: list[Arrays] = []
        for place, value in enumerate(values):
            part = slice(place * num_images, (place + 1) * num_images)
            result = self._scores(curve, back_PHW[part])
            if value in curve.shown_values:
                shown_of = shown_K.to(maps_PHW.device)
                result["views_KHW"] = views.images_PCHW[part][shown_of].mean(dim=1).cpu().numpy()
                result["view_maps_KHW"] = maps_PHW[part][shown_of].cpu().numpy()
                result["maps_KHW"] = back_PHW[part][shown_of].cpu().numpy()
            results.append(result)
        return results

    def _maps(self, curve: InterpretabilityCurve, views: Views) -> tuple[Tensor, Tensor]:
        """The maps in their own frame and in the anchor's [P, H, W], which is one for those of the anchor.

        Raises:
            NonFiniteMetric: a map is not finite; at the step of its value.
        """
        compute = curve.method.maps if curve.explains == "view" else curve.method.anchor_maps
        maps_PHW = compute(self.encoder, self.anchors, self.prepared, views)
        finite_P = torch.isfinite(maps_PHW).flatten(1).all(dim=1).cpu()
        if not bool(finite_P.all()):
            # A map with a hole would be scored like any other, and the curve would look normal.
            raise NonFiniteMetric("saliency map", math.nan, curve.step_of(float(views.values_P[~finite_P][0])))
        if curve.explains == "anchor":
            return maps_PHW, maps_PHW
        return maps_PHW, curve.sweep.back(maps_PHW, views.values_P)

    def _scores(self, curve: InterpretabilityCurve, maps_NHW: Tensor) -> dict[str, NumpyArray]:
        by_field: dict[str, list[Tensor]] = {}
        for inside_HW in self.fields_HW.values():
            scores = curve.scoring.scores(maps_NHW[:, inside_HW], self.anchors.masks_NHW[:, inside_HW])
            for name, scores_N in scores.items():
                by_field.setdefault(name, []).append(scores_N)
        return {name: torch.stack(scores).cpu().numpy() for name, scores in by_field.items()}


def fields_of_view(kept_HW: NumpyArray) -> tuple[FieldOfView, ...]:
    """All pixels, and those that all values keep where these are fewer."""
    return ("full",) if bool(kept_HW.all()) else ("full", "kept")
