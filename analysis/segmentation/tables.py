"""The tables of segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from analysis.published.segmentation import PublishedScores, published_scores
from analysis.render.table import Column, Table
from analysis.segmentation.evidence import Row, TargetSet
from trainables.api.names import CLASS_SCORES, DICE, FOREGROUND_DICE, IOU, SENSITIVITY, SPECIFICITY

_TITLES = {DICE: "Dice", IOU: "IoU", SENSITIVITY: "sensitivity", SPECIFICITY: "specificity"}
_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_RULE = (
    "Image by image and class by class, then the mean over images and over classes, the background included (thesis "
    "4.2); mean(std) over n seeds. A class that an image neither has nor is said to have counts for nothing in it, one "
    "that is said to be there and is not counts 0. Training and validation images are different images: a level apart "
    "says which are easier as well as what was learnt."
)


def score_table(found: TargetSet, roles: Sequence[str] = (), name: str = "scores", caption: str = "") -> Table:
    """With all masks: every network on training and validation data, the published numbers of the same data below ours.

    Columns of the frame: network, split, for each of dice, foreground_dice, iou, sensitivity and specificity its mean
    and ``NAME std``, and n (null for published lines).

    Args:
        roles: these networks only; all where none is given.
    """
    wanted = [row for row in found.rows if row.fraction == 1 and (not roles or row.role in roles)]
    rows = [_score_row(row) for row in wanted]
    rows += [_published_row(line) for line in published_scores(found.labels) if not roles or line.role in roles]
    frame = pl.DataFrame(rows, schema=_score_schema(), orient="row")
    columns = [Column("network", "network"), Column("images", "split")]
    columns += [Column(title, metric, decimals=4, std=f"{metric} std") for metric, title in _TITLES.items()]
    columns += [_foreground(), Column("n", "n")]
    return Table(name, caption or f"With all masks: {found.title}", frame, columns, _RULE)


def fraction_table(found: TargetSet) -> Table:
    """Every network at every share of the masks, on validation data.

    Columns of the frame: fraction, masks (least to most images over the seeds), network, dice, foreground_dice, their
    ``std``, and n.
    """
    rows = [
        [row.fraction, _range(row.num_labelled), row.role, *_pair(row, DICE), *_pair(row, FOREGROUND_DICE), row.cell.n]
        for fraction in found.fractions
        for row in found.of("val", fraction)
    ]
    schema = {"fraction": pl.Float64, "masks": pl.String, "network": pl.String, **_metric_schema(DICE),
              **_metric_schema(FOREGROUND_DICE), "n": pl.Int64}  # fmt: skip
    columns = [
        Column("share of masks", "fraction", significant_digits=3, scale=100, unit=" %"),
        Column("images with masks", "masks"),
        Column("network", "network"),
        Column("Dice", DICE, decimals=4, std=f"{DICE} std"),
        _foreground(),
        Column("n", "n"),
    ]
    note = "On validation images. " + _RULE + " Shares are whole groups, so the smallest may be more than asked for."
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("label_fractions", f"By share of the masks: {found.title}", frame, columns, note)


def class_table(found: TargetSet) -> Table:
    """With all masks, the Dice of each class on validation data: columns network, the classes with ``std``, n."""
    rows = [
        [row.role, *(value for name in found.class_names for value in _pair(row, f"{DICE}/{name}")), row.cell.n]
        for row in found.of("val", 1.0)
    ]
    schema: dict[str, Any] = {"network": pl.String}
    for name in found.class_names:
        schema |= _metric_schema(f"{DICE}/{name}")
    columns = [Column("network", "network")]
    columns += [
        Column(name.replace("_", " "), f"{DICE}/{name}", std=f"{DICE}/{name} std") for name in found.class_names
    ]
    frame = pl.DataFrame(rows, schema=schema | {"n": pl.Int64}, orient="row")
    return Table("classes", f"Dice of each class, validation: {found.title}", frame, [*columns, Column("n", "n")])


def _foreground() -> Column:
    return Column("Dice without background", FOREGROUND_DICE, decimals=4, std=f"{FOREGROUND_DICE} std")


def _score_schema() -> dict[str, Any]:
    schema: dict[str, Any] = {"network": pl.String, "split": pl.String}
    for metric in (*CLASS_SCORES, FOREGROUND_DICE):
        schema |= _metric_schema(metric)
    return schema | {"n": pl.Int64}


def _metric_schema(metric: str) -> dict[str, Any]:
    return {metric: pl.Float64, f"{metric} std": pl.Float64}


def _score_row(row: Row) -> list[Any]:
    scores = [value for metric in (*CLASS_SCORES, FOREGROUND_DICE) for value in _pair(row, metric)]
    return [row.role, _SPLITS[row.split], *scores, row.cell.n]


def _published_row(line: PublishedScores) -> list[Any]:
    scores = [value for metric in CLASS_SCORES for value in (line.scores[metric], None)]
    return [f"thesis, {line.table}: {line.role}", _SPLITS[line.split], *scores, None, None, None]


def _pair(row: Row, metric: str) -> tuple[float | None, float | None]:
    return row.mean(metric), row.std(metric)


def _range(counts: tuple[int, int] | None) -> str | None:
    if counts is None:
        return None
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} to {counts[1]}"
