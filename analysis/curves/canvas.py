"""What the figures of curves share: a colour and a dash for each role, the legend, and the selection by legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from analysis.curves.panels import FIXED_MAP, INTENSITY, MASK, RELEASED, ROLE, TRAINED, UNTRAINED
from analysis.render.style import Datasets

# Okabe and Ito's palette: distinguishable with every colour vision; the dashes serve grey print.
COLOURS = {
    TRAINED: "#D55E00",
    UNTRAINED: "#0072B2",
    RELEASED: "#E69F00",
    FIXED_MAP: "#009E73",
    MASK: "#5A5A5A",
    INTENSITY: "#CC79A7",
}
DASHES: dict[str, list[int]] = {
    TRAINED: [1, 0],
    UNTRAINED: [1, 0],
    RELEASED: [4, 2],
    FIXED_MAP: [7, 3],
    MASK: [2, 2],
    INTENSITY: [8, 3, 2, 3],
}


class Canvas:
    """What the panels of one figure share: rows, the roles in the legend, and the selection by legend."""

    def __init__(self, roles: Sequence[str]) -> None:
        self.datasets = Datasets()
        self._shown = [name for name in COLOURS if name in roles]
        self._pick = alt.selection_point(fields=[ROLE], bind="legend", name="pick")
        self._is_carried = False

    def carry(self, chart: alt.Chart) -> alt.Chart:
        """A chart with a colour legend: the first one carries the selection, which may stand in a figure only once."""
        if self._is_carried:
            return chart
        self._is_carried = True
        return chart.add_params(self._pick)

    def colour(self) -> alt.Color:
        scale = alt.Scale(domain=self._shown, range=[COLOURS[name] for name in self._shown])
        return alt.Color(f"{ROLE}:N", scale=scale, title=None, legend=alt.Legend(symbolOpacity=1))

    def dash(self) -> alt.StrokeDash:
        scale = alt.Scale(domain=self._shown, range=[DASHES[name] for name in self._shown])
        return alt.StrokeDash(f"{ROLE}:N", scale=scale, title=None)

    def faded(self, opacity: float) -> Any:
        """``opacity``, or nearly none where the legend singles out another role."""
        return alt.condition(self._pick, alt.value(opacity), alt.value(0.08 * opacity))
