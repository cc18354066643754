"""The tables of the rotation study, each from the tidy frames of ``analysis.statistics``."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.published.rotation import ROTATION_CURVES, rotation_frame
from analysis.render.table import NOTHING, Column, Table
from analysis.rotation.panels import in_expected_order

_FIELD_TITLES = {"full": "full field", "circle": "inscribed circle"}
_LABEL_COLUMNS = [
    Column("curve", "curve"),
    Column("field of view", "field of view"),
    Column("map made binary by", "binarisation"),
]


def coefficient_table(coefficients: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """Amplitude, null, phase, share of variance and spike of each curve: interpolated fit, chosen binarisations."""
    quantities = ["amplitude", "amplitude_null", "phase_deg", "share_fundamental", "share_wave", "spike", "spike_at_0"]
    frame = _wide(coefficients, quantities, binarisations)
    columns = [
        *_labels(binarisations),
        Column("amplitude of the 90° wave", "amplitude", 4, "amplitude_low", "amplitude_high"),
        Column("null", "amplitude_null", 4),
        Column("first maximum", "phase_deg", 1, "phase_deg_low", "phase_deg_high", unit="°"),
        Column("share of variance", "share_fundamental", 0, scale=100, unit=" %"),
        Column("with harmonics", "share_wave", 0, scale=100, unit=" %"),
        Column("spike at 90°, 180°, 270°", "spike", 4, "spike_low", "spike_high", signed=True),
        Column("at 0°", "spike_at_0", 4, signed=True),
        Column("n", "n"),
    ]
    note = (
        "Wave: fitted to the interpolated angles (without the multiples of 90°). Null: 95 % quantile of the amplitude "
        "when each block of images is shifted round the circle at random. Spike: mean Dice at the exact multiples "
        "minus the wave there. Brackets: 95 % bootstrap intervals; an amplitude whose interval starts at 0 is not "
        "distinguishable from none, and its phase then is anywhere."
    )
    return Table(name, caption, frame, columns, note)


def explained_table(explained: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """What each control explains of the trained encoder's 90° coefficient, and what is left."""
    quantities = [
        "share_explained",
        "remainder",
        "remainder_debiased",
        "remainder_null",
        "spike_remainder",
        "seed_distance",
    ]
    columns = [
        *_labels(binarisations),
        Column("explained", "share_explained", 0, "share_explained_low", "share_explained_high", scale=100, unit=" %"),
        Column("left: |c trained − c control|", "remainder", 4, "remainder_low", "remainder_high"),
        Column("debiased", "remainder_debiased", 4),
        Column("null", "remainder_null", 4),
        Column("seed to seed", "seed_distance", 4),
        Column("spike left", "spike_remainder", 4, "spike_remainder_low", "spike_remainder_high", signed=True),
        Column("n", "n"),
    ]
    note = (
        "c: complex 90° coefficient of the interpolated angles, paired over the same images. Explained: the part of "
        "the trained wave that the control has at the same phase (100 % all of it; above, the control's wave is "
        "larger; no interval where the trained amplitude may be 0). Debiased: without the length that noise adds to a "
        "distance. Seed to seed: largest distance of one untrained seed from the mean of the others."
    )
    return Table(name, caption, _wide(explained, quantities, binarisations), columns, note)


