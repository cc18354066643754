"""The 90° wave in a curve of Dice over the rotation angle: least squares on any grid of angles.

The model of one image's curve is

    y(θ) = m + Σ_{j=1..3} (a_j cos jθ + b_j sin jθ) + Σ_{k=1..K} (A_k cos 4kθ + B_k sin 4kθ)

The orders 4k are the wave of period 90° with its harmonics; ``c_k = A_k + i B_k``. The orders 1 to 3 are a nuisance: a
patient's left-right or top-bottom difference, which on an uneven grid would leak into the wave if it had no
terms of its own.

Every angle is weighted with the arc it stands for. On an even grid this is ordinary least squares; on a grid
that is finer near the multiples of 90° it keeps the coefficients those of the curve instead of those of the sampling.

Shapes: N images, A angles, P terms of the model, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.arrays import Bools, Complexes, Floats
from trainables.api import axis
from trainables.api.wave import NUISANCE_ORDERS, ORDER, PERIOD_DEG, design, fit_operator, max_harmonics

_TURN_DEG = 360.0
DEFAULT_MAX_HARMONICS = 4
_SAME_ANGLE_DEG = 1e-6


class CoarseGrid(ValueError):
    """The grid of angles cannot carry the wave that was asked for."""


def full_turn_removed(angles_deg_A: Floats) -> Bools:
    """Which angles stay in a fit: all but 360, which is angle 0 once more. Raises ValueError outside [0, 360]."""
    if angles_deg_A.min() < 0 or angles_deg_A.max() > 360 + _SAME_ANGLE_DEG:
        raise ValueError(f"angles from {angles_deg_A.min()} to {angles_deg_A.max()} degrees; allowed are 0 to 360")
    return np.asarray(angles_deg_A < 360 - _SAME_ANGLE_DEG)


def is_multiple_of_90(angles_deg_A: Floats) -> Bools:
    """Whether a rotation is exact on a pixel grid (0, 90, 180, 270): no interpolation and no black corners."""
    residue = np.mod(angles_deg_A, PERIOD_DEG)
    return np.asarray(np.minimum(residue, PERIOD_DEG - residue) < _SAME_ANGLE_DEG)


def mean_over_angles(values_NA: Floats, angles_deg_A: Floats) -> Floats:
    """The level of each curve: its mean over the circle, each angle weighted with its arc, 360 left out, [N]."""
    keep_A = full_turn_removed(angles_deg_A)
    return np.asarray(values_NA[:, keep_A] @ axis.shares(angles_deg_A[keep_A], _TURN_DEG))


@dataclass(frozen=True, eq=False)
class WaveFit:
    """The model fitted to each image's curve. ``terms_NP`` is linear in the curves: means commute with the fit."""

    angles_deg_A: Floats
    weights_A: Floats
    num_harmonics: int
    terms_NP: Floats

    def of_mean(self) -> WaveFit:
        """The fit of the mean curve over the images, one row."""
        return replace(self, terms_NP=self.terms_NP.mean(axis=0, keepdims=True))

    def coefficients(self, harmonic: int = 1, terms_NP: Floats | None = None) -> Complexes:
        """``A_k + i B_k`` of each row, [N]. The wave is |c| cos(4kθ - arg c)."""
        if not 1 <= harmonic <= self.num_harmonics:
            raise ValueError(f"harmonic {harmonic} was not fitted; fitted are 1 to {self.num_harmonics}")
        terms = self.terms_NP if terms_NP is None else terms_NP
        column = 1 + 2 * len(NUISANCE_ORDERS) + 2 * (harmonic - 1)
        return np.asarray(terms[:, column] + 1j * terms[:, column + 1])

    def predict(self, angles_deg_A: Floats) -> Floats:
        """The whole model at other angles, [N, A]."""
        return np.asarray(self.terms_NP @ design(angles_deg_A, self.num_harmonics).T)

    def wave(self, angles_deg_A: Floats, num_harmonics: int | None = None, terms_NP: Floats | None = None) -> Floats:
        """Only the wave of period 90° (without mean and orders 1 to 3), [N, A], up to ``num_harmonics``."""
        first = 1 + 2 * len(NUISANCE_ORDERS)
        last = first + 2 * (self.num_harmonics if num_harmonics is None else num_harmonics)
        terms = self.terms_NP if terms_NP is None else terms_NP
        return np.asarray(terms[:, first:last] @ design(angles_deg_A, self.num_harmonics)[:, first:last].T)


