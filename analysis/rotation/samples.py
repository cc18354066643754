"""Sample maps: image, mask and saliency map, as they are and rotated. Plain arrays of pixels, no plotting library."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

Samples = Mapping[str, NDArray[Any]]
Pixels = NDArray[np.uint8]

_TILE_PX = 160
_GAP_PX = 6
_OUTLINE = (64, 224, 208)
# Anchors of the magma colour map (S. van der Walt, N. Smith, matplotlib, CC0): even steps of lightness, dark is low.
_MAGMA = np.array(
    [
        [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97],
        [254, 194, 135], [252, 253, 191],
    ],
    dtype=np.float64,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of the panel, square RGB."""

    title: str
    pixels: Pixels

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(png_bytes(self.pixels)).decode()


def can_be_shown(samples: Samples) -> bool:
    """Whether there is an image with maps at angle 0 and at another angle; a method or a sweep may leave these out."""
    angles = [float(angle) for angle in samples["angles_deg"]]
    return len(samples["image_id"]) > 0 and 0.0 in angles and any(angle % 360 != 0 for angle in angles)


def sample_rows(
    trained: Samples, untrained: Samples | None = None, max_images: int = 4
) -> list[tuple[str, list[Tile]]]:
    """(image id, tiles) of the first images: image, mask, map; rotated image, its map, that map rotated back.

    ``trained`` and ``untrained`` are contents of ``samples.npz``: ``image_id [K]``, ``images_KHW`` and ``masks_KHW``
    uint8, ``angles_deg [A]`` (0 and another), ``rotated_KAHW``, ``maps_rotated_KAHW``, ``maps_KAHW`` float32. The
    mask's outline is drawn on images and on maps in the original frame; each map is scaled from its own least to its
    largest value. The untrained encoder's maps of the same images follow where they are there.

    Raises ValueError when the samples hold no angle of 0 or no other.
    """
    angles = [float(angle) for angle in trained["angles_deg"]]
    others = [angle for angle in angles if angle % 360 != 0]
    if 0.0 not in angles or not others:
        raise ValueError(f"samples at angles {angles}: 0 and one other angle are needed, as in the thesis's figure 5.3")
    still, turned = angles.index(0.0), angles.index(others[0])
    ids = [str(name) for name in trained["image_id"]]
    rows = []
    for k, name in enumerate(ids[:max_images]):
        tiles = _tiles(trained, k, still, turned, others[0])
        match = _row_of(untrained, name)
        if untrained is not None and match is not None:
            mask_HW = trained["masks_KHW"][k]
            tiles.append(Tile("untrained map", _map(untrained["maps_KAHW"][match, still], mask_HW)))
            tiles.append(
                Tile(
                    f"untrained map at {others[0]:g}°, rotated back",
                    _map(untrained["maps_KAHW"][match, turned], mask_HW),
                )
            )
        rows.append((name, tiles))
    return rows


def _tiles(samples: Samples, k: int, still: int, turned: int, angle_deg: float) -> list[Tile]:
    image_HW, mask_HW = samples["images_KHW"][k], samples["masks_KHW"][k]
    return [
        Tile("image", grey(image_HW)),
        Tile("mask", grey(mask_HW.astype(np.float32))),
        Tile("map", _map(samples["maps_KAHW"][k, still], mask_HW)),
        Tile(f"rotated by {angle_deg:g}°", grey(samples["rotated_KAHW"][k, turned])),
        Tile("map of the rotated", heat(samples["maps_rotated_KAHW"][k, turned])),
        Tile("map, rotated back", _map(samples["maps_KAHW"][k, turned], mask_HW)),
    ]


def _row_of(samples: Samples | None, name: str) -> int | None:
    ids = [] if samples is None else [str(i) for i in samples["image_id"]]
    return ids.index(name) if name in ids else None


def scaled(values_HW: NDArray[Any]) -> NDArray[np.float64]:
    """Values from their least (0) to their largest (1); a constant map is 0. Not finite counts as least."""
    values = np.asarray(values_HW, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = values[finite].min(), values[finite].max()
    if high == low:
        return np.zeros_like(values)
    return np.where(finite, (np.where(finite, values, low) - low) / (high - low), 0.0)


def grey(values_HW: NDArray[Any]) -> Pixels:
    """[H, W] as RGB grey levels [H, W, 3], stretched over the range of values."""
    level = np.rint(scaled(values_HW) * 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def heat(values_HW: NDArray[Any]) -> Pixels:
    """[H, W] as RGB [H, W, 3] in a perceptually even colour map."""
    level = scaled(values_HW)
    at = np.linspace(0, 1, len(_MAGMA))
    return np.stack([np.rint(np.interp(level, at, _MAGMA[:, c])) for c in range(3)], axis=2).astype(np.uint8)


def outlined(pixels_HWC: Pixels, mask_HW: NDArray[Any]) -> Pixels:
    """The picture with the outer boundary of the mask drawn in, enlarged first so that the line stays thin."""
    size = _TILE_PX * 2
    large = np.array(Image.fromarray(pixels_HWC).resize((size, size), Image.Resampling.NEAREST))
    mask = Image.fromarray((mask_HW > 0).astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    large[find_boundaries(np.array(mask), mode="outer")] = _OUTLINE
    return large


def _map(values_HW: NDArray[Any], mask_HW: NDArray[Any]) -> Pixels:
    return outlined(heat(values_HW), mask_HW)


def composed(rows: list[tuple[str, list[Tile]]]) -> Pixels:
    """All tiles in one picture, white between them; the titles are the caption's business."""
    widest = max(len(tiles) for _, tiles in rows)
    step = _TILE_PX + _GAP_PX
    canvas = np.full((len(rows) * step - _GAP_PX, widest * step - _GAP_PX, 3), 255, dtype=np.uint8)
    for r, (_, tiles) in enumerate(rows):
        for c, tile in enumerate(tiles):
            picture = Image.fromarray(tile.pixels).resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
            canvas[r * step : r * step + _TILE_PX, c * step : c * step + _TILE_PX] = np.array(picture)
    return canvas


def png_bytes(pixels_HWC: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
