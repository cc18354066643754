"""The figures of HOG and SVM."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from analysis.curves.panels import TRAINED, UNTRAINED
from analysis.curves.samples import grey
from analysis.hog.evidence import FIELDS, ROLES, DataSet
from analysis.render.pictures import Pictures
from analysis.render.style import Datasets, Figure, styled
from analysis.render.tile import Tile
from trainables.api.names import FULL_FIELD, ROTATED, ROUND_TRIP, SAMPLES_FILE

_COLOURS = {ROTATED: "#D55E00", ROUND_TRIP: "#7F7F7F"}
_DICE_COLOURS = {TRAINED: "#D55E00", UNTRAINED: "#0072B2"}
_WIDTH, _HEIGHT = 400, 210


def accuracy_data(found: DataSet) -> pl.DataFrame:
    """One row an angle and arm: field, what (the role), angle_deg, accuracy, low and high (null without interval)."""
    schema = {"field": pl.String, "what": pl.String, "angle_deg": pl.Float64, "accuracy": pl.Float64,
              "low": pl.Float64, "high": pl.Float64}  # fmt: skip
    rows = []
    for field in FIELDS:
        for role in ROLES:
            accuracy = found.accuracies.get((role, field))
            if accuracy is None:
                continue
            ends = found.interval_V(accuracy)
            for place, angle in enumerate(accuracy.values_V):
                low, high = (None, None) if ends is None else (float(ends[0][place]), float(ends[1][place]))
                rows.append([field, role, float(angle), float(accuracy.mean_V[place]), low, high])
    return pl.DataFrame(rows, schema=schema, orient="row")


def dice_data(found: DataSet) -> pl.DataFrame:
    """One row an angle, field, region and role of encoders: field, region, what, angle_deg, dice (mean over images)."""
    schema = {"field": pl.String, "region": pl.String, "what": pl.String, "angle_deg": pl.Float64, "dice": pl.Float64}
    rows = []
    for curves in found.curves:
        for field in FIELDS:
            name = "full" if field == FULL_FIELD else "kept"
            if name not in curves.fields:
                continue
            panel = curves.panel(name, curves.binarisation)
            for role in (TRAINED, UNTRAINED):
                if role in panel.curves:
                    curve = panel.curves[role]
                    mean_V = curve.dice_NV.mean(axis=0)
                    rows += [
                        [field, curves.labels["region"], role, float(angle), float(dice)]
                        for angle, dice in zip(curve.values_V, mean_V, strict=True)
                    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def angle_figure(found: DataSet) -> Figure:
    """Table 6.1 as a figure: above the Dice curves of each region where they are there, below the accuracy; full field
    at the left, inscribed circle at the right."""
    datasets = Datasets()
    accuracies, dice = accuracy_data(found), dice_data(found)
    rows = []
    for region in dice["region"].unique(maintain_order=True):
        part = dice.filter(region=region)
        rows.append(alt.hconcat(*[_dice_panel(datasets, part, region, field) for field in FIELDS]))
    rows.append(alt.hconcat(*[_accuracy_panel(datasets, accuracies, field) for field in FIELDS]))
    chart = alt.vconcat(*rows).resolve_scale(color="independent")
    num_images = len(next(iter(found.accuracies.values())).groups)
    above = "Top: mean Dice of the encoders' maps. Bottom: accuracy" if len(rows) > 1 else "Accuracy"
    caption = (
        f"{above} of telling images rotated by the angle from unrotated ones by their histograms of oriented "
        f"gradients, n = {num_images} images; grey: images rotated and rotated back. Bands: pointwise 95 % intervals "
        "over blocks of images, where there are enough. Chance is 0.5."
    )
    what = "Accuracy and Dice" if len(rows) > 1 else "Accuracy"
    return Figure("angles", f"{what} over the rotation angle, {found.name}", caption, styled(chart), datasets)


def hog_pictures(found: DataSet) -> list[Pictures]:
    """Figure 6.1: a few images with their histograms drawn, of the full field; nothing before a result is there."""
    cell = found.cells.get((ROTATED, FULL_FIELD))
    samples = found.results.samples(cell.done[0]["key"], SAMPLES_FILE) if cell is not None and cell.done else None
    if samples is None:
        return []
    rows = [
        (str(name), [Tile("image", grey(image_HW)), Tile("histogram of oriented gradients", grey(histogram_HW))])
        for name, image_HW, histogram_HW in zip(
            samples["image_id"], samples["images_KHW"], samples["histograms_KHW"], strict=True
        )
    ]
    caption = "Images and their histograms of oriented gradients: in each cell strokes along the edges that it counts."
    return [Pictures("histograms", f"Gradient histograms, {found.name}", caption, rows)]


def _accuracy_panel(datasets: Datasets, data: pl.DataFrame, field: str) -> Any:
    part = data.filter(field=field)
    base = alt.Chart(datasets.add(part), title=field, width=_WIDTH, height=_HEIGHT)
    scale = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    colour, area_colour = (alt.Color("what:N", scale=scale, legend=legend) for legend in (alt.Legend(), None))
    shown = alt.Scale(domain=[0.4, 1.0], clamp=True)
    y = alt.Y("accuracy:Q", title="accuracy", scale=shown)
    tooltip = ["what:N", alt.Tooltip("angle_deg:Q", title="angle"), alt.Tooltip("accuracy:Q", format=".3f")]
    lines = base.mark_line(strokeWidth=1.6).encode(_angle(), y, colour, tooltip=tooltip)
    banded = alt.Chart(datasets.add(part.drop_nulls("low")), width=_WIDTH, height=_HEIGHT)
    bands = banded.mark_area(opacity=0.18).encode(
        _angle(), alt.Y("low:Q", title="accuracy", scale=shown), alt.Y2("high:Q"), area_colour
    )
    return alt.layer(bands, lines)


def _dice_panel(datasets: Datasets, data: pl.DataFrame, region: str, field: str) -> alt.Chart:
    title = f"{region.replace('_', ' ')}, {field}"
    scale = alt.Scale(domain=list(_DICE_COLOURS), range=list(_DICE_COLOURS.values()))
    chart: alt.Chart = (
        alt.Chart(datasets.add(data.filter(field=field)), title=title, width=_WIDTH, height=_HEIGHT)
        .mark_line(strokeWidth=1.6)
        .encode(_angle(), alt.Y("dice:Q", title="Dice", scale=alt.Scale(zero=False)), alt.Color("what:N", scale=scale))
    )
    return chart


def _angle() -> alt.X:
    axis = alt.Axis(values=list(range(0, 361, 45)), grid=True)
    return alt.X("angle_deg:Q", title="rotation angle (°)", axis=axis, scale=alt.Scale(domain=[0, 360], nice=False))
