"""What a study of HOG and SVM has: accuracy by angle, of images rotated and of the round trip, and the Dice curves.

Shapes: S draws of the folds, N images, V angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from analysis.arrays import Floats
from analysis.blocks import Blocks, choose_blocks
from analysis.bootstrap import Bootstrap
from analysis.cards import group_kind
from analysis.cells import Cell, cells_of
from analysis.curves.panels import TRAINED, UNTRAINED
from analysis.hog.coincidence import Coincidence, coincidence, regular_grid
from analysis.pages.evidence import CurveSet, curve_sets
from analysis.resampling import Resampling
from analysis.results import StudyResults
from trainables.api.names import (
    ACCURACY,
    ACCURACY_FILE,
    FULL_FIELD,
    GROUP,
    IMAGE_ID,
    IN_CIRCLE,
    POSITION,
    ROTATED,
    ROUND_TRIP,
    VALUE,
)  # fmt: skip

ROLES = (ROTATED, ROUND_TRIP)
FIELDS = (FULL_FIELD, IN_CIRCLE)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """One classifier's accuracy: the mean over the draws of the folds, of each image at each angle."""

    values_V: Floats
    accuracy_NV: Floats
    groups: tuple[str, ...]
    num_draws: int

    @property
    def mean_V(self) -> Floats:
        return np.asarray(self.accuracy_NV.mean(axis=0))

    @property
    def is_changed_V(self) -> Floats:
        """Where the image is not the unchanged one: all angles but 0 and 360."""
        return np.asarray(np.mod(self.values_V, 360) != 0)


@dataclass(frozen=True, eq=False)
class DataSet:
    """All that is known of one data set."""

    name: str
    cells: Mapping[tuple[str, str], Cell]
    """By role and field."""
    curves: tuple[CurveSet, ...]
    """Dice over the rotation angle, a set a region."""
    results: StudyResults
    bootstrap: Bootstrap

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.name)

    @cached_property
    def accuracies(self) -> dict[tuple[str, str], Accuracy]:
        """Of the finished classifiers, by role and field."""
        return {arm: _accuracy(self.results, cell) for arm, cell in self.cells.items() if cell.done}

    @cached_property
    def blocks(self) -> Blocks | None:
        """How images are put together for intervals; None before any result."""
        first = next(iter(self.accuracies.values()), None)
        if first is None:
            return None
        levels = [each.accuracy_NV.mean(axis=1) for each in self.accuracies.values()]
        return choose_blocks(levels, first.groups, group_kind(self.card))

    def interval_V(self, accuracy: Accuracy) -> tuple[Floats, Floats] | None:
        """Pointwise interval of the mean over images at each angle; None where there are too few blocks."""
        blocks = self.blocks
        if blocks is None or not blocks.can_give_intervals:
            return None
        resampling = Resampling(blocks.groups, blocks.applied_to(self.bootstrap))
        return resampling.intervals(accuracy.mean_V, resampling.weights_BN @ accuracy.accuracy_NV)

    def coincidence(self, found: CurveSet, field: str) -> Coincidence | None:
        """How the trained encoders' Dice curve, the untrained ones' taken off, lies to the accuracy, the round trip's
        taken off; None where one of the four is not there, or the angles carry no grid."""
        panel = found.panel("full" if field == FULL_FIELD else "kept", found.binarisation)
        arms = [panel.curves.get(role) for role in (TRAINED, UNTRAINED)]
        told = [self.accuracies.get((role, field)) for role in ROLES]
        if arms[0] is None or arms[1] is None or told[0] is None or told[1] is None:
            return None
        grid_V = regular_grid(np.intersect1d(arms[0].values_V, told[0].values_V))
        if not len(grid_V):
            return None

        def at_grid(values_V: Floats, curve_V: Floats) -> Floats:
            places = {round(float(value), 6): place for place, value in enumerate(values_V)}
            return np.array([curve_V[places[round(float(angle), 6)]] for angle in grid_V])

        dice_V = [at_grid(arm.values_V, arm.dice_NV.mean(axis=0)) for arm in arms if arm is not None]
        accuracy_V = [at_grid(each.values_V, each.mean_V) for each in told if each is not None]
        return coincidence(dice_V[0] - dice_V[1], accuracy_V[0] - accuracy_V[1])


def data_sets(results: StudyResults) -> list[DataSet]:
    """Every data set of a study, in the order of its manifest."""
    bootstrap = Bootstrap()
    cells: dict[str, dict[tuple[str, str], Cell]] = {}
    for cell in cells_of(results):
        if cell.role in ROLES:
            cells.setdefault(cell.labels["data"], {})[cell.role, cell.labels["field"]] = cell
    curves = [found for found in curve_sets(results, bootstrap) if found.sweep.is_rotation]
    return [
        DataSet(name, of_data, tuple(c for c in curves if c.labels["data"] == name), results, bootstrap)
        for name, of_data in cells.items()
    ]


def _accuracy(results: StudyResults, cell: Cell) -> Accuracy:
    frames = [pl.read_parquet(results.folder(entry["key"]) / ACCURACY_FILE) for entry in cell.done]
    keys = [IMAGE_ID, GROUP, POSITION, VALUE]
    mean = pl.concat(frames).group_by(keys).agg(pl.col(ACCURACY).mean()).sort(GROUP, POSITION, IMAGE_ID, VALUE)
    images = mean.select(IMAGE_ID, GROUP).unique(maintain_order=True)
    values_V = mean[VALUE].unique().sort().to_numpy()
    accuracy_NV = mean[ACCURACY].to_numpy().reshape(images.height, len(values_V))
    return Accuracy(values_V, accuracy_NV, tuple(images[GROUP]), len(frames))