def fit_wave(dice_NA: Floats, angles_deg_A: Floats, num_harmonics: int | None = None) -> WaveFit:
    """Fit every image's curve. Angles in degrees in [0, 360), each once.

    ``num_harmonics`` None takes as many as the grid resolves, at most 4 (periods 90°, 45°, 30°, 22.5°).

    Raises:
        CoarseGrid: the grid does not resolve the harmonics asked for (Nyquist), or not even the fundamental.
        ValueError: shapes differ, values that are not finite, an angle twice or outside [0, 360).
    """
    angles_deg_A = np.asarray(angles_deg_A, dtype=np.float64)
    _check(dice_NA, angles_deg_A)
    resolved = max_harmonics(angles_deg_A)
    if num_harmonics is None:
        num_harmonics = min(DEFAULT_MAX_HARMONICS, max(resolved, 1))
    if num_harmonics < 1 or num_harmonics > resolved:
        gap = float(np.diff(np.sort(angles_deg_A), append=angles_deg_A.min() + 360).max())
        raise CoarseGrid(
            f"{num_harmonics} harmonic(s) of the 90° wave on {len(angles_deg_A)} angles with a gap of {gap:g}°: this "
            f"grid resolves {resolved}; a period of {PERIOD_DEG / max(num_harmonics, 1):g}° needs gaps under "
            f"{PERIOD_DEG / 2 / max(num_harmonics, 1):g}°. Measure more angles or ask for fewer harmonics"
        )
    weights_A = axis.shares(angles_deg_A, _TURN_DEG)
    operator_PA = fit_operator(angles_deg_A, num_harmonics)
    return WaveFit(angles_deg_A, weights_A, num_harmonics, np.asarray(dice_NA @ operator_PA.T))


def _check(dice_NA: Floats, angles_deg_A: Floats) -> None:
    if dice_NA.ndim != 2 or dice_NA.shape[1] != len(angles_deg_A):
        raise ValueError(f"curves of shape {dice_NA.shape} for {len(angles_deg_A)} angles; give one row an image")
    if len(angles_deg_A) == 0:
        raise CoarseGrid("there is no angle to fit the wave to; add angles between the multiples of 90°")
    if angles_deg_A.min() < 0 or angles_deg_A.max() >= 360 - _SAME_ANGLE_DEG:
        raise ValueError("angles must lie in [0, 360): 360 is angle 0 again, leave it out of a fit")
    if np.diff(np.sort(angles_deg_A)).min(initial=360) < _SAME_ANGLE_DEG:
        raise ValueError("an angle occurs twice in the grid; average its rows first")
    if not np.isfinite(dice_NA).all():
        image, angle = np.argwhere(~np.isfinite(dice_NA))[0]
        raise ValueError(
            f"the curve of image {image} is {dice_NA[image, angle]} at {angles_deg_A[angle]:g}°; leave that image out"
        )


def phase_deg(coefficient: complex, harmonic: int = 1) -> float:
    """The angle of the first maximum of a wave |c| cos(4kθ - arg c), in [0, 90/k) degrees."""
    period = PERIOD_DEG / harmonic
    return float(np.rad2deg(np.angle(coefficient)) / (ORDER * harmonic) % period)


def share_of_variance(mean_BA: Floats, wave_BA: Floats, weights_A: Floats) -> Floats:
    """Variance of the fitted wave over the angles, divided by the variance of the curve, in [0, 1], [B].

    NaN for a curve that does not vary.
    """
    curve = _weighted_variance(mean_BA, weights_A)
    wave = _weighted_variance(wave_BA, weights_A)
    flat = curve < 1e-20
    return np.where(flat, np.nan, np.minimum(wave / np.where(flat, 1.0, curve), 1.0))


def _weighted_variance(values_BA: Floats, weights_A: Floats) -> Floats:
    share_A = weights_A / weights_A.sum()
    centred = values_BA - (values_BA @ share_A)[:, None]
    return np.asarray((centred**2) @ share_A)


def spike(dice_NA: Floats, angles_deg_A: Floats, fit: WaveFit, at_deg: Sequence[float]) -> Floats:
    """The spike of each image's curve at ``at_deg``, [N].

    The spike is the mean over ``at_deg`` of the measured value minus the wave there. ``fit``: of the same images at the
    interpolated angles alone (all but the multiples of 90°). Only angles of the grid count; raises CoarseGrid when none
    of ``at_deg`` is in it.
    """
    present = [a for a in at_deg if np.abs(angles_deg_A - a).min() < _SAME_ANGLE_DEG]
    if not present:
        raise CoarseGrid(f"none of the angles {tuple(at_deg)} is in the grid; add them to measure the spike there")
    measured_NA = dice_NA[:, [int(np.abs(angles_deg_A - a).argmin()) for a in present]]
    return np.asarray((measured_NA - fit.predict(np.array(present))).mean(axis=1))


def neighbour_operator(angles_deg_A: Floats, at_deg: tuple[float, ...], step_deg: float = 1.0) -> Floats:
    """Weights over the angles, [A], whose product with a curve is its spike against the mean of two neighbours.

    The neighbours lie at ±``step_deg``; only angles with both of them in the grid count. Raises CoarseGrid without one.
    """
    operator_A = np.zeros(len(angles_deg_A))
    found = 0
    for angle in at_deg:
        rows = [_row_of(angles_deg_A, angle + offset) for offset in (0.0, -step_deg, step_deg)]
        if None in rows:
            continue
        found += 1
        for row, weight in zip(rows, (1.0, -0.5, -0.5), strict=True):
            operator_A[row] += weight
    if not found:
        raise CoarseGrid(f"no angle of {at_deg} has both neighbours at ±{step_deg:g}° in the grid")
    return operator_A / found


def _row_of(angles_deg_A: Floats, angle_deg: float) -> int | None:
    distance = np.abs(angles_deg_A - angle_deg % 360)
    row = int(distance.argmin())
    return row if distance[row] < _SAME_ANGLE_DEG else None
