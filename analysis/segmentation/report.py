"""The report of a study of segmentations: one self-contained page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.render.files import file_name
from analysis.results import load_study
from analysis.segmentation import figures
from analysis.segmentation.evidence import Pair, TargetSet, judged, target_sets
from analysis.segmentation.findings import answers, caveats
from analysis.segmentation.tables import class_table, fraction_table, score_table
from analysis.significance import Verdict
from analysis.study_page import StudyPage
from orchestrator.store import Store
from trainables.api.names import label_values


def segmentation_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set and target of the study; returns page, figures and tables of each.

    All comparisons of the study, those included that are not there yet, share the level of what is said.
    """
    found = target_sets(load_study(store, manifest))
    verdicts = judged(found)
    written: list[Path] = []
    for place, target in enumerate(found):
        of_target = {pair: verdict for (where, pair), verdict in verdicts.items() if where == place}
        written += _page(target, of_target).write(out_dir / file_name(*label_values(target.labels)))
    return written


def _page(found: TargetSet, verdicts: Mapping[Pair, Verdict]) -> StudyPage:
    fractions = [] if figures.fraction_data(found).is_empty() else [figures.fraction_figure(found)]
    return StudyPage(
        kind="Segmentation",
        subject=found.title,
        manifest=found.results.manifest,
        data=found.labels["data"],
        card=found.card,
        cells=[row.cell for row in found.rows],
        answers=answers(found, verdicts),
        parts=[*fractions, *figures.samples(found)],
        tables_title="Scores",
        tables=[score_table(found), fraction_table(found), *([class_table(found)] if found.class_names else [])],
        setup=[("Classes", ", ".join(found.class_names) or "–")],
        caveats=caveats(found),
        configured=[row.cell for row in found.rows if row.fraction == 1 and row.split == "val"],
    )
