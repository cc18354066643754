"""What a study of augmentation types compares: differences of some ways to augment, and their intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.augmentations.arms import CONTROLS, Arm, interpolated, of_roles
from analysis.significance import LEVEL
from trainables.api.names import (
    EXACT_ANGLE,
    NO_AUGMENTATION,
    ONE_AUGMENTATION,
    THESIS_AUGMENTATIONS,
    TWO_AUGMENTATIONS,
)


@dataclass(frozen=True)
class Effect:
    """A difference of two sides, each the mean of some arms, or that less the mean of others: ``(plus, minus)``.

    ``first`` and ``second`` are what a test over seeds takes as its two samples.
    """

    title: str
    kind: str
    first: tuple[tuple[str, ...], tuple[str, ...]]
    second: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def arms(self) -> list[str]:
        """Names of the arms of both sides."""
        return [name for side in (self.first, self.second) for part in side for name in part]


ALONE = "against no augmentation"
OF_TYPE = "type, mean over its ranges"
OF_RANGE = "strongest less mildest range"
BESIDE = "beside another, mean over these"
INTERACTION = "interaction"
BEST_ANGLE = "angle of the curve's maximum"
JUDGED = (ALONE, INTERACTION, BEST_ANGLE)
"""The kinds of effects of which something is said; the others have intervals alone."""


def effects_of(arms: Sequence[Arm], best_angle_deg: float | None) -> list[Effect]:
    """Every effect that a study's plan has arms for; ``best_angle_deg``: of the curve's maximum, where it is known."""
    found = []
    for none in of_roles(arms, NO_AUGMENTATION):
        found += [*_main_effects(arms, none.name), *_pair_effects(arms, none.name)]
    return [*found, *_angle_effects(arms, best_angle_deg)]


def _main_effects(arms: Sequence[Arm], none: str) -> list[Effect]:
    others = of_roles(arms, THESIS_AUGMENTATIONS, ONE_AUGMENTATION, EXACT_ANGLE, *CONTROLS)
    found = [_effect(arm.name, ALONE, [arm.name], [none]) for arm in others]
    ranges: dict[str, list[str]] = {}
    for arm in of_roles(arms, ONE_AUGMENTATION):
        ranges.setdefault(arm.kinds[0].augmentation, []).append(arm.name)
    for kind, names in ranges.items():
        if len(names) > 1:
            found.append(_effect(kind, OF_TYPE, names, [none]))
            found.append(_effect(kind, OF_RANGE, names[-1:], names[:1]))
    return found


def _pair_effects(arms: Sequence[Arm], none: str) -> list[Effect]:
    pairs = {frozenset(kind.name for kind in arm.kinds): arm.name for arm in of_roles(arms, TWO_AUGMENTATIONS)}
    alone = {arm.name for arm in of_roles(arms, ONE_AUGMENTATION)}
    pairs = {kinds: name for kinds, name in pairs.items() if kinds <= alone}
    found = []
    for one in sorted({kind for kinds in pairs for kind in kinds}):
        partners = {next(iter(kinds - {one})): name for kinds, name in pairs.items() if one in kinds}
        found.append(_effect(one, BESIDE, list(partners.values()), list(partners)))
    for kinds, name in pairs.items():
        one, two = sorted(kinds)
        found.append(Effect(name, INTERACTION, ((name,), (one,)), ((two,), (none,))))
    return found


def _angle_effects(arms: Sequence[Arm], best_angle_deg: float | None) -> list[Effect]:
    best, compared = best_angle_deg, interpolated(arms)
    others = [arm.name for arm in compared if arm.angle_deg != best]
    if best is None or not others:
        return []
    (own,) = [arm.name for arm in compared if arm.angle_deg == best]
    return [_effect(own, BEST_ANGLE, [own], others)]


def _effect(title: str, kind: str, names: Sequence[str], against: Sequence[str]) -> Effect:
    return Effect(title, kind, (tuple(names), ()), (tuple(against), ()))


class SeedInterval(NamedTuple):
    """A difference with its 95 % interval over seeds (no ends from one seed, or where seeds do not differ), and n."""

    value: float
    low: float | None
    high: float | None
    n: int


def paired_interval(first_S: Sequence[float], second_S: Sequence[float]) -> SeedInterval:
    """Student's interval of the mean difference of pairs."""
    differences_S = np.asarray(first_S) - np.asarray(second_S)
    mean, num = float(differences_S.mean()), len(differences_S)
    if num < 2 or differences_S.std() == 0:
        return SeedInterval(mean, None, None, num)
    found = stats.ttest_1samp(differences_S, 0.0).confidence_interval(1 - LEVEL)
    return SeedInterval(mean, float(found.low), float(found.high), num)


def welch_interval(first_S: Sequence[float], second_S: Sequence[float]) -> SeedInterval:
    """Welch's interval of the difference of two means."""
    mean, num = float(np.mean(first_S) - np.mean(second_S)), min(len(first_S), len(second_S))
    if num < 2 or np.std(first_S) + np.std(second_S) == 0:
        return SeedInterval(mean, None, None, num)
    found = stats.ttest_ind(first_S, second_S, equal_var=False).confidence_interval(1 - LEVEL)
    return SeedInterval(mean, float(found.low), float(found.high), num)
