"""Intervals and null distributions over images that are not independent.

Neighbouring slices of a volume are nearly the same image, so whole blocks of neighbours are drawn. Blocks do not
overlap (Carlstein 1986): each image is in exactly one, images at the ends of a volume count as much as those in the
middle, and the number of blocks is the honest sample size. Block length 1 is the ordinary bootstrap.

A bootstrap over few blocks is too narrow: its variance lacks the factor m/(m-1), and it uses normal in place of
Student quantiles. Deviations from the estimate are therefore widened by sqrt(m/(m-1)) * t / z (after Hesterberg
2015, "What Teachers Should Know About the Bootstrap"), in the plane by the corresponding factor of Hotelling.

Shapes: N images, M blocks, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import stats

from analysis.arrays import Complexes, Floats
from analysis.blocks import MIN_BLOCKS, blocks_of
from analysis.bootstrap import Bootstrap

_NOTHING = (math.nan, math.nan)
_DEGENERATE = 1e-24


class Resampling:
    """One set of resamples for all curves over the same images, so that their differences are paired."""

    def __init__(self, groups: Sequence[str], bootstrap: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self.block_of_N = blocks_of(groups, bootstrap.block_length)
        self.num_blocks = int(self.block_of_N.max()) + 1
        rng = np.random.default_rng(bootstrap.seed)
        drawn_BM = rng.multinomial(
            self.num_blocks, np.full(self.num_blocks, 1 / self.num_blocks), bootstrap.num_samples
        )
        weights_BN = drawn_BM[:, self.block_of_N].astype(np.float64)
        self.weights_BN: Floats = weights_BN / weights_BN.sum(axis=1, keepdims=True)
        angle_BM = rng.uniform(0, 2 * math.pi, (bootstrap.num_samples, self.num_blocks))
        self._turns_BN: Complexes = np.exp(1j * angle_BM[:, self.block_of_N])
        self.signs_BN: Floats = np.where(self._turns_BN.real >= 0, 1.0, -1.0)

    @property
    def can_give_intervals(self) -> bool:
        return self.num_blocks >= MIN_BLOCKS

    def interval(self, estimate: float, samples_B: Floats) -> tuple[float, float]:
        """Percentile interval of a number, widened for few blocks. (nan, nan) from fewer than 3 blocks."""
        if not math.isfinite(estimate):
            return _NOTHING
        usable_B1 = samples_B[np.isfinite(samples_B)][:, None]
        low_1, high_1 = self.intervals(np.array([estimate]), usable_B1)
        return float(low_1[0]), float(high_1[0])

    def intervals(self, estimates_A: Floats, samples_BA: Floats) -> tuple[Floats, Floats]:
        """Like ``interval`` for many numbers at once: lower and upper ends, [A] each."""
        if not self.can_give_intervals or not len(samples_BA):
            return np.full_like(estimates_A, math.nan), np.full_like(estimates_A, math.nan)
        tail = (1 - self.bootstrap.confidence) / 2
        low_A, high_A = np.quantile(samples_BA, [tail, 1 - tail], axis=0)
        widen = self.widening
        return estimates_A + widen * (low_A - estimates_A), estimates_A + widen * (high_A - estimates_A)

    def magnitude_interval(self, estimate: complex, samples_B: Complexes | Floats) -> tuple[float, float]:
        """Least and largest |z| over the confidence region of a complex mean, or over the interval of a real one.

        The magnitudes of the resamples themselves never reach 0, so their percentiles would call every amplitude
        significant. Here the lower end is 0 exactly when the region holds 0. Conservative: the region covers both
        parts at once.
        """
        if not self.can_give_intervals:
            return _NOTHING
        if not np.iscomplexobj(samples_B):
            low, high = self.interval(estimate.real, samples_B.real)
            return max(0.0, low, -high), max(abs(low), abs(high))
        boundary = self.region(estimate, np.asarray(samples_B, dtype=np.complex128))
        holds_zero = _inside(boundary, estimate)
        return 0.0 if holds_zero else float(np.abs(boundary).min()), float(np.abs(boundary).max())

    def region(self, estimate: complex, samples_B: Complexes, num_points: int = 180) -> Complexes:
        """Boundary of the confidence ellipse of a complex mean: the estimate itself where nothing varies."""
        if not self.can_give_intervals:
            return np.full(num_points, complex(math.nan, math.nan))
        away_B2 = np.stack([samples_B.real - estimate.real, samples_B.imag - estimate.imag], axis=1)
        covariance = away_B2.T @ away_B2 / len(away_B2)
        scale = float(np.trace(covariance))
        if scale < _DEGENERATE:
            return np.full(num_points, estimate)
        root = np.linalg.cholesky(covariance + 1e-9 * scale * np.eye(2))
        distance_B = np.linalg.norm(np.linalg.solve(root, away_B2.T), axis=0)
        radius = float(np.quantile(distance_B, self.bootstrap.confidence)) * self._widening_in_plane
        turn = np.linspace(0, 2 * math.pi, num_points, endpoint=False)
        ellipse = radius * root @ np.stack([np.cos(turn), np.sin(turn)])
        return np.asarray(estimate + ellipse[0] + 1j * ellipse[1])

    def debiased_magnitude(self, estimate: complex, samples_B: Complexes | Floats) -> float:
        """|c| without the part that noise adds: E|ĉ|² = |c|² + trace of the covariance of the mean. At least 0."""
        if self.num_blocks < 2:
            return math.nan
        noise = float((np.abs(samples_B - samples_B.mean()) ** 2).mean()) * self.num_blocks / (self.num_blocks - 1)
        return math.sqrt(max(0.0, abs(estimate) ** 2 - noise))

    def null_magnitude(self, values_N: Complexes | Floats) -> float:
        """The ``confidence`` quantile of |mean| when each block's curves are shifted round the circle at random.

        A shift of a curve by δ turns its coefficient of order 4 by 4δ and changes nothing else, so the shift is
        done on the coefficients, exactly, on any grid. Shapes and sizes of the single waves stay, only the
        agreement on *where* they peak goes. A permutation of the angles would destroy the smoothness too, and then
        every smooth curve counts as significant. Images of a block are shifted together: they are nearly one image.
        A real coefficient has no phase to turn, only a sign. NaN from too few blocks: to shift one alone changes no
        magnitude.
        """
        if not self.can_give_intervals:
            return math.nan
        turns_BN = self._turns_BN if np.iscomplexobj(values_N) else self.signs_BN
        null_B = np.abs((turns_BN * values_N).mean(axis=1))
        return float(np.quantile(null_B, self.bootstrap.confidence))

    @cached_property
    def widening(self) -> float:
        """By what a bootstrap over so few blocks is too narrow."""
        tail = (1 + self.bootstrap.confidence) / 2
        student = stats.t.ppf(tail, self.num_blocks - 1) / stats.norm.ppf(tail)
        return float(student * math.sqrt(self.num_blocks / (self.num_blocks - 1)))

    @cached_property
    def _widening_in_plane(self) -> float:
        m, level = self.num_blocks, self.bootstrap.confidence
        hotelling = 2 * (m - 1) / (m - 2) * stats.f.ppf(level, 2, m - 2) / stats.chi2.ppf(level, 2)
        return math.sqrt(float(hotelling) * m / (m - 1))


def _inside(boundary: Complexes, centre: complex) -> bool:
    """Whether 0 lies inside the ellipse: the boundary winds round it."""
    if np.abs(boundary - centre).max() == 0:
        return centre == 0
    steps = np.angle(np.roll(boundary, -1) / np.where(boundary == 0, 1e-300, boundary))
    return bool(abs(steps.sum()) > math.pi)
