"""What a study of explanation methods has: scores of every method and encoder, image by image.

Shapes: S seeds, N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from analysis.arrays import Floats
from analysis.cards import group_kind
from analysis.cells import Cell, cells_of
from analysis.curves.panels import INTENSITY
from analysis.results import Entry, StudyResults
from analysis.significance import Comparison, Missing, Verdict, verdicts
from trainables.api.names import (
    AUPRC,
    BINARISATION,
    CURVE_FILE,
    DICE,
    FIELD_OF_VIEW,
    GROUP,
    IMAGE_ID,
    MASK_FRACTION,
    POINTING_GAME,
    POSITION,
    RANDOMISED,
    RANDOMISED_LAYERS,
    RELEVANCE_MASS,
    SAMPLES_FILE,
    TRAINED,
    UNTRAINED,
)  # fmt: skip

SCORES = (AUPRC, DICE, POINTING_GAME, RELEVANCE_MASS)
CONTROL = INTENSITY
HEADLINE = AUPRC
"""It needs no threshold, and counts every pixel."""
CASCADE = (TRAINED, *(RANDOMISED + layer for layer in RANDOMISED_LAYERS[:-1]), UNTRAINED)
"""Encoders from trained to random; all layers randomised is the untrained one."""
_FIELD = "kept"
"""The pixels that all angles keep. In the full field the corners that a rotation blackens would rank the centre first:
a map that is the same everywhere would score more than the region's share of the pixels."""


@dataclass(frozen=True)
class Against:
    """Two arms that are compared in the headline score."""

    first: tuple[str, str]
    """Method and role."""
    second: tuple[str, str]


