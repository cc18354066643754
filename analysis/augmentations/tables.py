"""The tables of augmentation types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from analysis.augmentations.evidence import MEASURES, DataSet, Effect, seed_interval
from analysis.render.table import Column, Table
from analysis.significance import Verdict
from trainables.api.names import OF_MAPS, OF_USE

TITLES = {OF_USE: "Dice of a decoder on the encoder", OF_MAPS: "Dice of the encoder's maps"}
_MEASURED = (
    "Use: Dice on validation images of a decoder on the encoder, the mean over the classes that an image has but the "
    "background. Interpretability: Dice of the encoder's maps with the region, mean over the angles. Anisotropy: "
    "standard deviation of that over the angles, after the mean over images; noise of the maps adds to it."
)


def arm_table(found: DataSet) -> Table:
    """A row an arm, the most useful first.

    Columns of the frame: augmentation, role, for each of use, interpretability and anisotropy its mean over the seeds
    and ``NAME std``, front (yes or no; null without both measures and for the untrained), ``front seeds`` (in how many
    seeds), n.
    """
    front, of_seeds = found.front(), found.fronts_of_seeds()
    rows = []
    for arm in found.arms:
        measured = [_mean_std(found.levels(arm.name, measure)) for measure in MEASURES]
        measured.append(_mean_std(found.anisotropy(arm.name)))
        if all(mean is None for mean, _ in measured):
            continue
        has_point = arm.name in found.points()
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
        f"{_MEASURED} mean(std) over n seeds. The front: no other mean is as high in both and higher in one. Of as "
        f"many alike ones, {expected_front_size(len(found.points())):.1f} would be on it by luck."
    )
    return Table("augmentations", f"Augmentations of the pretraining: {found.name}", frame, columns, note)


def effect_table(found: DataSet, verdicts: Mapping[tuple[Effect, str], Verdict]) -> Table:
    """A row an effect.

    Columns of the frame: effect, what; for each of use, interpretability and anisotropy the mean of the differences of
    the seeds with ``NAME low`` and ``NAME high``; for the first two ``NAME p`` (null where nothing is tested); n.
    """
    rows = []
    for effect in found.effects():
        row: list[Any] = [effect.title, effect.kind]
        counts = []
        for measure in MEASURES:
            differences = found.differences(effect, lambda name, m=measure: found.levels(name, m))  # type: ignore[misc]
            verdict = verdicts.get((effect, measure))
            p = None if verdict is None or verdict.p_adjusted is None else verdict.p_adjusted
            row += [*(seed_interval(differences) if differences else (None, None, None)), p]
            counts.append(len(differences))
        differences = found.differences(effect, found.anisotropy)
        row += [*(seed_interval(differences) if differences else (None, None, None)), min(counts)]
        if max(counts):
            rows.append(row)
    schema: dict[str, Any] = {"effect": pl.String, "what": pl.String}
    for name in MEASURES.values():
        schema |= dict.fromkeys([name, f"{name} low", f"{name} high", f"{name} p"], pl.Float64)
    schema |= dict.fromkeys(["anisotropy", "anisotropy low", "anisotropy high"], pl.Float64) | {"n": pl.Int64}
    columns = [Column("augmentation", "effect", width=0.2), Column("what is compared", "what", width=0.2)]
    for name in MEASURES.values():
        columns += [Column(name, name, low=f"{name} low", high=f"{name} high", signed=True), Column("p", f"{name} p")]
    low, high = "anisotropy low", "anisotropy high"
    columns += [Column("anisotropy", "anisotropy", decimals=4, low=low, high=high, signed=True), Column("n", "n")]
    note = (
        "Differences of the means over images, with Student's 95 % interval over n seeds (each by itself; seeds are "
        "pairs, which begin with the same weights and see the images in the same order). p: the test over seeds of "
        "what the answer speaks of, after Holm over all of these in the study. An interaction is what two "
        "augmentations together do beyond the sum of what each does alone."
    )
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("effects", f"Main effects and interactions: {found.name}", frame, columns, note)


def expected_front_size(num: int) -> float:
    """How many of so many points are on the front of two measures that know nothing of one another."""
    return sum(1 / rank for rank in range(1, num + 1))


def _mean_std(of_seeds: Mapping[int, float]) -> tuple[float | None, float | None]:
    values = list(of_seeds.values())
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
