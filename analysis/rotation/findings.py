"""What is seen of the 90° wave, in plain sentences: each from the numbers of the tables, and from nothing else.

They describe; what may be said of training stands in the verdict (``analysis.pages.findings``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis import paired
from analysis.curves.panels import FIXED_MAP, TRAINED, UNTRAINED
from analysis.curves.words import CONTROL_WORDS, UNLEARNT, Estimate, listed, percent, shares, with_interval
from analysis.render.table import number
from analysis.rotation import statistics
from analysis.rotation.fitted import FittedPanel
from analysis.rotation.statistics import is_none, look_up
from trainables.api.names import BINARISATION, FIELD_OF_VIEW

_SPIKE_WORDS = {
    "peak": "the curve jumps up",
    "dip": "the curve drops",
    "neither": "the curve neither clearly jumps up nor drops",
}


@dataclass(frozen=True, eq=False)
class WaveEvidence:
    """The tidy frames of ``analysis.rotation.statistics`` that the sentences are read from."""

    coefficients: pl.DataFrame
    explained: pl.DataFrame
    extrema: pl.DataFrame
    binarisation: str

    @classmethod
    def of(cls, panels: Sequence[FittedPanel], binarisation: str) -> WaveEvidence:
        return cls(
            statistics.coefficients(panels), statistics.explained(panels), statistics.extrema(panels), binarisation
        )

    def own(self, role: str, field: str, quantity: str) -> Estimate:
        return look_up(self.coefficients, role, field, self.binarisation, quantity)

    def against(self, control: str, field: str, quantity: str) -> Estimate:
        return look_up(self.explained, control, field, self.binarisation, quantity)

    def is_told_from_none(self, role: str, field: str) -> bool:
        """Whether a role's wave has an interval that leaves out 0, and is above its null."""
        value, low, high = self.own(role, field, "amplitude")
        if value is None or low is None or high is None:
            return False
        return not is_none(paired.Estimate(value, low, high), self.own(role, field, "amplitude_null")[0])


def wave_sentences(evidence: WaveEvidence, field: str) -> list[str]:
    """What one field of view shows of the trained encoders' wave, one finding a sentence."""
    makers = (wave_sentence, sizes_sentence, spike_sentence, _control_sentence, _left_sentence)
    return [sentence for make in makers if (sentence := make(evidence, field))]


def wave_sentence(evidence: WaveEvidence, field: str) -> str:
    """How large the trained encoders' wave is, whether it can be told from none, and where it is largest."""
    amplitude = evidence.own(TRAINED, field, "amplitude")
    value, low, _ = amplitude
    if value is None:
        return "The grid of angles is too coarse to separate a smooth 90° wave from the exact multiples of 90°."
    share = evidence.own(TRAINED, field, "share_fundamental")[0]
    text = f"Between the exact multiples of 90° its smooth 90° wave has the amplitude {with_interval(amplitude)}"
    if share is not None:
        text += f" and makes up {percent(share)} of the curve's variance there"
    if low is None:
        return text + "; there are too few independent blocks of images for an interval."
    if not evidence.is_told_from_none(TRAINED, field):
        return text + ", which cannot be told from none."
    return text + f", with its first maximum at {with_interval(evidence.own(TRAINED, field, 'phase_deg'), 1, '°')}."


def sizes_sentence(evidence: WaveEvidence, field: str) -> str:
    """How large both waves are, where the untrained one peaks if it is one, and nothing on their order: that is the
    verdict's."""
    trained, untrained = (evidence.own(role, field, "amplitude")[0] for role in (TRAINED, UNTRAINED))
    if trained is None or untrained is None:
        return ""
    phase = evidence.own(UNTRAINED, field, "phase_deg")
    # The mean of noise peaks somewhere, too.
    is_wave = evidence.is_told_from_none(UNTRAINED, field)
    at = f", with its first maximum at {with_interval(phase, 1, '°')}" if is_wave and phase[0] is not None else ""
    return (
        f"The mean curve of the untrained encoders has a wave of {number(untrained, 4)}{at}; that of the trained ones "
        f"has one of {number(trained, 4)}."
    )


def spike_sentence(evidence: WaveEvidence, field: str) -> str:
    """Whether the curve jumps up or drops at the exact multiples, and which controls do so, too."""
    spike = evidence.own(TRAINED, field, "spike")
    if spike[0] is None:
        return ""
    where = "At exactly 90°, 180° and 270°, where rotation needs no interpolation,"
    if spike[1] is None:
        away = with_interval(spike, signed=True)
        return f"{where} the curve lies {away} from the wave; there are too few independent blocks for an interval."
    shape = shape_of(spike)
    text = f"{where} {_SPIKE_WORDS[shape]}: {with_interval(spike, signed=True)} against the wave"
    if shape == "neither":
        return text + "."
    same = [role for role in CONTROL_WORDS if shape_of(evidence.own(role, field, "spike")) == shape]
    if unlearnt := [CONTROL_WORDS[role] for role in same if role in UNLEARNT]:
        text += f"; so it does for {listed(unlearnt)}, which have learnt nothing"
    if FIXED_MAP in same:
        text += f"; so it does for {CONTROL_WORDS[FIXED_MAP]}, a trained encoder's"
    return text + "."


def _control_sentence(evidence: WaveEvidence, field: str) -> str:
    text = shares({control: evidence.against(control, field, "share_explained") for control in CONTROL_WORDS})
    return f"Of the trained encoders' 90° wave, the controls have at the same phase: {text}." if text else ""


def _left_sentence(evidence: WaveEvidence, field: str) -> str:
    left = evidence.against(UNTRAINED, field, "remainder")
    if left[0] is None or left[1] is None:
        return ""
    debiased = evidence.against(UNTRAINED, field, "remainder_debiased")[0]
    text = f"Of these encoders, |c trained − c untrained| over images is {with_interval(left)}"
    if debiased is not None:
        text += f" ({number(debiased, 4)} without what noise adds)"
    return text + "; other seeds may give another."


def binarisation_sentence(evidence: WaveEvidence, titles: dict[str, str]) -> str:
    """Peak or dip at the multiples, by the way of making the map binary."""
    rows = evidence.coefficients.filter(role=TRAINED, quantity="spike").drop_nulls("low")
    if rows.is_empty():
        return ""
    shapes: dict[str, list[str]] = {}
    by_field: dict[str, set[str]] = {}
    for row in rows.iter_rows(named=True):
        shape = shape_of((row["value"], row["low"], row["high"]))
        field = titles.get(row[FIELD_OF_VIEW], row[FIELD_OF_VIEW]).lower()
        by_field.setdefault(field, set()).add(shape)
        shapes.setdefault(shape, []).append(f"{row[BINARISATION]} ({field})")
    words = (("peak", "a peak"), ("dip", "a dip"), ("neither", "neither"))
    parts = [f"{text} for {listed(shapes[shape])}" for shape, text in words if shape in shapes]
    text = f"The exact multiples of 90° are {'; '.join(parts)}."
    if any({"peak", "dip"} <= found for found in by_field.values()):
        text += " Whether 90° looks best or worst is thus decided by how the map is made binary."
    return text


def shape_of(spike: Estimate) -> str:
    """``peak`` or ``dip`` where the interval leaves out 0, else ``neither``."""
    _, low, high = spike
    if low is not None and low > 0:
        return "peak"
    return "dip" if high is not None and high < 0 else "neither"
