"""The figures of augmentation types. Each is a pure function that makes its data, and one that draws it."""

from __future__ import annotations

from functools import partial
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from analysis.augmentations.effects import ALONE
from analysis.augmentations.evidence import MEASURES, TITLES, RegionSet, expected_front_size
from analysis.render.style import Datasets, Figure, styled
from trainables.api.names import (
    EXACT_ANGLE,
    NO_AUGMENTATION,
    ONE_AUGMENTATION,
    RELEASED,
    THESIS_AUGMENTATIONS,
    THESIS_CURVE,
    TWO_AUGMENTATIONS,
    UNTRAINED,
    UNTRAINED_CURVE,
)

_COLOURS = {
    NO_AUGMENTATION: "#000000", THESIS_AUGMENTATIONS: "#D55E00", ONE_AUGMENTATION: "#0072B2",
    EXACT_ANGLE: "#009E73", TWO_AUGMENTATIONS: "#CC79A7", UNTRAINED: "#7F7F7F", RELEASED: "#E69F00",
}  # fmt: skip


_TITLES = {name: TITLES[measure] for measure, name in MEASURES.items()}


def point_data(found: RegionSet) -> pl.DataFrame:
    """One row an arm with both measures: augmentation, role, use, interpretability, is_front. Means are over the seeds
    that all trained arms have, of encoders that the study did not train over all of theirs."""
    front, points = found.front(), found.points()
    rows = []
    for arm in found.arms:
        levels = [found.levels(arm.name, measure) for measure in MEASURES]
        if all(levels):
            means = points.get(arm.name) or tuple(float(np.mean([*each.values()])) for each in levels)
            rows.append([arm.name, arm.role, *means, arm.name in front])
    schema = {"augmentation": pl.String, "role": pl.String, "use": pl.Float64, "interpretability": pl.Float64,
              "is_front": pl.Boolean}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def seed_data(found: RegionSet) -> pl.DataFrame:
    """One row an arm and seed that has both measures: augmentation, role, seed, use, interpretability."""
    rows = []
    for arm in found.arms:
        use, maps = (found.levels(arm.name, measure) for measure in MEASURES)
        rows += [[arm.name, arm.role, seed, use[seed], maps[seed]] for seed in sorted(set(use) & set(maps))]
    schema = {"augmentation": pl.String, "role": pl.String, "seed": pl.Int64, "use": pl.Float64,
              "interpretability": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def pareto_figure(found: RegionSet) -> Figure:
    """Use against interpretability: a point an augmentation, small ones its seeds, a line along the front."""
    points, seeds, datasets = point_data(found), seed_data(found), Datasets()
    roles = [role for role in _COLOURS if role in points["role"].unique().to_list()]
    scale = alt.Scale(domain=roles, range=[_COLOURS[role] for role in roles])
    colour = alt.Color("role:N", scale=scale, title=None)
    x = alt.X("use:Q", title=f"use: {_TITLES['use']}", scale=alt.Scale(zero=False))
    title = f"interpretability: {_TITLES['interpretability']}"
    y = alt.Y("interpretability:Q", title=title, scale=alt.Scale(zero=False))
    tooltip = ["augmentation:N", alt.Tooltip("use:Q", format=".4f"), alt.Tooltip("interpretability:Q", format=".4f")]
    named = alt.Chart(datasets.add(points))
    front = datasets.add(points.filter("is_front").sort("use"), None)
    layers = [
        alt.Chart(front).mark_line(color="#9A9A9A", strokeDash=[4, 3], strokeWidth=1.2).encode(x, y, order="use:Q"),
        alt.Chart(datasets.add(seeds, None)).mark_point(filled=True, size=18, opacity=0.6).encode(x, y, colour),
        named.mark_point(filled=True, size=80, opacity=1).encode(x, y, colour, tooltip=tooltip),
        named.mark_text(dy=-9, fontSize=9).encode(x, y, text="augmentation:N"),
    ]
    caption = (
        "Large: mean over the seeds; small: each seed. The dashed line joins the Pareto front of the trained: those "
        "that no other mean exceeds in both, over the seeds that all of them have. Of as many whose measures were luck "
        f"and knew nothing of one another, {expected_front_size(len(found.points())):.1f} would be on a front."
    )
    chart = styled(alt.layer(*layers).properties(width=720, height=400))
    return Figure("pareto", f"Use against interpretability, {found.title}", caption, chart, datasets)


def effect_data(found: RegionSet) -> pl.DataFrame:
    """One row an arm and measure, against no augmentation: augmentation, role, measure, difference, low, high (null
    from one seed)."""
    rows = []
    for effect in found.effects():
        if effect.kind != ALONE:
            continue
        role = found.arm(effect.title).role
        for measure, name in MEASURES.items():
            interval = found.interval(effect, partial(found.levels, measure=measure))
            if interval is not None:
                rows.append([effect.title, role, name, interval.value, interval.low, interval.high])
    schema = {"augmentation": pl.String, "role": pl.String, "measure": pl.String, "difference": pl.Float64,
              "low": pl.Float64, "high": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def effect_figure(found: RegionSet) -> Figure:
    """What each augmentation changes against none, a panel a measure."""
    data, datasets = effect_data(found), Datasets()
    names = data["augmentation"].unique(maintain_order=True).to_list()
    panels = [_effect_panel(datasets, data.filter(measure=name), name, names) for name in MEASURES.values()]
    caption = (
        "Difference to pretrainings without augmentation: mean over seeds and 95 % interval, each by itself. "
        "Left: use. Right: interpretability."
    )
    title = f"Each augmentation against none, {found.title}"
    return Figure("effects", title, caption, styled(alt.hconcat(*panels)), datasets)


def _effect_panel(datasets: Datasets, data: pl.DataFrame, name: str, names: list[str]) -> Any:
    roles = [role for role in _COLOURS if role in data["role"].unique().to_list()]
    colour = alt.Color("role:N", scale=alt.Scale(domain=roles, range=[_COLOURS[role] for role in roles]), title=None)
    y = alt.Y("augmentation:N", sort=names, title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(datasets.add(data), title=name, width=270, height=18 * max(len(names), 1))
    tooltip = ["augmentation:N", alt.Tooltip("difference:Q", format="+.4f")]
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        alt.X("difference:Q", title=f"difference of {name}"), y, colour, tooltip=tooltip
    )
    bars = alt.Chart(datasets.add(data.drop_nulls("low"), None)).mark_rule(strokeWidth=1.4)
    nothing = alt.Chart(datasets.add(pl.DataFrame({"zero": [0.0]}), None)).mark_rule(color="#9A9A9A")
    bars = bars.encode(alt.X("low:Q"), y, colour, x2="high:Q")
    layered = alt.layer(nothing.encode(alt.X("zero:Q")), bars, points)
    return layered.properties(title=name, width=270, height=18 * max(len(names), 1))


def angle_data(found: RegionSet) -> pl.DataFrame:
    """One row a training angle, measure and seed: angle_deg, measure, seed, value, mean (over the seeds). No
    augmentation stands at 0 degrees."""
    rows = []
    for arm in found.exact:
        for measure, name in MEASURES.items():
            levels = found.levels(arm.name, measure)
            mean = float(np.mean([*levels.values()])) if levels else 0.0
            rows += [[arm.angle_deg, name, seed, value, mean] for seed, value in levels.items()]
    schema = {"angle_deg": pl.Float64, "measure": pl.String, "seed": pl.Int64, "value": pl.Float64, "mean": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def circle_data(found: RegionSet) -> pl.DataFrame:
    """One row an angle up to the largest that was trained with, and curve: angle_deg, encoder, dice."""
    most = max((arm.angle_deg for arm in found.exact), default=0.0)
    rows = [
        [angle, encoder, dice]
        for role, encoder in _CIRCLES.items()
        for angle, dice in found.circle(role).items()
        if angle <= most
    ]
    return pl.DataFrame(rows, schema={"angle_deg": pl.Float64, "encoder": pl.String, "dice": pl.Float64}, orient="row")


_CIRCLES = {THESIS_CURVE: THESIS_AUGMENTATIONS, UNTRAINED_CURVE: UNTRAINED}


def angle_figure(found: RegionSet) -> Figure:
    """Training with one exact angle: both measures over it, and curves over the angle of the view."""
    data, circles, datasets = angle_data(found), circle_data(found), Datasets()
    panels = []
    for name in MEASURES.values():
        part = datasets.add(data.filter(measure=name))
        x = alt.X("angle_deg:Q", title="angle in the pretraining (°)")
        y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False))
        base = alt.Chart(part)
        points = base.mark_point(filled=True, size=26, color=_COLOURS[EXACT_ANGLE]).encode(x, y)
        lines = base.mark_line(color=_COLOURS[EXACT_ANGLE], strokeWidth=1.6).encode(x, alt.Y("mean:Q", title=name))
        panels.append(alt.layer(lines, points).properties(title=name, width=225, height=210))
    roles = list(_CIRCLES.values())
    scale = alt.Scale(domain=roles, range=[_COLOURS[role] for role in roles])
    x = alt.X("angle_deg:Q", title="angle of the explained view (°)")
    y = alt.Y("dice:Q", title="Dice of the maps", scale=alt.Scale(zero=False))
    curve = alt.Chart(datasets.add(circles)).mark_line(strokeWidth=1.6)
    curve = curve.encode(x, y, alt.Color("encoder:N", scale=scale, title=None))
    panels.append(curve.properties(title="curves over the view", width=225, height=210))
    caption = (
        "Left and middle: use and interpretability of encoders whose views were all rotated by exactly one angle (0°: "
        "not at all); a point a seed, the line through the means. Right: curves over the angle of the view, up to the "
        "largest angle that was trained with, of encoders with the thesis's augmentation and of untrained ones; the "
        "thesis concludes that the maximum is the angle to train with."
    )
    if any(angle and angle % 90 == 0 for frame in (data, circles) for angle in frame["angle_deg"]):
        caption += (
            " At 90° nothing is interpolated, in the views of the training as in those that are explained: what "
            "stands out there need not be the angle's doing."
        )
    return Figure("angles", f"Training with one angle, {found.title}", caption, styled(alt.hconcat(*panels)), datasets)
