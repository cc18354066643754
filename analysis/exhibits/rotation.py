"""Tables and figures of the thesis's chapter 5: interpretability and rotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from analysis.bootstrap import Bootstrap
from analysis.curves.figures import curve_data, curve_figure
from analysis.curves.levels import levels
from analysis.curves.panels import Panel
from analysis.pages.evidence import CurveSet, curve_sets
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import StudyResults
from analysis.rotation import statistics
from analysis.rotation.fitted import fitted
from analysis.rotation.published_table import published_table
from trainables.api.names import label_values


def curve_of(data: str | None) -> Callable[[StudyResults], list[Figure]]:
    """Figures 5.6 to 5.8: Dice over the rotation angle of one data set, the published extrema drawn in, and beside it
    that of the inscribed circle, which the thesis has not; of each further data set and region for None."""

    def make(results: StudyResults) -> list[Figure]:
        return [
            replace(
                curve_figure(
                    curve_data(_panels(found), found.sweep, found.resampling_of),
                    found.sweep,
                    found.binarisation,
                    found.published,
                ),
                name=file_name("curve", *label_values(found.labels)),
            )
            for found in rotations(results)
            if is_of(found, data)
        ]

    return make


def all_published(results: StudyResults) -> list[Table]:
    """The thesis's three rows, and ours of every data set and region that was measured."""
    tables = []
    for found in rotations(results):
        extrema = statistics.extrema(fitted(_panels(found), found.resampling_of))
        frame = levels(found.frame, found.sweep)
        table = published_table(frame, extrema, found.labels, found.facts, found.binarisation)
        name, caption = file_name("published", *label_values(found.labels)), f"{table.caption}: {found.title}"
        tables.append(replace(table, name=name, caption=caption))
    return tables


def _panels(found: CurveSet) -> list[Panel]:
    """Of every field of view, with the rule that the thesis has."""
    return [panel for panel in found.panels if panel.binarisation == found.binarisation]


def is_of(found: CurveSet, data: str | None) -> bool:
    """Whether curves are of a data set of the thesis, and what it measured there; of none of them for None."""
    return (found.published.data if found.published is not None else None) == data


def rotations(results: StudyResults) -> list[CurveSet]:
    """The sets of curves over the rotation angle."""
    return [found for found in all_curves(results) if found.sweep.is_rotation]


@lru_cache(maxsize=8)
def all_curves(results: StudyResults) -> list[CurveSet]:
    """Every set of curves, read once for all exhibits that show them."""
    return curve_sets(results, Bootstrap())
