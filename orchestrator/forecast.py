"""When a plan will be over: simulated time through the real queue."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.estimates import Estimate, is_measured
from orchestrator.order import Order, QueuedTrial
from orchestrator.plan import TO_RUN, Plan
from orchestrator.queue import TrialQueue
from orchestrator.resources import Amount, Capacity, demand_of
from orchestrator.study import Resources
from trainables.api.trainable import Trainable

# More trials than that take seconds to simulate.
MOST_TRIALS = 3000
_Z = 1.6449  # half an interval for nine cases of ten, in standard deviations


@dataclass(frozen=True)
class Simulated:
    """A trial as the queue knows it, and what it will truly take on its own workers."""

    trial: QueuedTrial
    true_s: float
    spreads: bool = False
    """Whether idle slots may help it."""


@dataclass(frozen=True)
class Forecast:
    """Seconds from the start to the end of a submission, on what the cluster has now."""

    capacity: Capacity
    seconds: float
    low_s: float
    """If all estimates are too high, as far as their intervals go."""
    high_s: float
    longest_chain_s: float
    """No cluster is faster."""


def makespan_s(
    trials: Sequence[Simulated], capacity: Capacity, *, helps: bool = False, max_concurrent: int | None = None
) -> float:
    """Seconds until all trials are over. With ``helps`` idle slots join those that spread, in equal shares.

    The queue sees estimates, and durations when they are over.
    """
    queue = TrialQueue(max_concurrent)
    queue.add([one.trial for one in trials])
    known = {one.trial.key: one for one in trials}
    left: dict[str, float] = {}  # worker seconds of what runs
    now = 0.0
    while not queue.is_finished:
        while (trial := queue.take(now, capacity)) is not None:
            left[trial.key] = known[trial.key].true_s * trial.demand.num_workers
        rate = _rates([known[key] for key in left], capacity, helps)
        passes_s, ended = min((seconds / rate[key], key) for key, seconds in left.items())
        now += passes_s
        left = {key: max(0.0, seconds - passes_s * rate[key]) for key, seconds in left.items() if key != ended}
        queue.end(ended, now, has_result=True)
    return now


def _rates(running: Sequence[Simulated], capacity: Capacity, helps: bool) -> dict[str, float]:
    """How many workers each running trial has."""
    rates = {one.trial.key: float(one.trial.demand.num_workers) for one in running}
    spreading = [one.trial for one in running if one.spreads] if helps else []
    if spreading:
        idle = capacity.left_by(one.trial.demand for one in running)
        for trial in spreading:
            rates[trial.key] += _times(idle, trial.demand.worker) / len(spreading)
    return rates


def _times(idle: Amount, worker: Amount) -> float:
    by_cpu = idle.cpus / worker.cpus if worker.cpus else math.inf
    return max(0.0, min(by_cpu, idle.gpus / worker.gpus if worker.gpus else math.inf))


def forecast_of(
    plan: Plan, resources: Resources, capacity: Capacity, max_concurrent: int | None = None
) -> Forecast | None:
    """The forecast of a plan; None where nothing is to run, or where it is too large to be simulated.

    What a search will add counts as so many trials that wait for nothing.
    """
    usual = _simulated(plan, resources, 0)
    if not usual or len(usual) > MOST_TRIALS:
        return None
    order = Order()
    order.add([one.trial for one in usual])
    longest_s = max(node.priority for node in order.waiting.values())

    def seconds(side: int) -> float:
        trials = _simulated(plan, resources, side)
        return makespan_s(trials, capacity, helps=True, max_concurrent=max_concurrent)

    low_s, middle_s, high_s = (seconds(side) for side in (-1, 0, 1))
    return Forecast(capacity, middle_s, min(low_s, middle_s), max(high_s, middle_s), longest_s)


def _simulated(plan: Plan, resources: Resources, side: int) -> list[Simulated]:
    """The trials with durations at the lower end of what they have in common, in its middle, or at its upper end."""
    rng = random.Random(0)
    to_run = [p for p in plan.planned if p.state in TO_RUN]
    keys = {p.trial.key for p in to_run}
    trials = []
    for p in to_run:
        assert p.estimate is not None
        one = _one(p.trial.trainable, p.trial.key, p.estimate, resources, _drawn_s(p.estimate, side, rng))
        upstream = tuple(key for key in p.trial.upstream if key in keys)
        queued = replace(one.trial, upstream=upstream, family=p.trial.family, length=p.trial.length)
        trials.append(replace(one, trial=queued))
    for place, more in enumerate(plan.expected):
        for number in range(min(more.count, MOST_TRIALS)):
            drawn_s = _drawn_s(more.estimate, side, rng)
            trials.append(_one(more.trainable, f"to come {place} {number}", more.estimate, resources, drawn_s))
    return trials


def _one(trainable: Trainable, key: str, estimate: Estimate, resources: Resources, true_s: float) -> Simulated:
    demand = demand_of(trainable, resources)
    kind, width = type(trainable).__name__, demand.num_workers
    queued = QueuedTrial(key, demand, (), estimate.seconds / width, kind, is_measured(estimate.ground))
    return Simulated(queued, true_s / width, trainable.spreads == "items")


def _drawn_s(estimate: Estimate, side: int, rng: random.Random) -> float:
    middle_s = (estimate.least_s, estimate.seconds, estimate.most_s)[side + 1]
    return middle_s * math.exp(estimate.own / _Z * rng.gauss(0.0, 1.0))
