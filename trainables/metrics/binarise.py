"""How a map becomes a prediction: the rules that turn real numbers into a set of pixels. Batched, on any device.

Shapes: B images, N pixels of each (an image flattened, or its part inside a field of view),
V bins of a histogram. A map is any real number a pixel, higher where a method finds more; a prediction lies in [0, 1].
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from trainables.metrics.overlap import in_float64

Binarisation = Literal["soft", "otsu", "mean", "percentile", "top_area"]
BINARISATIONS: tuple[Binarisation, ...] = get_args(Binarisation)

_OTSU_BINS = 256


def binarise(maps_BN: Tensor, masks_BN: Tensor, rule: Binarisation, percentile: float = 80.0) -> Tensor:
    """A map as prediction [B, N] in [0, 1], float64, by one rule; all rules act on the min-max map.

    - ``soft``: the min-max map itself.
    - ``otsu``: above Otsu's threshold (256 bins, as scikit-image).
    - ``mean``: above the map's mean.
    - ``percentile``: above that percentile of the map, linearly interpolated.
    - ``top_area``: as many of the highest pixels as the mask has. Pixels tied at the border share what is left
      in equal fractions, so the result does not depend on an order of pixels.

    A constant map is empty under the three threshold rules and under ``soft``.

    Args:
        masks_BN: used by ``top_area`` only, which therefore knows something of the mask.
        percentile: in [0, 100].

    Raises:
        ValueError: an unknown rule, a percentile outside [0, 100].
    """
    check_binarisation(rule, percentile)
    maps_BN, masks_BN = in_float64(maps_BN, masks_BN)
    scaled_BN = min_max(maps_BN)
    if rule == "soft":
        return scaled_BN
    if rule == "top_area":
        return _top_area(scaled_BN, masks_BN)
    if rule == "otsu":
        threshold_B = otsu_threshold(scaled_BN)
    elif rule == "mean":
        threshold_B = scaled_BN.mean(dim=1)
    else:
        threshold_B = _percentile(scaled_BN, percentile)
    return (scaled_BN > threshold_B[:, None]).to(torch.float64)


def min_max(maps_BN: Tensor) -> Tensor:
    """Each map shifted and scaled to [0, 1]; a constant map becomes 0."""
    low_B1, high_B1 = maps_BN.amin(dim=1, keepdim=True), maps_BN.amax(dim=1, keepdim=True)
    span_B1 = high_B1 - low_B1
    return torch.where(span_B1 > 0, (maps_BN - low_B1) / span_B1, 0.0)


def otsu_threshold(maps_BN: Tensor) -> Tensor:
    """Otsu's threshold [B] of each map: the bin centre with the largest variance between the classes.

    Otsu 1979, over 256 equal bins between minimum and maximum: ``skimage.filters.threshold_otsu``. For a
    constant map, its value.
    """
    maps_BN = maps_BN.to(torch.float64)
    low_B1, span_B1 = maps_BN.amin(dim=1, keepdim=True), maps_BN.amax(dim=1, keepdim=True)
    span_B1 = span_B1 - low_B1
    bins_BN = (min_max(maps_BN) * _OTSU_BINS).long().clamp_(max=_OTSU_BINS - 1)
    counts_BV = torch.zeros(len(maps_BN), _OTSU_BINS, dtype=torch.int64, device=maps_BN.device)
    # Integers: a sum of floats would depend on the order in which a GPU adds them.
    counts_BV = counts_BV.scatter_add_(1, bins_BN, torch.ones_like(bins_BN)).to(torch.float64)
    centres_V = (torch.arange(_OTSU_BINS, dtype=torch.float64, device=maps_BN.device) + 0.5) / _OTSU_BINS
    below_BV, above_BV = counts_BV.cumsum(dim=1), _cumsum_from_end(counts_BV)
    mean_below_BV = (counts_BV * centres_V).cumsum(dim=1) / below_BV
    mean_above_BV = _cumsum_from_end(counts_BV * centres_V) / above_BV
    difference_BV = mean_below_BV[:, :-1] - mean_above_BV[:, 1:]
    variance_BV = below_BV[:, :-1] * above_BV[:, 1:] * difference_BV**2
    threshold_B = centres_V[variance_BV.argmax(dim=1)]
    return torch.where(span_B1[:, 0] > 0, low_B1[:, 0] + threshold_B * span_B1[:, 0], low_B1[:, 0])


def check_binarisation(rule: str, percentile: float) -> None:
    """Raise ValueError for a rule that is not there or a percentile outside [0, 100]."""
    if rule not in BINARISATIONS:
        raise ValueError(f"binarisation {rule!r}: choose one of {', '.join(BINARISATIONS)}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile = {percentile}: a number from 0 to 100")


def _top_area(maps_BN: Tensor, masks_BN: Tensor) -> Tensor:
    wanted_B = masks_BN.sum(dim=1).round().long()
    sorted_BN = maps_BN.sort(dim=1, descending=True).values
    border_B1 = sorted_BN.gather(1, (wanted_B - 1).clamp_(min=0)[:, None])
    above_BN, tied_BN = maps_BN > border_B1, maps_BN == border_B1
    share_B = (wanted_B - above_BN.sum(dim=1)) / tied_BN.sum(dim=1)
    prediction_BN = above_BN.to(torch.float64) + tied_BN * share_B[:, None]
    return torch.where(wanted_B[:, None] > 0, prediction_BN, 0.0)


def _percentile(maps_BN: Tensor, percentile: float) -> Tensor:
    sorted_BN = maps_BN.sort(dim=1).values
    place = percentile / 100 * (maps_BN.shape[1] - 1)
    below = min(int(place), maps_BN.shape[1] - 2) if maps_BN.shape[1] > 1 else 0
    above = min(below + 1, maps_BN.shape[1] - 1)
    return torch.lerp(sorted_BN[:, below], sorted_BN[:, above], place - below)


def _cumsum_from_end(values_BV: Tensor) -> Tensor:
    return values_BV.flip(1).cumsum(dim=1).flip(1)
