"""What a report says of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Groups = Literal["patients", "lesions", "volumes", "images", "slabs of one volume"]
"""What a group of a data set is. ``images``: which of them are of one patient is not known."""


@dataclass(frozen=True)
class Card:
    """A data set in a few facts, for plans, reports and MLflow."""

    name: str
    counts: Mapping[str, int]
    """Images of every split."""
    num_groups: int
    """How many there are of what ``groups`` says: a split keeps each of them together."""
    split: str
    """How the splits were kept apart, in a sentence."""
    licence: str
    """What its publishers allow, in a sentence."""
    groups: Groups
    """What a group is, and so whom a result may speak of: other patients, images like these, this volume alone."""
