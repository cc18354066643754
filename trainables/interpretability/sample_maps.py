"""A few images with their saliency maps as one picture, to look at beside a curve.

Shapes: K images, V values, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GAP_PX = 4
Pixels = NDArray[np.uint8]


def write_picture(path: Path, samples: Mapping[str, NDArray[Any]]) -> None:
    """Write ``samples`` (the arrays of ``samples.npz``) as a grey PNG: a row an image.

    Columns: image, mask, and for each value the view, its map, and that map brought back; every map from its
    own least (black) to its largest value (white).
    """
    rows = [_row(samples, k) for k in range(len(samples["image_id"]))]
    gap = np.full((_GAP_PX, rows[0].shape[1]), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate([part for row in rows for part in (row, gap)][:-1])).save(path)


def _row(samples: Mapping[str, NDArray[Any]], k: int) -> Pixels:
    tiles = [samples["images_KHW"][k], samples["masks_KHW"][k] * np.uint8(255)]
    for v in range(len(samples["values"])):
        tiles += [_grey(samples[f"{name}_KVHW"][k, v]) for name in ("views", "view_maps", "maps")]
    gap = np.full((tiles[0].shape[0], _GAP_PX), 255, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _grey(values_HW: NDArray[Any]) -> Pixels:
    least, largest = float(values_HW.min()), float(values_HW.max())
    scaled = (values_HW - least) / (largest - least) if largest > least else np.zeros_like(values_HW)
    return np.asarray(np.round(scaled * 255), dtype=np.uint8)
