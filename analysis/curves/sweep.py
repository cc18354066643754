"""What a curve's trial says of its sweep: the axis, the value at which nothing is done, and how values are weighted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.arrays import Bools, Floats
from trainables.api import axis
from trainables.api.names import SWEEP_FILE


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

    @property
    def is_rotation(self) -> bool:
        """Whether the 90° wave is its headline and the thesis's curves are its like; a period alone is neither."""
        return self.name == "Rotation"

    def is_neutral(self, values_V: Floats) -> Bools:
        """Whether the view is the anchor."""
        return axis.is_at(values_V, self.neutral, self.period)

    def is_repeated(self, values_V: Floats) -> Bools:
        """Whether a value is the first one again, after a whole period (360 after 0)."""
        if self.period is None:
            return np.zeros(len(values_V), dtype=bool)
        first = values_V.min()
        return np.asarray(axis.is_at(values_V, first, self.period) & (values_V > first + self.period / 2))

    def level_weights(self, values_V: Floats) -> Floats:
        """The weight of each of these rising values in a mean over the axis: its share, but 0 where the view is the
        anchor. They sum to 1."""
        once_V = ~self.is_repeated(values_V)
        weights_V = np.zeros(len(values_V))
        weights_V[once_V] = axis.shares(values_V[once_V], self.period)
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
