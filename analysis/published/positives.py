"""What BYOL-TracIn published: its Table 1 (Zeng et al. 2023), mean(std) over five fine-tunings of one pretraining.

ISIC 2019: balanced accuracy; ChestX-ray14: the mean AUC of its findings. Which images are test images it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainables.api.names import (
    BY_FEATURES,
    BY_FEATURES_PRETRAINED,
    BY_LABEL,
    BY_TRACIN,
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    FALSE_NEGATIVES,
    RANDOM_START,
    TRANSFORMED,
)

Score = tuple[float, float]
FRACTIONS = (0.1, 0.5, 1.0)

_ISIC_2019: Mapping[str, tuple[Score, Score, Score]] = {
    RANDOM_START: ((0.327, 0.004), (0.558, 0.005), (0.650, 0.004)),
    BYOL_ALONE: ((0.399, 0.001), (0.580, 0.006), (0.692, 0.005)),
    FALSE_NEGATIVES: ((0.401, 0.004), (0.584, 0.004), (0.694, 0.005)),
    TRANSFORMED: ((0.405, 0.005), (0.588, 0.008), (0.695, 0.005)),
    BY_FEATURES: ((0.403, 0.006), (0.591, 0.003), (0.694, 0.004)),
    BY_FEATURES_PRETRAINED: ((0.406, 0.002), (0.596, 0.004), (0.697, 0.005)),
    BY_TRACIN: ((0.403, 0.003), (0.594, 0.004), (0.694, 0.004)),
    BY_TRACIN_PRETRAINED: ((0.408, 0.007), (0.602, 0.003), (0.700, 0.006)),
    BY_LABEL: ((0.438, 0.006), (0.608, 0.007), (0.705, 0.005)),
}
_CHEST_XRAY: Mapping[str, tuple[Score, Score, Score]] = {
    RANDOM_START: ((0.694, 0.005), (0.736, 0.001), (0.749, 0.001)),
    BYOL_ALONE: ((0.699, 0.004), (0.738, 0.003), (0.750, 0.001)),
    FALSE_NEGATIVES: ((0.706, 0.001), (0.739, 0.001), (0.752, 0.002)),
    TRANSFORMED: ((0.708, 0.001), (0.743, 0.001), (0.751, 0.002)),
    BY_FEATURES: ((0.705, 0.003), (0.738, 0.001), (0.752, 0.002)),
    BY_FEATURES_PRETRAINED: ((0.709, 0.001), (0.744, 0.002), (0.752, 0.002)),
    BY_TRACIN: ((0.705, 0.001), (0.742, 0.003), (0.753, 0.002)),
    BY_TRACIN_PRETRAINED: ((0.712, 0.001), (0.746, 0.002), (0.754, 0.002)),
    BY_LABEL: ((0.714, 0.001), (0.748, 0.001), (0.756, 0.003)),
}
TABLE_1 = {"isic2019": _ISIC_2019, "chestxray14": _CHEST_XRAY}


def published_score(data: str, role: str, fraction: float) -> float | None:
    """The mean that the table has of a row and share of the labels; None for what it has not."""
    rows = TABLE_1.get(data, {})
    return rows[role][FRACTIONS.index(fraction)][0] if role in rows and fraction in FRACTIONS else None
