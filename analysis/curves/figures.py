"""Curves over the values of a sweep: a pure function that makes the data, and one that draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from analysis.curves.canvas import COLOURS, Canvas
from analysis.curves.panels import FIXED_MAP, INTENSITY, MASK, ROLE, SEED, TRAINED, UNTRAINED, Curve, Panel
from analysis.curves.sweep import SweepFacts
from analysis.published.rotation import PublishedCurve
from analysis.render.style import Figure, styled
from analysis.resampling import Resampling
from trainables.api.names import BINARISATION, DICE, FIELD_OF_VIEW, VALUE

FIELD_TITLES = {"full": "Full field of view", "kept": "Pixels that every value keeps"}
ROTATION_FIELD_TITLES = {"full": "Full field of view", "kept": "Inscribed circle"}
_WITHOUT_ENCODER = (MASK, INTENSITY)
_LEVEL_HEIGHT, _DEVIATION_HEIGHT, _CONTROL_HEIGHT, _WIDTH = 230, 230, 130, 400
_LABEL_GAP = 0.055  # of the height of the panel: the least distance of two labels at the end of lines
MEAN = ""  # the seed of a row that is the mean over the seeds


def field_titles(sweep: SweepFacts) -> dict[str, str]:
    """Field of view -> its title; of a turn, the pixels that stay are the inscribed circle."""
    return ROTATION_FIELD_TITLES if sweep.is_rotation else FIELD_TITLES


def curve_data(
    panels: Sequence[Panel], sweep: SweepFacts, resampling_of: Callable[[Panel], Resampling]
) -> pl.DataFrame:
    """Means over images at each value, with bands; of every role its mean over seeds, and each seed.

    Columns: field_of_view, binarisation, role, seed ("" for the mean), value, dice, dice_low, dice_high, deviation (of
    the mean curve from its own mean over the axis, as the table of levels has it), deviation_low, deviation_high, n
    (images). A band is the pointwise bootstrap interval over blocks of images, of means over seeds; that of the
    deviation resamples whole curves, so it lacks the images' levels. Single seeds have no band.
    """
    parts = []
    for panel in panels:
        resampling = resampling_of(panel)
        for role, curve in panel.curves.items():
            rows = [_rows(curve, MEAN, sweep, resampling)]
            if len(curve.seeds) > 1:
                rows += [_rows(curve.of_seed(i), seed, sweep, None) for i, seed in enumerate(curve.seeds)]
            labels = {FIELD_OF_VIEW: panel.field_of_view, BINARISATION: panel.binarisation, ROLE: role}
            named = [pl.lit(value).alias(name) for name, value in labels.items()]
            parts.append(pl.concat(rows).with_columns(*named, pl.lit(len(panel.image_ids)).alias("n")))
    return pl.concat(parts) if parts else pl.DataFrame()


def _rows(curve: Curve, seed: str, sweep: SweepFacts, resampling: Resampling | None) -> pl.DataFrame:
    dice_NV = curve.dice_NV
    level_N1 = (dice_NV @ sweep.level_weights(curve.values_V))[:, None]
    columns: dict[str, object] = {VALUE: curve.values_V}
    for quantity, values_NV in ((DICE, dice_NV), ("deviation", dice_NV - level_N1)):
        mean_V = values_NV.mean(axis=0)
        low_V = high_V = np.full(len(mean_V), np.nan)
        if resampling is not None:
            low_V, high_V = resampling.intervals(mean_V, resampling.weights_BN @ values_NV)
        columns |= {quantity: mean_V, f"{quantity}_low": low_V, f"{quantity}_high": high_V}
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None), pl.lit(seed).alias(SEED))


def label_data(data: pl.DataFrame, low: float, high: float) -> pl.DataFrame:
    """Where the names of the roles go beside the last value: at their curve, moved apart where they would touch.

    ``data``: one panel of ``curve_data``; ``low`` and ``high``: the panel's axis. Columns: role, value, label_at.
    """
    ends = data.filter((pl.col(SEED) == MEAN) & (pl.col(VALUE) == pl.col(VALUE).max().over(ROLE))).sort(DICE)
    gap = _LABEL_GAP * (high - low)
    places: list[float] = []
    for dice in ends[DICE]:
        places.append(max(dice, places[-1] + gap) if places else dice)
    overflow = max(0.0, places[-1] - high) if places else 0.0
    at = pl.Series("label_at", [place - overflow for place in places], dtype=pl.Float64)
    return ends.select(ROLE, VALUE).with_columns(at)


def curve_figure(data: pl.DataFrame, sweep: SweepFacts, binarisation: str, marks: PublishedCurve | None) -> Figure:
    """The central figure: Dice over the values, of the trained encoders and of all controls, in every field of view.

    Rows: levels; deviations from the own mean of what has an encoder, with the fixed map; deviations of the controls
    without one. ``marks``: published extrema, drawn as rules. Clicking a legend entry keeps it and fades the others.
    """
    chosen = data.filter(pl.col(BINARISATION) == binarisation)
    fields = [field for field in field_titles(sweep) if field in chosen[FIELD_OF_VIEW]]
    canvas = Canvas(chosen[ROLE].unique().to_list())
    columns = [_column(canvas, chosen, sweep, field, marks, field == fields[-1]) for field in fields]
    cells = [panel for row in zip(*columns, strict=True) for panel in row]
    chart = alt.concat(*cells, columns=len(fields), spacing={"row": 16, "column": 26}, align="each")
    chart = chart.resolve_scale(color="shared", strokeDash="shared")
    title = f"Dice of saliency map and mask over the {sweep.title}"
    caption = _caption(chosen, sweep, binarisation, marks, len(fields))
    return Figure("curve", title, caption, styled(chart), canvas.datasets)


def _caption(data: pl.DataFrame, sweep: SweepFacts, binarisation: str, marks: PublishedCurve | None, num: int) -> str:
    kept = field_titles(sweep)["kept"].lower()
    right = f"; left all pixels, right those of the {kept}, which stay in view at every value" if num > 1 else ""
    band = "; band: pointwise 95 % bootstrap interval over blocks of images (trained encoders, mean over their seeds)"
    if TRAINED not in data[ROLE]:
        band = ""
    elif not _has_band(data):
        band = "; no interval: too few or too similar images to draw blocks of"
    text = (
        f"Mean Dice over n = {num_images(data)} images at each value, maps made binary by {binarisation}{right}. Top: "
        f"levels. Middle: deviation of each curve from its own mean over the axis{band}. "
        "Bottom: the same for the controls without an encoder, on a scale of their own."
    )
    seeds = {
        words: data.filter((pl.col(ROLE) == role) & (pl.col(SEED) != MEAN))[SEED].n_unique()
        for role, words in ((TRAINED, "trained"), (UNTRAINED, "untrained"))
    }
    if any(seeds.values()):
        each = " and of ".join(f"{num} {words}" for words, num in seeds.items() if num)
        text += f" Thin lines: each of {each} encoders."
    if marks is not None:
        text += (
            f" Vertical rules: extrema published for {marks.dataset} (solid: maxima, dashed: minima; thesis "
            f"{marks.section}, Fig. {marks.figure})."
        )
    return text + f" At {sweep.text(sweep.neutral)} both views are the same image. Click the legend to single one out."


def _has_band(data: pl.DataFrame) -> bool:
    return bool(data.filter(pl.col(ROLE) == TRAINED)["deviation_low"].is_not_null().any())


def _column(
    canvas: Canvas, data: pl.DataFrame, sweep: SweepFacts, field: str, marks: PublishedCurve | None, last: bool
) -> list[Any]:
    """The panels of one field of view, top to bottom."""
    part = data.filter(pl.col(FIELD_OF_VIEW) == field)
    without_encoder = pl.col(ROLE).is_in(_WITHOUT_ENCODER)
    below = [
        (part.filter(~without_encoder), _DEVIATION_HEIGHT),
        (part.filter(without_encoder | (pl.col(ROLE) == FIXED_MAP)), _CONTROL_HEIGHT),
    ]
    below = [(rows, height) for rows, height in below if not rows.is_empty()]
    levels = _levels(canvas, part, sweep, marks, last)
    panels = [levels.properties(width=_WIDTH, height=_LEVEL_HEIGHT, title=field_titles(sweep)[field])]
    for index, (rows, height) in enumerate(below):
        title = sweep.axis_title() if index == len(below) - 1 else None
        panels.append(_deviations(canvas, rows, sweep, marks, title).properties(width=_WIDTH, height=height))
    return panels


def value_axis(
    data: pl.DataFrame, sweep: SweepFacts, title: str | None, step: float = 45.0, num_ticks: int = 6
) -> alt.X:
    """The axis of the sweep; of a turn, with ticks at ``step`` degrees, of others with about ``num_ticks``."""
    low, high = float(data[VALUE].min()), float(data[VALUE].max())  # type: ignore[arg-type]
    ticks = {"values": np.arange(low, high + 1e-9, step).tolist()} if sweep.is_rotation else {"tickCount": num_ticks}
    axis = alt.Axis(**ticks, title=title, grid=False, labelOverlap="parity", labelFlush=False)
    return alt.X(f"{VALUE}:Q", scale=alt.Scale(domain=[low, high], nice=False), axis=axis)


def _levels(canvas: Canvas, part: pl.DataFrame, sweep: SweepFacts, marks: PublishedCurve | None, labelled: bool) -> Any:
    low, high = _padded(part, DICE, DICE, DICE)
    scale = alt.Scale(domain=[low, high], nice=False)
    x, y = value_axis(part, sweep, None), alt.Y(f"{DICE}:Q", title="Dice", scale=scale, axis=alt.Axis(tickCount=6))
    layers = [*_rules(canvas, marks, x), *_lines(canvas, part, x, y), _hover(canvas, part, sweep, DICE, x, ".4f")]
    if labelled:
        colour = pl.col(ROLE).replace_strict(COLOURS, default="#222222").alias("colour")
        labels = label_data(part, low, high).with_columns(colour)
        text = alt.Chart(canvas.datasets.add(labels)).mark_text(align="left", dx=8, fontSize=11.5, fontWeight=600)
        at = alt.Y("label_at:Q", scale=scale)
        layers.append(text.encode(x, at, alt.Text(f"{ROLE}:N"), alt.Color("colour:N", scale=None)))
    return alt.layer(*layers)


def _deviations(
    canvas: Canvas, part: pl.DataFrame, sweep: SweepFacts, marks: PublishedCurve | None, title: str | None
) -> Any:
    low, high = _padded(part, "deviation", "deviation_low", "deviation_high")
    scale = alt.Scale(domain=[low, high], nice=False)
    axis = alt.Axis(tickCount=5, format="+.3~g")
    x, y = value_axis(part, sweep, title), alt.Y("deviation:Q", title="Dice − own mean", scale=scale, axis=axis)
    zero = alt.Chart(canvas.datasets.add(pl.DataFrame({"y": [0.0]}))).mark_rule(color="#BBBBBB")
    layers = [
        zero.encode(alt.Y("y:Q", scale=scale)),
        *_rules(canvas, marks, x),
        *_band(canvas, part, x, scale),
        *_lines(canvas, part, x, y),
        _hover(canvas, part, sweep, "deviation", x, "+.4f"),
    ]
    return alt.layer(*layers)


def _band(canvas: Canvas, part: pl.DataFrame, x: alt.X, scale: alt.Scale) -> list[alt.Chart]:
    rows = part.filter((pl.col(ROLE) == TRAINED) & (pl.col(SEED) == MEAN)).drop_nulls("deviation_low")
    if rows.is_empty():
        return []
    area = alt.Chart(canvas.datasets.add(rows)).mark_area(color=COLOURS[TRAINED])
    low = alt.Y("deviation_low:Q", scale=scale, title="Dice − own mean")
    return [area.encode(x, low, alt.Y2("deviation_high:Q"), opacity=canvas.faded(0.18))]


def _lines(canvas: Canvas, part: pl.DataFrame, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Single seeds as thin lines, the controls as full ones, the trained mean over all of them."""
    base = alt.Chart(canvas.datasets.add(part.select(ROLE, SEED, VALUE, DICE, "deviation")))
    single, own = f"datum.{SEED} != '{MEAN}'", f"datum.{ROLE} == '{TRAINED}'"
    layers = [(single, 0.8, 0.55), (f"!({single}) && !({own})", 2.0, 1.0), (f"!({single}) && {own}", 2.2, 1.0)]
    detail = alt.Detail([f"{ROLE}:N", f"{SEED}:N"])
    lines = [
        base.transform_filter(which)
        .mark_line(strokeWidth=width)
        .encode(x, y, detail, canvas.colour(), canvas.dash(), opacity=canvas.faded(full))
        for which, width, full in layers
    ]
    return [canvas.carry(lines[0]), *lines[1:]]


