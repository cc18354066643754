"""Whether two curves over the circle have their extrema at the same angles: circular cross-correlation.

Both curves are taken at the angles of one regular grid. How they lie to one another is described by the correlation at
every circular shift; had the one nothing to do with where the other's extrema lie, the shift at which we find them
would be any. So p is the share of all shifts at which the correlation is as strong. A wave of period 90 degrees
correlates alike at four shifts, and with its sign changed at four others: on a grid of V angles p is 8/V at least, and
says nothing where that is above the level.

Shapes: V angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats

LEVEL = 0.05
_LEAST_ANGLES = 8
_ALIKE = 1e-9


@dataclass(frozen=True)
class Coincidence:
    """How two curves lie to one another."""

    correlation: float
    """As they are."""
    p: float
    least_p: float
    """What p would be at the shift at which they are most alike: what the grid can show at all."""
    best_shift_deg: float
    """By how much the second has to be turned to correlate most, in (-180, 180]."""
    num_angles: int


def regular_grid(values_deg: Floats) -> Floats:
    """The angles of the finest regular grid over [0, 360) that all lie among ``values_deg``; empty where there is none
    of 8 angles at least."""
    known = {round(float(value) % 360, 6) for value in values_deg}
    for num in range(len(known), _LEAST_ANGLES - 1, -1):
        grid = np.arange(num) * 360 / num
        if all(round(float(angle), 6) in known for angle in grid):
            return grid
    return np.array([])


def coincidence(first_V: Floats, second_V: Floats) -> Coincidence | None:
    """Of two curves on one regular grid; None where one of them is constant."""
    num = len(first_V)
    centred = [curve_V - curve_V.mean() for curve_V in (first_V, second_V)]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    if scale < _ALIKE:
        return None
    correlations_V = np.array([float(centred[0] @ np.roll(centred[1], shift)) / scale for shift in range(num)])
    strength_V = np.abs(correlations_V)
    best = int(correlations_V.argmax())
    shift_deg = best * 360 / num
    return Coincidence(
        correlation=float(correlations_V[0]),
        p=float((strength_V >= strength_V[0] - _ALIKE).mean()),
        least_p=float((strength_V >= strength_V.max() - _ALIKE).mean()),
        best_shift_deg=shift_deg - 360 if shift_deg > 180 else shift_deg,
        num_angles=num,
    )
