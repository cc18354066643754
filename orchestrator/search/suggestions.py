"""The points of a search: those that the store remembers, and new ones from Optuna's sampler.

The store is the state here too. It keeps a document a suggestion, with its parameters and the keys of its trials; what
became of it is read from the results of those keys, and Optuna's study is made from that in memory. So a suggestion
whose driver died goes on, one of another configuration is told by its keys and left alone, one more seed is added to
the points that are there, and no value outlives the results it was computed from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.search.points import Impossible, Points, Suggestion
from orchestrator.search.sampling import Sampling, SuggestionState, check, fits, grid
from orchestrator.store import Store
from orchestrator.study import Params, Search, Study
from trainables.api.identity import Keys


class Suggestions:
    """All suggestions of a study; none, and nothing to suggest, where the study has no search."""

    def __init__(self, study: Study, store: Store, keys: Keys) -> None:
        """Read what the store remembers.

        Raises ValueError or TypeError when the search cannot be: a starting point outside the space, a ``make`` that
        gives other objectives than the search has or no trainables for one, or that accepts no point.
        """
        self._study, self._store, self._keys = study, store, keys
        self._read: set[str] = set()  # names of documents
        self._known: dict[int, Suggestion] = {}
        self._states: dict[int, SuggestionState] = {}
        self._reasons: dict[int, str] = {}
        self._values: dict[int, dict[str, float]] = {}
        self._handed_out: set[int] = set()
        self._examples: list[Suggestion] = []
        self._points: list[Params] | None = None  # all that may be suggested, where they are few
        self._sampling: Sampling | None = None
        self.stopped_because = ""  # why the search cannot go on
        if study.search is not None:
            check(study.search)
            self._maker = Points(study.name, study.search, keys)
            self._examples = self._maker.examples()
            self._points = self._maker.accepted(grid(study.search))
            self.refresh()
            self._handed_out.update(self._known)

    @property
    def num_left(self) -> int:
        """How many more the search may suggest."""
        search = self._study.search
        return 0 if search is None or self.stopped_because else max(0, self._budget(search) - len(self._known))

    @property
    def examples(self) -> list[Study]:
        """Up to two studies of one suggestion each, at any points: they tell what a suggestion costs."""
        return [dataclasses.replace(self._study, trials=example.trials) for example in self._examples]

    @property
    def identity(self) -> str:
        """Digest of the study's own trials and of what the search makes; the same however far the search is."""
        keys = {self._keys.key(trainable) for trainable in self._study.trainables.values()}
        keys.update(key for example in self._examples for key in example.all_keys)
        return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()

    def study(self) -> Study:
        """The study with the trials of all its suggestions."""
        found = {name: trainable for s in self._known.values() for name, trainable in s.trials.items()}
        return dataclasses.replace(self._study, trials={**self._study.trials, **found})

    def update(self, done: Collection[str], lost: Collection[str]) -> None:
        """Learn which keys have results and which will get none."""
        done = set(done)
        for number, suggestion in self._known.items():
            if self._states[number] is SuggestionState.COMPLETE:
                continue
            # Another driver may finish what it suggested, or what failed here.
            if suggestion.all_keys <= done or number not in self._handed_out:
                self._evaluate(number)
            elif self._states[number] is SuggestionState.RUNNING and suggestion.all_keys.intersection(lost):
                self._end(number, SuggestionState.FAILED, "a trial of it failed, or waits for one that did")

    def next(self, done: Collection[str], lost: Collection[str], room: float = math.inf) -> Study | None:
        """A study of one more suggestion, which is remembered from here on; None while there is nothing to suggest.

        ``done`` and ``lost`` as in ``update``. At most ``room`` suggestions are under way: a point that only waits, for
        a pretraining that all share or for a free slot, would be chosen without the results of those before it.
        """
        search = self._study.search
        if search is None:
            return None
        self.refresh()
        self.update(done, lost)
        if sum(self._states[number] is SuggestionState.RUNNING for number in self._handed_out) >= room:
            return None
        number = self._suggest(search, lost) if self.num_left else self._left_by_others()
        if number is None:
            return None
        self._handed_out.add(number)
        return dataclasses.replace(self._study, trials=self._known[number].trials)

    def refresh(self) -> None:
        """Read the documents that are new, also those of another driver."""
        if self._study.search is not None:
            for name in self._store.names(self._folder):
                if name not in self._read and name.removesuffix(".json").isdigit():
                    self._recall(name)

    def describe(self) -> dict[str, Any] | None:
        """The search for a manifest; None without one."""
        search = self._study.search
        if search is None:
            return None
        suggestions = [
            _document(s, self._states[n], self._reasons.get(n, ""), self._values.get(n)) for n, s in self._known.items()
        ]
        return _space_document(search) | {"num_suggestions": self._budget(search), "suggestions": suggestions}

    def best(self) -> list[tuple[Suggestion, Mapping[str, float]]]:
        """The complete suggestions that no other one beats in all objectives, best first by the first objective."""
        search = self._study.search
        return [] if search is None else [(self._known[n], self._values[n]) for n in front(search, self._values)]

    # -- what is known --------------------------------------------------------------------------------

    def _recall(self, name: str) -> None:
        """Take up a suggestion from its document, unless it is of another configuration or outside the space."""
        document = self._store.read_document(f"{self._folder}/{name}")
        self._read.add(name)
        search = self._study.search
        if search is None or not isinstance(document, dict) or not fits(document.get("params"), search):
            return
        params = {name: document["params"][name] for name in search.space}  # documents are sorted by name
        with contextlib.suppress(Impossible):
            suggestion = self._maker.made(len(self._known) + 1, params)
            if suggestion.all_keys.intersection(document.get("keys", ())):
                self._know(suggestion)

    def _budget(self, search: Search) -> int:
        """How many suggestions there will be: a small space has no more points than it has."""
        return search.num_suggestions if self._points is None else min(search.num_suggestions, len(self._points))

    def _untried(self, points: list[Params]) -> list[Params]:
        tried = [suggestion.params for suggestion in self._known.values()]
        return [point for point in points if point not in tried]

    def _know(self, suggestion: Suggestion) -> None:
        self._known[suggestion.number] = suggestion
        self._states[suggestion.number] = SuggestionState.RUNNING

    def _evaluate(self, number: int) -> None:
        """Read the objectives of a suggestion from its results, if all are there."""
        found = {o: [self._store.result(key) for key in keys] for o, keys in self._known[number].keys.items()}
        results = {objective: [r for r in rs if r is not None] for objective, rs in found.items()}
        if any(len(results[objective]) < len(rs) for objective, rs in found.items()):
            return
        for objective, rs in results.items():
            for result in rs:
                if objective not in result.metrics:
                    has = ", ".join(result.metrics) or "none"
                    self.stopped_because = (
                        f"trial {result.key} reports no summary metric {objective!r} (it reports: {has})"
                    )
                    self._end(number, SuggestionState.FAILED, self.stopped_because)
                    return
        self._values[number] = {o: statistics.fmean(r.metrics[o] for r in rs) for o, rs in results.items()}
        self._end(number, SuggestionState.COMPLETE)

    def _end(self, number: int, state: SuggestionState, reason: str = "") -> None:
        self._states[number] = state
        self._reasons[number] = reason
        if self._sampling is not None:
            self._sampling.end(number, self._values.get(number))

    # -- new ones -------------------------------------------------------------------------------------

    @property
    def _folder(self) -> str:
        return f"studies/{self._study.name}/suggestions"

    def _left_by_others(self) -> int | None:
        """Another driver's suggestion, when nothing else is left: its trials wait for that driver, or replace it."""
        others = (n for n in self._known if n not in self._handed_out and self._states[n] is SuggestionState.RUNNING)
        return next(others, None)

    def _suggest(self, search: Search, lost: Collection[str]) -> int | None:
        if self._sampling is None:
            self._sampling = Sampling(search, seed=search.seed + len(self._known))
        while self.num_left:
            for number, suggestion in self._known.items():
                self._sampling.learn(number, suggestion.params, self._states[number], self._values.get(number))
            tried = [suggestion.params for suggestion in self._known.values()]
            params = self._sampling.ask(tried, None if self._points is None else self._untried(self._points))
            if params is None:
                return None
            possible = self._maker.possible(len(self._known) + 1, params, self._study, lost)
            if possible is None:
                self._sampling.refuse(params)
            elif self._remember(possible):
                self._sampling.learn(possible.number, params, SuggestionState.RUNNING, None)
                return possible.number
        return self._left_by_others()

    def _remember(self, suggestion: Suggestion) -> bool:
        """Write a suggestion down; False, having read that one, when another driver was faster."""
        name = f"{int(max(self._read, default='0').removesuffix('.json')) + 1:06d}.json"
        document = {"params": dict(suggestion.params), "keys": sorted(suggestion.all_keys)}
        if not self._store.create_document(f"{self._folder}/{name}", document):
            self._recall(name)
            return False
        self._read.add(name)
        self._know(suggestion)
        return True


def front(search: Search, values: Mapping[int, Mapping[str, float]]) -> list[int]:
    """Numbers of the suggestions that no other one beats in all objectives, best first by the first objective."""
    signs = {objective: 1.0 if d == "maximize" else -1.0 for objective, d in search.directions.items()}
    scores = {number: [signs[o] * found[o] for o in signs] for number, found in values.items()}
    unbeaten = [n for n, mine in scores.items() if not any(_dominates(other, mine) for other in scores.values())]
    return sorted(unbeaten, key=lambda n: (-scores[n][0], n))


def _space_document(search: Search) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    space = {name: json.loads(distribution_to_json(d)) for name, d in search.space.items()}
    return {"directions": dict(search.directions), "space": space}


def _document(
    suggestion: Suggestion, state: SuggestionState, reason: str, values: Mapping[str, float] | None
) -> dict[str, Any]:
    return {
        "number": suggestion.number,
        "params": dict(suggestion.params),
        "state": state.value,
        "reason": reason,
        "values": values,
        "trials": {objective: list(keys) for objective, keys in suggestion.keys.items()},
    }


def _dominates(a: list[float], b: list[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b
