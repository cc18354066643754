"""What a study of augmentation types has: for every way to augment a pretraining, how useful and how interpretable its
encoders are, image by image, and what is compared.

Shapes: S seeds, N images, V angles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from analysis.arrays import Floats
from analysis.augmentations.arms import CONTROLS, ROLES, Arm, Kind, interpolated, kinds_of, of_roles, seed_of
from analysis.augmentations.effects import JUDGED, Effect, SeedInterval, effects_of, paired_interval, welch_interval
from analysis.cards import group_kind
from analysis.cells import Cell, cells_of
from analysis.results import Entry, StudyResults
from analysis.segmentation.evidence import dice_of_images
from analysis.significance import Comparison, Missing, Verdict, verdicts
from trainables.api.names import (
    BINARISATION,
    CURVE_FILE,
    DICE,
    EXACT_ANGLE,
    FIELD_OF_VIEW,
    GROUP,
    IMAGE_ID,
    NO_AUGMENTATION,
    OF_MAPS,
    OF_USE,
    POSITION,
    SCORES_FILE,
    THESIS_CURVE,
    UNTRAINED_CURVE,
    VALUE,
)

MEASURES = {OF_USE: "use", OF_MAPS: "interpretability"}
"""Label of a trial's measure -> what it is called in figures and tables."""
TITLES = {OF_USE: "Dice of a decoder on the encoder", OF_MAPS: "Dice of the encoder's maps"}
_CIRCLES = (THESIS_CURVE, UNTRAINED_CURVE)
_FIELD = "full"
_TURN_DEG = 360.0


@dataclass(frozen=True, eq=False)
class Measured:
    """One measure of one arm: a number of each image and seed."""

    seeds: tuple[int, ...]
    values_SN: Floats
    groups: tuple[str, ...]

    def of(self, seeds: Sequence[int]) -> Floats:
        return np.asarray(self.values_SN[[self.seeds.index(seed) for seed in seeds]])


