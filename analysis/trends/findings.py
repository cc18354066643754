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
    """Every curve has a monotone part; the share alone beats its null too often in noise from few blocks.

    The null has the shapes of M - 1 directions only: noise exceeds its 95 % quantile in 20 to 30 % of cases from
    3 blocks, 9 to 13 % from 8, and no quantile mends that. So a slope whose interval leaves out 0 is asked for as well.
    """
    share, null = (look_up(trends, TRAINED, *where, name)[0] for name in ("monotone_share", "monotone_null"))
    _, low, high = look_up(trends, TRAINED, *where, "slope")
    if share is None or null is None or low is None or high is None:
        return ""
    text = f"{percent(share)} of its variance over the axis is monotone, "
    if share > null and not low <= 0 <= high:
        return text + f"more than images that agree on nothing would show ({percent(null)})."
    return text + "which images that agree on nothing may show as well."


def _leaving_sentence(trends: pl.DataFrame, sweep: SweepFacts, where: tuple[str, str]) -> str:
    parts = []
    for side in ("below", "above"):
        rows = trends.filter(role=TRAINED, field_of_view=where[0], binarisation=where[1], quantity=f"leaves_{side}")
        if rows.is_empty():  # no value on this side, or no band to leave
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
