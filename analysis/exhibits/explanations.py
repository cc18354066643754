"""Figures and tables of the thesis's section 5.1: choosing an explanation method."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import polars as pl

from analysis.explanations.evidence import RegionSet, judged, region_sets
from analysis.explanations.figures import method_pictures
from analysis.explanations.findings import answers
from analysis.explanations.tables import method_table
from analysis.render.files import file_name
from analysis.render.pictures import Pictures
from analysis.render.table import Column, Table
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
    """What the thesis decides by eye, in numbers: which method leads, and methods by data set, with intervals."""
    found = _regions(results)
    verdicts = judged(found)
    tables, leaders = [], []
    for place, region in enumerate(found):
        of_region = {pair: verdict for (where, pair), verdict in verdicts.items() if where == place}
        table = method_table(region, of_region)
        if table.frame["n"].sum():
            tables.append(replace(table, name=file_name("methods", *label_values(region.labels))))
            leaders.append((region.title, answers(region, of_region)[0]))
    if not leaders:
        return []
    frame = pl.DataFrame(leaders, schema=["data", "finding"], orient="row")
    columns = [Column("data", "data", width=0.25), Column("which method leads", "finding", width=0.65)]
    return [Table("leaders", "The method that agrees best with the region", frame, columns), *tables]


@lru_cache(maxsize=8)
def _regions(results: StudyResults) -> list[RegionSet]:
    return region_sets(results)
