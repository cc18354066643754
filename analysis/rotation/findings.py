"""The answer in plain sentences, each built from the numbers of the tables and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from analysis.render.table import number
from analysis.rotation.panels import FIXED_MAP, INTENSITY, MASK_CEILING, TRAINED, UNTRAINED_MEAN, missing_curves
from analysis.statistics import Verdict, look_up, verdict

_CONTROL_WORDS = {
    UNTRAINED_MEAN: "untrained encoders (mean of the seeds)",
    FIXED_MAP: "the round trip of a fixed map",
    MASK_CEILING: "the round trip of the mask itself",
    INTENSITY: "image intensity as the map",
}
_FIELD_WORDS = {"full": "in the full field of view", "circle": "inside the inscribed circle"}
_SPIKE_WORDS = {
    "peak": "the curve jumps up",
    "dip": "the curve drops",
    "neither": "the curve neither clearly jumps up nor drops",
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The tidy frames of ``analysis.statistics`` that the sentences are read from."""

    curves: pl.DataFrame
    coefficients: pl.DataFrame
    explained: pl.DataFrame
    levels: pl.DataFrame
    extrema: pl.DataFrame
    binarisation: str

    def own(self, curve: str, field: str, quantity: str) -> tuple[float | None, float | None, float | None]:
        return look_up(self.coefficients, curve, field, self.binarisation, quantity)

    def against(self, control: str, field: str, quantity: str) -> tuple[float | None, float | None, float | None]:
        return look_up(self.explained, control, field, self.binarisation, quantity)

    def fields(self) -> list[str]:
        """Fields of view that were measured, the full one first."""
        present = set() if self.curves.is_empty() else set(self.curves["field_of_view"].unique())
        return [field for field in _FIELD_WORDS if field in present]


def headline(evidence: Evidence) -> str:
    """The answer in one or two sentences, for every field of view."""
    if not evidence.fields():
        return "No curve has been measured yet, so there is no answer."
    verdicts = {
        field: verdict(evidence.coefficients, evidence.explained, field, evidence.binarisation)
        for field in evidence.fields()
    }
    first, *others = verdicts
    text = _headline_of(evidence, first, verdicts[first])
    for field in others:
        if verdicts[field] == verdicts[first]:
            text += f" The same holds {_FIELD_WORDS[field]}."
        else:
            other = _uncapital(_headline_of(evidence, field, verdicts[field]))
            text += f" {_capital(_FIELD_WORDS[field])} the answer differs: {other}"
    return text


def _headline_of(evidence: Evidence, field: str, answer: Verdict) -> str:
    if answer == "unknown":
        return (
            f"{_capital(_FIELD_WORDS[field])} the question cannot be answered from what is there: "
            f"{_why_unknown(evidence, field)}."
        )
    if answer == "no trained wave":
        return (
            "The trained encoder's curve has no smooth 90° wave that its images agree on, and it cannot be told from "
            "the untrained encoders' curve."
        )
    if answer == "nothing":
        return (
            "Nothing distinguishable is left to training: between the exact multiples of 90°, the trained encoder's "
            "90° wave cannot be told from that of untrained encoders."
        )
    distance = _with_interval(evidence.against(UNTRAINED_MEAN, field, "remainder"))
    if answer == "within seeds":
        return (
            f"The trained encoder's 90° wave differs from the untrained mean by {distance}, but one untrained seed "
            "lies as far from the others: this may be the luck of a seed."
        )
    difference = f"it differs from that of untrained encoders by {distance}{_direction(evidence, field)}"
    return f"Training changes the 90° wave: {difference}."


def _direction(evidence: Evidence, field: str) -> str:
    """Whether the trained wave is the larger or the smaller one."""
    own, own_low, _ = evidence.own(TRAINED, field, "amplitude")
    untrained, _, _ = evidence.own(UNTRAINED_MEAN, field, "amplitude")
    if own is None or untrained is None:
        return ""
    if own_low == 0:
        return (
            ", and the trained wave itself cannot be told from none: training takes the wave away rather than making it"
        )
    comparison = "larger" if own > untrained else "smaller"
    return f", the trained wave being {comparison} ({number(own, 4)} against {number(untrained, 4)})"


def _why_unknown(evidence: Evidence, field: str) -> str:
    missing = missing_curves(evidence.curves)
    if TRAINED in missing:
        return "the curve of the trained encoder is missing"
    if evidence.own(TRAINED, field, "amplitude")[0] is None:
        return "the grid of angles is too coarse to fit a 90° wave between the exact multiples"
    if all(f"untrained seed {seed}" in missing for seed in range(3)):
        return "no untrained encoder was measured"
    return "there are too few independent blocks of images for intervals (three at least)"


def sentences(evidence: Evidence) -> dict[str, list[str]]:
    """Heading -> what was found, one finding a sentence; leaves out what was not measured."""
    found: dict[str, list[str]] = {}
    if evidence.curves.is_empty() or TRAINED not in evidence.curves["curve"]:
        return found
    makers = (_level_sentence, _wave_sentence, _spike_sentence, _control_sentence, _left_sentence)
    for field in evidence.fields():
        heading = f"{_capital(_FIELD_WORDS[field])}, maps made binary by {evidence.binarisation}"
        found[heading] = [sentence for make in makers if (sentence := make(evidence, field))]
    found["Peak or dip"] = [_binarisation_sentence(evidence)]
    return {heading: lines for heading, lines in found.items() if any(lines)}


