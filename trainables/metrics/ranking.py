"""How well a map ranks the pixels of a mask before the others, without a threshold. Batched, on any device.

Shapes: B images, N pixels of each (an image flattened, or its part inside a field of view).
A map is any real number a pixel, higher where a method finds more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.metrics.overlap import in_float64


def average_precision(maps_BN: Tensor, masks_BN: Tensor) -> Tensor:
    """Area under the precision-recall curve [B] in float64, as the sum of precision times recall step.

    Each distinct value is one threshold, so tied pixels are counted together and their order does not matter;
    equal to ``sklearn.metrics.average_precision_score``. It needs no binarisation.

    Raises:
        ValueError: a mask is empty, so that there is no recall.
    """
    maps_BN, masks_BN = in_float64(maps_BN, masks_BN)
    positives_B = masks_BN.sum(dim=1)
    if bool((positives_B == 0).any()):
        rows = torch.nonzero(positives_B == 0).flatten().tolist()
        raise ValueError(f"empty masks in rows {rows}: average precision needs positive pixels; leave these images out")
    sorted_BN, order_BN = maps_BN.sort(dim=1, descending=True)
    labels_BN = masks_BN.gather(1, order_BN)
    ranks_N = torch.arange(1, maps_BN.shape[1] + 1, device=maps_BN.device, dtype=torch.float64)
    precision_BN = labels_BN.cumsum(dim=1) / ranks_N
    ends_BN = _last_of_ties(sorted_BN)
    return (labels_BN * precision_BN.gather(1, ends_BN)).sum(dim=1) / positives_B


def _last_of_ties(sorted_BN: Tensor) -> Tensor:
    """For each place in rows sorted in falling order, the last place with the same value."""
    num = sorted_BN.shape[1]
    is_last_BN = torch.ones_like(sorted_BN, dtype=torch.bool)
    is_last_BN[:, :-1] = sorted_BN[:, 1:] != sorted_BN[:, :-1]
    places_N = torch.arange(num, device=sorted_BN.device)
    candidates_BN = torch.where(is_last_BN, places_N, num - 1)
    return candidates_BN.flip(1).cummin(dim=1).values.flip(1)
