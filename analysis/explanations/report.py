"""The report of a study of explanation methods: one self-contained page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cards import card_rows
from analysis.cells import missing_lines, mixed_lines
from analysis.explanations.evidence import Against, RegionSet, judged, region_sets
from analysis.explanations.figures import cascade_figure, has_cascade, method_pictures
from analysis.explanations.findings import answers, caveats
from analysis.explanations.tables import cascade_table, method_table
from analysis.render import page
from analysis.render.files import ReportPaths, file_name, write_figures, write_file, write_pictures, write_tables
from analysis.render.table import to_html
from analysis.results import load_study
from analysis.significance import Verdict
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
        written += _write(region, of_region, out_dir / file_name(*label_values(region.labels)))
    return written


def _write(found: RegionSet, verdicts: Mapping[Against, Verdict], out_dir: Path) -> list[Path]:
    paths, manifest = ReportPaths.below(out_dir), found.results.manifest
    tables = [method_table(found, verdicts), cascade_table(found)]
    drawn = [cascade_figure(found)] if has_cascade(found) else []
    pictures = method_pictures(found)
    drawings = write_figures(drawn, paths.figures)
    write_pictures(pictures, paths.figures)
    write_tables(tables, paths.tables)
    cells = list(found.cells.values())
    missing = missing_lines(cells, manifest["command"])
    gap = page.paragraph(f"Incomplete: {'; '.join(name for name, _ in missing)}; see below.", "gap") if missing else ""
    first, *more = answers(found, verdicts)
    shown = "".join(page.picture_figure(i, each) for i, each in enumerate(pictures, 1))
    shown += "".join(page.figure(i, each, drawings[each.name]) for i, each in enumerate(drawn, len(pictures) + 1))
    folded = page.folded("Cascading randomisation in numbers", to_html(tables[1]))
    sections = [
        ("Question", page.paragraph(manifest["question"])),
        ("Answer", page.paragraph(first, "answer") + page.bullets(more) + gap + shown),
        ("Scores", to_html(tables[0]) + folded),
        ("Set-up", _setup(found)),
        ("What is missing", page.pairs(missing) if missing else page.paragraph("Nothing: every seed is here.")),
        ("Caveats", page.bullets([*caveats(found), *mixed_lines(cells)])),
        ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
    ]
    scale = manifest["facts"].get("scale", "")
    byline = " · ".join(filter(None, [f"Study {manifest['study']}", f"scale {scale}" if scale else "", found.title]))
    document = page.document(f"Explanation methods: {found.title}", byline, sections)
    write_file(paths.report_html, document.encode())
    return [paths.report_html, paths.figures, paths.tables]


def _setup(found: RegionSet) -> str:
    rows = card_rows(found.labels["data"], found.card)
    facts = found.results.manifest["facts"]
    rows += [(name.replace("_", " ").capitalize(), value) for name, value in facts.items()]
    details = "".join(
        page.folded(cell.name, page.preformatted(page.as_json(shown["configuration"])))
        for (_, role), cell in found.cells.items()
        for shown in [[*cell.done, *(entry for entry, _ in cell.missing)][0]]
        if role == TRAINED
    )
    return page.pairs(rows) + f"<h3>Configuration of the trials (first seed)</h3>{details}"
