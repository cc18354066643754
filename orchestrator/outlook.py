"""What a submission will cost and when it will be over, before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.budget import Budget
from orchestrator.cost_text import cost_lines, forecast_line
from orchestrator.costs import Costs, costs_of, resources_of
from orchestrator.devices import capacity_here
from orchestrator.forecast import MOST_TRIALS, Forecast, forecast_of
from orchestrator.options import StudyOptions
from orchestrator.plan import TO_RUN, Plan
from orchestrator.provenance import first_line
from orchestrator.resources import Capacity, demand_of
from orchestrator.since import Since, since_last, since_lines
from orchestrator.store import Store
from orchestrator.usage import UsageError
from trainables.api.identity import Keys


@dataclass(frozen=True)
class Outlook:
    """What a plan will cost, and when it will be over; the latter where that is known."""

    costs: Costs
    forecast: Forecast | None = None
    no_forecast_because: str = ""
    changes: tuple[str, ...] = ()
    """Lines on what has changed since the last submission, if that was asked."""
    since: Since | None = None
    budget: Budget | None = None

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        forecast = self.forecast
        times = {
            "makespan_s": forecast.seconds if forecast else None,
            "makespan_interval_s": [forecast.low_s, forecast.high_s] if forecast else None,
            "longest_chain_s": forecast.longest_chain_s if forecast else None,
        }
        changes = {"difference": self.since.to_json() if self.since else None} if self.changes else {}
        budget = {"budget": self.budget.to_json()} if self.budget else {}
        return {**self.costs.to_json(), **times, **changes, **budget}

    def lines(self) -> list[str]:
        """For people."""
        time = forecast_line(self.forecast) if self.forecast else self.no_forecast_because
        budget = self.budget.line if self.budget else ""
        return [*self.changes, *cost_lines(self.costs), *(line for line in (time, budget) if line)]


def outlook_of(plan: Plan, options: StudyOptions, store: Store, keys: Keys, budget: Budget | None = None) -> Outlook:
    """The outlook of a plan. A cluster that is named is asked what it has; on this machine Ray is not loaded."""
    outlook = replace(_without_difference(plan, options), budget=budget)
    if not options.diff:
        return outlook
    since = since_last(plan, store, keys)
    return replace(outlook, since=since, changes=tuple(since_lines(since, plan, resources_of(plan, options))))


def _without_difference(plan: Plan, options: StudyOptions) -> Outlook:
    resources = resources_of(plan, options)
    costs = costs_of(plan, resources)
    if not costs.rows:
        return Outlook(costs)
    try:
        capacity = _capacity(options.address)
    except (UsageError, ValueError) as error:
        return Outlook(costs, no_forecast_because=f"when it will be over is not known: {first_line(error)}")
    trainables = [p.trial.trainable for p in plan.planned if p.state in TO_RUN]
    if not capacity.can_grow and not all(capacity.can_hold(demand_of(t, resources)) for t in trainables):
        return Outlook(costs, no_forecast_because="when it will be over is not known: one of the trials fits no node")
    forecast = forecast_of(plan, resources, capacity, options.max_concurrent)
    because = "" if forecast else f"when it will be over is told of {MOST_TRIALS} trials at most"
    return Outlook(costs, forecast, because)


def _capacity(address: str | None) -> Capacity:
    if (address or os.environ.get("RAY_ADDRESS") or "local") == "local":
        return capacity_here()
    from orchestrator.cluster import Cluster, capacity  # Ray is slow to load

    with Cluster(address):
        return capacity()
