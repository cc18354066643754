"""What a study of segmentations has: scores of every network, share of the masks and split, and what they compare.

Shapes: S seeds, N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from analysis.arrays import Floats
from analysis.cards import group_kind
from analysis.cells import Cell, cells_of
from analysis.results import StudyResults
from analysis.significance import Comparison, Missing, Verdict, verdicts
from trainables.api.names import (
    CLASS,
    DICE,
    FROZEN,
    GROUP,
    IMAGE_ID,
    MOCO_TRUNK,
    NUM_TRUE,
    POSITION,
    RANDOM_TRUNK,
    RELEASED_TRUNK,
    SCORES_FILE,
    UNET,
)

ROLES = (
    UNET, MOCO_TRUNK, RANDOM_TRUNK, RELEASED_TRUNK, MOCO_TRUNK + FROZEN, RANDOM_TRUNK + FROZEN, RELEASED_TRUNK + FROZEN,
)  # fmt: skip
AGAINST = ((MOCO_TRUNK, UNET), (MOCO_TRUNK, RANDOM_TRUNK), (MOCO_TRUNK + FROZEN, RANDOM_TRUNK + FROZEN))
"""What is compared: the thesis's two networks; and pretrained weights with random ones in the same network."""
_COMPARED_SPLIT = "val"


@dataclass(frozen=True, eq=False)
class Row:
    """One network at one share of the masks, scored on one split, over its seeds."""

    role: str
    fraction: float
    split: str
    cell: Cell

    def values(self, metric: str) -> Sequence[float]:
        """A metric of the split (``dice``), a value a seed; none where no seed reports it."""
        return self.cell.values.get(f"{self.split}/{metric}", ())

    def mean(self, metric: str) -> float | None:
        return self.cell.mean(f"{self.split}/{metric}")

    def std(self, metric: str) -> float | None:
        return self.cell.std(f"{self.split}/{metric}")

    @property
    def num_labelled(self) -> tuple[int, int] | None:
        """The least and the most images that a seed was trained on; None before any is finished."""
        counts = self.cell.values.get("num_labelled")
        return (int(min(counts)), int(max(counts))) if counts else None


@dataclass(frozen=True)
class Pair:
    """Two networks at the same share of the masks."""

    first: str
    second: str
    fraction: float


