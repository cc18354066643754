"""The report of a study of segmentations: one self-contained page, with figures and tables as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.cards import card_rows
from analysis.cells import missing_lines, mixed_lines
from analysis.render import page
from analysis.render.files import ReportPaths, file_name, write_figures, write_file, write_pictures, write_tables
from analysis.render.pictures import Pictures
from analysis.render.style import Figure
from analysis.render.table import Table, to_html
from analysis.results import load_study
from analysis.segmentation import figures
from analysis.segmentation.evidence import Pair, TargetSet, judged, target_sets
from analysis.segmentation.findings import answers, caveats
from analysis.segmentation.tables import class_table, fraction_table, score_table
from analysis.significance import Verdict
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
        written += _write(target, of_target, out_dir / file_name(*label_values(target.labels)))
    return written


def tables_of(found: TargetSet) -> list[Table]:
    """Those of its page."""
    return [score_table(found), fraction_table(found), *([class_table(found)] if found.class_names else [])]


def figures_of(found: TargetSet) -> list[Figure]:
    """Those of its page; none before a trial is finished."""
    return [] if figures.fraction_data(found).is_empty() else [figures.fraction_figure(found)]


def _write(found: TargetSet, verdicts: Mapping[Pair, Verdict], out_dir: Path) -> list[Path]:
    tables, drawn, paths = tables_of(found), figures_of(found), ReportPaths.below(out_dir)
    pictures = figures.samples(found)
    drawings = write_figures(drawn, paths.figures)
    write_pictures(pictures, paths.figures)
    write_tables(tables, paths.tables)
    write_file(paths.report_html, _page(found, verdicts, tables, drawn, drawings, pictures).encode())
    return [paths.report_html, paths.figures, paths.tables]


def _page(
    found: TargetSet,
    verdicts: Mapping[Pair, Verdict],
    tables: Sequence[Table],
    drawn: Sequence[Figure],
    drawings: Mapping[str, str],
    pictures: Sequence[Pictures],
) -> str:
    manifest = found.results.manifest
    cells = [row.cell for row in found.rows]
    missing = missing_lines(cells, manifest["command"])
    first, *more = answers(found, verdicts)
    gap = page.paragraph(f"Incomplete: {'; '.join(name for name, _ in missing)}; see below.", "gap") if missing else ""
    charts = "".join(page.figure(i, figure, drawings[figure.name]) for i, figure in enumerate(drawn, 1))
    charts += "".join(page.picture_figure(i, shown) for i, shown in enumerate(pictures, len(drawn) + 1))
    sections = [
        ("Question", page.paragraph(manifest["question"])),
        ("Answer", page.paragraph(first, "answer") + page.bullets(more) + gap + charts),
        ("Scores", "".join(to_html(table) for table in tables)),
        ("Set-up", _setup(found)),
        ("What is missing", page.pairs(missing) if missing else page.paragraph("Nothing: every seed is here.")),
        ("Caveats", page.bullets([*caveats(found), *mixed_lines(cells)])),
        ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
    ]
    scale = manifest["facts"].get("scale", "")
    byline = " · ".join(filter(None, [f"Study {manifest['study']}", f"scale {scale}" if scale else "", found.title]))
    return page.document(f"Segmentation: {found.title}", byline, sections)


def _setup(found: TargetSet) -> str:
    facts = found.results.manifest["facts"]
    rows = card_rows(found.labels["data"], found.card)
    rows.append(("Classes", ", ".join(found.class_names) or "–"))
    rows += [(name.replace("_", " ").capitalize(), value) for name, value in facts.items()]
    details = "".join(
        page.folded(row.cell.name, page.preformatted(page.as_json(shown["configuration"])))
        for row in found.rows
        for shown in [[*row.cell.done, *(entry for entry, _ in row.cell.missing)][0]]
        if row.fraction == 1 and row.split == "val"
    )
    return page.pairs(rows) + f"<h3>Configuration of the trials (first seed)</h3>{details}"
