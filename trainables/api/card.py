"""What a report says of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A data set in a few facts, for plans, reports and MLflow."""

    name: str
    counts: Mapping[str, int]
    """Images of every split."""
    num_groups: int
    """Patients, volumes or slabs: what a split keeps together and a block bootstrap draws."""
    split: str
    """How the splits were kept apart, in a sentence."""
    licence: str
    """What its publishers allow, in a sentence."""
    one_volume: bool = False
    """Whether all images are of one head, so that groups are parts of it and no result speaks of other people."""
