"""Which images stand together: blocks as long as the correlation that is seen, and whom an interval speaks of.

Neighbouring slices of a volume are nearly one image. Three cases:

- From three patients (or volumes) on, a block is a whole group. Only so is an interval one for people: with
  a correlation of .3 within groups, blocks that cut 3 to 5 groups of 10 to 15 images call nothing something in 17 to
  30 % of cases instead of 5 %, and so few groups do not show that correlation.
- Images whose patients are not known are one series in the order of the data set, cut so that neighbouring block means
  have a lag-1 correlation of at most ``RESIDUAL_CORRELATION_OF_IMAGES``; intervals speak of images like these.
- Slabs of one volume, or one or two patients, say nothing about people. They are cut in the same way, to
  ``RESIDUAL_CORRELATION``; intervals speak of them alone.

Where fewer than three blocks remain there is no interval at all.

Shapes: N images, K series over the same images.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.arrays import Complexes, Floats
from analysis.bootstrap import Bootstrap
from trainables.api.card import Groups

MIN_BLOCKS = 3  # a covariance in the plane from fewer has no interval
RESIDUAL_CORRELATION = 0.1  # of neighbouring block means; .15 lets false alarms of a real number pass 8 %
RESIDUAL_CORRELATION_OF_IMAGES = 0.05
"""Smaller where the interval carries a verdict: .1 calls nothing something in 9 % of cases with 30 images correlated
.3, a real number; .05 in 6 to 7 %, with the same power for images that are independent."""
_MIN_PAIRS = 3
_NO_SPREAD = 1e-12  # over size: rounding
_ALWAYS_ALIKE = 0.99


def blocks_of(groups: Sequence[str], block_length: int) -> NDArray[np.int64]:
    """The block of each image, [N]; images come in order, those of a group (volume) together.

    A group is cut into round(size / block_length) contiguous blocks of nearly equal size, one at least.
    Raises ValueError when the images of a group do not stand together.
    """
    blocks = np.empty(len(groups), dtype=np.int64)
    seen: set[str] = set()
    next_block = start = 0
    while start < len(groups):
        group = groups[start]
        if group in seen:
            raise ValueError(f"images of group {group!r} do not stand together; sort them by group and position")
        seen.add(group)
        size = next((i for i, other in enumerate(groups[start:]) if other != group), len(groups) - start)
        for part in np.array_split(np.arange(start, start + size), max(1, round(size / block_length))):
            blocks[part] = next_block
            next_block += 1
        start += size
    return blocks


def neighbour_correlation(series_KN: Floats | Complexes, groups: Sequence[str]) -> float:
    """Correlation of neighbouring images of a group, pooled over K series, each centred and scaled by itself.

    For complex values the real part of the complex correlation. NaN with fewer than 3 pairs, or where nothing varies.
    """
    values_KN = np.atleast_2d(series_KN)
    pairs = np.array([a == b for a, b in itertools.pairwise(groups)], dtype=bool)
    centred_KN = values_KN - values_KN.mean(axis=1, keepdims=True)
    power_K = (np.abs(centred_KN) ** 2).mean(axis=1)
    varying_K = power_K > _NO_SPREAD**2 * (np.abs(values_KN) ** 2).mean(axis=1)
    if pairs.sum() < _MIN_PAIRS or not varying_K.any():
        return float("nan")
    scaled_KN = centred_KN[varying_K] / np.sqrt(power_K[varying_K])[:, None]
    first, second = scaled_KN[:, :-1][:, pairs], scaled_KN[:, 1:][:, pairs]
    power = float((np.abs(first) ** 2).sum() + (np.abs(second) ** 2).sum())
    return float(2 * (first * second.conj()).real.sum() / power) if power > 0 else float("nan")


def without_bias(correlation: float, num_images: int) -> float:
    """A lag-1 correlation freed of what centring by the sample's own mean takes away, at most 1.

    E[r] is about ρ - (1 + 3ρ) / N in an AR(1) series (Kendall 1954): .9 shows as .44 in 8 images.
    """
    if num_images <= 3:
        return 1.0
    return min(1.0, (correlation + 1 / num_images) / (1 - 3 / num_images))


def block_mean_correlation(correlation: float, block_length: int) -> float:
    """Lag-1 correlation of the means of neighbouring blocks of an AR(1) series with this lag-1 correlation."""
    if correlation <= 0 or correlation >= 1:
        return float(np.clip(correlation, 0, 1))
    lags = np.arange(1, block_length)
    variance = block_length + 2 * float(((block_length - lags) * correlation**lags).sum())
    covariance = correlation * (1 - correlation**block_length) ** 2 / (1 - correlation) ** 2
    return covariance / variance


def needed_length(correlation: float, longest: int, residual: float = RESIDUAL_CORRELATION) -> int:
    """The shortest block whose means are nearly independent of the next one's; ``longest`` where none is."""
    if correlation >= _ALWAYS_ALIKE:
        return longest
    lengths = range(1, longest)
    return next((n for n in lengths if block_mean_correlation(correlation, n) <= residual), longest)


