"""Averaged transforms: the gradient of the similarity, averaged over strengths of the change.

Shapes: N anchors, P pairs (views of anchors), Z strengths, C channels, H x W pixels, D embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from trainables.api.checks import check_choice
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views, in_batches, required
from trainables.saliency.gradients import blurred

Path = Literal["sweep", "pixels"]

_BATCH = 16


@dataclass(frozen=True)
class AveragedTransforms(SaliencyMethod):
    """The mean over strengths of the change of the similarity's gradient, largest channel (thesis 2.2.2, after Sammani
    et al. 2022).

    The strengths of a view at value x are the sweep's values at even steps from the neutral one to x, x included; of a
    rotation the shorter way round, so that 290 degrees is 70 the other way. Each gradient is made at the view of that
    strength, moved back into the anchor's frame, and averaged there with its sign; the view's map is the largest
    channel of its absolute value, moved into the view's frame. So a curve of it is interpolated three times, where
    other methods' are once. The anchor's map is that of the mean over strengths of the gradient by the anchor. Where
    the view is the anchor, all similarities are at their maximum, and there is no map.

    Args:
        num_strengths: 9, as the thesis's tool.
        path: ``sweep`` as above. ``pixels`` is the tool's: mixtures l a + (1 - l) v of anchor and view, l from .9 to .1
            with 9 strengths, whose gradients are averaged as they lie; v itself is not among them. Of a rotation a
            mixture shows two heads.
        times_input: multiplies the mean gradient by the image (on the path of pixels by the last mixture) before the
            absolute value, as the tool does.
        guided, blur_map: as ``SmoothGrad``; the tool does both.
    """

    num_strengths: int = 9
    path: Path = "sweep"
    times_input: bool = False
    guided: bool = False
    blur_map: bool = False

    def __post_init__(self) -> None:
        check_choice("path", self.path, get_args(Path))
        if self.num_strengths < 1:
            raise ValueError(f"num_strengths = {self.num_strengths}: at least 1")

    @property
    def passes_per_map(self) -> float:
        return self.num_strengths

    @property
    def passes_per_anchor(self) -> float:
        return 0.5

    @property
    def is_defined_at_neutral(self) -> bool:
        return False

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' embeddings [N, D]."""
        return {"anchor_embeddings": in_batches(required(encoder, self).embeddings, anchors.images_NCHW, _BATCH)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        others_PD = prepared["anchor_embeddings"][views.rows_P.to(encoder.device)]
        maps = []
        for place in range(len(views.rows_P)):
            pair = views[place : place + 1]
            steps_ZCHW, values_Z = self._steps(anchors, pair)
            others_Z1D = others_PD[place].expand(self.num_strengths, 1, -1)
            gradients_ZCHW = _gradients(encoder, steps_ZCHW, others_Z1D, guided=self.guided)
            if self.path == "pixels":
                mean_CHW, image_CHW = gradients_ZCHW.mean(dim=0), steps_ZCHW[-1]
            else:
                back_ZCHW = _each_channel(anchors.sweep.back, gradients_ZCHW, values_Z)
                moved_1CHW = _each_channel(anchors.sweep.there, back_ZCHW.mean(dim=0, keepdim=True), pair.values_P)
                mean_CHW, image_CHW = moved_1CHW[0], pair.images_PCHW[0]
            maps.append(self._map(mean_CHW, image_CHW))
        return self._finished(torch.stack(maps))

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        maps = []
        for place, row in enumerate(views.rows_P.tolist()):
            steps_ZCHW, _ = self._steps(anchors, views[place : place + 1])
            others_ZD = in_batches(encoder.embeddings, steps_ZCHW, _BATCH)
            image_CHW = anchors.images_NCHW[row]
            if self.guided:  # which is not linear: the mean of the terms' and not that of their mean
                copies_ZCHW = image_CHW.expand(self.num_strengths, -1, -1, -1)
                gradients_BCHW = _gradients(encoder, copies_ZCHW, others_ZD[:, None], guided=True)
            else:  # the anchor is the same in all terms, so one backward pass of their mean is all of theirs
                gradients_BCHW = _gradients(encoder, image_CHW[None], others_ZD[None], guided=False)
            maps.append(self._map(gradients_BCHW.mean(dim=0), image_CHW))
        return self._finished(torch.stack(maps))

    def _steps(self, anchors: Anchors, pair: Views) -> tuple[Tensor, Tensor]:
        """The images between anchor and view [Z, C, H, W], the strongest last, and their values [Z]."""
        anchor_ZCHW = anchors.images_NCHW[pair.rows_P].expand(self.num_strengths, -1, -1, -1)
        steps_Z = torch.arange(1, self.num_strengths + 1, dtype=torch.float64)
        if self.path == "pixels":
            shares_Z111 = (steps_Z / (self.num_strengths + 1)).to(anchor_ZCHW)[:, None, None, None]
            return torch.lerp(anchor_ZCHW, pair.images_PCHW, shares_Z111), pair.values_P.expand(self.num_strengths)
        neutral, period = anchors.sweep.neutral, anchors.sweep.period
        away = pair.values_P - neutral
        if period is not None:  # the shorter way round
            away = torch.remainder(away + period / 2, period) - period / 2
        values_Z = neutral + away * steps_Z / self.num_strengths
        return anchors.sweep.view(anchor_ZCHW, values_Z), values_Z

    def _map(self, gradient_CHW: Tensor, image_CHW: Tensor) -> Tensor:
        return (gradient_CHW * image_CHW if self.times_input else gradient_CHW).abs().amax(dim=0)

    def _finished(self, maps_PHW: Tensor) -> Tensor:
        return blurred(maps_PHW) if self.blur_map else maps_PHW


def _gradients(encoder: FrozenEncoder, images_BCHW: Tensor, others_BSD: Tensor, *, guided: bool) -> Tensor:
    """The gradient by each image of its mean similarity to S others [B, C, H, W], in the images' dtype."""
    tape = encoder.forward(images_BCHW, guided=guided)
    score = torch.cosine_similarity(tape.embeddings_BD[:, None], others_BSD.to(tape.embeddings_BD), dim=2).mean(dim=1)
    (features_gradient_BF,) = torch.autograd.grad(score.sum(), tape.features_BF)
    stem_BShw = encoder.stem_gradient(tape, features_gradient_BF)
    size = (images_BCHW.shape[2], images_BCHW.shape[3])
    return encoder.image_gradient(stem_BShw, size).to(images_BCHW.dtype)


def _each_channel(move: Callable[[Tensor, Tensor], Tensor], images_BCHW: Tensor, values_B: Tensor) -> Tensor:
    """A movement of maps, of every channel by itself."""
    num_channels = images_BCHW.shape[1]
    return move(images_BCHW.flatten(0, 1), values_B.repeat_interleave(num_channels)).view_as(images_BCHW)
