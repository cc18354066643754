"""The figures of explanation methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl
from numpy.typing import NDArray

from analysis.curves.samples import grey, heat, outlined
from analysis.explanations.evidence import CASCADE, HEADLINE, RegionSet, far_place
from analysis.explanations.tables import cascade_table
from analysis.render.pictures import Pictures
from analysis.render.style import Datasets, Figure, styled
from analysis.render.tile import Tile
from trainables.api.names import ANCHOR, RANDOMISED, SAMPLES_FILE, TRAINED

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000", "#8C6D31")
_STEPS = ["trained", *(role.removeprefix(RANDOMISED) for role in CASCADE[1:-1]), "all (untrained)"]


def cascade_figure(found: RegionSet) -> Figure:
    """Average precision, and rank correlation with the trained encoder's maps, over how far down weights are fresh."""
    data, datasets = cascade_table(found).frame, Datasets()
    steps = pl.Series("randomised down to", [_STEPS[step] for step in data["step"]], dtype=pl.String)
    named = datasets.add(data.with_columns(pl.col("method").str.replace_all("_", " "), steps))
    methods = [method.replace("_", " ") for method in found.methods]
    x = alt.X(
        "randomised down to:N", sort=None, scale=alt.Scale(domain=_STEPS), axis=alt.Axis(labelAngle=-30, grid=False)
    )
    scale = alt.Scale(domain=methods, range=list(_COLOURS[: len(methods)]))
    colour = alt.Color("method:N", scale=scale, legend=alt.Legend(columns=4))
    tooltip = ["method:N", "encoder:N", alt.Tooltip(f"{HEADLINE}:Q", format=".3f"),
               alt.Tooltip("correlation:Q", format=".2f")]  # fmt: skip
    panels = []
    for field, title in ((HEADLINE, "average precision"), ("correlation", "rank correlation with the trained maps")):
        chart = alt.Chart(named).mark_line(point=True, strokeWidth=1.6)
        y = alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False))
        panels.append(chart.encode(x, y, colour, order="step:Q", tooltip=tooltip).properties(width=380, height=260))
    caption = (
        "Layers of the trained encoder get fresh weights from the output down. Left: how well maps rank the region's "
        "pixels first. Right: Spearman's rank correlation of the maps of a few images with those of the trained "
        "encoder, inside the circle at one angle; the table has it between seeds. Means over seeds."
    )
    return Figure("cascade", f"Cascading randomisation, {found.title}", caption, styled(alt.hconcat(*panels)), datasets)


def method_pictures(found: RegionSet) -> list[Pictures]:
    """Figure 5.1: one image and its rotated view, with the map of each method for both; the first trained encoder.

    Nothing before both maps of some method are there.
    """
    shown = {method: sides for method in found.methods if (sides := _sides(found, method))}
    if not shown:
        return []
    first = next(iter(shown.values()))["view"]
    place = far_place(first)
    mask_HW, view_HW = first["masks_KHW"][0], first["views_KVHW"][0, place]
    top = [Tile("image", outlined(grey(first["images_KHW"][0]), mask_HW))]
    bottom = [Tile("rotated image", grey(view_HW))]
    for method, sides in shown.items():
        name = method.replace("_", " ")
        top.append(
            Tile(name, outlined(heat(sides["anchor"]["view_maps_KVHW"][0, far_place(sides["anchor"])]), mask_HW))
        )
        bottom.append(Tile(f"{name}, rotated", heat(sides["view"]["view_maps_KVHW"][0, far_place(sides["view"])])))
    caption = (
        f"Image {first['image_id'][0]} and its view at {first['values'][place]:g}°, the first trained encoder. Top: "
        "the image, outline of the region in turquoise, and the map of each method for it; bottom: the rotated image "
        "and its maps. Bright is salient, each map scaled to its own range."
    )
    rows = [("image", top), ("view", bottom)]
    return [Pictures("methods", f"Explanations of one pair, {found.title}", caption, rows)]


def _sides(found: RegionSet, method: str) -> Mapping[str, Mapping[str, NDArray[Any]]]:
    """The samples of the first seed, of the view's and of the anchor's maps; empty where one is missing."""
    sides = {}
    for side, role in (("view", TRAINED), ("anchor", ANCHOR)):
        cell = found.cells.get((method, role))
        samples = found.results.samples(cell.done[0]["key"], SAMPLES_FILE) if cell is not None and cell.done else None
        if samples is None or not len(samples["values"]):
            return {}
        sides[side] = samples
    return sides


def has_cascade(found: RegionSet) -> bool:
    """Whether any method was measured on more than one step of the cascade."""
    return any(sum(found.mean(method, role, HEADLINE) is not None for role in CASCADE) > 1 for method in found.methods)
