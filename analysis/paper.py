"""The one list of all tables and figures of the papers, and the folder and page that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.exhibits.byol_tracin import BYOL_TRACIN
from analysis.exhibits.exhibit import Exhibit, Part
from analysis.exhibits.submissions import results_by_scale
from analysis.exhibits.thesis import THESIS
from analysis.published.rotation import FULL_SCALE
from analysis.render import page
from analysis.render.files import ReportPaths, file_name, write_figures, write_file, write_pictures, write_tables
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.results import StudyResults
from orchestrator.store import Store

EXHIBITS = THESIS + BYOL_TRACIN

MISSING = f"Missing at scale {FULL_SCALE}"


def write_paper(store: Store, out_dir: Path, exhibits: Sequence[Exhibit] = EXHIBITS) -> Path:
    """Write every exhibit that the storage allows into ``out_dir``, and the page that says which are missing.

    Only what was computed at full scale, by the thesis's studies from released weights, bears an exhibit's number; all
    else is shown under its own scale.
    """
    results = {study: _results(store, study) for study in dict.fromkeys(exhibit.study for exhibit in exhibits)}
    made = [
        (exhibit, scale, [_at_scale(part, scale) for part in (exhibit.make(found) if found else ())])
        for exhibit in exhibits
        for scale, found in results[exhibit.study].items()
    ]
    figures = [part for _, _, parts in made for part in parts if isinstance(part, Figure)]
    tables = [part for _, _, parts in made for part in parts if isinstance(part, Table)]
    paths = ReportPaths(out_dir / "paper.html", out_dir / "figures", out_dir / "tables")
    drawings = write_figures(figures, paths.figures)
    write_pictures([part for _, _, parts in made for part in parts if isinstance(part, Pictures)], paths.figures)
    write_tables(tables, paths.tables)
    sections, number = [], 1
    for exhibit, scale, parts in made:
        if parts:
            body, number = _html(parts, drawings, number)
            sections.append((_heading(exhibit, scale), body))
    missing = [
        exhibit for exhibit, scale, parts in made if scale == FULL_SCALE and not parts and exhibit.command is not None
    ]
    if missing:
        sections.append((MISSING, _missing_html(missing, store.uri)))
    document = page.document("Exhibits of the thesis on contrastive learning and of BYOL-TracIn", store.uri, sections)
    write_file(paths.report_html, document.encode())
    return paths.report_html


def _results(store: Store, study: str) -> dict[str, StudyResults | None]:
    """Scale -> what a study has; full scale first, also where there is none."""
    found: dict[str, StudyResults | None] = {**results_by_scale(store, study)}
    return {FULL_SCALE: found.pop(FULL_SCALE, None)} | found


def _at_scale(part: Part, scale: str) -> Part:
    """The same with its scale in the caption, and in the file's name unless it is full."""
    name = part.name if scale == FULL_SCALE else file_name(part.name, "at", scale)
    if not isinstance(part, Table):
        return replace(part, name=name, caption=f"{_scale_text(scale)}. {part.caption}")
    return replace(part, name=name, caption=f"{part.caption} ({_scale_text(scale).lower()})")


def _heading(exhibit: Exhibit, scale: str) -> str:
    if scale == FULL_SCALE:
        return f"{exhibit.number}: {exhibit.title}"
    return f"{_scale_text(scale)}, not {exhibit.number}: {exhibit.title}"


def _scale_text(scale: str) -> str:
    return f"At scale {scale}" if scale else "At a scale that was not recorded"


def _html(parts: Sequence[Part], drawings: Mapping[str, str], number: int) -> tuple[str, int]:
    body = ""
    for part in parts:
        if isinstance(part, Table):
            body += to_html(part)
            continue
        if isinstance(part, Pictures):
            body += page.picture_figure(number, part)
        else:
            body += page.figure(number, part, drawings[part.name])
        number += 1
    return body, number


def _missing_html(missing: Sequence[Exhibit], storage: str) -> str:
    """What is missing, by the command that computes it."""
    by_command: dict[str, list[str]] = {}
    for exhibit in missing:
        command = f"{exhibit.command} --storage {storage}"
        by_command.setdefault(command, []).append(f"{exhibit.number}: {exhibit.title}")
    said = (
        f"The storage holds no result at scale {FULL_SCALE} for these. Below each list, the command that computes it."
    )
    return page.paragraph(said, "gap") + "".join(
        page.bullets(names) + page.preformatted(command) for command, names in by_command.items()
    )
