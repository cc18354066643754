"""The report of a study of additional positives: Table 1 of BYOL-TracIn from our numbers, a page a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.positives.evidence import LabelledSet, labelled_sets
from analysis.positives.figures import Over, score_figure, share_figure
from analysis.positives.findings import Told, answers, caveats, told_of
from analysis.positives.tables import claim_table, difference_table, pretraining_table, score_table
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.render.table import Table
from analysis.results import load_study
from analysis.study_page import StudyPage
from orchestrator.store import Store

_MOST_PANELS = 3
"""Shares of the labels that stand side by side; more are an axis."""


def positives_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page, figures and tables of each."""
    written: list[Path] = []
    for found in labelled_sets(load_study(store, manifest)):
        written += _page(found).write(out_dir / file_name(found.data, *(["linear_probe"] if found.is_probe else [])))
    return written


def _page(found: LabelledSet) -> StudyPage:
    told = told_of(found)
    return StudyPage(
        kind="Additional positives",
        subject=found.title,
        manifest=found.results.manifest,
        data=found.data,
        card=found.card,
        cells=[row.cell for row in found.rows],
        answers=answers(found, told),
        parts=figures(found),
        tables_title="Scores",
        tables=tables(found, told),
        setup=[("Score", found.score)],
        caveats=caveats(found, told),
        configured=[row.cell for row in found.rows if row.fraction == max(found.fractions)],
    )


def figures(found: LabelledSet) -> list[Figure]:
    """Over fine-tunings, and where there are several pretrainings over these."""
    kinds: list[Over] = ["fine-tunings"]
    if _has_several(found):
        kinds.append("pretrainings")
    draw = share_figure if len(found.fractions) > _MOST_PANELS else score_figure
    return [figure for over in kinds if (figure := draw(found, over)) is not None]


def tables(found: LabelledSet, told: Told) -> list[Table]:
    """Table 1 and the claims, and where several pretrainings are planned what these say."""
    over = [pretraining_table(found), difference_table(found, told)] if _has_several(found) else []
    return [score_table(found), *over, *claim_table([found])]


def _has_several(found: LabelledSet) -> bool:
    """Whether any way has more pretrainings than one, be it in the plan."""
    return any(len(row.pretrain_seeds) > 1 for row in found.rows)
