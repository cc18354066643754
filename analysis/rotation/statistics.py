"""Statistics of rotation curves: the 90° wave, the spike at exact multiples of 90°, and what the controls explain.

Two fits of the wave stand side by side. ``interpolated`` uses all angles but the multiples of 90°, and is the one
to draw conclusions from: at the multiples rotation is exact, everywhere else it interpolates and brings black
corners in, and this difference needs no model at all. ``all`` uses every angle but 360, as an eye on the published
figure does; a spike of height h at the multiples leaks into it with 2h times the share of the circle that these
angles stand for, so it depends on the density of the grid.

The spike is the mean over 90, 180 and 270 of the measured Dice minus the interpolated wave there. Angle 0 is kept
apart: there the two views are the same image, so their similarity is at its maximum and the gradient a special case.

Tidy frames: role, field_of_view, binarisation, fit, quantity, value, low, high, n (images). ``low`` and ``high``
are null where a quantity has no interval; ``value`` is null where it is not defined on this grid or from so few
images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import signal

from analysis import paired
from analysis.arrays import Complexes, Floats
from analysis.blocks import neighbour_correlation
from analysis.curves.panels import ROLE, TRAINED, Curve, Panel
from analysis.noise import noise_range
from analysis.paired import Description, Estimate, describe
from analysis.resampling import Resampling
from analysis.rotation import wave
from analysis.rotation.fitted import FITS, FittedCurve, FittedPanel, fitted_angles, without_full_turn
from analysis.rotation.wave import WaveFit
from trainables.api.wave import PERIOD_DEG

PROMINENCE_SHARE = 0.25  # of the range of the mean curve: a smaller bump is not an extremum

Row = dict[str, Any]
Quantity = tuple[str, float, float, float]  # name, value, low, high
_SCHEMA = {
    ROLE: pl.String, "field_of_view": pl.String, "binarisation": pl.String, "fit": pl.String,
    "quantity": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64,
}  # fmt: skip


def coefficients(fitted: Sequence[FittedPanel]) -> pl.DataFrame:
    """What each curve holds by itself, as a tidy frame. Quantities, for both fits:

    ``mean`` (over the angles); ``cos``, ``sin`` and ``amplitude`` of the 90° fundamental, ``amplitude_debiased``,
    ``amplitude_null`` (its quantile under random circular shifts), ``phase_deg`` (first maximum in [0, 90); its
    interval is ±45 where the amplitude may be 0), ``amplitude_2`` … of the harmonics, ``share_fundamental`` and
    ``share_wave`` of the mean curve's variance, ``neighbour_correlation`` of the fundamental.
    With fit ``interpolated`` also: ``spike``, ``spike_at_0``, ``spike_to_neighbours`` (against ±1°).
    """
    rows: list[Row] = []
    for part in fitted:
        for name, curve in part.curves.items():
            for fit in FITS:
                rows += _labelled(part.panel, name, fit, _curve_rows(curve, fit, part))
            values = {quantity: describe(v, part.resampling).real for quantity, v in curve.spikes.items()}
            rows += _labelled(part.panel, name, "interpolated", _estimates(values))
    return pl.DataFrame(rows, schema=_SCHEMA)


def explained(fitted: Sequence[FittedPanel], reference: str = TRAINED) -> pl.DataFrame:
    """What each control explains of the ``reference`` curve's 90° coefficient, paired over the same images.

    ``share_explained``: Re(c_control conj(c_reference)) / |c_reference|², the part of the reference's wave that the
    control has at the same phase. 1 is all of it; above 1 the control's wave is the larger one; negative is in
    antiphase. Its interval is null where the reference's own amplitude may be 0: a share of nothing. ``remainder`` is
    |c_reference - c_control|, with ``remainder_cos``, ``remainder_sin``, ``remainder_debiased`` and ``remainder_null``
    (quantile when each block's *difference* is shifted at random); ``spike_remainder``: the difference of the spikes.

    Empty without the reference.
    """
    rows: list[Row] = []
    for part in fitted:
        if reference not in part.curves:
            continue
        for fit in FITS:
            per_image = {name: c.fits[fit].coefficients() for name, c in part.curves.items() if fit in c.fits}
            for name in part.curves:
                if name != reference:
                    values = _explained_rows(per_image.get(reference), per_image.get(name), part.resampling)
                    rows += _labelled(part.panel, name, fit, values)
        rows += _spike_remainder_rows(part, reference)
    return pl.DataFrame(rows, schema=_SCHEMA)


def extrema(fitted: Sequence[FittedPanel]) -> pl.DataFrame:
    """Maxima and minima of every mean curve.

    ``source`` is ``wave`` (the 90° wave with its harmonics, fitted to the interpolated angles; angles in [0, 90)) or
    ``raw`` (the mean curve itself, its ends joined, without 0 and 360, where both views are one image). An extremum is
    prominent by a quarter of the range at least: so every curve has some, one of noise too. ``noise`` is the range of
    such a one (``analysis.noise``), null for waves. ``may_be_noise``: no more prominent than that, or of a wave whose
    amplitude cannot be told from none; null from fewer than 3 blocks.
    Columns: role, field_of_view, binarisation, source, kind, angle_deg, dice, prominence, noise, may_be_noise.
    """
    schema = {
        ROLE: pl.String, "field_of_view": pl.String, "binarisation": pl.String, "source": pl.String,
        "kind": pl.String, "angle_deg": pl.Float64, "dice": pl.Float64, "prominence": pl.Float64, "noise": pl.Float64,
        "may_be_noise": pl.Boolean,
    }  # fmt: skip
    rows: list[Row] = []
    for part in fitted:
        for name, curve in part.curves.items():
            label = {ROLE: name, "field_of_view": part.panel.field_of_view, "binarisation": part.panel.binarisation}
            rows += [label | row for row in _wave_extrema(curve, part.resampling)]
            rows += [label | row for row in _raw_extrema(curve.curve, part.resampling)]
    return pl.DataFrame(rows, schema=schema)


def look_up(
    frame: pl.DataFrame, role: str, field_of_view: str, binarisation: str, quantity: str, fit: str = "interpolated"
) -> tuple[float | None, float | None, float | None]:
    """(value, low, high) of one quantity of a tidy frame; None for what is absent or undefined."""
    found = frame.filter(
        role=role, field_of_view=field_of_view, binarisation=binarisation, quantity=quantity, fit=fit
    ).select("value", "low", "high")
    return found.row(0) if found.height else (None, None, None)


# Rows of one curve.


def _labelled(panel: Panel, role: str, fit: str, values: Sequence[Quantity]) -> list[Row]:
    return [
        {
            ROLE: role, "field_of_view": panel.field_of_view, "binarisation": panel.binarisation, "fit": fit,
            "quantity": quantity, "value": _known(value), "low": _known(low), "high": _known(high),
            "n": len(panel.image_ids),
        }
        for quantity, value, low, high in values
    ]  # fmt: skip


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _alone(quantity: str, value: float) -> Quantity:
    return quantity, value, math.nan, math.nan


def _curve_rows(curve: FittedCurve, name: str, part: FittedPanel) -> list[Quantity]:
    fit, resampling = curve.fits.get(name), part.resampling
    if fit is None:
        return [_alone("amplitude", math.nan)]
    terms_BP = resampling.weights_BN @ fit.terms_NP
    level = describe(np.ascontiguousarray(fit.terms_NP[:, 0]), resampling).real
    rows = [("mean", *level)]
    for harmonic in range(1, fit.num_harmonics + 1):
        rows += _coefficient_rows(harmonic, fit.coefficients(harmonic), resampling)
    rows.append(_alone("neighbour_correlation", neighbour_correlation(fit.coefficients(), part.panel.groups)))
    return rows + _share_rows(fitted_angles(curve.curve, name), fit, terms_BP, resampling)


def _estimates(values: Mapping[str, Estimate]) -> list[Quantity]:
    return [(name, *estimate) for name, estimate in values.items()]


def _coefficient_rows(harmonic: int, values_N: Complexes, resampling: Resampling) -> list[Quantity]:
    found = describe(values_N, resampling)
    if harmonic > 1:
        return [(f"amplitude_{harmonic}", *found.size)]
    phase = _phase_with_interval(complex(values_N.mean()), resampling.weights_BN @ values_N, found.size.low, resampling)
    return [
        ("amplitude", *found.size),
        ("cos", *found.real),
        ("sin", *_imaginary(found)),
        _alone("amplitude_debiased", found.debiased),
        _alone("amplitude_null", found.null),
        ("phase_deg", *phase),
    ]


def _imaginary(found: Description) -> Estimate:
    assert found.imaginary is not None, "coefficients of a wave are complex"
    return found.imaginary


def _phase_with_interval(
    centre: complex, samples_B: Complexes, amplitude_low: float, resampling: Resampling
) -> tuple[float, float, float]:
    """The first maximum and its interval, which may leave [0, 90): it is not wrapped."""
    phase = wave.phase_deg(centre)
    away_B = np.rad2deg(np.angle(samples_B * np.conj(centre))) / 4
    low, high = resampling.interval(0.0, away_B)
    if amplitude_low == 0:
        low, high = -45.0, 45.0
    return phase, phase + max(low, -45.0), phase + min(high, 45.0)


def _share_rows(curve: Curve, fit: WaveFit, terms_BP: Floats, resampling: Resampling) -> list[Quantity]:
    mean_terms_1P = fit.of_mean().terms_NP
    mean_BA = resampling.weights_BN @ curve.dice_NV
    rows = []
    for quantity, harmonics in (("share_fundamental", 1), ("share_wave", fit.num_harmonics)):
        waves = [fit.wave(fit.angles_deg_A, harmonics, terms) for terms in (mean_terms_1P, terms_BP)]
        value = wave.share_of_variance(curve.dice_NV.mean(axis=0, keepdims=True), waves[0], fit.weights_A)[0]
        low, high = resampling.interval(value, wave.share_of_variance(mean_BA, waves[1], fit.weights_A))
        rows.append((quantity, float(value), float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))))
    return rows


def _explained_rows(
    reference_N: Complexes | None, control_N: Complexes | None, resampling: Resampling
) -> list[Quantity]:
    if reference_N is None or control_N is None:
        return [_alone("remainder", math.nan)]
    found = paired.explained(reference_N, control_N, resampling)
    return [
        ("share_explained", *found.share),
        ("remainder", *found.remainder.size),
        ("remainder_cos", *found.remainder.real),
        ("remainder_sin", *_imaginary(found.remainder)),
        _alone("remainder_debiased", found.remainder.debiased),
        _alone("remainder_null", found.remainder.null),
    ]


def _spike_remainder_rows(part: FittedPanel, reference: str) -> list[Row]:
    own = part.curves[reference].spikes.get("spike")
    rows: list[Row] = []
    for name, curve in part.curves.items():
        values = curve.spikes.get("spike")
        if name == reference or own is None or values is None:
            continue
        rest = describe(own - values, part.resampling).real
        rows += _labelled(part.panel, name, "interpolated", [("spike_remainder", *rest)])
    return rows


def _wave_extrema(curve: FittedCurve, resampling: Resampling) -> list[Row]:
    if "interpolated" not in curve.fits:
        return []
    whole = curve.fits["interpolated"]
    fit, found = whole.of_mean(), describe(whole.coefficients(), resampling)
    may_be_noise = is_none(found.size, found.null) if resampling.can_give_intervals else None
    angles = np.arange(0, PERIOD_DEG, 0.25)
    values = fit.terms_NP[0, 0] + fit.wave(angles)[0]
    own = {"source": "wave", "noise": None, "may_be_noise": may_be_noise}
    return [own | row for row in _circular_extrema(angles, values)]


def is_none(amplitude: Estimate, null: float | None) -> bool:
    """Whether an amplitude with an interval cannot be told from none."""
    value, low, _ = amplitude
    return low == 0 or (null is not None and math.isfinite(null) and value <= null)


def _raw_extrema(curve: Curve, resampling: Resampling) -> list[Row]:
    whole = without_full_turn(curve)
    turned = whole.at(whole.values_V > 0)
    if not len(turned.values_V):
        return []
    noise = _known(noise_range(turned.dice_NV, resampling))
    return [
        {"source": "raw", "noise": noise, "may_be_noise": None if noise is None else row["prominence"] <= noise, **row}
        for row in _circular_extrema(turned.values_V, turned.dice_NV.mean(axis=0))
    ]


def _circular_extrema(angles_deg_A: Floats, values_A: Floats) -> list[Row]:
    """Extrema of a closed curve, at least ``PROMINENCE_SHARE`` of its range prominent; none of a flat one."""
    size, reach = len(values_A), float(np.ptp(values_A))
    if reach < 1e-12:
        return []
    rows: list[Row] = []
    for kind, sign in (("maximum", 1.0), ("minimum", -1.0)):
        tripled = np.tile(sign * values_A, 3)
        peaks, properties = signal.find_peaks(tripled, prominence=PROMINENCE_SHARE * reach)
        for peak, prominence in zip(peaks, properties["prominences"], strict=True):
            if size <= peak < 2 * size:
                angle, dice = float(angles_deg_A[peak - size]), float(values_A[peak - size])
                rows.append({"kind": kind, "angle_deg": angle, "dice": dice, "prominence": float(prominence)})
    return rows
