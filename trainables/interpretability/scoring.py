"""How maps are scored against a region, and the tables that this gives.

Shapes: N images, V values of the sweep, F fields of view, R binarisations, X pixels in a field of view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from trainables.api import names
from trainables.api.names import FieldOfView
from trainables.api.trainable import Part, added
from trainables.metrics.binarise import Binarisation, binarise, check_binarisation
from trainables.metrics.localisation import pointing_game, relevance_mass
from trainables.metrics.overlap import all_ones_dice, chance_dice, dice
from trainables.metrics.ranking import average_precision

_DEFAULT_PERCENTILE = 80.0
_SCORES = (
    names.DICE, names.MASK_FRACTION, names.MAP_FRACTION, names.CHANCE_DICE, names.ALL_ONES_DICE, names.AUPRC,
)  # fmt: skip
_LOCALISATION = (names.POINTING_GAME, names.RELEVANCE_MASS)


@dataclass(frozen=True)
class Scoring(Part):
    """How a map is held against a mask.

    Args:
        binarisations: how a map becomes a set of pixels; ``metrics.binarise`` says what each means. All are
            evaluated, the first is the headline. Otsu leads because it looks at the map only, whereas ``top_area``
            knows the mask's size, and mean and percentile fix level or area beforehand. The thesis does not say.
        percentile: of the rule of that name; 80 keeps the highest fifth, between the mask fractions of the data sets.
            Without effect where no rule uses it, and set to 80 there.

    Raises:
        ValueError: no rule, one twice or one that is not there; a percentile outside [0, 100].
    """

    binarisations: tuple[Binarisation, ...] = ("otsu", "top_area", "mean", "percentile", "soft")
    percentile: float = _DEFAULT_PERCENTILE
    localises: bool = added(False, unhashed_at=False)
    """Also whether the highest pixel lies in the mask, and what share of the map."""

    def __post_init__(self) -> None:
        if not self.binarisations or len(set(self.binarisations)) != len(self.binarisations):
            raise ValueError(f"binarisations = {self.binarisations}: at least one, each once")
        for rule in self.binarisations:
            check_binarisation(rule, self.percentile)
        # What cannot change the result must not make another identity.
        percentile = float(self.percentile) if "percentile" in self.binarisations else _DEFAULT_PERCENTILE
        object.__setattr__(self, "percentile", percentile)

    @property
    def headline(self) -> Binarisation:
        return self.binarisations[0]

    def scores(self, maps_NX: Tensor, masks_NX: Tensor) -> dict[str, Tensor]:
        """Scores of maps inside one field of view; thresholds and fractions are of these pixels only.

        Returns:
            dice and map_fraction [R, N] for the R binarisations; mask_fraction and auprc [N], where asked for
            pointing_game and relevance_mass [N]. All float64.
        """
        predictions_RNX = [binarise(maps_NX, masks_NX, rule, self.percentile) for rule in self.binarisations]
        found = {
            names.DICE: torch.stack([dice(prediction_NX, masks_NX) for prediction_NX in predictions_RNX]),
            names.MAP_FRACTION: torch.stack([prediction_NX.mean(dim=1) for prediction_NX in predictions_RNX]),
            names.MASK_FRACTION: masks_NX.double().mean(dim=1),
            names.AUPRC: average_precision(maps_NX, masks_NX),
        }
        if self.localises:
            found[names.POINTING_GAME] = pointing_game(maps_NX, masks_NX)
            found[names.RELEVANCE_MASS] = relevance_mass(maps_NX, masks_NX)
        return found


def curve_frame(
    index: pl.DataFrame,
    results: Mapping[float, Mapping[str, np.ndarray[Any, Any]]],
    fields_of_view: Sequence[FieldOfView],
    scoring: Scoring,
) -> pl.DataFrame:
    """One row for each value, field of view, binarisation and image, in this order.

    Args:
        index: columns image_id, group, position, a row an image.
        results: for each value, the arrays of ``Scoring.scores`` with the fields of view as first axis.
    """
    parts = []
    for value, scores in results.items():
        for place, field_of_view in enumerate(fields_of_view):
            for rule_place, rule in enumerate(scoring.binarisations):
                labels = {names.VALUE: value, names.FIELD_OF_VIEW: field_of_view, names.BINARISATION: rule}
                columns = _score_columns(scores, place, rule_place)
                parts.append(index.with_columns(**{name: pl.lit(label) for name, label in labels.items()}, **columns))
    return pl.concat(parts)


def means_over_images(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean of each score for each value, field of view and binarisation, in the frame's order."""
    grouped = frame.group_by(names.VALUE, names.FIELD_OF_VIEW, names.BINARISATION, maintain_order=True)
    there = [name for name in (*_SCORES, *_LOCALISATION) if name in frame.columns]
    return grouped.agg(pl.col(there).mean(), pl.len().alias("num_images"))


def headline(means: pl.DataFrame, field_of_view: FieldOfView, scoring: Scoring) -> pl.DataFrame:
    """The rows of one field of view and the first binarisation, a row a value in the curve's order."""
    of_field = means.filter(pl.col(names.FIELD_OF_VIEW) == field_of_view)
    return of_field.filter(pl.col(names.BINARISATION) == scoring.headline)


def _score_columns(
    scores: Mapping[str, np.ndarray[Any, Any]], field_place: int, rule_place: int
) -> dict[str, pl.Series]:
    mask_fraction = torch.from_numpy(scores[names.MASK_FRACTION][field_place])
    map_fraction = torch.from_numpy(scores[names.MAP_FRACTION][field_place, rule_place])
    columns = {
        names.DICE: scores[names.DICE][field_place, rule_place],
        names.MASK_FRACTION: mask_fraction.numpy(),
        names.MAP_FRACTION: map_fraction.numpy(),
        names.CHANCE_DICE: chance_dice(mask_fraction, map_fraction).numpy(),
        names.ALL_ONES_DICE: all_ones_dice(mask_fraction).numpy(),
        names.AUPRC: scores[names.AUPRC][field_place],
    }
    columns |= {name: scores[name][field_place] for name in _LOCALISATION if name in scores}
    return {name: pl.Series(name, values) for name, values in columns.items()}
