"""The tables of the 90° wave, each from the tidy frames of ``analysis.rotation.statistics``."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.curves.figures import ROTATION_FIELD_TITLES
from analysis.curves.levels import label_columns, labelled
from analysis.curves.panels import ROLE
from analysis.render.table import Column, Table
from analysis.rotation.fitted import INTERPOLATED
from trainables.api.names import BINARISATION, FIELD_OF_VIEW


def coefficient_table(coefficients: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """Amplitude, null, phase, share of variance and spike of each curve: interpolated fit, chosen binarisations."""
    quantities = ["amplitude", "amplitude_null", "phase_deg", "share_fundamental", "share_wave", "spike", "spike_at_0"]
    columns = [
        *label_columns(binarisations),
        Column("amplitude of the 90° wave", "amplitude", 4, "amplitude_low", "amplitude_high"),
        Column("null", "amplitude_null", 4),
        Column("first maximum", "phase_deg", 1, "phase_deg_low", "phase_deg_high", unit="°"),
        Column("share of variance", "share_fundamental", 0, scale=100, unit=" %"),
        Column("with harmonics", "share_wave", 0, scale=100, unit=" %"),
        Column("spike at 90°, 180°, 270°", "spike", 4, "spike_low", "spike_high", signed=True),
        Column("at 0°", "spike_at_0", 4, signed=True),
        Column("n", "n"),
    ]
    wide = _wide(coefficients, quantities, binarisations)
    intervals = (
        "Null: 95 % quantile of the amplitude when each block of images is shifted round the circle at random. "
        "Brackets: 95 % bootstrap intervals over blocks of images; an amplitude whose interval starts at 0 is not "
        "distinguishable from none, and its phase then is anywhere."
        if wide["amplitude_low"].is_not_null().any()
        else "There are too few independent blocks of images for intervals and null."
    )
    note = (
        "Of the mean over seeds. Wave: fitted to the interpolated angles (without the multiples of 90°). Spike: mean "
        f"Dice at the exact multiples minus the wave there. {intervals}"
    )
    return Table(name, caption, wide, columns, note)


def explained_table(explained: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """What each control explains of the trained encoders' 90° coefficient, and what is left."""
    quantities = ["share_explained", "remainder", "remainder_debiased", "remainder_null", "spike_remainder"]
    columns = [
        *label_columns(binarisations),
        Column("explained", "share_explained", 0, "share_explained_low", "share_explained_high", scale=100, unit=" %"),
        Column("left: |c trained − c control|", "remainder", 4, "remainder_low", "remainder_high"),
        Column("debiased", "remainder_debiased", 4),
        Column("null", "remainder_null", 4),
        Column("left of the spike", "spike_remainder", 4, "spike_remainder_low", "spike_remainder_high", signed=True),
        Column("n", "n"),
    ]
    note = (
        "c: complex 90° coefficient of the interpolated angles, mean over seeds, paired over the same images. "
        "Explained: the part of the trained wave that the control has at the same phase (100 % all of it; above, the "
        "control's wave is larger; below 0, it is in antiphase; no interval where the trained amplitude may be 0). "
        "Debiased: without the length that noise adds to a distance. These intervals hold the spread over images; the "
        "spread over seeds stands in the verdict."
    )
    return Table(name, caption, _wide(explained, quantities, binarisations), columns, note)


def extrema_table(extrema: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """Angles of the extrema of each mean curve and of its wave, one row a curve and panel."""
    keys = [ROLE, FIELD_OF_VIEW, "field of view", BINARISATION]
    frame = (
        labelled(extrema, ROTATION_FIELD_TITLES, binarisations)
        .group_by(keys, maintain_order=True)
        .agg(
            *(
                angles_text(source, kind).alias(f"{source} {kind}")
                for source in ("raw", "wave")
                for kind in ("maximum", "minimum")
            ),
            pl.col("prominence").filter(pl.col("source") == "raw").max().alias("prominence"),
            pl.col("noise").max().alias("noise"),
        )
    )
    columns = [
        *label_columns(binarisations),
        Column("maxima of the curve", "raw maximum", width=0.25),
        Column("minima of the curve", "raw minimum", width=0.25),
        Column("largest prominence", "prominence", 4),
        Column("noise alone", "noise", 4),
        Column("maxima of the wave", "wave maximum"),
        Column("minima of the wave", "wave minimum"),
    ]
    note = (
        "Of the curve: the mean curve itself without 0°, extrema prominent by a quarter of its range. Of the wave: the "
        f"fitted 90° wave with its harmonics, modulo 90°. {noise_note(extrema)}"
    )
    return Table(name, caption, frame, columns, note)


def noise_note(extrema: pl.DataFrame) -> str:
    """What stands in brackets among extrema, by their column ``may_be_noise``; nothing where there are none."""
    if extrema.is_empty():
        return ""
    if extrema["may_be_noise"].is_null().all():
        return "There are too few independent blocks of images to tell extrema from those of noise."
    return (
        "Noise alone: the range that a curve of nothing but what differs between blocks of images stays within, in "
        "95 % of cases. In brackets stand extrema of the curve that are no more prominent, and those of a wave whose "
        "amplitude cannot be told from none."
    )


def angles_text(source: str, kind: str) -> pl.Expr:
    """The angles of one kind of extrema in rising order, those that noise may make in brackets."""
    text = pl.col("angle_deg").round(1).cast(pl.String).str.strip_suffix(".0") + "°"
    shown = pl.when(pl.col("may_be_noise")).then("(" + text + ")").otherwise(text)
    of_kind = (pl.col("source") == source) & (pl.col("kind") == kind)
    return shown.sort_by("angle_deg").filter(of_kind.sort_by(pl.col("angle_deg"))).str.join(", ")


def _wide(tidy: pl.DataFrame, quantities: Sequence[str], binarisations: Sequence[str]) -> pl.DataFrame:
    """One row a curve and panel; columns quantity, quantity_low, quantity_high, null where not there."""
    keys = [ROLE, FIELD_OF_VIEW, BINARISATION, "n"]
    chosen = tidy.filter(pl.col("quantity").is_in(list(quantities)), pl.col("fit") == INTERPOLATED)
    wide = chosen.select(keys).unique(maintain_order=True)
    for quantity in quantities:
        part = chosen.filter(quantity=quantity).select(
            *keys,
            pl.col("value").alias(quantity),
            pl.col("low").alias(f"{quantity}_low"),
            pl.col("high").alias(f"{quantity}_high"),
        )
        wide = wide.join(part, on=keys, how="left", maintain_order="left")
    return labelled(wide, ROTATION_FIELD_TITLES, binarisations)
