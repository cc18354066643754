"""How figures look, and how they are written: one configuration, SVG and PNG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import polars as pl
import vl_convert

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
