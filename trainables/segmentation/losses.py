"""The soft Dice loss. Shapes: B images, K classes, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMOOTHING_PX = 1.0


def soft_dice_loss(logits_BKHW: Tensor, classes_BHW: Tensor, smoothing_px: float = SMOOTHING_PX) -> Tensor:
    """1 - Dice of the classes' probabilities and the truth, averaged over the classes of each image [B], in float32
    or float64.

    Dice of one class is (2 sum(p t) + s) / (sum(p) + sum(t) + s), over the pixels of one image (Milletari et al.
    2016, without the squares). The thesis names a "custom dice loss" and gives no formula; all classes count,
    the background included.

    Args:
        smoothing_px: s, so that a class that is absent from an image costs little where little of it is predicted.
    """
    logits_BKHW = logits_BKHW.float() if logits_BKHW.dtype == torch.bfloat16 else logits_BKHW
    probabilities_BKN = functional.softmax(logits_BKHW, dim=1).flatten(2)
    classes_B1N = classes_BHW.long().flatten(1)[:, None]
    true_BKN = torch.zeros_like(probabilities_BKN).scatter_(1, classes_B1N, 1.0)
    both_BK = (probabilities_BKN * true_BKN).sum(dim=2)
    either_BK = probabilities_BKN.sum(dim=2) + true_BKN.sum(dim=2)
    dice_BK = (2 * both_BK + smoothing_px) / (either_BK + smoothing_px)
    return 1 - dice_BK.mean(dim=1)
