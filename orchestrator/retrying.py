"""What becomes of the trials of a launch that end without a result: another attempt, or a failure for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from orchestrator.failures import record, why_ended
from orchestrator.graph import Trial
from orchestrator.kinds import Kind, kind_of
from orchestrator.retries import Again, after
from orchestrator.store import Failure, Store

_LOOKS_EVERY_S = 5.0


class Space:
    """Whether storage and cache take anything; once they do not, they are looked at again and again until they do."""

    def __init__(self, full_place: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._full_place, self._clock = full_place, clock
        self._looks_at_s = 0.0
        self.full = ""
        """The place that had no space when last looked at; empty where there was."""

    def look(self) -> str:
        """Look now."""
        self.full = self._full_place()
        self._looks_at_s = self._clock() + _LOOKS_EVERY_S
        return self.full

    def is_there(self) -> bool:
        """Whether there is space, as of the last look; there is a new one a while after one that found none."""
        if self.full and self._clock() >= self._looks_at_s:
            self.look()
        return not self.full


@dataclass(frozen=True)
class _End:
    kind: Kind
    node: str
    """Where the process was that died without a word; empty where that is not known, or it said why."""


class Retrying:
    """Remembers how the attempts of each trial ended."""

    def __init__(self, store: Store, space: Space, nodes: Callable[[], Collection[str]]) -> None:
        """``nodes`` gives the ids of the nodes that are alive."""
        self._store, self._space, self._nodes = store, space, nodes
        self._ends: dict[str, list[_End]] = {}
        self._before: dict[str, int] = {}  # by key: the attempts that were begun before the last one of this launch

    def hands_out(self, trial: Trial) -> None:
        """A process is about to get the trial: what the store has of it now is of attempts before."""
        self._before[trial.key] = self._store.attempts(trial.key)

    def attempts_before(self, key: str) -> int:
        """How many attempts were begun when the trial was last handed out."""
        return self._before.get(key, 0)

    def next(self, trial: Trial, error: str | None) -> tuple[Failure, Again | None]:
        """What an attempt ended with, and what follows; where nothing does, the failure is for good, and recorded.

        ``error`` is what Tune saw.
        """
        final = self._store.failure(trial.key)
        if final is not None:
            return final, None
        failure = why_ended(self._store, trial, error, before=self.attempts_before(trial.key))
        kind = kind_of(failure.kind)
        if kind in (Kind.CRASHED, Kind.DISK_FULL) and self._space.look():
            kind = Kind.DISK_FULL
        node = "" if failure.traceback and failure.traceback != error else self._node_of(trial)
        ends = self._ends.setdefault(trial.key, [])
        ends.append(_End(kind, node))
        # A node that died is missed some seconds later: what its end was taken for before is put right.
        alive = self._nodes()
        kinds = [Kind.PREEMPTED if _is_lost(end, alive) else end.kind for end in ends]
        failure = replace(failure, kind=kinds[-1])
        again = after(kinds)
        if again is None:
            record(self._store, trial, failure)
        return failure, again

    def _node_of(self, trial: Trial) -> str:
        # A process may die before it says where it is: the node of an attempt before may be of a cluster of old.
        if self._store.attempts(trial.key) <= self.attempts_before(trial.key):
            return ""
        document = self._store.read_document(f"trials/{trial.key}/trial.json")
        return str(document.get("node", "")) if isinstance(document, dict) else ""


def _is_lost(end: _End, alive: Collection[str]) -> bool:
    return end.kind is Kind.CRASHED and bool(end.node) and end.node not in alive
