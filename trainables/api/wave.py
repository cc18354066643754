"""The terms of the 90° wave in a curve over the rotation angle. One rule for what plans curves and for what reads them.

``analysis.rotation.wave`` says what the model is.

Shapes: A angles, P terms of the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainables.api import axis

Floats = np.ndarray[Any, np.dtype[np.float64]]

PERIOD_DEG = 90.0
NUISANCE_ORDERS = (1, 2, 3)
ORDER = 4
"""Periods of the wave in one turn."""
_TURN_DEG = 360.0
_SAME_ANGLE_DEG = 1e-6


def max_harmonics(angles_deg_A: Floats) -> int:
    """The highest k whose wave of period 90°/k the grid resolves: two angles a period in its widest gap (Nyquist).

    0 where not even the fundamental is resolved (gaps of 45° and more).
    """
    distinct = np.unique(angles_deg_A)
    if len(distinct) < 2:
        return 0
    gap = float(np.diff(distinct, append=distinct[0] + 360).max())
    return math.ceil(PERIOD_DEG / 2 / gap - _SAME_ANGLE_DEG) - 1


def design(angles_deg_A: Floats, num_harmonics: int) -> Floats:
    """The terms of the model at each angle, [A, P]: 1, orders 1 to 3, then orders 4, 8, … 4K (cos, sin each)."""
    orders = [*NUISANCE_ORDERS, *(ORDER * k for k in range(1, num_harmonics + 1))]
    phase_AO = np.deg2rad(np.asarray(angles_deg_A, dtype=np.float64))[:, None] * np.array(orders)
    waves_AP = np.stack([np.cos(phase_AO), np.sin(phase_AO)], axis=2).reshape(len(angles_deg_A), -1)
    return np.concatenate([np.ones((len(angles_deg_A), 1)), waves_AP], axis=1)


def fit_operator(angles_deg_A: Floats, num_harmonics: int) -> Floats:
    """Least squares, each angle weighted with its arc: the terms of a curve are this [P, A] times its values [A]."""
    root_A = np.sqrt(axis.shares(angles_deg_A, _TURN_DEG))
    return np.asarray(np.linalg.pinv(design(angles_deg_A, num_harmonics) * root_A[:, None]) * root_A)
