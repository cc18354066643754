"""The figures of the rotation study. Each is a pure function that makes its data, and one that draws it."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from analysis import wave
from analysis.published.rotation import PublishedCurve
from analysis.render.style import COLOURS, FIELD_TITLES, UNTRAINED, Canvas, Figure, angle_axis, styled
from analysis.resampling import Bootstrap, Resampling
from analysis.rotation.panels import FIXED_MAP, TRAINED, UNTRAINED_MEAN, UNTRAINED_PREFIX, Curve, panels

_LEVEL_HEIGHT, _DEVIATION_HEIGHT, _CONTROL_HEIGHT, _WIDTH = 230, 230, 130, 400
_LABEL_GAP = 0.055  # of the height of the panel: the least distance of two labels at the end of lines


def family_of(curve: str) -> str:
    """The group a curve is drawn in: the untrained seeds and their mean share colour and legend entry."""
    return UNTRAINED if curve.startswith("untrained") else curve


def curve_data(curves: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Means over images at each angle, with bands.

    Columns: field_of_view, binarisation, curve, family, angle_deg, dice, dice_low, dice_high, deviation (of the mean
    curve from its own mean over the angles, 360 left out), deviation_low, deviation_high, n. A band is the pointwise
    bootstrap interval over blocks of images; that of the deviation resamples whole curves, so it lacks the images'
    levels.
    """
    parts = [
        _curve_rows(name, curve, resampling).with_columns(
            pl.lit(panel.field_of_view).alias("field_of_view"),
            pl.lit(panel.binarisation).alias("binarisation"),
            pl.lit(len(panel.image_ids)).alias("n"),
        )
        for panel in panels(curves)
        for resampling in [Resampling(panel.groups, bootstrap)]
        for name, curve in panel.curves.items()
    ]
    return pl.concat(parts) if parts else pl.DataFrame()


def _curve_rows(name: str, curve: Curve, resampling: Resampling) -> pl.DataFrame:
    keep_A = wave.full_turn_removed(curve.angles_deg_A)
    level_N = curve.dice_NA[:, keep_A].mean(axis=1, keepdims=True)
    columns: dict[str, object] = {"angle_deg": curve.angles_deg_A}
    for quantity, values_NA in (("dice", curve.dice_NA), ("deviation", curve.dice_NA - level_N)):
        mean_A = values_NA.mean(axis=0)
        low_A, high_A = resampling.intervals(mean_A, resampling.weights_BN @ values_NA)
        columns |= {quantity: mean_A, f"{quantity}_low": low_A, f"{quantity}_high": high_A}
    labels = [pl.lit(name).alias("curve"), pl.lit(family_of(name)).alias("family")]
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None), *labels)


def label_data(data: pl.DataFrame, low: float, high: float) -> pl.DataFrame:
    """Where the names of the families go beside the last angle: at their curve, moved apart where they would touch.

    ``data``: one panel of ``curve_data``; ``low`` and ``high``: the panel's axis. Columns: family, label_at.
    """
    ends = (
        data.filter(~pl.col("curve").str.starts_with(UNTRAINED_PREFIX))
        .filter(pl.col("angle_deg") == pl.col("angle_deg").max().over("curve"))
        .sort("dice")
    )
    gap = _LABEL_GAP * (high - low)
    places: list[float] = []
    for dice in ends["dice"]:
        places.append(max(dice, places[-1] + gap) if places else dice)
    overflow = max(0.0, places[-1] - high) if places else 0.0
    return ends.select("family").with_columns(pl.Series("label_at", [p - overflow for p in places], dtype=pl.Float64))