@dataclass(frozen=True)
class Blocks:
    """How the images were put together. ``Resampling(blocks.groups, blocks.applied_to(bootstrap))`` draws them.

    ``groups``: what no block crosses (one name for all images of one series); ``correlation``: the lag-1 correlation
    that is seen, NaN where there are no neighbours; ``kind``: what a group of the data set is; ``num_groups``: how many
    there are, 1 for slabs of one volume.
    """

    groups: tuple[str, ...]
    length: int
    num_blocks: int
    correlation: float
    kind: Groups
    num_groups: int

    @property
    def are_whole_groups(self) -> bool:
        """Whether a block is a whole patient or volume, else a stretch of one series."""
        return _are_whole_groups(self.kind, self.num_groups)

    @property
    def speak_of_others(self) -> bool:
        """Whether an interval speaks of others than these: other patients, other images like these."""
        return self.are_whole_groups or self.kind == "images"

    @property
    def can_give_intervals(self) -> bool:
        return self.num_blocks >= MIN_BLOCKS

    @property
    def assignment(self) -> NDArray[np.int64]:
        """The block of each image, [N]."""
        return blocks_of(self.groups, self.length)

    def applied_to(self, bootstrap: Bootstrap) -> Bootstrap:
        return replace(bootstrap, block_length=self.length)


def choose_blocks(series: Sequence[Floats | Complexes], groups: Sequence[str], kind: Groups) -> Blocks:
    """Blocks for intervals of the quantities whose per-image values are given.

    Args:
        series: arrays [N] or [K, N] of per-image values in the order of ``groups``; rows of one array are pooled, and
            the largest correlation of the arrays counts (say: the curves, and the difference that is tested).
        groups: group of each image, those of a group together, in their order along it.
        kind: what a group is.

    Raises ValueError when images of a group do not stand together, or a series has another number of images.
    """
    num_images = len(groups)
    if any(np.shape(values)[-1] != num_images for values in series):
        raise ValueError(f"series of shapes {[np.shape(v) for v in series]} for {num_images} images in groups")
    blocks_of(groups, 1)  # raises where a group is torn apart, also where its name is not looked at below
    num_groups = 1 if kind == "slabs of one volume" else len(set(groups))
    are_whole = _are_whole_groups(kind, num_groups)
    joined = tuple(groups) if are_whole else ("one series",) * num_images
    seen = [neighbour_correlation(values, joined) for values in series]
    correlation = max((r for r in seen if np.isfinite(r)), default=float("nan"))
    if are_whole:
        length = max(Counter(groups).values())
    elif np.isfinite(correlation):
        residual = RESIDUAL_CORRELATION_OF_IMAGES if kind == "images" else RESIDUAL_CORRELATION
        length = needed_length(without_bias(correlation, num_images), num_images, residual)
    else:
        length = num_images
    num_blocks = int(blocks_of(joined, length).max()) + 1 if num_images else 0
    return Blocks(joined, length, num_blocks, correlation, kind, num_groups)


def _are_whole_groups(kind: Groups, num_groups: int) -> bool:
    return kind in ("patients", "volumes") and num_groups >= MIN_BLOCKS