@dataclass(frozen=True, eq=False)
class RegionSet:
    """Every method on every encoder, of one data set and region."""

    labels: Mapping[str, str]
    cells: Mapping[tuple[str, str], Cell]
    """By method and role."""
    results: StudyResults

    @property
    def title(self) -> str:
        return f"{self.labels['data']} · {self.labels['region'].replace('_', ' ')}"

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.labels["data"])

    @property
    def methods(self) -> list[str]:
        """Those that explain encoders, in the order of the manifest."""
        return list(dict.fromkeys(method for method, role in self.cells if role != CONTROL))

    @property
    def controls(self) -> list[str]:
        """Maps that no encoder takes part in."""
        return [method for method, role in self.cells if role == CONTROL]

    def scores(self, method: str, role: str) -> list[pl.DataFrame]:
        """A frame a finished seed: image_id, group, position and each score, the mean over the angles; Dice is that of
        the first way of making maps binary."""
        cell = self.cells.get((method, role))
        return [] if cell is None else [self._scores_of(entry["key"]) for entry in cell.done]

    def mean(self, method: str, role: str, score: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation over the seeds of the mean over images; None before any seed is finished."""
        values = [float(frame[score].to_numpy().mean()) for frame in self.scores(method, role)]
        if not values:
            return None
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None

    @cached_property
    def pairs(self) -> list[Against]:
        """What is compared: each method on trained and untrained encoders, and all methods with one another."""
        own = [Against((method, TRAINED), (method, UNTRAINED)) for method in self.methods]
        return own + [Against((one, TRAINED), (two, TRAINED)) for one, two in combinations(self.methods, 2)]

    def num_seeds(self, pair: Against) -> int:
        """Seeds that the study plans for the arm that has fewer."""
        return min(self.cells[arm].num_wanted if arm in self.cells else 0 for arm in (pair.first, pair.second))

    def comparison(self, pair: Against) -> Comparison | Missing:
        """The headline score of each image in both arms."""
        arms = [self.scores(*arm) for arm in (pair.first, pair.second)]
        lacking = [" on ".join(arm) for arm, found in zip((pair.first, pair.second), arms, strict=True) if not found]
        if lacking:
            return Missing(f"no result of {' and '.join(lacking)}")
        joined = arms[0][0].select(IMAGE_ID, GROUP, POSITION)
        for place, frame in enumerate([*arms[0], *arms[1]]):
            values = frame.select(IMAGE_ID, pl.col(HEADLINE).alias(f"score {place}"))
            joined = joined.join(values, on=IMAGE_ID, how="inner", maintain_order="left")
        joined = joined.drop_nulls().sort(GROUP, POSITION, IMAGE_ID)
        if joined.is_empty():
            return Missing("both share no image")
        values_SN: Floats = joined.select(pl.selectors.starts_with("score ")).to_numpy().T.astype(np.float64)
        first_SN, second_SN = values_SN[: len(arms[0])], values_SN[len(arms[0]) :]
        names = (f"{pair.first[1]} encoder", f"{pair.second[1]} encoder")
        return Comparison(first_SN, second_SN, joined[GROUP].to_list(), group_kind(self.card), names)

    def map_correlation(self, method: str, role: str) -> float | None:
        """Spearman's rank correlation of the maps of the rotated view with those of the trained encoder that was begun
        with, inside the inscribed circle; the mean over the shown images and seeds. None where maps of both are not
        there, or all are constant."""
        return _mean_correlation(self._samples(ours, theirs) for ours, theirs in self._partners(method, role))

    def correlation_between_seeds(self, method: str) -> float | None:
        """The same between trained encoders of two seeds: what maps have in common that were learnt anew."""
        return _mean_correlation(self._samples(*pair) for pair in combinations(self._done(method, TRAINED), 2))

    def _samples(self, *entries: Entry) -> list[Mapping[str, Any] | None]:
        return [self.results.samples(entry["key"], SAMPLES_FILE) for entry in entries]

    def _partners(self, method: str, role: str) -> list[tuple[Entry, Entry]]:
        """Each finished trained encoder with that of the role which was made from it; an untrained one is made from
        none, and stands beside any."""
        trained, others = self._done(method, TRAINED), self._done(method, role)
        if role == UNTRAINED:
            return list(zip(trained, others, strict=False))
        made_from = {key: entry for entry in trained for key in entry["upstream"]}
        return [(made_from[key], entry) for entry in others for key in entry["upstream"] if key in made_from]

    def _done(self, method: str, role: str) -> Sequence[Entry]:
        cell = self.cells.get((method, role))
        return [] if cell is None else cell.done

    def _scores_of(self, key: str) -> pl.DataFrame:
        frame = pl.read_parquet(self.results.folder(key) / CURVE_FILE).filter(pl.col(FIELD_OF_VIEW) == _FIELD)
        headline = frame.filter(pl.col(BINARISATION) == frame[BINARISATION][0])
        grouped = headline.group_by(IMAGE_ID, GROUP, POSITION, maintain_order=True)
        return grouped.agg(pl.col(*SCORES, MASK_FRACTION).mean())


def far_place(samples: Mapping[str, Any]) -> int:
    """Which of the shown angles is not the unchanged image's."""
    return int(np.flatnonzero(np.mod(samples["values"], 360) != 0)[-1])


def _mean_correlation(pairs: Iterable[Sequence[Mapping[str, Any] | None]]) -> float | None:
    found = []
    for one, two in pairs:
        if one is None or two is None:
            continue
        maps_KHW = [samples["maps_KVHW"][:, far_place(samples)] for samples in (one, two)]
        size = maps_KHW[0].shape[-1]
        axis = (np.arange(size) * 2 + 1) / size - 1
        inside_HW = axis**2 + axis[:, None] ** 2 <= 1
        for first, second in zip(*maps_KHW, strict=True):
            if first[inside_HW].std() > 0 and second[inside_HW].std() > 0:
                found.append(float(stats.spearmanr(first[inside_HW], second[inside_HW]).statistic))
    return float(np.mean(found)) if found else None


def region_sets(results: StudyResults) -> list[RegionSet]:
    """Every data set and region of a study, in the order of its manifest."""
    found: dict[tuple[str, str], dict[tuple[str, str], Cell]] = {}
    for cell in cells_of(results):
        if "method" in cell.labels:
            of_region = found.setdefault((cell.labels["data"], cell.labels["region"]), {})
            of_region[cell.labels["method"], cell.role] = cell
    return [RegionSet({"data": data, "region": region}, cells, results) for (data, region), cells in found.items()]


def judged(found: Sequence[RegionSet]) -> dict[tuple[int, Against], Verdict]:
    """The verdict of every comparison, by the place of its set; all that the study plans share the level."""
    planned = [(place, pair) for place, region in enumerate(found) for pair in region.pairs]
    num_tests = sum(found[place].num_seeds(pair) >= 2 for place, pair in planned)
    return verdicts({(place, pair): found[place].comparison(pair) for place, pair in planned}, num_tests, len(planned))
