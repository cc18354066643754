"""The table of trends."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.curves.levels import label_columns, labelled
from analysis.curves.panels import ROLE
from analysis.curves.sweep import SweepFacts
from analysis.render.table import Column, Table
from trainables.api.names import BINARISATION, FIELD_OF_VIEW

_QUANTITIES = (
    "slope", "standardised", "monotone_share", "monotone_null", "leaves_below", "leaves_above", "share_explained",
    "remainder",
)  # fmt: skip


def trend_table(
    trends: pl.DataFrame,
    sweep: SweepFacts,
    titles: dict[str, str],
    binarisations: Sequence[str],
    name: str,
    caption: str,
) -> Table:
    """One row a curve and panel: slope, its standardised form, the monotone part, where the curve leaves its start."""
    keys = [ROLE, FIELD_OF_VIEW, BINARISATION, "n"]
    wide = trends.select(keys).unique(maintain_order=True)
    for quantity in _QUANTITIES:
        part = trends.filter(quantity=quantity).select(
            *keys,
            pl.col("value").alias(quantity),
            pl.col("low").alias(f"{quantity}_low"),
            pl.col("high").alias(f"{quantity}_high"),
        )
        wide = wide.join(part, on=keys, how="left", maintain_order="left")
    ends = {f"{q}_low": f"{q}_high" for q in ("slope", "standardised", "remainder")}
    slope, standardised, remainder = ends.items()
    sides = [side for side in ("below", "above") if f"leaves_{side}" in trends["quantity"]]
    columns = [
        *label_columns(binarisations),
        Column("slope", "slope", 4, *slope, signed=True),
        Column("correlation with the value", "standardised", 2, *standardised, signed=True),
        Column("monotone part", "monotone_share", 0, scale=100, unit=" %"),
        Column("null", "monotone_null", 0, scale=100, unit=" %"),
        *(
            Column(f"leaves its start at, {side} {sweep.text(sweep.neutral)}", f"leaves_{side}", significant_digits=3)
            for side in sides
        ),
        Column("explained of the trained slope", "share_explained", 0, scale=100, unit=" %"),
        Column("left of the slope", "remainder", 4, *remainder, signed=True),
        Column("n", "n"),
    ]
    leaves = (
        " Leaves its start: the value from which a simultaneous 95 % band of the difference to the value next to the "
        "neutral one leaves out 0 and does so to the end."
    )
    note = (
        f"Of the mean over seeds, without {sweep.text(sweep.neutral)}, where both views are the same image. Slope: "
        f"Dice per unit of the {sweep.title}, weighted least squares. Monotone part: variance of the best monotone "
        "curve over that of the curve; null: its 95 % quantile when the blocks of images agree on nothing, too low "
        f"for fewer than some 20 blocks.{leaves if sides else ''} Explained: the control's slope over the trained "
        "one's."
    )
    return Table(name, caption, labelled(wide, titles, binarisations), columns, note)
