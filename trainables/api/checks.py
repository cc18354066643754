"""Checks of fields that several rooms make. Loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raise ValueError naming field, value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: choose one of {', '.join(map(repr, allowed))}")