def rotation_figure(data: pl.DataFrame, binarisation: str, marks: PublishedCurve | None) -> Figure:
    """The central figure: Dice over the angle of the trained encoder and of all controls, full field and circle.

    Rows: levels; deviations from the own mean of what has an encoder, with the fixed map; deviations of the controls
    without one. ``marks``: published extrema, drawn as rules. Clicking a legend entry keeps it and fades the others.
    """
    chosen = data.filter(binarisation=binarisation)
    fields = [field for field in FIELD_TITLES if field in chosen["field_of_view"]]
    canvas = Canvas(chosen["family"].unique().to_list())
    columns = [_column(canvas, chosen, field, marks, field == fields[-1]) for field in fields]
    cells = [panel for row in zip(*columns, strict=True) for panel in row]
    chart = alt.concat(*cells, columns=len(fields), spacing={"row": 16, "column": 26}, align="each")
    chart = chart.resolve_scale(color="shared", strokeDash="shared")
    return Figure(
        "rotation_curve",
        "Dice of saliency map and mask over the rotation angle",
        _rotation_caption(chosen, binarisation, marks),
        styled(chart),
        canvas.datasets,
    )


def _rotation_caption(data: pl.DataFrame, binarisation: str, marks: PublishedCurve | None) -> str:
    seeds = data.filter(pl.col("curve").str.starts_with(UNTRAINED_PREFIX))["curve"].n_unique()
    text = (
        f"Mean Dice over n = {_num_images(data)} images at each angle, maps made binary by {binarisation}; left all "
        "pixels, right those inside the inscribed circle, which stays in view at every angle. Top: levels. Middle: "
        "deviation of each curve from its own mean over the angles; band: pointwise 95 % bootstrap interval over "
        "blocks of images (trained encoder). Bottom: the same for the controls without an encoder, on a scale of their "
        "own."
    )
    if seeds:
        text += f" Blue: mean of {seeds} untrained encoder(s), thin: each seed."
    if marks is not None:
        text += (
            f" Vertical rules: extrema published for {marks.dataset} (solid: maxima, dashed: minima; thesis "
            f"{marks.section}, Fig. {marks.figure})."
        )
    return text + " In the report, click the legend to single out a curve."


def _column(canvas: Canvas, data: pl.DataFrame, field: str, marks: PublishedCurve | None, last: bool) -> list[Any]:
    """The panels of one field of view, top to bottom."""
    part = data.filter(field_of_view=field)
    with_encoder = part.filter(pl.col("family").is_in([TRAINED, UNTRAINED, FIXED_MAP]))
    without = part.filter(~pl.col("family").is_in([TRAINED, UNTRAINED]))
    below = [(with_encoder, _DEVIATION_HEIGHT), (without, _CONTROL_HEIGHT)]
    below = [(rows, height) for rows, height in below if not rows.is_empty()]
    panels = [
        _levels(canvas, part, marks, last).properties(width=_WIDTH, height=_LEVEL_HEIGHT, title=FIELD_TITLES[field])
    ]
    for index, (rows, height) in enumerate(below):
        title = "rotation angle (°)" if index == len(below) - 1 else None
        panels.append(_deviations(canvas, rows, marks, title).properties(width=_WIDTH, height=height))
    return panels


def _levels(canvas: Canvas, part: pl.DataFrame, marks: PublishedCurve | None, labelled: bool) -> Any:
    low, high = _padded(part, "dice", "dice", "dice")
    scale = alt.Scale(domain=[low, high], nice=False)
    x, y = angle_axis(None), alt.Y("dice:Q", title="Dice", scale=scale, axis=alt.Axis(tickCount=6))
    layers = [
        *_rules(canvas, marks, x),
        *_lines(canvas, part, x, y),
        _hover(canvas, part, "dice", x, ".4f"),
    ]
    if labelled:
        labels = label_data(part, low, high).with_columns(angle_deg=pl.lit(360.0))
        labels = labels.with_columns(colour=pl.col("family").replace_strict(COLOURS, default="#222222"))
        colour = alt.Color("colour:N", scale=None)
        text = alt.Chart(canvas.datasets.add(labels)).mark_text(align="left", dx=8, fontSize=11.5, fontWeight=600)
        layers.append(text.encode(x, alt.Y("label_at:Q", scale=scale), alt.Text("family:N"), colour))
    return alt.layer(*layers)