def _level_sentence(evidence: Evidence, field: str) -> str:
    rows = evidence.levels.filter(curve=TRAINED, field_of_view=field, binarisation=evidence.binarisation)
    if rows.is_empty():
        return ""
    row = rows.row(0, named=True)
    return (
        f"The trained encoder's mean Dice over {row['n']} images lies between {number(row['min'], 3)} (at "
        f"{row['min_deg']:g}°) and {number(row['max'], 3)} (at {row['max_deg']:g}°); chance for maps of this size is "
        f"{number(row['chance_dice'], 3)}, a map of ones everywhere has {number(row['all_ones_dice'], 3)}."
    )


def _wave_sentence(evidence: Evidence, field: str) -> str:
    amplitude = evidence.own(TRAINED, field, "amplitude")
    value, low, _ = amplitude
    if value is None:
        return "The grid of angles is too coarse to separate a smooth 90° wave from the exact multiples of 90°."
    share = evidence.own(TRAINED, field, "share_fundamental")[0]
    null = evidence.own(TRAINED, field, "amplitude_null")[0]
    text = f"Between the exact multiples of 90° its smooth 90° wave has the amplitude {_with_interval(amplitude)}"
    if share is not None:
        text += f" and makes up {share:.0%} of the curve's variance there".replace("%", " %")
    if low is None:
        return text + "; there are too few independent blocks of images for an interval."
    if low == 0 or (null is not None and value <= null):
        return text + ", which cannot be told from none."
    return text + f", with its first maximum at {_with_interval(evidence.own(TRAINED, field, 'phase_deg'), 1, '°')}."


def _spike_sentence(evidence: Evidence, field: str) -> str:
    spike = evidence.own(TRAINED, field, "spike")
    if spike[0] is None:
        return ""
    shape = _shape_of(spike)
    words = _SPIKE_WORDS[shape]
    text = (
        f"At exactly 90°, 180° and 270°, where rotation needs no interpolation, {words}: "
        f"{_with_interval(spike, signed=True)} against the wave"
    )
    same = [_CONTROL_WORDS[c] for c in _CONTROL_WORDS if _shape_of(evidence.own(c, field, "spike")) == shape]
    if shape != "neither" and same:
        text += f"; so it does for {_listed(same)}, which have learnt nothing"
    return text + "."


def _control_sentence(evidence: Evidence, field: str) -> str:
    parts = []
    for control, words in _CONTROL_WORDS.items():
        value, low, high = evidence.against(control, field, "share_explained")
        if value is None or low is None or high is None:
            continue
        parts.append(f"{words} {_percent(value)} [{_percent(low)}, {_percent(high)}]")
    if not parts:
        return ""
    return f"Of the trained encoder's 90° wave, the controls have at the same phase: {'; '.join(parts)}."


def _left_sentence(evidence: Evidence, field: str) -> str:
    left = evidence.against(UNTRAINED_MEAN, field, "remainder")
    null = evidence.against(UNTRAINED_MEAN, field, "remainder_null")[0]
    if left[0] is None or left[1] is None or null is None:
        return ""
    debiased = evidence.against(UNTRAINED_MEAN, field, "remainder_debiased")[0]
    text = f"What is left to the trained encoder, |c trained − c untrained|, is {_with_interval(left)}"
    if debiased is not None:
        text += f" ({number(debiased, 4)} without what noise adds)"
    relation = "above" if left[0] > null else "not above"
    certainty = "may be 0" if left[1] == 0 else "is not 0"
    return text + f"; it {certainty}, and is {relation} the null of {number(null, 4)}."


def _binarisation_sentence(evidence: Evidence) -> str:
    """Peak or dip at the multiples, by the way of making the map binary."""
    rows = evidence.coefficients.filter(curve=TRAINED, quantity="spike")
    if rows.is_empty():
        return ""
    parts = []
    shapes: dict[str, list[str]] = {}
    for row in rows.iter_rows(named=True):
        shape = _shape_of((row["value"], row["low"], row["high"]))
        shapes.setdefault(shape, []).append(f"{row['binarisation']} ({row['field_of_view']})")
    for shape, words in (("peak", "a peak"), ("dip", "a dip"), ("neither", "neither")):
        if shape in shapes:
            parts.append(f"{words} for {_listed(shapes[shape])}")
    text = f"The exact multiples of 90° are {'; '.join(parts)}."
    if "peak" in shapes and "dip" in shapes:
        text += " Whether 90° looks best or worst is thus decided by how the map is made binary."
    return text


def _shape_of(spike: tuple[float | None, float | None, float | None]) -> str:
    _, low, high = spike
    if low is not None and low > 0:
        return "peak"
    return "dip" if high is not None and high < 0 else "neither"


def _with_interval(
    values: tuple[float | None, float | None, float | None], decimals: int = 4, unit: str = "", signed: bool = False
) -> str:
    value, low, high = values
    if value is None:
        return "undefined"
    text = number(value, decimals, signed) + unit
    if low is None or high is None:
        return text
    return f"{text} [{number(low, decimals, signed)}, {number(high, decimals, signed)}]"


def _percent(value: float) -> str:
    return f"{number(100 * value, 0)} %"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapital(text: str) -> str:
    return text[:1].lower() + text[1:]
