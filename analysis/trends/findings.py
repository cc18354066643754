"""What is seen of a trend, in plain sentences; they describe, the verdict judges."""

from __future__ import annotations

import polars as pl

from analysis.curves.panels import TRAINED
from analysis.curves.sweep import SweepFacts
from analysis.curves.words import CONTROL_WORDS, percent, shares, with_interval
from analysis.trends.statistics import look_up


def trend_sentences(trends: pl.DataFrame, sweep: SweepFacts, field: str, binarisation: str) -> list[str]:
    """What one field of view shows of the trained encoders' curve, one finding a sentence."""
    where = (field, binarisation)
    makers = (_slope_sentence, _monotone_sentence, _leaving_sentence, _control_sentence)
    return [sentence for make in makers if (sentence := make(trends, sweep, where))]


def _slope_sentence(trends: pl.DataFrame, sweep: SweepFacts, where: tuple[str, str]) -> str:
    slope = look_up(trends, TRAINED, *where, "slope")
    value, low, high = slope
    if value is None:
        return ""
    text = f"Over the {sweep.title} its Dice changes by {with_interval(slope, signed=True)} per unit"
    if low is None or high is None:
        return text + "; there are too few independent blocks of images for an interval."
    if low <= 0 <= high:
        return text + ", a slope that cannot be told from none."
    return text + f": it {'rises' if value > 0 else 'falls'}."


def _monotone_sentence(trends: pl.DataFrame, sweep: SweepFacts, where: tuple[str, str]) -> str:
    share, null = (look_up(trends, TRAINED, *where, name)[0] for name in ("monotone_share", "monotone_null"))
    if share is None or null is None:
        return ""
    relation = "more than" if share > null else "no more than"
    return (
        f"{percent(share)} of its variance over the axis is monotone, {relation} images that agree on nothing would "
        "show "
        f"({percent(null)})."
    )


def _leaving_sentence(trends: pl.DataFrame, sweep: SweepFacts, where: tuple[str, str]) -> str:
    parts = []
    for side in ("below", "above"):
        rows = trends.filter(role=TRAINED, field_of_view=where[0], binarisation=where[1], quantity=f"leaves_{side}")
        if rows.is_empty():
            continue
        value = rows["value"].item()
        beyond = f"{side} {sweep.text(sweep.neutral)}"
        if value is None:
            parts.append(f"{beyond} it never surely leaves its level at the start")
        else:
            parts.append(f"{beyond} it leaves its level at the start from {sweep.text(value)} on")
    return f"Going away from the unchanged image, {'; '.join(parts)}." if parts else ""


def _control_sentence(trends: pl.DataFrame, sweep: SweepFacts, where: tuple[str, str]) -> str:
    text = shares({control: look_up(trends, control, *where, "share_explained") for control in CONTROL_WORDS})
    return f"Of the trained encoders' slope, the controls have: {text}." if text else ""
