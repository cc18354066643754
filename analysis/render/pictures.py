"""Rows of pictures as one figure: on a page with their titles above, as a file in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from analysis.render.tile import Pixels, Tile, png_bytes

Rows = Sequence[tuple[str, Sequence[Tile]]]

_TILE_PX = 160
_GAP_PX = 6


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in rows, each row with the name of what it shows. ``name`` is the file name without suffix."""

    name: str
    title: str
    caption: str
    rows: Rows

    def png(self) -> bytes:
        return png_bytes(composed(self.rows))


def composed(rows: Rows) -> Pixels:
    """All tiles in one picture, white between them; the titles are the caption's business."""
    widest = max(len(tiles) for _, tiles in rows)
    step = _TILE_PX + _GAP_PX
    canvas = np.full((len(rows) * step - _GAP_PX, widest * step - _GAP_PX, 3), 255, dtype=np.uint8)
    for r, (_, tiles) in enumerate(rows):
        for c, tile in enumerate(tiles):
            picture = Image.fromarray(tile.pixels).resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
            canvas[r * step : r * step + _TILE_PX, c * step : c * step + _TILE_PX] = np.array(picture)
    return canvas
