"""Occlusion: what the similarity of a pair loses when parts of the images are blacked out.

No gradient is needed, only embeddings of many images, so all windows of all pairs share their batches.

Shapes: N anchors, P pairs (views of anchors), C channels, H x W pixels, R windows or rectangles, D embedding
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables import runtime
from trainables.api.checks import check_choice
from trainables.models.frozen import FrozenEncoder
from trainables.saliency.base import Anchors, Prepared, SaliencyMethod, Views, in_batches, required

Placement = Literal["coverage", "stretched"]
Credit = Literal["coverage", "smaller_norm"]

_BATCH = 16
_OCCLUDED_AT_ONCE = 512  # images, so that their copies take little memory


@dataclass(frozen=True)
class ConditionalOcclusion(SaliencyMethod):
    """How much the similarity falls when a window of one image is black, the other image whole (Zeiler & Fergus 2014;
    "conditional occlusion" in the thesis's tool).

    Square windows stand on an even grid from border to border. A pixel's value is the mean fall over the windows that
    hold it, less the least value of the map: only differences within a map mean something.

    Args:
        window_share: side of a window, of the image's: 2/7, the tool's 64 of 224 pixels.
        num_windows: windows along each side; the tool's stride of 8 of 224 pixels gives 21. The cost grows with its
            square.
        placement: ``coverage`` as above. ``stretched`` enlarges the grid of falls, shifted and scaled to [0, 1], to
            the whole image, as the tool of the thesis does: a fall is then drawn up to an eighth of the image away
            from the window's centre.
    """

    window_share: float = 2 / 7
    num_windows: int = 21
    placement: Placement = "coverage"

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, get_args(Placement))
        if not 0 < self.window_share < 1:
            raise ValueError(f"window_share = {self.window_share}: a share of the image's side, between 0 and 1")
        if self.num_windows < 2:
            raise ValueError(f"num_windows = {self.num_windows}: at least 2 along each side")

    @property
    def passes_per_map(self) -> float:
        return 0.5 * self.num_windows**2  # forward only

    @property
    def passes_per_anchor(self) -> float:
        return 0.5

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' embeddings [N, D]."""
        return {"anchor_embeddings": in_batches(required(encoder, self).embeddings, anchors.images_NCHW, _BATCH)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        others_PD = prepared["anchor_embeddings"][views.rows_P.to(encoder.device)]
        return self._computed(encoder, views.images_PCHW, others_PD.to(encoder.head_dtype))

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        encoder = required(encoder, self)
        others_PD = in_batches(encoder.embeddings, views.images_PCHW, _BATCH)
        return self._computed(encoder, anchors.images_NCHW[views.rows_P], others_PD)

    def _computed(self, encoder: FrozenEncoder, images_PCHW: Tensor, others_PD: Tensor) -> Tensor:
        size = (images_PCHW.shape[2], images_PCHW.shape[3])
        windows_RHW = self.windows(size).to(images_PCHW.device)
        falls_PR = _falls(encoder, images_PCHW, others_PD, windows_RHW)
        if self.placement == "stretched":
            return self._stretched(falls_PR, size).to(images_PCHW.dtype)
        covered_HW = windows_RHW.sum(dim=0, dtype=falls_PR.dtype)
        sums_PHW = torch.stack([_sum_over(falls_R, windows_RHW) for falls_R in falls_PR])
        means_PHW = sums_PHW / covered_HW
        return (means_PHW - means_PHW.amin(dim=(1, 2), keepdim=True)).to(images_PCHW.dtype)

    def windows(self, size: tuple[int, int]) -> Tensor:
        """Which pixels each window holds [R, H, W] bool, row by row of the grid; every pixel is in one at least.

        Raises:
            ValueError: the image is too small for so many windows.
        """
        spans = []
        for side in size:
            window = max(1, round(self.window_share * side))
            starts = np.round(np.linspace(0, side - window, self.num_windows)).astype(int)
            if len(set(starts.tolist())) < self.num_windows or np.diff(starts).max() > window:
                raise ValueError(
                    f"num_windows = {self.num_windows} of {window} pixels do not fit on {side} pixels: each pixel has "
                    "to be in a window, and no two windows may be the same"
                )
            places = np.arange(side)
            spans.append((places >= starts[:, None]) & (places < starts[:, None] + window))
        rows_RH, columns_RW = (torch.from_numpy(span) for span in spans)
        return (rows_RH[:, None, :, None] & columns_RW[None, :, None, :]).flatten(0, 1)

    def _stretched(self, falls_PR: Tensor, size: tuple[int, int]) -> Tensor:
        least_P1, largest_P1 = falls_PR.amin(dim=1, keepdim=True), falls_PR.amax(dim=1, keepdim=True)
        span_P1 = largest_P1 - least_P1
        scaled_PR = torch.where(span_P1 > 0, (falls_PR - least_P1) / span_P1, 0)
        grid_P1ii = scaled_PR.view(-1, 1, self.num_windows, self.num_windows)
        return functional.interpolate(grid_P1ii, size, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class PairwiseOcclusion(SaliencyMethod):
    """How much the similarity falls when a random rectangle of each image is black at once (Sammani et al. 2022).

    Rectangle n of both images has the weight p_n, a softmax over all of the falls of the similarity. A pixel's value is
    the mean weight of the rectangles that held it, 1 being that of all; a pixel that none held has 1.

    Args:
        num_erasures: rectangles of each image, drawn for the image and the same at every value of the sweep.
        min_area, max_area: of a rectangle, as share of the image's.
        max_ratio: of height to width, uniform in the logarithm from 1.
        temperature: of the softmax. Similarities lie in [-1, 1], so at 1 weights differ by some per cent.
        credit: ``coverage`` as above. ``smaller_norm`` is the thesis's tool: the weight goes to the image whose
            embedding is shorter, to all pixels that are black there (those that were black before too), and is
            summed, not averaged: the map shows how often a pixel was erased.
        erase_seed: of the rectangles; with it, each image's id.
    """

    num_erasures: int = 100
    min_area: float = 0.1
    max_area: float = 0.3
    max_ratio: float = 1.5
    temperature: float = 1.0
    credit: Credit = "coverage"
    erase_seed: int = 0

    def __post_init__(self) -> None:
        check_choice("credit", self.credit, get_args(Credit))
        if self.num_erasures < 2:
            raise ValueError(f"num_erasures = {self.num_erasures}: at least 2, to be compared")
        if not 0 < self.min_area <= self.max_area < 1 or self.max_ratio < 1:
            raise ValueError(
                f"min_area, max_area = {self.min_area}, {self.max_area}: shares of the image in order, between 0 and "
                f"1; max_ratio = {self.max_ratio}: 1 or more"
            )
        if self.max_area * self.max_ratio >= 1:
            raise ValueError(
                f"max_area = {self.max_area} with max_ratio = {self.max_ratio}: such a rectangle may be higher than "
                "the image; their product has to be below 1"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature = {self.temperature}: it must be positive")

    @property
    def passes_per_map(self) -> float:
        return 0.5 * self.num_erasures

    @property
    def passes_per_anchor(self) -> float:
        return 0.5 * (1 + self.num_erasures)

    def prepare(self, encoder: FrozenEncoder | None, anchors: Anchors) -> Prepared:
        """The anchors' embeddings [N, D], and those of their erased copies [N, R, D]."""
        encoder = required(encoder, self)
        whole_ND = in_batches(encoder.embeddings, anchors.images_NCHW, _BATCH)
        erased = [
            _embedded(encoder, image_CHW.expand(self.num_erasures, -1, -1, -1), self._erased(anchors, row, "anchor"))
            for row, image_CHW in enumerate(anchors.images_NCHW)
        ]
        return {"anchor_embeddings": whole_ND, "erased_embeddings": torch.stack(erased)}

    def maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return self._computed(required(encoder, self), anchors, prepared, views, of_view=True)

    def anchor_maps(self, encoder: FrozenEncoder | None, anchors: Anchors, prepared: Prepared, views: Views) -> Tensor:
        return self._computed(required(encoder, self), anchors, prepared, views, of_view=False)

    def _computed(
        self, encoder: FrozenEncoder, anchors: Anchors, prepared: Prepared, views: Views, *, of_view: bool
    ) -> Tensor:
        whole_PD = in_batches(encoder.embeddings, views.images_PCHW, _BATCH)
        maps = []
        for row, image_CHW, whole_D in zip(views.rows_P.tolist(), views.images_PCHW, whole_PD, strict=True):
            of_anchor_RHW, of_view_RHW = (self._erased(anchors, row, which) for which in ("anchor", "view"))
            copies_RCHW = image_CHW.expand(self.num_erasures, -1, -1, -1)
            view_RD = _embedded(encoder, copies_RCHW, of_view_RHW)
            anchor_RD = prepared["erased_embeddings"][row].to(view_RD)
            anchor_D = prepared["anchor_embeddings"][row].to(view_RD)
            whole = torch.cosine_similarity(anchor_D, whole_D, dim=0)
            falls_R = whole - torch.cosine_similarity(anchor_RD, view_RD)
            weights_R = (falls_R / self.temperature).softmax(dim=0)
            erased_RHW = of_view_RHW if of_view else of_anchor_RHW
            if self.credit == "smaller_norm":
                explained_CHW = image_CHW if of_view else anchors.images_NCHW[row]
                is_shorter_R = (anchor_RD.norm(dim=1) < view_RD.norm(dim=1)) != of_view
                weights_R = torch.where(is_shorter_R, weights_R, 0)
                # Black already: counted as erased each time.
                erased_RHW = erased_RHW | (explained_CHW.sum(dim=0) == 0)
                sums_HW = _sum_over(weights_R, erased_RHW)
                maps.append(sums_HW / (sums_HW.max() + 1e-9))
                continue
            covered_HW = erased_RHW.sum(dim=0, dtype=weights_R.dtype)
            sums_HW = self.num_erasures * _sum_over(weights_R, erased_RHW)
            maps.append(torch.where(covered_HW > 0, sums_HW / covered_HW.clamp(min=1), 1))
        return torch.stack(maps).to(views.images_PCHW.dtype)

    def _erased(self, anchors: Anchors, row: int, which: str) -> Tensor:
        """The pixels of each rectangle of one image [R, H, W] bool, on its device."""
        height, width = anchors.images_NCHW.shape[2:]
        generator = runtime.generator("erasures", self.erase_seed, anchors.ids[row], which)
        draws_R4 = torch.rand(self.num_erasures, 4, generator=generator, dtype=torch.float64).numpy()
        areas_R = height * width * (self.min_area + draws_R4[:, 0] * (self.max_area - self.min_area))
        ratios_R = np.exp(draws_R4[:, 1] * np.log(self.max_ratio))
        heights_R = np.clip(np.round(np.sqrt(areas_R * ratios_R)), 1, height - 1)
        widths_R = np.clip(np.round(np.sqrt(areas_R / ratios_R)), 1, width - 1)
        tops_R = np.floor(draws_R4[:, 2] * (height - heights_R + 1))
        lefts_R = np.floor(draws_R4[:, 3] * (width - widths_R + 1))
        rows_H, columns_W = np.arange(height), np.arange(width)
        in_rows_RH = (rows_H >= tops_R[:, None]) & (rows_H < (tops_R + heights_R)[:, None])
        in_columns_RW = (columns_W >= lefts_R[:, None]) & (columns_W < (lefts_R + widths_R)[:, None])
        erased_RHW = torch.from_numpy(in_rows_RH[:, :, None] & in_columns_RW[:, None, :])
        return erased_RHW.to(anchors.images_NCHW.device)


def _falls(encoder: FrozenEncoder, images_PCHW: Tensor, others_PD: Tensor, windows_RHW: Tensor) -> Tensor:
    """What the similarity to the other image loses by each window [P, R]; exactly 0 where all of it was black."""
    whole_P = torch.cosine_similarity(in_batches(encoder.embeddings, images_PCHW, _BATCH), others_PD)
    is_black_PHW = (images_PCHW == 0).all(dim=1)
    falls_PR = torch.zeros(len(images_PCHW), len(windows_RHW), dtype=whole_P.dtype, device=whole_P.device)
    # A window at a time would be the readable way; all of them share batches, as each is one image to the encoder.
    changes_PR = torch.stack([(windows_RHW & ~is_black_HW).any(dim=(1, 2)) for is_black_HW in is_black_PHW])
    places_K2 = torch.nonzero(changes_PR)
    for part_K2 in torch.split(places_K2, _OCCLUDED_AT_ONCE):
        pairs_K, windows_K = part_K2.unbind(dim=1)
        embeddings_KD = _embedded(encoder, images_PCHW[pairs_K], windows_RHW[windows_K])
        occluded_K = torch.cosine_similarity(embeddings_KD, others_PD[pairs_K])
        falls_PR[pairs_K, windows_K] = whole_P[pairs_K] - occluded_K
    return falls_PR


def _embedded(encoder: FrozenEncoder, images_RCHW: Tensor, black_RHW: Tensor) -> Tensor:
    """Embeddings [R, D] of images with these pixels blacked out."""
    return in_batches(encoder.embeddings, images_RCHW.masked_fill(black_RHW[:, None], 0), _BATCH)


def _sum_over(weights_R: Tensor, regions_RHW: Tensor) -> Tensor:
    """The sum of the weights of the regions that hold each pixel [H, W]."""
    return (weights_R[:, None, None] * regions_RHW).sum(dim=0)
