"""Class activation maps of a pair: the last stage's maps, weighted by what the similarity gains from each channel.

Where the view is the anchor, the similarity is at its maximum and its gradient rounding noise: there is no map there.

Shapes: N anchors, P pairs (views of anchors), C channels, H x W pixels, F features at h x w positions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from trainables.api.checks import check_choice
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views, in_batches, required

Rectify = Literal["map", "channels"]
Reduction = Literal["mean", "max", "attention"]

_BATCH = 16


@dataclass(frozen=True)
class _Pair:
    """One side of a pair beside the other: its maps, their gradients, and the other's."""

    maps_PFhw: Tensor
    other_maps_PFhw: Tensor
    gradients_PF: Tensor
    other_gradients_PF: Tensor


@dataclass(frozen=True)
class _ActivationMap(SaliencyMethod):
    """A map made of the last stage's maps, enlarged to the image bilinearly."""

    @property
    def passes_per_map(self) -> float:
        return 0.5  # forward only; the gradient goes through the head alone

    @property
    def passes_per_anchor(self) -> float:
        return 0.5

    @property
    def is_defined_at_neutral(self) -> bool:
        return False

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' maps of the last stage [N, F, h, w]."""
        return {"maps": in_batches(required(encoder, self).feature_maps, anchors.images_NCHW, _BATCH)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return self._computed(required(encoder, self), prepared, views, of_view=True)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return self._computed(required(encoder, self), prepared, views, of_view=False)

    @abstractmethod
    def _weighted(self, pair: _Pair) -> Tensor:
        """The map of one side [P, h, w], not negative."""

    def _computed(self, encoder: FrozenEncoder, prepared: Prepared, views: Views, *, of_view: bool) -> Tensor:
        found = []
        for start in range(0, len(views.rows_P), _BATCH):
            part = views[start : start + _BATCH]
            padded = part.padded(_BATCH)
            view_maps = encoder.feature_maps(padded.images_PCHW)
            anchor_maps = prepared["maps"].to(view_maps)[padded.rows_P.to(view_maps.device)]
            by_anchor, by_view = encoder.head_gradients(anchor_maps, view_maps)
            if of_view:
                pair = _Pair(view_maps, anchor_maps, by_view, by_anchor)
            else:
                pair = _Pair(anchor_maps, view_maps, by_anchor, by_view)
            found.append(self._weighted(pair)[: len(part.rows_P)])
        size = tuple(views.images_PCHW.shape[2:])
        maps_P1hw = torch.cat(found)[:, None]
        enlarged_P1HW = functional.interpolate(maps_P1hw, size, mode="bilinear", align_corners=False)
        return enlarged_P1HW[:, 0].to(views.images_PCHW.dtype)


@dataclass(frozen=True)
class GradCAM(_ActivationMap):
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1-2) with the similarity of the pair in place of a class.

    The map is max(sum_d alpha_d F_d, 0), alpha_d the mean over positions of the similarity's gradient at the last
    stage's channel d. It is Grad-CAM of the one image, the other held fixed.

    Args:
        rectify: ``map`` (default) rectifies the sum, as in the paper. ``channels`` rectifies the gradient of each
            channel, sum_d F_d max(alpha_d, 0), as the tool of the thesis does: channels that speak against the
            similarity count nothing, where they would be subtracted.
    """

    rectify: Rectify = "map"

    def __post_init__(self) -> None:
        check_choice("rectify", self.rectify, get_args(Rectify))

    def _weighted(self, pair: _Pair) -> Tensor:
        weights_PF = pair.gradients_PF if self.rectify == "map" else pair.gradients_PF.clamp(min=0)
        return _summed(pair.maps_PFhw, weights_PF).clamp_(min=0)


@dataclass(frozen=True)
class InteractionCAM(_ActivationMap):
    """Interaction-CAM (Sammani et al. 2022, "Visualizing and Understanding Contrastive Learning"): channels count that
    are active in both images.

    The map of an image is sum_d F_d j_d max(G_d, 0), with j_d = r_d r'_d of both images, r a reduction of the channel
    over positions, and G the similarity's gradient at the channel.

    Args:
        reduction: ``mean``, ``max``, or ``attention``: the mean over positions weighted by a softmax of the products
            of each position's features with their spatial mean.
        scale_attention: divide these products by sqrt(F) before the softmax. On by default; the thesis's tool does
            not, which leaves nearly one position.
        interact_gradients: in place of G_d the largest product of channel d's gradient with any channel's of the other
            image, summed over positions, as the tool of the thesis does with ``max`` and ``attention``. Off by
            default: a channel with negative gradients in both images gets a positive weight.
    """

    reduction: Reduction = "mean"
    scale_attention: bool = True
    interact_gradients: bool = False

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, get_args(Reduction))

    def _weighted(self, pair: _Pair) -> Tensor:
        joint_PF = self._reduced(pair.maps_PFhw) * self._reduced(pair.other_maps_PFhw)
        gradients_PF = _interacting(pair) if self.interact_gradients else pair.gradients_PF
        return _summed(pair.maps_PFhw, joint_PF * gradients_PF.clamp(min=0))

    def _reduced(self, maps_PFhw: Tensor) -> Tensor:
        maps_PFL = maps_PFhw.flatten(2)
        if self.reduction == "max":
            return maps_PFL.amax(dim=2)
        mean_PF = maps_PFL.mean(dim=2)
        if self.reduction == "mean":
            return mean_PF
        products_PL = (maps_PFL * mean_PF[:, :, None]).sum(dim=1)
        if self.scale_attention:
            products_PL = products_PL / math.sqrt(mean_PF.shape[1])
        return (maps_PFL * products_PL.softmax(dim=1)[:, None]).sum(dim=2)


def _interacting(pair: _Pair) -> Tensor:
    """max_e of sum over positions of G_d G'_e [P, F]: gradients do not depend on the position, so the matrix over d and
    e has rank one, and its largest entries lie at the largest or the least G'_e."""
    num_positions = pair.maps_PFhw[0, 0].numel()
    largest_P1 = pair.other_gradients_PF.amax(dim=1, keepdim=True)
    least_P1 = pair.other_gradients_PF.amin(dim=1, keepdim=True)
    own_PF = pair.gradients_PF
    return num_positions * torch.where(own_PF >= 0, own_PF * largest_P1, own_PF * least_P1)


def _summed(maps_PFhw: Tensor, weights_PF: Tensor) -> Tensor:
    # Not as a matrix product, whose rounding depends on the number of rows.
    return (maps_PFhw * weights_PF.to(maps_PFhw.dtype)[:, :, None, None]).sum(dim=1)