def level_table(levels: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """Mean Dice, its extremes over the angles, and the levels of maps that know nothing."""
    frame = _chosen(levels, binarisations)
    columns = [
        *_labels(binarisations),
        Column("mean", "mean"),
        Column("least", "min"),
        Column("at", "min_deg", 0, unit="°"),
        Column("largest", "max"),
        Column("at", "max_deg", 0, unit="°"),
        Column("mask fraction", "mask_fraction"),
        Column("map fraction", "map_fraction"),
        Column("chance", "chance_dice"),
        Column("all ones", "all_ones_dice"),
        Column("AUPRC", "auprc"),
        Column("n", "n"),
    ]
    note = (
        "Dice of the mean over n images at each angle. Chance: 2pq/(p+q), the Dice of an uninformative map of the same "
        "size q for mask fraction p. All ones: a map that covers everything. AUPRC needs no threshold."
    )
    return Table(name, caption, frame, columns, note)


def extrema_table(extrema: pl.DataFrame, binarisations: Sequence[str], name: str, caption: str) -> Table:
    """Angles of the extrema of each mean curve and of its wave, one row a curve and panel."""
    keys = ["curve", "field_of_view", "field of view", "binarisation"]
    frame = (
        _chosen(extrema, binarisations)
        .group_by(keys, maintain_order=True)
        .agg(
            *(
                _joined(source, kind).alias(f"{source} {kind}")
                for source in ("raw", "wave")
                for kind in ("maximum", "minimum")
            ),
            pl.col("prominence").filter(pl.col("source") == "raw").max().alias("prominence"),
        )
    )
    columns = [
        *_labels(binarisations),
        Column("maxima of the curve", "raw maximum"),
        Column("minima of the curve", "raw minimum"),
        Column("largest prominence", "prominence", 4),
        Column("maxima of the wave", "wave maximum"),
        Column("minima of the wave", "wave minimum"),
    ]
    note = (
        "Of the curve: the mean curve itself, extrema prominent by a quarter of its range. Of the wave: the fitted 90° "
        "wave with its harmonics, modulo 90°."
    )
    return Table(name, caption, frame, columns, note)


def _joined(source: str, kind: str) -> pl.Expr:
    angles = pl.col("angle_deg").filter((pl.col("source") == source) & (pl.col("kind") == kind)).sort().round(1)
    return (angles.cast(pl.String).str.strip_suffix(".0") + "°").str.join(", ")


def published_table(levels: pl.DataFrame, extrema: pl.DataFrame, dataset: str, curve: str, binarisation: str) -> Table:
    """The thesis's three data sets, and this study's curve in both fields of view."""
    ours = []
    rows = levels.filter(curve=curve, binarisation=binarisation).sort(pl.col("field_of_view") != "full")
    for row in rows.iter_rows(named=True):
        field = row["field_of_view"]
        found = extrema.filter(curve=curve, binarisation=binarisation, field_of_view=field, source="raw")
        ours.append(
            {
                "dataset": dataset,
                "source": f"this study, {_FIELD_TITLES.get(field, field)}",
                "n": row["n"],
                "min": row["min"],
                "max": row["max"],
                "maxima": _angles(found.filter(kind="maximum")),
                "minima": _angles(found.filter(kind="minimum")),
                "all_ones_fraction": row["mask_fraction"],
            }
        )
    published = rotation_frame()
    frame = pl.concat([pl.DataFrame(ours, schema=published.schema), published])
    columns = [
        Column("data set", "dataset"),
        Column("source", "source"),
        Column("least Dice", "min"),
        Column("largest Dice", "max"),
        Column("maxima", "maxima"),
        Column("minima", "minima"),
        Column("mask fraction (published: implied)", "all_ones_fraction", 2),
        Column("n", "n"),
    ]
    note = (
        f"Ours: map made binary by {binarisation}. The thesis does not print mask fractions; in its rows stands the "
        "one at which a map of ones everywhere would reach the middle of the published range. "
    )
    return Table("published", "Published rotation curves beside ours", frame, columns, note + comparability(dataset))


def comparability(dataset: str) -> str:
    """Whether our levels may be set against a published row, in a sentence."""
    if dataset.casefold() in {curve.dataset.casefold() for curve in ROTATION_CURVES}:
        return f"The {dataset} row may be compared, as far as the unpublished way of making maps binary allows."
    return (
        f"Not comparable in level: {dataset} is none of the thesis's data sets, so other images, masks and mask "
        "fractions. Only the shape, where the extrema lie, may be set beside it."
    )


def _angles(found: pl.DataFrame) -> str:
    return ", ".join(f"{angle:g}°" for angle in found["angle_deg"].sort()) or NOTHING


def _labels(binarisations: Sequence[str]) -> list[Column]:
    return _LABEL_COLUMNS if len(binarisations) > 1 else _LABEL_COLUMNS[:2]


def _chosen(frame: pl.DataFrame, binarisations: Sequence[str]) -> pl.DataFrame:
    """Rows of the chosen binarisations, in reading order, with the field of view in words."""
    kept = frame.filter(pl.col("binarisation").is_in(list(binarisations))).with_columns(
        pl.col("field_of_view").replace(_FIELD_TITLES).alias("field of view")
    )
    rank = pl.col("binarisation").replace_strict(
        {b: i for i, b in enumerate(binarisations)}, default=len(binarisations)
    )
    return in_expected_order(kept).sort(rank, pl.col("field_of_view") != "full", maintain_order=True)


def _wide(tidy: pl.DataFrame, quantities: Sequence[str], binarisations: Sequence[str]) -> pl.DataFrame:
    """One row a curve and panel; columns quantity, quantity_low, quantity_high, null where not there."""
    keys = ["curve", "field_of_view", "binarisation", "n"]
    chosen = tidy.filter(pl.col("quantity").is_in(list(quantities)), pl.col("fit") == "interpolated")
    wide = chosen.select(keys).unique(maintain_order=True)
    for quantity in quantities:
        part = chosen.filter(quantity=quantity).select(
            *keys,
            pl.col("value").alias(quantity),
            pl.col("low").alias(f"{quantity}_low"),
            pl.col("high").alias(f"{quantity}_high"),
        )
        wide = wide.join(part, on=keys, how="left", maintain_order="left")
    return _chosen(wide, binarisations)
