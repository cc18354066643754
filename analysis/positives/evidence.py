"""What a study of additional positives has: test scores of every way to choose them, share of the labels and seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.cells import Cell, cells_of
from analysis.published.positives import METRICS, transferred
from analysis.results import Entry, StudyResults
from trainables.api.names import (
    BY_FEATURES,
    BY_FEATURES_PRETRAINED,
    BY_LABEL,
    BY_TRACIN,
    BY_TRACIN_PRETRAINED,
    BYOL_ALONE,
    FALSE_NEGATIVES,
    LINEAR_PROBE,
    RANDOM_START,
    TRANSFORMED,
)

ROLES = (
    RANDOM_START, BYOL_ALONE, FALSE_NEGATIVES, TRANSFORMED, BY_FEATURES, BY_FEATURES_PRETRAINED, BY_TRACIN,
    BY_TRACIN_PRETRAINED, BY_LABEL,
)  # fmt: skip
WITHOUT_LABELS = tuple(role for role in ROLES if role not in (RANDOM_START, BYOL_ALONE, BY_LABEL))
"""The ways to choose additional positives that see no label."""
TITLES = {"test/bma": "balanced accuracy", "test/auc": "mean AUC", "test/precision": "precision"}
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

    def of_pretrainings(self, metric: str) -> Mapping[int, float]:
        """By the seed of the pretraining, the value of its fine-tuning that has the same seed."""
        return {pretrain_seed(entry): value for entry, value in self._values(metric) if _has_one_seed(entry)}

    @property
    def pretrain_seeds(self) -> set[int]:
        """Of all pretrainings that the study asks for, finished or not."""
        entries = [*self.cell.done, *(entry for entry, _ in self.cell.missing)]
        return {pretrain_seed(entry) for entry in entries if _has_one_seed(entry)}

    def _values(self, metric: str) -> list[tuple[Entry, float]]:
        return list(zip(self.cell.done, self.cell.values.get(metric, ()), strict=False))


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """All rows of one data set."""

    data: str
    """That is fine-tuned and tested on."""
    rows: Sequence[Row]
    results: StudyResults
    pretrained_on: str = ""
    """Another data set, of transferred encoders."""

    @property
    def title(self) -> str:
        return f"{self.data}, pretrained on {self.pretrained_on}" if self.pretrained_on else self.data

    @property
    def is_probe(self) -> bool:
        """Whether a linear layer is trained alone, which the paper has not."""
        return any(row.cell.labels.get("trained") == LINEAR_PROBE for row in self.rows)

    @property
    def roles(self) -> list[str]:
        """The rows that the study has."""
        return [role for role in ROLES if any(row.role == role for row in self.rows)]

    @property
    def published_as(self) -> str:
        """Its key among the paper's numbers, if these have it."""
        if self.is_probe:
            return f"{LINEAR_PROBE} of {self.data}"
        return transferred(self.data, self.pretrained_on) if self.pretrained_on else self.data

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.data)

    @property
    def fractions(self) -> list[float]:
        """Shares of the labels, rising."""
        return sorted({row.fraction for row in self.rows})

    @property
    def metric(self) -> str:
        """What is compared: the paper's score, else balanced accuracy, of findings the mean AUC."""
        if self.published_as in METRICS:
            return METRICS[self.published_as]
        has_bma = any("test/bma" in row.cell.values for row in self.rows)
        return "test/bma" if has_bma or not any(row.cell.done for row in self.rows) else "test/auc"

    @property
    def score(self) -> str:
        """The metric in words."""
        return TITLES[self.metric]

    @property
    def tested(self) -> str:
        """What differences are taken of: the same, but for a precision, which one image that is taken for the finding
        may make 1, and none makes 0."""
        return "test/auc" if self.metric == "test/precision" else self.metric

    @property
    def tested_score(self) -> str:
        """It in words."""
        return TITLES[self.tested]

    def row(self, role: str, fraction: float) -> Row | None:
        return next((row for row in self.rows if (row.role, row.fraction) == (role, fraction)), None)


def labelled_sets(results: StudyResults) -> list[LabelledSet]:
    """Every data set of a study, in the order of its manifest."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for cell in cells_of(results):
        if cell.role in ROLES:
            pretrained_on = cell.labels.get("pretrained", "").removeprefix("pretrained on ")
            rows.setdefault((cell.labels["data"], pretrained_on), []).append(Row(cell.role, _fraction(cell), cell))
    return [
        LabelledSet(
            data, sorted(of_data, key=lambda row: (row.fraction, ROLES.index(row.role))), results, pretrained_on
        )
        for (data, pretrained_on), of_data in rows.items()
    ]


def pretrain_seed(entry: Entry) -> int:
    """Of the encoder that was fine-tuned."""
    return next(int(entry["seeds"][path]) for path in _PRETRAIN_SEEDS if path in entry["seeds"])


def percent(fraction: float) -> str:
    """A share of the labels as its columns are called: ``10`` for 0.1."""
    return f"{100 * fraction:.4g}"


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Both where they are defined: a standard deviation takes two values."""
    return (
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def _has_one_seed(entry: Entry) -> bool:
    return int(entry["seeds"]["model.finetune_seed"]) == pretrain_seed(entry)


def _fraction(cell: Cell) -> float:
    entry = [*cell.done, *(entry for entry, _ in cell.missing)][0]
    return float(entry["configuration"]["model"]["label_fraction"])
