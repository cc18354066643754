"""Overlap of a prediction with a mask: the Dice coefficient and its reference levels. Batched, on any device.

Shapes: B images, N pixels of each (an image flattened, or its part inside a field of view).
A prediction lies in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7


def dice(predictions_BN: Tensor, masks_BN: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Dice coefficient [B] in float64: 2 I / (I + U + epsilon), thesis Eq. 5.1.

    I = sum(p m) and U = sum(p) + sum(m) - I, so this is the usual 2 I / (sum(p) + sum(m)); read as |A| + |B|
    instead, the U of the thesis would cap the value at 2/3. The thesis names no epsilon; 1e-7 of a pixel only
    decides that two empty sets give 0.
    """
    predictions_BN, masks_BN = in_float64(predictions_BN, masks_BN)
    intersection_B = (predictions_BN * masks_BN).sum(dim=1)
    union_B = predictions_BN.sum(dim=1) + masks_BN.sum(dim=1) - intersection_B
    return 2 * intersection_B / (intersection_B + union_B + epsilon)


def chance_dice(mask_fraction: Tensor, map_fraction: Tensor) -> Tensor:
    """Expected Dice of a map that covers its fraction of the image without regard to the mask: 2 p q / (p + q)."""
    total = mask_fraction + map_fraction
    return torch.where(total > 0, 2 * mask_fraction * map_fraction / total, 0.0)


def all_ones_dice(mask_fraction: Tensor) -> Tensor:
    """Dice of a map that covers everything: 2 p / (1 + p)."""
    return chance_dice(mask_fraction, torch.ones_like(mask_fraction))


def in_float64(predictions_BN: Tensor, masks_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64. Raises ValueError for shapes that are not the same [B, N]."""
    if predictions_BN.ndim != 2 or predictions_BN.shape != masks_BN.shape:
        shapes = f"{tuple(predictions_BN.shape)} and {tuple(masks_BN.shape)}"
        raise ValueError(f"predictions and masks have shapes {shapes}: flatten both to the same [B, N]")
    return predictions_BN.to(torch.float64), masks_BN.to(torch.float64)