def _hover(
    canvas: Canvas, part: pl.DataFrame, sweep: SweepFacts, quantity: str, x: alt.X, number_format: str
) -> alt.Chart:
    """An invisible rule at each value whose tooltip lists all curves there."""
    named = part.with_columns(pl.concat_str([ROLE, SEED], separator=" ").str.strip_chars().alias("name"))
    names = named["name"].unique(maintain_order=True).to_list()
    wide = named.pivot("name", index=VALUE, values=quantity)
    tooltip = [alt.Tooltip(field=VALUE, type="quantitative", title=sweep.axis_title())]
    tooltip += [alt.Tooltip(field=name, type="quantitative", format=number_format) for name in names]
    rule = alt.Chart(canvas.datasets.add(wide)).mark_rule(opacity=0, strokeWidth=4, color="#444444", aria=False)
    hover: alt.Chart = rule.encode(x, tooltip=tooltip)
    return hover


def _rules(canvas: Canvas, marks: PublishedCurve | None, x: alt.X) -> list[alt.Chart]:
    if marks is None:
        return []
    return [
        alt.Chart(canvas.datasets.add(pl.DataFrame({VALUE: [float(a) for a in angles]})))
        .mark_rule(color="#C4C4C4", strokeDash=dash, strokeWidth=1)
        .encode(x)
        for angles, dash in ((marks.maxima_deg, [1, 0]), (marks.minima_deg, [3, 3]))
    ]


