"""The figures of additional positives: a pure function that makes the data, one that draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import altair as alt
import polars as pl

from analysis.positives.evidence import ROLES, WITHOUT_LABELS, LabelledSet, percent
from analysis.published.positives import published_score
from analysis.render.style import Datasets, Figure, styled
from trainables.api.names import BY_LABEL, BYOL_ALONE, RANDOM_START

Over = Literal["fine-tunings", "pretrainings"]
"""What has a point: a fine-tuning of the first pretraining, or a pretraining with one fine-tuning."""

_COLOURS = {
    RANDOM_START: "#7F7F7F", BYOL_ALONE: "#0072B2", **dict.fromkeys(WITHOUT_LABELS, "#D55E00"), BY_LABEL: "#009E73",
}  # fmt: skip
_LINE_COLOURS = dict(
    zip(
        ROLES,
        ("#7F7F7F", "#0072B2", "#56B4E9", "#CC79A7", "#F0E442", "#E69F00", "#8B4513", "#D55E00", "#009E73"),
        strict=True,
    )
)
_SCHEMA = {"way": pl.String, "share": pl.String, "seed": pl.Int64, "score": pl.Float64}


def score_data(found: LabelledSet, over: Over) -> pl.DataFrame:
    """One row a fine-tuning, or a pretraining: way, share (of the labels, as a percentage), seed, score, and mean over
    these."""
    rows = []
    for row in found.rows:
        values: Mapping[int, float] = row.of_pretrainings(found.metric)
        if over == "fine-tunings":
            values = dict(enumerate(row.of_fine_tunings(found.metric)))
        rows += [[row.role, percent(row.fraction), seed, value] for seed, value in values.items()]
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    return frame.with_columns(pl.col("score").mean().over("way", "share").alias("mean"))


def published_data(found: LabelledSet) -> pl.DataFrame:
    """One row a printed mean: way, share, published; none for data sets that the paper has not."""
    rows = [
        [row.role, percent(row.fraction), score[0]]
        for row in found.rows
        if (score := published_score(found.published_as, row.role, row.fraction)) is not None
    ]
    return pl.DataFrame(rows, schema={"way": pl.String, "share": pl.String, "published": pl.Float64}, orient="row")


def score_figure(found: LabelledSet, over: Over) -> Figure | None:
    """A panel a share of the labels, a line a way: a point each, a bar at the mean, and of the paper's data sets a
    diamond at the printed mean. None where nothing is finished."""
    data, datasets = score_data(found, over), Datasets()
    if data.is_empty():
        return None
    published = published_data(found) if over == "fine-tunings" else published_data(found).clear()
    shares = [percent(fraction) for fraction in found.fractions]
    panels = [
        _panel(found, datasets, share, data.filter(share=share), published.filter(share=share), share == shares[0])
        for share in shares
    ]
    which = {
        "fine-tunings": "a point a fine-tuning of the first pretraining",
        "pretrainings": "a point a pretraining, with one fine-tuning",
    }
    caption = f"{found.score.capitalize()} on test images: {which[over]}, a bar at the mean."
    if not published.is_empty():
        caption += " Diamond: the mean that the paper printed."
    caption += " Each share of the labels has its own scale."
    title = f"Scores over {over}, {found.title}"
    return Figure(over.replace("-", "_"), title, caption, styled(alt.hconcat(*panels)), datasets)


def share_figure(found: LabelledSet, over: Over) -> Figure | None:
    """Scores over the share of the labels, a line a way through the means, a point each; for many shares. None where
    nothing is finished."""
    data, datasets = score_data(found, over), Datasets()
    if data.is_empty():
        return None
    named = datasets.add(data.with_columns(pl.col("share").cast(pl.Float64)))
    rows = [role for role in ROLES if role in data["way"].unique().to_list()]
    colour = alt.Color("way:N", title=None, scale=alt.Scale(domain=rows, range=[_LINE_COLOURS[role] for role in rows]))
    x = alt.X("share:Q", title="share of the labels (%)", scale=alt.Scale(type="log", nice=False, padding=12))
    y = alt.Y("score:Q", title=found.score, scale=alt.Scale(zero=False))
    points = alt.Chart(named).mark_point(filled=True, size=24, opacity=0.5).encode(x, y, colour)
    lines = alt.Chart(named).mark_line(strokeWidth=1.8).encode(x, alt.Y("mean:Q", title=found.score), colour)
    which = "fine-tuning of the first pretraining" if over == "fine-tunings" else "pretraining, with one fine-tuning"
    caption = (
        f"{found.score.capitalize()} on test images: a point a {which}, lines through the means. Smaller shares of the "
        "labels lie inside larger ones."
    )
    chart = styled(alt.layer(points, lines).properties(width=680, height=320))
    return Figure(
        over.replace("-", "_"), f"Scores over the share of the labels, {found.title}", caption, chart, datasets
    )


def _panel(
    found: LabelledSet, datasets: Datasets, share: str, data: pl.DataFrame, published: pl.DataFrame, is_first: bool
) -> alt.LayerChart | alt.FacetChart:
    def score_axis(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=found.score, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))

    rows = [role for role in ROLES if any(row.role == role for row in found.rows)]
    way = alt.Y(
        "way:N",
        title=None,
        scale=alt.Scale(domain=rows),
        axis=alt.Axis(labels=is_first, ticks=is_first, grid=True, labelLimit=200),
    )
    colour = alt.Color(
        "way:N", scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())), legend=None
    )  # the axis says which it is
    named = datasets.add(data)
    tooltip = ["way:N", "seed:Q", alt.Tooltip("score:Q", format=".4f"), alt.Tooltip("mean:Q", format=".4f")]
    points = alt.Chart(named).mark_point(filled=True, size=30, opacity=0.6)
    means = alt.Chart(named).mark_tick(thickness=2.5, size=16)
    layers: list[alt.Chart] = [
        points.encode(score_axis("score"), way, colour, tooltip=tooltip),
        means.encode(score_axis("mean"), way, colour),
    ]
    if not published.is_empty():
        printed = alt.Chart(datasets.add(published)).mark_point(shape="diamond", size=70, color="#222222")
        layers.append(printed.encode(score_axis("published"), way, tooltip=["way:N", "published:Q"]))
    return alt.layer(*layers).properties(width=230, height=230, title=f"{share} % of labels")
