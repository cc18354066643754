"""Costs in words: the lines below a plan, and the phrase before trials run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from orchestrator.costs import UNITS, Amount, ClassCost, Costs, Unit
from orchestrator.devices import device_text
from orchestrator.estimates import Ground
from orchestrator.forecast import Forecast
from orchestrator.view import duration_text

# The largest cost decides: up to so many seconds it is told in these.
_SCALES = ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (float("inf"), 3600.0, "h"))
_SUMMARY: dict[Ground, str] = {
    "measured": "measured",
    "rehearsed": "rehearsed",
    "kin": "from trials of the kind",
    "guess": "a guess, nothing of the kind has finished on such a device",
}


def cost_lines(costs: Costs) -> list[str]:
    """A table of the costs by class, and what sharing and growth save; nothing where nothing is to run."""
    if not costs.rows:
        return []
    scale_s, scale = _scale(row.amount.seconds for row in costs.rows)
    cells = [_cells(row, scale_s, scale) for row in costs.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["cost by trainable, in time of devices (in brackets: nine in ten are within)"]
    for kind, count, amount, interval, ground in cells:
        aligned = f"{kind:{widths[0]}}  {count:>{widths[1]}}  {amount:>{widths[2]}}  {interval:{widths[3]}}"
        lines.append(f"  {aligned}  {ground}")
    return [*lines, *_saved_lines(costs)]


def forecast_line(forecast: Forecast) -> str:
    """When it will be over."""
    total = forecast.capacity.total
    has = ([f"{total.gpus:g} GPU"] if total.gpus else []) + [f"{total.cpus:g} CPU"]
    low, high = duration_text(forecast.low_s), duration_text(forecast.high_s)
    chain = duration_text(forecast.longest_chain_s)
    return (
        f"on {', '.join(has)} now: about {duration_text(forecast.seconds)} ({low} to {high}); the longest chain takes "
        f"{chain}"
    )


def work_text(costs: Costs) -> str:
    """The sum in a phrase that says what it rests on."""
    totals = [(unit, costs.total(unit)) for unit in UNITS]
    said = " and ".join(amount_text(amount, unit) for unit, amount in totals if amount.seconds)
    return f"about {said} ({_grounds_text(costs.rows)})"


def amount_text(amount: Amount, unit: Unit) -> str:
    """An amount by itself: ``118 GPU-h``."""
    scale_s, scale = _scale([amount.seconds])
    return f"{_number(amount.seconds / scale_s)} {unit}-{scale}"


def _grounds_text(rows: Iterable[ClassCost]) -> str:
    kinds: dict[Ground, list[str]] = {}
    for row in rows:
        if row.kind not in kinds.setdefault(row.ground, []):
            kinds[row.ground].append(row.kind)
    return "; ".join(f"{', '.join(kinds[ground])}: {said}" for ground, said in _SUMMARY.items() if ground in kinds)


def _cells(row: ClassCost, scale_s: float, scale: str) -> tuple[str, str, str, str, str]:
    amount = row.amount
    low, middle, high = (_number(s / scale_s) for s in (amount.low_s, amount.seconds, amount.high_s))
    count = f"{row.count} {'to come' if row.is_to_come else 'to run'}"
    return row.kind, count, f"{middle} {row.unit}-{scale}", f"({low}-{high})", _ground_text(row)


def _ground_text(row: ClassCost) -> str:
    least, most = row.num_measured
    on = f"{least}" if least == most else f"{least} to {most} each"
    words: dict[Ground, str] = {
        "measured": f"measured on {on}, {device_text(row.device)}",
        "rehearsed": f"rehearsed, {device_text(row.device)}",
        "kin": "from trials of its kind",
        "guess": f"a guess: nothing of the kind has finished on {device_text(row.device)}",
    }
    return words[row.ground]


def _saved_lines(costs: Costs) -> list[str]:
    ways = {
        "one training for all that share it saves": costs.saved_by_sharing_s,
        "going on from shorter ones saves": costs.saved_by_growth_s,
    }
    said = [f"{way} {saved}" for way, amounts in ways.items() if (saved := _saved_text(amounts))]
    return ["; ".join(said)] if said else []


def _saved_text(saved_s: Mapping[Unit, float]) -> str:
    """Without what is too little to be said."""
    largest_s = max(saved_s.values(), default=0.0)
    worth = [(unit, s) for unit, s in saved_s.items() if s >= 1.0 and s > 0.001 * largest_s]
    return " and ".join(amount_text(Amount(s, s, s), unit) for unit, s in worth)


def _scale(seconds: Iterable[float]) -> tuple[float, str]:
    largest_s = max(itertools.chain(seconds, [0.0]))
    return next((unit_s, name) for most_s, unit_s, name in _SCALES if largest_s <= most_s)


def _number(value: float) -> str:
    """Two digits, or all before the point: ``1,840``, ``34``, ``0.9``, ``0.04``."""
    if value >= 9.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"
