"""The queue of trials: which one starts next, on what is free.

Longest remaining path first (``order.py``), as long as it fits beside what runs. Where the next one does not fit, it
has a reservation: others may pass it if that is not expected to delay it (EASY backfilling; Lifka, "The ANL/IBM SP
scheduling system", 1995). No Ray, and no clock: it is told the time.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from orchestrator.order import Node, Order, QueuedTrial, Ready, put_back
from orchestrator.resources import Amount, Capacity, Demand

# Handed out beyond what the nodes hold, where more may come: an autoscaler grows by what waits. As many as Tune keeps.
MAX_WAITING_FOR_NODES = 16
# How many of one demand are looked at for one that is short enough to pass. A bound, so that a step stays cheap.
_MAX_LOOKED_AT = 64


@dataclass(slots=True, eq=False)
class _Run:
    """A trial that was handed out."""

    node: Node
    number: int
    started_s: float
    has_place: bool  # else it waits for a node to come

    @property
    def demand(self) -> Demand:
        return self.node.trial.demand


@dataclass(frozen=True)
class _Reservation:
    """A trial that could not start, and how many had been handed out then.

    Others pass it only while one of those is in its way, so nobody is passed for ever, however wrong the estimates are.
    """

    node: Node
    num_before: int


@dataclass(frozen=True)
class _Gap:
    """When a reserved trial is expected to start, and what will be free then."""

    ends_s: float
    left_then: Amount


class TrialQueue:
    """Trials that wait and trials that run."""

    def __init__(self, max_concurrent: int | None = None) -> None:
        self._max_concurrent = max_concurrent
        self._order = Order()
        self._running: dict[str, _Run] = {}  # by key, all that were handed out and have not ended
        self._without_place: dict[str, _Run] = {}
        self._num_placed: Counter[Demand] = Counter()
        self._capacity, self._total = Capacity(()), Amount()  # as of the last step
        self._holdable: dict[Demand, bool] = {}
        self._num_handed_out = 0
        self._reservation: _Reservation | None = None
        self._later: list[tuple[float, int, Node]] = []  # a heap: when they may start again, at the earliest

    @property
    def done(self) -> Collection[str]:
        """Keys with results."""
        return self._order.done

    @property
    def lost(self) -> Collection[str]:
        """Keys that have no result and will get none."""
        return self._order.lost

    @property
    def blocked(self) -> dict[str, str]:
        """Key -> key of an upstream trial that failed or is blocked itself."""
        return self._order.blocked

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._order.waiting and not self._running and not self._later

    def add(self, trials: Sequence[QueuedTrial], done: Collection[str] = (), lost: Collection[str] = ()) -> None:
        """Further trials, upstream first, each key once; and the keys that have a result, or will have none."""
        self._order.add(trials, done, lost)

    def end(self, key: str, now_s: float, has_result: bool) -> None:
        """A trial that was handed out has ended."""
        run = self._take_off(key)
        self._order.end(key, now_s - run.started_s, has_result)

    def put_back(self, trial: QueuedTrial, not_before_s: float) -> None:
        """A trial that was handed out is to start again, at that time at the earliest; it may ask for other slots now.

        Until then it holds none, and what waits for it waits on.
        """
        node = self._take_off(trial.key).node
        node.trial = trial
        heapq.heappush(self._later, (not_before_s, node.number, node))

    def _take_off(self, key: str) -> _Run:
        run = self._running.pop(key)
        if run.has_place:
            self._num_placed[run.demand] -= 1
        else:
            del self._without_place[key]
        return run

    def peek(self, now_s: float, capacity: Capacity) -> QueuedTrial | None:
        """The trial that would start now on these nodes; None while all that wait have to wait on."""
        node = self._next(now_s, capacity)
        return None if node is None else node.trial

    def take(self, now_s: float, capacity: Capacity) -> QueuedTrial | None:
        """The same, and it starts."""
        node = self._next(now_s, capacity)
        if node is None:
            return None
        self._order.start(node)
        self._num_handed_out += 1
        run = _Run(node, self._num_handed_out, now_s, has_place=False)
        self._running[node.trial.key] = self._without_place[node.trial.key] = run
        self._give_places(now_s)
        return node.trial

    def _next(self, now_s: float, capacity: Capacity) -> Node | None:
        if self._is_full:
            return None
        if capacity != self._capacity:
            self._capacity, self._total, self._holdable = capacity, capacity.total, {}
        self._give_places(now_s)
        while self._later and self._later[0][0] <= now_s:
            put_back(self._order, heapq.heappop(self._later)[2])
        return self._choose(now_s)

    @property
    def is_anyone_ready(self) -> bool:
        """Whether a trial waits for nothing but slots; one that was handed out may wait for a node still."""
        return bool(self._order.by_priority()) or bool(self._without_place)

    def has_room(self, demand: Demand) -> bool:
        """Whether one more such trial, of which nobody knows yet, could start now and be in nobody's way.

        To be asked after ``take`` had none.
        """
        if self._is_full:
            return False
        if not self._running:
            return True
        return self._reservation is None and not self._without_place and self._fits(demand)

    # -- what fits ------------------------------------------------------------------------------------

    @property
    def _is_full(self) -> bool:
        return self._max_concurrent is not None and len(self._running) >= self._max_concurrent

    def _can_hold(self, demand: Demand) -> bool:
        if demand not in self._holdable:
            self._holdable[demand] = self._capacity.can_hold(demand)
        return self._holdable[demand]

    def _fits(self, demand: Demand) -> bool:
        left = self._total
        for placed, count in self._num_placed.items():
            left -= placed.total * count
        return left.holds(demand.total) and self._can_hold(demand)

    def _give_places(self, now_s: float) -> None:
        """What was handed out and fits starts: at once, mostly; or nodes have come, or trials have ended."""
        for key, run in [*self._without_place.items()]:
            if self._fits(run.demand):
                run.has_place, run.started_s = True, now_s
                self._num_placed[run.demand] += 1
                del self._without_place[key]

    # -- which one ------------------------------------------------------------------------------------

    def _choose(self, now_s: float) -> Node | None:
        waiting = self._without_place.values()
        # What waits in the cluster, and could start there once others have ended, is not passed either.
        first = next((run for run in waiting if self._can_hold(run.demand)), None)
        holder = self._reserve(first.node) if first is not None else None
        is_passed_enough = first is not None and self._num_handed_out - first.number >= MAX_WAITING_FOR_NODES
        may_wait = self._capacity.can_grow and len(waiting) < MAX_WAITING_FOR_NODES and not is_passed_enough
        by_priority = self._order.by_priority()
        for ready in by_priority:
            found = None
            if self._fits(ready.demand):
                found = ready.best if holder is None else self._passing(ready, holder, now_s)
            elif may_wait:
                found = ready.best
            elif holder is None and self._can_hold(ready.demand):
                holder = self._reserve(ready.best)
            if found is not None:
                return found
        if holder is None:
            self._reservation = None
        if by_priority and not self._running:
            return by_priority[0].best  # no node can hold it: let the cluster say so, and wait for one that can
        return None

    def _reserve(self, node: Node) -> _Reservation:
        if self._reservation is None or self._reservation.node is not node:
            self._reservation = _Reservation(node, self._num_handed_out)
        return self._reservation

    def _passing(self, ready: Ready, holder: _Reservation, now_s: float) -> Node | None:
        """The first that delays nothing: it is over when the gap ends, or there is room for both then."""
        gap = self._gap(holder, now_s)
        if gap.left_then.holds(ready.demand.total):
            return ready.best
        for node in islice(ready.best_first(), _MAX_LOOKED_AT):
            if now_s + self._order.seconds(node.trial) <= gap.ends_s:
                return node
        return None

    def _gap(self, holder: _Reservation, now_s: float) -> _Gap:
        """Until when others may use what the holder of the reservation waits for."""
        ends = [(now_s + self._rest_s(run, now_s), run) for run in self._running.values() if run.has_place]
        blockers = sorted((end_s, run.number, run) for end_s, run in ends if run.number <= holder.num_before)
        wanted, starts_s = holder.node.trial.demand.total, now_s
        left = self._capacity.left_by(run.demand for _, _, run in blockers)
        for end_s, _, run in blockers:
            if left.holds(wanted):
                break
            left, starts_s = left + run.demand.total, end_s
        still_there = (run.demand for end_s, run in ends if end_s > starts_s)
        return _Gap(starts_s, self._capacity.left_by(still_there) - wanted)

    def _rest_s(self, run: _Run, now_s: float) -> float:
        """Seconds until a trial ends; one that is late is expected to take half as long again."""
        whole_s, elapsed_s = self._order.seconds(run.node.trial), now_s - run.started_s
        return whole_s - elapsed_s if elapsed_s < whole_s else elapsed_s / 2
