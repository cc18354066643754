"""Tables and figures of the thesis's chapter 4: segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from analysis.render.files import file_name
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import StudyResults
from analysis.segmentation.evidence import target_sets
from analysis.segmentation.figures import class_pictures, fraction_data, fraction_figure
from analysis.segmentation.tables import fraction_table, score_table
from trainables.api.names import MOCO_TRUNK, label_values


def scores_of(role: str) -> Callable[[StudyResults], list[Table]]:
    """Tables 4.1 and 4.2: one network with all masks, on training and validation data, the thesis's line below ours."""

    def make(results: StudyResults) -> list[Table]:
        tables = []
        for found in target_sets(results):
            name = file_name("scores", role, *label_values(found.labels))
            table = score_table(found, (role,), name, f"{role}: {found.title}")
            if table.frame["n"].fill_null(0).sum():
                tables.append(table)
        return tables

    return make


def shares(results: StudyResults) -> list[Figure | Table]:
    """Every network at every share of the masks, as figure and table; nothing where only all masks were used."""
    parts: list[Figure | Table] = []
    for found in target_sets(results):
        if len(found.fractions) > 1 and not fraction_data(found).is_empty():
            name = file_name("shares", *label_values(found.labels))
            parts += [replace(fraction_figure(found), name=name), replace(fraction_table(found), name=name)]
    return parts


def sample(results: StudyResults) -> list[Pictures]:
    """Figure 4.1: a sample result of the self-supervised model, class by class."""
    return [
        replace(pictures, name=file_name("classes", *label_values(found.labels)))
        for found in target_sets(results)
        for pictures in class_pictures(found, MOCO_TRUNK)
    ]
