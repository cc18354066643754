"""What the pages of all studies say of a data set, from its card in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from trainables.api.card import Groups

Card = Mapping[str, Any]
"""A ``trainables.api.card.Card`` as a manifest has it; empty where there is none."""


def group_kind(card: Card) -> Groups:
    """What a group of the data set is; ``images`` (patients not known) where there is no card that says it."""
    return cast("Groups", card.get("groups", "images"))


def is_one_volume(card: Card) -> bool:
    """Whether all images are of one volume."""
    kind = group_kind(card)
    return kind == "slabs of one volume" or (kind == "volumes" and card.get("num_groups") == 1)


def card_rows(name: str, card: Card) -> list[tuple[str, str]]:
    """(title, text) of the data: name with counts, and where they are known how it was split, and its licence."""
    counts = ", ".join(f"{split} {count}" for split, count in card.get("counts", {}).items())
    rows = [("Data", f"{name}: {counts}" if counts else name)]
    return rows + [
        (title, card[fact]) for fact, title in (("split", "Split"), ("licence", "Licence")) if card.get(fact)
    ]
