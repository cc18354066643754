"""Words and numbers that the sentences on waves and on trends share."""

from __future__ import annotations

from analysis.curves.panels import FIXED_MAP, INTENSITY, MASK, UNTRAINED
from analysis.render.table import number

Estimate = tuple[float | None, float | None, float | None]
"""(value, low, high); None for what is not defined, or has no interval."""

CONTROL_WORDS = {
    UNTRAINED: "untrained encoders",
    FIXED_MAP: "the round trip of a fixed map",
    MASK: "the round trip of the mask itself",
    INTENSITY: "image intensity as the map",
}
"""The controls, in words."""

UNLEARNT = (UNTRAINED, MASK, INTENSITY)
"""The controls that no training has a part in; the fixed map is a trained encoder's."""


def with_interval(values: Estimate, decimals: int = 4, unit: str = "", signed: bool = False) -> str:
    """``0.0102 [0.0034, 0.0171]``; the value alone where there is no interval."""
    value, low, high = values
    if value is None:
        return "undefined"
    text = number(value, decimals, signed) + unit
    if low is None or high is None:
        return text
    return f"{text} [{number(low, decimals, signed)}, {number(high, decimals, signed)}]"


def shares(found: dict[str, Estimate]) -> str:
    """``untrained encoders 52 % [40 %, 63 %]; …`` of those controls whose share has an interval."""
    return "; ".join(
        f"{CONTROL_WORDS[control]} {percent(value)} [{percent(low)}, {percent(high)}]"
        for control, (value, low, high) in found.items()
        if value is not None and low is not None and high is not None
    )


def percent(value: float) -> str:
    return f"{number(100 * value, 0)} %"


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