def num_images(data: pl.DataFrame) -> int:
    """Images behind the means of a frame of ``curve_data``."""
    return int(data.select(pl.col("n").max()).item())


def _padded(part: pl.DataFrame, middle: str, low: str, high: str) -> tuple[float, float]:
    """The range of what is drawn, a twentieth wider at both ends; bands count for the trained curve only."""
    ends = part.filter(pl.col(ROLE) == TRAINED)
    values = np.concatenate([part[middle].to_numpy(), ends[low].drop_nulls(), ends[high].drop_nulls()])
    margin = 0.05 * float(np.ptp(values)) or 0.01
    return round(float(values.min()) - margin, 6), round(float(values.max()) + margin, 6)


def compared(data: pl.DataFrame) -> pl.DataFrame:
    """The curves whose shapes are compared by eye: means of trained, untrained, fixed map."""
    return data.filter(pl.col(ROLE).is_in([TRAINED, UNTRAINED, FIXED_MAP]) & (pl.col(SEED) == MEAN))


def binarisation_figure(data: pl.DataFrame, sweep: SweepFacts) -> Figure:
    """Small multiples: the deviation curves for every way of making maps binary, in every field of view."""
    order = data[BINARISATION].unique(maintain_order=True).to_list()
    titles = field_titles(sweep)
    fields = [field for field in titles if field in data[FIELD_OF_VIEW]]
    shown = compared(data)
    canvas = Canvas(shown[ROLE].unique().to_list())
    cells = [
        _small(
            canvas,
            shown.filter((pl.col(FIELD_OF_VIEW) == field) & (pl.col(BINARISATION) == rule)),
            sweep,
            f"{rule}, {field}",
        )
        for field in fields
        for rule in order
    ]
    chart = alt.concat(*cells, columns=len(order), spacing={"row": 18, "column": 12}, align="each")
    chart = chart.resolve_scale(color="shared", strokeDash="shared")
    rows = f" Top: full field; bottom: {titles['kept'].lower()}." if len(fields) > 1 else ""
    caption = (
        "The same saliency maps, made binary in different ways: deviation of the mean Dice from its own mean over the "
        f"axis (n = {num_images(data)} images, each panel on its own scale).{rows} The shape of a curve may depend on "
        f"this choice.{' Band: 95 % bootstrap interval (trained).' if _has_band(shown) else ''}"
    )
    return Figure(
        "binarisations", "The curve, by the way of making the map binary", caption, styled(chart), canvas.datasets
    )


