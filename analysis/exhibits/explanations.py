"""Figures and tables of the thesis's section 5.1: choosing an explanation method."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from analysis.explanations.evidence import RegionSet, judged, region_sets
from analysis.explanations.figures import method_pictures
from analysis.explanations.tables import method_table
from analysis.render.files import file_name
from analysis.render.pictures import Pictures
from analysis.render.table import Table
from analysis.results import StudyResults
from trainables.api.names import label_values


def pair(results: StudyResults) -> list[Pictures]:
    """Figure 5.1: every method on an image and its rotated view."""
    return [
        replace(pictures, name=file_name("methods", *label_values(found.labels)))
        for found in _regions(results)
        for pictures in method_pictures(found)
    ]


def scores(results: StudyResults) -> list[Table]:
    """What the thesis decides by eye, in numbers: methods by data set, with intervals."""
    found = _regions(results)
    verdicts = judged(found)
    tables = []
    for place, region in enumerate(found):
        of_region = {pair: verdict for (where, pair), verdict in verdicts.items() if where == place}
        table = method_table(region, of_region)
        if table.frame["n"].sum():
            tables.append(replace(table, name=file_name("methods", *label_values(region.labels))))
    return tables


@lru_cache(maxsize=8)
def _regions(results: StudyResults) -> list[RegionSet]:
    return region_sets(results)
