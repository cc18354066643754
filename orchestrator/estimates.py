"""What trials will cost, by what finished ones did: the nearest kin that is there tells."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Nothing has run in this store: the rate of one core of today on convolutions. Wrong by a factor, and said to be.
_ASSUMED_FLOP_PER_S = 1e11
# What a trial takes whatever it computes: its libraries are loaded, its files are read and written.
_ASSUMED_START_S = 2.0
# A trial that does not say how much it computes, before any of its kind has run: not nothing, and too little to go
# before one that others wait for.
_ASSUMED_S = 0.1


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


@dataclass(frozen=True)
class Spent:
    """A finished trial: seconds of work, summed over its workers, and the work that it did itself."""

    cost: Cost
    busy_s: float
    work_flop: float


class Estimates:
    """Seconds of work, on one worker, from finished trials: of the same cell, else of the same class, else of others
    that compute on the same devices, else of any; else a guess."""

    def __init__(self, spent: Iterable[Spent]) -> None:
        rates: dict[tuple[str, ...], list[float]] = {}
        seconds: dict[tuple[str, ...], list[float]] = {}
        for one in spent:
            if one.busy_s <= 0:
                continue
            groups = _groups(one.cost)
            if one.work_flop > 0:
                rate = one.busy_s / one.work_flop
                for group in groups:
                    rates.setdefault(group, []).append(rate)
            for group in groups[:2]:
                seconds.setdefault(group, []).append(one.busy_s)
        self._rates, self._seconds = _medians(rates), _medians(seconds)

    def seconds(self, cost: Cost) -> float:
        """What the whole trial costs, always positive."""
        groups = _groups(cost)
        if cost.work_flop > 0:
            known = next((self._rates[group] for group in groups if group in self._rates), None)
            return _ASSUMED_START_S + cost.work_flop / _ASSUMED_FLOP_PER_S if known is None else cost.work_flop * known
        return next((self._seconds[group] for group in groups[:2] if group in self._seconds), _ASSUMED_S)

    def is_measured(self, cost: Cost) -> bool:
        """Whether the estimate comes from trials of the same class."""
        known: Mapping[tuple[str, ...], float] = self._rates if cost.work_flop > 0 else self._seconds
        return ("kind", cost.kind) in known


def _groups(cost: Cost) -> list[tuple[str, ...]]:
    """What a trial belongs to, the nearest kin first."""
    return [("cell", cost.cell), ("kind", cost.kind), ("device", "GPU" if cost.uses_gpu else "CPU"), ("any",)]


def _medians(values: Mapping[tuple[str, ...], list[float]]) -> dict[tuple[str, ...], float]:
    return {group: statistics.median(of_group) for group, of_group in values.items()}
