"""A study's rotation curve beside those that the thesis printed, and whether the two may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analysis.curves.figures import ROTATION_FIELD_TITLES
from analysis.curves.panels import ROLE, TRAINED
from analysis.curves.words import listed
from analysis.published.rotation import FULL_SCALE, rotation_curve, rotation_frame
from analysis.render.table import NOTHING, Column, Table
from analysis.rotation.tables import angles_text, noise_note
from trainables.api.names import BINARISATION, FIELD_OF_VIEW, MASK_FRACTION, SMOOTHGRAD_OF_TOOL, label_values


def published_table(
    levels: pl.DataFrame, extrema: pl.DataFrame, labels: Mapping[str, str], facts: Mapping[str, str], binarisation: str
) -> Table:
    """The thesis's three data sets (sections 5.2 and 5.3), and the trained encoders' curve in every field of view.

    Args:
        labels: of the set of curves. facts: of its study.
    """
    of_curve = (pl.col(ROLE) == TRAINED) & (pl.col(BINARISATION) == binarisation)
    own = extrema.filter(of_curve & (pl.col("source") == "raw"))
    rows = levels.filter(of_curve).sort(pl.col(FIELD_OF_VIEW) != "full")
    ours = [_row(row, own, labels.get("data", "")) for row in rows.iter_rows(named=True)]
    published = rotation_frame()
    frame = pl.concat([pl.DataFrame(ours, schema=published.schema), published])
    columns = [
        Column("data set", "dataset"),
        Column("source", "source"),
        Column("least Dice", "min"),
        Column("largest Dice", "max"),
        Column("maxima", "maxima", width=0.25),
        Column("minima", "minima", width=0.25),
        Column("mask fraction (published: implied)", "all_ones_fraction", 2),
        Column("n", "n"),
    ]
    note = (
        f"Ours: map made binary by {binarisation}. {noise_note(own)} The thesis does not print mask fractions; in its "
        "rows stands the one at which a map of ones everywhere would reach the middle of the published range. "
    )
    comparable = comparability(labels, facts, [row["n"] for row in ours])
    return Table(
        "published",
        "Published rotation curves beside ours",
        frame,
        columns,
        note + comparable,
    )


def _row(level: Mapping[str, Any], extrema: pl.DataFrame, data: str) -> dict[str, Any]:
    """Our curve in one field of view."""
    field = level[FIELD_OF_VIEW]
    found = extrema.filter(pl.col(FIELD_OF_VIEW) == field)
    return {
        "dataset": data,
        "source": f"this study, {ROTATION_FIELD_TITLES.get(field, field).lower()}",
        "n": level["n"],
        "min": level["min"],
        "max": level["max"],
        "maxima": _angles(found, "maximum"),
        "minima": _angles(found, "minimum"),
        "all_ones_fraction": level[MASK_FRACTION],
    }


def comparability(labels: Mapping[str, str], facts: Mapping[str, str], num_images: Sequence[int]) -> str:
    """Whether our levels may be set against a published row, in a sentence."""
    published = rotation_curve(labels)
    if published is None:
        what = " · ".join(label_values({name: labels[name] for name in labels if name != "sweep"}))
        return (
            f"Not comparable in level: {what} is none of the thesis's curves, so other images, masks, mask fractions "
            "or maps. Only the shape may be set beside it, and where extrema lie as far as they are told from noise."
        )
    scale, start = facts.get("scale", ""), facts.get("pretraining_start", "")
    differs = {
        f"the scale is {scale or 'not recorded'} and not {FULL_SCALE}": scale != FULL_SCALE,
        f"pretrainings have {facts.get('num_epochs')} epochs": "num_epochs" in facts,
        f"pretrainings start from {start or 'nobody knows what'}": not start.startswith("released"),
        "sizes were fitted to the data": "sizes_fitted_to_the_data" in facts,
        f"there are other than {published.num_images} images": any(n != published.num_images for n in num_images),
        "the maps are not made as by the thesis's tool": labels.get("method") != SMOOTHGRAD_OF_TOOL,
    }
    if any(differs.values()):
        said = listed([what for what, holds in differs.items() if holds])
        return f"The {published.dataset} row is of this data set and region, but its level is not comparable: {said}."
    return (
        f"The {published.dataset} row may be compared, as far as the unpublished choice of images and way of making "
        "maps binary allow."
    )


def _angles(found: pl.DataFrame, kind: str) -> str:
    return str(found.select(angles_text("raw", kind)).item() or NOTHING)
