"""A few images with truth and prediction as one picture (thesis, figure 4.1). Shapes: S images, H x W pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Okabe & Ito's colours, told apart also by the colour-blind; the background keeps the image's grey.
_COLOURS = np.array(
    [[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0]]
)
_GAP_PX = 4
_OPACITY = 0.6


def write_picture(path: Path, samples: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of ``samples.npz`` as a PNG: a row an image; image, truth and prediction."""
    rows = []
    for image_HW, true_HW, predicted_HW in zip(
        samples["images_SHW"], samples["true_SHW"], samples["predicted_SHW"], strict=True
    ):
        grey_HW3 = np.repeat(image_HW[..., None], 3, axis=2)
        rows.append(_joined([grey_HW3, coloured(image_HW, true_HW), coloured(image_HW, predicted_HW)], axis=1))
    Image.fromarray(_joined(rows, axis=0)).save(path)


def coloured(image_HW: NDArray[Any], classes_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """The image with its classes in colours [H, W, 3]; the background, class 0, as it is."""
    grey_HW3 = np.repeat(image_HW[..., None], 3, axis=2).astype(np.float64)
    colours_HW3 = _COLOURS[1 + (classes_HW.astype(np.int64) - 1) % (len(_COLOURS) - 1)]
    mixed_HW3 = (1 - _OPACITY) * grey_HW3 + _OPACITY * colours_HW3
    return np.where(classes_HW[..., None] > 0, mixed_HW3, grey_HW3).round().astype(np.uint8)


def _joined(parts: list[NDArray[Any]], axis: int) -> NDArray[np.uint8]:
    shape = [*parts[0].shape]
    shape[axis] = _GAP_PX
    gap = np.full(shape, 255, dtype=np.uint8)
    return np.concatenate([part for each in parts for part in (each, gap)][:-1], axis=axis)