@dataclass(frozen=True, eq=False)
class RegionSet:
    """All arms of one data set and region."""

    labels: Mapping[str, str]
    """data and region."""
    arms: Sequence[Arm]
    circles: Mapping[str, Cell]
    """Curves over the whole circle: of encoders with the thesis's augmentation, and of untrained ones."""
    results: StudyResults

    @property
    def title(self) -> str:
        return f"{self.labels['data']} · {self.labels['region'].replace('_', ' ')}"

    @property
    def card(self) -> Mapping[str, Any]:
        return self.results.card(self.labels["data"])

    def of(self, *roles: str) -> list[Arm]:
        return of_roles(self.arms, *roles)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def cells(self) -> list[Cell]:
        found = [cell for arm in self.arms for cell in arm.cells.values()]
        return [*found, *self.circles.values()]

    @property
    def exact(self) -> list[Arm]:
        """Rotations by one exact angle, by their angle, no augmentation among them as 0 degrees."""
        return sorted(self.of(NO_AUGMENTATION, EXACT_ANGLE), key=lambda arm: arm.angle_deg)

    @cached_property
    def _measured(self) -> dict[tuple[str, str], Measured]:
        found: dict[tuple[str, str], Measured] = {}
        for measure in MEASURES:
            frames = {
                (arm.name, seed_of(entry)): _of_images(self.results, measure, entry)
                for arm in self.arms
                if measure in arm.cells
                for entry in arm.cells[measure].done
            }
            if not frames:
                continue
            shared = next(iter(frames.values())).select(IMAGE_ID, GROUP, POSITION)
            for frame in frames.values():
                shared = shared.join(frame.select(IMAGE_ID), on=IMAGE_ID, how="semi")
            shared = shared.sort(GROUP, POSITION, IMAGE_ID)
            for arm in self.arms:
                seeds = tuple(sorted(seed for name, seed in frames if name == arm.name))
                if seeds and shared.height:
                    rows = [shared.join(frames[arm.name, s], on=IMAGE_ID, how="left")[DICE] for s in seeds]
                    values_SN = np.stack([row.to_numpy() for row in rows]).astype(np.float64)
                    found[arm.name, measure] = Measured(seeds, values_SN, tuple(shared[GROUP]))
        return found

    def measured(self, arm: str, measure: str) -> Measured | None:
        """A number of each seed and image, over the images that all arms have; None before any seed is finished."""
        return self._measured.get((arm, measure))

    def levels(self, arm: str, measure: str) -> dict[int, float]:
        """Seed -> mean over the images."""
        found = self.measured(arm, measure)
        return {} if found is None else dict(zip(found.seeds, found.values_SN.mean(axis=1).tolist(), strict=True))

    def anisotropy(self, arm: str) -> dict[int, float]:
        """Seed -> standard deviation over the angles of the Dice of the maps (mean over the images)."""
        cell = self.arm(arm).cells.get(OF_MAPS)
        return (
            {}
            if cell is None
            else {seed_of(e): float(np.std([*_curve(self.results, [e]).values()])) for e in cell.done}
        )

    def effects(self) -> list[Effect]:
        """Every effect that the study's plan has arms for."""
        return effects_of(self.arms, self.best_angle_deg)

    @property
    def interpolated(self) -> list[Arm]:
        """Rotations by one exact angle at which pixels are interpolated."""
        return interpolated(self.arms)

    def circle(self, role: str) -> dict[float, float]:
        """Angle of the view -> mean Dice over seeds and images, of the curves of a role."""
        cell = self.circles.get(role)
        return _curve(self.results, cell.done) if cell is not None and cell.done else {}

    @cached_property
    def best_angles_deg(self) -> list[float]:
        """Of each seed of the thesis's augmentation, that of the interpolated angles trained with at which its curve
        lies highest above that of untrained encoders; empty before both are there."""
        cell, untrained = self.circles.get(THESIS_CURVE), self.circle(UNTRAINED_CURVE)
        if cell is None or not untrained:
            return []
        found = []
        for entry in cell.done:
            curve = _curve(self.results, [entry])
            above = {
                arm.angle_deg: curve[arm.angle_deg] - untrained[arm.angle_deg]
                for arm in self.interpolated
                if arm.angle_deg in curve and arm.angle_deg in untrained
            }
            found += [max(above, key=lambda angle: above[angle])] if above else []
        return found

    @property
    def best_angle_deg(self) -> float | None:
        """The angle that all seeds have highest; None where they do not agree, or nothing is there."""
        found = set(self.best_angles_deg)
        return found.pop() if len(found) == 1 else None

    def num_seeds(self, effect: Effect, measure: str) -> int:
        """Seeds that the study plans for the arm that has fewest."""
        return min(self.arm(name).num_wanted(measure) for name in effect.arms)

    def comparison(self, effect: Effect, measure: str) -> Comparison | Missing:
        """Both sides of an effect, image by image, over the seeds that all of its arms have."""
        lacking = [name for name in dict.fromkeys(effect.arms) if self.measured(name, measure) is None]
        unfinished = [name for name in lacking if not self.arm(name).is_done(measure)]
        if unfinished:
            return Missing(f"no result of {' and '.join(unfinished)}")
        if lacking:
            return Missing("no image has something of the region or of a class in all results")
        found = {name: self._measured[name, measure] for name in effect.arms}
        seeds = shared_seeds({name: each.seeds for name, each in found.items()})
        if not seeds:
            return Missing("its arms have no seed in common")

        groups = next(iter(found.values())).groups
        names = ("pretraining", "pretraining against it")
        first_SN, second_SN = (_side(found, seeds, parts) for parts in (effect.first, effect.second))
        return Comparison(first_SN, second_SN, groups, group_kind(self.card), names)

    def compared_levels(self, effect: Effect, measure: str) -> tuple[float, float] | None:
        """Mean of both sides over what is compared; None where there is no comparison."""
        compared = self.comparison(effect, measure)
        if isinstance(compared, Missing):
            return None
        return float(np.real(compared.trained_SN.mean())), float(np.real(compared.untrained_SN.mean()))

    def sides(self, effect: Effect, values: Callable[[str], Mapping[int, float]]) -> tuple[list[float], list[float]]:
        """Both sides of an effect in each seed that all of its arms have; ``values``: arm -> seed -> value."""
        of_arms = {name: values(name) for name in effect.arms}
        seeds = shared_seeds(of_arms)
        first, second = ([_of_seed(of_arms, seed, parts) for seed in seeds] for parts in (effect.first, effect.second))
        return first, second

    def interval(self, effect: Effect, values: Callable[[str], Mapping[int, float]]) -> SeedInterval | None:
        """The difference of both sides with its interval over seeds; None before a seed has all arms.

        Seeds are pairs, as pretrainings of one seed begin with the same weights and see the images in one order. What
        this study did not train shares nothing with them: then both sides keep their own spread (Welch).
        """
        first, second = self.sides(effect, values)
        if not first:
            return None
        is_paired = all(self.arm(name).role not in CONTROLS for name in effect.arms)
        return paired_interval(first, second) if is_paired else welch_interval(first, second)

    def points(self) -> dict[str, tuple[float, float]]:
        """Trained arm -> mean use and mean interpretability, over the seeds that all trained arms with both have."""
        seeds = self.front_seeds
        found = {}
        for name, (use, maps) in self._trained_levels().items():
            means = [float(np.mean([levels[seed] for seed in seeds])) for levels in (use, maps) if seeds]
            if means:
                found[name] = (means[0], means[1])
        return found

    @property
    def front_seeds(self) -> list[int]:
        """Seeds that all trained arms with both measures have."""
        levels = self._trained_levels()
        return shared_seeds({(name, i): each for name, both in levels.items() for i, each in enumerate(both)})

    def front(self) -> list[str]:
        """Trained arms that no other exceeds in the means of both measures."""
        return _front(self.points())

    def fronts_of_seeds(self) -> list[list[str]]:
        """The front of each of these seeds."""
        levels = self._trained_levels()
        return [_front({n: (use[s], maps[s]) for n, (use, maps) in levels.items()}) for s in self.front_seeds]

    def _trained_levels(self) -> dict[str, tuple[dict[int, float], dict[int, float]]]:
        found = {}
        for arm in self.arms:
            use, maps = (self.levels(arm.name, measure) for measure in MEASURES)
            if arm.role not in CONTROLS and use and maps:
                found[arm.name] = (use, maps)
        return found


