"""What a study of augmentation types has: for every way to augment a pretraining, how useful and how interpretable its
encoders are, image by image, and what is compared.

Shapes: S seeds, N images, V angles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from analysis.arrays import Floats
from analysis.cards import group_kind
from analysis.cells import Cell, cells_of
from analysis.results import Entry, StudyResults
from analysis.segmentation.evidence import dice_of_images
from analysis.significance import LEVEL, Comparison, Missing, Verdict, verdicts
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
    ONE_AUGMENTATION,
    POSITION,
    SCORES_FILE,
    THESIS_AUGMENTATIONS,
    THESIS_CURVE,
    TWO_AUGMENTATIONS,
    UNTRAINED,
    VALUE,
)

MEASURES = {OF_USE: "use", OF_MAPS: "interpretability"}
"""Label of a trial's measure -> what it is called in figures and tables."""
ROLES = (NO_AUGMENTATION, THESIS_AUGMENTATIONS, ONE_AUGMENTATION, EXACT_ANGLE, TWO_AUGMENTATIONS, UNTRAINED)
_FIELD = "full"
_TURN_DEG = 360.0


@dataclass(frozen=True)
class Kind:
    """A type of augmentation and its range."""

    augmentation: str
    range: str

    @property
    def name(self) -> str:
        return f"{self.augmentation} {self.range}"


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to augment a pretraining (or none to train), with the cells of both measures."""

    role: str
    kinds: tuple[Kind, ...]
    cells: Mapping[str, Cell]

    @property
    def name(self) -> str:
        """For people: what augmented, or the role of what nothing did."""
        return " and ".join(kind.name for kind in self.kinds) or self.role

    @property
    def angle_deg(self) -> float:
        """Of a rotation by one exact angle; of no augmentation 0."""
        (first, *_) = self.cells.values()
        entry = [*first.done, *(entry for entry, _ in first.missing)][0]
        return float(_augmentation(entry["configuration"])["max_deg"])

    def num_wanted(self, measure: str) -> int:
        return self.cells[measure].num_wanted if measure in self.cells else 0


@dataclass(frozen=True)
class Effect:
    """A difference of two groups of arms: the sum of ``plus`` less the sum of ``minus``, each divided by ``share``.

    ``first`` and ``second`` are what a test over seeds takes as its two samples, as ``(plus, minus)`` each.
    """

    title: str
    kind: str
    first: tuple[tuple[str, ...], tuple[str, ...]]
    second: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def arms(self) -> list[str]:
        return [name for side in (self.first, self.second) for part in side for name in part]


ALONE = "against no augmentation"
OF_TYPE = "type, mean over its ranges"
OF_RANGE = "strongest less mildest range"
BESIDE = "beside another, mean over these"
INTERACTION = "interaction"
BEST_ANGLE = "angle of the curve's maximum"
JUDGED = (ALONE, INTERACTION, BEST_ANGLE)
"""The kinds of effects of which something is said; the others have intervals alone."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One measure of one arm: a number of each image and seed."""

    seeds: tuple[int, ...]
    values_SN: Floats
    groups: tuple[str, ...]

    def of(self, seeds: Sequence[int]) -> Floats:
        return np.asarray(self.values_SN[[self.seeds.index(seed) for seed in seeds]])


