"""The search of a study: what is suggested or promoted next.

The store is the state here too. It keeps a document a decision (``decisions.py``), with parameters and keys of trials;
what became of it is read from the results of those keys, and Optuna's study is made from that in memory. So a
suggestion whose driver died goes on, one of another configuration is told by its keys and left alone, one more seed is
added to the points that are there, and no value outlives the results it was computed from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from orchestrator.plan import Promotions
from orchestrator.search.decisions import Decision, Values, document_of
from orchestrator.search.known import Known
from orchestrator.search.points import Points, Suggestion, WrongMake
from orchestrator.search.rungs import num_to_come
from orchestrator.search.sampling import Attributes, SuggestionState, check, grid, sample
from orchestrator.store import Store
from orchestrator.study import Params, Search, Study
from trainables.api.identity import Keys


class Suggestions:
    """All suggestions of a study; none, and nothing to suggest, where the study has no search."""

    def __init__(self, study: Study, store: Store, keys: Keys, lag: int | None = None) -> None:
        """Read what the store remembers.

        Without ``lag`` a decision sees all results that are there. With it, decision n (from 1, promotions counted)
        waits until decisions 1 to n - lag have ended, and sees their results and no others, so that the decisions are
        the same whichever trial ends first, whenever a driver dies, and however many trials run at once (with lag 1,
        one after the other). Where these leave nothing to decide, as at the end of a search with rungs, it waits for
        one result more, and sees it, and so on.

        Raises ValueError or TypeError when the search cannot be: a starting point outside the space, a ``make`` that
        gives other objectives than the search has or no trainables for one, that accepts no point, or that does not
        make one family of the lengths of its rungs.
        """
        self._study, self._keys, self._lag = study, keys, lag
        self._handed_out: set[int] = set()  # documents
        self._examples: list[Suggestion] = []
        self._all_points: list[Params] | None = None  # all that may be suggested, where they are few
        self._fruitless: list[Any] = []  # what was seen when there was no new point
        self._search: _OneSearch | None = None
        if study.search is not None:
            check(study.search)
            points = Points(study.name, study.search, keys)
            self._examples = points.examples()
            self._all_points = points.accepted(grid(study.search))
            self._search = _OneSearch(study.search, points, Known(study.search, points, store))
            self.refresh()
            self._handed_out.update(decision.document for decision in self._search.known.decisions)
        elif lag is not None:
            raise ValueError(f"--lag {lag}: study {study.name!r} has no search; leave it out")

    @property
    def stopped_because(self) -> str:
        """Why the search cannot go on; empty where it can."""
        return self._search.known.stopped_because if self._search else ""

    @property
    def num_left(self) -> int:
        """How many more points the search may suggest."""
        if self._search is None or self.stopped_because:
            return 0
        return max(0, self._budget(self._search.search) - len(self._search.known.suggestions))

    @property
    def examples(self) -> list[Study]:
        """Up to two studies of one suggestion each, at any points: they tell what a suggestion costs at first."""
        return [dataclasses.replace(self._study, trials=example.stages[0].trials) for example in self._examples]

    @property
    def promotions(self) -> list[Promotions]:
        """What will be promoted to each rung at least, as far as can be told; nothing at the end of a search."""
        if self._search is None or self._search.search.rungs is None or self.stopped_because:
            return []
        rungs, known = self._search.search.rungs, self._search.known
        in_rung = [[d for d in known.decisions if d.rung == rung] for rung in range(len(rungs.lengths))]
        failed = [sum(d.state is SuggestionState.FAILED for d in decisions) for decisions in in_rung]
        num_at_first = len(in_rung[0]) + self.num_left - failed[0]
        counts = num_to_come(rungs, num_at_first, [len(decisions) for decisions in in_rung], failed)
        now = [rung for _, rung in known.promotable(known.ended())]
        stages = [dataclasses.replace(self._study, trials=stage.trials) for stage in self._examples[0].stages]
        found = [
            Promotions(length, max(count, now.count(rung)), stages[rung - 1], stages[rung])
            for rung, (length, count) in enumerate(zip(rungs.lengths[1:], counts, strict=True), start=1)
        ]
        return [promotions for promotions in found if promotions.count]

    @property
    def identity(self) -> str:
        """Digest of the study's own trials and of what the search makes; the same however far the search is."""
        keys = {self._keys.key(trainable) for trainable in self._study.trainables.values()}
        keys.update(key for example in self._examples for stage in example.stages for key in stage.all_keys)
        return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()

    def study(self) -> Study:
        """The study with the trials of all that was decided."""
        known = self._search.known if self._search else None
        stages = [known.stage(decision) for decision in known.decisions] if known else []
        found = {name: trainable for stage in stages for name, trainable in stage.trials.items()}
        return dataclasses.replace(self._study, trials={**self._study.trials, **found})

    def refresh(self) -> None:
        """Read the documents that are new, also those of another driver."""
        if self._search is not None:
            self._search.known.refresh()

    def update(self, done: Collection[str], lost: Collection[str]) -> None:
        """Learn which keys have results and which will get none."""
        if self._search is not None:
            self._search.known.update(done, lost, self._handed_out)

    def next(self, done: Collection[str], lost: Collection[str], room: float = math.inf) -> Study | None:
        """A study of one more suggestion or promotion, which is remembered from here on; None while there is none.

        ``done`` and ``lost`` as in ``update``. At most ``room`` suggestions are under way: a point that only waits, for
        a pretraining that all share or for a free slot, would be chosen without the results of those before it.
        """
        if self._search is None:
            return None
        self.refresh()
        self.update(done, lost)
        known = self._search.known
        num_own = sum(decision.document in self._handed_out for decision in known.running())
        if num_own >= room:
            return None
        decision = self._decide(self._search, lost)
        if decision is None and not (num_own and self.num_left):
            # What another driver decided, perhaps just now, faster than this one, as there is nothing else: its trials
            # wait for that driver, or replace it.
            decision = next((d for d in known.running() if d.document not in self._handed_out), None)
        if decision is None:
            return None
        self._handed_out.add(decision.document)
        return dataclasses.replace(self._study, trials=known.stage(decision).trials)

    def describe(self, *, news_only: bool = False) -> dict[str, Any] | None:
        """The search for a manifest, perhaps without suggestions that were described as they are; None without one."""
        if self._search is None:
            return None
        return self._search.known.describe(news_only) | {"num_suggestions": self._budget(self._search.search)}

    @property
    def highest_length(self) -> int | None:
        """With rungs, the longest length at which any suggestion has a value; None without."""
        if self._search is None or self._search.search.rungs is None:
            return None
        return self._search.search.rungs.lengths[self._search.known.highest_rung]

    def best(self) -> list[tuple[Suggestion, Values]]:
        """The suggestions that no other one beats in all objectives, best first by the first objective.

        With rungs, of those that have a value at ``highest_length``: values at different lengths are not compared.
        """
        return self._search.known.best() if self._search else []

    def _budget(self, search: Search) -> int:
        """How many points there will be: a small space has no more than it has."""
        return (
            search.num_suggestions if self._all_points is None else min(search.num_suggestions, len(self._all_points))
        )

    def _decide(self, one: _OneSearch, lost: Collection[str]) -> Decision | None:
        """Decide once more, and write it down; None if there is nothing to decide on what is seen."""
        while True:
            chosen = (self._chosen(one, seen, lost) for seen in self._views(one.known))
            document = next((document for document in chosen if document is not None), None)
            if document is None:
                return None
            decision = one.known.write(document)
            if decision is not None:
                return decision
            # Another driver was faster: what it decided counts.

    def _views(self, known: Known) -> Iterator[list[Decision]]:
        """What the next decision may see, the least first; nothing while it has to wait."""
        if self._lag is None:
            yield known.ended()
            return
        decisions = known.decisions
        for num_seen in range(max(0, len(decisions) + 1 - self._lag), len(decisions) + 1):
            if any(decision.state is SuggestionState.RUNNING for decision in decisions[:num_seen]):
                return
            yield decisions[:num_seen]

    def _chosen(self, one: _OneSearch, seen: Sequence[Decision], lost: Collection[str]) -> dict[str, Any] | None:
        """The document of the next decision: a promotion, else a new point; None where neither can be."""
        if self.stopped_because:
            return None
        for number, rung in one.known.promotable(seen):
            suggestion = one.known.suggestions[number]
            if one.points.can_run(suggestion, rung, self._study, lost):
                promoted = one.known.of_suggestion(number)[0].document
                return _written(suggestion, rung, seen, Attributes(), promoted)
        return self._new_point(one, seen, lost) if self.num_left else None

    def _new_point(self, one: _OneSearch, seen: Sequence[Decision], lost: Collection[str]) -> dict[str, Any] | None:
        number = len(one.known.suggestions) + 1
        given = [number, [(decision.document, decision.state) for decision in seen], len(lost)]
        if given == self._fruitless:
            return None
        try:
            found = sample(
                one.search,
                number,
                one.known.seen(seen),
                self._untried(one.known),
                lambda params: one.points.possible(number, params, self._study, lost),
            )
        except WrongMake as error:
            one.known.stopped_because = str(error)
            return None
        if found is None:
            self._fruitless = given
            return None
        return _written(found[0], 0, seen, found[1], None)

    def _untried(self, known: Known) -> list[Params] | None:
        tried = [suggestion.params for suggestion in known.suggestions.values()]
        return None if self._all_points is None else [point for point in self._all_points if point not in tried]


@dataclasses.dataclass(frozen=True)
class _OneSearch:
    search: Search
    points: Points
    known: Known


def _written(
    suggestion: Suggestion, rung: int, seen: Sequence[Decision], attributes: Attributes, promotes: int | None
) -> dict[str, Any]:
    stage = suggestion.stages[rung]
    return document_of(suggestion.params, stage.all_keys, seen, attributes, length=stage.length, promotes=promotes)
