"""Where a map lies: whether its highest pixel is in a mask, and what share of it. Batched, on any device.

Shapes: B images, N pixels of each. A map is not negative, higher where a method finds more. A map that knows nothing of
the mask scores the mask's share of the pixels, in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.metrics.overlap import in_float64


def pointing_game(maps_BN: Tensor, masks_BN: Tensor) -> Tensor:
    """1 where the highest pixel of a map lies in the mask, else 0 [B], float64 (Zhang et al. 2018, without their margin
    of 15 pixels). Of pixels that share the highest value, the share in the mask."""
    maps_BN, masks_BN = in_float64(maps_BN, masks_BN)
    highest_BN = (maps_BN == maps_BN.amax(dim=1, keepdim=True)).double()
    return (highest_BN * masks_BN).sum(dim=1) / highest_BN.sum(dim=1)


def relevance_mass(maps_BN: Tensor, masks_BN: Tensor) -> Tensor:
    """The share of a map's sum that lies in the mask [B], float64 (Arras et al. 2022, "relevance mass accuracy"). A map
    of nothing but 0 has the mask's share of the pixels, as one that is the same everywhere."""
    maps_BN, masks_BN = in_float64(maps_BN, masks_BN)
    total_B = maps_BN.sum(dim=1)
    share_B = (maps_BN * masks_BN).sum(dim=1) / total_B
    return torch.where(total_B > 0, share_B, masks_BN.mean(dim=1))
