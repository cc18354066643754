"""Panels of rotation curves with what every table and figure needs: each wave fitted once, one set of resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.arrays import Floats
from analysis.curves.panels import Curve, Panel
from analysis.resampling import Resampling
from analysis.rotation import wave
from analysis.rotation.wave import WaveFit

INTERPOLATED = "interpolated"
FITS = (INTERPOLATED, "all")
SPIKE_ANGLES_DEG = (90.0, 180.0, 270.0)


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """The curves of one role: ``fits`` of the mean over seeds by name (absent where the grid is too coarse), ``spikes``
    by name (one value an image, [N]), and the mean 90° coefficient of every seed.

    Spikes are those that the grid allows of ``spike`` (at 90, 180, 270), ``spike_at_0``, ``spike_to_neighbours``.
    """

    curve: Curve
    fits: Mapping[str, WaveFit]
    spikes: Mapping[str, Floats]
    seed_coefficients: Mapping[str, complex]


@dataclass(frozen=True, eq=False)
class FittedPanel:
    """A panel, its curves with their fits, and the resamples that all of them share."""

    panel: Panel
    resampling: Resampling
    curves: Mapping[str, FittedCurve]


def fitted(
    panels: Sequence[Panel], resampling_of: Callable[[Panel], Resampling], num_harmonics: int | None = None
) -> list[FittedPanel]:
    """Fit every curve of every panel."""
    return [
        FittedPanel(
            panel, resampling_of(panel), {role: fit_curve(curve, num_harmonics) for role, curve in panel.curves.items()}
        )
        for panel in panels
    ]


def fit_curve(curve: Curve, num_harmonics: int | None = None) -> FittedCurve:
    """Both fits of one role's mean curve, its spikes, and the coefficient of every seed."""
    fits: dict[str, WaveFit] = {}
    seeds: dict[str, complex] = {}
    for name in FITS:
        part = fitted_angles(curve, name)
        try:
            fits[name] = wave.fit_wave(part.dice_NV, part.values_V, num_harmonics)
            if name == INTERPOLATED:
                each = wave.fit_wave(part.dice_SNV.mean(axis=1), part.values_V, num_harmonics).coefficients()
                seeds = dict(zip(part.seeds, each.tolist(), strict=True))
        except wave.CoarseGrid:
            continue
    return FittedCurve(curve, fits, _spikes(without_full_turn(curve), fits.get(INTERPOLATED)), seeds)


def without_full_turn(curve: Curve) -> Curve:
    """All angles but 360, which is 0 once more."""
    return curve.at(wave.full_turn_removed(curve.values_V))


def fitted_angles(curve: Curve, fit: str) -> Curve:
    """The angles that one of the two fits uses."""
    whole = without_full_turn(curve)
    return whole if fit == "all" else whole.at(~wave.is_multiple_of_90(whole.values_V))


def _spikes(whole: Curve, fit: WaveFit | None) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    dice_NV = whole.dice_NV
    if fit is not None:
        for quantity, angles in (("spike", SPIKE_ANGLES_DEG), ("spike_at_0", (0.0,))):
            try:
                found[quantity] = wave.spike(dice_NV, whole.values_V, fit, angles)
            except wave.CoarseGrid:
                continue
    try:
        operator_V = wave.neighbour_operator(whole.values_V, SPIKE_ANGLES_DEG)
    except wave.CoarseGrid:
        return found
    return found | {"spike_to_neighbours": dice_NV @ operator_V}
