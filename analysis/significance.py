"""Whether two arms of seeds differ in a number of each image: a test over seeds and an interval over people, both
needed.

Above all whether training changes a headline coefficient; a Dice of two networks is compared in the same way.

The coefficient (complex for the wave of a rotation, real for the trend of a sweep without period) is given per seed
and image. Its mean over images is one number a seed: these are tested. The difference of the seed averages
is one number an image: its block means give the interval. The test says whether another pretraining would do
the same on these images, the interval whether this would hold on other people's; neither says both.

Both levels use the same statistic, squared distance over the variance of both axes together:

    F = |difference|² / variance of the difference,    compared with F(1, f)

Where real and imaginary part vary alike, F has about (2, 2f) degrees of freedom, where only one varies exactly
(1, f). Box (1954, Ann. Math. Stat. 25) bounds them by (1, f) whatever the ellipse: conservative for round spreads,
exact for real coefficients, where F is the square of Student's t.

Shapes: S seeds, N images, M blocks.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.arrays import Complexes, Floats
from analysis.blocks import MIN_BLOCKS, Blocks, choose_blocks
from analysis.render.table import number
from trainables.api.card import Groups

LEVEL = 0.05  # of the whole family of verdicts: Holm over the tests, Bonferroni over the intervals
_NO_SPREAD = 1e-12  # standard deviation over size: rounding, not seeds

Key = TypeVar("Key", bound=Hashable)


class Outcome(Enum):
    """What may be said of trained against untrained encoders."""

    LEARNT = "learnt"
    """Over seeds and over people: the test holds (Holm), and the interval leaves out 0."""
    NOT_TOLD_APART = "not told apart"
    """The coefficient cannot: test or interval does not hold. (Levels and shapes may differ all the same.)"""
    THIS_ENCODER = "this encoder"
    """One pretraining: no test over seeds, so the sentence is on this encoder, whose interval leaves out 0."""
    NO_INTERVAL = "no interval for others"
    """The test over seeds holds, on these images, and their own interval, if any, leaves out 0; but one volume, fewer
    than 3 patients or too few blocks carry no interval for others."""
    UNKNOWN = "unknown"
    """Something is missing; ``why`` says what."""


@dataclass(frozen=True)
class SeedTest:
    """F over seeds, its conservative degrees of freedom (1, ``freedom``), and p: how often encoders alike exceed it."""

    f: float
    freedom: float
    p: float


@dataclass(frozen=True)
class Interval:
    """A difference and the radius of its confidence region: a disc in the plane, an interval on the line."""

    value: complex | float
    radius: float
    confidence: float = 1 - LEVEL

    @property
    def leaves_out_zero(self) -> bool:
        return abs(self.value) > self.radius

    @property
    def magnitude(self) -> tuple[float, float]:
        """Least and largest size within the region; the least is 0 exactly where the region holds 0."""
        size = abs(self.value)
        return max(0.0, size - self.radius), size + self.radius


@dataclass(frozen=True, eq=False)
class Comparison:
    """Headline coefficients of trained and untrained encoders over the same images: [S, N] each, S may be 0; or those
    of any other two arms, by their ``names``.

    ``groups``: group of each image, [N], those of a group together and in order; ``kind``: what a group is. Raises
    ValueError for other shapes, no image, or values that are not finite.
    """

    trained_SN: Floats | Complexes
    untrained_SN: Floats | Complexes
    groups: Sequence[str]
    kind: Groups
    names: tuple[str, str] = ("trained encoder", "untrained encoder")

    def __post_init__(self) -> None:
        for name, values in (("trained", self.trained_SN), ("untrained", self.untrained_SN)):
            if values.ndim != 2 or values.shape[1] != len(self.groups) or not len(self.groups):
                raise ValueError(
                    f"{name} coefficients of shape {values.shape} for {len(self.groups)} images; give [seeds, images]"
                )
            if not np.isfinite(values).all():
                seed, image = np.argwhere(~np.isfinite(values))[0]
                raise ValueError(f"{name} coefficient of seed {seed}, image {image} is {values[seed, image]}")

    @property
    def differences(self) -> NDArray[np.generic]:
        """Mean over the trained seeds minus mean over the untrained ones, of each image, [N]."""
        return np.asarray(self.trained_SN.mean(axis=0) - self.untrained_SN.mean(axis=0))


@dataclass(frozen=True)
class Missing:
    """A comparison that cannot be made, and why: a curve that is not there, a grid that carries no wave."""

    why: str


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a comparison says, with the numbers that it rests on.

    ``difference``: of the seed averages, over all images; None where an arm is missing. ``test``: None without one,
    ``p_adjusted``: after Holm over the family. ``interval``: over the blocks; it speaks of others only where
    ``blocks.speak_of_others``, else of these patients or this volume alone.
    ``why``: what keeps the outcome from being more, in words.
    """

    outcome: Outcome
    num_trained: int = 0
    num_untrained: int = 0
    difference: complex | float | None = None
    test: SeedTest | None = None
    p_adjusted: float | None = None
    interval: Interval | None = None
    blocks: Blocks | None = None
    why: tuple[str, ...] = ()

    @property
    def p_text(self) -> str:
        """The adjusted p for a sentence; ``no test`` where there is none."""
        p = self.p_adjusted
        if p is None:
            return "no test"
        return "p < 0.001 after Holm" if p < 0.001 else f"p = {number(p, 3)} after Holm"

    @property
    def why_text(self) -> str:
        """``why`` for a sentence."""
        return "; ".join(self.why) or "no reason was recorded"


