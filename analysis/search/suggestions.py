"""What a search tried and what came of it: its suggestions with the values of their seeds, the best, the front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.results import look_up
from orchestrator.store import Result, Store

State = Literal["complete", "failed", "running", "lost"]


@dataclass(frozen=True)
class Objective:
    """A measure and whether more or less of it is better."""

    name: str
    direction: Literal["maximize", "minimize"]

    def gain(self, value: float, reference: float) -> float:
        """How much better ``value`` is; negative where it is worse."""
        return value - reference if self.direction == "maximize" else reference - value

    def best(self, values: Sequence[float]) -> float:
        return max(values) if self.direction == "maximize" else min(values)

    def worst(self, values: Sequence[float]) -> float:
        return min(values) if self.direction == "maximize" else max(values)


@dataclass(frozen=True)
class Parameter:
    """One axis of the space: a range of numbers, or choices (as text)."""

    name: str
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    choices: tuple[str, ...] = ()

    def place(self, params: Mapping[str, Any]) -> float | str:
        """Where a suggestion lies on this axis."""
        value = params[self.name]
        return str(value) if self.choices else float(value)

    def text(self) -> str:
        """The range in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return f"{self.low:g} to {self.high:g}" + (", on a log scale" if self.is_log else "")


@dataclass(frozen=True)
class Suggestion:
    """One point of the space.

    ``seed_values``: objective -> the value of each of its trainables; empty unless the suggestion is complete.
    ``state``: ``lost`` is one that was complete and whose results are no longer in the storage. ``reasons``: why it
    has no value.
    """

    number: int
    params: Mapping[str, Any]
    state: State
    seed_values: Mapping[str, tuple[float, ...]]
    keys: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def mean(self, objective: Objective) -> float:
        return statistics.fmean(self.seed_values[objective.name])

    def std(self, objective: Objective) -> float | None:
        """Standard deviation over the seeds (n - 1 in the denominator); None of one seed."""
        values = self.seed_values[objective.name]
        return statistics.stdev(values) if len(values) > 1 else None

    def num_seeds(self, objective: Objective) -> int:
        return len(self.seed_values[objective.name])


@dataclass(frozen=True)
class SearchResults:
    """A search as far as it has come; suggestions by their number."""

    objectives: tuple[Objective, ...]
    space: tuple[Parameter, ...]
    num_suggestions: int
    suggestions: tuple[Suggestion, ...]

    @property
    def complete(self) -> list[Suggestion]:
        """Those with a value, by number."""
        return [suggestion for suggestion in self.suggestions if suggestion.state == "complete"]

    def ranked(self, objective: Objective) -> list[Suggestion]:
        """Those with a value, best first; of equals the earlier first."""
        return sorted(self.complete, key=lambda s: (-objective.gain(s.mean(objective), 0.0), s.number))

    def best_so_far(self, objective: Objective) -> list[float]:
        """After each complete suggestion, by number, the best mean until then."""
        means = [suggestion.mean(objective) for suggestion in self.complete]
        return [objective.best(means[: end + 1]) for end in range(len(means))]

    def front(self) -> list[Suggestion]:
        """The complete suggestions that no other beats: equal or better in all objectives, better in one."""
        return [one for one in self.complete if not any(self._beats(other, one) for other in self.complete)]

    def _beats(self, one: Suggestion, other: Suggestion) -> bool:
        gains = [objective.gain(one.mean(objective), other.mean(objective)) for objective in self.objectives]
        return min(gains) >= 0 and max(gains) > 0


def is_apart(better: Suggestion, other: Suggestion, objective: Objective) -> bool | None:
    """Whether every seed of one beats every seed of the other; None where one of them has a single seed."""
    if min(better.num_seeds(objective), other.num_seeds(objective)) < 2:
        return None
    least = objective.worst(better.seed_values[objective.name])
    return objective.gain(least, objective.best(other.seed_values[objective.name])) > 0


def num_seeds_won(better: Suggestion, other: Suggestion, objective: Objective) -> int | None:
    """In how many seeds one beats the other, seeds taken as pairs in their order; None where their numbers differ."""
    if better.num_seeds(objective) != other.num_seeds(objective):
        return None
    pairs = zip(better.seed_values[objective.name], other.seed_values[objective.name], strict=True)
    return sum(objective.gain(value, reference) > 0 for value, reference in pairs)


def load_search(store: Store, manifest: Mapping[str, Any]) -> SearchResults:
    """The search of a manifest, with the values of single seeds from the store; no file of a trial is fetched."""
    search = manifest["search"]
    objectives = tuple(Objective(name, direction) for name, direction in search["directions"].items())
    space = tuple(_parameter(name, distribution) for name, distribution in search["space"].items())
    found = sorted(search["suggestions"], key=lambda suggestion: int(suggestion["number"]))
    entries = list(manifest["trials"])
    known = {entry["key"] for entry in entries}
    entries += [{"key": key, "upstream": []} for key in _keys(found) if key not in known]
    results, reasons = look_up(store, entries)
    suggestions = tuple(_suggestion(document, objectives, results, reasons) for document in found)
    return SearchResults(objectives, space, int(search["num_suggestions"]), suggestions)


def _parameter(name: str, distribution: Mapping[str, Any]) -> Parameter:
    attributes = distribution["attributes"]
    if "choices" in attributes:
        return Parameter(name, choices=tuple(str(choice) for choice in attributes["choices"]))
    return Parameter(name, float(attributes["low"]), float(attributes["high"]), bool(attributes["log"]))


def _keys(suggestions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of all trials of these suggestions, each once."""
    return list(dict.fromkeys(key for found in suggestions for keys in found["trials"].values() for key in keys))


def _suggestion(
    document: Mapping[str, Any],
    objectives: Sequence[Objective],
    results: Mapping[str, Result],
    reasons: Mapping[str, str],
) -> Suggestion:
    keys = tuple(_keys([document]))
    lacking = [reasons[key] for key in keys if key in reasons]
    for objective in objectives:
        reported = [results[key].metrics for key in document["trials"].get(objective.name, ()) if key in results]
        lacking += [
            f"reports no {objective.name}, but {', '.join(sorted(metrics)) or 'nothing'}"
            for metrics in reported
            if objective.name not in metrics
        ]
    state: State = document["state"]
    if state == "complete" and not lacking:
        values = {o.name: tuple(results[k].metrics[o.name] for k in document["trials"][o.name]) for o in objectives}
        return Suggestion(document["number"], document["params"], state, values, keys)
    told = document.get("reason") or "all its trials are done, the search has not counted it yet"
    why = tuple(dict.fromkeys(lacking)) or (told,)
    return Suggestion(document["number"], document["params"], "lost" if state == "complete" else state, {}, keys, why)
