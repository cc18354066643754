"""What a curve's trial says of its sweep: the axis, the value at which nothing is done, and how values are weighted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.arrays import Bools, Floats
from trainables.api.names import SWEEP_FILE

_SAME = 1e-6


@dataclass(frozen=True)
class SweepFacts:
    """A sweep as its axis shows it.

    ``unit`` stands directly behind a number ("°", " of the side", "" for a factor). ``period`` is where values begin
    anew (360 for a rotation), None where they do not. At ``neutral`` the view is the anchor itself: measured, drawn,
    and left out of every conclusion.
    """

    name: str
    title: str
    unit: str
    period: float | None
    neutral: float

    def is_neutral(self, values_V: Floats) -> Bools:
        """Whether the view is the anchor."""
        away_V = np.abs(values_V - self.neutral)
        if self.period is not None:
            away_V = np.mod(away_V, self.period)
            away_V = np.minimum(away_V, self.period - away_V)
        return np.asarray(away_V < _SAME)

    def is_repeated(self, values_V: Floats) -> Bools:
        """Whether a value is the first one again, after a whole period (360 after 0)."""
        if self.period is None:
            return np.zeros(len(values_V), dtype=bool)
        return np.asarray(values_V >= values_V.min() + self.period - _SAME)

    def weights(self, values_V: Floats) -> Floats:
        """The share of the axis that each of these rising values stands for: half the way to both neighbours.

        They sum to 1. With a period the last value's neighbour is the first.
        """
        if len(values_V) == 1:
            return np.ones(1)
        if self.period is not None:
            ahead_V = np.diff(values_V, append=values_V[0] + self.period)
            return np.asarray((ahead_V + np.roll(ahead_V, 1)) / 2 / self.period)
        gaps = np.diff(values_V)
        shares_V = np.concatenate([[0.0], gaps]) + np.concatenate([gaps, [0.0]])
        return np.asarray(shares_V / shares_V.sum())

    def level_weights(self, values_V: Floats) -> Floats:
        """The weight of each of these rising values in a mean over the axis: its share, but 0 where the view is the
        anchor. They sum to 1."""
        once_V = ~self.is_repeated(values_V)
        weights_V = np.zeros(len(values_V))
        weights_V[once_V] = self.weights(values_V[once_V])
        weights_V[self.is_neutral(values_V)] = 0.0
        return np.asarray(weights_V / weights_V.sum())

    def text(self, value: float) -> str:
        """A value as it stands in a sentence."""
        return f"{value:g}{self.unit}"

    def axis_title(self) -> str:
        """The title with the unit, as an axis has it; " of the side" is a fraction."""
        unit = f"fraction{self.unit}" if self.unit.startswith(" of ") else self.unit
        return f"{self.title} ({unit})" if unit else self.title


def read_sweep(folder: Path) -> SweepFacts:
    """What the trial wrote beside its curve."""
    return SweepFacts(**json.loads((folder / SWEEP_FILE).read_text()))