def seed_test(trained_S: Floats | Complexes, untrained_S: Floats | Complexes) -> SeedTest | None:
    """Test that two arms of seeds are alike: one coefficient (mean over images) a seed, real or complex.

    F = |difference of means|² / ((1/n1 + 1/n2) x pooled variance of both axes), degrees of freedom (1, n1 + n2 - 2).
    Box's bound has a reserve in the plane that spreads of 1:2 do not use up; a real coefficient has none (6 % with
    3 + 3), and unequal numbers of seeds let the pooled variance go wrong (3 + 6 with spreads of 2:1: 7 to 10 %). In
    these two cases each arm keeps its own variance (for equal numbers the same F), with Welch's and Satterthwaite's
    degrees of freedom, at most those of two arms of the smaller size.

    None with fewer than two seeds in an arm, or where seeds do not differ.
    """
    n1, n2 = len(trained_S), len(untrained_S)
    if min(n1, n2) < 2:
        return None
    parts = [float((np.abs(v - v.mean()) ** 2).sum()) / (len(v) - 1) / len(v) for v in (trained_S, untrained_S)]
    variance = sum(parts)
    size = float(max(np.abs(trained_S).max(), np.abs(untrained_S).max()))
    if math.sqrt(variance) <= _NO_SPREAD * size:
        return None
    freedom = float(2 * min(n1, n2) - 2)
    is_real = not (np.iscomplexobj(trained_S) or np.iscomplexobj(untrained_S))
    if n1 != n2 or is_real:
        freedom = min(freedom, variance**2 / (parts[0] ** 2 / (n1 - 1) + parts[1] ** 2 / (n2 - 1)))
    f = float(abs(trained_S.mean() - untrained_S.mean()) ** 2) / variance
    return SeedTest(f, freedom, float(stats.f.sf(f, 1, freedom)))


