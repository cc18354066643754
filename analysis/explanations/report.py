"""The report of a study of explanation methods: one self-contained page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.explanations.evidence import Against, RegionSet, judged, region_sets
from analysis.explanations.figures import cascade_figure, has_cascade, method_pictures
from analysis.explanations.findings import answers, caveats
from analysis.explanations.tables import cascade_table, method_table
from analysis.render.files import file_name
from analysis.results import load_study
from analysis.significance import Verdict
from analysis.study_page import StudyPage
from orchestrator.store import Store
from trainables.api.names import TRAINED, label_values


def explanation_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set and region of the study; returns page, figures and tables of each.

    All comparisons of the study, those included that are not there yet, share the level of what is said.
    """
    found = region_sets(load_study(store, manifest))
    verdicts = judged(found)
    written: list[Path] = []
    for place, region in enumerate(found):
        of_region = {pair: verdict for (where, pair), verdict in verdicts.items() if where == place}
        written += _page(region, of_region).write(out_dir / file_name(*label_values(region.labels)))
    return written


def _page(found: RegionSet, verdicts: Mapping[Against, Verdict]) -> StudyPage:
    return StudyPage(
        kind="Explanation methods",
        subject=found.title,
        manifest=found.results.manifest,
        data=found.labels["data"],
        card=found.card,
        cells=list(found.cells.values()),
        answers=answers(found, verdicts),
        parts=[*method_pictures(found), *([cascade_figure(found)] if has_cascade(found) else [])],
        tables_title="Scores",
        tables=[method_table(found, verdicts)],
        folded=[("Cascading randomisation in numbers", cascade_table(found))],
        caveats=caveats(found),
        configured=[cell for (_, role), cell in found.cells.items() if role == TRAINED],
    )
