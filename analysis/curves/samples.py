"""Sample maps: image, mask and saliency map, as they are and changed. Plain arrays of pixels, no plotting library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

from analysis.curves.sweep import SweepFacts
from analysis.render.tile import Pixels, Tile

Samples = Mapping[str, NDArray[Any]]

_TILE_PX = 160
_ROUNDING = 1e-6
_OUTLINE = (64, 224, 208)
# Anchors of the magma colour map (S. van der Walt, N. Smith, matplotlib, CC0): even steps of lightness, dark is low.
_MAGMA = np.array(
    [
        [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122], [229, 80, 100], [251, 135, 97],
        [254, 194, 135], [252, 253, 191],
    ],
    dtype=np.float64,
)  # fmt: skip


def can_be_shown(samples: Samples, sweep: SweepFacts) -> bool:
    """Whether there is an image with maps at the neutral value and at another; a method may leave the neutral out."""
    neutral_V = sweep.is_neutral(samples["values"])
    return len(samples["image_id"]) > 0 and bool(neutral_V.any()) and not bool(neutral_V.all())


def sample_rows(
    trained: Samples, untrained: Samples | None, sweep: SweepFacts, max_images: int = 4
) -> list[tuple[str, list[Tile]]]:
    """(image id, tiles) of the first images: image, mask, map; the view, its map, that map brought back.

    ``trained`` and ``untrained`` are contents of ``samples.npz``: ``image_id [K]``, ``images_KHW`` and ``masks_KHW``
    uint8, ``values [V]`` (the neutral one and another), ``views_KVHW``, ``view_maps_KVHW``, ``maps_KVHW`` float32. The
    mask's outline is drawn on maps in the image's frame; each map is scaled from its own least to its largest value.
    The untrained encoder's maps of the same images follow where they are there.

    Raises ValueError when the samples hold no neutral value or no other (see ``can_be_shown``).
    """
    if not can_be_shown(trained, sweep):
        raise ValueError(f"samples at {trained['values'].tolist()}: the neutral value and another are needed")
    neutral_V = sweep.is_neutral(trained["values"])
    still, changed = int(neutral_V.argmax()), int((~neutral_V).argmax())
    at = f"{sweep.title} {sweep.text(float(trained['values'][changed]))}"
    rows = []
    for k, name in enumerate([str(name) for name in trained["image_id"]][:max_images]):
        tiles = _tiles(trained, k, still, changed, at)
        match = _row_of(untrained, name)
        if untrained is not None and match is not None:
            mask_HW, maps_VHW = trained["masks_KHW"][k], untrained["maps_KVHW"][match]
            tiles.append(Tile("untrained map", _map(maps_VHW[still], mask_HW)))
            tiles.append(Tile(f"untrained map, {at}, brought back", _map(maps_VHW[changed], mask_HW)))
        rows.append((name, tiles))
    return rows


def _tiles(samples: Samples, k: int, still: int, changed: int, at: str) -> list[Tile]:
    image_HW, mask_HW = samples["images_KHW"][k], samples["masks_KHW"][k]
    return [
        Tile("image", grey(image_HW)),
        Tile("mask", grey(mask_HW.astype(np.float32))),
        Tile("map", _map(samples["maps_KVHW"][k, still], mask_HW)),
        Tile(f"view, {at}", grey(samples["views_KVHW"][k, changed])),
        Tile("map of the view", heat(samples["view_maps_KVHW"][k, changed])),
        Tile("that map, brought back", _map(samples["maps_KVHW"][k, changed], mask_HW)),
    ]


def _row_of(samples: Samples | None, name: str) -> int | None:
    ids = [] if samples is None else [str(i) for i in samples["image_id"]]
    return ids.index(name) if name in ids else None


def scaled(values_HW: NDArray[Any]) -> NDArray[np.float64]:
    """Values from their least (0) to their largest (1); a map that is constant but for rounding is 0. Not finite counts
    as least."""
    values = np.asarray(values_HW, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = values[finite].min(), values[finite].max()
    if high - low <= _ROUNDING * max(abs(high), abs(low)):  # else rounding would be shown as a pattern
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
