"""``--budget``: which trials of a plan are paid for, at the upper ends of what they may cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.costs import Price, price_of, resources_of, upstream_of
from orchestrator.estimates import Ground
from orchestrator.options import StudyOptions
from orchestrator.plan import TO_RUN, Plan, PlannedTrial
from orchestrator.study import Resources
from orchestrator.usage import UsageError

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Budget:
    """What a submission may spend, and what of its plan that pays for."""

    text: str
    """As it was given."""
    keys: frozenset[str]
    """Of the trials that may start."""
    at_most_h: float
    """The upper end of what they cost together."""
    num_to_run: int
    left_out: tuple[str, ...]
    """Names of the trials of the study that do not fit, in its order."""
    next_needs_h: float = 0.0
    """What the first of them would add, at most."""

    @property
    def line(self) -> str:
        """For people; hours are those of the devices that the budget counts."""
        if not self.num_to_run:
            return f"budget {self.text}: nothing is to run"
        fits = f"{len(self.keys)} of {self.num_to_run} trials fit ({_number(self.at_most_h)} h at most)"
        said = f"budget {self.text}: {fits}"
        if not self.left_out:
            return said
        num = self.num_to_run - len(self.keys)
        return f"{said}; not started: {num}, the first {self.left_out[0]!r} needs {_number(self.next_needs_h)} h"

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self) | {"keys": sorted(self.keys), "left_out": list(self.left_out)}

    def of(self, plan: Plan) -> Plan:
        """The plan without what is not paid for."""
        kept = (p for p in plan.planned if p.state not in TO_RUN or p.trial.key in self.keys)
        return replace(plan, planned=tuple(kept))


def budget_of(plan: Plan, options: StudyOptions) -> Budget | None:
    """The trials that the study names are taken in its order, each with all that it waits for, as long as their costs
    fit together; one that does not fit is passed. None where no budget was given.

    Raises UsageError where a budget cannot be held: of a cost that nobody knows, of a search that has still to suggest,
    of GPUs where there is none.
    """
    if options.budget is None:
        return None
    is_of_gpus, limit_h = options.budget_h
    resources = resources_of(plan, options)
    _check(plan, options.budget, is_of_gpus, resources)
    to_run = {p.trial.key: p for p in plan.planned if p.state in TO_RUN}
    spent, keys, left_out, next_needs_h = _Spending(), set[str](), list[str](), 0.0
    for name, planned in _named(plan, to_run).items():
        wanted = [p for key, p in upstream_of(planned, to_run, with_shorter=True).items() if key not in keys]
        with_it = spent.with_more(wanted, is_of_gpus, plan, resources)
        if with_it.at_most_s <= limit_h * _HOUR_S:
            spent = with_it
            keys.update(p.trial.key for p in wanted)
            continue
        if not left_out:
            next_needs_h = (with_it.at_most_s - spent.at_most_s) / _HOUR_S
        left_out.append(name)
    at_most_h = spent.at_most_s / _HOUR_S
    return Budget(options.budget, frozenset(keys), at_most_h, len(to_run), tuple(left_out), next_needs_h)


def _check(plan: Plan, text: str, is_of_gpus: bool, resources: Resources) -> None:
    if plan.is_to_go_on:
        raise UsageError(
            f"--budget {text}: a search decides what it tries as it goes, so its cost is not bounded beforehand; "
            "bound it by --num-suggestions, and leave --budget out"
        )
    if is_of_gpus and (plan.devices.gpu is None or not resources.gpus):
        raise UsageError(
            f"--budget {text}: no trial gets a GPU here, as far as is known; give hours of CPUs, such as 40cpuh"
        )
    guessed = [p for p in plan.planned if p.state in TO_RUN and _price(p, is_of_gpus, plan, resources).times]
    guessed = [p for p in guessed if p.estimate is not None and p.estimate.ground == "guess"]
    if guessed:
        kinds = ", ".join(sorted({type(p.trial.trainable).__name__ for p in guessed}))
        smallest = min(guessed, key=lambda p: p.estimated_s or 0.0)
        raise UsageError(
            f"--budget {text}: nobody knows what {kinds} will cost, as nothing of the kind has finished on such a "
            f"device in this storage. Run the smallest first, such as {smallest.trial.name!r}, or --scale smoke"
        )


def _named(plan: Plan, to_run: Mapping[str, PlannedTrial]) -> dict[str, PlannedTrial]:
    """The trials that the study names and that are to run, in its order."""
    by_name = {p.trial.name: p for p in to_run.values()}
    return {name: by_name[name] for name in plan.study.trials if name in by_name}


def _price(planned: PlannedTrial, is_of_gpus: bool, plan: Plan, resources: Resources) -> Price:
    """What counts of a trial: of CPUs all of them do, also beside a GPU."""
    if not is_of_gpus:
        return Price("core", resources.cpus)
    price = price_of(planned.trial.trainable.uses_gpu, plan, resources)
    return price if price.unit == "GPU" else Price("GPU", 0.0)


@dataclass(frozen=True)
class _Part:
    """Seconds of the trials of one class that are taken; what is wrong with their estimates they have in common."""

    seconds: float = 0.0
    most_s: float = 0.0
    variance: float = 0.0  # of each one's own

    @property
    def beyond_s(self) -> float:
        """From the estimate to its upper end (as in ``costs.amount_of``)."""
        if not self.seconds:
            return 0.0
        own = math.sqrt(self.variance) / self.seconds
        return self.seconds * math.expm1(math.hypot(math.log(self.most_s / self.seconds), own))


class _Spending:
    """What the trials that are taken cost together, at most."""

    def __init__(self, parts: Mapping[tuple[str, Ground], _Part] | None = None) -> None:
        self._parts = dict(parts or {})

    @property
    def at_most_s(self) -> float:
        """The upper end: classes are wrong independently of each other (as in ``costs.total_of``)."""
        parts = self._parts.values()
        return math.fsum(part.seconds for part in parts) + math.hypot(*(part.beyond_s for part in parts))

    def with_more(
        self, trials: Iterable[PlannedTrial], is_of_gpus: bool, plan: Plan, resources: Resources
    ) -> _Spending:
        """And these."""
        parts = dict(self._parts)
        for p in trials:
            times = _price(p, is_of_gpus, plan, resources).times
            assert p.estimate is not None
            if times:
                group = type(p.trial.trainable).__name__, p.estimate.ground
                part, estimate = parts.get(group, _Part()), p.estimate.times(times)
                parts[group] = _Part(
                    part.seconds + estimate.seconds,
                    part.most_s + estimate.most_s,
                    part.variance + (estimate.own * estimate.seconds) ** 2,
                )
        return _Spending(parts)


def _number(hours: float) -> str:
    return f"{hours:.3g}" if hours < 100 else f"{hours:,.0f}"
