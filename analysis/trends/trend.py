"""Sweeps without period (blur, crop, brightness): trend, monotone part, and where a curve leaves its start.

The value at which the view is the anchor is left out of everything: there the two views are one image. Values count
by the stretch of the sweep they stand for (half the way to both neighbours), so that a grid that is finer somewhere
does not move the trend.

Shapes: N images, V values of the sweep in increasing order, B resamples, M blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from analysis.arrays import Bools, Floats
from analysis.blocks import MIN_BLOCKS
from analysis.noise import block_deviations, noise_curves
from analysis.paired import Estimate
from analysis.resampling import Resampling
from trainables.api import axis

_SAME = 1e-9  # over size: rounding
_FLAT = 1e-20  # variance of a curve that does not vary
_CHUNK = 256  # resamples whose V x V averages are in memory at once

Side = Literal["below", "above"]


class TooFewValues(ValueError):
    """Fewer than two values besides the neutral one carry no trend."""


@dataclass(frozen=True, eq=False)
class Departure:
    """Where the curve leaves its own start, going away from the neutral value on one side.

    ``values_V`` begin beside the neutral value, at the start, and go outwards; ``difference_V`` is the mean score minus
    that at the start (0 there), ``low_V`` and ``high_V`` its simultaneous band over all values at once. ``value``: the
    first one from which the band leaves out 0 and does so to the end, always on the same side; None if it never does.
    NaN bands, and no value, from fewer than 3 blocks.
    """

    side: Side
    values_V: Floats
    difference_V: Floats
    low_V: Floats
    high_V: Floats
    value: float | None

    @property
    def has_band(self) -> bool:
        """Whether there is a band to leave: from 2 values and 3 blocks on."""
        return len(self.values_V) > 1 and bool(np.isfinite(self.low_V).all())


@dataclass(frozen=True, eq=False)
class Trend:
    """What a curve without period holds.

    ``slope``: score per unit of the sweep. ``standardised``: correlation of mean curve and value, in [-1, 1].
    ``monotone_share``: variance of the best monotone curve over that of the mean curve; every curve has some, so
    ``monotone_null`` is the quantile of that share in curves of nothing but the noise that the blocks show: too low
    with few blocks, which show few of its directions; NaN from fewer than 3.
    ``rises``: whether the best monotone curve rises. ``departures``: one for each side of the neutral value.
    """

    slope: Estimate
    standardised: Estimate
    monotone_share: Estimate
    monotone_null: float
    rises: bool
    departures: tuple[Departure, ...]


def slopes(scores_NV: Floats, values_V: Floats, neutral: float) -> Floats:
    """Weighted least-squares slope of each image's curve, score per unit of the sweep, [N]: the headline of a trend.

    Raises TooFewValues with fewer than 2 values besides the neutral one, ValueError with values out of order or scores
    that are not finite.
    """
    scores_NV, values_V = _usable(scores_NV, values_V, neutral)
    return np.asarray(scores_NV @ _slope_operator(values_V))


def trend(scores_NV: Floats, values_V: Floats, neutral: float, resampling: Resampling) -> Trend:
    """All statistics of one curve: [N, V] scores at increasing values, ``neutral`` among them or not."""
    used_NV, used_V = _usable(scores_NV, values_V, neutral)
    weights_V = axis.shares(used_V, None)
    operator_V = _slope_operator(used_V)
    mean_1V, mean_BV = used_NV.mean(axis=0, keepdims=True), resampling.weights_BN @ used_NV

    def estimate(value: float, samples_B: Floats, least: float = -math.inf, most: float = math.inf) -> Estimate:
        low, high = resampling.interval(value, samples_B)
        return Estimate(value, float(np.clip(low, least, most)), float(np.clip(high, least, most)))

    value_sd = math.sqrt(_variance(used_V[None], weights_V)[0])
    standardised = [_over(m @ operator_V * value_sd, np.sqrt(_variance(m, weights_V))) for m in (mean_1V, mean_BV)]
    shares = [_monotone_share(m, weights_V) for m in (mean_1V, mean_BV)]
    null_B, _ = _monotone_share(noise_curves(used_NV - (used_NV @ weights_V)[:, None], resampling), weights_V)
    has_null = resampling.can_give_intervals and np.isfinite(null_B).any()
    return Trend(
        estimate(float((mean_1V @ operator_V)[0]), mean_BV @ operator_V),
        estimate(float(standardised[0][0]), standardised[1], -1, 1),
        estimate(float(shares[0][0][0]), shares[1][0], 0, 1),
        float(np.nanquantile(null_B, resampling.bootstrap.confidence)) if has_null else math.nan,
        bool(shares[0][1][0]),
        departures(scores_NV, values_V, neutral, resampling),
    )


def isotonic(curves_BV: Floats, weights_V: Floats) -> Floats:
    """The non-decreasing curve nearest to each row in weighted least squares, [B, V].

    fit[i] = max over j <= i of min over k >= i of the weighted mean of values j to k (Barlow et al. 1972), all rows at
    once.
    """
    parts = [_isotonic(curves_BV[i : i + _CHUNK], weights_V) for i in range(0, len(curves_BV), _CHUNK)]
    return np.concatenate(parts)


def departures(scores_NV: Floats, values_V: Floats, neutral: float, resampling: Resampling) -> tuple[Departure, ...]:
    """Where the curve leaves its start on each side of ``neutral`` that has values."""
    used_NV, used_V = _usable(scores_NV, values_V, neutral)
    found = []
    sides: tuple[tuple[Side, Bools], ...] = (("below", used_V < neutral), ("above", used_V > neutral))
    for side, keep_V in sides:
        if keep_V.any():
            outwards = slice(None, None, -1) if side == "below" else slice(None)
            found.append(_departure(side, used_NV[:, keep_V][:, outwards], used_V[keep_V][outwards], resampling))
    return tuple(found)


def simultaneous_radius(differences_NV: Floats, resampling: Resampling) -> Floats:
    """Half the width of a band that holds all V mean differences at once with the bootstrap's confidence, [V].

    Max-t over a Gaussian multiplier bootstrap of the block means (Chernozhukov et al. 2013): the quantile of the
    largest of V correlated normal variables. Few blocks make each variance uncertain, which a normal quantile does not
    know: it is replaced by the Student quantile (M - 1 degrees of freedom) of the same tail. They show little of how
    the V vary together either (3 blocks lie in a plane), so the correlations are shrunk towards none by 3/M. NaN from
    fewer than 3 blocks.
    """
    if not resampling.can_give_intervals:
        return np.full(differences_NV.shape[1], math.nan)
    num_blocks = resampling.num_blocks
    spread_V = np.sqrt((block_deviations(differences_NV, resampling) ** 2).sum(axis=0))
    varying_V = spread_V > _SAME * np.abs(differences_NV).max(initial=1e-300)
    if not varying_V.any():
        return np.zeros(len(spread_V))
    shared_BV = noise_curves(differences_NV[:, varying_V], resampling) / spread_V[varying_V]
    unseen = min(1.0, MIN_BLOCKS / num_blocks)
    own_BV = np.random.default_rng((resampling.bootstrap.seed, 1)).normal(size=shared_BV.shape)
    largest_B = np.abs(math.sqrt(1 - unseen) * shared_BV + math.sqrt(unseen) * own_BV).max(axis=1)
    tail = float(stats.norm.sf(np.quantile(largest_B, resampling.bootstrap.confidence)))
    critical = float(stats.t.isf(tail, num_blocks - 1)) * math.sqrt(num_blocks / (num_blocks - 1))
    return np.asarray(critical * spread_V)


def _departure(side: Side, scores_NV: Floats, values_V: Floats, resampling: Resampling) -> Departure:
    difference_V = np.zeros(len(values_V))
    radius_V = np.zeros(len(values_V))
    if len(values_V) > 1:
        away_NV = scores_NV[:, 1:] - scores_NV[:, :1]
        difference_V[1:] = away_NV.mean(axis=0)
        radius_V[1:] = simultaneous_radius(away_NV, resampling)
    low_V, high_V = difference_V - radius_V, difference_V + radius_V
    outside_V = np.where(low_V > 0, 1, np.where(high_V < 0, -1, 0))
    value = None
    if outside_V[-1] != 0:
        inside = np.flatnonzero(outside_V != outside_V[-1])
        value = float(values_V[inside[-1] + 1])
    return Departure(side, values_V, difference_V, low_V, high_V, value)


def _usable(scores_NV: Floats, values_V: Floats, neutral: float) -> tuple[Floats, Floats]:
    values_V = np.asarray(values_V, dtype=np.float64)
    if scores_NV.ndim != 2 or scores_NV.shape[1] != len(values_V) or not len(scores_NV):
        raise ValueError(f"scores of shape {scores_NV.shape} for {len(values_V)} values; give one row an image")
    keep_V = ~axis.is_at(values_V, neutral, None)
    used_NV, used_V = scores_NV[:, keep_V], values_V[keep_V]
    if len(used_V) < 2:
        raise TooFewValues(f"a trend needs 2 values besides the neutral {neutral:g}, got {used_V.tolist()}")
    if not np.isfinite(used_NV).all():
        image, at = np.argwhere(~np.isfinite(used_NV))[0]
        raise ValueError(f"the score of image {image} is {used_NV[image, at]} at {used_V[at]:g}; leave that image out")
    if np.diff(used_V).min() <= 0:
        raise ValueError(f"values of a sweep must increase, got {used_V.tolist()}; sort them, each once")
    return used_NV, used_V


def _slope_operator(values_V: Floats) -> Floats:
    weights_V = axis.shares(values_V, None)
    centred_V = values_V - values_V @ weights_V
    return np.asarray(weights_V * centred_V / (weights_V @ centred_V**2))


def _variance(curves_BV: Floats, weights_V: Floats) -> Floats:
    centred_BV = curves_BV - (curves_BV @ weights_V)[:, None]
    return np.asarray((centred_BV**2) @ weights_V)


def _over(part_B: Floats, whole_B: Floats) -> Floats:
    flat_B = whole_B**2 < _FLAT
    return np.where(flat_B, np.nan, part_B / np.where(flat_B, 1.0, whole_B))


def _monotone_share(curves_BV: Floats, weights_V: Floats) -> tuple[Floats, Bools]:
    """The share of the better of both directions, [B] (NaN for flat curves), and whether that is the rising one."""
    whole_B = _variance(curves_BV, weights_V)
    rising_B = _variance(isotonic(curves_BV, weights_V), weights_V)
    falling_B = _variance(isotonic(-curves_BV, weights_V), weights_V)
    flat_B = whole_B < _FLAT
    share_B = np.maximum(rising_B, falling_B) / np.where(flat_B, 1.0, whole_B)
    return np.where(flat_B, np.nan, np.minimum(share_B, 1.0)), np.asarray(rising_B >= falling_B)


def _isotonic(curves_BV: Floats, weights_V: Floats) -> Floats:
    num_values = len(weights_V)
    sums_BV = np.concatenate([np.zeros((len(curves_BV), 1)), np.cumsum(curves_BV * weights_V, axis=1)], axis=1)
    total_V = np.concatenate([[0.0], np.cumsum(weights_V)])
    first, last = np.arange(num_values)[:, None], np.arange(num_values)[None]
    valid = first <= last
    length = np.where(valid, total_V[1:][None] - total_V[:-1][:, None], 1.0)
    means_BVV = np.where(valid, (sums_BV[:, None, 1:] - sums_BV[:, :-1, None]) / length, np.inf)
    least_BVV = np.minimum.accumulate(means_BVV[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(np.where(valid, least_BVV, -np.inf).max(axis=1))
