"""What a search has decided so far, and what became of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.search.decisions import Decision, Documents, Values, attributes_of, promotion_of
from orchestrator.search.points import Points, Stage, Suggestion
from orchestrator.search.rungs import promotable
from orchestrator.search.sampling import NO_RUNGS, Seen, SuggestionState, fits
from orchestrator.store import Store
from orchestrator.study import Search

_RUNNING, _COMPLETE, _FAILED = SuggestionState.RUNNING, SuggestionState.COMPLETE, SuggestionState.FAILED


class Known:
    """The decisions of one search in their order, as the store remembers them, with what their results say."""

    def __init__(self, search: Search, points: Points, store: Store) -> None:
        self._search, self._points, self._store = search, points, store
        self._documents = Documents(store, points.study)
        self._by_document: dict[int, Decision] = {}
        self._of_suggestion: dict[int, list[Decision]] = {}
        self._open: dict[int, Decision] = {}  # by document, those without values
        self._news: set[int] = set()  # numbers of suggestions that are not described as they are
        self.suggestions: dict[int, Suggestion] = {}  # by number
        self.stopped_because = ""  # why the search cannot go on

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, in their order."""
        return list(self._by_document.values())

    def refresh(self) -> None:
        """Read the documents that are new, also those of another driver."""
        for number, document in self._documents.new():
            self._recall(number, document)

    def write(self, document: Mapping[str, Any]) -> Decision | None:
        """Write one more decision down; None, having read that one, when another driver was faster."""
        number, written = self._documents.create(document)
        self._recall(number, written)
        return self._by_document[number] if written is document else None

    def stage(self, decision: Decision) -> Stage:
        """The trainables that were decided on."""
        return self.suggestions[decision.suggestion].stages[decision.rung]

    def of_suggestion(self, number: int) -> list[Decision]:
        """What was decided on a suggestion, the shortest first."""
        return list(self._of_suggestion.get(number, ()))

    def update(self, done: Collection[str], lost: Collection[str], own: Collection[int]) -> None:
        """Learn which keys have results and which will get none; ``own``: documents whose trials run here."""
        for decision in [*self._open.values()]:
            keys, before = self.stage(decision).all_keys, (decision.state, decision.reason)
            # Another driver may finish what it decided, or what failed here.
            if decision.document not in own or all(key in done for key in keys):
                self._evaluate(decision)
            elif decision.state is _RUNNING and keys.intersection(lost):
                decision.state, decision.reason = _FAILED, "a trial of it failed, or waits for one that did"
            if decision.state is _COMPLETE:
                del self._open[decision.document]
            if (decision.state, decision.reason) != before:
                self._news.add(decision.suggestion)

    def running(self) -> list[Decision]:
        """The decisions whose trials are still to have results, whoever runs them."""
        return [decision for decision in self._open.values() if decision.state is _RUNNING]

    def ended(self) -> list[Decision]:
        """The decisions whose trials have results, or will get none."""
        return [decision for decision in self._by_document.values() if decision.state is not _RUNNING]

    def seen(self, decisions: Sequence[Decision]) -> list[Seen]:
        """All suggestions in their order, with what is known of them to one who sees the results of these decisions."""
        values: dict[int, dict[int, Values]] = {number: {} for number in self.suggestions}
        for decision in decisions:
            if decision.values is not None:
                values[decision.suggestion][self.stage(decision).length or NO_RUNGS] = decision.values
        failed = {decision.suggestion for decision in decisions if decision.state is _FAILED}
        attributes = {d.suggestion: d.attributes for d in self._by_document.values() if d.rung == 0}
        return [Seen(s.params, values[n], n in failed, attributes[n]) for n, s in self.suggestions.items()]

    def promotable(self, seen: Sequence[Decision]) -> Iterator[tuple[int, int]]:
        """(number, rung to rise to) of the suggestions to promote, the first first, on what these decisions gave."""
        rungs = self._search.rungs
        if rungs is None:
            return iter(())
        numbers = range(len(rungs.lengths))
        values = [{d.suggestion: d.values for d in seen if d.rung == rung and d.values is not None} for rung in numbers]
        risen = [{d.suggestion for d in self._by_document.values() if d.rung == rung + 1} for rung in numbers]
        return promotable(self._search, rungs, values, risen)

    @property
    def highest_rung(self) -> int:
        """The last rung, from 0, at which any suggestion has a value."""
        return max((d.rung for d in self._by_document.values() if d.values is not None), default=0)

    def best(self) -> list[tuple[Suggestion, Values]]:
        """See ``Suggestions.best``."""
        highest = [d for d in self._by_document.values() if d.rung == self.highest_rung]
        values = {d.suggestion: d.values for d in highest if d.values is not None}
        return [(self.suggestions[n], values[n]) for n in front(self._search, values)]

    def describe(self, news_only: bool = False) -> dict[str, Any]:
        """Directions, space, rungs and suggestions as JSON; ``news_only``: those not described as they are now."""
        from optuna.distributions import distribution_to_json

        search, numbers = self._search, sorted(self._news) if news_only else list(self.suggestions)
        self._news.clear()
        return {
            "directions": dict(search.directions),
            "space": {name: json.loads(distribution_to_json(d)) for name, d in search.space.items()},
            "rungs": dataclasses.asdict(search.rungs) if search.rungs else None,
            "suggestions": [self._document(self.suggestions[number]) for number in numbers],
        }

    def _take_up(self, decision: Decision) -> None:
        self._by_document[decision.document] = self._open[decision.document] = decision
        self._of_suggestion.setdefault(decision.suggestion, []).append(decision)
        self._news.add(decision.suggestion)

    def _recall(self, number: int, document: Any) -> None:
        """Take up a decision from its document, unless it is of another configuration or outside the space."""
        if not isinstance(document, dict) or not fits(document.get("params"), self._search):
            return
        keys = _texts(document.get("keys"))
        with contextlib.suppress(ValueError):  # also Impossible
            promotion = promotion_of(document, self._search)
            if promotion is not None:
                promoted, rung = self._by_document.get(promotion[0]), promotion[1]
                if promoted and self.suggestions[promoted.suggestion].stages[rung].all_keys.intersection(keys):
                    self._take_up(Decision(number, promoted.suggestion, rung))
                return
            params = {name: document["params"][name] for name in self._search.space}  # documents are sorted by name
            suggestion = self._points.made(len(self.suggestions) + 1, params)
            if suggestion.stages[0].all_keys.intersection(keys):
                self.suggestions[suggestion.number] = suggestion
                self._take_up(Decision(number, suggestion.number, 0, attributes_of(document)))

    def _evaluate(self, decision: Decision) -> None:
        """Read the objectives at a rung from the results of its trials, if all are there."""
        found = {o: [self._store.result(key) for key in keys] for o, keys in self.stage(decision).keys.items()}
        results = {objective: [r for r in rs if r is not None] for objective, rs in found.items()}
        if any(len(results[objective]) < len(rs) for objective, rs in found.items()):
            return
        for objective, rs in results.items():
            for result in rs:
                if objective not in result.metrics:
                    has = ", ".join(result.metrics) or "none"
                    said = f"trial {result.key} reports no summary metric {objective!r} (it reports: {has})"
                    decision.state, decision.reason, self.stopped_because = _FAILED, said, said
                    return
        decision.values = {o: statistics.fmean(r.metrics[o] for r in rs) for o, rs in results.items()}
        decision.state, decision.reason = _COMPLETE, ""

    def _document(self, suggestion: Suggestion) -> dict[str, Any]:
        """A suggestion at the longest length at which it has a value, or at its first, and all its rungs."""
        decisions = self.of_suggestion(suggestion.number)
        reached = next((d for d in reversed(decisions) if d.values is not None), decisions[0])
        document = {"number": suggestion.number, "params": dict(suggestion.params), **self._stage_document(reached)}
        if self._search.rungs is not None:
            document["rungs"] = [self._stage_document(decision) for decision in decisions]
        return document

    def _stage_document(self, decision: Decision) -> dict[str, Any]:
        stage = self.stage(decision)
        length = {} if stage.length is None else {"length": stage.length}
        return length | {
            "state": decision.state.value,
            "reason": decision.reason,
            "values": decision.values,
            "trials": {objective: list(keys) for objective, keys in stage.keys.items()},
        }


def _texts(value: Any) -> set[str]:
    return {entry for entry in value if isinstance(entry, str)} if isinstance(value, list) else set()


def front(search: Search, values: Mapping[int, Values]) -> list[int]:
    """Numbers of the suggestions that no other one beats in all objectives, best first by the first objective."""
    signs = {objective: 1.0 if d == "maximize" else -1.0 for objective, d in search.directions.items()}
    scores = {number: [signs[o] * found[o] for o in signs] for number, found in values.items()}
    unbeaten = [n for n, mine in scores.items() if not any(_dominates(other, mine) for other in scores.values())]
    return sorted(unbeaten, key=lambda n: (-scores[n][0], n))


def _dominates(a: list[float], b: list[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b
