"""What a study of HOG and SVM says, in sentences."""

from __future__ import annotations

import numpy as np

from analysis.hog.coincidence import LEVEL, Coincidence
from analysis.hog.evidence import Accuracy, DataSet
from analysis.render.table import number
from trainables.api.names import FULL_FIELD, IN_CIRCLE, ROTATED, ROUND_TRIP

_QUARTERS_DEG = (90.0, 180.0, 270.0)
_HIGH = 0.9


def answers(found: DataSet) -> list[str]:
    """How well rotations are told, what of it is side effects, what happens at quarter turns; and whether extrema
    coincide with those of the Dice curves."""
    rotated = found.accuracies.get((ROTATED, FULL_FIELD))
    if rotated is None:
        return ["No classifier is finished yet, so nothing can be said."]
    return [level_sentence(found), *_quarter_sentences(rotated), *coincidence_sentences(found)]


def level_sentence(found: DataSet) -> str:
    """Mean accuracies over the angles, of both changes and both fields."""
    said = [f"Rotated images are told from unrotated ones with an accuracy of {_mean(found, ROTATED, FULL_FIELD)}"]
    said += (
        [f"{_mean(found, ROTATED, IN_CIRCLE)} without the corners"] if (ROTATED, IN_CIRCLE) in found.accuracies else []
    )
    text = ", and ".join(said)
    if (ROUND_TRIP, FULL_FIELD) in found.accuracies:
        text += (
            f"; images rotated and rotated back, which differ by the blur of two interpolations alone, with "
            f"{_mean(found, ROUND_TRIP, FULL_FIELD)}"
        )
        if (ROUND_TRIP, IN_CIRCLE) in found.accuracies:
            text += f" (inside the circle {_mean(found, ROUND_TRIP, IN_CIRCLE)})"
    rotated = found.accuracies[ROTATED, FULL_FIELD]
    high = rotated.values_V[(rotated.mean_V >= _HIGH) & (rotated.values_V <= 180) & rotated.is_changed_V.astype(bool)]
    ending = f" It is {_HIGH:g} or more first at {high[0]:g}°." if len(high) else f" It is below {_HIGH:g} up to 180°."
    return f"{text} (means over the angles; chance is 0.5).{ending}"


def _quarter_sentences(rotated: Accuracy) -> list[str]:
    """At quarter turns nothing is interpolated: the accuracy there beside that of the nearest other angles."""
    said = []
    for angle in _QUARTERS_DEG:
        place = np.flatnonzero(rotated.values_V == angle)
        if not len(place) or place[0] in (0, len(rotated.values_V) - 1):
            continue
        own, beside = rotated.mean_V[place[0]], rotated.mean_V[[place[0] - 1, place[0] + 1]].mean()
        said.append(f"{angle:g}°: {number(float(own), 3)} against {number(float(beside), 3)}")
    return [f"At quarter turns, against the angles beside them: {'; '.join(said)}."] if said else []


def coincidence_sentences(found: DataSet) -> list[str]:
    """One a region and field of view."""
    said = []
    for curve_set in found.curves:
        for field in (FULL_FIELD, IN_CIRCLE):
            if field == IN_CIRCLE and "kept" not in curve_set.fields:
                continue
            measured = found.coincidence(curve_set, field)
            if measured is not None:
                region = curve_set.labels["region"].replace("_", " ")
                said.append(f"{field[:1].upper()}{field[1:]}, {region}: {coincidence_sentence(measured)}")
    return said


def coincidence_sentence(measured: Coincidence) -> str:
    """Whether extrema coincide: only where that is rarer than the level among all shifts."""
    numbers = f"r = {number(measured.correlation, 2)}, p = {number(measured.p, 3)} among {measured.num_angles} shifts"
    if measured.p < LEVEL:
        word = (
            "at the same angles"
            if measured.correlation > 0
            else "at opposite angles: where one is high the other is low"
        )
        return (
            f"the extrema of the Dice curve (trained less untrained) and of the accuracy (rotated less round trip) lie "
            f"{word} ({numbers})."
        )
    if measured.least_p >= LEVEL:
        return (
            f"whether the extrema of both curves coincide cannot be shown on this grid, where p is "
            f"{number(measured.least_p, 3)} at least ({numbers}); they correlate most when the accuracy is turned by "
            f"{_turn(measured)}."
        )
    return (
        f"that the extrema of both curves coincide is not shown ({numbers}); they correlate most when the accuracy is "
        f"turned by {_turn(measured)}."
    )


def _turn(measured: Coincidence) -> str:
    return f"{measured.best_shift_deg:g}°".replace("-", "−")


def _mean(found: DataSet, role: str, field: str) -> str:
    accuracy = found.accuracies[role, field]
    return number(float(accuracy.mean_V[accuracy.is_changed_V.astype(bool)].mean()), 3)


CAVEATS = (
    "At each angle the classifier is trained anew on both versions of the same images; groups of images stay on "
    "one side of a fold, and parameters are chosen within the training part.",
    "An accuracy of the round trip above chance is interpolation that the rotated images have, too: what the "
    "classifier tells of rotation itself is at most the difference.",
    "Intervals are pointwise, over blocks of images; the several draws of the folds are averaged.",
    "The coincidence test asks how rare so strong a correlation is among all turns of one curve against the other. "
    "It does not ask whether either curve has a wave at all: the rotation study's report does.",
)
"""What keeps the numbers from meaning more."""