def _small(canvas: Canvas, part: pl.DataFrame, sweep: SweepFacts, title: str) -> Any:
    low, high = _padded(part, "deviation", "deviation_low", "deviation_high")
    scale = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("deviation:Q", scale=scale, axis=alt.Axis(tickCount=4, format="+.2~g", title=None))
    x = value_axis(part, sweep, None, step=90.0, num_ticks=3)
    base = alt.Chart(canvas.datasets.add(part))
    tooltip = [alt.Tooltip(f"{ROLE}:N"), alt.Tooltip(f"{VALUE}:Q"), alt.Tooltip(f"{DICE}:Q", format=".4f")]
    encodings = (x, y, alt.Detail(f"{ROLE}:N"), canvas.colour(), canvas.dash())
    lines = base.mark_line(strokeWidth=1.5).encode(*encodings, opacity=canvas.faded(1.0), tooltip=tooltip)
    rows = part.filter(pl.col(ROLE) == TRAINED).drop_nulls("deviation_low")
    band = alt.Chart(canvas.datasets.add(rows)).mark_area(color=COLOURS[TRAINED], opacity=0.15)
    ends = alt.Y("deviation_low:Q", scale=scale), alt.Y2("deviation_high:Q")
    return alt.layer(band.encode(x, *ends), canvas.carry(lines)).properties(width=150, height=120, title=title)
