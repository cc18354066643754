"""What the thesis published about rotation curves, with its place in the text.

Source: the rotation-interpretability thesis, chapter 5: 75 images a data set, SmoothGrad of a fine-tuned MoCo
ResNet-50, angles of 0 to 360 degrees. It gives neither intervals nor controls, and does not say how maps were made
binary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from trainables.api.names import SMOOTHGRAD, SMOOTHGRAD_OF_TOOL

FULL_SCALE = "full"
"""The scale of the thesis's sizes."""


@dataclass(frozen=True)
class PublishedCurve:
    """Range of the mean Dice over the angles and the angles of its extrema, as printed.

    ``dataset``: as the thesis calls it; ``data`` and ``region``: as the command line does.
    """

    dataset: str
    data: str
    region: str
    num_images: int
    dice_low: float
    dice_high: float
    maxima_deg: tuple[int, ...]
    minima_deg: tuple[int, ...]
    section: str
    figure: str


_QUARTERS_DEG, _BETWEEN_DEG = (90, 180, 270), (45, 135, 225, 315)
_LUNGS_DEG = (66, 156, 246, 336)
ROTATION_CURVES = (
    PublishedCurve("BraTS", "brats", "tumour", 75, 0.627, 0.658, _QUARTERS_DEG, _BETWEEN_DEG, "5.3", "5.6"),
    PublishedCurve("Lung Mask Image", "lung_mask", "lungs", 75, 0.470, 0.476, _LUNGS_DEG, _QUARTERS_DEG, "5.3", "5.7"),
    PublishedCurve("Kvasir-SEG", "kvasir", "polyp", 75, 0.346, 0.360, _BETWEEN_DEG, _QUARTERS_DEG, "5.3", "5.8"),
)


def all_ones_mask_fraction(dice: float) -> float:
    """The mask fraction p at which a map of ones everywhere has this Dice: 2p / (1 + p) = dice, so p in [0, 1]."""
    return dice / (2 - dice)


def rotation_curve(labels: Mapping[str, str]) -> PublishedCurve | None:
    """The published curve of the same data set, region and kind of map as rotation curves with these labels, or None.

    The thesis explains by SmoothGrad; our sound form of it, which bears no label, is taken for the same kind.
    """
    if labels.get("method", SMOOTHGRAD) not in (SMOOTHGRAD, SMOOTHGRAD_OF_TOOL):
        return None
    own = labels.get("data"), labels.get("region")
    return next((curve for curve in ROTATION_CURVES if (curve.data, curve.region) == own), None)


def rotation_frame(curves: Sequence[PublishedCurve] = ROTATION_CURVES) -> pl.DataFrame:
    """One row a data set: dataset, source, n, min, max, maxima, minima, all_ones_fraction (of the range's middle)."""
    return pl.DataFrame(
        [
            {
                "dataset": c.dataset,
                "source": f"thesis {c.section}, Fig. {c.figure}",
                "n": c.num_images,
                "min": c.dice_low,
                "max": c.dice_high,
                "maxima": ", ".join(f"{a}°" for a in c.maxima_deg),
                "minima": ", ".join(f"{a}°" for a in c.minima_deg),
                "all_ones_fraction": all_ones_mask_fraction((c.dice_low + c.dice_high) / 2),
            }
            for c in curves
        ]
    )
