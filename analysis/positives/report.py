"""The report of a study of additional positives: Table 1 of BYOL-TracIn from our numbers, a page a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from analysis.positives.evidence import ROLES, LabelledSet, labelled_sets, mean_std
from analysis.published.positives import TABLE_1, published_score
from analysis.render.files import file_name
from analysis.render.table import Column, Table
from analysis.results import load_study
from analysis.study_page import StudyPage
from orchestrator.store import Store

_TITLES = {"test/bma": "balanced accuracy", "test/auc": "mean AUC"}


def positives_report(store: Store, manifest: dict[str, Any], out_dir: Path) -> Sequence[Path]:
    """Write the page of every data set of the study; returns page and tables of each."""
    written: list[Path] = []
    for found in labelled_sets(load_study(store, manifest)):
        written += _page(found).write(out_dir / file_name(found.data))
    return written


def _page(found: LabelledSet) -> StudyPage:
    return StudyPage(
        kind="Additional positives",
        subject=found.data,
        manifest=found.results.manifest,
        data=found.data,
        card=found.card,
        cells=[row.cell for row in found.rows],
        answers=answers(found),
        parts=[],
        tables_title="Scores",
        tables=[score_table(found), pretraining_table(found)],
        setup=[("Score", _TITLES[found.metric])],
        caveats=caveats(found),
        configured=[row.cell for row in found.rows if row.fraction == max(found.fractions)],
    )


def answers(found: LabelledSet) -> list[str]:
    """What the numbers are, share by share; which way is better is not said, as nothing here tests it."""
    sentences = []
    for fraction in reversed(found.fractions):
        scores = {
            role: mean_std(row.of_fine_tunings(found.metric)) for role in ROLES if (row := found.row(role, fraction))
        }
        known = {role: mean for role, (mean, _) in scores.items() if mean is not None}
        if not known:
            continue
        best = max(known, key=lambda role: known[role])
        text = f"With {100 * fraction:.4g} % of the labels the highest {_TITLES[found.metric]} is that of {best}, "
        sentences.append(f"{text}{known[best]:.3f}, and the lowest {min(known.values()):.3f}.")
    rule = (
        "Fine-tunings of one pretraining differ in the fine-tuning alone: that one way is better than another does not "
        "follow from them, and is not said."
    )
    return [rule, *sentences] if sentences else ["No fine-tuning is finished yet.", rule]


def score_table(found: LabelledSet) -> Table:
    """As in the paper: mean(std) over the fine-tunings of the first pretraining, the published mean beside it.

    Columns of the frame: way; for each share of the labels, as a percentage, ``P``, ``P std``, ``P n`` and, of the data
    sets of the paper, ``P published``.
    """
    percents = {f"{100 * fraction:.4g}": fraction for fraction in found.fractions}
    has_published = found.data in TABLE_1
    rows: list[list[Any]] = []
    schema: dict[str, Any] = {"way": pl.String}
    for percent in percents:
        schema |= {percent: pl.Float64, f"{percent} std": pl.Float64, f"{percent} n": pl.Int64}
        schema |= {f"{percent} published": pl.Float64} if has_published else {}
    for role in ROLES:
        cells: list[Any] = [role]
        for fraction in percents.values():
            row = found.row(role, fraction)
            values = row.of_fine_tunings(found.metric) if row else []
            cells += [*mean_std(values), len(values)]
            cells += [published_score(found.data, role, fraction)] if has_published else []
        rows.append(cells)
    columns = [Column("positives", "way")]
    for percent in percents:
        columns += [Column(f"{percent} % of labels", percent, std=f"{percent} std"), Column("n", f"{percent} n")]
        columns += [Column("published", f"{percent} published")] if has_published else []
    note = (
        f"{_TITLES[found.metric].capitalize()} on test images, mean(std) over n fine-tunings of the first pretraining, "
        "as in the paper. Smaller shares of the labels lie inside larger ones."
    )
    return Table("scores", f"Fine-tuned on a share of the labels: {found.data}", _frame(rows, schema), columns, note)


def pretraining_table(found: LabelledSet) -> Table:
    """What differs with the pretraining: mean(std) over pretrainings of one fine-tuning each.

    Columns of the frame: way, for each share ``P``, ``P std``, and n.
    """
    percents = {f"{100 * fraction:.4g}": fraction for fraction in found.fractions}
    schema: dict[str, Any] = {"way": pl.String}
    for percent in percents:
        schema |= {percent: pl.Float64, f"{percent} std": pl.Float64}
    rows = []
    for role in ROLES:
        of_shares = [
            row.of_pretrainings(found.metric) if (row := found.row(role, f)) else [] for f in percents.values()
        ]
        cells = [value for values in of_shares for value in mean_std(values)]
        rows.append([role, *cells, min(map(len, of_shares), default=0)])
    columns = [Column("positives", "way")]
    columns += [Column(f"{percent} % of labels", percent, std=f"{percent} std") for percent in percents]
    note = "Mean(std) over n pretrainings, each with one fine-tuning (--pretrain-seeds N)."
    frame = _frame(rows, schema | {"n": pl.Int64})
    return Table("pretrainings", f"Over pretrainings: {found.data}", frame, [*columns, Column("n", "n")], note)


def caveats(found: LabelledSet) -> list[str]:
    """What is to be kept in mind."""
    said = [
        "The choice of positives, its precision and its hubs stand in MLflow with every pretraining, epoch by epoch."
    ]
    if found.data not in TABLE_1:
        said.append(f"{found.data} is none of the paper's data sets: its numbers are not to be held against ours.")
    return said


def _frame(rows: list[list[Any]], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")
