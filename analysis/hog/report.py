"""The report of a study of HOG and SVM: one self-contained page a data set, with figures and tables beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analysis.cards import card_rows
from analysis.cells import missing_lines, mixed_lines
from analysis.hog.evidence import FIELDS, ROLES, DataSet, data_sets
from analysis.hog.figures import angle_figure, hog_pictures
from analysis.hog.findings import answers, caveats
from analysis.render import page
from analysis.render.files import ReportPaths, file_name, write_figures, write_file, write_pictures, write_tables
from analysis.render.table import Column, Table, to_html
from analysis.results import load_study
from orchestrator.store import Store


def hog_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page, figures and tables of each."""
    written: list[Path] = []
    for found in data_sets(load_study(store, manifest)):
        written += _write(found, out_dir / file_name(found.name))
    return written


def accuracy_table(found: DataSet) -> Table:
    """A row an arm. Columns of the frame: what, field, mean, least, at, largest (over the angles but 0 and 360),
    images, draws."""
    rows = []
    for field in FIELDS:
        for role in ROLES:
            accuracy = found.accuracies.get((role, field))
            if accuracy is not None:
                keep = accuracy.is_changed_V.astype(bool)
                mean_V, values_V = accuracy.mean_V[keep], accuracy.values_V[keep]
                numbers = [
                    float(mean_V.mean()),
                    float(mean_V.min()),
                    float(values_V[mean_V.argmin()]),
                    float(mean_V.max()),
                ]
                rows.append([role, field, *numbers, len(accuracy.groups), accuracy.num_draws])
    schema = {"what": pl.String, "field": pl.String, "mean": pl.Float64, "least": pl.Float64, "at": pl.Float64,
              "largest": pl.Float64, "images": pl.Int64, "draws": pl.Int64}  # fmt: skip
    columns = [
        Column("told from unrotated", "what"), Column("pixels", "field"), Column("mean accuracy", "mean"),
        Column("least", "least"), Column("at", "at", significant_digits=3, unit="°"), Column("largest", "largest"),
        Column("images", "images"), Column("draws of the folds", "draws"),
    ]  # fmt: skip
    note = "Over the angles but 0° and 360°, at which both versions of an image are the same. Chance is 0.5."
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("accuracy", f"Accuracy over the angles: {found.name}", frame, columns, note)


def _write(found: DataSet, out_dir: Path) -> list[Path]:
    paths, manifest = ReportPaths.below(out_dir), found.results.manifest
    drawn, table = [angle_figure(found)] if found.accuracies else [], accuracy_table(found)
    drawings = write_figures(drawn, paths.figures)
    pictures = hog_pictures(found)
    write_pictures(pictures, paths.figures)
    write_tables([table], paths.tables)
    cells = list(found.cells.values())
    missing = missing_lines(cells, manifest["command"])
    gap = page.paragraph(f"Incomplete: {'; '.join(name for name, _ in missing)}; see below.", "gap") if missing else ""
    first, *more = answers(found)
    charts = "".join(page.figure(i, each, drawings[each.name]) for i, each in enumerate(drawn, 1))
    charts += "".join(page.picture_figure(i, each) for i, each in enumerate(pictures, len(drawn) + 1))
    facts = manifest["facts"]
    rows = card_rows(found.name, found.card)
    rows += [(name.replace("_", " ").capitalize(), value) for name, value in facts.items()]
    details = "".join(
        page.folded(cell.name, page.preformatted(page.as_json(shown["configuration"])))
        for cell in cells
        for shown in [[*cell.done, *(entry for entry, _ in cell.missing)][0]]
    )
    setup = page.pairs(rows) + f"<h3>Configuration of the trials (first draw)</h3>{details}"
    sections = [
        ("Question", page.paragraph(manifest["question"])),
        ("Answer", page.paragraph(first, "answer") + page.bullets(more) + gap + charts),
        ("Accuracy", to_html(table)),
        ("Set-up", setup),
        ("What is missing", page.pairs(missing) if missing else page.paragraph("Nothing: every draw is here.")),
        ("Caveats", page.bullets([*caveats(found), *mixed_lines(cells)])),
        ("How to reproduce", page.reproduction([manifest["command"]], manifest["provenance"])),
    ]
    scale = facts.get("scale", "")
    byline = " · ".join(filter(None, [f"Study {manifest['study']}", f"scale {scale}" if scale else "", found.name]))
    write_file(paths.report_html, page.document(f"HOG and SVM: {found.name}", byline, sections).encode())
    return [paths.report_html, paths.figures, paths.tables]
