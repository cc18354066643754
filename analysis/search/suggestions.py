"""What a search tried and what came of it: its suggestions with the values of their seeds, the best, the front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
class Stage:
    """A suggestion at one length of a search with rungs; fields as those of the suggestion."""

    length: int
    state: State
    seed_values: Mapping[str, tuple[float, ...]]
    keys: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suggestion:
    """One point of the space.

    ``seed_values``: objective -> the value of each of its trainables; empty unless the suggestion is complete.
    ``state``: ``lost`` is one that was complete and whose results are no longer in the storage. ``reasons``: why it
    has no value. With rungs, all of them are of the longest length at which it has a value (``length``), or of its
    first; ``stages`` are all lengths that it was trained for, the shortest first.
    """

    number: int
    params: Mapping[str, Any]
    state: State
    seed_values: Mapping[str, tuple[float, ...]]
    keys: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    length: int | None = None
    stages: tuple[Stage, ...] = ()

    def at(self, length: int | None) -> Suggestion:
        """The suggestion with its values at a length that it has reached."""
        stage = next((stage for stage in self.stages if stage.length == length), None)
        if stage is None:
            return self
        return replace(self, state=stage.state, seed_values=stage.seed_values, keys=stage.keys, length=length)

    @property
    def all_keys(self) -> set[str]:
        """Keys of its trials, of all lengths."""
        return {*self.keys, *(key for stage in self.stages for key in stage.keys)}

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
    lengths: tuple[int, ...] = ()
    """Of the rungs; empty where every suggestion is trained to the end."""
    reduction: int = 0

    @property
    def complete(self) -> list[Suggestion]:
        """Those with a value, by number."""
        return [suggestion for suggestion in self.suggestions if suggestion.state == "complete"]

    @property
    def longest(self) -> int | None:
        """With rungs, the longest length at which any suggestion has a value."""
        return max((suggestion.length or 0 for suggestion in self.complete), default=0) or None

    @property
    def compared(self) -> list[Suggestion]:
        """Those with a value at the longest length that any has reached, by number; all with a value without rungs."""
        return [suggestion for suggestion in self.complete if suggestion.length == self.longest]

    def ranked(self, objective: Objective) -> list[Suggestion]:
        """Those with a value, the longer trained before the shorter, then the better; of equals the earlier first."""
        return sorted(
            self.complete, key=lambda s: (-(s.length or 0), -objective.gain(s.mean(objective), 0.0), s.number)
        )

    def best_so_far(self, objective: Objective) -> list[float]:
        """After each suggestion that is compared, by number, the best mean until then."""
        means = [suggestion.mean(objective) for suggestion in self.compared]
        return [objective.best(means[: end + 1]) for end in range(len(means))]

    def front(self) -> list[Suggestion]:
        """Those compared that no other beats: equal or better in all objectives, better in one."""
        return [one for one in self.compared if not any(self._beats(other, one) for other in self.compared)]

    def epochs(self) -> tuple[int, int]:
        """Of a search with rungs: epochs that were trained, over all seeds, and those of all its suggestions to the
        end. What failed or runs counts up to where it began, in the second number as if it had come to the end."""
        trained = whole = 0
        for suggestion in self.suggestions:
            done = [stage for stage in suggestion.stages if stage.state == "complete"]
            trained += done[-1].length * len(done[-1].keys) if done else 0
            whole += self.lengths[-1] * len(suggestion.stages[0].keys)
        return trained, whole

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
    rungs = search.get("rungs") or {"lengths": (), "reduction": 0}
    lengths = tuple(int(length) for length in rungs["lengths"])
    return SearchResults(
        objectives, space, int(search["num_suggestions"]), suggestions, lengths, int(rungs["reduction"])
    )


def _parameter(name: str, distribution: Mapping[str, Any]) -> Parameter:
    attributes = distribution["attributes"]
    if "choices" in attributes:
        return Parameter(name, choices=tuple(str(choice) for choice in attributes["choices"]))
    return Parameter(name, float(attributes["low"]), float(attributes["high"]), bool(attributes["log"]))


def _keys(suggestions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of all trials of these suggestions, each once."""
    stages = [stage for found in suggestions for stage in found.get("rungs") or [found]]
    return list(dict.fromkeys(key for stage in stages for keys in stage["trials"].values() for key in keys))


def _suggestion(
    document: Mapping[str, Any],
    objectives: Sequence[Objective],
    results: Mapping[str, Result],
    reasons: Mapping[str, str],
) -> Suggestion:
    number, params = document["number"], document["params"]
    if not document.get("rungs"):
        stage = _stage(document, objectives, results, reasons)
        return Suggestion(number, params, stage.state, stage.seed_values, stage.keys, stage.reasons)
    stages = tuple(_stage(rung, objectives, results, reasons) for rung in document["rungs"])
    reached = next((stage for stage in reversed(stages) if stage.state == "complete"), stages[0])
    told = (reached.state, reached.seed_values, reached.keys, reached.reasons, reached.length)
    return Suggestion(number, params, *told, stages)


def _stage(
    document: Mapping[str, Any],
    objectives: Sequence[Objective],
    results: Mapping[str, Result],
    reasons: Mapping[str, str],
) -> Stage:
    """What the storage says of a suggestion, or of one at a length."""
    length, keys = int(document.get("length", 0)), tuple(_keys([{"trials": document["trials"]}]))
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
        return Stage(length, state, values, keys)
    told = document.get("reason") or "all its trials are done, the search has not counted it yet"
    why = tuple(dict.fromkeys(lacking)) or (told,)
    return Stage(length, "lost" if state == "complete" else state, {}, keys, why)
