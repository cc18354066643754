"""What the thesis published about segmentation: its tables 4.1 and 4.2, BraTS, 329 training and 40 validation images.

Metrics are means over the four classes, one run each; which classes are absent from which images, and what those count,
it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.api.names import DICE, IOU, MOCO_TRUNK, SENSITIVITY, SPECIFICITY, UNET


@dataclass(frozen=True)
class PublishedScores:
    """One line of a table: ``role`` as we call the network, ``split`` train or val."""

    role: str
    split: str
    scores: Mapping[str, float]
    table: str


def _scores(dice: float, iou: float, sensitivity: float, specificity: float) -> dict[str, float]:
    return {DICE: dice, IOU: iou, SENSITIVITY: sensitivity, SPECIFICITY: specificity}


SEGMENTATIONS = (
    PublishedScores(UNET, "train", _scores(0.7250, 0.6823, 0.8423, 0.9707), "Table 4.1"),
    PublishedScores(UNET, "val", _scores(0.7370, 0.6968, 0.8376, 0.9739), "Table 4.1"),
    PublishedScores(MOCO_TRUNK, "train", _scores(0.8886, 0.8760, 0.9638, 0.9835), "Table 4.2"),
    PublishedScores(MOCO_TRUNK, "val", _scores(0.8804, 0.8729, 0.9759, 0.9787), "Table 4.2"),
)


def published_scores(labels: Mapping[str, str]) -> tuple[PublishedScores, ...]:
    """The published lines of the same data set and target; none for others."""
    return SEGMENTATIONS if (labels.get("data"), labels.get("region")) == ("brats", "tumour_classes") else ()
