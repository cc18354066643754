"""The Tune searcher that walks the graph: it hands out a trial as soon as its own upstream is done.

One Tune run executes the whole study, with no barrier between stages. A failed trial stops nobody but its dependents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.plan import Plan, State, Trial

Encode = Callable[[Trial], dict[str, Any]]
Finished = Callable[[Trial, bool], bool]
More = Callable[[Collection[str], Collection[str]], Plan | None]


def nothing_more(done: Collection[str], lost: Collection[str]) -> None:
    """A study without a search has no more trials than its plan."""


class GraphSearcher(Searcher):
    """Suggests the trials of a plan in graph order, and those of further plans while there is room."""

    def __init__(
        self,
        plan: Plan,
        encode: Encode,
        finished: Finished,
        max_concurrent: int | None = None,
        more: More = nothing_more,
        num_slots: Callable[[], int] = lambda: 1,
    ) -> None:
        """``encode`` makes a trial's Tune configuration.

        ``finished(trial, error)`` is called once a trial has ended, and tells whether its result is there.
        ``more(done, lost)`` gets the keys with results and those that will have none, and gives a plan with more
        trials, or None if there are none now. It is asked while fewer than ``num_slots()`` trials run: a suggestion
        that waits knows less than one that is made later.
        """
        super().__init__(metric=None, mode=None)
        self._encode, self._finished, self._max_concurrent = encode, finished, max_concurrent
        self._more, self._num_slots = more, num_slots
        self._waiting: list[Trial] = []
        self._running: dict[str, Trial] = {}
        self.trials: dict[str, Trial] = {}  # by key, all that were to run
        self._growing: dict[str, dict[str, int]] = {}  # family -> key -> length, of those that have not ended
        self._done: set[str] = set()
        self._lost: set[str] = set()
        self.blocked: dict[str, str] = {}  # key -> key of an upstream trial that failed or is blocked itself
        self._add(plan)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next ready trial; None while all others wait for running ones; FINISHED at the end."""
        if self._max_concurrent is not None and len(self._running) >= self._max_concurrent:
            return None
        trial = self._take_ready()
        while trial is None and len(self._running) < self._num_slots():
            plan = self._more(self._done, self._lost)
            if plan is None:
                break
            self._add(plan)
            trial = self._take_ready()
        if trial is not None:
            self._running[trial_id] = trial
            return self._encode(trial)
        return None if self._waiting or self._running else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free or block what waits for this trial."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        self._growing.get(trial.family or "", {}).pop(trial.key, None)
        if self._finished(trial, error):
            self._done.add(trial.key)
        else:
            self._lost.add(trial.key)
            self._block()

    def _add(self, plan: Plan) -> None:
        self._done.update(p.trial.key for p in plan.planned if p.state is State.DONE)
        self._lost.update(p.trial.key for p in plan.planned if p.state in (State.FAILED, State.BLOCKED))
        new = [trial for trial in plan.runnable() if trial.key not in self.trials]
        self.trials.update((trial.key, trial) for trial in new)
        self._waiting += new
        for trial in new:
            if trial.family is not None:
                self._growing.setdefault(trial.family, {})[trial.key] = trial.length
        self._block()

    def _take_ready(self) -> Trial | None:
        for position, trial in enumerate(self._waiting):
            if self._done.issuperset(trial.upstream) and not self._is_preceded(trial):
                return self._waiting.pop(position)
        return None

    def _is_preceded(self, trial: Trial) -> bool:
        """Whether a shorter training of its family, from which it can go on, is still to end, well or not."""
        family = self._growing.get(trial.family or "", {})
        return any(length < trial.length for length in family.values())

    def _block(self) -> None:
        """Give up what waits for a lost trial."""
        for trial in self._waiting:  # upstream first, so one pass reaches all descendants
            if lost := self._lost.intersection(trial.upstream):
                self._lost.add(trial.key)
                self.blocked[trial.key] = min(lost)
        self._waiting = [trial for trial in self._waiting if trial.key not in self._lost]

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that never comes (see ``save``); the callbacks stay here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store is the state, and a new submission plans anew."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see ``save``."""
