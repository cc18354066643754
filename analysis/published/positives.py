"""What BYOL-TracIn published: its Tables 1 and 2 (Zeng et al. 2023), mean(std) over five fine-tunings of a pretraining.

ISIC 2019: balanced accuracy; ChestX-ray14: the mean AUC of its findings; transferred to ISIC 2016: "precision", to
Shenzhen: AUC. Which images are test images it does not say, nor whether its precision is at a threshold.
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
_ISIC_2016: Mapping[str, Score] = {
    RANDOM_START: (0.400, 0.005),
    BYOL_ALONE: (0.541, 0.008),
    FALSE_NEGATIVES: (0.542, 0.007),
    TRANSFORMED: (0.559, 0.011),
    BY_FEATURES: (0.551, 0.003),
    BY_FEATURES_PRETRAINED: (0.556, 0.004),
    BY_TRACIN: (0.555, 0.012),
    BY_TRACIN_PRETRAINED: (0.565, 0.010),
    BY_LABEL: (0.592, 0.008),
}
_SHENZHEN: Mapping[str, Score] = {
    RANDOM_START: (0.835, 0.010),
    BYOL_ALONE: (0.858, 0.003),
    FALSE_NEGATIVES: (0.862, 0.006),
    TRANSFORMED: (0.876, 0.005),
    BY_FEATURES: (0.877, 0.004),
    BY_FEATURES_PRETRAINED: (0.877, 0.006),
    BY_TRACIN: (0.880, 0.007),
    BY_TRACIN_PRETRAINED: (0.883, 0.001),
    BY_LABEL: (0.893, 0.006),
}


def transferred(data: str, pretrained_on: str) -> str:
    """What an encoder of another data set is called in the tables' keys."""
    return f"{data} after {pretrained_on}"


TABLE_1 = {"isic2019": _ISIC_2019, "chestxray14": _CHEST_XRAY}
TABLE_2 = {transferred("isic2016", "isic2019"): _ISIC_2016, transferred("shenzhen", "chestxray14"): _SHENZHEN}
PUBLISHED: Mapping[str, Mapping[str, Mapping[float, Score]]] = {
    data: {role: dict(zip(FRACTIONS, scores, strict=True)) for role, scores in rows.items()}
    for data, rows in TABLE_1.items()
} | {data: {role: {1.0: score} for role, score in rows.items()} for data, rows in TABLE_2.items()}
"""Data set, of Table 2 as ``transferred`` says -> row -> share of the labels -> mean and standard deviation."""
METRICS = {
    transferred("isic2016", "isic2019"): "test/precision",
    transferred("shenzhen", "chestxray14"): "test/auc",
}
"""Scores of the paper that are not balanced accuracy, or of findings the mean AUC."""


def published_score(data: str, role: str, fraction: float) -> Score | None:
    """The mean and standard deviation that the tables have of a row and share of the labels; None for what they have
    not."""
    return PUBLISHED.get(data, {}).get(role, {}).get(fraction)


def published_difference(data: str, first: str, second: str, fraction: float) -> float | None:
    """Of the printed means of two rows; None for what the table has not."""
    scores = [published_score(data, role, fraction) for role in (first, second)]
    means = [score[0] for score in scores if score is not None]
    return round(means[0] - means[1], 3) if len(means) == 2 else None  # without what floats add to the printed digits