@dataclass(frozen=True, eq=False)
class DataSet:
    """All arms of one data set."""

    name: str
    arms: Sequence[Arm]
    reference: Cell | None
    """Curves over the whole circle of the encoders with the thesis's augmentation."""
    results: StudyResults

    @property
    def card(self) -> Mapping[str, Any]:
        card: Mapping[str, Any] = self.results.manifest.get("cards", {}).get(self.name, {})
        return card

    def of(self, *roles: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.role in roles]

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def cells(self) -> list[Cell]:
        found = [cell for arm in self.arms for cell in arm.cells.values()]
        return [*found, *([self.reference] if self.reference else [])]

    @property
    def exact(self) -> list[Arm]:
        """Rotations by one exact angle, by their angle, no augmentation among them as 0 degrees."""
        return sorted(self.of(NO_AUGMENTATION, EXACT_ANGLE), key=lambda arm: arm.angle_deg)

    @cached_property
    def _measured(self) -> dict[tuple[str, str], Measured]:
        found: dict[tuple[str, str], Measured] = {}
        for measure in MEASURES:
            frames = {
                (arm.name, _seed(entry)): self._of_images(measure, entry)
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
        return {} if cell is None else {_seed(entry): float(self._curve(entry).std()) for entry in cell.done}

    def effects(self) -> list[Effect]:
        """Every effect that the study's plan has arms for."""
        none = self.of(NO_AUGMENTATION)
        if not none:
            return []
        return [*self._main_effects(none[0].name), *self._pair_effects(none[0].name), *self._angle_effects()]

    def _main_effects(self, none: str) -> list[Effect]:
        others = self.of(THESIS_AUGMENTATIONS, ONE_AUGMENTATION, EXACT_ANGLE, UNTRAINED)
        found = [_effect(arm.name, ALONE, [arm.name], [none]) for arm in others]
        ranges: dict[str, list[str]] = {}
        for arm in self.of(ONE_AUGMENTATION):
            ranges.setdefault(arm.kinds[0].augmentation, []).append(arm.name)
        for kind, names in ranges.items():
            if len(names) > 1:
                found.append(_effect(kind, OF_TYPE, names, [none]))
                found.append(_effect(kind, OF_RANGE, names[-1:], names[:1]))
        return found

    def _pair_effects(self, none: str) -> list[Effect]:
        pairs = {frozenset(kind.name for kind in arm.kinds): arm.name for arm in self.of(TWO_AUGMENTATIONS)}
        alone = {arm.name for arm in self.of(ONE_AUGMENTATION)}
        pairs = {kinds: name for kinds, name in pairs.items() if kinds <= alone}
        found = []
        for one in sorted({kind for kinds in pairs for kind in kinds}):
            partners = {next(iter(kinds - {one})): name for kinds, name in pairs.items() if one in kinds}
            found.append(_effect(one, BESIDE, list(partners.values()), list(partners)))
        for kinds, name in pairs.items():
            one, two = sorted(kinds)
            found.append(Effect(name, INTERACTION, ((name,), (one,)), ((two,), (none,))))
        return found

    def _angle_effects(self) -> list[Effect]:
        best, exact = self.best_angle_deg, self.of(EXACT_ANGLE)
        others = [arm.name for arm in exact if arm.angle_deg != best]
        if best is None or not others:
            return []
        (own,) = [arm.name for arm in exact if arm.angle_deg == best]
        return [_effect(own, BEST_ANGLE, [own], others)]

    @cached_property
    def reference_dice(self) -> dict[float, float]:
        """Angle of the view -> mean Dice over seeds and images of the encoders with the thesis's augmentation."""
        if self.reference is None or not self.reference.done:
            return {}
        curves = [self._curve_frame(entry) for entry in self.reference.done]
        mean = pl.concat(curves).group_by(VALUE).agg(pl.col(DICE).mean()).sort(VALUE)
        return dict(zip(mean[VALUE].to_list(), mean[DICE].to_list(), strict=True))

    @property
    def best_angle_deg(self) -> float | None:
        """Of the angles that were trained with, the one at which the reference curve is highest; None without both."""
        curve = self.reference_dice
        found = {arm.angle_deg: curve[arm.angle_deg] for arm in self.of(EXACT_ANGLE) if arm.angle_deg in curve}
        return max(found, key=lambda angle: found[angle]) if found else None

    def num_seeds(self, effect: Effect, measure: str) -> int:
        """Seeds that the study plans for the arm that has fewest."""
        return min(self.arm(name).num_wanted(measure) for name in effect.arms)

    def comparison(self, effect: Effect, measure: str) -> Comparison | Missing:
        """Both sides of an effect, image by image, over the seeds that all of its arms have."""
        lacking = [name for name in dict.fromkeys(effect.arms) if self.measured(name, measure) is None]
        if lacking:
            return Missing(f"no result of {' and '.join(lacking)}")
        found = {name: self._measured[name, measure] for name in effect.arms}
        seeds = self._seeds(effect, lambda name: found[name].seeds)
        if not seeds:
            return Missing("its arms have no seed in common")

        def side(parts: tuple[tuple[str, ...], tuple[str, ...]]) -> Floats:
            plus, minus = parts
            sides = [np.mean([found[name].of(seeds) for name in part], axis=0) for part in (plus, minus) if part]
            return np.asarray(sides[0] - sides[1] if minus else sides[0])

        groups = next(iter(found.values())).groups
        names = ("pretraining", "pretraining against it")
        return Comparison(side(effect.first), side(effect.second), groups, group_kind(self.card), names)

    def differences(self, effect: Effect, values: Callable[[str], Mapping[int, float]]) -> list[float]:
        """The effect in each seed that all of its arms have; ``values``: arm -> seed -> value."""
        of_arms = {name: values(name) for name in effect.arms}
        (plus, minus), (less_plus, less_minus) = effect.first, effect.second

        def mean(names: Sequence[str], seed: int) -> float:
            return float(np.mean([of_arms[name][seed] for name in names])) if names else 0.0

        return [
            (mean(plus, seed) - mean(minus, seed)) - (mean(less_plus, seed) - mean(less_minus, seed))
            for seed in self._seeds(effect, lambda name: tuple(of_arms[name]))
        ]

    def front(self) -> list[str]:
        """Trained arms that no other exceeds in the means of both measures."""
        return _front({arm: (point[0], point[1]) for arm, point in self.points().items()})

    def points(self) -> dict[str, tuple[float, float, int]]:
        """Trained arm -> mean use, mean interpretability, seeds of the measure that has fewer."""
        found = {}
        for arm in self.arms:
            use, maps = (self.levels(arm.name, measure) for measure in MEASURES)
            if arm.role != UNTRAINED and use and maps:
                means = float(np.mean([*use.values()])), float(np.mean([*maps.values()]))
                found[arm.name] = (*means, min(len(use), len(maps)))
        return found

    def fronts_of_seeds(self) -> list[list[str]]:
        """The front of each seed that all trained arms with a point have."""
        both = {name: [self.levels(name, measure) for measure in MEASURES] for name in self.points()}
        if not both:
            return []
        seeds = set.intersection(*(set(use) & set(maps) for use, maps in both.values()))
        return [_front({name: (use[s], maps[s]) for name, (use, maps) in both.items()}) for s in sorted(seeds)]

    def _seeds(self, effect: Effect, seeds_of: Callable[[str], Sequence[int]]) -> list[int]:
        return sorted(set.intersection(*(set(seeds_of(name)) for name in effect.arms)))

    def _of_images(self, measure: str, entry: Entry) -> pl.DataFrame:
        """image_id, group, position and dice of each image, of one trial."""
        if measure == OF_USE:
            return dice_of_images(pl.read_parquet(self.results.folder(entry["key"]) / SCORES_FILE))
        frame = self._curve_frame(entry)
        return frame.group_by(IMAGE_ID, GROUP, POSITION, maintain_order=True).agg(pl.col(DICE).mean())

    def _curve(self, entry: Entry) -> Floats:
        """Mean Dice over the images at each angle, [V]."""
        means = self._curve_frame(entry).group_by(VALUE).agg(pl.col(DICE).mean()).sort(VALUE)
        return np.asarray(means[DICE].to_numpy(), dtype=np.float64)

    def _curve_frame(self, entry: Entry) -> pl.DataFrame:
        """The rows of the full field and the first way to make maps binary, but those of the unchanged image."""
        frame = pl.read_parquet(self.results.folder(entry["key"]) / CURVE_FILE)
        headline = frame.filter((pl.col(FIELD_OF_VIEW) == _FIELD) & (pl.col(BINARISATION) == frame[BINARISATION][0]))
        return headline.filter(pl.col(VALUE) % _TURN_DEG != 0)


def seed_interval(differences_S: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of the differences over seeds and Student's 95 % interval of it; no ends from a single seed, or where all
    are the same."""
    mean, num = float(np.mean(differences_S)), len(differences_S)
    spread = float(np.std(differences_S, ddof=1)) if num > 1 else 0.0
    if spread == 0:
        return mean, None, None
    radius = float(stats.t.ppf(1 - LEVEL / 2, num - 1)) * spread / np.sqrt(num)
    return mean, mean - radius, mean + radius


def data_sets(results: StudyResults) -> list[DataSet]:
    """Every data set of a study, in the order of its manifest."""
    arms: dict[str, dict[tuple[str, tuple[Kind, ...]], dict[str, Cell]]] = {}
    references: dict[str, Cell] = {}
    for cell in cells_of(results):
        if cell.role == THESIS_CURVE:
            references[cell.labels["data"]] = cell
        elif cell.role in ROLES:
            of_data = arms.setdefault(cell.labels["data"], {})
            of_data.setdefault((cell.role, _kinds(cell.labels)), {})[cell.labels["measure"]] = cell
    return [
        DataSet(
            data,
            sorted((Arm(*key, cells) for key, cells in of_data.items()), key=lambda arm: ROLES.index(arm.role)),
            references.get(data),
            results,
        )
        for data, of_data in arms.items()
    ]


def judged(found: Sequence[DataSet]) -> dict[tuple[int, Effect, str], Verdict]:
    """The verdict of every effect of which something is said, by place of its data set and by measure; all that the
    study plans share the level."""
    planned = [
        (place, effect, measure)
        for place, of_data in enumerate(found)
        for effect, measure in product(of_data.effects(), MEASURES)
        if effect.kind in JUDGED
    ]
    comparisons = {key: found[key[0]].comparison(key[1], key[2]) for key in planned}
    num_tests = sum(found[place].num_seeds(effect, measure) >= 2 for place, effect, measure in planned)
    # The angle is known once the curve is there; until then its effect counts as planned all the same.
    to_come = sum(len(MEASURES) for each in found if each.best_angle_deg is None and len(each.of(EXACT_ANGLE)) > 1)
    return verdicts(comparisons, num_tests + to_come, len(planned) + to_come)


def _effect(title: str, kind: str, names: Sequence[str], against: Sequence[str]) -> Effect:
    return Effect(title, kind, (tuple(names), ()), (tuple(against), ()))


def _kinds(labels: Mapping[str, str]) -> tuple[Kind, ...]:
    named = (("augmentation", "range"), ("second", "second_range"))
    return tuple(Kind(labels[kind], labels[range_]) for kind, range_ in named if kind in labels)


def _front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] >= other[0] and one[1] >= other[1] and one != other

    return [name for name, point in points.items() if not any(beats(other, point) for other in points.values())]


def _seed(entry: Entry) -> int:
    """That of the pretraining, or of the untrained encoder."""
    return next(
        int(value)
        for path, value in entry["seeds"].items()
        if path.rpartition(".")[2] in ("pretrain_seed", "init_seed")
    )


def _augmentation(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """That of the pretraining in a trial's configuration, of either measure."""
    encoder = configuration.get("encoder") or configuration["model"]["network"]["encoder"]
    augmentation: Mapping[str, Any] = encoder["augmentation"]
    return augmentation