@dataclass(frozen=True, eq=False)
class TargetSet:
    """All rows of one data set and target."""

    labels: Mapping[str, str]
    """data and region."""
    rows: Sequence[Row]
    results: StudyResults

    @property
    def title(self) -> str:
        return f"{self.labels['data']} · {self.labels['region']}"

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.labels["data"])

    @property
    def fractions(self) -> list[float]:
        """Shares of the masks, rising."""
        return sorted({row.fraction for row in self.rows})

    def of(self, split: str, fraction: float) -> list[Row]:
        """The rows of a split and share, in the order of ``ROLES``."""
        return [row for row in self.rows if (row.split, row.fraction) == (split, fraction)]

    def row(self, role: str, fraction: float, split: str = _COMPARED_SPLIT) -> Row | None:
        return next((row for row in self.of(split, fraction) if row.role == role), None)

    @cached_property
    def class_names(self) -> list[str]:
        """The classes, the background first; none before any trial is finished."""
        done = [entry for row in self.rows for entry in row.cell.done]
        return [] if not done else self._scores(done[0]["key"])[CLASS].unique(maintain_order=True).to_list()

    def pairs(self) -> list[Pair]:
        """Every comparison that the study plans."""
        return [
            Pair(first, second, fraction)
            for fraction, (first, second) in product(self.fractions, AGAINST)
            if self.row(first, fraction) and self.row(second, fraction)
        ]

    def num_seeds(self, pair: Pair) -> int:
        """Seeds that the study plans for the arm that has fewer."""
        rows = [self.row(role, pair.fraction) for role in (pair.first, pair.second)]
        return min(row.cell.num_wanted for row in rows if row is not None)

    def comparison(self, pair: Pair) -> Comparison | Missing:
        """The Dice of each validation image, the mean over the classes that it has but the background, of both arms.

        Which images and classes count follows from the truth alone; an image that shows the background only is left
        out, and what a network finds of a class that an image has not does not count here.
        """
        frames = [self._dice_of_images(self.row(role, pair.fraction)) for role in (pair.first, pair.second)]
        lacking = [role for role, found in zip((pair.first, pair.second), frames, strict=True) if not found]
        if lacking:
            return Missing(f"no result of {' and '.join(lacking)}")
        joined = frames[0][0]
        for place, frame in enumerate([*frames[0], *frames[1]]):
            values = frame.select(IMAGE_ID, pl.col(DICE).alias(f"dice {place}"))
            joined = joined.join(values, on=IMAGE_ID, how="inner", maintain_order="left")
        joined = joined.drop(DICE).drop_nulls().sort(GROUP, POSITION, IMAGE_ID)
        if joined.is_empty():
            return Missing("no validation image has a class but the background")
        values_SN: Floats = joined.select(pl.selectors.starts_with("dice ")).to_numpy().T.astype(np.float64)
        first_SN, second_SN = values_SN[: len(frames[0])], values_SN[len(frames[0]) :]
        groups, kind = joined[GROUP].to_list(), group_kind(self.card)
        return Comparison(first_SN, second_SN, groups, kind, (pair.first, pair.second))

    def compared_levels(self, pair: Pair) -> list[tuple[float, float | None, int]]:
        """Mean over images, its standard deviation over seeds and their number, of both networks, of what is compared;
        nothing where there is no comparison."""
        compared = self.comparison(pair)
        if isinstance(compared, Missing):
            return []
        found = []
        for values_SN in (compared.trained_SN, compared.untrained_SN):
            of_seeds_S = np.real(values_SN.mean(axis=1))
            std = float(of_seeds_S.std(ddof=1)) if len(of_seeds_S) > 1 else None
            found.append((float(of_seeds_S.mean()), std, len(of_seeds_S)))
        return found

    def _dice_of_images(self, row: Row | None) -> list[pl.DataFrame]:
        """image_id, group, position and dice of each image, a frame a seed."""
        if row is None:
            return []
        return [dice_of_images(self._scores(entry["key"])) for entry in row.cell.done]

    def _scores(self, key: str) -> pl.DataFrame:
        return pl.read_parquet(self.results.folder(key) / SCORES_FILE)


def dice_of_images(scores: pl.DataFrame) -> pl.DataFrame:
    """image_id, group, position and dice of each image, from the rows of a result: the mean over the classes that it
    has but the background, which is the first; no row for an image that has no other."""
    background = scores[CLASS][0] if scores.height else ""
    shown = scores.filter((pl.col(CLASS) != background) & (pl.col(NUM_TRUE) > 0))
    return shown.group_by(IMAGE_ID, GROUP, POSITION, maintain_order=True).agg(pl.col(DICE).mean())


def target_sets(results: StudyResults) -> list[TargetSet]:
    """Every data set and target of a study, in the order of its manifest."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for cell in cells_of(results):
        if cell.role in ROLES:
            row = Row(cell.role, _fraction(cell), cell.labels["split"], cell)
            rows.setdefault((cell.labels["data"], cell.labels["region"]), []).append(row)
    return [
        TargetSet({"data": data, "region": region}, sorted(of_target, key=lambda r: ROLES.index(r.role)), results)
        for (data, region), of_target in rows.items()
    ]


def judged(found: Sequence[TargetSet]) -> dict[tuple[int, Pair], Verdict]:
    """The verdict of every comparison, by the place of its set; all that the study plans share the level."""
    planned = [(place, pair) for place, target in enumerate(found) for pair in target.pairs()]
    num_tests = sum(found[place].num_seeds(pair) >= 2 for place, pair in planned)
    return verdicts({(place, pair): found[place].comparison(pair) for place, pair in planned}, num_tests, len(planned))


def _fraction(cell: Cell) -> float:
    entry = [*cell.done, *(entry for entry, _ in cell.missing)][0]
    return float(entry["configuration"]["model"]["label_fraction"])
