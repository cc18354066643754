"""Panels of curves with what every table and figure needs of them: each wave fitted once, one set of resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analysis import wave
from analysis.panels import Curve, Panel, panels
from analysis.resampling import Bootstrap, Resampling
from analysis.wave import Floats, WaveFit

FITS = ("interpolated", "all")
SPIKE_ANGLES_DEG = (90.0, 180.0, 270.0)


@dataclass(frozen=True, eq=False)
class FittedCurve:
    """One curve, ``fits`` by name (absent where the grid is too coarse), ``spikes`` by name: one value an image, [N].

    Spikes are those that the grid allows of ``spike`` (at 90, 180, 270), ``spike_at_0``, ``spike_to_neighbours``.
    """

    curve: Curve
    fits: Mapping[str, WaveFit]
    spikes: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class FittedPanel:
    """A panel, its curves with their fits, and the resamples that all of them share."""

    panel: Panel
    resampling: Resampling
    curves: Mapping[str, FittedCurve]


def fitted(curves: pl.DataFrame, bootstrap: Bootstrap, num_harmonics: int | None = None) -> list[FittedPanel]:
    """Cut the long frame of all trials into panels (see ``analysis.panels``) and fit every curve."""
    resamplings: dict[tuple[str, ...], Resampling] = {}
    found = []
    for panel in panels(curves):
        resampling = resamplings.setdefault(panel.groups, Resampling(panel.groups, bootstrap))
        waves = {name: fit_curve(curve, num_harmonics) for name, curve in panel.curves.items()}
        found.append(FittedPanel(panel, resampling, waves))
    return found


def fit_curve(curve: Curve, num_harmonics: int | None = None) -> FittedCurve:
    """Both fits of one curve, and its spikes."""
    fits: dict[str, WaveFit] = {}
    for name in FITS:
        part = curve.fitted_angles(name)
        try:
            fits[name] = wave.fit_wave(part.dice_NA, part.angles_deg_A, num_harmonics)
        except wave.CoarseGrid:
            continue
    return FittedCurve(curve, fits, _spikes(curve.without_full_turn(), fits.get("interpolated")))


def _spikes(whole: Curve, fit: WaveFit | None) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    if fit is not None:
        for quantity, angles in (("spike", SPIKE_ANGLES_DEG), ("spike_at_0", (0.0,))):
            _put(found, quantity, whole, angles, fit)
    try:
        operator_A = wave.neighbour_operator(whole.angles_deg_A, SPIKE_ANGLES_DEG)
    except wave.CoarseGrid:
        return found
    return found | {"spike_to_neighbours": whole.dice_NA @ operator_A}


def _put(found: dict[str, Floats], quantity: str, whole: Curve, angles: Sequence[float], fit: WaveFit) -> None:
    try:
        found[quantity] = wave.spike(whole.dice_NA, whole.angles_deg_A, fit, angles)
    except wave.CoarseGrid:
        return
