"""The tables of augmentation types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from analysis.augmentations.effects import Effect, SeedInterval
from analysis.augmentations.evidence import MEASURES, RegionSet, expected_front_size
from analysis.render.table import Column, Table
from analysis.significance import Verdict

_MEASURED = (
    "Use: Dice on validation images of a decoder on the encoder, the mean over the classes that an image has but the "
    "background. Interpretability: Dice of the encoder's maps with the region, mean over the angles. Anisotropy: "
    "standard deviation of that over the angles, after the mean over images; noise of the maps adds to it."
)


def arm_table(found: RegionSet) -> Table:
    """A row an arm, the most useful first.

    Columns of the frame: augmentation, role, for each of use, interpretability and anisotropy its mean over the seeds
    and ``NAME std``, front (yes or no; null without both measures and for the untrained), ``front seeds`` (in how many
    seeds), n.
    """
    front, of_seeds, points = found.front(), found.fronts_of_seeds(), found.points()
    rows = []
    for arm in found.arms:
        measured = [_mean_std(found.levels(arm.name, measure)) for measure in MEASURES]
        measured.append(_mean_std(found.anisotropy(arm.name)))
        if all(mean is None for mean, _ in measured):
            continue
        has_point = arm.name in points
        is_front = ("yes" if arm.name in front else "no") if has_point else None
        num_front = f"{sum(arm.name in names for names in of_seeds)} of {len(of_seeds)}" if has_point else None
        num = min((len(levels) for m in MEASURES if (levels := found.levels(arm.name, m))), default=0)
        rows.append([arm.name, arm.role, *(v for pair in measured for v in pair), is_front, num_front, num])
    schema: dict[str, Any] = {"augmentation": pl.String, "role": pl.String}
    for name in (*MEASURES.values(), "anisotropy"):
        schema |= {name: pl.Float64, f"{name} std": pl.Float64}
    schema |= {"front": pl.String, "front seeds": pl.String, "n": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").sort("use", descending=True, nulls_last=True)
    columns = [
        Column("augmentation", "augmentation"),
        Column("use", "use", std="use std"),
        Column("interpretability", "interpretability", std="interpretability std"),
        Column("anisotropy", "anisotropy", decimals=4, std="anisotropy std"),
        Column("on the front", "front"),
        Column("on that of a seed", "front seeds"),
        Column("n", "n"),
    ]
    note = (
        f"{_MEASURED} mean(std) over n seeds. The front: no other mean is as high in both and higher in one, over the "
        f"{len(of_seeds)} seed(s) that all have. Of {len(points)} whose measures were luck and knew nothing of one "
        f"another, {expected_front_size(len(points)):.1f} would be on it."
    )
    return Table("augmentations", f"Augmentations of the pretraining: {found.title}", frame, columns, note)


def effect_table(found: RegionSet, verdicts: Mapping[tuple[Effect, str], Verdict]) -> Table:
    """A row an effect.

    Columns of the frame: effect, what; for each of use, interpretability and anisotropy the difference with ``NAME
    low``, ``NAME high`` and ``NAME n`` (seeds); for the first two ``NAME p`` (null where nothing is tested).
    """
    rows = []
    for effect in found.effects():
        row: list[Any] = [effect.title, effect.kind]
        for measure in MEASURES:
            verdict = verdicts.get((effect, measure))
            row += _cells(found.interval(effect, partial(found.levels, measure=measure)))
            row.append(None if verdict is None else verdict.p_adjusted)
        row += _cells(found.interval(effect, found.anisotropy))
        if any(row[place] is not None for place in (2, 7, 12)):
            rows.append(row)
    schema: dict[str, Any] = {"effect": pl.String, "what": pl.String}
    columns = [Column("augmentation", "effect", width=0.2), Column("what is compared", "what", width=0.15)]
    for name in (*MEASURES.values(), "anisotropy"):
        schema |= dict.fromkeys([name, f"{name} low", f"{name} high"], pl.Float64) | {f"{name} n": pl.Int64}
        decimals = 4 if name == "anisotropy" else 3
        columns.append(Column(name, name, decimals, low=f"{name} low", high=f"{name} high", signed=True))
        columns.append(Column("n", f"{name} n"))
        if name in MEASURES.values():
            schema |= {f"{name} p": pl.Float64}
            columns.append(Column("p", f"{name} p", significant_digits=2))
    note = (
        "Differences of the means over images, each with its own 95 % interval over n seeds: Student's of pairs, as "
        "pretrainings of one seed begin with the same weights and see the images in one order; against encoders that "
        "the study did not train Welch's. p: of what the answer speaks of, after Holm over all of these in the study; "
        "it takes both sides as they come, not as pairs. An interaction is what two augmentations together do beyond "
        "the sum of what each does alone; pairs are of the strongest ranges."
    )
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("effects", f"Effects: {found.title}", frame, columns, note)


def _cells(interval: SeedInterval | None) -> list[float | int | None]:
    return [None] * 4 if interval is None else list(interval)


def _mean_std(of_seeds: Mapping[int, float]) -> tuple[float | None, float | None]:
    values = list(of_seeds.values())
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
