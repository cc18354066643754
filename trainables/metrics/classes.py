"""Overlap of predicted and true classes of pixels: Dice, IoU, sensitivity, specificity. Batched, on any device.

Shapes: B images, H x W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """Pixels of each class in each image [B, K], int64."""

    both_BK: Tensor
    """In prediction and truth: the true positives."""
    predicted_BK: Tensor
    true_BK: Tensor
    num_pixels: int

    def dice(self) -> Tensor:
        """2 TP / (predicted + true) [B, K], float64; NaN where an image has the class in neither.

        An absent class that was predicted counts 0, one that was not does not count: another common rule gives it 1,
        which raises the mean of rare classes by images that show none of it.
        """
        return 2 * self.both_BK.double() / (self.predicted_BK + self.true_BK)

    def iou(self) -> Tensor:
        """TP / (predicted or true) [B, K], float64, the Jaccard index; NaN as ``dice``."""
        return self.both_BK.double() / (self.predicted_BK + self.true_BK - self.both_BK)

    def sensitivity(self) -> Tensor:
        """TP / true [B, K], float64, the recall; NaN where the class is absent from the truth."""
        return self.both_BK.double() / self.true_BK

    def specificity(self) -> Tensor:
        """TN / (TN + FP) [B, K], float64; NaN where the class is all of the truth."""
        others_BK = self.num_pixels - self.true_BK
        return (others_BK - (self.predicted_BK - self.both_BK)).double() / others_BK


def overlap(predicted_BHW: Tensor, true_BHW: Tensor, num_classes: int) -> Overlap:
    """Count the pixels of each class.

    Args:
        predicted_BHW, true_BHW: whole numbers from 0 to ``num_classes`` - 1.

    Raises:
        ValueError: shapes that differ; a class beyond ``num_classes``.
    """
    if predicted_BHW.shape != true_BHW.shape or predicted_BHW.ndim != 3:
        shapes = f"{tuple(predicted_BHW.shape)} and {tuple(true_BHW.shape)}"
        raise ValueError(f"prediction and truth have shapes {shapes}: expected the same [B, H, W]")
    pairs_BN = (true_BHW.long() * num_classes + predicted_BHW.long()).flatten(1)
    for name, classes_BHW in (("predicted", predicted_BHW), ("true", true_BHW)):
        if classes_BHW.numel() and not 0 <= int(classes_BHW.min()) <= int(classes_BHW.max()) < num_classes:
            raise ValueError(
                f"{name} classes reach from {classes_BHW.min()} to {classes_BHW.max()}: expected 0 to {num_classes - 1}"
            )
    num_images, num_pixels = pairs_BN.shape
    confusion_BP = torch.zeros(num_images, num_classes**2, dtype=torch.int64, device=pairs_BN.device)
    confusion_BP.scatter_add_(1, pairs_BN, torch.ones_like(pairs_BN))
    confusion_BTP = confusion_BP.view(num_images, num_classes, num_classes)
    both_BK = confusion_BTP.diagonal(dim1=1, dim2=2)
    return Overlap(both_BK, confusion_BTP.sum(dim=1), confusion_BTP.sum(dim=2), num_pixels)


def mean_over_images(scores_BK: Tensor) -> Tensor:
    """The mean of each class over the images in which its score is defined [K]; NaN where it is in none."""
    return scores_BK.nanmean(dim=0)
