"""A curve in two stages: a pilot fixes the angles, and the curve is measured at these.

The choice is made once, by the trial of the pilot, and stands in its result: whatever measures the curve reads it
there, so that every device and every encoder that is compared has the same. ``interpretability.grid`` has the rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from trainables.api import names
from trainables.api.trainable import Trainable
from trainables.interpretability.curve import InterpretabilityCurve
from trainables.interpretability.grid import (
    NUM_ANGLES,
    PILOT_ANGLES_DEG,
    GridChoice,
    choose_grid,
    multiples_of_90,
)
from trainables.sweeps import Rotation

if TYPE_CHECKING:
    from trainables.api.context import Context

_LEAST_IMAGES = 4
_USUAL_ANGLES = 41  # 36, and 5 multiples of 90 degrees


@dataclass(frozen=True)
class CurvePilot(Trainable):
    """The first stage: chooses from curves of a few images at even angles.

    Writes ``artifacts/grid.json``: angles_deg of the curve, and what is expected of them. Returns ``num_angles`` and
    ``widening``, as ``GridChoice`` has them.

    ``CurvePilot.of`` makes one from the curves that it is for.

    Args:
        measured: for each encoder, rotations of the same images at ``PILOT_ANGLES_DEG`` of ``interpretability.grid``.
        values: of the full curve, among which angles are chosen.
        num_images: of the full curve.
        widening: by what factor the curve's interval over images may be wider than the full curve's.

    Raises:
        ValueError: another sweep than a rotation; fewer than 4 images; a widening below 1.
    """

    version: ClassVar[int] = 2

    measured: tuple[InterpretabilityCurve, ...]
    values: tuple[float, ...]
    num_images: int
    widening: float = 1.05

    @classmethod
    def of(cls, *curves: InterpretabilityCurve, num_images: int = 12, widening: float = 1.05) -> CurvePilot:
        """The pilot of curves, of some of their images.

        Args:
            curves: as they would be without a pilot, equal but for their encoders; the grid has to serve each of them.
            num_images: of the pilot; fewer where the curve has fewer.
            widening: as above.
        """
        first = curves[0]
        if not isinstance(first.sweep, Rotation):
            raise ValueError(f"a pilot is for rotations, and this curve is of {type(first.sweep).__name__}")
        images = replace(first.images, num=min(num_images, first.images.num))
        measured = tuple(replace(curve, values=PILOT_ANGLES_DEG, images=images) for curve in curves)
        return cls(measured, first.measured_values, first.images.num, widening)

    def __post_init__(self) -> None:
        if not self.measured or any(not isinstance(curve.sweep, Rotation) for curve in self.measured):
            raise ValueError("a pilot is for rotations: give it at least one curve, all of them of rotations")
        first = self.measured[0]
        if len({replace(curve, encoder=first.encoder) for curve in self.measured}) > 1:
            raise ValueError("the curves of a pilot differ in more than their encoders")
        if first.values != PILOT_ANGLES_DEG:
            raise ValueError(
                f"a pilot is measured at {len(PILOT_ANGLES_DEG)} even angles, as interpretability.grid names them"
            )
        if (num := first.images.num) < _LEAST_IMAGES:
            raise ValueError(
                f"a curve of {num} image(s) in two stages: at least {_LEAST_IMAGES} tell how images differ; leave out "
                "--two-stage"
            )
        if self.widening < 1:
            raise ValueError(f"widening = {self.widening}: a factor of at least 1")

    def run(self, context: Context) -> Mapping[str, float]:
        """Read what was measured, and choose."""
        dice_ENA = np.array([_headline_dice(curve, context) for curve in self.measured])
        found = choose_grid(dice_ENA, self.values, self.widening)
        found.write(context.output_dir / names.GRID_FILE)
        return {"num_angles": float(len(found.angles_deg)), "widening": found.widening}

    def choice(self, context: Context) -> GridChoice:
        """What its trial chose."""
        return GridChoice.read(context.result_dir(self) / names.GRID_FILE)


@dataclass(frozen=True)
class TwoStageCurve(InterpretabilityCurve):
    """The second stage: the curve at the angles that a pilot chose.

    Writes and returns what ``InterpretabilityCurve`` does, and a copy of the pilot's ``artifacts/grid.json``.
    ``values`` are those of the full curve.

    Args:
        pilot: one for all curves that are compared.

    Raises:
        ValueError: the pilot is for other angles.
    """

    pilot: CurvePilot = field(kw_only=True)

    @classmethod
    def of(cls, curve: InterpretabilityCurve, pilot: CurvePilot) -> TwoStageCurve:
        """The curve in two stages."""
        return cls(**_fields(curve), pilot=pilot)

    def __post_init__(self) -> None:
        super().__post_init__()
        of_pilot = self.pilot.measured[0]
        is_same = (self.region, self.sweep, self.scoring, self.cut_to_circle) == (
            of_pilot.region, of_pilot.sweep, of_pilot.scoring, of_pilot.cut_to_circle,
        )  # fmt: skip
        changed, of_pilot_changed = (
            {value for value in values if not self.sweep.is_neutral(value)}
            for values in (self.values, self.pilot.values)
        )
        if not is_same or changed != of_pilot_changed or self.pilot.num_images != self.images.num:
            raise ValueError("the pilot is for another curve: only encoder and method may differ from its own")

    def run(self, context: Context) -> Mapping[str, float]:
        """Measure at what the pilot chose. Raises what ``InterpretabilityCurve`` does."""
        chosen = self.pilot.choice(context)
        metrics = on_grid(self, chosen).run(context)
        chosen.write(context.output_dir / names.GRID_FILE)
        return metrics

    def work_flop(self) -> float:
        """As if the pilot chose 36 angles: what it will is not known before."""
        return min(1.0, _USUAL_ANGLES / len(self.values)) * super().work_flop()


def on_grid(curve: InterpretabilityCurve, chosen: GridChoice) -> InterpretabilityCurve:
    """The curve at the angles of a choice."""
    return InterpretabilityCurve(**_fields(curve) | {"values": chosen.angles_deg})


def passes(curve: InterpretabilityCurve) -> float:
    """Passes of an image through the encoder that a curve takes."""
    method = curve.method
    return curve.images.num * (method.passes_per_anchor + method.passes_per_map * len(curve.measured_values))


def most_saved(pilot: CurvePilot, curves: Sequence[InterpretabilityCurve]) -> float:
    """Passes that a pilot can save of the curves at most, its own taken off; none or less where it cannot pay."""
    fewest = min(NUM_ANGLES) + len(multiples_of_90(pilot.values))
    least = [replace(curve, values=curve.values[:fewest]) for curve in curves]
    return sum(map(passes, curves)) - sum(map(passes, least)) - sum(map(passes, pilot.measured))


def _fields(curve: InterpretabilityCurve) -> dict[str, Any]:
    return {f.name: getattr(curve, f.name) for f in dataclasses.fields(InterpretabilityCurve)}


def _headline_dice(curve: InterpretabilityCurve, context: Context) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Dice of the full field of each image at each angle [N, A], angles rising."""
    frame = pl.read_parquet(context.result_dir(curve) / names.CURVE_FILE)
    is_headline = (pl.col(names.FIELD_OF_VIEW) == "full") & (pl.col(names.BINARISATION) == curve.scoring.headline)
    headline = frame.filter(is_headline).sort(names.IMAGE_ID, names.VALUE)
    return headline[names.DICE].to_numpy().astype(np.float64).reshape(-1, len(curve.values))
