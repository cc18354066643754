"""Trends of all curves of a sweep without period, as tidy frames.

Columns as those of the wave: role, field_of_view, binarisation, quantity, value, low, high, n (images). ``low`` and
``high`` are null where a quantity has no interval; ``value`` is null where it is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from analysis import paired
from analysis.curves.panels import ROLE, TRAINED, Panel
from analysis.curves.sweep import SweepFacts
from analysis.resampling import Resampling
from analysis.trends.trend import slopes, trend
from trainables.api.names import BINARISATION, FIELD_OF_VIEW

Row = dict[str, Any]
_SCHEMA = {
    ROLE: pl.String, FIELD_OF_VIEW: pl.String, BINARISATION: pl.String, "quantity": pl.String,
    "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64,
}  # fmt: skip


def trend_frame(
    panels: Sequence[Panel], sweep: SweepFacts, resampling_of: Callable[[Panel], Resampling]
) -> pl.DataFrame:
    """What each role's mean curve holds, and what each control explains of the trained one's slope.

    Quantities: ``slope`` (Dice per unit of the sweep), ``standardised`` (correlation of mean curve and value),
    ``monotone_share`` with ``monotone_null`` (what it is of blocks that agree on nothing), ``leaves_below`` and
    ``leaves_above`` (the value from which the curve stays outside its band at the start, on that side of the neutral
    value; null: it never does; no row where there is no band), and of every role but the trained one
    ``share_explained`` and ``remainder`` (trained minus control, signed). A curve of one value besides the neutral
    one has no trend, so no row.
    """
    rows: list[Row] = []
    for panel in panels:
        resampling = resampling_of(panel)
        curves = {r: c for r, c in panel.curves.items() if (~sweep.is_neutral(c.values_V)).sum() > 1}
        slopes_of = {role: slopes(curve.dice_NV, curve.values_V, sweep.neutral) for role, curve in curves.items()}
        for role, curve in curves.items():
            found = trend(curve.dice_NV, curve.values_V, sweep.neutral, resampling)
            values: list[tuple[str, float, float, float]] = [
                ("slope", *found.slope),
                ("standardised", *found.standardised),
                ("monotone_share", *found.monotone_share),
                ("monotone_null", found.monotone_null, math.nan, math.nan),
            ]
            values += [
                (f"leaves_{d.side}", math.nan if d.value is None else d.value, math.nan, math.nan)
                for d in found.departures
                if d.has_band
            ]
            if role != TRAINED and TRAINED in slopes_of:
                share = paired.explained(slopes_of[TRAINED], slopes_of[role], resampling)
                values += [("share_explained", *share.share), ("remainder", *share.remainder.real)]
            rows += [_row(panel, role, *value) for value in values]
    return pl.DataFrame(rows, schema=_SCHEMA)


def look_up(
    frame: pl.DataFrame, role: str, field: str, binarisation: str, quantity: str
) -> tuple[float | None, float | None, float | None]:
    """(value, low, high) of one quantity; None for what is absent or undefined."""
    found = frame.filter(role=role, field_of_view=field, binarisation=binarisation, quantity=quantity)
    return found.select("value", "low", "high").row(0) if found.height else (None, None, None)


def _row(panel: Panel, role: str, quantity: str, value: float, low: float, high: float) -> Row:
    numbers = {"value": value, "low": low, "high": high}
    return {
        ROLE: role, FIELD_OF_VIEW: panel.field_of_view, BINARISATION: panel.binarisation, "quantity": quantity,
        "n": len(panel.image_ids),
        **{name: float(v) if math.isfinite(v) else None for name, v in numbers.items()},
    }  # fmt: skip
