"""Health of a pretraining: loss, and the two measures in which a collapse of the embeddings shows."""

from __future__ import annotations

import altair as alt
import polars as pl

from analysis.render.style import Datasets, Figure, styled

_FAMILIES = {
    "loss": ("loss", "loss"),
    "embedding_std": ("embedding std", "embedding_std"),
    "effective_rank": ("effective rank", "effective_rank"),
}
_COLOURS = ["#333333", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"]


def pretraining_data(history: pl.DataFrame) -> pl.DataFrame:
    """The metrics worth a look, in reading order: loss, embedding std, effective rank.

    ``history`` has columns metric (``split/name``), step and value. Added: ``panel`` (title of the metric's family).
    Metrics of no family are left out.
    """
    parts = []
    for title, ending in _FAMILIES.values():
        belongs = pl.col("metric").str.split("/").list.last() == ending
        parts.append(history.filter(belongs).with_columns(pl.lit(title).alias("panel")).sort("metric", "step"))
    return pl.concat(parts) if parts else history


def pretraining_figure(data: pl.DataFrame) -> Figure:
    """One small panel a family of metrics, each on its own scale."""
    datasets = Datasets()
    panels = [_panel(datasets, data.filter(panel=title), title) for title in data["panel"].unique(maintain_order=True)]
    chart = alt.hconcat(*panels, spacing=30).resolve_scale(color="independent")
    caption = (
        "Pretraining, by epoch. A collapsed encoder shows an embedding std near 0 and an effective rank near 1: its "
        "saliency maps would say nothing about training."
    )
    return Figure("pretraining", "Health of the pretraining", caption, styled(chart), datasets)


def _panel(datasets: Datasets, part: pl.DataFrame, title: str) -> alt.Chart:
    names = part["metric"].unique(maintain_order=True).to_list()
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=title != "loss"), axis=alt.Axis(tickCount=4))
    legend = alt.Legend() if len(names) > 1 else None
    scale = alt.Scale(domain=names, range=_COLOURS[: len(names)])
    chart: alt.Chart = (
        alt.Chart(datasets.add(part), width=250, height=150)
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14, filled=True))
        .encode(
            alt.X("step:Q", title="epoch", axis=alt.Axis(tickMinStep=1, tickCount=6, grid=False)),
            y,
            alt.Color("metric:N", title=None, scale=scale, legend=legend),
            tooltip=[alt.Tooltip("metric:N"), alt.Tooltip("step:Q"), alt.Tooltip("value:Q", format=".4g")],
        )
    )
    return chart
