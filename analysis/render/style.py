"""How figures look, and how they are written: one palette, one configuration, SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from analysis.rotation.panels import FIXED_MAP, INTENSITY, MASK_CEILING, TRAINED

UNTRAINED = "untrained"
# Okabe and Ito's palette: distinguishable with every colour vision; the dashes serve grey print.
COLOURS = {
    TRAINED: "#D55E00",
    UNTRAINED: "#0072B2",
    FIXED_MAP: "#009E73",
    MASK_CEILING: "#5A5A5A",
    INTENSITY: "#CC79A7",
}
DASHES: dict[str, list[int]] = {
    TRAINED: [1, 0],
    UNTRAINED: [1, 0],
    FIXED_MAP: [7, 3],
    MASK_CEILING: [2, 2],
    INTENSITY: [8, 3, 2, 3],
}
FIELD_TITLES = {"full": "Full field of view", "circle": "Inscribed circle"}
_INK, _MUTED, _GRID = "#222222", "#666666", "#E9E9E9"
_FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"
_PNG_SCALE = 2.0


class Datasets:
    """The rows of one figure, under names: altair copies a chart often, and would copy its rows each time."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, frame: pl.DataFrame, decimals: int | None = 6) -> alt.NamedData:
        """Rows of an aggregated frame, rounded: a figure carries what it shows and no more.

        Where a quantity may be of any magnitude, ``decimals`` is None: six significant digits stay.
        """
        numbers = pl.col(pl.Float64)
        rounded = numbers.round_sig_figs(6) if decimals is None else numbers.round(decimals)
        rows = frame.with_columns(rounded).to_dicts()
        name = next((name for name, known in self.rows.items() if known == rows), f"data-{len(self.rows)}")
        self.rows[name] = rows
        return alt.NamedData(name=name)


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawn figure. ``name`` is the file name without suffix; ``caption`` says what is seen, with n."""

    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    datasets: Datasets

    @cached_property
    def specification(self) -> dict[str, Any]:
        """The Vega-Lite specification, data included, without the address of its schema."""
        specification: dict[str, Any] = self.chart.to_dict()
        specification.pop("$schema", None)
        return specification | {"datasets": self.datasets.rows}

    def svg(self) -> str:
        return str(vl_convert.vegalite_to_svg(self.specification))

    def png(self) -> bytes:
        return bytes(vl_convert.vegalite_to_png(self.specification, scale=_PNG_SCALE))


class Canvas:
    """What the panels of one figure share: rows, the families in the legend, and the selection by legend."""

    def __init__(self, families: Sequence[str]) -> None:
        self.datasets = Datasets()
        self._shown = [name for name in COLOURS if name in families]
        self._pick = alt.selection_point(fields=["family"], bind="legend", name="pick")
        self._is_carried = False

    def carry(self, chart: alt.Chart) -> alt.Chart:
        """A chart with a colour legend: the first one carries the selection, which may stand in a figure only once."""
        if self._is_carried:
            return chart
        self._is_carried = True
        return chart.add_params(self._pick)

    def colour(self) -> alt.Color:
        scale = alt.Scale(domain=self._shown, range=[COLOURS[name] for name in self._shown])
        return alt.Color("family:N", scale=scale, title=None, legend=alt.Legend(symbolOpacity=1))

    def dash(self) -> alt.StrokeDash:
        scale = alt.Scale(domain=self._shown, range=[DASHES[name] for name in self._shown])
        return alt.StrokeDash("family:N", scale=scale, title=None)

    def faded(self, opacity: float) -> Any:
        """``opacity``, or nearly none where the legend singles out another family."""
        return alt.condition(self._pick, alt.value(opacity), alt.value(0.08 * opacity))


def angle_axis(title: str | None = "rotation angle (°)", step_deg: int = 45) -> alt.X:
    axis = alt.Axis(values=list(range(0, 361, step_deg)), title=title, grid=False, labels=True, labelOverlap=False)
    return alt.X("angle_deg:Q", scale=alt.Scale(domain=[0, 360], nice=False), axis=axis)


def styled(chart: alt.TopLevelMixin) -> Any:
    """The chart with the house's configuration."""
    return (
        chart.configure(font=_FONT, background="white")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_MUTED, titleColor=_INK, labelFontSize=11, titleFontSize=12, titleFontWeight="normal",
            gridColor=_GRID, domainColor="#999999", tickColor="#999999", tickSize=4,
        )
        .configure_legend(
            orient="top", labelFontSize=12, labelColor=_INK, symbolSize=260, symbolStrokeWidth=2.5, columnPadding=18,
            title=None, labelLimit=300,
        )
        .configure_title(anchor="start", fontSize=13, fontWeight="bold", color=_INK, subtitleColor=_MUTED, offset=8)
        .configure_concat(spacing=22)
    )  # fmt: skip
