"""A few images with truth and prediction as one picture (thesis, figure 4.1). Shapes: S images, H x W pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GAP_PX = 4


def write_picture(path: Path, samples: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of ``samples.npz`` as a grey PNG, a row an image: image, truth and prediction; of the classes
    the background is black and the last one white."""
    brightest = max(1, len(samples["class_names"]) - 1)
    classes = [np.round(samples[name] * (255 / brightest)) for name in ("true_SHW", "predicted_SHW")]
    tiles_SHW = [np.pad(tile, ((0, 0), (0, _GAP_PX), (0, _GAP_PX))) for tile in (samples["images_SHW"], *classes)]
    rows_SHW = np.concatenate(tiles_SHW, axis=2)
    Image.fromarray(rows_SHW.reshape(-1, rows_SHW.shape[2]).astype(np.uint8)).save(path)
