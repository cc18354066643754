"""Values on the axis of a sweep: which of them are one place, and the share of the axis that each stands for.

One rule for what computes curves and for what reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_SAME = 1e-9  # over size: what arithmetic leaves of a grid, such as 0.1 + 0.2 for 0.3


def is_at(values: Sequence[float] | Floats, place: float, period: float | None) -> Bools:
    """Which values are this place of the axis, whole periods away included, up to rounding [V]."""
    values_V = np.asarray(values, dtype=np.float64)
    away_V = np.abs(values_V - place)
    if period is not None:
        with np.errstate(invalid="ignore"):  # an infinite value is no place; who checks values names it
            away_V = np.mod(away_V, period)
        away_V = np.minimum(away_V, period - away_V)
    return np.asarray(away_V <= _SAME * max(1.0, abs(place), period or 0.0))


def shares(values: Sequence[float] | Floats, period: float | None) -> Floats:
    """The share of the axis that each value stands for [V]: half the way to both neighbours. Sums to 1.

    Where it has no period, each value stands once, and the ends stand for half a step (the trapezoid rule). Where it
    goes round, the share is an arc, and equal directions share one. A mean so weighted is that of the curve, and not
    of where it was sampled more finely.
    """
    values_V = np.asarray(values, dtype=np.float64)
    if len(values_V) == 1:
        return np.ones(1)
    places_V = values_V if period is None else np.mod(values_V, period)
    order = np.argsort(places_V, kind="stable")
    sorted_V = places_V[order]
    if period is None:
        gaps = np.diff(sorted_V)
        widths_V = np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)
    else:
        ahead_V = np.diff(sorted_V, append=sorted_V[0] + period)
        widths_V = ahead_V + np.roll(ahead_V, 1)
    shares_V = np.empty_like(values_V)
    shares_V[order] = widths_V / widths_V.sum()
    return shares_V
