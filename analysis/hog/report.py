"""The report of a study of HOG and SVM: one self-contained page a data set, with figures and tables beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analysis.hog.evidence import FIELDS, ROLES, DataSet, data_sets
from analysis.hog.figures import angle_figure, hog_pictures
from analysis.hog.findings import CAVEATS, answers
from analysis.render.files import file_name
from analysis.render.table import Column, Table
from analysis.results import load_study
from analysis.study_page import StudyPage
from orchestrator.store import Store


def hog_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page, figures and tables of each."""
    written: list[Path] = []
    for found in data_sets(load_study(store, manifest)):
        written += _page(found).write(out_dir / file_name(found.name))
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


def _page(found: DataSet) -> StudyPage:
    cells = list(found.cells.values())
    return StudyPage(
        kind="HOG and SVM",
        subject=found.name,
        manifest=found.results.manifest,
        data=found.name,
        card=found.card,
        cells=cells,
        answers=answers(found),
        parts=[*([angle_figure(found)] if found.accuracies else []), *hog_pictures(found)],
        tables_title="Accuracy",
        tables=[accuracy_table(found)],
        caveats=CAVEATS,
        configured=cells,
        seed="draw",
    )