def holm(p_values: Sequence[float | None], family_size: int | None = None) -> list[float | None]:
    """Holm's step-down adjustment (1979); None stands for a comparison without test and does not count.

    ``family_size``: tests of the family, those included that are not there yet: they count as if their p were larger
    than all. Raises ValueError when there are more tests than that.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    size = len(tested) if family_size is None else family_size
    if len(tested) > size:
        raise ValueError(f"{len(tested)} tests in a family of {size}: count all that are planned")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (size - rank) * p))
        adjusted[i] = largest
    return adjusted


def block_interval(
    values_N: NDArray[np.generic], block_of_N: NDArray[np.int64], confidence: float = 1 - LEVEL
) -> Interval | None:
    """Confidence region of the mean over images from the means of its M blocks; None from fewer than 3.

    Radius² = F(1, M - 1) x variance of the mean on both axes, M/(M-1) Σ w² |block mean - mean|², w the block's
    share of the images. A disc, where an ellipse would need the F(2, M - 2) of Hotelling: 199 times from 3 blocks.
    """
    sizes_M = np.bincount(block_of_N)
    num_blocks = len(sizes_M)
    if num_blocks < MIN_BLOCKS:
        return None
    sums_M = np.bincount(block_of_N, np.real(values_N)) + 1j * np.bincount(block_of_N, np.imag(values_N))
    centre = values_N.mean()
    away_M = (sums_M - sizes_M * centre) / len(values_N)
    variance = float((np.abs(away_M) ** 2).sum()) * num_blocks / (num_blocks - 1)
    radius = math.sqrt(float(stats.f.ppf(confidence, 1, num_blocks - 1)) * variance)
    return Interval(centre.item(), radius, confidence)


def verdicts(
    comparisons: Mapping[Key, Comparison | Missing], family_size: int | None = None, num_intervals: int | None = None
) -> dict[Key, Verdict]:
    """The verdict of each comparison of one family: all data sets and sweeps on which a report says "learnt".

    Images that agree by chance are a false alarm of the intervals as seeds are one of the tests: of 8 data sets one
    would have an interval of 95 % without 0 in a third of all studies. So each has the level ``LEVEL`` over their
    number.

    Args:
        family_size: how many tests are planned; those that are not there yet count in Holm's correction, so that an
            interim report says nothing that the final one takes back for their number alone. None: these are all.
        num_intervals: how many intervals are planned, in the same way.

    Raises:
        ValueError: there are more than planned.
    """
    there = [c for c in comparisons.values() if isinstance(c, Comparison)]
    num_there = sum(bool(len(c.trained_SN) and len(c.untrained_SN)) for c in there)
    num_intervals = num_there if num_intervals is None else num_intervals
    if num_there > num_intervals:
        raise ValueError(f"{num_there} comparisons in a family of {num_intervals}: count all that are planned")
    confidence = 1 - LEVEL / max(num_intervals, 1)
    tests = {key: _test(comparison) for key, comparison in comparisons.items()}
    adjusted = holm([None if test is None else test.p for test in tests.values()], family_size)
    return {
        key: _verdict(comparison, tests[key], p, confidence)
        for (key, comparison), p in zip(comparisons.items(), adjusted, strict=True)
    }


def comparison_blocks(comparison: Comparison) -> Blocks:
    """Blocks as long as the correlation of the curves or of the difference, whichever is larger."""
    curves = np.concatenate([comparison.trained_SN, comparison.untrained_SN])
    series = [curves]
    if len(comparison.trained_SN) and len(comparison.untrained_SN):
        series.append(comparison.differences)
    return choose_blocks(series, comparison.groups, comparison.kind)


def _test(comparison: Comparison | Missing) -> SeedTest | None:
    if isinstance(comparison, Missing):
        return None
    return seed_test(comparison.trained_SN.mean(axis=1), comparison.untrained_SN.mean(axis=1))


def _verdict(
    comparison: Comparison | Missing, test: SeedTest | None, p_adjusted: float | None, confidence: float
) -> Verdict:
    if isinstance(comparison, Missing):
        return Verdict(Outcome.UNKNOWN, why=(comparison.why,))
    counts = len(comparison.trained_SN), len(comparison.untrained_SN)
    missing = tuple(f"no {name} was measured" for name, n in zip(comparison.names, counts, strict=True) if n == 0)
    if missing:
        return Verdict(Outcome.UNKNOWN, *counts, why=missing)
    blocks = comparison_blocks(comparison)
    difference_N = comparison.differences
    interval = block_interval(difference_N, blocks.assignment, confidence)
    outcome, why = _outcome(counts, comparison.names, p_adjusted, interval, blocks)
    return Verdict(outcome, *counts, difference_N.mean().item(), test, p_adjusted, interval, blocks, why)


def _outcome(
    counts: tuple[int, int], names: tuple[str, str], p_adjusted: float | None, interval: Interval | None, blocks: Blocks
) -> tuple[Outcome, tuple[str, ...]]:
    holds_zero = interval is not None and not interval.leaves_out_zero
    speaks_of_others = interval is not None and blocks.speak_of_others
    no_interval = () if speaks_of_others else (_why_no_interval(blocks),)
    includes_zero = ("the interval over blocks of images holds 0",) if holds_zero else ()
    if counts[0] == 1:
        why = (f"one {names[0]}: no test over seeds", *no_interval, *includes_zero)
        if interval is None:
            return Outcome.UNKNOWN, (why[0], _too_few(blocks))
        return (Outcome.NOT_TOLD_APART if holds_zero else Outcome.THIS_ENCODER), why
    if p_adjusted is None:
        reason = f"one {names[1]}: a test over seeds needs two" if counts[1] == 1 else "the seeds do not differ"
        return Outcome.UNKNOWN, (reason, *no_interval)
    if p_adjusted >= LEVEL:
        return Outcome.NOT_TOLD_APART, ("the test over seeds finds no difference", *includes_zero)
    if holds_zero:
        return Outcome.NOT_TOLD_APART, includes_zero
    return (Outcome.LEARNT, ()) if speaks_of_others else (Outcome.NO_INTERVAL, no_interval)


def _why_no_interval(blocks: Blocks) -> str:
    if blocks.kind == "images":
        return _too_few(blocks)
    if blocks.kind == "slabs of one volume" or (blocks.kind, blocks.num_groups) == ("volumes", 1):
        return "one volume has no interval for people"
    noun = blocks.kind.removesuffix("s") if blocks.num_groups == 1 else blocks.kind
    verb = "has" if blocks.num_groups == 1 else "have"
    return f"{blocks.num_groups} {noun} {verb} no interval for others: {MIN_BLOCKS} are needed"


def _too_few(blocks: Blocks) -> str:
    return f"{blocks.num_blocks} block(s) of images alike have no interval: {MIN_BLOCKS} are needed"
