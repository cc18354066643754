"""Tables 1 and 2 and Figure 2 of BYOL-TracIn, and its claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from analysis.positives.checkpoints import answers, choice_table, figures_of
from analysis.positives.choices import WAYS, checkpoint_sets, choice_pictures
from analysis.positives.evidence import LabelledSet, labelled_sets
from analysis.positives.report import figures
from analysis.positives.tables import claim_table, score_table
from analysis.published.positives import PUBLISHED
from analysis.render.files import file_name
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Column, Table
from analysis.results import StudyResults


def scores_of(published_as: str | None) -> Callable[[StudyResults], list[Figure | Table]]:
    """One data set's part of Table 1 or 2, and the figure of the same numbers; ``None``: those that the paper has
    not."""

    def make(results: StudyResults) -> list[Figure | Table]:
        parts: list[Figure | Table] = []
        for found in _measured(results):
            own = found.published_as
            if own == published_as or (published_as is None and own not in PUBLISHED):
                parts.append(replace(score_table(found), name=file_name("positives", own)))
                parts += [replace(f, name=file_name("positives", f.name, own)) for f in figures(found)]
        return parts

    return make


def every_share(results: StudyResults) -> list[Figure | Table]:
    """Of each data set the figure and the table, whether the paper has it or not."""
    parts: list[Figure | Table] = []
    for found in _measured(results):
        parts += [replace(f, name=file_name("shares", f.name, found.published_as)) for f in figures(found)]
        parts.append(replace(score_table(found), name=file_name("shares", found.published_as)))
    return parts


def choices_of(data: str | None) -> Callable[[StudyResults], list[Pictures]]:
    """Figure 2: anchors of a data set with what TracIn and features find nearest; ``None``: of those that the paper
    does not show."""

    def make(results: StudyResults) -> list[Pictures]:
        return [
            replace(pictures, name=file_name("choices", found.data))
            for found in checkpoint_sets(results)
            for pictures in choice_pictures(found)
            if found.data == data or (data is None and found.data != _IN_FIGURE_2)
        ]

    return make


_IN_FIGURE_2 = "isic2019"


def checkpoints(results: StudyResults) -> list[Figure | Table]:
    """How rightly checkpoints choose, and what is told apart: more choices than one, and TracIn from features."""
    parts: list[Figure | Table] = []
    for found in checkpoint_sets(results):
        if not any(each.cell.done for each in found.of(*WAYS)):
            continue
        frame = pl.DataFrame({"finding": answers(found)})
        columns = [Column("what it says here", "finding", width=0.9)]
        parts.append(Table(file_name("choices", "said", found.data), f"Choices: {found.data}", frame, columns))
        parts.append(replace(choice_table(found), name=file_name("choices", found.data)))
        parts += [replace(f, name=file_name("choices", f.name, found.data)) for f in figures_of(found)]
    return parts


def claims(results: StudyResults) -> list[Table]:
    """What the paper concludes from the table, each beside what our numbers say, on all data sets."""
    return [replace(table, name="byol-tracin-claims") for table in claim_table(_measured(results))]


def _measured(results: StudyResults) -> list[LabelledSet]:
    """The data sets of which anything is finished."""
    return [found for found in labelled_sets(results) if any(row.cell.done for row in found.rows)]
