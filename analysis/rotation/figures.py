"""The plane of 90° coefficients: a pure function that makes the data, and one that draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from analysis.curves.canvas import Canvas
from analysis.curves.figures import MEAN, num_images
from analysis.curves.panels import ROLE, SEED
from analysis.render.style import Figure, styled
from analysis.rotation.fitted import INTERPOLATED, FittedPanel
from trainables.api.names import BINARISATION, FIELD_OF_VIEW

_CENTRE_SIZE, _SEED_SIZE = 85.0, 22.0


def coefficient_data(fitted: Sequence[FittedPanel]) -> pl.DataFrame:
    """The complex 90° coefficients (interpolated angles) of every role and seed, with confidence ellipses of the roles.

    Columns: field_of_view, binarisation, role, seed ("" for the mean over the seeds), kind ("centre" or "ellipse"),
    order (along the ellipse), cos, sin, n. Curves on grids too coarse for the wave are left out; ellipses too where
    there are fewer than 3 blocks of images.
    """
    rows: list[dict[str, object]] = []
    for part in fitted:
        for role, curve in part.curves.items():
            if INTERPOLATED not in curve.fits:
                continue
            values_N = curve.fits[INTERPOLATED].coefficients()
            centre = complex(values_N.mean())
            points = [(MEAN, "centre", 0, centre)]
            if part.resampling.can_give_intervals:
                boundary = part.resampling.region(centre, part.resampling.weights_BN @ values_N, num_points=60)
                points += [(MEAN, "ellipse", i, complex(p)) for i, p in enumerate([*boundary, boundary[0]])]
            if len(curve.seed_coefficients) > 1:
                points += [(seed, "centre", 0, point) for seed, point in curve.seed_coefficients.items()]
            label = {
                FIELD_OF_VIEW: part.panel.field_of_view, BINARISATION: part.panel.binarisation, ROLE: role,
                "n": len(part.panel.image_ids),
            }  # fmt: skip
            rows += [label | {SEED: s, "kind": k, "order": i, "cos": p.real, "sin": p.imag} for s, k, i, p in points]
    return pl.DataFrame(rows)


def coefficient_figure(data: pl.DataFrame, binarisation: str, titles: Mapping[str, str]) -> Figure:
    """The plane of complex 90° coefficients: distance from 0 is the amplitude, direction is 4 times the phase."""
    chosen = data.filter(pl.col(BINARISATION) == binarisation)
    fields = [field for field in titles if field in chosen[FIELD_OF_VIEW]]
    domains = _square(chosen)
    canvas = Canvas(chosen[ROLE].unique().to_list())
    planes = [
        _plane(canvas, chosen.filter(pl.col(FIELD_OF_VIEW) == field), domains).properties(title=titles[field])
        for field in fields
    ]
    regions = (
        f"Ellipses: 95 % bootstrap regions of the mean over n = {num_images(chosen)} images; a wave whose region holds "
        "the origin is not distinguishable from none."
        if "ellipse" in chosen["kind"]
        else f"The n = {num_images(chosen)} images are too few independent blocks for regions of the mean."
    )
    caption = (
        "Complex 90° coefficient of each curve (smooth wave over the interpolated angles), mean over its seeds. The "
        "distance from the origin is the amplitude; right: maxima at 0°, 90°, …, left: maxima at 45°, 135°, …; up: at "
        f"22.5°, down: at 67.5°. {regions} Small points: single seeds; how far they lie apart is what a difference of "
        "trained and untrained encoders has to exceed."
    )
    chart = alt.hconcat(*planes, spacing=40).resolve_scale(color="shared")
    return Figure("coefficients", "Where the 90° wave of each curve lies", caption, styled(chart), canvas.datasets)


def _square(data: pl.DataFrame) -> dict[str, list[float]]:
    """Domains of equal length that hold all points and the origin: an amplitude looks the same in every direction."""
    ends = {}
    for part in ("cos", "sin"):
        values = [0.0, *data[part]]
        ends[part] = (min(values), max(values))
    half = 0.56 * max(high - low for low, high in ends.values()) or 0.01
    return {part: [(low + high) / 2 - half, (low + high) / 2 + half] for part, (low, high) in ends.items()}


def _plane(canvas: Canvas, part: pl.DataFrame, domains: dict[str, list[float]]) -> Any:
    scales = {name: alt.Scale(domain=domain, nice=False) for name, domain in domains.items()}
    axis = alt.Axis(tickCount=5, grid=True, format=".3~f")
    x = alt.X("cos:Q", scale=scales["cos"], title="cos 4θ", axis=axis)
    y = alt.Y("sin:Q", scale=scales["sin"], title="sin 4θ", axis=axis)
    is_mean = pl.col(SEED) == MEAN
    centres = part.filter(kind="centre").with_columns(size=pl.when(is_mean).then(_CENTRE_SIZE).otherwise(_SEED_SIZE))
    means = centres.filter(is_mean)
    origin = pl.DataFrame({"cos": [0.0], "sin": [0.0]})
    spokes = pl.concat([means.with_columns(order=pl.lit(1)), means.with_columns(cos=0.0, sin=0.0, order=pl.lit(0))])
    fade, colour = canvas.faded(1.0), canvas.colour()
    path = (x, y, colour, alt.Detail(f"{ROLE}:N"), alt.Order("order:Q"))
    tooltip = [alt.Tooltip(f"{ROLE}:N"), alt.Tooltip(f"{SEED}:N")]
    tooltip += [alt.Tooltip(f"{axis_name}:Q", format=".5f") for axis_name in ("cos", "sin")]
    size = alt.Size("size:Q", scale=None, legend=None)
    add = canvas.datasets.add
    ellipses = alt.Chart(add(part.filter(kind="ellipse"))).mark_line(strokeWidth=1, filled=True, fillOpacity=0.12)
    layers = [
        alt.Chart(add(origin)).mark_point(shape="cross", size=120, color="#888888").encode(x, y),
        alt.Chart(add(spokes)).mark_line(strokeWidth=1.2).encode(*path, opacity=fade),
        ellipses.encode(*path, opacity=fade),
        canvas.carry(alt.Chart(add(centres)).mark_circle().encode(x, y, colour, size, opacity=fade, tooltip=tooltip)),
    ]
    return alt.layer(*layers).properties(width=330, height=330)
