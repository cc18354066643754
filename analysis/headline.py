"""The one coefficient of a curve on which a report concludes: complex for a rotation, real for what has no period."""

from __future__ import annotations

import numpy as np

from analysis.arrays import Complexes, Floats
from analysis.curves.sweep import SweepFacts
from analysis.rotation import wave
from analysis.trends import trend


class UnknownPeriod(ValueError):
    """No coefficient is known on which a sweep with a period, other than rotation, could conclude."""


def headline(
    scores_NV: Floats, values_V: Floats, sweep: SweepFacts, num_harmonics: int | None = None
) -> Floats | Complexes:
    """The headline coefficient of each image's curve, [N].

    Of a rotation the 90° wave ``A + iB``, complex, fitted to the interpolated angles (without the multiples of 90°,
    0 and 360 among them); of a sweep without period the slope, real, in score per unit of the sweep, without the
    neutral value.

    Args:
        scores_NV: one row an image, finite. values_V: increasing, in the sweep's unit.
        num_harmonics: of the wave, beside the fundamental; None takes as many as the grid resolves, at most 4.

    Raises:
        wave.CoarseGrid: the angles do not carry a 90° wave.
        trend.TooFewValues: fewer than two values besides the neutral one.
        UnknownPeriod: another sweep that has a period.
        ValueError: scores or values that do not fit together (see ``fit_wave``, ``trend.slopes``).
    """
    if sweep.is_rotation:
        keep_V = wave.full_turn_removed(values_V) & ~wave.is_multiple_of_90(values_V)
        return wave.fit_wave(np.asarray(scores_NV)[:, keep_V], values_V[keep_V], num_harmonics).coefficients()
    if sweep.period is not None:
        raise UnknownPeriod(f"no coefficient is known to conclude on over the {sweep.title}, which has a period")
    return trend.slopes(scores_NV, values_V, sweep.neutral)
