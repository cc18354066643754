"""Pictures of pixels, for pages."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of the panel, square RGB."""

    title: str
    pixels: Pixels

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(png_bytes(self.pixels)).decode()


def png_bytes(pixels_HWC: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
