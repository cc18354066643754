"""Statistics of rotation curves: the 90° wave, the spike at exact multiples of 90°, and what the controls explain.

Two fits of the wave stand side by side. ``interpolated`` uses all angles but the multiples of 90°, and is the one
to draw conclusions from: at the multiples rotation is exact, everywhere else it interpolates and brings black
corners in, and this difference needs no model at all. ``all`` uses every angle but 360, as an eye on the published
figure does; a spike of height h at the multiples leaks into it with 2h times the share of the circle that these
angles stand for, so it depends on the density of the grid.

The spike is the mean over 90, 180 and 270 of the measured Dice minus the interpolated wave there. Angle 0 is kept
apart: there the two views are the same image, so their similarity is at its maximum and the gradient a special case.

Tidy frames: curve, field_of_view, binarisation, fit, quantity, value, low, high, n (images). ``low`` and ``high``
are null where a quantity has no interval; ``value`` is null where it is not defined on this grid or from so few
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import signal

from analysis import wave
from analysis.resampling import Bootstrap, Resampling
from analysis.rotation.panels import TRAINED, UNTRAINED_MEAN, UNTRAINED_PREFIX, Curve, Panel, in_expected_order, panels
from analysis.wave import Complexes, Floats, WaveFit

SPIKE_ANGLES_DEG = (90.0, 180.0, 270.0)
FITS = ("interpolated", "all")
PROMINENCE_SHARE = 0.25  # of the range of the mean curve: a smaller bump is not an extremum

Row = dict[str, Any]
Verdict = Literal["unknown", "no trained wave", "nothing", "within seeds", "left"]
_SCHEMA = {
    "curve": pl.String, "field_of_view": pl.String, "binarisation": pl.String, "fit": pl.String,
    "quantity": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64,
}  # fmt: skip


def coefficients(curves: pl.DataFrame, bootstrap: Bootstrap, num_harmonics: int | None = None) -> pl.DataFrame:
    """What each curve holds by itself, as a tidy frame. Quantities, for both fits:

    ``mean`` (over the angles); ``cos``, ``sin`` and ``amplitude`` of the 90° fundamental, ``amplitude_debiased``,
    ``amplitude_null`` (its quantile under random circular shifts), ``phase_deg`` (first maximum in [0, 90); its
    interval is ±45 where the amplitude may be 0), ``amplitude_2`` … of the harmonics, ``share_fundamental`` and
    ``share_wave`` of the mean curve's variance, ``neighbour_correlation`` of the fundamental along the wave.
    With fit ``interpolated`` also: ``spike``, ``spike_at_0``, ``spike_to_neighbours`` (against ±1°).
    """
    rows: list[Row] = []
    for panel in panels(curves):
        resampling = Resampling(panel.groups, bootstrap)
        for name, curve in panel.curves.items():
            for fit in FITS:
                rows += _labelled(
                    panel, name, fit, _curve_rows(curve.fitted_angles(fit), panel, resampling, num_harmonics)
                )
            rows += _labelled(panel, name, "interpolated", _spike_rows(curve, resampling, num_harmonics))
    return pl.DataFrame(rows, schema=_SCHEMA)


def explained(
    curves: pl.DataFrame, bootstrap: Bootstrap, num_harmonics: int | None = None, reference: str = TRAINED
) -> pl.DataFrame:
    """What each control explains of the ``reference`` curve's 90° coefficient, paired over the same images.

    ``share_explained``: Re(c_control conj(c_reference)) / |c_reference|², the part of the reference's wave that the
    control has at the same phase. 1 is all of it; above 1 the control's wave is the larger one; negative is in
    antiphase. Its interval is null where the reference's own amplitude may be 0: a share of nothing. ``remainder`` is
    |c_reference - c_control|, with ``remainder_cos``, ``remainder_sin``, ``remainder_debiased`` and ``remainder_null``
    (quantile when each block's *difference* is shifted at random); ``spike_remainder``: the difference of the spikes.
    ``seed_distance`` (curve ``untrained mean``): the largest |c_seed - mean of the other seeds|.

    Empty without the reference.
    """
    rows: list[Row] = []
    for panel in panels(curves):
        if reference not in panel.curves:
            continue
        resampling = Resampling(panel.groups, bootstrap)
        for fit in FITS:
            per_image = dict(_per_image_coefficients(panel, fit, num_harmonics))
            for name in panel.curves:
                if name == reference:
                    continue
                values = _explained_rows(per_image.get(reference), per_image.get(name), resampling)
                rows += _labelled(panel, name, fit, values)
            seeds = [values for name, values in per_image.items() if name.startswith(UNTRAINED_PREFIX)]
            if UNTRAINED_MEAN in panel.curves:
                rows += _labelled(panel, UNTRAINED_MEAN, fit, [_seed_distance(seeds)])
        rows += _spike_remainder_rows(panel, reference, resampling, num_harmonics)
    return pl.DataFrame(rows, schema=_SCHEMA)


def extrema(curves: pl.DataFrame, num_harmonics: int | None = None) -> pl.DataFrame:
    """Maxima and minima of every mean curve.

    ``source`` is ``wave`` (the 90° wave with its harmonics, fitted to the interpolated angles; angles in [0, 90)) or
    ``raw`` (the mean curve itself, 0 and 360 joined). An extremum is prominent by a quarter of the range at least.
    Columns: curve, field_of_view, binarisation, source, kind, angle_deg, dice, prominence.
    """
    schema = {
        "curve": pl.String, "field_of_view": pl.String, "binarisation": pl.String, "source": pl.String,
        "kind": pl.String, "angle_deg": pl.Float64, "dice": pl.Float64, "prominence": pl.Float64,
    }  # fmt: skip
    rows: list[Row] = []
    for panel in panels(curves):
        for name, curve in panel.curves.items():
            label = {"curve": name, "field_of_view": panel.field_of_view, "binarisation": panel.binarisation}
            rows += [label | row for row in _wave_extrema(curve, num_harmonics)]
            rows += [label | row for row in _raw_extrema(curve)]
    return pl.DataFrame(rows, schema=schema)


def levels(curves: pl.DataFrame) -> pl.DataFrame:
    """Where each curve lies: mean over images, then over angles (360 left out), and the extremes of the mean curve.

    Columns: curve, field_of_view, binarisation, n, num_angles, mean, min, min_deg, max, max_deg, and the mean of
    mask_fraction, map_fraction, chance_dice, all_ones_dice and auprc.
    """
    beside = ["mask_fraction", "map_fraction", "chance_dice", "all_ones_dice", "auprc"]
    keys = ["curve", "field_of_view", "binarisation"]
    by_angle = (
        curves.filter(pl.col("angle_deg") < 360)
        .group_by(*keys, "angle_deg", maintain_order=True)
        .agg(
            pl.col("dice").fill_nan(None).mean(),
            *(pl.col(c).fill_nan(None).mean() for c in beside),
            pl.len().alias("n"),
        )
        .sort(*keys, "angle_deg")
    )
    frame = by_angle.group_by(keys, maintain_order=True).agg(
        pl.col("n").max().cast(pl.Int64),
        pl.len().cast(pl.Int64).alias("num_angles"),
        pl.col("dice").mean().alias("mean"),
        pl.col("dice").min().alias("min"),
        pl.col("angle_deg").sort_by("dice").first().alias("min_deg"),
        pl.col("dice").max().alias("max"),
        pl.col("angle_deg").sort_by("dice").last().alias("max_deg"),
        *(pl.col(c).mean() for c in beside),
    )
    return in_expected_order(frame)


def look_up(
    frame: pl.DataFrame, curve: str, field_of_view: str, binarisation: str, quantity: str, fit: str = "interpolated"
) -> tuple[float | None, float | None, float | None]:
    """(value, low, high) of one quantity of a tidy frame; None for what is absent or undefined."""
    found = frame.filter(
        curve=curve, field_of_view=field_of_view, binarisation=binarisation, quantity=quantity, fit=fit
    ).select("value", "low", "high")
    return found.row(0) if found.height else (None, None, None)


def verdict(
    coefficient_frame: pl.DataFrame, explained_frame: pl.DataFrame, field_of_view: str, binarisation: str
) -> Verdict:
    """What is left of the interpolated 90° wave to the trained encoder, against the mean of the untrained seeds.

    The difference |c_trained - c_untrained| counts when its interval leaves out 0 and its value exceeds the null. (Not:
    when the lower end exceeds the null. The null grows with the effect, and few blocks would then never show one.)
    ``no trained wave``: it does not count, and the trained amplitude itself may be 0. ``nothing``: it does not count.
    ``within seeds``: it does, but one untrained seed lies as far from the others. ``left``: beyond both. ``unknown``: a
    curve or the intervals are missing.
    """
    where = (field_of_view, binarisation)
    _, amplitude_low, _ = look_up(coefficient_frame, TRAINED, *where, "amplitude")
    value, low, _ = look_up(explained_frame, UNTRAINED_MEAN, *where, "remainder")
    null, _, _ = look_up(explained_frame, UNTRAINED_MEAN, *where, "remainder_null")
    if value is None or low is None or null is None or amplitude_low is None:
        return "unknown"
    if low == 0 or value <= null:
        return "no trained wave" if amplitude_low == 0 else "nothing"
    distance, _, _ = look_up(explained_frame, UNTRAINED_MEAN, *where, "seed_distance")
    return "within seeds" if distance is not None and value <= distance else "left"


# Rows of one curve.


def _labelled(panel: Panel, curve: str, fit: str, values: Sequence[tuple[str, float, float, float]]) -> list[Row]:
    return [
        {
            "curve": curve, "field_of_view": panel.field_of_view, "binarisation": panel.binarisation, "fit": fit,
            "quantity": quantity, "value": _known(value), "low": _known(low), "high": _known(high),
            "n": len(panel.image_ids),
        }
        for quantity, value, low, high in values
    ]  # fmt: skip


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _alone(quantity: str, value: float) -> tuple[str, float, float, float]:
    return quantity, value, math.nan, math.nan


def _curve_rows(
    curve: Curve, panel: Panel, resampling: Resampling, num_harmonics: int | None
) -> list[tuple[str, float, float, float]]:
    try:
        fit = wave.fit_wave(curve.dice_NA, curve.angles_deg_A, num_harmonics)
    except wave.CoarseGrid:
        return [_alone("amplitude", math.nan)]
    terms_BP = resampling.weights_BN @ fit.terms_NP
    mean_terms_1P = fit.terms_NP.mean(axis=0, keepdims=True)
    rows = _interval_rows(resampling, {"mean": (mean_terms_1P[0, 0], terms_BP[:, 0])})
    for harmonic in range(1, fit.num_harmonics + 1):
        values_N = fit.coefficients(harmonic)
        samples_B = fit.coefficients(harmonic, terms_BP)
        rows += _coefficient_rows(harmonic, values_N, samples_B, resampling)
    centre = complex(fit.coefficients().mean())
    along_N = (fit.coefficients() * np.conj(centre)).real
    rows.append(_alone("neighbour_correlation", resampling.neighbour_correlation(along_N, panel.groups)))
    return rows + _share_rows(curve, fit, terms_BP, mean_terms_1P, resampling)


def _interval_rows(
    resampling: Resampling, values: Mapping[str, tuple[float, Floats]]
) -> list[tuple[str, float, float, float]]:
    return [(name, float(value), *resampling.interval(value, samples)) for name, (value, samples) in values.items()]


def _coefficient_rows(
    harmonic: int, values_N: Complexes, samples_B: Complexes, resampling: Resampling
) -> list[tuple[str, float, float, float]]:
    centre = complex(values_N.mean())
    suffix = "" if harmonic == 1 else f"_{harmonic}"
    low, high = resampling.magnitude_interval(centre, samples_B)
    rows = [(f"amplitude{suffix}", abs(centre), low, high)]
    if harmonic > 1:
        return rows
    rows += _interval_rows(resampling, {"cos": (centre.real, samples_B.real), "sin": (centre.imag, samples_B.imag)})
    rows.append(_alone("amplitude_debiased", resampling.debiased_magnitude(centre, samples_B)))
    rows.append(_alone("amplitude_null", resampling.null_magnitude(values_N)))
    return [*rows, ("phase_deg", *_phase_with_interval(centre, samples_B, low, resampling))]


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


def _share_rows(
    curve: Curve, fit: WaveFit, terms_BP: Floats, mean_terms_1P: Floats, resampling: Resampling
) -> list[tuple[str, float, float, float]]:
    mean_BA = resampling.weights_BN @ curve.dice_NA
    rows = []
    for quantity, harmonics in (("share_fundamental", 1), ("share_wave", fit.num_harmonics)):
        waves = [fit.wave(fit.angles_deg_A, harmonics, terms) for terms in (mean_terms_1P, terms_BP)]
        value = wave.share_of_variance(curve.dice_NA.mean(axis=0, keepdims=True), waves[0], fit.weights_A)[0]
        low, high = resampling.interval(value, wave.share_of_variance(mean_BA, waves[1], fit.weights_A))
        rows.append((quantity, float(value), float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))))
    return rows


def _spikes(curve: Curve, num_harmonics: int | None) -> Iterator[tuple[str, Floats]]:
    """(quantity, value of each image [N]) of the spikes that the grid allows."""
    whole = curve.without_full_turn()
    operators: dict[str, Callable[[], Floats]] = {
        "spike": partial(wave.spike_operator, whole.angles_deg_A, num_harmonics, SPIKE_ANGLES_DEG),
        "spike_at_0": partial(wave.spike_operator, whole.angles_deg_A, num_harmonics, (0.0,)),
        "spike_to_neighbours": partial(wave.neighbour_operator, whole.angles_deg_A, SPIKE_ANGLES_DEG),
    }
    for quantity, make in operators.items():
        try:
            yield quantity, whole.dice_NA @ make()
        except wave.CoarseGrid:
            continue


def _spike_rows(
    curve: Curve, resampling: Resampling, num_harmonics: int | None
) -> list[tuple[str, float, float, float]]:
    values = {name: (float(v.mean()), resampling.weights_BN @ v) for name, v in _spikes(curve, num_harmonics)}
    return _interval_rows(resampling, values)


def _per_image_coefficients(panel: Panel, fit: str, num_harmonics: int | None) -> Iterator[tuple[str, Complexes]]:
    for name, curve in panel.curves.items():
        part = curve.fitted_angles(fit)
        try:
            yield name, wave.fit_wave(part.dice_NA, part.angles_deg_A, num_harmonics).coefficients()
        except wave.CoarseGrid:
            continue


def _explained_rows(
    reference_N: Complexes | None, control_N: Complexes | None, resampling: Resampling
) -> list[tuple[str, float, float, float]]:
    if reference_N is None or control_N is None:
        return [_alone("remainder", math.nan)]
    reference_B, control_B = resampling.weights_BN @ reference_N, resampling.weights_BN @ control_N
    reference, control = complex(reference_N.mean()), complex(control_N.mean())
    rest, rest_B = reference - control, reference_B - control_B
    low, high = resampling.magnitude_interval(rest, rest_B)
    share = _share(np.array([reference]), np.array([control]))[0]
    share_low, share_high = resampling.interval(share, _share(reference_B, control_B))
    if resampling.magnitude_interval(reference, reference_B)[0] == 0:
        share_low = share_high = math.nan
    return [
        ("share_explained", float(share), share_low, share_high),
        ("remainder", abs(rest), low, high),
        *_interval_rows(
            resampling, {"remainder_cos": (rest.real, rest_B.real), "remainder_sin": (rest.imag, rest_B.imag)}
        ),
        _alone("remainder_debiased", resampling.debiased_magnitude(rest, rest_B)),
        _alone("remainder_null", resampling.null_magnitude(reference_N - control_N)),
    ]


def _share(reference: Complexes, control: Complexes) -> Floats:
    power = np.abs(reference) ** 2
    flat = power < 1e-20
    return np.where(flat, np.nan, (control * np.conj(reference)).real / np.where(flat, 1.0, power))


def _seed_distance(seeds: Sequence[Complexes]) -> tuple[str, float, float, float]:
    means = [complex(values.mean()) for values in seeds]
    if len(means) < 2:
        return _alone("seed_distance", math.nan)
    total = sum(means)
    return _alone("seed_distance", max(abs(c - (total - c) / (len(means) - 1)) for c in means))


def _spike_remainder_rows(panel: Panel, reference: str, resampling: Resampling, num_harmonics: int | None) -> list[Row]:
    spikes: dict[str, Floats | None] = {
        name: dict(_spikes(curve, num_harmonics)).get("spike") for name, curve in panel.curves.items()
    }
    own = spikes[reference]
    rows: list[Row] = []
    for name, values in spikes.items():
        if name == reference or own is None or values is None:
            continue
        rest_N: Floats = own - values
        rest_B: Floats = resampling.weights_BN @ rest_N
        interval = _interval_rows(resampling, {"spike_remainder": (float(rest_N.mean()), rest_B)})
        rows += _labelled(panel, name, "interpolated", interval)
    return rows


def _wave_extrema(curve: Curve, num_harmonics: int | None) -> list[Row]:
    part = curve.fitted_angles("interpolated")
    try:
        fit = wave.fit_wave(part.dice_NA.mean(axis=0, keepdims=True), part.angles_deg_A, num_harmonics)
    except wave.CoarseGrid:
        return []
    angles = np.arange(0, wave.PERIOD_DEG, 0.25)
    values = fit.terms_NP[0, 0] + fit.wave(angles)[0]
    return [{"source": "wave"} | row for row in _circular_extrema(angles, values)]


def _raw_extrema(curve: Curve) -> list[Row]:
    whole = curve.without_full_turn()
    return [{"source": "raw"} | row for row in _circular_extrema(whole.angles_deg_A, whole.dice_NA.mean(axis=0))]


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
