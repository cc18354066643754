"""What a plan will cost, by class of trainable, in seconds of GPUs and of cores; and what sharing and growth save."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.estimates import Estimate, Ground
from orchestrator.options import StudyOptions
from orchestrator.plan import TO_RUN, Plan, PlannedTrial
from orchestrator.study import Resources

Unit = Literal["GPU", "core"]
UNITS: tuple[Unit, ...] = ("GPU", "core")


@dataclass(frozen=True)
class Amount:
    """Seconds of one kind of device, with an interval for nine cases of ten."""

    seconds: float
    low_s: float
    high_s: float


@dataclass(frozen=True)
class ClassCost:
    """What the trials of one class will cost together, as far as they are known from the same things."""

    kind: str
    count: int
    is_to_come: bool
    """Of a search: not planned yet."""
    unit: Unit
    amount: Amount
    ground: Ground
    num_measured: tuple[int, int]
    """On how many finished trials it rests, at least and at most."""
    device: str
    """What they will compute on."""


@dataclass(frozen=True)
class Costs:
    """All that a plan has to pay, and what it need not."""

    rows: tuple[ClassCost, ...]
    saved_by_sharing_s: Mapping[Unit, float]
    """What those of the named trials that are to run would cost beyond this, had each of them its own upstream."""
    saved_by_growth_s: Mapping[Unit, float]
    """What trainings need not compute because shorter ones did."""

    def total(self, unit: Unit) -> Amount:
        """The sum over all classes."""
        return total_of(row for row in self.rows if row.unit == unit)

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        saved = {"sharing": dict(self.saved_by_sharing_s), "growth": dict(self.saved_by_growth_s)}
        return {"costs": [asdict(row) for row in self.rows], "saved_s": saved}


@dataclass(frozen=True)
class Price:
    """What a second of work of a trial occupies."""

    unit: Unit
    times: float


def price_of(uses_gpu: bool, plan: Plan, resources: Resources) -> Price:
    """GPUs where the trial computes on one, else cores."""
    if uses_gpu and resources.gpus and plan.devices.gpu is not None:
        return Price("GPU", resources.gpus)
    return Price("core", resources.cpus)


def amount_of(estimates: Iterable[tuple[Estimate, int]], times: float = 1.0) -> Amount:
    """The sum over so many trials of each estimate: all of them are off by one error, and each by one of its own."""
    seconds = least_s = most_s = variance = 0.0
    for estimate, count in estimates:
        seconds += count * estimate.seconds
        least_s += count * estimate.least_s
        most_s += count * estimate.most_s
        variance += count * (estimate.own * estimate.seconds) ** 2
    if not seconds:
        return Amount(0.0, 0.0, 0.0)
    own = math.sqrt(variance) / seconds
    low_s = seconds * math.exp(-math.hypot(math.log(seconds / least_s), own))
    high_s = seconds * math.exp(math.hypot(math.log(most_s / seconds), own))
    return Amount(seconds * times, low_s * times, high_s * times)


def total_of(rows: Iterable[ClassCost]) -> Amount:
    """The sum over classes. What was measured is off in each class by itself, guesses are all off alike."""
    rows = list(rows)
    parts = [row.amount for row in rows if row.ground != "guess"]
    guesses = [row.amount for row in rows if row.ground == "guess"]
    if guesses:
        parts.append(Amount(*(math.fsum(getattr(g, name) for g in guesses) for name in ("seconds", "low_s", "high_s"))))
    seconds = math.fsum(part.seconds for part in parts)
    low_s = seconds - math.hypot(*(part.seconds - part.low_s for part in parts))
    return Amount(seconds, low_s, seconds + math.hypot(*(part.high_s - part.seconds for part in parts)))


def costs_of(plan: Plan, resources: Resources) -> Costs:
    """What is to run, and what a search will add, by class."""
    to_run = [p for p in plan.planned if p.state in TO_RUN]
    rows = tuple(_rows(plan, to_run, resources))
    return Costs(rows, _saved_by_sharing(plan, to_run, resources), _saved_by_growth(plan, to_run, resources))


def resources_of(plan: Plan, options: StudyOptions) -> Resources:
    """What a worker will get: what is asked for, or what it gets where there are such devices as the plan thinks."""
    gpus = (0.0 if plan.devices.gpu is None else 1.0) if options.gpus_per_trial is None else options.gpus_per_trial
    return Resources(options.cpus_per_trial, gpus, options.workers_per_trial)


def _rows(plan: Plan, to_run: Sequence[PlannedTrial], resources: Resources) -> list[ClassCost]:
    """A row for each class, ground and unit, in the order of the plan; what a search will add after what is planned."""
    groups: dict[tuple[bool, str, bool, Ground], list[tuple[Estimate, int]]] = {}
    for p in to_run:
        trainable, estimate = p.trial.trainable, p.estimate
        assert estimate is not None
        key = (False, type(trainable).__name__, trainable.uses_gpu, estimate.ground)
        groups.setdefault(key, []).append((estimate, 1))
    for one in plan.expected:
        key = (True, type(one.trainable).__name__, one.trainable.uses_gpu, one.estimate.ground)
        groups.setdefault(key, []).append((one.estimate, one.count))
    rows = []
    for (is_to_come, kind, uses_gpu, ground), estimates in groups.items():
        price = price_of(uses_gpu, plan, resources)
        numbers = [estimate.num for estimate, _ in estimates]
        count, amount = sum(count for _, count in estimates), amount_of(estimates, price.times)
        num_measured, device = (min(numbers), max(numbers)), plan.devices.of(uses_gpu)
        rows.append(ClassCost(kind, count, is_to_come, price.unit, amount, ground, num_measured, device))
    return rows


def _saved_by_sharing(plan: Plan, to_run: Sequence[PlannedTrial], resources: Resources) -> dict[Unit, float]:
    """One of n named trials that need a trial pays for it; n - 1 do not."""
    known = {p.trial.key: p for p in to_run}
    needed_by: dict[str, int] = {}
    for p in to_run:
        if p.trial.name in plan.study.trials:
            for key in upstream_of(p, known):
                needed_by[key] = needed_by.get(key, 0) + 1
    saved: dict[Unit, float] = dict.fromkeys(UNITS, 0.0)
    for key, count in needed_by.items():
        planned = known[key]
        price = price_of(planned.trial.trainable.uses_gpu, plan, resources)
        saved[price.unit] += (count - 1) * (planned.estimated_s or 0.0) * price.times
    return saved


def _saved_by_growth(plan: Plan, to_run: Sequence[PlannedTrial], resources: Resources) -> dict[Unit, float]:
    saved: dict[Unit, float] = dict.fromkeys(UNITS, 0.0)
    for p in to_run:
        if p.continues is not None:
            price = price_of(p.trial.trainable.uses_gpu, plan, resources)
            saved[price.unit] += p.continues.saved_s * price.times
    return saved


def upstream_of(
    planned: PlannedTrial, known: Mapping[str, PlannedTrial], *, with_shorter: bool = False
) -> dict[str, PlannedTrial]:
    """A trial and all that it waits for, of those that are ``known``, by key.

    ``with_shorter``: also the shorter trainings from which these go on; without them they cost more.
    """
    found: dict[str, PlannedTrial] = {}
    left = [planned]
    while left:
        one = left.pop()
        if one.trial.key not in found:
            found[one.trial.key] = one
            before = [*one.trial.upstream, *([one.continues.key] if with_shorter and one.continues else [])]
            left += [known[key] for key in before if key in known]
    return found
