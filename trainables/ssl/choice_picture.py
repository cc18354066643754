"""Anchors with what was chosen for them, as one picture (Zeng et al. 2023, Figure 2).

Shapes: A anchors, R ranks, T = 1 + R tiles of an anchor, H x W pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RIGHT_COLOUR, WRONG_COLOUR, ANCHOR_COLOUR = (0, 158, 115), (213, 94, 0), (0, 0, 0)
"""Of frames, told apart by the colour-blind, too."""
_SIDE_PX, _FRAME_PX, _GAP_PX = 96, 4, 4


def tiles(
    anchors_AHWC: NDArray[Any], chosen_ARHWC: NDArray[Any], is_there_AR: NDArray[Any], is_right_AR: NDArray[Any]
) -> NDArray[np.uint8]:
    """Of each anchor its own tile and one a rank [A, 1 + R, height, width, 3], in frames that say whether it has the
    anchor's label; white where nobody was chosen.

    Args:
        anchors_AHWC, chosen_ARHWC: uint8, of one or three channels.
    """
    rows = []
    for anchor_HWC, chosen_RHWC, is_there_R, is_right_R in zip(
        anchors_AHWC, chosen_ARHWC, is_there_AR, is_right_AR, strict=True
    ):
        row = [framed(anchor_HWC, ANCHOR_COLOUR)]
        for image_HWC, is_there, is_right in zip(chosen_RHWC, is_there_R, is_right_R, strict=True):
            tile = framed(image_HWC, RIGHT_COLOUR if is_right else WRONG_COLOUR)
            row.append(tile if is_there else np.full_like(tile, 255))
        rows.append(np.stack(row))
    return np.stack(rows) if rows else np.full((0, 1, 1, 1, 3), 255, dtype=np.uint8)


def write_picture(path: Path, tiles_ATHWC: NDArray[np.uint8]) -> None:
    """All tiles as one PNG, a row an anchor."""
    rows = [np.concatenate(list(row_THWC), axis=1) for row_THWC in tiles_ATHWC]
    blank = np.full((1, 1, 3), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate(rows) if rows else blank).save(path)


def framed(image_HWC: NDArray[Any], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image of one or three channels, uint8, enlarged without smoothing, in a frame, with white around it."""
    pixels_HWC = np.broadcast_to(image_HWC, (*image_HWC.shape[:2], 3))
    height, width = pixels_HWC.shape[:2]
    rows, columns = (np.arange(_SIDE_PX) * side // _SIDE_PX for side in (height, width))
    outer = _SIDE_PX + 2 * (_FRAME_PX + _GAP_PX)
    tile_HWC = np.full((outer, outer, 3), 255, dtype=np.uint8)
    tile_HWC[_GAP_PX:-_GAP_PX, _GAP_PX:-_GAP_PX] = colour
    inside = slice(_GAP_PX + _FRAME_PX, outer - _GAP_PX - _FRAME_PX)
    tile_HWC[inside, inside] = pixels_HWC[rows[:, None], columns[None]]
    return tile_HWC