def _side(found: Mapping[str, Measured], seeds: Sequence[int], parts: tuple[Sequence[str], Sequence[str]]) -> Floats:
    """One side of an effect, of each seed and image."""
    sides = [np.mean([found[name].of(seeds) for name in part], axis=0) for part in parts if part]
    return np.asarray(sides[0] - sides[1] if parts[1] else sides[0])


def _of_seed(
    of_arms: Mapping[str, Mapping[int, float]], seed: int, parts: tuple[Sequence[str], Sequence[str]]
) -> float:
    """One side of an effect, of one seed."""
    plus, minus = (float(np.mean([of_arms[name][seed] for name in part])) if part else 0.0 for part in parts)
    return plus - minus


def _of_images(results: StudyResults, measure: str, entry: Entry) -> pl.DataFrame:
    """image_id, group, position and dice of each image, of one trial."""
    if measure == OF_USE:
        return dice_of_images(pl.read_parquet(results.folder(entry["key"]) / SCORES_FILE))
    frame = _curve_frame(results, entry)
    return frame.group_by(IMAGE_ID, GROUP, POSITION, maintain_order=True).agg(pl.col(DICE).mean())


def _curve(results: StudyResults, entries: Sequence[Entry]) -> dict[float, float]:
    """Angle -> mean Dice over the images and some trials."""
    frames = [_curve_frame(results, entry) for entry in entries]
    means = pl.concat(frames).group_by(VALUE).agg(pl.col(DICE).mean()).sort(VALUE)
    return dict(zip(means[VALUE].to_list(), means[DICE].to_list(), strict=True))


def _curve_frame(results: StudyResults, entry: Entry) -> pl.DataFrame:
    """The rows of the full field and the first way to make maps binary, but those of the unchanged image."""
    frame = pl.read_parquet(results.folder(entry["key"]) / CURVE_FILE)
    headline = frame.filter((pl.col(FIELD_OF_VIEW) == _FIELD) & (pl.col(BINARISATION) == frame[BINARISATION][0]))
    return headline.filter(pl.col(VALUE) % _TURN_DEG != 0)


def expected_front_size(num: int) -> float:
    """How many of so many points are on the front of two measures that know nothing of one another."""
    return sum(1 / rank for rank in range(1, num + 1))


def region_sets(results: StudyResults) -> list[RegionSet]:
    """Every data set and region of a study, in the order of its manifest."""
    arms: dict[tuple[str, str], dict[tuple[str, tuple[Kind, ...]], dict[str, Cell]]] = {}
    circles: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells_of(results):
        place = cell.labels.get("data", ""), cell.labels.get("region", "")
        if cell.role in _CIRCLES:
            circles.setdefault(place, {})[cell.role] = cell
        elif cell.role in ROLES:
            arms.setdefault(place, {}).setdefault((cell.role, kinds_of(cell.labels)), {})[cell.labels["measure"]] = cell
    return [
        RegionSet(
            {"data": place[0], "region": place[1]},
            sorted((Arm(*key, cells) for key, cells in of_region.items()), key=lambda arm: ROLES.index(arm.role)),
            circles.get(place, {}),
            results,
        )
        for place, of_region in arms.items()
    ]


def judged(found: Sequence[RegionSet]) -> dict[tuple[int, Effect, str], Verdict]:
    """The verdict of every effect of which something is said, by place of its data set and by measure; all that the
    study plans share the level."""
    planned = _planned(found)
    comparisons = {key: found[key[0]].comparison(key[1], key[2]) for key in planned}
    return verdicts(comparisons, num_tests(found), len(planned) + _num_to_come(found))


def num_tests(found: Sequence[RegionSet]) -> int:
    """Tests that the study plans: they share the level, whether they are there or not."""
    planned = _planned(found)
    return sum(found[place].num_seeds(effect, measure) >= 2 for place, effect, measure in planned) + _num_to_come(found)


def _planned(found: Sequence[RegionSet]) -> list[tuple[int, Effect, str]]:
    return [
        (place, effect, measure)
        for place, of_region in enumerate(found)
        for effect, measure in product(of_region.effects(), MEASURES)
        if effect.kind in JUDGED
    ]


def _num_to_come(found: Sequence[RegionSet]) -> int:
    """Which angle is compared is known once the curves are there; until then its effect counts as planned."""
    return sum(len(MEASURES) for each in found if each.best_angle_deg is None and len(each.interpolated) > 1)


def _front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] >= other[0] and one[1] >= other[1] and one != other

    return [name for name, point in points.items() if not any(beats(other, point) for other in points.values())]


def shared_seeds(of_arms: Mapping[Any, Iterable[int]]) -> list[int]:
    """Seeds that all have."""
    return sorted(set.intersection(*map(set, of_arms.values()))) if of_arms else []
