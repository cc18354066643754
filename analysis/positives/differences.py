"""What is compared over pretrainings: paired differences of two ways, a test and an interval of each.

A pair is of one seed. BYOL and a way that chooses for it begin with the same weights and see the images in one order;
a random start shares no weights with either, but all are fine-tuned with the same labels in the same order, so that
with few labels their scores rise and fall together. Where they do not, a test of pairs is still right, and only has
the fewer degrees of freedom. Fine-tunings of one pretraining are no pairs: what differs between them is not what is
compared.

Whatever is said of one data set and share of the labels is one family: Holm's correction holds for all of it together.
Of three pretrainings and more 5 % of studies of nothing but noise say anything, also where scores are shares of a few
hundred test images, drawn anew for each pretraining (2000 simulated studies a case). Of two up to 15 % would: where
classes have almost as many images each, two differences are often almost the same, and by luck alone. What is told is
told of the test images: a way that gets the same ones wrong with every seed differs from others on these, and may not
on others (with tendencies of images that are two fifths of their noise, 20 % of such studies of five pretrainings say
something).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scipy import special

from analysis.positives.evidence import WITHOUT_LABELS, LabelledSet
from analysis.significance import LEVEL, holm
from trainables.api.names import BY_FEATURES_PRETRAINED, BY_LABEL, BY_TRACIN_PRETRAINED, BYOL_ALONE, RANDOM_START

Pair = tuple[str, str]
"""Two roles: what is better if the paper is right, and what it is better than."""

START: tuple[Pair, ...] = ((BYOL_ALONE, RANDOM_START),)
AGAINST_BYOL: tuple[Pair, ...] = tuple((role, BYOL_ALONE) for role in (*WITHOUT_LABELS, BY_LABEL))
TRACIN_AGAINST_FEATURES: tuple[Pair, ...] = ((BY_TRACIN_PRETRAINED, BY_FEATURES_PRETRAINED),)
TRACIN_AGAINST_OTHERS: tuple[Pair, ...] = tuple(
    (BY_TRACIN_PRETRAINED, role) for role in WITHOUT_LABELS if role != BY_TRACIN_PRETRAINED
)
UPPER_BOUND: tuple[Pair, ...] = tuple((BY_LABEL, role) for role in (BYOL_ALONE, *WITHOUT_LABELS))
COMPARED = tuple(dict.fromkeys((*START, *AGAINST_BYOL, *TRACIN_AGAINST_OTHERS, *UPPER_BOUND)))
MIN_PAIRS = 3
_NO_SPREAD = 1e-12  # standard deviation over size: rounding, not seeds


class Outcome(Enum):
    """What may be said of the first of a pair against the second."""

    HIGHER = "higher"
    LOWER = "lower"
    NOT_TOLD_APART = "not told apart"
    UNKNOWN = "cannot be told"


@dataclass(frozen=True)
class Difference:
    """First less second over ``n`` pairs of pretrainings; None for what so few do not have (``MIN_PAIRS``).

    ``low``, ``high``: the ends of its own 95 % interval. ``p``: two-sided, of Student's paired test; ``p_adjusted``:
    after Holm over the family. ``std``: of the differences of the pairs.
    """

    first: str
    second: str
    n: int
    value: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None

    @property
    def outcome(self) -> Outcome:
        if self.p_adjusted is None or self.value is None:
            return Outcome.UNKNOWN
        if self.p_adjusted >= LEVEL:
            return Outcome.NOT_TOLD_APART
        return Outcome.HIGHER if self.value > 0 else Outcome.LOWER

    @property
    def why(self) -> str:
        """Why it cannot be told."""
        if self.n == 0:
            return "no pretraining of one seed is finished on both sides"
        if self.n < MIN_PAIRS:
            return "one pretraining" if self.n == 1 else f"{self.n} pretrainings, and a test takes {MIN_PAIRS}"
        return f"the difference is the same in all {self.n} pretrainings"


def differences(found: LabelledSet, fraction: float) -> list[Difference]:
    """All pairs of which both rows are in the study, at one share of the labels.

    Pairs that are planned and not finished count in Holm's correction, so that an interim report says nothing that the
    final one takes back for their number alone.
    """
    pairs = [pair for pair in COMPARED if all(found.row(role, fraction) for role in pair)]
    untested = [_difference(found, pair, fraction) for pair in pairs]
    adjusted = holm([difference.p for difference in untested], num_planned(found, fraction))
    return [replace(difference, p_adjusted=p) for difference, p in zip(untested, adjusted, strict=True)]


def num_planned(found: LabelledSet, fraction: float) -> int:
    """How many tests the study has asked for: pairs of rows with enough pretrainings of the same seeds."""
    seeds = {row.role: row.pretrain_seeds for row in found.rows if row.fraction == fraction}
    return sum(len(seeds.get(first, set()) & seeds.get(second, set())) >= MIN_PAIRS for first, second in COMPARED)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[int, float, float | None, float | None]:
    """n, mean, standard deviation, and two-sided p of Student's paired test, over the seeds that both have.

    Raises ValueError where there is no such seed. No p from fewer than ``MIN_PAIRS``, or where all are the same.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise ValueError(f"no seed is in both {sorted(first)} and {sorted(second)}")
    of_pairs = [first[seed] - second[seed] for seed in seeds]
    num, mean = len(of_pairs), statistics.fmean(of_pairs)
    if num < 2:
        return num, mean, None, None
    std = statistics.stdev(of_pairs, mean)
    if num < MIN_PAIRS or std <= _NO_SPREAD * max(map(abs, (*first.values(), *second.values()))):
        return num, mean, std, None
    return num, mean, std, float(2 * special.stdtr(num - 1, -abs(mean) * math.sqrt(num) / std))


def least_difference(num_pairs: int, num_tests: int) -> float:
    """In standard deviations of the difference of a pair, the mean difference of so many pairs that the strictest of so
    many tests calls one."""
    return float(special.stdtrit(num_pairs - 1, 1 - LEVEL / num_tests / 2)) / math.sqrt(num_pairs)


def of_pairs(differences: Sequence[Difference], pairs: Sequence[Pair]) -> list[Difference]:
    """Those of these pairs."""
    return [difference for difference in differences if (difference.first, difference.second) in pairs]


def _difference(found: LabelledSet, pair: Pair, fraction: float) -> Difference:
    rows = [row for role in pair if (row := found.row(role, fraction))]
    first, second = (row.of_pretrainings(found.tested) for row in rows)
    if not first.keys() & second.keys():
        return Difference(*pair, 0)
    num, mean, std, p = paired(first, second)
    if std is None or p is None:
        return Difference(*pair, num, mean, std)
    radius = least_difference(num, 1) * std
    return Difference(*pair, num, mean, std, mean - radius, mean + radius, p)
