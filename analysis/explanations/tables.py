"""The table of explanation methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from analysis.explanations.evidence import CASCADE, CONTROL, HEADLINE, SCORES, Against, RegionSet
from analysis.render.table import Column, Table
from analysis.significance import Verdict
from trainables.api.names import AUPRC, DICE, MASK_FRACTION, POINTING_GAME, RELEVANCE_MASS, TRAINED, UNTRAINED

_TITLES = {
    AUPRC: "average precision",
    DICE: "Dice",
    POINTING_GAME: "highest pixel inside",
    RELEVANCE_MASS: "share of the map inside",
}


def method_table(found: RegionSet, verdicts: Mapping[Against, Verdict]) -> Table:
    """A row a method, the highest average precision first.

    Columns of the frame: method; for each score ``NAME`` and ``NAME std`` of trained encoders; ``untrained`` and its
    std, ``difference`` with ``low`` and ``high`` of the headline score; chance (the mask's share of the pixels),
    ``between seeds`` (rank correlation of the maps), n. A control has a row and no comparison.
    """
    schema: dict[str, Any] = {"method": pl.String}
    for score in SCORES:
        schema |= {score: pl.Float64, f"{score} std": pl.Float64}
    numbers = ("untrained", "untrained std", "difference", "low", "high", "chance")
    schema |= dict.fromkeys(numbers, pl.Float64) | {"between seeds": pl.Float64, "n": pl.Int64}
    rows = [_row(found, method, TRAINED, verdicts) for method in found.methods]
    rows += [_row(found, control, CONTROL, verdicts) for control in found.controls]
    frame = pl.DataFrame(rows, schema=schema, orient="row").sort(HEADLINE, descending=True, nulls_last=True)
    columns = [Column("method", "method")]
    columns += [Column(title, score, std=f"{score} std") for score, title in _TITLES.items()]
    columns += [
        Column("average precision, untrained", "untrained", std="untrained std"),
        Column("trained less untrained", "difference", low="low", high="high", signed=True),
        Column("chance", "chance"),
        Column("rank correlation between seeds", "between seeds"),
        Column("n", "n"),
    ]
    note = (
        "Maps of the rotated image, brought back, inside the circle that all angles keep; means over angles and "
        "images, mean(std) over n seeds of trained encoders unless said otherwise. Chance: the share of these pixels "
        "that the region takes, which a map that knows nothing of it scores in average precision, in the highest pixel "
        "and in the share inside. Image itself: the image as map, no encoder. Dice: Otsu's threshold. "
    )
    note += (
        "The interval is over blocks of images, at the level that all comparisons share."
        if frame["low"].is_not_null().any()
        else "There are too few blocks of images for an interval of the difference."
    )
    return Table("methods", f"Explanation methods: {found.title}", frame, columns, note)


def cascade_table(found: RegionSet) -> Table:
    """A row a method and step of the randomisation. Columns of the frame: method, encoder, step (0: trained), auprc and
    its std, correlation (with the trained encoder's maps), n."""
    rows = []
    for method in found.methods:
        for step, role in enumerate(CASCADE):
            mean = found.mean(method, role, HEADLINE)
            if mean is not None:
                correlation = 1.0 if role == TRAINED else found.map_correlation(method, role)
                rows.append([method, role, step, *mean, correlation, found.cells[method, role].n])
    schema = {"method": pl.String, "encoder": pl.String, "step": pl.Int64, HEADLINE: pl.Float64,
              f"{HEADLINE} std": pl.Float64, "correlation": pl.Float64, "n": pl.Int64}  # fmt: skip
    columns = [
        Column("method", "method"),
        Column("encoder", "encoder"),
        Column("average precision", HEADLINE, std=f"{HEADLINE} std"),
        Column("rank correlation with the trained encoder's maps", "correlation"),
        Column("n", "n"),
    ]
    note = (
        "Layers get fresh weights from the output down (Adebayo et al. 2018); the last step is the untrained encoder."
    )
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Table("cascade", f"Cascading randomisation: {found.title}", frame, columns, note)


def _row(found: RegionSet, method: str, role: str, verdicts: Mapping[Against, Verdict]) -> list[Any]:
    scores: list[float | None] = []
    for score in SCORES:
        scores += found.mean(method, role, score) or (None, None)
    untrained = found.mean(method, UNTRAINED, HEADLINE) or (None, None)
    verdict = verdicts.get(Against((method, TRAINED), (method, UNTRAINED)))
    difference = verdict.difference if verdict is not None and isinstance(verdict.difference, float) else None
    ends: list[float | None] = [None, None]
    if verdict is not None and verdict.interval is not None and difference is not None:
        ends = [difference - verdict.interval.radius, difference + verdict.interval.radius]
    chance = found.mean(method, role, MASK_FRACTION) or (None, None)
    num = found.cells[method, role].n if (method, role) in found.cells else 0
    between = found.correlation_between_seeds(method)
    return [method.replace("_", " "), *scores, *untrained, difference, *ends, chance[0], between, num]
