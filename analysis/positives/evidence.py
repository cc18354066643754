"""What a study of additional positives has: test scores of every way to choose them, share of the labels and seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.cells import Cell, cells_of
from analysis.results import Entry, StudyResults
from trainables.api.names import (
    BY_FEATURES,
    BY_FEATURES_PRETRAINED,
    BY_LABEL,
    BY_TRACIN,
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    FALSE_NEGATIVES,
    RANDOM_START,
    TRANSFORMED,
)

ROLES = (
    RANDOM_START, BYOL_ALONE, FALSE_NEGATIVES, TRANSFORMED, BY_FEATURES, BY_FEATURES_PRETRAINED, BY_TRACIN,
    BY_TRACIN_PRETRAINED, BY_LABEL,
)  # fmt: skip
_PRETRAIN_SEEDS = ("model.encoder.pretrain_seed", "model.encoder.init_seed")


@dataclass(frozen=True, eq=False)
class Row:
    """One way at one share of the labels, over its pretrainings and fine-tunings."""

    role: str
    fraction: float
    cell: Cell

    def of_fine_tunings(self, metric: str) -> Sequence[float]:
        """Of the first pretraining, a value a fine-tuning."""
        return [value for entry, value in self._values(metric) if pretrain_seed(entry) == 0]

    def of_pretrainings(self, metric: str) -> Sequence[float]:
        """A value a pretraining, of its fine-tuning that has the pretraining's seed."""
        return [v for entry, v in self._values(metric) if entry["seeds"]["model.finetune_seed"] == pretrain_seed(entry)]

    def _values(self, metric: str) -> list[tuple[Entry, float]]:
        return list(zip(self.cell.done, self.cell.values.get(metric, ()), strict=False))


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """All rows of one data set."""

    data: str
    rows: Sequence[Row]
    results: StudyResults

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.data)

    @property
    def fractions(self) -> list[float]:
        """Shares of the labels, rising."""
        return sorted({row.fraction for row in self.rows})

    @property
    def metric(self) -> str:
        """What is compared: balanced accuracy, of findings the mean AUC."""
        has_bma = any("test/bma" in row.cell.values for row in self.rows)
        return "test/bma" if has_bma or not any(row.cell.done for row in self.rows) else "test/auc"

    def row(self, role: str, fraction: float) -> Row | None:
        return next((row for row in self.rows if (row.role, row.fraction) == (role, fraction)), None)


def labelled_sets(results: StudyResults) -> list[LabelledSet]:
    """Every data set of a study, in the order of its manifest."""
    rows: dict[str, list[Row]] = {}
    for cell in cells_of(results):
        if cell.role in ROLES:
            rows.setdefault(cell.labels["data"], []).append(Row(cell.role, _fraction(cell), cell))
    return [
        LabelledSet(data, sorted(of_data, key=lambda row: (row.fraction, ROLES.index(row.role))), results)
        for data, of_data in rows.items()
    ]


def pretrain_seed(entry: Entry) -> int:
    """Of the encoder that was fine-tuned."""
    return next(int(entry["seeds"][path]) for path in _PRETRAIN_SEEDS if path in entry["seeds"])


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Both where they are defined: a standard deviation takes two values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def _fraction(cell: Cell) -> float:
    entry = [*cell.done, *(entry for entry, _ in cell.missing)][0]
    return float(entry["configuration"]["model"]["label_fraction"])
