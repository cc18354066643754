"""The Tune searcher that walks the graph: it hands out a trial as soon as its own upstream is done and it fits.

One Tune run executes the whole study, with no barrier between stages. A failed trial stops nobody but its dependents.
Which of the ready ones goes first, and what may pass what, is the queue's (``queue.py``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.graph import Trial
from orchestrator.order import QueuedTrial
from orchestrator.plan import TO_RUN, Plan, PlannedTrial, State
from orchestrator.queue import TrialQueue
from orchestrator.resources import Capacity, Demand
from orchestrator.retries import Again

_ASKS_AGAIN_AFTER_S = 10.0

Encode = Callable[[Trial], dict[str, Any]]
Finished = Callable[[Trial, bool], bool | Again]
More = Callable[[Collection[str], Collection[str]], Plan | None]


def nothing_more(done: Collection[str], lost: Collection[str]) -> None:
    """A study without a search has no more trials than its plan."""


class GraphSearcher(Searcher):
    """Suggests the trials of a plan, longest remaining path first, and those of further plans where there is room."""

    def __init__(
        self,
        plan: Plan,
        encode: Encode,
        finished: Finished,
        demand: Callable[[Trial], Demand],
        capacity: Callable[[], Capacity],
        *,
        max_concurrent: int | None = None,
        more: More = nothing_more,
        usual: Demand,
        may_start: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``encode`` makes a trial's Tune configuration.

        ``demand`` says what a trial holds, ``capacity`` what the nodes have now.
        ``finished(trial, error)`` is called once a trial has ended, and tells whether its result is there, or when to
        try again. ``may_start`` tells whether anything may start at all.
        ``more(done, lost)`` gets the keys with results and those that will have none, and gives a plan with more
        trials, or None if there are none now. It is asked while nothing that is ready may start and there is room for a
        trial of the ``usual`` demand: a suggestion that waits knows less than one that is made later. Where it raises
        OSError, as on a full disk, it is asked again a while later.
        """
        super().__init__(metric=None, mode=None)
        self._encode, self._finished, self._demand, self._capacity = encode, finished, demand, capacity
        self._more, self._usual, self._may_start, self._clock = more, usual, may_start, clock
        self._asks_at_s: float | None = None  # for more again, after an error
        self._queued_as: dict[str, QueuedTrial] = {}  # by key
        self._queue = TrialQueue(max_concurrent)
        self._unstarted: set[str] = set()  # keys handed out that wait for a process, or for their workers
        self._suggested: dict[str, Trial] = {}  # by the id that Tune gave it, those that have not ended
        self.trials: dict[str, Trial] = {}  # by key, all that were to run
        self._add(plan)

    @property
    def blocked(self) -> dict[str, str]:
        """Key -> key of an upstream trial that failed or is blocked itself."""
        return self._queue.blocked

    @property
    def lost(self) -> Collection[str]:
        """Keys that have no result and will get none: failed, here or elsewhere, or blocked."""
        return self._queue.lost

    @property
    def is_anyone_waiting(self) -> bool:
        """Whether a trial waits for slots: one that is ready, or one that was handed out and has not started."""
        return bool(self._unstarted) or self._queue.is_anyone_ready

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial that may start; None while all others wait; FINISHED at the end."""
        if self._next() is None:
            is_over = self._queue.is_finished and self._asks_at_s is None
            return str(Searcher.FINISHED) if is_over else None
        queued = self._queue.take(self._clock(), self._capacity())
        assert queued is not None
        self._suggested[trial_id] = self.trials[queued.key]
        self._unstarted.add(queued.key)
        return self._encode(self._suggested[trial_id])

    def next_demand(self) -> Demand | None:
        """What the trial asks for that would start now."""
        queued = self._next()
        return None if queued is None else queued.demand

    def started(self, key: str) -> bool:
        """A trial that was handed out has a process. False where workers of Ray Train have still to come: see
        ``spoke``."""
        if self._demand(self.trials[key]).in_processes:
            return False
        self._unstarted.discard(key)
        return True

    def spoke(self, key: str) -> None:
        """A trial has said something: its workers are there, or wait for no slot."""
        self._unstarted.discard(key)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free or block what waits for this trial."""
        trial = self._suggested.pop(trial_id, None)
        if trial is not None:
            ended_at_s = self._clock()
            self._unstarted.discard(trial.key)
            ended = self._finished(trial, error)
            if isinstance(ended, Again):
                queued = replace(self._queued_as[trial.key], demand=self._demand(trial))
                self._queue.put_back(queued, self._clock() + ended.in_s)
            else:
                self._queue.end(trial.key, ended_at_s, ended)

    def _next(self) -> QueuedTrial | None:
        """The trial that would start now, perhaps a new one of a search."""
        if not self._may_start():
            return None
        queued = self._queue.peek(self._clock(), self._capacity())
        while queued is None and self._queue.has_room(self._usual):
            plan = self._ask_for_more()
            if plan is None:
                return None
            self._add(plan)
            queued = self._queue.peek(self._clock(), self._capacity())
        return queued

    def _ask_for_more(self) -> Plan | None:
        if self._asks_at_s is not None and self._clock() < self._asks_at_s:
            return None
        try:
            plan = self._more(self._queue.done, self._queue.lost)
        except OSError as error:
            if self._asks_at_s is None:
                print(f"warning: the search cannot go on now, and tries again: {error}", file=sys.stderr, flush=True)
            self._asks_at_s = self._clock() + _ASKS_AGAIN_AFTER_S
            return None
        self._asks_at_s = None
        return plan

    def _add(self, plan: Plan) -> None:
        new = [p for p in plan.planned if p.state in TO_RUN and p.trial.key not in self.trials]
        self.trials.update((p.trial.key, p.trial) for p in new)
        self._queue.add(
            [self._queued(p) for p in new],
            done={p.trial.key for p in plan.planned if p.state is State.DONE},
            lost={p.trial.key for p in plan.planned if p.state in (State.FAILED, State.BLOCKED)},
        )

    def _queued(self, planned: PlannedTrial) -> QueuedTrial:
        trial, demand = planned.trial, self._demand(planned.trial)
        work_s = planned.estimated_s
        queued = QueuedTrial(
            trial.key,
            demand,
            trial.upstream,
            None if work_s is None else work_s / demand.num_workers,
            type(trial.trainable).__name__,
            planned.is_measured,
            trial.family,
            trial.length,
        )
        self._queued_as[trial.key] = queued
        return queued

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that never comes (see ``save``); the callbacks stay here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store is the state, and a new submission plans anew."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, see ``save``."""
