"""What trials will cost, and how sure that is, by what finished ones did: the nearest kin that is there tells."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.devices import Devices, device_of, is_cpu
from orchestrator.store import Result
from trainables.api.identity import Keys
from trainables.api.trainable import Trainable

Ground = Literal["measured", "rehearsed", "kin", "guess"]
"""What an estimate rests on: trials of the same configuration on the same device, but for seed and length; short
rehearsals of it; other trials of its class on such a device; or less."""

# Nothing has run in this store: the rate of one core of today on convolutions. Wrong by a factor, and said to be.
_ASSUMED_FLOP_PER_S = 1e11
# What a trial takes whatever it computes: its libraries are loaded, its files are read and written.
_ASSUMED_START_S = 2.0
# Of trials of one length nobody knows how much of their time was no computing (decoding images, say); rarely more.
_LONGEST_START_S = 300.0
# Two lengths so far apart tell start-up and rate apart.
_APART = 2.0
# By what factor one trial is off, of ten such factors nine: known from one of its like, from one of its class, from
# less.
_FACTORS: dict[Ground, float] = {"measured": 1.5, "rehearsed": 1.5, "kin": 3.0, "guess": 10.0}
_Z = 1.6449  # a normal value lies within this many standard deviations in nine cases of ten
_OF_MEDIAN = math.pi / 2  # the variance of a median of normal values, in that of their mean
_WORTH = 2  # the factor above counts like so many trials
_MOST_POINTS = 60
_MEASURED: tuple[Ground, ...] = ("measured", "rehearsed", "kin")


@dataclass(frozen=True)
class Cost:
    """What is known of the cost of one trial before it runs."""

    kind: str
    """Class of the trainable."""
    cell: str
    """What it is but for its seeds."""
    uses_gpu: bool
    work_flop: float
    """0 where the trainable does not say."""
    shape: str = ""
    """What it is but for seeds and lengths; empty where that is not known."""
    device: str = ""
    """What it computes on (``devices.py``)."""

    @property
    def where(self) -> str:
        """The device, or what stands for one that is not known."""
        return self.device or ("GPU" if self.uses_gpu else "CPU ")


@dataclass(frozen=True)
class Spent:
    """A finished trial: seconds of work, summed over its workers, and the work that it did itself."""

    cost: Cost
    busy_s: float
    work_flop: float


@dataclass(frozen=True)
class Estimate:
    """Seconds of work on one worker, with an interval for nine cases of ten."""

    seconds: float
    least_s: float
    """Where the interval begins of the mean over many such trials: what they have in common is not known better."""
    most_s: float
    """Where it ends."""
    own: float
    """How far one trial lies from that mean: half the interval, of the logarithm."""
    ground: Ground
    num: int = 0
    """Finished trials that tell."""
    start_s: float = 0.0
    """Of these seconds, what every start takes; 0 where that is not known."""

    @property
    def low_s(self) -> float:
        """Where the interval of one trial begins."""
        return self.seconds * math.exp(-math.hypot(math.log(self.seconds / self.least_s), self.own))

    @property
    def high_s(self) -> float:
        """Where it ends."""
        return self.seconds * math.exp(math.hypot(math.log(self.most_s / self.seconds), self.own))

    def after(self, fraction: float) -> Estimate:
        """What is left when so much is done: it starts again, and computes the rest."""
        left = self.start_s + (self.seconds - self.start_s) * (1.0 - fraction)
        return self.times(left / self.seconds) if left > 0 else self

    def times(self, factor: float) -> Estimate:
        """So many times as long."""
        scaled = {name: getattr(self, name) * factor for name in ("seconds", "least_s", "most_s", "start_s")}
        return replace(self, **scaled)


class Estimates:
    """What trials cost by what others did: trials of the same cell on the same device; of the same shape, whatever
    their length; of the same class; and where there are none, of what computes on that device, of other devices, or a
    guess.

    Where those that tell are of lengths a factor of two apart, start-up and rate are told apart (Theil-Sen: the median
    of the slopes of pairs). Else all of the time counts as computing, and the interval says what the truth is if it was
    not.
    """

    def __init__(self, spent: Iterable[Spent]) -> None:
        self._spent = [one for one in spent if one.busy_s > 0]
        self._lines: dict[tuple[tuple[str, ...], Ground, bool], _Line | None] = {}

    def estimate(self, cost: Cost) -> Estimate:
        """What the whole trial costs, always more than nothing."""
        is_stated = cost.work_flop > 0
        for name, ground in _groups_of(cost):
            if not is_stated and name[0] in ("device", "any"):
                continue
            line = self._line(name, ground, is_stated)
            if line is not None:
                return line.estimate(cost.work_flop)
        seconds = _ASSUMED_START_S + cost.work_flop / _ASSUMED_FLOP_PER_S
        factor = _FACTORS["guess"]
        return Estimate(seconds, seconds / factor, seconds * factor, _own_half(), "guess")

    def seconds(self, cost: Cost) -> float:
        """The same without its interval."""
        return self.estimate(cost).seconds

    def is_measured(self, cost: Cost) -> bool:
        """Whether the estimate comes from trials of the same class on such a device."""
        return is_measured(self.estimate(cost).ground)

    @functools.cached_property
    def _groups(self) -> dict[tuple[str, ...], list[Spent]]:
        """Who belongs to what: not made where nothing is asked."""
        groups: dict[tuple[str, ...], list[Spent]] = {}
        for one in self._spent:
            for name, _ in _groups_of(one.cost):
                groups.setdefault(name, []).append(one)
        return groups

    def _line(self, name: tuple[str, ...], ground: Ground, is_stated: bool) -> _Line | None:
        """What a group tells, if it has anything to tell of trials that state their work, or of others."""
        if (name, ground, is_stated) not in self._lines:
            group = [one for one in self._groups.get(name, []) if not is_stated or one.work_flop > 0]
            self._lines[name, ground, is_stated] = _line_of(group, ground, is_stated) if group else None
        return self._lines[name, ground, is_stated]


def is_measured(ground: Ground) -> bool:
    """Whether trials of the class have run on such a device: else nobody knows."""
    return ground in _MEASURED


def cost_of(trainable: Trainable, keys: Keys, devices: Devices) -> Cost:
    """What is known of the cost of a trial before it runs."""
    cell, shape, device = keys.cell(trainable), keys.shape(trainable), devices.of(trainable.uses_gpu)
    return Cost(type(trainable).__name__, cell, trainable.uses_gpu, trainable.work_flop(), shape, device)


def spent_of(trainable: Trainable, result: Result, keys: Keys) -> Spent:
    """What a finished trial took, on the device that it ran on."""
    cost = replace(cost_of(trainable, keys, Devices()), device=device_of(result.provenance))
    return Spent(cost, result.busy_s, result.work_flop)


def _groups_of(cost: Cost) -> Iterator[tuple[tuple[str, ...], Ground]]:
    """What a trial belongs to, the nearest kin first, and what their word is worth."""
    where, kind = cost.where, cost.kind
    yield ("cell", cost.cell, where), "measured"
    if cost.shape:
        yield ("shape", cost.shape, where), "measured"
    yield ("kind", kind, where), "kin"
    if is_cpu(where):
        yield ("kind", kind, "CPUs"), "kin"
    yield ("device", where), "guess"
    yield ("device", "CPUs" if is_cpu(where) else "GPUs"), "guess"
    yield ("kind", kind), "guess"
    yield ("any",), "guess"


@dataclass(frozen=True)
class _Line:
    """Seconds over work of trials that tell of one another: ``start_s + rate * work``."""

    start_s: float
    rate: float
    is_told_apart: bool  # start-up and rate
    points: Sequence[tuple[float, float]]  # work, seconds
    num: int
    ground: Ground

    def estimate(self, work_flop: float) -> Estimate:
        """What a trial of so much work takes."""
        seconds = self.start_s + self.rate * work_flop
        half, common = self._halves(seconds, work_flop)
        least_s, most_s = sorted((seconds, self._if_all_was_start_s(seconds, work_flop)))
        own = half if self.ground == "measured" else _own_half()
        factor, start_s = math.exp(common), self.start_s if self.rate else 0.0
        return Estimate(seconds, least_s / factor, most_s * factor, own, self.ground, self.num, start_s)

    def _halves(self, seconds: float, work_flop: float) -> tuple[float, float]:
        """Half the interval of one trial around the line, and that of the line itself, of logarithms."""
        alone = math.log(_FACTORS[self.ground]) / math.sqrt(1 + _OF_MEDIAN)
        num = len(self.points)
        if self.ground == "guess":
            return alone, math.log(_FACTORS["guess"])
        logs = [math.log(took_s / self._at(flop)) for flop, took_s in self.points]
        num_free = num - 1 - (self.start_s > 0) + _WORTH
        sd = math.sqrt((_WORTH * (alone / _Z) ** 2 + sum(log * log for log in logs)) / num_free)
        half = alone if num == 1 else _quantile(num_free) * sd
        # Another configuration of the class lies as far from the line as those that are known; one that is known does
        # not.
        common = half * math.sqrt(_OF_MEDIAN / num + (self.ground == "kin"))
        return half, math.hypot(common, self._half_of_slope(half, seconds, work_flop))

    def _half_of_slope(self, half: float, seconds: float, work_flop: float) -> float:
        """What an error of the slope does to work that is far from what is known."""
        if not (self.start_s and self.rate):
            return 0.0
        middle = statistics.fmean(flop for flop, _ in self.points)
        spread = math.sqrt(sum((flop - middle) ** 2 for flop, _ in self.points))
        typical_s = math.sqrt(statistics.fmean(took_s**2 for _, took_s in self.points))
        return math.log1p(half * typical_s / spread * abs(work_flop - middle) / seconds)

    def _at(self, flop: float) -> float:
        return self.start_s + self.rate * flop

    def _if_all_was_start_s(self, seconds: float, work_flop: float) -> float:
        """What a trial takes if as much of the known ones as can be was no computing."""
        if self.is_told_apart or not self.rate:
            return seconds
        flop, took_s = max(self.points)
        start_s = min(took_s, _LONGEST_START_S)
        return start_s + (took_s - start_s) * work_flop / flop


def _line_of(group: Sequence[Spent], ground: Ground, is_stated: bool) -> _Line:
    points = _of_cells(group) if ground != "measured" else [(one.work_flop, one.busy_s) for one in group]
    points = points[-_MOST_POINTS:]
    if not is_stated:
        return _Line(statistics.median(took_s for _, took_s in points), 0.0, True, points, len(group), ground)
    slopes = [
        (longer_s - shorter_s) / (longer - shorter)
        for (shorter, shorter_s), (longer, longer_s) in itertools.combinations(sorted(points), 2)
        if longer >= _APART * shorter
    ]
    alone = statistics.median(took_s / flop for flop, took_s in points)
    if not slopes:
        return _Line(0.0, alone, False, points, len(group), ground)
    slope = statistics.median(slopes)
    if slope <= 0:  # longer ones took no longer: only the longest says how little an operation takes
        flop, took_s = max(points)
        return _Line(0.0, took_s / flop, False, points, len(group), ground)
    start_s = statistics.median(took_s - slope * flop for flop, took_s in points)
    if start_s <= 0:
        return _Line(0.0, alone, True, points, len(group), ground)
    return _Line(start_s, slope, True, points, len(group), ground)


def _of_cells(group: Iterable[Spent]) -> list[tuple[float, float]]:
    """One point a cell: ten seeds of one configuration do not tell ten times what another one takes."""
    cells: dict[str, list[Spent]] = {}
    for one in group:
        cells.setdefault(one.cost.cell, []).append(one)
    return [
        (statistics.median(one.work_flop for one in cell), statistics.median(one.busy_s for one in cell))
        for cell in cells.values()
    ]


def _own_half() -> float:
    """How far one trial lies from others of its configuration, where that is not known."""
    return math.log(_FACTORS["measured"]) / math.sqrt(1 + _OF_MEDIAN)


def _quantile(num_free: int) -> float:
    """Student's t of 95 % (Abramowitz and Stegun 26.7.5), from 2 degrees of freedom on to 0.02."""
    z = _Z
    terms = (z**3 + z) / (4 * num_free), (5 * z**5 + 16 * z**3 + 3 * z) / (96 * num_free**2)
    return z + sum(terms)
