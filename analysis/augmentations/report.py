"""The report of a study of augmentation types: one self-contained page a data set, figures and tables beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.augmentations.effects import Effect
from analysis.augmentations.evidence import RegionSet, judged, num_tests, region_sets
from analysis.augmentations.figures import angle_figure, effect_figure, pareto_figure
from analysis.augmentations.findings import answers, caveats
from analysis.augmentations.tables import arm_table, effect_table
from analysis.render.files import file_name
from analysis.render.style import Figure
from analysis.results import load_study
from analysis.significance import Verdict
from analysis.study_page import StudyPage
from orchestrator.store import Store
from trainables.api.names import label_values


def augmentation_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page, figures and tables of each.

    All that is said of the study, what is not there yet included, shares the level.
    """
    found = region_sets(load_study(store, manifest))
    verdicts = judged(found)
    written: list[Path] = []
    for place, of_region in enumerate(found):
        own = {(effect, measure): v for (where, effect, measure), v in verdicts.items() if where == place}
        written += _page(of_region, own, num_tests(found)).write(out_dir / file_name(*label_values(of_region.labels)))
    return written


def figures_of(found: RegionSet) -> list[Figure]:
    """What can be drawn of what is there."""
    if not found.points():
        return []
    effects = [effect_figure(found)] if found.effects() else []
    return [pareto_figure(found), *effects, *([angle_figure(found)] if len(found.exact) > 1 else [])]


def _page(found: RegionSet, verdicts: Mapping[tuple[Effect, str], Verdict], num_planned: int) -> StudyPage:
    return StudyPage(
        kind="Augmentation types",
        subject=found.title,
        manifest=found.results.manifest,
        data=found.labels["data"],
        card=found.card,
        cells=found.cells,
        answers=answers(found, verdicts),
        parts=figures_of(found),
        tables_title="Augmentations and their effects",
        tables=[arm_table(found), effect_table(found, verdicts)],
        caveats=caveats(found, verdicts, num_planned),
        configured=found.cells,
    )
