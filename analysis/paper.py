"""The one list of all tables and figures of the papers, and the folder and page that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.bootstrap import Bootstrap
from analysis.exhibits import rotation
from analysis.exhibits.exhibit import Exhibit
from analysis.pages.evidence import CurveSet, curve_sets
from analysis.render import page
from analysis.render.files import ReportPaths, write_figures, write_file, write_tables
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.results import load_study
from orchestrator.store import Store

_ROTATION = "python studies/rotation_period.py --scale full --data-root DATA --datasets"

EXHIBITS = (
    Exhibit(
        "Figure 5.6", "Interpretability over rotation, BraTS", "rotation_period", f"{_ROTATION} brats",
        rotation.curve_of("brats"),
    ),
    Exhibit(
        "Figure 5.7", "Interpretability over rotation, lung masks", "rotation_period", f"{_ROTATION} lung_mask",
        rotation.curve_of("lung_mask"),
    ),
    Exhibit(
        "Figure 5.8", "Interpretability over rotation, Kvasir-SEG", "rotation_period", f"{_ROTATION} kvasir",
        rotation.curve_of("kvasir"),
    ),
    Exhibit(
        "Section 5.3", "Extrema and levels beside the published ones", "rotation_period",
        f"{_ROTATION} brats lung_mask kvasir", rotation.all_published,
    ),
)  # fmt: skip


def write_paper(store: Store, out_dir: Path, exhibits: Sequence[Exhibit] = EXHIBITS) -> Path:
    """Write every exhibit that the storage allows into ``out_dir``, and the page that says which are missing."""
    sets = {study: _sets(store, study) for study in dict.fromkeys(exhibit.study for exhibit in exhibits)}
    made = {exhibit.number: list(exhibit.make(sets[exhibit.study])) for exhibit in exhibits}
    figures = [part for parts in made.values() for part in parts if isinstance(part, Figure)]
    tables = [part for parts in made.values() for part in parts if isinstance(part, Table)]
    paths = ReportPaths(out_dir / "paper.html", out_dir / "figures", out_dir / "tables")
    drawings = write_figures(figures, paths.figures)
    write_tables(tables, paths.tables)
    sections, number = [], 1
    for exhibit in exhibits:
        body, number = _html(made[exhibit.number], exhibit, drawings, number)
        sections.append((f"{exhibit.number}: {exhibit.title}", body))
    document = page.document("Rotation and interpretability: the thesis's exhibits", store.uri, sections)
    write_file(paths.report_html, document.encode())
    return paths.report_html


def latest_manifests(store: Store) -> dict[str, Mapping[str, Any]]:
    """The newest submission of every study."""
    latest: dict[str, Mapping[str, Any]] = {}
    for manifest in sorted(store.manifests(), key=lambda m: float(m["submitted_at"])):
        latest[manifest["study"]] = manifest
    return latest


def _sets(store: Store, study: str) -> list[CurveSet]:
    manifest = latest_manifests(store).get(study)
    return [] if manifest is None else curve_sets(load_study(store, manifest), Bootstrap())


def _html(
    parts: Sequence[Figure | Table], exhibit: Exhibit, drawings: Mapping[str, str], number: int
) -> tuple[str, int]:
    if not parts:
        return page.paragraph(
            f"Missing: the storage holds no such curve. Compute it with {exhibit.command}", "gap"
        ), number
    body = ""
    for part in parts:
        if isinstance(part, Figure):
            body += page.figure(number, part, drawings[part.name])
            number += 1
        else:
            body += to_html(part)
    return body, number
