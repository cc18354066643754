"""The ways to augment a pretraining that a study compares, and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.cells import Cell
from analysis.results import Entry
from trainables.api.names import (
    EXACT_ANGLE,
    NO_AUGMENTATION,
    ONE_AUGMENTATION,
    RELEASED,
    THESIS_AUGMENTATIONS,
    TWO_AUGMENTATIONS,
    UNTRAINED,
)

ROLES = (NO_AUGMENTATION, THESIS_AUGMENTATIONS, ONE_AUGMENTATION, EXACT_ANGLE, TWO_AUGMENTATIONS, UNTRAINED, RELEASED)
CONTROLS = (UNTRAINED, RELEASED)
"""Encoders that this study did not train."""
_EXACT_PERIOD_DEG = 90.0


@dataclass(frozen=True)
class Kind:
    """A type of augmentation and its range."""

    augmentation: str
    range: str

    @property
    def name(self) -> str:
        return f"{self.augmentation} {self.range}"


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to augment a pretraining (or none to train), with the cells of both measures."""

    role: str
    kinds: tuple[Kind, ...]
    cells: Mapping[str, Cell]

    @property
    def name(self) -> str:
        """For people: what augmented, or the role of what nothing did."""
        return " and ".join(kind.name for kind in self.kinds) or self.role

    @property
    def angle_deg(self) -> float:
        """Of a rotation by one exact angle; of no augmentation 0."""
        (first, *_) = self.cells.values()
        entry = [*first.done, *(entry for entry, _ in first.missing)][0]
        return float(_augmentation(entry["configuration"])["max_deg"])

    def is_done(self, measure: str) -> bool:
        """Whether any seed is finished."""
        return measure in self.cells and bool(self.cells[measure].done)

    def num_wanted(self, measure: str) -> int:
        return self.cells[measure].num_wanted if measure in self.cells else 0


def of_roles(arms: Sequence[Arm], *roles: str) -> list[Arm]:
    """The arms of some roles, in their order."""
    return [arm for arm in arms if arm.role in roles]


def interpolated(arms: Sequence[Arm]) -> list[Arm]:
    """Rotations by one exact angle at which pixels are interpolated. A multiple of 90 degrees leaves them as they are:
    what sets it apart is no matter of the angle alone."""
    return [arm for arm in of_roles(arms, EXACT_ANGLE) if arm.angle_deg % _EXACT_PERIOD_DEG]


def kinds_of(labels: Mapping[str, str]) -> tuple[Kind, ...]:
    """One or two, from the labels of a trial."""
    named = (("augmentation", "range"), ("second", "second_range"))
    return tuple(Kind(labels[kind], labels[range_]) for kind, range_ in named if kind in labels)


def seed_of(entry: Entry) -> int:
    """That of the pretraining or of the untrained encoder; of a released one that of the decoder, if any."""
    found = {path.rpartition(".")[2]: int(value) for path, value in entry["seeds"].items()}
    return next((found[name] for name in ("pretrain_seed", "init_seed", "finetune_seed") if name in found), 0)


def _augmentation(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """That of the pretraining in a trial's configuration, of either measure."""
    encoder = configuration.get("encoder") or configuration["model"]["network"]["encoder"]
    augmentation: Mapping[str, Any] = encoder["augmentation"]
    return augmentation