def _deviations(canvas: Canvas, part: pl.DataFrame, marks: PublishedCurve | None, angle_title: str | None) -> Any:
    low, high = _padded(part, "deviation", "deviation_low", "deviation_high")
    scale = alt.Scale(domain=[low, high], nice=False)
    axis = alt.Axis(tickCount=5, format="+.3~f")
    x, y = angle_axis(angle_title), alt.Y("deviation:Q", title="Dice − own mean", scale=scale, axis=axis)
    zero = (
        alt.Chart(canvas.datasets.add(pl.DataFrame({"y": [0.0]})))
        .mark_rule(color="#BBBBBB")
        .encode(alt.Y("y:Q", scale=scale))
    )
    layers = [
        zero,
        *_rules(canvas, marks, x),
        *_band(canvas, part, x, scale),
        *_lines(canvas, part, x, y),
    ]
    return alt.layer(*layers, _hover(canvas, part, "deviation", x, "+.4f"))


def _band(canvas: Canvas, part: pl.DataFrame, x: alt.X, scale: alt.Scale) -> list[alt.Chart]:
    rows = part.filter(curve=TRAINED).drop_nulls("deviation_low")
    if rows.is_empty():
        return []
    area = alt.Chart(canvas.datasets.add(rows)).mark_area(color=COLOURS[TRAINED])
    low = alt.Y("deviation_low:Q", scale=scale, title="Dice − own mean")
    opacity = canvas.faded(0.18)
    return [area.encode(x, low, alt.Y2("deviation_high:Q"), opacity=opacity)]


