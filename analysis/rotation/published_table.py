"""A study's rotation curve beside those that the thesis printed, and whether the two may be compared."""

from __future__ import annotations

import polars as pl

from analysis.curves.figures import ROTATION_FIELD_TITLES
from analysis.curves.panels import ROLE
from analysis.published.rotation import rotation_curve, rotation_frame
from analysis.render.table import NOTHING, Column, Table
from trainables.api.names import BINARISATION, FIELD_OF_VIEW, MASK_FRACTION


def published_table(levels: pl.DataFrame, extrema: pl.DataFrame, data: str, role: str, binarisation: str) -> Table:
    """The thesis's three data sets (sections 5.2 and 5.3), and this study's curve in every field of view."""
    ours = []
    of_curve = (pl.col(ROLE) == role) & (pl.col(BINARISATION) == binarisation)
    rows = levels.filter(of_curve).sort(pl.col(FIELD_OF_VIEW) != "full")
    for row in rows.iter_rows(named=True):
        field = row[FIELD_OF_VIEW]
        found = extrema.filter(of_curve & (pl.col(FIELD_OF_VIEW) == field) & (pl.col("source") == "raw"))
        ours.append(
            {
                "dataset": data,
                "source": f"this study, {ROTATION_FIELD_TITLES.get(field, field).lower()}",
                "n": row["n"],
                "min": row["min"],
                "max": row["max"],
                "maxima": _angles(found.filter(kind="maximum")),
                "minima": _angles(found.filter(kind="minimum")),
                "all_ones_fraction": row[MASK_FRACTION],
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
    return Table("published", "Published rotation curves beside ours", frame, columns, note + comparability(data))


def comparability(data: str) -> str:
    """Whether our levels may be set against a published row, in a sentence."""
    published = rotation_curve(data)
    if published is not None:
        return (
            f"The {published.dataset} row may be compared, as far as the unpublished way of making maps binary allows, "
            "where the region is the thesis's, the scale full and the method its tool's form."
        )
    return (
        f"Not comparable in level: {data} is none of the thesis's data sets, so other images, masks and mask "
        "fractions. Only the shape, where the extrema lie, may be set beside it."
    )


def _angles(found: pl.DataFrame) -> str:
    return ", ".join(f"{angle:g}°" for angle in found["angle_deg"].sort()) or NOTHING
