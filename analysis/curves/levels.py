"""Where curves lie: levels of Dice beside what maps that know nothing would have."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.curves.panels import ROLE, SEED, sorted_by_role
from analysis.curves.sweep import SweepFacts
from analysis.render.table import Column, Table
from trainables.api.names import (
    ALL_ONES_DICE,
    AUPRC,
    BINARISATION,
    CHANCE_DICE,
    DICE,
    FIELD_OF_VIEW,
    IMAGE_ID,
    MAP_FRACTION,
    MASK_FRACTION,
    VALUE,
)

_BESIDE = (MASK_FRACTION, MAP_FRACTION, CHANCE_DICE, ALL_ONES_DICE, AUPRC)
_KEYS = (ROLE, FIELD_OF_VIEW, BINARISATION)


def levels(curves: pl.DataFrame, sweep: SweepFacts) -> pl.DataFrame:
    """Mean over images and seeds, then over the axis, each value weighted with the share it stands for.

    Values at which both views are the same image count for nothing here. Columns: role, field_of_view, binarisation, n
    (images), num_seeds, num_values, mean, min, min_at, max, max_at, and the weighted means of mask_fraction,
    map_fraction, chance_dice, all_ones_dice and auprc.
    """
    values = curves[VALUE].unique().sort().to_numpy()
    weights = pl.DataFrame({VALUE: values, "weight": sweep.level_weights(values)}).filter(pl.col("weight") > 0)
    by_value = (
        curves.join(weights, on=VALUE)
        .group_by(*_KEYS, VALUE, "weight", maintain_order=True)
        .agg(
            pl.col(DICE).fill_nan(None).mean(),
            *(pl.col(name).fill_nan(None).mean() for name in _BESIDE),
            pl.col(IMAGE_ID).n_unique().alias("n"),
            pl.col(SEED).n_unique().alias("num_seeds"),
        )
        .sort(*_KEYS, VALUE)
    )
    frame = by_value.group_by(_KEYS, maintain_order=True).agg(
        pl.col("n").max().cast(pl.Int64),
        pl.col("num_seeds").max().cast(pl.Int64),
        pl.len().cast(pl.Int64).alias("num_values"),
        _weighted(DICE).alias("mean"),
        pl.col(DICE).min().alias("min"),
        pl.col(VALUE).sort_by(DICE).first().alias("min_at"),
        pl.col(DICE).max().alias("max"),
        pl.col(VALUE).sort_by(DICE).last().alias("max_at"),
        *(_weighted(name) for name in _BESIDE),
    )
    return sorted_by_role(frame)


def _weighted(name: str) -> pl.Expr:
    """Weighted mean of a column over the values at which it is defined; null where it is at none."""
    weight = pl.col("weight").filter(pl.col(name).is_not_null())
    return pl.when(weight.len() > 0).then((pl.col(name) * pl.col("weight")).sum() / weight.sum()).alias(name)


def level_table(
    found: pl.DataFrame,
    sweep: SweepFacts,
    titles: dict[str, str],
    binarisations: Sequence[str],
    name: str,
    caption: str,
) -> Table:
    """Mean Dice, its extremes over the axis, and the levels of maps that know nothing."""
    columns = [
        *label_columns(binarisations),
        Column("mean", "mean"),
        Column("least", "min"),
        Column("at", "min_at", significant_digits=3, unit=sweep.unit),
        Column("largest", "max"),
        Column("at", "max_at", significant_digits=3, unit=sweep.unit),
        Column("mask fraction", MASK_FRACTION),
        Column("map fraction", MAP_FRACTION),
        Column("chance", CHANCE_DICE),
        Column("all ones", ALL_ONES_DICE),
        Column("AUPRC", AUPRC),
        Column("images", "n"),
        Column("seeds", "num_seeds"),
    ]
    note = (
        "Dice of the mean over images and seeds at each value; means over the axis weigh each value with the share it "
        f"stands for and leave out {sweep.text(sweep.neutral)}, where both views are the same image. Chance: "
        "2pq/(p+q), "
        "the Dice of an uninformative map of the same size q for mask fraction p. All ones: a map that covers "
        "everything. AUPRC needs no threshold."
    )
    return Table(name, caption, labelled(found, titles, binarisations), columns, note)


def label_columns(binarisations: Sequence[str]) -> list[Column]:
    """The first columns of every table of curves."""
    columns = [
        Column("curve", ROLE),
        Column("field of view", "field of view"),
        Column("map made binary by", BINARISATION),
    ]
    return columns if len(binarisations) > 1 else columns[:2]


def labelled(frame: pl.DataFrame, titles: dict[str, str], binarisations: Sequence[str]) -> pl.DataFrame:
    """Rows of the chosen binarisations, in reading order, with the field of view in words."""
    title = pl.col(FIELD_OF_VIEW).replace({name: text.lower() for name, text in titles.items()}).alias("field of view")
    kept = frame.filter(pl.col(BINARISATION).is_in(list(binarisations))).with_columns(title)
    order = {rule: place for place, rule in enumerate(binarisations)}
    rank = pl.col(BINARISATION).replace_strict(order, default=len(order))
    return sorted_by_role(kept).sort(rank, pl.col(FIELD_OF_VIEW) != "full", maintain_order=True)