def _lines(canvas: Canvas, part: pl.DataFrame, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Untrained seeds as thin lines, the controls as full ones, the trained curve over all of them."""
    base = alt.Chart(canvas.datasets.add(part.select("curve", "family", "angle_deg", "dice", "deviation")))
    colour, dash = canvas.colour(), canvas.dash()
    seed, own = f"indexof(datum.curve, '{UNTRAINED_PREFIX}') == 0", f"datum.curve == '{TRAINED}'"
    layers = [(seed, 0.8, 0.55), (f"!({seed}) && !({own})", 2.0, 1.0), (own, 2.2, 1.0)]
    lines = [
        base.transform_filter(which)
        .mark_line(strokeWidth=width)
        .encode(x, y, alt.Detail("curve:N"), colour, dash, opacity=canvas.faded(full))
        for which, width, full in layers
    ]
    return [canvas.carry(lines[0]), *lines[1:]]


def _hover(canvas: Canvas, part: pl.DataFrame, quantity: str, x: alt.X, number_format: str) -> alt.Chart:
    """An invisible rule at each angle whose tooltip lists all curves there."""
    names = part["curve"].unique(maintain_order=True).to_list()
    wide = part.pivot("curve", index="angle_deg", values=quantity)
    tooltip = [alt.Tooltip(field="angle_deg", type="quantitative", title="angle (°)")]
    tooltip += [alt.Tooltip(field=name, type="quantitative", format=number_format) for name in names]
    rule = alt.Chart(canvas.datasets.add(wide)).mark_rule(opacity=0, strokeWidth=4, color="#444444", aria=False)
    hover: alt.Chart = rule.encode(x, tooltip=tooltip)
    return hover


def _rules(canvas: Canvas, marks: PublishedCurve | None, x: alt.X) -> list[alt.Chart]:
    if marks is None:
        return []
    return [
        alt.Chart(canvas.datasets.add(pl.DataFrame({"angle_deg": [float(a) for a in angles]})))
        .mark_rule(color="#C4C4C4", strokeDash=dash, strokeWidth=1)
        .encode(x)
        for angles, dash in ((marks.maxima_deg, [1, 0]), (marks.minima_deg, [3, 3]))
    ]


def _num_images(data: pl.DataFrame) -> int:
    return int(data.select(pl.col("n").max()).item())


def _padded(part: pl.DataFrame, middle: str, low: str, high: str) -> tuple[float, float]:
    """The range of what is drawn, a twentieth wider at both ends; bands count for the trained curve only."""
    ends = part.filter(curve=TRAINED)
    values = np.concatenate([part[middle].to_numpy(), ends[low].drop_nulls(), ends[high].drop_nulls()])
    margin = 0.05 * float(np.ptp(values)) or 0.01
    return round(float(values.min()) - margin, 6), round(float(values.max()) + margin, 6)


def compared(data: pl.DataFrame) -> pl.DataFrame:
    """The curves whose shapes are compared by eye: trained, mean of the untrained seeds, fixed map."""
    return data.filter(pl.col("curve").is_in([TRAINED, UNTRAINED_MEAN, FIXED_MAP]))


def binarisation_figure(data: pl.DataFrame) -> Figure:
    """Small multiples: the deviation curves for every way of making maps binary, in both fields of view."""
    order = data["binarisation"].unique(maintain_order=True).to_list()
    fields = [field for field in FIELD_TITLES if field in data["field_of_view"]]
    shown = compared(data)
    canvas = Canvas(shown["family"].unique().to_list())
    panels_shown = [(field, b, shown.filter(field_of_view=field, binarisation=b)) for field in fields for b in order]
    cells = [_small(canvas, part, f"{b}, {field}") for field, b, part in panels_shown]
    chart = alt.concat(*cells, columns=len(order), spacing={"row": 18, "column": 12}, align="each")
    chart = chart.resolve_scale(color="shared", strokeDash="shared")
    caption = (
        "The same saliency maps, made binary in different ways: deviation of the mean Dice from its own mean over the "
        f"angles (n = {_num_images(data)} images, each panel on its own scale). Top: full field; bottom: inscribed "
        "circle. Whether the multiples of 90° are a peak or a dip may depend on this choice. Band: 95 % bootstrap "
        "interval (trained)."
    )
    return Figure(
        "binarisations", "Peak or dip, by the way of making the map binary", caption, styled(chart), canvas.datasets
    )


def _small(canvas: Canvas, part: pl.DataFrame, title: str) -> Any:
    low, high = _padded(part, "deviation", "deviation_low", "deviation_high")
    scale = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("deviation:Q", scale=scale, axis=alt.Axis(tickCount=4, format="+.2~f", title=None))
    x = angle_axis(None, 90)
    base = alt.Chart(canvas.datasets.add(part))
    tooltip = [alt.Tooltip("curve:N"), alt.Tooltip("angle_deg:Q"), alt.Tooltip("dice:Q", format=".4f")]
    encodings = (x, y, alt.Detail("curve:N"), canvas.colour(), canvas.dash())
    lines = base.mark_line(strokeWidth=1.5).encode(*encodings, opacity=canvas.faded(1.0), tooltip=tooltip)
    band = (
        alt.Chart(canvas.datasets.add(part.filter(curve=TRAINED).drop_nulls("deviation_low")))
        .mark_area(color=COLOURS[TRAINED], opacity=0.15)
        .encode(x, alt.Y("deviation_low:Q", scale=scale), alt.Y2("deviation_high:Q"))
    )
    return alt.layer(band, canvas.carry(lines)).properties(width=150, height=120, title=title)


def coefficient_data(curves: pl.DataFrame, bootstrap: Bootstrap, num_harmonics: int | None = None) -> pl.DataFrame:
    """The complex 90° coefficients (interpolated angles) with their confidence ellipses.

    Columns: field_of_view, binarisation, curve, family, kind ("centre" or "ellipse"), order (along the ellipse), cos,
    sin, n. Curves on grids too coarse for the wave are left out; ellipses too where there are fewer than 3 blocks of
    images.
    """
    rows: list[dict[str, object]] = []
    for panel in panels(curves):
        resampling = Resampling(panel.groups, bootstrap)
        for name, curve in panel.curves.items():
            part = curve.fitted_angles("interpolated")
            try:
                values_N = wave.fit_wave(part.dice_NA, part.angles_deg_A, num_harmonics).coefficients()
            except wave.CoarseGrid:
                continue
            centre = complex(values_N.mean())
            boundary = resampling.region(centre, resampling.weights_BN @ values_N, num_points=60)
            points = [("centre", 0, centre)]
            if resampling.can_give_intervals:
                points += [("ellipse", i, complex(p)) for i, p in enumerate([*boundary, boundary[0]])]
            label = {
                "field_of_view": panel.field_of_view, "binarisation": panel.binarisation, "curve": name,
                "family": family_of(name), "n": len(panel.image_ids),
            }  # fmt: skip
            rows += [label | {"kind": kind, "order": i, "cos": p.real, "sin": p.imag} for kind, i, p in points]
    return pl.DataFrame(rows)


def coefficient_figure(data: pl.DataFrame, binarisation: str) -> Figure:
    """The plane of complex 90° coefficients: distance from 0 is the amplitude, direction is 4 times the phase."""
    chosen = data.filter(binarisation=binarisation)
    fields = [field for field in FIELD_TITLES if field in chosen["field_of_view"]]
    domains = _square(chosen)
    canvas = Canvas(chosen["family"].unique().to_list())
    planes = [
        _plane(canvas, chosen.filter(field_of_view=field), domains).properties(title=FIELD_TITLES[field])
        for field in fields
    ]
    caption = (
        "Complex 90° coefficient of each curve (smooth wave over the interpolated angles). The distance from the "
        "origin is the amplitude; right: maxima at 0°, 90°, …, left: maxima at 45°, 135°, …; up: at 22.5°, down: at "
        f"67.5°. Ellipses: 95 % bootstrap regions of the mean over n = {_num_images(chosen)} images; a wave whose "
        "region holds the origin is not distinguishable from none. Small points: single untrained seeds. What training "
        "adds is the way from blue to orange."
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
    colour = canvas.colour()
    single = part["curve"].str.starts_with(UNTRAINED_PREFIX)
    ellipses = part.filter((pl.col("kind") == "ellipse") & ~single)
    centres = part.filter(kind="centre").with_columns(
        size=pl.when(pl.col("curve").str.starts_with(UNTRAINED_PREFIX)).then(22.0).otherwise(85.0)
    )
    origin = pl.DataFrame({"cos": [0.0], "sin": [0.0]})
    spokes = pl.concat([centres.with_columns(order=pl.lit(1)), centres.with_columns(cos=0.0, sin=0.0, order=pl.lit(0))])
    fade = canvas.faded(1.0)
    path = (x, y, colour, alt.Detail("curve:N"), alt.Order("order:Q"))
    tooltip = [alt.Tooltip("curve:N"), alt.Tooltip("cos:Q", format=".5f"), alt.Tooltip("sin:Q", format=".5f")]
    size = alt.Size("size:Q", scale=None, legend=None)
    add = canvas.datasets.add
    layers = [
        alt.Chart(add(origin)).mark_point(shape="cross", size=120, color="#888888").encode(x, y),
        alt.Chart(add(spokes.filter(pl.col("size") > 50))).mark_line(strokeWidth=1.2).encode(*path, opacity=fade),
        alt.Chart(add(ellipses)).mark_line(strokeWidth=1, filled=True, fillOpacity=0.12).encode(*path, opacity=fade),
        canvas.carry(alt.Chart(add(centres)).mark_circle().encode(x, y, colour, size, opacity=fade, tooltip=tooltip)),
    ]
    return alt.layer(*layers).properties(width=330, height=330)
