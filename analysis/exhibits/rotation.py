"""Tables and figures of the thesis's chapter 5: interpretability and rotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from analysis.bootstrap import Bootstrap
from analysis.curves.figures import curve_data, curve_figure
from analysis.curves.levels import levels
from analysis.pages.evidence import CurveSet, curve_sets
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import StudyResults
from analysis.rotation import statistics
from analysis.rotation.fitted import fitted
from analysis.rotation.published_table import published_table
from trainables.api.names import label_values


def curve_of(data: str) -> Callable[[StudyResults], list[Figure]]:
    """Figures 5.6 to 5.8: Dice over the rotation angle of one data set, the published extrema drawn in."""

    def make(results: StudyResults) -> list[Figure]:
        return [
            replace(
                curve_figure(
                    curve_data([found.headline_panel], found.sweep, found.resampling_of),
                    found.sweep,
                    found.binarisation,
                    found.published,
                ),
                name=file_name("curve", *label_values(found.labels)),
            )
            for found in _rotations(results)
            if found.published is not None and found.published.data == data
        ]

    return make


def all_published(results: StudyResults) -> list[Table]:
    """The thesis's three rows, and ours of every data set and region that was measured."""
    tables = []
    for found in _rotations(results):
        panels = [panel for panel in found.panels if panel.binarisation == found.binarisation]
        extrema = statistics.extrema(fitted(panels, found.resampling_of))
        frame = levels(found.frame, found.sweep)
        table = published_table(frame, extrema, found.labels, found.facts, found.binarisation)
        name, caption = file_name("published", *label_values(found.labels)), f"{table.caption}: {found.title}"
        tables.append(replace(table, name=name, caption=caption))
    return tables


@lru_cache(maxsize=8)
def _rotations(results: StudyResults) -> list[CurveSet]:
    """Read once for all exhibits that show them."""
    return [found for found in curve_sets(results, Bootstrap()) if found.sweep.is_rotation]
