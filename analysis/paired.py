"""One record for any headline coefficient, complex (a wave) or real (a trend), and for what a control explains of it.

Coefficients come one an image; the mean over images is what is described. Everything is resampled in blocks of
images, and two curves over the same images stay paired.

Shapes: N images, B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from analysis.arrays import Complexes, Floats
from analysis.resampling import Resampling

_NO_POWER = 1e-20  # of a squared coefficient: nothing to take a share of


class Estimate(NamedTuple):
    """A number with its interval; the ends are NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Description:
    """A mean coefficient.

    ``size``: its magnitude, the interval beginning at 0 exactly where the confidence region holds 0. ``real`` and
    ``imaginary``: its parts (``imaginary`` None for a real coefficient). ``debiased``: the size without what noise
    adds. ``null``: the quantile of the size when the blocks do not agree (on where the wave peaks; on the sign of a
    trend).
    """

    size: Estimate
    real: Estimate
    imaginary: Estimate | None
    debiased: float
    null: float


@dataclass(frozen=True)
class Explained:
    """What a control has of a reference's coefficient.

    ``share``: Re(control conj(reference)) / |reference|², 1 for all of it at the same phase or sign, above 1 where the
    control's is the larger, negative in antiphase; without interval where the reference itself may be 0.
    ``remainder``: reference minus control, described.
    """

    share: Estimate
    remainder: Description


def describe(values_N: Floats | Complexes, resampling: Resampling) -> Description:
    """The mean over images of one curve's coefficients, or of a paired difference of two curves."""
    centre, samples_B = values_N.mean(), resampling.weights_BN @ values_N
    parts = [_with_interval(float(np.real(centre)), np.real(samples_B), resampling)]
    if np.iscomplexobj(values_N):
        parts.append(_with_interval(float(np.imag(centre)), np.imag(samples_B), resampling))
    return Description(
        size=Estimate(float(abs(centre)), *resampling.magnitude_interval(centre.item(), samples_B)),
        real=parts[0],
        imaginary=parts[1] if len(parts) == 2 else None,
        debiased=resampling.debiased_magnitude(centre.item(), samples_B),
        null=resampling.null_magnitude(values_N),
    )


def explained(reference_N: Floats | Complexes, control_N: Floats | Complexes, resampling: Resampling) -> Explained:
    """What ``control_N`` has of ``reference_N``, paired over the same images."""
    reference_B, control_B = resampling.weights_BN @ reference_N, resampling.weights_BN @ control_N
    share = float(_share(np.asarray(reference_N.mean()), np.asarray(control_N.mean())))
    ends = resampling.interval(share, _share(reference_B, control_B))
    if resampling.magnitude_interval(reference_N.mean().item(), reference_B)[0] == 0:
        ends = (np.nan, np.nan)
    remainder_N: Floats | Complexes = reference_N - control_N  # type: ignore[assignment]
    return Explained(Estimate(share, *ends), describe(remainder_N, resampling))


def _with_interval(value: float, samples_B: Floats, resampling: Resampling) -> Estimate:
    return Estimate(value, *resampling.interval(value, samples_B))


def _share(reference: Floats | Complexes, control: Floats | Complexes) -> Floats:
    power = np.abs(reference) ** 2
    flat = power < _NO_POWER
    return np.where(flat, np.nan, (control * np.conj(reference)).real / np.where(flat, 1.0, power))
