"""Mean curves that hold nothing but what differs between blocks of images: how far noise alone goes.

Shapes: N images, V values of the sweep, B resamples, M blocks.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.arrays import Floats
from analysis.resampling import Resampling


def block_deviations(scores_NV: Floats, resampling: Resampling) -> Floats:
    """What each block adds to the distance of the mean curve from its expectation, [M, V]; the sum is 0."""
    centred_NV = scores_NV - scores_NV.mean(axis=0)
    sums_MV = np.stack([np.bincount(resampling.block_of_N, column) for column in centred_NV.T], axis=1)
    return np.asarray(sums_MV / len(scores_NV))


def noise_curves(scores_NV: Floats, resampling: Resampling) -> Floats:
    """Mean curves [B, V] around 0 that vary as the mean of the blocks does: a normal number times each deviation."""
    rng = np.random.default_rng(resampling.bootstrap.seed)
    normal_BM = rng.normal(size=(resampling.bootstrap.num_samples, resampling.num_blocks))
    return np.asarray(normal_BM @ block_deviations(scores_NV, resampling))


def noise_range(scores_NV: Floats, resampling: Resampling) -> float:
    """The range (largest minus least value) below which curves of nothing but noise stay, with the bootstrap's
    confidence. NaN from fewer than 3 blocks.

    Multiplier bootstrap of the block means, as the bands of a trend; widened for few blocks as intervals are, by
    sqrt(m/(m-1)) and the Student quantile over the normal one. That is exact for noise of one shape (such as random
    slopes), and conservative for noise of many: of simulated curves 0 to 6 % go further, with 3 to 75 blocks.
    """
    if not resampling.can_give_intervals:
        return math.nan
    ranges_B = np.ptp(noise_curves(scores_NV, resampling), axis=1)  # levels move a whole curve, and no range
    return float(np.quantile(ranges_B, resampling.bootstrap.confidence)) * resampling.widening
